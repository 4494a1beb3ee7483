//! What is in time in weather, too: a lease that is over is dead before nothing has stood in its way for the length of the
//! bound, all told, and a task whose heartbeats are answered is not lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use leasehold_law::cause::Cause;
use leasehold_law::id::{LeaseId, TaskId};
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::request::Liveness;
use leasehold_law::task::{Task, TaskState};
use leasehold_law::time::{Span, Timestamp};

use crate::life::pause;
use crate::quiet::BOUND;
use crate::world::World;

/// A call that takes longer stands in the way of others.
const SLOW: Span = Span(200);
/// What could not be recorded is tried again after this.
const RECORDED_AGAIN: Span = Span::from_secs(5);
/// A target that did not answer is asked again after this.
const ASKED_AGAIN: Span = Span::from_secs(3);
/// The pause between two looks.
const LOOK: Span = Span::from_secs(1);

/// What stands in the way of a target, of one life of the broker, or of everybody.
#[derive(Clone, Default)]
pub(crate) struct Hindrance(Arc<Mutex<Hindered>>);

#[derive(Default)]
struct Hindered {
    /// What is under way, since when, and whether it goes wrong; a call that goes well hinders where it is slow.
    under_way: BTreeMap<u64, (Span, bool)>,
    count: u64,
    last: Span,
}

/// Something that may stand in the way, until it is dropped.
pub(crate) struct Hindering<'a> {
    of: Hindrance,
    world: &'a World,
    number: u64,
}

impl Hindrance {
    fn hindered(&self) -> MutexGuard<'_, Hindered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call or a state begins; `wrong` hinders from its beginning to its end.
    pub(crate) fn begin<'a>(&self, world: &'a World, wrong: bool) -> Hindering<'a> {
        let mut hindered = self.hindered();
        hindered.count += 1;
        let number = hindered.count;
        hindered.under_way.insert(number, (world.time.passed(), wrong));
        Hindering { of: self.clone(), world, number }
    }

    /// Something went wrong at this moment.
    pub(crate) fn note(&self, world: &World) {
        self.hindered().last = world.time.passed();
    }

    /// When something stood in the way last.
    fn last(&self, now: Span) -> Span {
        let hindered = self.hindered();
        let hinders = |(begun, wrong): &(Span, bool)| *wrong || now.0 - begun.0 > SLOW.0;
        if hindered.under_way.values().any(hinders) { now } else { hindered.last }
    }
}

impl Hindering<'_> {
    /// It went wrong.
    pub(crate) fn went_wrong(&self) {
        self.of.note(self.world);
    }
}

impl Drop for Hindering<'_> {
    fn drop(&mut self) {
        let (now, mut hindered) = (self.world.time.passed(), self.of.hindered());
        let Some((begun, wrong)) = hindered.under_way.remove(&self.number) else { return };
        if wrong || now.0 - begun.0 > SLOW.0 {
            hindered.last = now;
        }
    }
}

/// When a commit of each lease failed last, or nobody knows whether it did.
#[derive(Clone, Default)]
pub(crate) struct Unrecorded(Arc<Mutex<BTreeMap<LeaseId, Span>>>);

impl Unrecorded {
    pub(crate) fn note(&self, world: &World, leases: Vec<LeaseId>) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.extend(leases.into_iter().map(|lease| (lease, world.time.passed())));
    }

    fn last(&self, lease: LeaseId) -> Span {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.get(&lease).copied().unwrap_or_default()
    }
}

/// Looks once a second, as long as the weather lasts, whether what is over is dead.
pub(crate) async fn watch(world: Arc<World>) {
    let mut overdue = BTreeMap::new();
    while !world.weather.is_calm() {
        look(&world, &mut overdue);
        pause(Duration::from_millis(LOOK.0)).await;
    }
}

