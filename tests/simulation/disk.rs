//! The store as a broker sees it in bad weather: slow, full, failing, and of unknown outcome.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use leasehold::store::sqlite::SqliteStore;
use leasehold::store::{
    Aside, AsideFilter, BadRow, Ceiling, Change, Counts, DueLease, Ended, LaneCounts, LeaseFilter, Outcome,
    Store, StoreError, TaskFilter,
};
use leasehold_law::caller::CallerId;
use leasehold_law::cause::Rank;
use leasehold_law::id::{LeaseId, RevocationId, TaskId};
use leasehold_law::journal::{ChainHead, Entry};
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::registry::Entry as Registered;
use leasehold_law::request::RequestId;
use leasehold_law::revocation::Revocation;
use leasehold_law::subject::{Guard, Subject};
use leasehold_law::task::Task;
use leasehold_law::time::Timestamp;
use tokio::sync::oneshot;

use crate::life::Life;
use crate::world::{Skip, World};

/// The file, held by one process at a time; closed between two lives.
#[derive(Default)]
pub(crate) struct Disk(Mutex<Option<Arc<SqliteStore>>>);

impl Disk {
    pub(crate) fn put(&self, store: SqliteStore) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(store));
    }

    pub(crate) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn store(&self) -> Option<Arc<SqliteStore>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The store of one life.
#[derive(Clone)]
pub(crate) struct SimStore {
    pub(crate) world: Arc<World>,
    pub(crate) life: Life,
}

impl SimStore {
    /// The file, once the weather lets a read through.
    async fn reach(&self, what: &str) -> Result<Arc<SqliteStore>, StoreError> {
        let World { dice, weather, disk, history, .. } = &*self.world;
        self.life.risk("before read", what).await;
        let _flight = self.life.flights.begin();
        let hindering = self.life.hindrance.begin(&self.world, false);
        self.life.wait(weather.delay(dice)).await;
        if dice.chance(weather.rates().read_failed) {
            hindering.went_wrong();
            history.note(format!("read {what}: failed"));
            return Err(unusable("the disk does not read"));
        }
        disk.store().ok_or_else(|| unusable("the store is closed"))
    }

    async fn write(&self, changes: Vec<Change>, guards: Vec<Guard>, ceilings: Vec<Ceiling>) -> Outcome {
        let (words, leases) = (words(&changes), leases(&changes));
        let World { dice, weather, history, .. } = &*self.world;
        self.life.risk("before commit", &words).await;
        let _flight = self.life.flights.begin();
        let _hindering = self.life.hindrance.begin(&self.world, false);
        self.life.wait(weather.delay(dice)).await;
        let outcome = self.carry_out(changes, guards, ceilings).await;
        self.life.risk("after commit", &words).await;
        let lost = outcome == Outcome::Committed && dice.chance(weather.rates().commit_unknown);
        let told = if lost { Outcome::Unknown(unusable("the flush failed")) } else { outcome };
        if told != Outcome::Committed {
            self.life.unrecorded.note(&self.world, leases);
        }
        history.note(format!("commit {words}: {}", outcome_words(&told)));
        self.life.wait(weather.delay(dice)).await;
        told
    }

    async fn carry_out(&self, changes: Vec<Change>, guards: Vec<Guard>, ceilings: Vec<Ceiling>) -> Outcome {
        let World { dice, weather, disk, record, .. } = &*self.world;
        if weather.is_disk_full() {
            return Outcome::Failed(unusable("the disk is full"));
        }
        if dice.chance(weather.rates().commit_failed) {
            let why = unusable("the disk does not write");
            return if dice.chance(500) { Outcome::Failed(why) } else { Outcome::Unknown(why) };
        }
        if self.world.skip == Some(Skip::Intent) && changes.iter().any(is_intent) {
            return Outcome::Committed;
        }
        let Some(store) = disk.store() else { return Outcome::Failed(unusable("the store is closed")) };
        let outcome = store.commit_below(changes.clone(), guards, ceilings).await;
        if outcome == Outcome::Committed {
            record.learn(&self.world, &changes);
        }
        outcome
    }
}

fn unusable(what: &str) -> StoreError {
    StoreError::Unusable(what.to_owned())
}

/// The row that says what is about to be minted.
fn is_intent(change: &Change) -> bool {
    matches!(change, Change::Lease(lease) if matches!(lease.state, LeaseState::Minting { .. }))
}

fn leases(changes: &[Change]) -> Vec<LeaseId> {
    let lease = |change: &Change| match change {
        Change::Lease(lease) => Some(lease.terms.id),
        Change::Task(_)
        | Change::Revocation(_)
        | Change::Agents(_)
        | Change::Bump(_)
        | Change::Digest(..)
        | Change::Number(..)
        | Change::Token(_)
        | Change::SetAside(_)
        | Change::Aside(_)
        | Change::Archive(_)
        | Change::Append(_) => None,
    };
    changes.iter().filter_map(lease).collect()
}

fn words(changes: &[Change]) -> String {
    let word = |change: &Change| match change {
        Change::Lease(lease) => Some(format!("{} {} v{}", lease.terms.id, lease.state.name(), lease.version)),
        Change::Task(task) => Some(format!("{} {} v{}", task.terms.id, task.state.name(), task.version)),
        Change::Revocation(revocation) => Some(format!("{} {}", revocation.id, revocation.selector)),
        Change::Number(name, value) => Some(format!("{name} {value}")),
        Change::Token(token) => Some(format!("token {}", token.token)),
        Change::Bump(subject) => Some(format!("bump {subject}")),
        Change::SetAside(aside) => Some(format!("set aside {} {}", aside.row.kind.name(), aside.row.id)),
        Change::Aside(aside) => Some(format!("{} {} aside", aside.row.kind.name(), aside.row.id)),
        Change::Archive(Ended::Lease(id)) => Some(format!("archive {id}")),
        Change::Archive(Ended::Task(id)) => Some(format!("archive {id}")),
        Change::Agents(entry) => Some(format!("registration of {}", entry.who)),
        Change::Digest(..) | Change::Append(_) => None,
    };
    let words: Vec<_> = changes.iter().filter_map(word).collect();
    if words.is_empty() { "a note".to_owned() } else { words.join(", ") }
}

