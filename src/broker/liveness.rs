//! Who was heard when. Each broker remembers what it heard itself, and brokers that share a store tell each other; a
//! task is lost only when none of them has heard from it for its grace. Only time in which a broker was ready counts
//! as silence (RULES R-23).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use leasehold_law::cause::Cause;
use leasehold_law::id::TaskId;
use leasehold_law::request::Liveness as Held;
use leasehold_law::task::{Task, TaskState};
use leasehold_law::time::{Span, Timestamp};

use super::decide::Asker;
use super::refused::Refused;
use super::{Broker, Inner};
use crate::store::StoreError;

/// How often the other brokers are told, in seconds: within a quarter of the shortest grace.
const TELL_EVERY: u64 = Held::MIN_GRACE.0 / 4 / 1000;

/// How much of the time between two looks counts as silence at most. A look comes every second, and 5 s is how long a
/// journal that hangs may hold up a beat. Where it comes later than that, the broker was paused, its host was suspended,
/// its clock put on, or the others could not be asked: agents may have called, and nobody could hear them (RULES R-23).
/// The shortest grace outlasts several such pauses.
const COUNTED: Span = Span::from_secs(5);

/// When each task was last heard, here or by another broker of the same store.
#[derive(Default)]
pub(super) struct Liveness {
    heard: Mutex<BTreeMap<TaskId, Heard>>,
    /// Something was heard here that the other brokers do not know.
    untold: AtomicBool,
    /// When silence was counted last.
    looked: Mutex<Option<Timestamp>>,
    seconds: AtomicU64,
}

/// What is known of one task.
#[derive(Clone, Copy)]
struct Heard {
    /// By anybody, or when its grace began; later by the time since that is nobody's silence.
    last: Timestamp,
    /// By this broker itself.
    here: Option<Timestamp>,
    /// For how long it may be silent: no task is read before, so that those of a long grace hold up nobody's end.
    grace: Span,
}

impl Liveness {
    /// One that its deadline alone holds is not listened for.
    pub(super) fn heard(&self, task: &Task, now: Timestamp) {
        if let Some(grace) = grace(task) {
            self.hear(task.terms.id, grace, now);
        }
    }

    fn hear(&self, task: TaskId, grace: Span, now: Timestamp) {
        self.map().insert(task, Heard { last: now, here: Some(now), grace });
        self.untold.store(true, Ordering::Relaxed);
    }

    /// Its grace begins, unless it has.
    pub(super) fn expect(&self, task: &Task, now: Timestamp) {
        if let Some(grace) = grace(task) {
            self.map().entry(task.terms.id).or_insert(Heard { last: now, here: None, grace });
        }
    }

    /// Another broker has heard from it.
    fn heard_elsewhere(&self, task: TaskId, at: Timestamp) {
        if let Some(heard) = self.map().get_mut(&task) {
            heard.last = heard.last.max(at);
        }
    }

    pub(super) fn forget(&self, task: TaskId) {
        self.map().remove(&task);
    }

    pub(super) fn last(&self, task: TaskId) -> Option<Timestamp> {
        self.map().get(&task).map(|heard| heard.last)
    }

    /// Counts the time since the last look, as far as it counts. Nobody was heard later than now: a clock was put back.
    fn look(&self, now: Timestamp) {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner).replace(now).unwrap_or(now);
        let uncounted = Span(now.since(looked).0.saturating_sub(COUNTED.0));
        if uncounted == Span::ZERO && looked <= now {
            return;
        }
        for heard in self.map().values_mut() {
            heard.last = now.min(heard.last + uncounted);
            heard.here = heard.here.map(|here| now.min(here));
        }
    }

    /// Those that have been silent for one such part of their grace.
    fn silent_for_one(&self, part: u64, now: Timestamp) -> Vec<TaskId> {
        let heard = self.map();
        let is_silent = |heard: &Heard| now.since(heard.last) >= heard.grace.fraction(1, part);
        heard.iter().filter(|(_, heard)| is_silent(heard)).map(|(task, _)| *task).collect()
    }

    /// What this broker itself has heard, and how long ago.
    fn heard_here(&self, now: Timestamp) -> Vec<(TaskId, Span)> {
        let heard = self.map();
        heard.iter().filter_map(|(task, heard)| Some((*task, now.since(heard.here?)))).collect()
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<TaskId, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a heartbeat is answered with.
#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    /// When the task is lost if nothing more is heard; never, for one that only its deadline holds.
    pub lost_at: Option<Timestamp>,
}

