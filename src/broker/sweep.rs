//! The sweep: whatever is due is found by the index and set on its way, once a beat, for as long as the broker runs.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leasehold_backend::{BackendError, Findable, Reaped};
use leasehold_law::cause::{Cause, Rank};
use leasehold_law::journal::Event;
use leasehold_law::lease::{Lease, LeaseEvent, LeaseState};
use leasehold_law::task::Task;
use leasehold_law::time::{Span, Timestamp};

use super::{Breaker, Broker, Inner};
use crate::store::{DueLease, StoreError};
use crate::vault_door::MINT_WINDOW;

/// How often it looks.
const BEAT: Span = Span(250);
/// How many beats make a second.
const BEATS_A_SECOND: u64 = 4;
/// How often it looks again at once where more was due than it could bring: a storm of expiries does not wait for beats.
const ROUNDS: usize = 4;
/// How many rows it works on at a time.
const SLICE: usize = 512;
/// How soon a target is asked again about a renewal whose answer never came, or a natural end.
const ASK_AGAIN: Span = Span::from_secs(2);
/// How soon a row that could not be set aside is taken in again: nothing that may be alive is tried less often (REV-2).
pub(super) const BAD_ROW_AGAIN: Span = Span::from_mins(1);
/// The longest that a row is left alone.
const LONGEST_HOLD: Span = BAD_ROW_AGAIN;
/// How long after its removal a principal's late sessions may still arrive: PostgreSQL's longest post_auth_delay is
/// 2147 s (RULES R-7).
const REAP_FOR: Span = Span::from_mins(60);
/// How often the clock's high-water mark is written down.
const MARK_EVERY: u64 = 40;
/// How often leases are looked for that wait for a moment which a clock put back has moved away.
const AWAY_EVERY: u64 = 240;

impl Broker {
    /// Looks for what is due until the broker stops. One bad row, task or target never stops the rest (law 9).
    pub async fn sweep(&self) {
        let mut beat = tokio::time::interval(BEAT.as_duration());
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for count in 0_u64.. {
            beat.tick().await;
            self.sweep_once(count).await;
        }
    }

    /// One beat. What is done only once a second or less goes by the count.
    pub async fn sweep_once(&self, count: u64) {
        let inner = &self.inner;
        inner.mend_records();
        for _ in 0..ROUNDS {
            if !inner.sweep_leases().await {
                break;
            }
        }
        inner.sweep_tasks().await;
        if count.is_multiple_of(BEATS_A_SECOND) {
            inner.count_brokers().await;
            inner.end_silent().await;
            inner.reap();
            inner.tend_asides().await;
            inner.tend_claims();
            inner.tend_targets();
            self.tend_drills();
            inner.tend_archive();
            inner.tend_reviews();
            inner.tend_revocations();
            inner.finish_tasks().await;
            inner.condemn_out_of_reach().await;
            inner.let_go_of_unreached().await;
        }
        if count.is_multiple_of(AWAY_EVERY) {
            inner.wake_put_off();
        }
        if count.is_multiple_of(MARK_EVERY)
            && inner.ledger.is_well()
            && let Err(error) = inner.ledger.record_time().await
        {
            tracing::warn!(%error, "the clock's high-water mark is not written");
        }
    }
}

/// Rows that are due and cannot move now: their target does not answer, they cannot be read, or the journal takes
/// nothing. They are left alone for a while, and do not count against the slice, so that they hide nobody (law 9).
#[derive(Default)]
pub(super) struct Held(Mutex<HashMap<String, Timestamp>>);

impl Held {
    /// Holds a row, by its id, for no longer than [`LONGEST_HOLD`].
    pub(super) fn put(&self, row: String, until: Timestamp) {
        self.map().insert(row, until);
    }

    /// Lets go of one that has moved.
    pub(super) fn let_go(&self, row: &str) {
        self.map().remove(row);
    }

    pub(super) fn is_held(&self, row: &str) -> bool {
        self.map().contains_key(row)
    }

    /// Lets go of those whose time is over, and counts the rest.
    fn settle(&self, now: Timestamp) -> usize {
        let mut held = self.map();
        held.retain(|_, until| !until.has_come(now, LONGEST_HOLD));
        held.len()
    }

    fn map(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The targets whose late sessions are being looked for.
#[derive(Default)]
pub(super) struct Reaping(Arc<Mutex<BTreeSet<String>>>);

impl Reaping {
    fn begin(&self, target: &str) -> Option<Turn> {
        let begun = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(target.to_owned());
        begun.then(|| Turn { target: target.to_owned(), all: Arc::clone(&self.0) })
    }
}

/// A look that is under way; it is over when this is gone.
struct Turn {
    target: String,
    all: Arc<Mutex<BTreeSet<String>>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.target);
    }
}

