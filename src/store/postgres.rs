//! The store in PostgreSQL, for several brokers: each writes on one connection with group commit, and is fenced by
//! the others where it falls silent. What it needs of the server: docs/store-postgres.md.

mod address;
mod archive;
mod aside;
mod batch;
mod columns;
mod conditions;
mod fault;
mod flush;
mod follow;
mod herald;
mod journal;
mod judge;
mod leases;
mod leaving;
mod link;
mod look;
mod presence;
mod readers;
mod records;
mod schema;
mod tasks;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_law::caller::CallerId;
use leasehold_law::cause::Rank;
use leasehold_law::id::{LeaseId, RevocationId, TaskId};
use leasehold_law::journal::{ChainHead, Entry};
use leasehold_law::lease::Lease;
use leasehold_law::registry::Entry as Registered;
use leasehold_law::request::RequestId;
use leasehold_law::revocation::Revocation;
use leasehold_law::subject::{Guard, Subject};
use leasehold_law::task::Task;
use leasehold_law::time::{Span, Timestamp};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::set::Set;
use super::{
    Aside, AsideFilter, BadRow, Ceiling, Change, Counts, DueLease, Ended, Foreign, LaneCounts, LeaseFilter,
    Outcome, Stamp, Store, StoreError, TaskFilter,
};
use address::Address;
pub use address::Place;
use batch::{Batcher, Seat};
use follow::Follow;
use herald::Herald;
use link::Link;
pub use look::look;
use presence::Presence;
use readers::Readers;
use writer::Queue;

/// How often the other brokers' chains are looked at when nobody says that there is something to see.
const LOOK: Duration = Duration::from_millis(900);

/// Where a store is and whose.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file with the URL, mode 0600.
    pub url_file: PathBuf,
    /// The roots that the server's certificate is checked under.
    pub sslrootcert: Option<PathBuf>,
    /// Whether a server over TCP must prove its name; less only on loopback.
    pub verify: bool,
    /// This broker's name, from which its chain has its own.
    pub broker: String,
    /// The public name of the installation: brokers that share a store share the installation key.
    pub installation: String,
    /// What no other process is called: random.
    pub holder: String,
    /// What the store may be used for.
    pub stamp: Stamp,
}

impl Options {
    /// The servers that the URL names: no target may be one of them (RULES R-9). Dials nothing.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] where the files cannot be used.
    pub fn places(&self) -> Result<Vec<Place>, StoreError> {
        Address::read(self).map(|address| address.places)
    }
}

/// A store in PostgreSQL. [`Store::leave`] lets the next process of this name in at once; dropped without that, it
/// takes some seconds.
pub struct PostgresStore {
    presence: Presence,
    readers: Arc<Readers>,
    queue: Queue,
    follow: Mutex<Follow>,
    wake: Arc<Notify>,
    /// Whether another broker was fenced since whoever follows last looked.
    fallen: Arc<AtomicBool>,
    herald: JoinHandle<()>,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("chain", &self.presence.chain).finish_non_exhaustive()
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.herald.abort();
    }
}

impl PostgresStore {
    /// Opens or makes the store, and takes this broker's name in it.
    ///
    /// # Errors
    /// [`StoreError::Held`] while another process has the name, [`StoreError::Foreign`] if the store was made for
    /// another installation or purpose, [`StoreError::Newer`] for a schema from the future, else
    /// [`StoreError::Unusable`].
    pub async fn open(options: &Options) -> Result<Self, StoreError> {
        let address = Arc::new(Address::read(options)?);
        let link = Link::open(&address, None).await?;
        let chain = schema::prepare(&link, options).await?;
        let presence = Presence { name: options.broker.clone(), holder: options.holder.clone(), chain };
        let fence = presence.enter(&link).await?;
        let readers = Arc::new(Readers::new(address.clone()));
        let follow = Mutex::new(Follow::begin(&readers, &presence).await?);
        let (written, wake) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let seat = Seat::new(link, fence);
        let batcher = Batcher::new(address.clone(), presence.clone(), readers.clone(), seat);
        let queue = Queue::new(batcher, written.clone());
        let fallen = Arc::new(AtomicBool::new(false));
        let herald = Herald {
            address,
            presence: presence.clone(),
            written,
            wake: wake.clone(),
            fallen: fallen.clone(),
        };
        let herald = tokio::spawn(herald.run());
        Ok(Self { presence, readers, queue, follow, wake, fallen, herald })
    }
}

/// A value of a row.
fn column<'a, T: FromSql<'a>>(row: &'a Row, place: usize) -> Result<T, StoreError> {
    // The driver's words name the column and the type, never the value.
    row.try_get(place).map_err(|error| StoreError::Unreadable(error.to_string()))
}

#[async_trait]
impl Store for PostgresStore {
    async fn commit_below(
        &self,
        changes: Vec<Change>,
        guards: Vec<Guard>,
        ceilings: Vec<Ceiling>,
    ) -> Outcome {
        match Set::prepare(changes, guards, ceilings) {
            Ok(set) => self.queue.write(set).await,
            Err(error) => Outcome::Failed(error),
        }
    }

    async fn versions(&self, subjects: &[Subject]) -> Result<Vec<u64>, StoreError> {
        records::versions(&self.readers, subjects).await
    }

    async fn digests(&self) -> Result<Vec<(Subject, String)>, StoreError> {
        records::digests(&self.readers).await
    }