impl Broker {
    /// A task's agent says that it is there.
    ///
    /// # Errors
    /// Where the task is not the caller's or takes nothing more.
    pub async fn heartbeat(&self, asker: &Asker, id: TaskId) -> Result<(Task, Pulse), Refused> {
        let task = self.own_task(asker, id).await?;
        if task.state != TaskState::Open {
            return Err(Refused::task_ended(&task));
        }
        let now = self.now();
        self.inner.liveness.heard(&task, now);
        let lost_at = grace(&task).map(|grace| now + grace);
        Ok((task, Pulse { lost_at }))
    }

    /// Whether a task has been silent for half its grace: said to watchers, before it is lost.
    #[must_use]
    pub fn is_silent(&self, task: &Task) -> bool {
        let quiet = |(last, lost_at): (Timestamp, Timestamp)| {
            self.now().since(last) > lost_at.since(last).fraction(1, 2)
        };
        task.state == TaskState::Open && self.pulse(task).is_some_and(quiet)
    }

    /// When a task was last heard, and when it is lost if nothing more is; for watchers.
    #[must_use]
    pub fn pulse(&self, task: &Task) -> Option<(Timestamp, Timestamp)> {
        let grace = grace(task)?;
        let last = self.inner.liveness.last(task.terms.id).unwrap_or(self.inner.started_at);
        Some((last, last + grace))
    }
}

/// The grace of a task that heartbeats hold.
pub(super) fn grace(task: &Task) -> Option<Span> {
    match task.terms.liveness {
        Held::Heartbeat { grace } => Some(grace),
        Held::Deadline => None,
    }
}

