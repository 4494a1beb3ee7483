//! The store in one SQLite file: one writer with group commit, readers beside it, one broker at a time.

mod apply;
mod archive;
mod aside;
pub mod backup;
mod batch;
mod ceilings;
mod files;
mod hot;
mod journal;
mod leases;
mod look;
mod readers;
mod records;
mod requests;
mod rows;
mod schema;
mod sql;
mod tasks;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_law::caller::CallerId;
use leasehold_law::cause::Rank;
use leasehold_law::id::{LeaseId, RevocationId, TaskId};
use leasehold_law::journal::{ChainHead, ChainId, Entry};
use leasehold_law::lease::Lease;
use leasehold_law::principal::InstallationKey;
use leasehold_law::registry::Entry as Registered;
use leasehold_law::request::RequestId;
use leasehold_law::revocation::Revocation;
use leasehold_law::subject::{Guard, Subject};
use leasehold_law::task::Task;
use leasehold_law::time::Timestamp;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

pub use super::Stamp;
use super::set::Set;
use super::{
    Aside, AsideFilter, AsideKind, BadRow, Ceiling, Change, Counted, Counts, Draft, DueLease, Ended,
    LaneCounts, LeaseFilter, Outcome, Store, StoreError, TaskFilter,
};
use batch::Batcher;
use hot::Hot;
pub use look::look;
use readers::Readers;
use sql::unusable;
use writer::Queue;

/// How long a statement waits for a lock that only a stranger, such as a backup tool, can hold.
const BUSY: Duration = Duration::from_secs(5);
/// So many statements stay prepared on a connection.
const STATEMENTS: usize = 48;
const KIB_PER_MIB: i64 = 1024;
/// So many pages of log make a checkpoint even in a rush (64 MiB); a quiet moment makes one earlier.
const LOG_PAGES: i64 = 16 * 1024;

/// Where a store is and whose.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database file; made if it is missing, with mode 0600, in a folder with mode 0700.
    pub path: PathBuf,
    /// The broker's name, from which its chain has its own.
    pub chain: String,
    /// The installation key whose code what the broker mints carries.
    pub key: InstallationKey,
    /// What it may be used for.
    pub stamp: Stamp,
    /// Who writes.
    pub writer: Writer,
    /// The writer's page cache at most, in MiB; it fills with use, and is given back after half a minute without
    /// writes.
    pub cache_mib: u16,
}

impl Options {
    /// Holds the pages that a million leases keep busy.
    pub const DEFAULT_CACHE_MIB: u16 = 64;
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A thread of its own, which commits for many callers at once.
    Thread,
    /// Each caller in its own task, by the same code: for simulation, where no thread may run beside a paused clock.
    Inline,
}

/// A store in one SQLite file. Dropping it answers whoever still waits, and lets the next broker in.
pub struct SqliteStore {
    // Before the writer: the last connection to close tidies the log away.
    readers: Readers,
    queue: Queue,
    hot: Arc<Hot>,
    chain: ChainId,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens or makes the store, and holds it. Blocks for the time of a few disk flushes.
    ///
    /// # Errors
    /// [`StoreError::Held`] while another broker holds it, [`StoreError::Foreign`] if it was made for another broker
    /// or purpose, [`StoreError::Newer`] for a schema from the future, else [`StoreError::Unusable`].
    pub fn open(options: &Options) -> Result<Self, StoreError> {
        let lock = files::hold(&options.path)?;
        let mut conn = connect(&options.path).map_err(unusable)?;
        let chain = schema::prepare(&mut conn, options)?;
        tune(&conn, options.cache_mib).map_err(unusable)?;
        let hot = Arc::new(Hot::new(records::all_versions(&conn)?));
        let batcher = Batcher::new(conn, chain.clone(), hot.clone(), lock);
        let queue = match options.writer {
            Writer::Thread => Queue::thread(batcher)?,
            Writer::Inline => Queue::inline(batcher),
        };
        Ok(Self { readers: Readers::new(options.path.clone(), options.writer), queue, hot, chain })
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open(path)?;
    set_up(&conn)?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    Ok(conn)
}

/// What every connection needs. The planner must not look at values: with partial indexes it would plan a statement
/// anew whenever one is bound.
fn set_up(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

fn tune(conn: &Connection, cache_mib: u16) -> rusqlite::Result<()> {
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "cache_size", -i64::from(cache_mib) * KIB_PER_MIB)?;
    conn.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)
}

