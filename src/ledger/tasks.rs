//! Records of tasks: each step, with those of the leases that it moves.

use leasehold_law::journal::Event;
use leasehold_law::lease::{Lease, LeaseEvent};
use leasehold_law::policy::DecisionRecord;
use leasehold_law::scope::Scope;
use leasehold_law::subject::Guard;
use leasehold_law::task::{Task, TaskEvent, TaskTerms};

use super::entry::about_task;
use super::{Ledger, LedgerError};
use crate::store::Change;

impl Ledger {
    /// A task's first step, with the decisions that it rests on.
    ///
    /// # Errors
    /// Where the law or the store refuses, or a guard no longer holds.
    pub async fn begin_task(
        &self,
        terms: TaskTerms,
        scope: Scope,
        step: TaskEvent,
        decisions: Vec<DecisionRecord>,
        guards: Vec<Guard>,
    ) -> Result<Task, LedgerError> {
        let task = Task::first(terms.clone(), scope.clone(), &step)?;
        let event = Event::Task { terms: Some(Box::new(terms)), scope: Some(scope), decisions, step };
        self.put_task(task, event, Vec::new(), guards).await
    }

    /// A step of a task, and in the same transaction a step of each of these leases.
    ///
    /// # Errors
    /// Where the law or the store refuses, or a guard no longer holds.
    pub async fn step_task(
        &self,
        task: &Task,
        step: TaskEvent,
        decisions: Vec<DecisionRecord>,
        leases: &[(Lease, LeaseEvent)],
        guards: Vec<Guard>,
    ) -> Result<(Task, Vec<Lease>), LedgerError> {
        let next = task.apply(&step)?;
        let (moved, changes) = self.moved(leases)?;
        let event = Event::Task { terms: None, scope: None, decisions, step };
        let task = self.put_task(next, event, changes, guards).await?;
        self.tell_moved(leases, &moved);
        Ok((task, moved))
    }

    async fn put_task(
        &self,
        task: Task,
        event: Event,
        mut changes: Vec<Change>,
        guards: Vec<Guard>,
    ) -> Result<Task, LedgerError> {
        let draft = about_task(&task, event, self.clock.now())?;
        changes.extend([Change::Task(Box::new(task.clone())), Change::Append(draft)]);
        self.commit(changes, guards).await?;
        self.notices.tell_task(task.clone());
        Ok(task)
    }

    /// Likewise.
    pub fn retell_task(&self, task: Task) {
        self.notices.tell_task(task);
    }
}
