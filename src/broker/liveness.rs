//! Who was heard when: in memory alone. Only time in which a broker was ready counts as silence (RULES R-23).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use leasehold_law::cause::Cause;
use leasehold_law::id::TaskId;
use leasehold_law::request::Liveness as Held;
use leasehold_law::task::{Task, TaskState};
use leasehold_law::time::{Span, Timestamp};

use super::decide::Asker;
use super::refused::Refused;
use super::{Broker, Inner};

/// When each task was last heard.
#[derive(Default)]
pub(super) struct Liveness(Mutex<BTreeMap<TaskId, Timestamp>>);

impl Liveness {
    pub(super) fn heard(&self, task: TaskId, now: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(task, now);
    }

    pub(super) fn forget(&self, task: TaskId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&task);
    }

    pub(super) fn last(&self, task: TaskId) -> Option<Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&task).copied()
    }

    fn all(&self) -> Vec<(TaskId, Timestamp)> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().map(|(task, at)| (*task, *at)).collect()
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
        let now = self.clock.now();
        let quiet = |last: Timestamp| now.since(last) >= Held::MIN_GRACE;
        for (id, _) in self.liveness.all().into_iter().filter(|(_, last)| quiet(*last)) {
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

    /// After a start every open task has its whole grace again.
    pub(super) fn hear_all(&self, tasks: &[Task]) {
        let now = self.clock.now();
        tasks.iter().filter(|task| grace(task).is_some()).for_each(|task| {
            self.liveness.heard(task.terms.id, now);
        });
    }
}
