//! What is known of the drills of each target, and the schedule by which each is drilled.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leasehold_law::caller::CallerId;
use leasehold_law::cause::Cause;
use leasehold_law::drill::{Drill, Plan};
use leasehold_law::reason::Reason;
use leasehold_law::task::{Task, TaskState};
use leasehold_law::time::{Span, Timestamp};

use super::BROKER_REF;
use crate::broker::refused::Refused;
use crate::broker::{Broker, Inner};
use crate::store::TaskFilter;

/// How soon after the start a target is drilled that is due.
const FIRST: Span = Span::from_mins(1);
/// How soon a target is drilled again whose drill failed, or could not be begun, at most: what has passed by itself is
/// no alarm for long.
const AGAIN: Span = Span::from_mins(10);
/// As [`AGAIN`], where somebody or some policy is against it: each try is a refusal on record.
const REFUSED_AGAIN: Span = Span::from_mins(60);
/// How many open tasks of drills are read at a time.
const PAGE: usize = 512;

/// What is known of the drills of one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrillStatus {
    /// What it is drilled with; with nothing, where config says so or has no fit grant.
    pub plan: Option<Plan>,
    /// The last drill that came to its end, by any broker of this store that this one knows of.
    pub last: Option<Drill>,
    /// When the last one began that has passed, likewise.
    pub passed_at: Option<Timestamp>,
    /// Why the schedule's last try could not be begun, if it could not.
    pub not_drilled: Option<String>,
    /// When the schedule drills it next.
    pub next: Option<Timestamp>,
}

/// The drills of every target.
#[derive(Default)]
pub(in crate::broker) struct Drills(Mutex<BTreeMap<String, Known>>);

#[derive(Default)]
struct Known {
    running: bool,
    status: DrillStatus,
}

/// The turn of one drill: a target has one at a time.
pub(super) struct Turn {
    inner: Arc<Inner>,
    target: String,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.inner.drills.map().entry(self.target.clone()).or_default().running = false;
    }
}

impl Drills {
    fn map(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::broker) fn status(&self, target: &str) -> DrillStatus {
        self.map().get(target).map(|known| known.status.clone()).unwrap_or_default()
    }

    /// A drill is over: the alarm of an earlier one is, too, if this one has passed.
    pub(super) fn ended(&self, drill: &Drill, every: Option<Span>) {
        let mut map = self.map();
        let status = &mut map.entry(drill.pair.target.clone()).or_default().status;
        if status.last.as_ref().is_none_or(|last| last.at <= drill.at) {
            let wait = |every: Span| if drill.has_passed() { every } else { every.min(AGAIN) };
            status.next = every.map(|every| drill.at + wait(every));
            status.not_drilled = None;
            if drill.has_passed() {
                status.passed_at = Some(drill.at);
            }
            status.last = Some(drill.clone());
        }
    }

    fn passed(&self, target: &str, at: Timestamp) {
        let mut map = self.map();
        let known = &mut map.entry(target.to_owned()).or_default().status.passed_at;
        *known = (*known).max(Some(at));
    }

    fn refused(&self, target: &str, refused: &Refused) {
        let why = refused.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        let mut map = self.map();
        let status = &mut map.entry(target.to_owned()).or_default().status;
        status.not_drilled = Some(format!("{}{why}", refused.what));
    }

    /// Whether it is time. If so, no later beat says so before this one's drill is over.
    fn is_due(&self, target: &str, now: Timestamp, every: Span) -> bool {
        let mut map = self.map();
        let next = &mut map.entry(target.to_owned()).or_default().status.next;
        let longest = every.max(REFUSED_AGAIN);
        let is_due = next.get_or_insert(now + FIRST.min(every)).has_come(now, longest);
        if is_due {
            *next = Some(now + AGAIN.min(every));
        }
        is_due
    }

    /// A start drills nothing in its first moments.
    fn not_before(&self, target: &str, at: Timestamp) {
        let mut map = self.map();
        let next = &mut map.entry(target.to_owned()).or_default().status.next;
        *next = Some(next.map_or(at, |next| next.max(at)));
    }

    fn again_at(&self, target: &str, at: Timestamp) {
        self.map().entry(target.to_owned()).or_default().status.next = Some(at);
    }
}

impl Broker {
    /// Drills each target whose time has come, beside the beat.
    pub(in crate::broker) fn tend_drills(&self) {
        let Some(every) = self.inner.keep.drill_every() else { return };
        let now = self.now();
        for target in self.registry().catalog().drills.keys() {
            if self.inner.drills.is_due(target, now, every) {
                let (broker, target) = (self.clone(), target.clone());
                self.inner.owned.spawn(async move { broker.drill_by_schedule(&target, every).await });
            }
        }
    }

