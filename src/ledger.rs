//! Room 7: the only maker of [`Recorded`]. Nothing is minted that was not written down first (law 1).
//!
//! The ledger turns steps of the law into rows and journal entries, writes both in one transaction with the versions
//! that the step was decided on (RULES R-1), and tells whoever watches.

mod aims;
mod aside;
mod config;
mod entry;
mod notices;
mod registry;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use leasehold_law::drill::Drill;
use leasehold_law::id::{LeaseId, RevocationId};
use leasehold_law::journal::Event;
use leasehold_law::lease::{IllegalTransition, Lease, LeaseEvent, LeaseTerms};
use leasehold_law::policy::{DecisionRecord, IssueOrder, RenewOrder};
use leasehold_law::revocation::{Lifted, Revocation, Selector};
use leasehold_law::scope::Scope;
use leasehold_law::subject::{Guard, Subject};
use leasehold_law::task::{IllegalTaskTransition, Task, TaskEvent, TaskTerms};
use leasehold_law::time::{Span, Timestamp};
use tokio::sync::broadcast;

use crate::clock::Clock;
use crate::meter;
use crate::store::{Ceiling, Change, Outcome, Store, StoreError};
pub use aside::restored_entry;
pub use config::{ConfigLook, ConfigOnRecord};
use entry::{about_drill, about_lease, about_nothing, about_task};
use notices::Notices;
pub use notices::{Notice, Steps};
pub use registry::Registering;

/// Proof that something is durable. Only the ledger makes one.
#[derive(Debug)]
pub struct Recorded<T>(T);

impl<T> Recorded<T> {
    /// What was recorded.
    pub fn inner(&self) -> &T {
        &self.0
    }
}

/// Why a step is not on record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// It rests on something that has changed: decide again.
    #[error("{0} has changed meanwhile")]
    Stale(Subject),
    /// A quota is used up.
    #[error("{} has {} live leases already", .0.holder, .0.most)]
    Full(Box<Ceiling>),
    /// The law knows no such step.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// The law knows no such step of a task.
    #[error(transparent)]
    IllegalTask(#[from] IllegalTaskTransition),
    /// The store refused; nothing is written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody knows whether it is written: expose nothing, read again.
    #[error("whether it was written is not known: {0}")]
    Unknown(StoreError),
}

/// How long the store may take to write. After that nobody knows what became of the changes; a store that hangs holds
/// up no revocation (RULES R-24).
const COMMIT_DEADLINE: Span = Span::from_secs(5);

/// The maker of records.
pub struct Ledger {
    store: Arc<dyn Store>,
    clock: Arc<Clock>,
    notices: Notices,
    healthy: AtomicBool,
}