impl Inner {
    /// Every target by itself, so that none hides what is due in another (law 9). Gives whether there may be more that
    /// can move now.
    async fn sweep_leases(self: &Arc<Self>) -> bool {
        let now = self.clock.now();
        let held = self.held.settle(now);
        let more = match self.ledger.store().live_targets().await {
            Ok(targets) => {
                let sweeps = targets.iter().map(|target| self.sweep_target(target, now, held));
                futures::future::join_all(sweeps).await.contains(&true)
            }
            Err(error) => {
                tracing::error!(%error, "the store does not say where anything is due");
                false
            }
        };
        self.drive_all();
        more
    }

    /// Brings no more than the target's lane has room for: what stays behind is due, and comes with a later round.
    /// Gives whether the last lane was brought in full to a target that takes it.
    async fn sweep_target(self: &Arc<Self>, target: &str, now: Timestamp, held: usize) -> bool {
        let mut more = false;
        for rank in Rank::ALL {
            let room = self.revoker.room(target, rank);
            if room == 0 {
                more = false;
                continue;
            }
            match self.due_rows(target, rank, now, (room, held)).await {
                Ok(due) => more = self.sweep_rows(due).await >= room,
                Err(error) => tracing::error!(target, %error, "the store does not say what is due"),
            }
        }
        more && self.revoker.breaker(target) == Breaker::Closed
    }

    /// What is due and can move, as far as there is room. Those that wait for their target lie behind what has just
    /// fallen due, so that in a storm a look that leaves no place for them finds enough.
    async fn due_rows(
        &self,
        target: &str,
        rank: Rank,
        now: Timestamp,
        (room, held): (usize, usize),
    ) -> Result<Vec<DueLease>, StoreError> {
        let (mut limit, longest) = (room + held, room + held + self.revoker.in_the_way(target));
        loop {
            let mut due = self.ledger.store().due_leases(target, rank, now, limit).await?;
            let is_all = due.len() < limit || limit == longest;
            due.retain(|row| self.can_move(row));
            due.truncate(room);
            if is_all || due.len() == room {
                return Ok(due);
            }
            limit = longest;
        }
    }

    fn can_move(&self, row: &DueLease) -> bool {
        match row {
            DueLease::Lease(lease) => {
                !self.held.is_held(&lease.terms.id.to_string()) && !self.revoker.has_in_hand(lease)
            }
            DueLease::Bad(row) => !self.held.is_held(&row.id),
        }
    }

    /// Sets rows on their way, and says how many.
    async fn sweep_rows(self: &Arc<Self>, due: Vec<DueLease>) -> usize {
        let count = due.len();
        let (expired, mut due) = self.expired(due);
        self.condemn_all(expired, Cause::Expired).await;
        while !due.is_empty() {
            let steps = due.drain(..due.len().min(SLICE)).map(|row| async {
                match row {
                    DueLease::Lease(lease) => self.sweep_lease(*lease).await,
                    DueLease::Bad(row) => self.hold_bad_row(row),
                }
            });
            futures::future::join_all(steps).await;
        }
        count
    }

    /// Leases whose time is up, and the other rows.
    fn expired(&self, due: Vec<DueLease>) -> (Vec<Lease>, Vec<DueLease>) {
        let (mut expired, mut others) = (Vec::new(), Vec::new());
        for row in due {
            match row {
                DueLease::Lease(lease) if self.is_expired(&lease) => expired.push(*lease),
                DueLease::Lease(_) | DueLease::Bad(_) => others.push(row),
            }
        }
        (expired, others)
    }

    pub(super) fn is_expired(&self, lease: &Lease) -> bool {
        matches!(lease.state, LeaseState::Active { .. }) && !self.awaits_reconciliation(lease)
    }

    async fn sweep_lease(self: &Arc<Self>, lease: Lease) {
        if self.awaits_reconciliation(&lease) {
            return self.held.put(lease.terms.id.to_string(), self.clock.now() + ASK_AGAIN);
        }
        match lease.state {
            LeaseState::Minting { .. } => self.condemn(lease, Cause::CrashRecovery, None).await,
            LeaseState::Renewing { .. } => self.hold_renewal(lease),
            LeaseState::Revoking { .. } => self.kill(lease),
            LeaseState::Residual { .. } => self.hold_residual(lease),
            // What expired was condemned with the others.
            LeaseState::Active { .. }
            | LeaseState::New
            | LeaseState::Refused { .. }
            | LeaseState::Revoked { .. }
            | LeaseState::Lapsed { .. } => {}
        }
    }

    /// The target is asked beside the sweep, which waits for no target.
    fn hold_renewal(self: &Arc<Self>, lease: Lease) {
        self.held.put(lease.terms.id.to_string(), self.clock.now() + ASK_AGAIN);
        let inner = self.clone();
        self.owned.spawn(async move { inner.recover_renewal(lease).await });
    }