    async fn drill_by_schedule(&self, target: &str, every: Span) {
        // Another broker of the same store may have done it.
        if let Ok(Some(last)) = self.inner.ledger.last_drill(target).await
            && last.has_passed()
            && self.now() < last.at + every
        {
            return self.inner.drills.ended(&last, Some(every));
        }
        if let Err(refused) = self.drill_to_its_end(target).await {
            let again = if refused.is_denial() { REFUSED_AGAIN } else { AGAIN };
            self.inner.drills.again_at(target, self.now() + again.min(every));
            // One that is under way, here or elsewhere, says itself how it went.
            if refused.reason != Reason::Contended {
                tracing::warn!(target, %refused, "a target is not drilled by its schedule");
                self.inner.drills.refused(target, &refused);
            }
        }
    }

    async fn drill_to_its_end(&self, target: &str) -> Result<(), Refused> {
        let mut told = self.drill(target, None).await?;
        while let Some(drill) = told.recv().await {
            drill?;
        }
        Ok(())
    }
}

impl Inner {
    /// The turn to drill a target, if nobody has it.
    pub(super) fn take_drill(self: &Arc<Self>, target: &str) -> Option<Turn> {
        let mut map = self.drills.map();
        let known = map.entry(target.to_owned()).or_default();
        let taken = std::mem::replace(&mut known.running, true);
        (!taken).then(|| Turn { inner: self.clone(), target: target.to_owned() })
    }

    /// After a start: what the last run left of its own drills ends, and what each target's last drill came to is
    /// known again, so that no alarm is forgotten.
    pub(in crate::broker) async fn recover_drills(self: &Arc<Self>) -> Result<(), Refused> {
        for task in self.open_drills().await? {
            let is_own = task.terms.refs.get(BROKER_REF) == Some(&self.name);
            if is_own && task.state == TaskState::Open {
                self.end_due(task, Cause::CrashRecovery).await;
            }
        }
        let every = self.keep.drill_every();
        for target in self.registry.load_full().catalog().drills.keys() {
            if let Some(last) = self.ledger.last_drill(target).await? {
                self.drills.ended(&last, every);
            }
            if let Some(at) = self.ledger.last_passed(target).await? {
                self.drills.passed(target, at);
            }
            if every.is_some() {
                self.drills.not_before(target, self.clock.now() + FIRST);
            }
        }
        Ok(())
    }

    async fn open_drills(&self) -> Result<Vec<Task>, Refused> {
        let agent = Some(CallerId::Drill);
        let mut filter = TaskFilter { agent, live: true, ..TaskFilter::default() };
        let mut open = Vec::new();
        loop {
            let page = self.ledger.store().tasks(&filter, PAGE).await?;
            let Some(last) = page.last() else { return Ok(open) };
            filter.before = Some(last.terms.id);
            open.extend(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use leasehold_law::drill::{Failure, Step, Taken};
    use leasehold_law::id::TaskId;

    use super::*;

    const HOUR: Span = Span::from_mins(60);
    const T0: Timestamp = Timestamp(1_795_000_000_000);

    fn drill(at: Timestamp, passed: bool) -> Drill {
        Drill {
            pair: "orders.read@orders".parse().unwrap(),
            by: None,
            task: TaskId::derive(at, 1),
            lease: None,
            at,
            steps: vec![Taken { step: Step::Refuse, took: Span(1) }],
            failure: (!passed).then(|| Failure { step: Step::Use, why: "no".into(), alive: false }),
        }
    }

    #[test]
    fn a_target_is_due_once_a_minute_after_the_start_and_then_by_its_last_drill() {
        let drills = Drills::default();
        let due = |at: Timestamp| drills.is_due("orders", at, HOUR);
        assert!(!due(T0) && !due(T0 + Span::from_secs(59)));
        assert!(due(T0 + FIRST), "a minute after the start");
        assert!(!due(T0 + FIRST), "and not again while it is drilled");
        drills.ended(&drill(T0 + FIRST, true), Some(HOUR));
        assert!(!due(T0 + FIRST + AGAIN) && due(T0 + FIRST + HOUR));
        drills.ended(&drill(T0 + HOUR, false), Some(HOUR));
        assert!(due(T0 + HOUR + AGAIN), "a failed drill is done again soon");
    }

    #[test]
    fn an_alarm_ends_with_a_later_drill_that_passed_and_with_no_earlier_one() {
        let drills = Drills::default();
        drills.ended(&drill(T0 + HOUR, false), None);
        drills.ended(&drill(T0, true), None);
        assert!(drills.status("orders").last.unwrap().failure.is_some(), "older news changes nothing");
        drills.refused("orders", &Refused::new(Reason::Frozen, "frozen").why("by rev_1"));
        assert_eq!(drills.status("orders").not_drilled.as_deref(), Some("frozen: by rev_1"));
        assert!(drills.status("orders").last.unwrap().failure.is_some(), "the alarm stands");
        drills.ended(&drill(T0 + HOUR + HOUR, true), None);
        let status = drills.status("orders");
        assert!(status.last.unwrap().has_passed() && status.not_drilled.is_none() && status.next.is_none());
    }
}