impl Ledger {
    /// A ledger over a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<Clock>) -> Self {
        Self { store, clock, notices: Notices::new(), healthy: AtomicBool::new(true) }
    }

    /// What is durable, for reading.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// Every change from now on.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Notice> {
        self.notices.watch()
    }

    /// Every step of these leases from now on.
    #[must_use]
    pub fn wait(&self, ids: &[LeaseId]) -> Steps {
        self.notices.wait(ids)
    }

    /// Whether the last write went well. Where it did not, revoking does not wait for the next.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Whether the journal takes entries: step 1 of the road. Where the last write failed, a small one is tried.
    pub async fn healthy(&self) -> Result<(), StoreError> {
        if self.is_well() {
            return Ok(());
        }
        self.record_time().await.map_err(|error| match error {
            LedgerError::Store(error) | LedgerError::Unknown(error) => error,
            LedgerError::Stale(_)
            | LedgerError::Full(_)
            | LedgerError::Illegal(_)
            | LedgerError::IllegalTask(_) => StoreError::Unusable(error.to_string()),
        })
    }

    /// Commit one of a mint: the lease exists by name before it exists in the target (law 2).
    ///
    /// # Errors
    /// [`LedgerError::Stale`] where what it was decided on has changed, [`LedgerError::Full`] where a quota is used up.
    pub async fn record_mint(
        &self,
        order: IssueOrder,
        decision: DecisionRecord,
        ceilings: Vec<Ceiling>,
        due: Timestamp,
    ) -> Result<(Recorded<IssueOrder>, Lease), LedgerError> {
        let step = LeaseEvent::MintStarted { mint_by: order.mint_by(), due, expires_at: order.expires_at() };
        let guards = order.guards().to_vec();
        let lease = self.begin_lease(order.terms().clone(), step, decision, guards, ceilings).await?;
        Ok((Recorded(order), lease))
    }

    /// A request that never became a lease.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn record_refusal(
        &self,
        terms: LeaseTerms,
        decision: DecisionRecord,
        refusal: leasehold_law::lease::Refusal,
    ) -> Result<Lease, LedgerError> {
        let step = LeaseEvent::Refused { refusal };
        self.begin_lease(terms, step, decision, Vec::new(), Vec::new()).await
    }

    async fn begin_lease(
        &self,
        terms: LeaseTerms,
        step: LeaseEvent,
        decision: DecisionRecord,
        guards: Vec<Guard>,
        ceilings: Vec<Ceiling>,
    ) -> Result<Lease, LedgerError> {
        let lease = Lease::first(terms.clone(), &step)?;
        let event = Event::Lease { terms: Some(Box::new(terms)), decision: Some(Box::new(decision)), step };
        let lease = self.put_lease(lease, event, guards, ceilings).await?;
        meter::moved(None, &lease);
        Ok(lease)
    }

    /// Commit one of a renewal.
    ///
    /// # Errors
    /// As for [`Ledger::record_mint`].
    pub async fn record_renewal(
        &self,
        lease: &Lease,
        order: RenewOrder,
        decision: DecisionRecord,
        due: Timestamp,
    ) -> Result<(Recorded<RenewOrder>, Lease), LedgerError> {
        let step = LeaseEvent::RenewStarted { until: order.until(), due };
        let next = lease.apply(&step)?;
        let guards = order.guards().to_vec();
        let event = Event::Lease { terms: None, decision: Some(Box::new(decision)), step };
        let renewing = self.put_lease(next, event, guards, Vec::new()).await?;
        meter::moved(Some(&lease.state), &renewing);
        Ok((Recorded(order), renewing))
    }

    /// A step of a lease.
    ///
    /// # Errors
    /// Where the law or the store refuses, or a guard no longer holds.
    pub async fn step(
        &self,
        lease: &Lease,
        step: LeaseEvent,
        guards: &[Guard],
    ) -> Result<Lease, LedgerError> {
        let next = lease.apply(&step)?;
        let event = Event::Lease { terms: None, decision: None, step };
        let next = self.put_lease(next, event, guards.to_vec(), Vec::new()).await?;
        meter::moved(Some(&lease.state), &next);
        Ok(next)
    }

    async fn put_lease(
        &self,
        lease: Lease,
        event: Event,
        guards: Vec<Guard>,
        ceilings: Vec<Ceiling>,
    ) -> Result<Lease, LedgerError> {
        let changes = self.lease_changes(&lease, event)?;
        self.commit_below(changes.into(), guards, ceilings).await?;
        self.tell_lease(&lease);
        Ok(lease)
    }

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

    /// Steps of several leases in one transaction: all of them, or none.
    ///
    /// # Errors
    /// Where the law or the store refuses any of them.
    pub async fn step_all(&self, steps: &[(Lease, LeaseEvent)]) -> Result<Vec<Lease>, LedgerError> {
        let (moved, changes) = self.moved(steps)?;
        self.commit(changes, Vec::new()).await?;
        self.tell_moved(steps, &moved);
        Ok(moved)
    }

    /// Leases after a step of each, and what that changes.
    fn moved(&self, steps: &[(Lease, LeaseEvent)]) -> Result<(Vec<Lease>, Vec<Change>), LedgerError> {
        let mut moved = Vec::with_capacity(steps.len());
        let mut changes = Vec::with_capacity(2 * steps.len());
        for (lease, step) in steps {
            let lease = lease.apply(step)?;
            let event = Event::Lease { terms: None, decision: None, step: step.clone() };
            changes.extend(self.lease_changes(&lease, event)?);
            moved.push(lease);
        }
        Ok((moved, changes))
    }

    /// The row of a lease, and its entry.
    fn lease_changes(&self, lease: &Lease, event: Event) -> Result<[Change; 2], LedgerError> {
        let draft = about_lease(lease, event, self.clock.now())?;
        Ok([Change::Lease(Box::new(lease.clone())), Change::Append(draft)])
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

    /// A revocation as it stands, with the version that a change of it is compared with. The version is read first:
    /// whatever changes after it makes it stale.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn revocation(&self, id: RevocationId) -> Result<Option<(Revocation, u64)>, StoreError> {
        let versions = self.store.versions(&[Subject::Revocation(id)]).await?;
        let version = versions.first().copied().unwrap_or_default();
        Ok(self.store.revocation(id).await?.map(|revocation| (revocation, version)))
    }

    /// A revocation, before anything is listed: its barrier stands from here on (RULES R-2).
    ///
    /// # Errors
    /// Where it cannot be written; [`LedgerError::Stale`] where it is on record already.
    pub async fn record_revocation(&self, revocation: &Revocation) -> Result<(), LedgerError> {
        let event = Event::Revocation { revocation: Box::new(revocation.clone()) };
        let barrier = revocation.freeze.then_some(Change::Bump(Subject::Freezes));
        self.put_revocation(revocation, 0, Some(event), barrier).await
    }

    /// The end of the barrier of a revocation that has this version.
    ///
    /// # Errors
    /// Where it cannot be written; [`LedgerError::Stale`] where it has changed meanwhile.
    pub async fn record_lift(
        &self,
        (revocation, version): (Revocation, u64),
        lifted: Lifted,
    ) -> Result<Revocation, LedgerError> {
        let next = Revocation { lifted: Some(lifted.clone()), ..revocation };
        let event = Event::Lifted { id: next.id, lifted };
        self.put_revocation(&next, version, Some(event), Some(Change::Bump(Subject::Freezes))).await?;
        Ok(next)
    }

    async fn put_revocation(
        &self,
        revocation: &Revocation,
        version: u64,
        event: Option<Event>,
        barrier: Option<Change>,
    ) -> Result<(), LedgerError> {
        let subject = Subject::Revocation(revocation.id);
        let mut changes =
            vec![Change::Revocation(Box::new(revocation.clone())), Change::Bump(subject.clone())];
        if let Some(event) = event {
            let (id, task) = (revocation.id.to_string(), task_of(&revocation.selector));
            changes.push(Change::Append(about_nothing(&id, task, event, self.clock.now())?));
        }
        changes.extend(barrier);
        self.commit(changes, vec![Guard { subject, version }]).await
    }

    /// What a revocation took so far, which had this version before.
    ///
    /// # Errors
    /// Where it cannot be written; [`LedgerError::Stale`] where it has changed meanwhile.
    pub async fn remember_taken(&self, revocation: &Revocation, version: u64) -> Result<(), LedgerError> {
        self.put_revocation(revocation, version, None, None).await
    }

    /// Something that changes no row: a decision, a refusal, an act of the broker.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn note(&self, subject: &str, event: Event) -> Result<(), LedgerError> {
        let draft = about_nothing(subject, None, event, self.clock.now())?;
        self.commit(vec![Change::Append(draft)], Vec::new()).await
    }

    /// A drill that is over.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn record_drill(&self, drill: &Drill) -> Result<(), LedgerError> {
        let draft = about_drill(drill, self.clock.now())?;
        self.commit(vec![Change::Append(draft)], Vec::new()).await
    }

    /// What the broker itself did, with details.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn note_broker(
        &self,
        what: &str,
        details: BTreeMap<String, String>,
    ) -> Result<(), LedgerError> {
        self.note("broker", Event::Broker { what: what.to_owned(), details }).await
    }

    /// Remembers the present as the clock's high-water mark.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn record_time(&self) -> Result<(), LedgerError> {
        self.commit(vec![Change::Number(HIGH_WATER.into(), self.clock.now().0)], Vec::new()).await
    }

    async fn commit(&self, changes: Vec<Change>, guards: Vec<Guard>) -> Result<(), LedgerError> {
        self.commit_below(changes, guards, Vec::new()).await
    }

    async fn commit_below(
        &self,
        changes: Vec<Change>,
        guards: Vec<Guard>,
        ceilings: Vec<Ceiling>,
    ) -> Result<(), LedgerError> {
        let outcome = in_time(self.store.commit_below(changes, guards, ceilings)).await;
        let healthy = !matches!(
            outcome,
            Outcome::Failed(StoreError::Unusable(_) | StoreError::Fenced | StoreError::Held(_))
                | Outcome::Unknown(_)
        );
        self.healthy.store(healthy, Ordering::Relaxed);
        match outcome {
            Outcome::Committed => Ok(()),
            Outcome::Stale(subject) => Err(LedgerError::Stale(subject)),
            Outcome::Full(ceiling) => Err(LedgerError::Full(ceiling)),
            Outcome::Failed(error) => Err(LedgerError::Store(error)),
            Outcome::Unknown(error) => Err(LedgerError::Unknown(error)),
        }
    }

    /// Whether anybody would hear of this lease.
    #[must_use]
    pub fn reaches(&self, id: LeaseId) -> bool {
        self.notices.reach(id)
    }

    /// Tells what another broker has made durable.
    pub fn retell_lease(&self, lease: Lease) {
        self.notices.tell_lease(&Arc::new(lease));
    }

    /// Likewise.
    pub fn retell_task(&self, task: Task) {
        self.notices.tell_task(task);
    }

    fn tell_moved(&self, steps: &[(Lease, LeaseEvent)], moved: &[Lease]) {
        for ((before, _), after) in steps.iter().zip(moved) {
            meter::moved(Some(&before.state), after);
            self.tell_lease(after);
        }
    }

    fn tell_lease(&self, lease: &Lease) {
        if self.notices.reach(lease.terms.id) {
            self.notices.tell_lease(&Arc::new(lease.clone()));
        }
    }
}