fn outcome_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Committed => "done".to_owned(),
        Outcome::Stale(subject) => format!("stale {subject}"),
        Outcome::Full(ceiling) => format!("full, {}", ceiling.holder),
        Outcome::Failed(error) => format!("failed, {error}"),
        Outcome::Unknown(error) => format!("unknown, {error}"),
    }
}

/// Reads in bad weather, then looks whether the process still stands.
macro_rules! read {
    ($self:ident.$call:ident($($argument:expr),*)) => {{
        let answer = $self.reach(stringify!($call)).await?.$call($($argument),*).await;
        $self.life.risk("after read", stringify!($call)).await;
        answer
    }};
}

#[async_trait]
impl Store for SimStore {
    /// A writer goes on with what it was given, whether or not its caller still waits, unless its process dies.
    async fn commit_below(
        &self,
        changes: Vec<Change>,
        guards: Vec<Guard>,
        ceilings: Vec<Ceiling>,
    ) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let store = self.clone();
        tokio::spawn(async move { drop(answer.send(store.write(changes, guards, ceilings).await)) });
        match answered.await {
            Ok(outcome) => outcome,
            Err(_) => std::future::pending().await,
        }
    }

    async fn versions(&self, subjects: &[Subject]) -> Result<Vec<u64>, StoreError> {
        read!(self.versions(subjects))
    }

    async fn digests(&self) -> Result<Vec<(Subject, String)>, StoreError> {
        read!(self.digests())
    }

    async fn token_key(&self, token: &str) -> Result<Option<String>, StoreError> {
        read!(self.token_key(token))
    }

    async fn number(&self, name: &str) -> Result<Option<i64>, StoreError> {
        read!(self.number(name))
    }

    async fn lease(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        read!(self.lease(id))
    }

    async fn lease_by_principal(&self, principal: &str) -> Result<Option<Lease>, StoreError> {
        read!(self.lease_by_principal(principal))
    }

    async fn lease_by_request(&self, task: TaskId, request: &RequestId) -> Result<Option<Lease>, StoreError> {
        read!(self.lease_by_request(task, request))
    }

    async fn leases(&self, filter: &LeaseFilter, limit: usize) -> Result<Vec<Lease>, StoreError> {
        read!(self.leases(filter, limit))
    }

    async fn revoked_handles(
        &self,
        target: &str,
        among: &[String],
        since: Timestamp,
    ) -> Result<Vec<String>, StoreError> {
        read!(self.revoked_handles(target, among, since))
    }

    async fn unreadable(&self, limit: usize) -> Result<Vec<BadRow>, StoreError> {
        read!(self.unreadable(limit))
    }

    async fn asides(&self, filter: &AsideFilter, limit: usize) -> Result<Vec<Aside>, StoreError> {
        read!(self.asides(filter, limit))
    }

    async fn ended(&self, before: Timestamp, limit: usize) -> Result<Vec<Ended>, StoreError> {
        read!(self.ended(before, limit))
    }

    async fn task(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        read!(self.task(id))
    }

    async fn task_by_request(
        &self,
        agent: &CallerId,
        request: &RequestId,
    ) -> Result<Option<Task>, StoreError> {
        read!(self.task_by_request(agent, request))
    }

    async fn tasks(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<Task>, StoreError> {
        read!(self.tasks(filter, limit))
    }

    async fn due_tasks(&self, now: Timestamp, limit: usize) -> Result<Vec<Task>, StoreError> {
        read!(self.due_tasks(now, limit))
    }

    async fn revocation(&self, id: RevocationId) -> Result<Option<Revocation>, StoreError> {
        read!(self.revocation(id))
    }

    async fn revocations(
        &self,
        freezing: bool,
        before: Option<RevocationId>,
        limit: usize,
    ) -> Result<Vec<Revocation>, StoreError> {
        read!(self.revocations(freezing, before, limit))
    }

    async fn registered(&self) -> Result<Vec<Registered>, StoreError> {
        read!(self.registered())
    }

    async fn head(&self) -> Result<ChainHead, StoreError> {
        read!(self.head())
    }

    async fn entries(&self, first: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        read!(self.entries(first, limit))
    }

    async fn entries_of_task(&self, task: TaskId, limit: usize) -> Result<Vec<Entry>, StoreError> {
        read!(self.entries_of_task(task, limit))
    }

    async fn entries_with(
        &self,
        text: &str,
        from: Timestamp,
        to: Timestamp,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        read!(self.entries_with(text, from, to, limit))
    }

    async fn live_targets(&self) -> Result<Vec<String>, StoreError> {
        read!(self.live_targets())
    }

    async fn live_agents(&self) -> Result<Vec<CallerId>, StoreError> {
        read!(self.live_agents())
    }

    async fn due_leases(
        &self,
        target: &str,
        lane: Rank,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueLease>, StoreError> {
        read!(self.due_leases(target, lane, now, limit))
    }

    async fn counts_by_lane(&self, now: Timestamp) -> Result<Vec<LaneCounts>, StoreError> {
        read!(self.counts_by_lane(now))
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        read!(self.counts())
    }
}
