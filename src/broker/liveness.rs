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

/// When each task was last heard, here or by another broker of the same store.
#[derive(Default)]
pub(super) struct Liveness {
    heard: Mutex<BTreeMap<TaskId, Heard>>,
    /// Something was heard here that the other brokers do not know.
    untold: AtomicBool,
    /// The other brokers could not be asked: that time is nobody's silence (RULES R-23).
    deaf: AtomicBool,
    seconds: AtomicU64,
}

/// What is known of one task.
#[derive(Clone, Copy)]
struct Heard {
    /// By anybody, or when its grace began.
    last: Timestamp,
    /// By this broker itself.
    here: Option<Timestamp>,
}

impl Liveness {
    pub(super) fn heard(&self, task: TaskId, now: Timestamp) {
        self.map().insert(task, Heard { last: now, here: Some(now) });
        self.untold.store(true, Ordering::Relaxed);
    }

    /// Its grace begins, unless it has.
    pub(super) fn expect(&self, task: TaskId, now: Timestamp) {
        self.map().entry(task).or_insert(Heard { last: now, here: None });
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

    /// Every task has its whole grace again.
    fn begin_again(&self, now: Timestamp) {
        self.map().values_mut().for_each(|heard| heard.last = now);
    }

    /// The clock is set back: each has been silent for as long as before.
    pub(super) fn go_back(&self, by: Span) {
        for heard in self.map().values_mut() {
            *heard = Heard { last: heard.last - by, here: heard.here.map(|here| here - by) };
        }
    }

    /// Those that have been silent for so long.
    fn silent_for(&self, span: Span, now: Timestamp) -> Vec<TaskId> {
        let heard = self.map();
        heard.iter().filter(|(_, heard)| now.since(heard.last) >= span).map(|(task, _)| *task).collect()
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
        self.inner.liveness.heard(id, now);
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
    /// Ends every task that was silent for longer than its grace.
    pub(super) async fn end_silent(self: &std::sync::Arc<Self>) {
        if let Err(error) = self.share_heard().await {
            return tracing::warn!(%error, "other brokers cannot be asked whom they heard from: nobody is lost now");
        }
        let now = self.clock.now();
        for id in self.liveness.silent_for(Held::MIN_GRACE, now) {
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
    async fn share_heard(&self) -> Result<(), StoreError> {
        let (store, now) = (self.ledger.store(), self.clock.now());
        let second = self.liveness.seconds.fetch_add(1, Ordering::Relaxed);
        if second.is_multiple_of(TELL_EVERY) && self.liveness.untold.swap(false, Ordering::Relaxed) {
            store.tell_heard(&self.liveness.heard_here(now)).await.inspect_err(|_| {
                self.liveness.untold.store(true, Ordering::Relaxed);
                self.liveness.deaf.store(true, Ordering::Relaxed);
            })?;
        }
        let silent = self.liveness.silent_for(Held::MIN_GRACE.fraction(1, 4), now);
        let heard = store.heard_elsewhere(&silent).await.inspect_err(|_| {
            self.liveness.deaf.store(true, Ordering::Relaxed);
        })?;
        heard.into_iter().for_each(|(task, ago)| self.liveness.heard_elsewhere(task, now - ago));
        if self.liveness.deaf.swap(false, Ordering::Relaxed) {
            self.liveness.begin_again(now);
        }
        Ok(())
    }

    /// After a start every open task has its whole grace again.
    pub(super) fn hear_all(&self, tasks: &[Task]) {
        let now = self.clock.now();
        tasks.iter().filter(|task| grace(task).is_some()).for_each(|task| {
            self.liveness.expect(task.terms.id, now);
        });
    }
}
