//! The end of a task, however it comes: the task and all its leases are condemned in one transaction.

use std::sync::Arc;

use leasehold_law::cause::Cause;
use leasehold_law::id::{LeaseId, TaskId};
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::task::{Outcome, Task, TaskEvent, TaskState};
use leasehold_law::time::Span;

use super::decide::Asker;
use super::refused::Refused;
use super::revoke::condemning;
use super::wait::Settled;
use super::{Broker, Inner};
use crate::fault::{self, Point};
use crate::ledger::LedgerError;
use crate::store::LeaseFilter;

/// How often the end is tried again when a lease changed under it.
const RACES: usize = 32;

/// A task that is ending or has ended.
#[derive(Debug)]
pub struct Ended {
    /// The task.
    pub task: Task,
    /// Its leases that were live, as they stand now.
    pub settled: Settled,
}

impl Broker {
    /// Ends a caller's own task, and waits for at most `wait` until its leases are dead. Ending it again is no error.
    ///
    /// # Errors
    /// Where it is not the caller's, or cannot be written.
    pub async fn end_own_task(
        &self,
        asker: &Asker,
        id: TaskId,
        cause: Cause,
        wait: Span,
    ) -> Result<Ended, Refused> {
        let task = self.own_task(asker, id).await?;
        let (task, leases) = self.inner.end_task(task, cause).await?;
        let settled = self.inner.wait_for(&leases, wait).await?;
        let task = if wait > Span::ZERO { self.own_task(asker, id).await? } else { task };
        Ok(Ended { task, settled })
    }
}

impl Broker {
    /// Gives back a caller's own lease, and waits for at most `wait` until it is dead. Giving it back again is no error.
    ///
    /// # Errors
    /// Where it is not the caller's.
    pub async fn end_own_lease(
        &self,
        asker: &Asker,
        id: LeaseId,
        cause: Cause,
        wait: Span,
    ) -> Result<Settled, Refused> {
        let lease = self.own_lease(asker, id).await?;
        if lease.state.is_live() {
            self.inner.condemn(lease, cause, None).await;
        }
        self.inner.wait_for(&[id], wait).await
    }

    /// Writes down why an agent gives a task up: recorded, never an input to a decision.
    ///
    /// # Errors
    /// Where the task is not the caller's. A journal that takes nothing does not stop the end.
    pub async fn note_abort(&self, asker: &Asker, id: TaskId, reason: &str) -> Result<(), Refused> {
        let task = self.own_task(asker, id).await?;
        // Once a task: saying it again and again would fill the disk outside every quota.
        if reason.is_empty() || task.state != TaskState::Open {
            return Ok(());
        }
        let details = std::collections::BTreeMap::from([
            ("task".to_owned(), id.to_string()),
            ("by".to_owned(), asker.id.to_string()),
            ("reason".to_owned(), reason.to_owned()),
        ]);
        if let Err(error) = self.inner.ledger.note_broker("task given up", details).await {
            tracing::warn!(task = %id, %error, "why a task is given up is not on record");
        }
        Ok(())
    }
}

impl Inner {
    /// Condemns a task with its leases. Gives the leases that were live. Where the journal is known to take nothing, they
    /// are killed before it is asked whether it does again.
    pub(super) async fn end_task(
        self: &Arc<Self>,
        task: Task,
        cause: Cause,
    ) -> Result<(Task, Vec<LeaseId>), Refused> {
        let mut task = task;
        for _ in 0..RACES {
            let live = self.live_of_task(task.terms.id).await?;
            let ids = live.iter().map(|lease| lease.terms.id).collect();
            if task.state != TaskState::Open {
                return Ok((task, ids));
            }
            if !self.ledger.is_well() {
                live.iter().for_each(|lease| self.kill_unrecorded(lease.clone(), cause, None));
                self.ledger.check_writable().await.map_err(|error| Refused::journal(&error))?;
            }
            match self.try_end(&task, cause, live.clone()).await {
                Ok(ended) => return Ok((ended, ids)),
                Err(LedgerError::Stale(_)) => {
                    let id = task.terms.id;
                    let fresh = self.ledger.store().task(id).await?;
                    task = fresh.ok_or_else(|| Refused::not_found("task", id))?;
                }
                Err(error) => {
                    self.kill_without_record(live, cause, &error);
                    return Err(error.into());
                }
            }
        }
        Err(Refused::contended(format!("the leases of {} keep changing", task.terms.id)))
    }

    async fn try_end(
        self: &Arc<Self>,
        task: &Task,
        cause: Cause,
        live: Vec<Lease>,
    ) -> Result<Task, LedgerError> {
        let at = self.clock.now();
        let steps: Vec<_> = live.into_iter().filter_map(|lease| condemning(lease, cause, at)).collect();
        let step = TaskEvent::EndStarted { cause, at };
        let (task, condemned) = self.ledger.step_task(task, step, Vec::new(), &steps, Vec::new()).await?;
        fault::point(Point::TaskCondemned);
        self.liveness.forget(task.terms.id);
        condemned.into_iter().for_each(|lease| self.kill(lease));
        if steps.is_empty() {
            self.finish_task(task.terms.id).await;
        }
        Ok(task)
    }

    /// Calls a task ended once nothing of it is live, or only what nobody can revoke.
    pub(super) async fn finish_task(&self, id: TaskId) {
        let Ok(Some(task)) = self.ledger.store().task(id).await else { return };
        if !matches!(task.state, TaskState::Ending { .. }) {
            return;
        }
        let Some(outcome) = self.outcome(id).await else { return };
        let step = TaskEvent::Ended { outcome, at: self.clock.now() };
        if let Err(error) = self.ledger.step_task(&task, step, Vec::new(), &[], Vec::new()).await {
            tracing::debug!(task = %id, %error, "the end of a task is written by somebody else, or later");
        }
    }

    /// How a task ended, if it has: one lease that is still dying is enough to know that it has not.
    async fn outcome(&self, id: TaskId) -> Option<Outcome> {
        let newest = LeaseFilter { task: Some(id), live: true, ..LeaseFilter::default() };
        let is_residual = |lease: &Lease| matches!(lease.state, LeaseState::Residual { .. });
        match self.ledger.store().leases(&newest, 1).await.ok()?.first() {
            None if self.has_aside(id).await => None,
            None => Some(Outcome::Clean),
            Some(lease) if !is_residual(lease) => None,
            Some(_) => {
                let live = self.live_of_task(id).await.ok()?;
                live.iter().all(is_residual).then_some(Outcome::WithResidue)
            }
        }
    }
}