    async fn token_key(&self, token: &str) -> Result<Option<String>, StoreError> {
        records::token_key(&self.readers, token).await
    }

    async fn number(&self, name: &str) -> Result<Option<i64>, StoreError> {
        records::number(&self.readers, name).await
    }

    async fn lease(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        leases::by_id(&self.readers, id).await
    }

    async fn lease_by_principal(&self, principal: &str) -> Result<Option<Lease>, StoreError> {
        leases::by_principal(&self.readers, principal).await
    }

    async fn lease_by_request(&self, task: TaskId, request: &RequestId) -> Result<Option<Lease>, StoreError> {
        leases::by_request(&self.readers, task, request).await
    }

    async fn leases(&self, filter: &LeaseFilter, limit: usize) -> Result<Vec<Lease>, StoreError> {
        leases::list(&self.readers, filter, limit).await
    }

    async fn live_targets(&self) -> Result<Vec<String>, StoreError> {
        leases::live_targets(&self.readers).await
    }

    async fn live_agents(&self) -> Result<Vec<CallerId>, StoreError> {
        leases::live_agents(&self.readers).await
    }

    async fn due_leases(
        &self,
        target: &str,
        lane: Rank,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueLease>, StoreError> {
        leases::due(&self.readers, &self.presence, (target, lane), now, limit).await
    }

    async fn let_go(&self, target: &str, now: Timestamp) -> Result<(), StoreError> {
        leases::let_go(&self.readers, &self.presence, target, now).await
    }

    async fn revoked_handles(
        &self,
        target: &str,
        among: &[String],
        since: Timestamp,
    ) -> Result<Vec<String>, StoreError> {
        leases::revoked_handles(&self.readers, target, among, since).await
    }

    async fn unreadable(&self, limit: usize) -> Result<Vec<BadRow>, StoreError> {
        aside::unreadable(&self.readers, limit).await
    }

    async fn asides(&self, filter: &AsideFilter, limit: usize) -> Result<Vec<Aside>, StoreError> {
        aside::list(&self.readers, filter, limit).await
    }

    async fn ended(&self, before: Timestamp, limit: usize) -> Result<Vec<Ended>, StoreError> {
        archive::ended(&self.readers, before, limit).await
    }

    async fn task(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        tasks::by_id(&self.readers, id).await
    }

    async fn task_by_request(
        &self,
        agent: &CallerId,
        request: &RequestId,
    ) -> Result<Option<Task>, StoreError> {
        tasks::by_request(&self.readers, agent, request).await
    }

    async fn tasks(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<Task>, StoreError> {
        tasks::list(&self.readers, filter, limit).await
    }

    async fn due_tasks(&self, now: Timestamp, limit: usize) -> Result<Vec<Task>, StoreError> {
        tasks::due(&self.readers, &self.presence, now, limit).await
    }

    async fn revocation(&self, id: RevocationId) -> Result<Option<Revocation>, StoreError> {
        records::revocation(&self.readers, id).await
    }

    async fn registered(&self) -> Result<Vec<Registered>, StoreError> {
        records::registered(&self.readers).await
    }

    async fn revocations(
        &self,
        freezing: bool,
        before: Option<RevocationId>,
        limit: usize,
    ) -> Result<Vec<Revocation>, StoreError> {
        records::revocations(&self.readers, freezing, before, limit).await
    }

    async fn head(&self) -> Result<ChainHead, StoreError> {
        journal::read(&self.readers, &self.presence.chain).await
    }

    async fn entries(&self, first: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        journal::from(&self.readers, &self.presence.chain, first, limit).await
    }

    async fn entries_of_task(&self, task: TaskId, limit: usize) -> Result<Vec<Entry>, StoreError> {
        journal::of_task(&self.readers, task, limit).await
    }

    async fn entries_with(
        &self,
        text: &str,
        from: Timestamp,
        to: Timestamp,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        journal::with(&self.readers, text, from, to, limit).await
    }

    async fn counts_by_lane(&self, now: Timestamp) -> Result<Vec<LaneCounts>, StoreError> {
        records::counts_by_lane(&self.readers, now).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        records::counts(&self.readers).await
    }

    /// By a notification, or by a look every second where that is lost.
    async fn foreign_changes(&self) -> Vec<Foreign> {
        let mut follow = self.follow.lock().await;
        loop {
            if self.fallen.swap(false, Ordering::Relaxed) {
                return vec![Foreign::Fallen];
            }
            match follow.look(&self.readers, &self.presence).await {
                Ok(found) if !found.is_empty() => return found,
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "what other brokers have written cannot be read"),
            }
            // Woken or not: it is looked.
            let _ = tokio::time::timeout(LOOK, self.wake.notified()).await;
        }
    }

    async fn live_brokers(&self) -> Result<u32, StoreError> {
        self.presence.count_live(&self.readers).await
    }

    async fn tell_heard(&self, tasks: &[(TaskId, Span)]) -> Result<(), StoreError> {
        tasks::tell_heard(&self.readers, &self.presence, tasks).await
    }

    async fn heard_elsewhere(&self, tasks: &[TaskId]) -> Result<Vec<(TaskId, Span)>, StoreError> {
        tasks::heard_elsewhere(&self.readers, &self.presence, tasks).await
    }

    async fn leave(&self) {
        self.herald.abort();
        self.queue.leave().await;
    }
}