/// Counts for each lease that is over the looks at which nothing has stood in its way since the look before.
fn look(world: &World, overdue: &mut BTreeMap<LeaseId, u64>) {
    let now = world.time.passed();
    let Some((broker, life)) = world.serving() else { return };
    let (everybody, broker_s) = (world.hindrance.last(now), life.hindrance.last(now).0 + ASKED_AGAIN.0);
    let (rows, broker_now) = (world.record.rows(), broker.now());
    let over: Vec<_> = rows.live().filter(|lease| is_over(lease, broker_now)).collect();
    overdue.retain(|id, _| over.iter().any(|lease| lease.terms.id == *id));
    for lease in over {
        let id = lease.terms.id;
        let target = world.site(&lease.terms.pair.target).hindrance.last(now).0 + ASKED_AGAIN.0;
        let record = life.unrecorded.last(id).0 + RECORDED_AGAIN.0;
        let clear_since = everybody.0.max(broker_s).max(target).max(record);
        if now.0 < clear_since + LOOK.0 {
            continue;
        }
        let looks = overdue.entry(id).or_insert(0);
        *looks += 1;
        if *looks == BOUND.0 / LOOK.0 + 1 {
            let state = &lease.state;
            world
                .history
                .wrong(format!("{id} outlives its expiry, and nothing stands in the way: {state:?}"));
        }
    }
}

/// Whether it should be dead. What is being minted or renewed may land as long as its call may, and what was is not proven
/// dead before; what nobody can kill is Residual on record; and what was tried in vain again and again is tried after ever
/// longer pauses, of a minute at most.
fn is_over(lease: &Lease, now: Timestamp) -> bool {
    let past = |end: Timestamp| now > end;
    match &lease.state {
        LeaseState::Active { expires_at, .. } => past(*expires_at),
        LeaseState::Revoking { expires_at, progress, .. } => {
            past(*expires_at) && progress.not_before.is_none_or(past) && past(progress.next_try)
        }
        LeaseState::New
        | LeaseState::Refused { .. }
        | LeaseState::Minting { .. }
        | LeaseState::Renewing { .. }
        | LeaseState::Residual { .. }
        | LeaseState::Revoked { .. }
        | LeaseState::Lapsed { .. } => false,
    }
}

/// A moment, by true time and by the broker's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(Span, Timestamp);

impl Moment {
    pub(crate) fn of(world: &World, now: Timestamp) -> Self {
        Self(world.time.passed(), now)
    }

    /// By whichever clock says more: a broker's may step.
    fn since(self, before: Self) -> Span {
        Span(self.0.0.saturating_sub(before.0.0)).max(self.1.since(before.1))
    }
}

/// A heartbeat that was answered: when it was sent, and when the answer came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat(pub(crate) Moment, pub(crate) Moment);

/// The last two beats of each task; its beginning counts as one.
#[derive(Default)]
pub(crate) struct Beats(BTreeMap<TaskId, (Beat, Beat)>);

impl Beats {
    pub(crate) fn heard(&mut self, task: TaskId, beat: Beat) {
        let last = self.0.get(&task).map_or(beat, |(_, last)| *last);
        self.0.insert(task, (last, beat));
    }

    /// Why a task that is called lost should not be: its last beats came within its grace, and so did its end. A beat that
    /// came when the grace had passed may be answered by a broker that has just decided.
    pub(crate) fn wrongly_lost(&self, world: &World, task: &Task) -> Option<String> {
        let TaskState::Ending { cause: Cause::TaskLost, at } = task.state else { return None };
        let Liveness::Heartbeat { grace } = task.terms.liveness else {
            return Some(format!("{} is lost, and only its deadline holds it", task.terms.id));
        };
        let (before, last) = self.0.get(&task.terms.id)?;
        let silence = Moment::of(world, at).since(last.0);
        let held = last.1.since(before.0) < grace && silence < grace;
        held.then(|| format!("{} is lost {silence} after a beat that was answered", task.terms.id))
    }
}