    fn hold_residual(self: &Arc<Self>, lease: Lease) {
        self.held.put(lease.terms.id.to_string(), self.clock.now() + ASK_AGAIN);
        let inner = self.clone();
        self.owned.spawn(async move { inner.lapse(lease).await });
    }

    /// Its natural end has passed by the broker's clock, which may have stepped. Where the target can say, it is asked;
    /// another counts from the moment at which its mint landed.
    async fn lapse(self: &Arc<Self>, lease: Lease) {
        let target = &lease.terms.pair.target;
        match self.look_up(target, &lease.terms.principal).await {
            Ok(Some(found)) if found.remaining.is_some_and(|left| left > Span::ZERO) => return,
            Ok(None) if self.is_blind(target) && self.clock.now() < end_of(&lease) + MINT_WINDOW => return,
            Err(error @ BackendError::Transient { .. }) => {
                return tracing::warn!(lease = %lease.terms.id, %error, "a natural end cannot be read back yet");
            }
            Ok(Some(_) | None) | Err(_) => {}
        }
        let step = LeaseEvent::Lapsed { at: self.clock.now() };
        match self.ledger.step(&lease, step, &[]).await {
            Ok(lease) => self.finish_task(lease.terms.task).await,
            Err(error) => {
                tracing::warn!(lease = %lease.terms.id, %error, "a natural end is not on record yet");
            }
        }
    }

    /// Whether a target cannot say what it holds.
    fn is_blind(&self, target: &str) -> bool {
        self.door.capabilities(target).is_none_or(|can| can.findable == Findable::No)
    }

    /// Ends open tasks whose time is up. Those that are ending have a look of their own, so that however many wait for
    /// a target that is away, they hide none of these (law 9).
    async fn sweep_tasks(self: &Arc<Self>) {
        let now = self.clock.now();
        let held = self.held.settle(now);
        let due = match self.ledger.store().due_tasks(now, SLICE + held).await {
            Ok(due) => due,
            Err(error) => return tracing::error!(%error, "the store does not say which tasks are due"),
        };
        for task in due.into_iter().filter(|task| !self.held.is_held(&task.terms.id.to_string())) {
            let cause = task.ends_by();
            self.end_due(task, cause).await;
        }
    }

    /// Ends a task whose time is up. A journal that is known to take nothing is not waited for: its leases are killed,
    /// and the task is ended by a later beat.
    pub(super) async fn end_due(self: &Arc<Self>, task: Task, cause: Cause) {
        let id = task.terms.id;
        if !self.ledger.is_well() {
            self.held.put(id.to_string(), self.clock.now() + ASK_AGAIN);
            let live = self.live_of_task(id).await.unwrap_or_default();
            return live.into_iter().for_each(|lease| self.kill_unrecorded(lease, cause, None));
        }
        if let Err(error) = self.end_task(task, cause).await {
            self.held.put(id.to_string(), self.clock.now() + ASK_AGAIN);
            tracing::warn!(task = %id, %error, ?cause, "a task could not be ended yet");
        }
    }

    /// Ends sessions that arrived after their principal was removed, in every target by itself. A target that is still
    /// being looked at is not asked again.
    fn reap(self: &Arc<Self>) {
        for target in self.door.targets() {
            let Some(turn) = self.reaping.begin(target) else { continue };
            let inner = self.clone();
            self.owned.spawn(async move { inner.reap_target(&turn.target).await });
        }
    }

    /// What is late and was never ours is left alone.
    async fn reap_target(&self, target: &str) {
        let late = match self.door.late_sessions(target).await {
            Ok(late) if late.is_empty() => return,
            Ok(late) => late,
            Err(error) => return tracing::debug!(target, %error, "late sessions could not be looked for"),
        };
        let since = self.clock.now() - REAP_FOR;
        let ours = match self.ledger.store().revoked_handles(target, &late, since).await {
            Ok(ours) if ours.is_empty() => return,
            Ok(ours) => ours,
            Err(error) => return tracing::error!(%error, "the store does not say whose sessions are late"),
        };
        // What another store of this installation answers for is left to it.
        if !self.owner_now(target).await.is_ok_and(|owner| owner.is_believed()) {
            return;
        }
        match self.door.reap(target, &ours).await {
            Ok(reaped) => self.record_reaped(target, reaped).await,
            Err(error) => tracing::warn!(target, %error, "late sessions could not be ended"),
        }
    }

    async fn record_reaped(&self, target: &str, reaped: Vec<Reaped>) {
        for found in reaped.into_iter().filter(|found| found.sessions > 0) {
            let event =
                Event::Reaped { target: target.to_owned(), handle: found.handle, sessions: found.sessions };
            if let Err(error) = self.ledger.note(target, event).await {
                tracing::warn!(target, %error, "late sessions that were ended are not on record");
            }
        }
    }
}

fn end_of(lease: &Lease) -> Timestamp {
    lease.state.expires_at().unwrap_or(lease.terms.life_ends_at)
}