/// What became of a write, or that nobody knows: a store that does not answer is not waited for.
async fn in_time(written: impl Future<Output = Outcome>) -> Outcome {
    let late = |_| {
        let what = format!("it did not answer within {COMMIT_DEADLINE}");
        Outcome::Unknown(StoreError::Unusable(what))
    };
    tokio::time::timeout(COMMIT_DEADLINE.as_duration(), written).await.unwrap_or_else(late)
}

/// The name under which the clock's high-water mark is kept.
pub const HIGH_WATER: &str = "clock.high_water";

fn task_of(selector: &Selector) -> Option<leasehold_law::id::TaskId> {
    match selector {
        Selector::Task(id) => Some(*id),
        Selector::Lease(_)
        | Selector::Agent(_)
        | Selector::Owner(_)
        | Selector::Person(_)
        | Selector::Target(_)
        | Selector::Intent(_)
        | Selector::Ref { .. }
        | Selector::All => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemTime;
    use crate::store::Stamp;
    use crate::store::sqlite::{Options, SqliteStore, Writer};
    use crate::store::suite::samples::{minting, revocation};

    fn ledger(store: &Arc<SqliteStore>) -> Ledger {
        Ledger::new(store.clone(), Arc::new(Clock::new(Arc::new(SystemTime), None)))
    }

    /// Two brokers share a store: one sees a revocation through while the other lifts it.
    #[tokio::test]
    async fn a_lift_and_what_was_taken_do_not_overwrite_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/leasehold.db");
        let (chain, stamp) = ("broker-1".to_owned(), Stamp::Production);
        let options = Options { path, chain, stamp, writer: Writer::Inline, cache_mib: 1 };
        let store = Arc::new(SqliteStore::open(&options).unwrap());
        let (taker, lifter) = (ledger(&store), ledger(&store));
        let begun = revocation(1, Selector::All);
        let id = begun.id;
        let stale = Err(LedgerError::Stale(Subject::Revocation(id)));
        taker.record_revocation(&begun).await.unwrap();
        assert_eq!(taker.record_revocation(&begun).await, stale, "it is on record already");
        let (taken, version) = taker.revocation(id).await.unwrap().unwrap();
        let found = lifter.revocation(id).await.unwrap().unwrap();
        let lifted = Lifted { by: begun.by.clone(), reason: "over".to_owned(), at: begun.at };
        lifter.record_lift(found.clone(), lifted.clone()).await.unwrap();
        let taken = Revocation { leases: vec![minting(1, 1).terms.id], ..taken };
        assert_eq!(taker.remember_taken(&taken, version).await, stale, "the barrier would stand again");
        let (stored, version) = taker.revocation(id).await.unwrap().unwrap();
        let taken = Revocation { leases: taken.leases, ..stored };
        taker.remember_taken(&taken, version).await.unwrap();
        assert_eq!(lifter.record_lift(found, lifted).await.map(drop), stale, "what was taken would be lost");
        assert_eq!(store.revocation(id).await, Ok(Some(taken)));
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_commit_that_hangs_nobody_knows_what_became() {
        let patience = COMMIT_DEADLINE.as_duration() + std::time::Duration::from_millis(1);
        let outcome = tokio::time::timeout(patience, in_time(std::future::pending())).await;
        assert!(matches!(outcome, Ok(Outcome::Unknown(_))), "{outcome:?}");
        assert_eq!(in_time(async { Outcome::Committed }).await, Outcome::Committed);
    }
}