#[async_trait]
impl Store for SqliteStore {
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
        if let Some(versions) = self.hot.versions(subjects) {
            return Ok(versions);
        }
        let subjects = subjects.to_vec();
        self.readers.read(move |reader| records::versions(reader, &subjects)).await
    }

    async fn digests(&self) -> Result<Vec<(Subject, String)>, StoreError> {
        self.readers.read(records::digests).await
    }

    async fn token_key(&self, token: &str) -> Result<Option<String>, StoreError> {
        let token = token.to_owned();
        self.readers.read(move |reader| records::token_key(reader, &token)).await
    }

    async fn number(&self, name: &str) -> Result<Option<i64>, StoreError> {
        let name = name.to_owned();
        self.readers.read(move |reader| records::number(reader, &name)).await
    }

    async fn lease(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        if let Some(lease) = self.hot.lease(id) {
            return Ok(Some(Lease::clone(&lease)));
        }
        self.readers.read(move |reader| leases::by_id(reader, id)).await
    }

    async fn lease_by_principal(&self, principal: &str) -> Result<Option<Lease>, StoreError> {
        let principal = principal.to_owned();
        self.readers.read(move |reader| leases::by_principal(reader, &principal)).await
    }

    async fn lease_by_request(&self, task: TaskId, request: &RequestId) -> Result<Option<Lease>, StoreError> {
        if self.hot.is_new_request(task, request) {
            return Ok(None);
        }
        let request = request.clone();
        self.readers.read(move |reader| leases::by_request(reader, task, &request)).await
    }

    async fn leases(&self, filter: &LeaseFilter, limit: usize) -> Result<Vec<Lease>, StoreError> {
        let filter = filter.clone();
        self.readers.read(move |reader| leases::list(reader, &filter, limit)).await
    }

    async fn live_targets(&self) -> Result<Vec<String>, StoreError> {
        self.readers.read(leases::live_targets).await
    }

    async fn live_agents(&self) -> Result<Vec<CallerId>, StoreError> {
        self.readers.read(leases::live_agents).await
    }

    async fn due_leases(
        &self,
        target: &str,
        lane: Rank,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueLease>, StoreError> {
        let target = target.to_owned();
        self.readers.read(move |reader| leases::due(reader, &target, lane, now, limit)).await
    }

    async fn revoked_handles(
        &self,
        target: &str,
        among: &[String],
        since: Timestamp,
    ) -> Result<Vec<String>, StoreError> {
        let (target, among) = (target.to_owned(), among.to_vec());
        self.readers.read(move |reader| leases::revoked_handles(reader, &target, &among, since)).await
    }

    async fn unreadable(&self, limit: usize) -> Result<Vec<BadRow>, StoreError> {
        self.readers.read(move |reader| aside::unreadable(reader, limit)).await
    }

    async fn asides(&self, filter: &AsideFilter, limit: usize) -> Result<Vec<Aside>, StoreError> {
        let filter = filter.clone();
        self.readers.read(move |reader| aside::list(reader, &filter, limit)).await
    }

    async fn ended(&self, before: Timestamp, limit: usize) -> Result<Vec<Ended>, StoreError> {
        self.readers.read(move |reader| archive::ended(reader, before, limit)).await
    }

    async fn task(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        if let Some(task) = self.hot.task(id) {
            return Ok(Some(Task::clone(&task)));
        }
        self.readers.read(move |reader| tasks::by_id(reader, id)).await
    }

    async fn task_by_request(
        &self,
        agent: &CallerId,
        request: &RequestId,
    ) -> Result<Option<Task>, StoreError> {
        let (agent, request) = (agent.clone(), request.clone());
        self.readers.read(move |reader| tasks::by_request(reader, &agent, &request)).await
    }

    async fn tasks(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<Task>, StoreError> {
        let filter = filter.clone();
        self.readers.read(move |reader| tasks::list(reader, &filter, limit)).await
    }

    async fn due_tasks(&self, now: Timestamp, limit: usize) -> Result<Vec<Task>, StoreError> {
        self.readers.read(move |reader| tasks::due(reader, now, limit)).await
    }

    async fn revocation(&self, id: RevocationId) -> Result<Option<Revocation>, StoreError> {
        self.readers.read(move |reader| records::revocation(reader, id)).await
    }

    async fn registered(&self) -> Result<Vec<Registered>, StoreError> {
        self.readers.read(records::registered).await
    }

    async fn revocations(
        &self,
        freezing: bool,
        before: Option<RevocationId>,
        limit: usize,
    ) -> Result<Vec<Revocation>, StoreError> {
        self.readers.read(move |reader| records::revocations(reader, freezing, before, limit)).await
    }

    async fn head(&self) -> Result<ChainHead, StoreError> {
        let chain = self.chain.clone();
        self.readers.read(move |reader| journal::head(reader.conn, &chain)).await
    }

    async fn entries(&self, first: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let chain = self.chain.clone();
        self.readers.read(move |reader| journal::from(reader, &chain, first, limit)).await
    }

    async fn entries_of_task(&self, task: TaskId, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.readers.read(move |reader| journal::of_task(reader, task, limit)).await
    }

    async fn entries_with(
        &self,
        text: &str,
        from: Timestamp,
        to: Timestamp,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let text = text.to_owned();
        self.readers.read(move |reader| journal::with(reader, &text, from, to, limit)).await
    }

    async fn counts_by_lane(&self, now: Timestamp) -> Result<Vec<LaneCounts>, StoreError> {
        self.readers.read(move |reader| records::counts_by_lane(reader, now)).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.readers.read(records::counts).await
    }
}