impl Inner {
    /// Ends every task that was silent for longer than its grace. Time in which the other brokers cannot be asked is
    /// looked at when they can, all at once, and does not count then.
    pub(super) async fn end_silent(self: &std::sync::Arc<Self>) {
        let asked_at = self.clock.now();
        let elsewhere = match self.share_heard(asked_at).await {
            Ok(elsewhere) => elsewhere,
            Err(error) => {
                return tracing::warn!(%error, "other brokers cannot be asked whom they heard from: nobody is lost now");
            }
        };
        let now = self.clock.now();
        self.liveness.look(now);
        elsewhere.into_iter().for_each(|(task, ago)| self.liveness.heard_elsewhere(task, asked_at - ago));
        for id in self.liveness.silent_for_one(1, now) {
            let found = match self.ledger.store().task(id).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::error!(task = %id, %error, "a silent task cannot be read");
                    continue;
                }
            };
            let Some(task) = found.filter(|task| task.state == TaskState::Open) else {
                self.liveness.forget(id);
                continue;
            };
            let Some(grace) = grace(&task) else {
                self.liveness.forget(id);
                continue;
            };
            let silent = self.liveness.last(id).is_some_and(|last| now.since(last) > grace);
            if silent {
                self.end_due(task, Cause::TaskLost).await;
            }
        }
    }

    /// Tells the other brokers whom this one heard from, and asks them about those that are silent here.
    async fn share_heard(&self, now: Timestamp) -> Result<Vec<(TaskId, Span)>, StoreError> {
        let store = self.ledger.store();
        let second = self.liveness.seconds.fetch_add(1, Ordering::Relaxed);
        if second.is_multiple_of(TELL_EVERY) && self.liveness.untold.swap(false, Ordering::Relaxed) {
            store.tell_heard(&self.liveness.heard_here(now)).await.inspect_err(|_| {
                self.liveness.untold.store(true, Ordering::Relaxed);
            })?;
        }
        store.heard_elsewhere(&self.liveness.silent_for_one(4, now)).await
    }

    /// After a start every open task has its whole grace again.
    pub(super) fn hear_all(&self, tasks: &[Task]) {
        let now = self.clock.now();
        tasks.iter().for_each(|task| self.liveness.expect(task, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(1_795_000_000_000);
    const GRACE: Span = Span::from_secs(60);

    fn at(seconds: u64) -> Timestamp {
        T0 + Span::from_secs(seconds)
    }

    fn task(n: u64) -> TaskId {
        TaskId::derive(T0, n)
    }

    /// A broker that looked every second until then, and heard one task then and another 50 s before.
    fn looked_until(second: u64) -> Liveness {
        let liveness = Liveness::default();
        liveness.hear(task(2), GRACE, at(second - 50));
        (second - 50..=second).for_each(|second| liveness.look(at(second)));
        liveness.hear(task(1), GRACE, at(second));
        liveness
    }

    /// SIGSTOP, a suspended host, a wall clock that NTP put on, a store that did not answer: all are one long gap.
    #[test]
    fn a_gap_between_two_looks_is_nobody_s_silence() {
        let liveness = looked_until(100);
        liveness.look(at(161));
        assert_eq!(liveness.silent_for_one(1, at(161)), []);
        liveness.look(at(162));
        (163..=166).for_each(|second| liveness.look(at(second)));
        assert_eq!(
            liveness.silent_for_one(1, at(166)),
            [task(2)],
            "what it was silent before and after counts"
        );
        (167..=215).for_each(|second| liveness.look(at(second)));
        assert_eq!(liveness.silent_for_one(1, at(215)), [task(2)]);
        liveness.look(at(216));
        assert_eq!(liveness.silent_for_one(1, at(216)).len(), 2);
    }

    #[test]
    fn looks_that_come_late_again_and_again_keep_no_task_for_ever() {
        let liveness = looked_until(100);
        (1..=11).for_each(|late| liveness.look(at(100 + late * 30)));
        assert_eq!(liveness.silent_for_one(1, at(430)).len(), 1);
        liveness.look(at(460));
        assert_eq!(liveness.silent_for_one(1, at(460)).len(), 2);
    }

    /// However many tasks of a long grace are silent, they are not read until theirs is over.
    #[test]
    fn each_is_silent_by_its_own_grace() {
        let liveness = Liveness::default();
        liveness.hear(task(1), GRACE, at(0));
        liveness.hear(task(2), Span::from_mins(60), at(0));
        (0..=60).for_each(|second| liveness.look(at(second)));
        assert_eq!(liveness.silent_for_one(1, at(60)), [task(1)]);
        assert_eq!(liveness.silent_for_one(4, at(60)), [task(1)], "nor are the others asked");
        (61..=900).for_each(|second| liveness.look(at(second)));
        assert_eq!(liveness.silent_for_one(4, at(900)).len(), 2);
    }

    #[test]
    fn nobody_is_heard_later_than_now() {
        let liveness = looked_until(100);
        liveness.hear(task(1), GRACE, at(160));
        liveness.look(at(161));
        assert_eq!(liveness.last(task(1)), Some(at(161)));
        assert_eq!(liveness.heard_here(at(162))[0], (task(1), Span::from_secs(2)));
    }

    /// An operator confirmed a wall clock that had been an hour ahead.
    #[test]
    fn a_clock_that_was_put_back_holds_no_task_for_longer_than_its_grace() {
        let liveness = looked_until(3600);
        liveness.look(at(100));
        assert_eq!(liveness.heard_here(at(100)), [(task(1), Span::ZERO), (task(2), Span::ZERO)]);
        (101..=160).for_each(|second| liveness.look(at(second)));
        assert_eq!(liveness.silent_for_one(1, at(160)).len(), 2);
    }

    #[test]
    fn what_another_broker_heard_counts_after_a_gap_too() {
        let liveness = looked_until(100);
        liveness.look(at(161));
        liveness.heard_elsewhere(task(2), at(150));
        (162..=210).for_each(|second| liveness.look(at(second)));
        assert_eq!(liveness.last(task(2)), Some(at(150)));
    }
}
