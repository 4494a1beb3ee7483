//! Room 8, make durable: what the ledger writes and what the broker reads, whatever holds it.
//!
//! The store knows no backend and no caller. It writes a set of changes whole or not at all, compares versions in
//! the same transaction (RULES R-1), and chains journal entries in the order in which it commits them.

mod archive;
mod aside;
mod bad;
mod conditions;
pub mod postgres;
mod set;
pub mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

use std::borrow::Cow;

pub use aside::{Aside, AsideFilter, AsideKind, BadRow};
use async_trait::async_trait;
use leasehold_law::caller::{CallerId, Vouched};
use leasehold_law::cause::Rank;
use leasehold_law::id::{LeaseId, RevocationId, TaskId};
use leasehold_law::journal::{ChainHead, Entry};
use leasehold_law::lease::Lease;
use leasehold_law::quota::Holder;
use leasehold_law::registry::Entry as Registered;
use leasehold_law::request::RequestId;
use leasehold_law::revocation::Revocation;
use leasehold_law::subject::{Guard, Subject};
use leasehold_law::task::Task;
use leasehold_law::time::{Span, Timestamp};

/// The number of the store's incarnation: one more after each restore (RULES R-12).
pub const INCARNATION: &str = "incarnation";
/// The number that says up to when the backup knew everything, in a store that was restored.
pub const RESTORE_TAKEN: &str = "restore.taken_at";
/// The number that says when a store was restored.
pub const RESTORED: &str = "restore.at";

/// One change. A set of them is written whole or not at all.
#[derive(Clone, Debug)]
pub enum Change {
    /// A lease as it stands now. Its version must be one more than the stored one, or 1 for a new one; where it is
    /// not, the whole set is stale.
    Lease(Box<Lease>),
    /// A task as it stands now; versions as for leases.
    Task(Box<Task>),
    /// A revocation, new or with its barrier lifted.
    Revocation(Box<Revocation>),
    /// What is kept of a registration of agents, in the place of what was.
    Agents(Box<Registered>),
    /// Gives a subject its next version: an agent, a target, the policy, a barrier.
    Bump(Subject),
    /// Remembers the digest of a config subject, so that the next start sees what changed.
    Digest(Subject, String),
    /// Remembers a number by name: the clock's high-water mark, the incarnation. Where several brokers share a store,
    /// the greatest that any of them remembered stays.
    Number(Cow<'static, str>, i64),
    /// Remembers the key that a token came with, unless it came with one before; forgets tokens that are over.
    Token(TokenUse),
    /// Moves a row that cannot be read out of its table, bytes and all, or takes up a principal that no row explains.
    /// Fails, with the whole set, where the row is no longer the one that was read.
    SetAside(Box<Aside>),
    /// How far what was set aside has come.
    Aside(Box<Aside>),
    /// A row that is over leaves its table, unless it came back to life; the journal goes on telling it.
    Archive(Ended),
    /// An entry at the end of the journal.
    Append(Draft),
}

/// That a token came with a proof of some key (RULES R-20). Neither is kept: their digests are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUse {
    /// SHA-256 of what names the token, base64url: not of its text, which has more than one spelling.
    pub token: String,
    /// The thumbprint of the key (RFC 7638).
    pub key: String,
    /// The end of the token.
    pub until: Timestamp,
    /// The time: what was over [`TokenUse::KEPT`] ago is forgotten.
    pub now: Timestamp,
}

impl TokenUse {
    /// How long a first key is remembered after the end of its token. Another broker's clock may be behind, and one that
    /// was ahead be set right: the token lives again there, and must not belong to whoever comes next.
    pub const KEPT: Span = Span::from_mins(60);

    /// What was over by then is forgotten.
    fn forgotten(&self) -> Timestamp {
        self.now - Self::KEPT
    }
}

/// A journal entry before it has its place: its bytes, made once, and the columns that must equal what they say.
#[derive(Clone, Debug)]
pub struct Draft {
    /// When.
    pub at: Timestamp,
    /// The task it belongs to.
    pub task: Option<TaskId>,
    /// The lease it belongs to.
    pub lease: Option<LeaseId>,
    /// The bytes.
    pub body: Vec<u8>,
}

/// A bound on live leases, counted in the transaction that writes one more (RULES R-1, REQUIREMENTS POL-9).
///
/// # Contract
/// A set with a ceiling is written only where fewer than `most` leases that it counts are live, in whatever state they
/// are, just before the set. Of sets that are written at once each sees what those before it left, so that two of them
/// cannot both take the last place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// What the bound is about.
    pub holder: Holder,
    /// Whose leases are counted.
    pub counted: Counted,
    /// How many may be live.
    pub most: u64,
}

/// Live leases that are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Those of all these agents.
    Agents(Vec<CallerId>),
    /// Those on this target.
    Target(String),
}

/// What became of a set of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is durable.
    Committed,
    /// None of it is written: this subject has another version by now.
    Stale(Subject),
    /// None of it is written: so many leases are live already.
    Full(Box<Ceiling>),
    /// None of it is written, and the store says why.
    Failed(StoreError),
    /// Nobody knows. Expose nothing, and read again.
    Unknown(StoreError),
}

/// Why the store cannot do what it is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another broker holds it.
    #[error("another broker holds the store {0}")]
    Held(String),
    /// It is full, read-only or unreachable.
    #[error("the store cannot be used: {0}")]
    Unusable(String),
    /// It was made by a newer version.
    #[error("the store has schema {found}; this version knows up to {known}: use the newer version")]
    Newer {
        /// The schema of the store.
        found: u32,
        /// The newest schema that is known.
        known: u32,
    },
    /// It was made for another broker or another purpose.
    #[error("the store is not this broker's: {0}")]
    Foreign(String),
    /// A row cannot be read.
    #[error("a row cannot be read: {0}")]
    Unreadable(String),
    /// Another broker took this one for dead: what it had not committed by then never will be.
    #[error("another broker fenced this one, which was silent for too long: nothing of this is written")]
    Fenced,
    /// Too much is waiting to be written.
    #[error("too much is waiting to be written")]
    Busy,
}

impl StoreError {
    /// The store was used with one installation key, by its public name, and another is here.
    fn of_another_key(theirs: &str, ours: &str) -> Self {
        Self::Foreign(format!(
            "it belongs to {theirs}, and the installation key here is that of `{ours}`, which marks \
             nothing that was minted from it\n  next: put its own key in place; brokers that share a store share the \
             key, a copy of a store is no store for another installation, and docs/operate.md says what can be done \
             where a key is lost"
        ))
    }
}

/// A row that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A lease.
    Lease(LeaseId),
    /// A task.
    Task(TaskId),
}

/// What a store may be used for; it keeps the stamp that it was made with (RULES R-19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// Production.
    Production,
    /// Brokers that were started with `--dev-trust`.
    Dev,
}

impl Stamp {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Dev => "dev",
        }
    }

    /// Why a store that was made with another stamp is not served.
    pub(crate) const fn refusal(self) -> &'static str {
        match self {
            Self::Production => "it was made with --dev-trust, and such a store never serves production",
            Self::Dev => "it serves production, and --dev-trust never opens such a store",
        }
    }
}

/// A lease that is due, readable or not. One bad row never stops the rest (law 9).
#[derive(Clone, Debug)]
pub enum DueLease {
    /// As it stands.
    Lease(Box<Lease>),
    /// Its row cannot be read.
    Bad(BadRow),
}

/// Which leases, newest first.
#[derive(Clone, Debug, Default)]
pub struct LeaseFilter {
    /// Only this one.
    pub id: Option<LeaseId>,
    /// Only this caller's.
    pub agent: Option<CallerId>,
    /// Only this task's.
    pub task: Option<TaskId>,
    /// Only on this target.
    pub target: Option<String>,
    /// Only for this intent.
    pub intent: Option<String>,
    /// Only those of tasks that act for this person.
    pub person: Option<Vouched>,
    /// Only those of tasks with this reference.
    pub reference: Option<(String, String)>,
    /// Only those that may still exist in their target.
    pub live: bool,
    /// Only those that are being revoked after at least one try that failed.
    pub stuck: bool,
    /// Only those that are being revoked and are not tried again before or at this.
    pub tried_after: Option<Timestamp>,
    /// Only active ones whose end has come by then.
    pub expired: Option<Timestamp>,
    /// Only those made at or after this.
    pub since: Option<Timestamp>,
    /// Only those made before this one: where the page before ended.
    pub before: Option<LeaseId>,
    /// Only those made after this one.
    pub after: Option<LeaseId>,
}

/// Which tasks, newest first.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// Only this caller's.
    pub agent: Option<CallerId>,
    /// Only those that act for this person.
    pub person: Option<Vouched>,
    /// Only with this reference.
    pub reference: Option<(String, String)>,
    /// Only open ones and those that are ending.
    pub live: bool,
    /// Only those that are ending.
    pub ending: bool,
    /// Only those opened before this one: where the page before ended.
    pub before: Option<TaskId>,
}

/// How many there are, for the operator's one screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Leases that may exist in their target.
    pub live: u64,
    /// Of these, those that are being revoked.
    pub revoking: u64,
    /// Of these, those with a failed try behind them.
    pub stuck: u64,
    /// Tasks that are open.
    pub open_tasks: u64,
    /// Rows that cannot be read, those that were set aside included.
    pub bad_rows: u64,
    /// What was set aside and may still be alive in its target: bad rows and orphans.
    pub aside: u64,
}

/// How many leases of one lane a target has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneCounts {
    /// The target.
    pub target: String,
    /// The lane.
    pub lane: Rank,
    /// Leases that may exist in it.
    pub live: u64,
    /// Of these, those that are being revoked, or are due to be.
    pub due: u64,
    /// Of these, those with a failed try behind them.
    pub stuck: u64,
}

/// What another broker has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Foreign {
    /// This lease.
    Lease(LeaseId),
    /// This task.
    Task(TaskId),
    /// What no task is about: config, a barrier.
    Other,
    /// Another broker fell silent and was fenced: what it was doing is nobody's now.
    Fallen,
}

/// What holds tasks, leases, revocations and the journal.
///
/// # Contract
/// An answer of [`Outcome::Committed`] is on disk. Reads see every set that was acknowledged before they began.
#[async_trait]
pub trait Store: Send + Sync {
    /// Writes the changes if every guard still holds and no ceiling is reached.
    async fn commit_below(&self, changes: Vec<Change>, guards: Vec<Guard>, ceilings: Vec<Ceiling>)
    -> Outcome;

    /// Writes the changes if every guard still holds.
    async fn commit(&self, changes: Vec<Change>, guards: Vec<Guard>) -> Outcome {
        self.commit_below(changes, guards, Vec::new()).await
    }

    /// The versions of these subjects, in their order; 0 for one that does not exist.
    async fn versions(&self, subjects: &[Subject]) -> Result<Vec<u64>, StoreError>;
    /// The digest that was last remembered for each config subject.
    async fn digests(&self) -> Result<Vec<(Subject, String)>, StoreError>;
    /// The key that a token first came with, by the token's digest.
    async fn token_key(&self, token: &str) -> Result<Option<String>, StoreError>;
    /// A number that was remembered by name.
    async fn number(&self, name: &str) -> Result<Option<i64>, StoreError>;

    /// One lease. One that has left its table is told from the journal.
    async fn lease(&self, id: LeaseId) -> Result<Option<Lease>, StoreError>;
    /// The lease with this name in its target.
    async fn lease_by_principal(&self, principal: &str) -> Result<Option<Lease>, StoreError>;
    /// The latest attempt of a request under a task (RULES R-5).
    async fn lease_by_request(&self, task: TaskId, request: &RequestId) -> Result<Option<Lease>, StoreError>;
    /// Leases, newest first.
    async fn leases(&self, filter: &LeaseFilter, limit: usize) -> Result<Vec<Lease>, StoreError>;
    /// The targets in which any lease may exist, by name.
    async fn live_targets(&self) -> Result<Vec<String>, StoreError>;
    /// The agents of which any lease may exist, by identity.
    async fn live_agents(&self) -> Result<Vec<CallerId>, StoreError>;
    /// Leases of this target and this lane ([`leasehold_law::lease::LeaseState::lane`]) that are due at `now`, the
    /// longest overdue first. Where several brokers share a store, those that another one is working on are left out
    /// for as long as its claim lasts.
    async fn due_leases(
        &self,
        target: &str,
        lane: Rank,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueLease>, StoreError>;
    /// Which of these handles in a target are of leases that were revoked at or after `since`, or of what was set
    /// aside and is gone since.
    async fn revoked_handles(
        &self,
        target: &str,
        among: &[String],
        since: Timestamp,
    ) -> Result<Vec<String>, StoreError>;
    /// Rows that some read met and could not read, at most `limit`; each until it is set aside or mended.
    async fn unreadable(&self, limit: usize) -> Result<Vec<BadRow>, StoreError>;
    /// What was set aside, newest first.
    async fn asides(&self, filter: &AsideFilter, limit: usize) -> Result<Vec<Aside>, StoreError>;
    /// What is over and was made before this moment, at most `limit`: leases of tasks that are over, which were not
    /// revoked later than that, and tasks that have no lease in the table any more.
    async fn ended(&self, before: Timestamp, limit: usize) -> Result<Vec<Ended>, StoreError>;

    /// One task. One that has left its table is told from the journal.
    async fn task(&self, id: TaskId) -> Result<Option<Task>, StoreError>;
    /// The task that a caller opened with this request id.
    async fn task_by_request(
        &self,
        agent: &CallerId,
        request: &RequestId,
    ) -> Result<Option<Task>, StoreError>;
    /// Tasks, newest first.
    async fn tasks(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<Task>, StoreError>;
    /// Lets go of this target's leases that are due at `now` and that this broker works on, so that another one of the
    /// store may: it may reach the target. A store of one broker has no other.
    async fn let_go(&self, _target: &str, _now: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }
    /// Open tasks whose deadline, or whose person's session, is over at `now`, the longest over first; claims as for
    /// leases.
    async fn due_tasks(&self, now: Timestamp, limit: usize) -> Result<Vec<Task>, StoreError>;

    /// One revocation.
    async fn revocation(&self, id: RevocationId) -> Result<Option<Revocation>, StoreError>;
    /// Revocations, newest first; only those whose barrier stands, if `freezing`.
    async fn revocations(
        &self,
        freezing: bool,
        before: Option<RevocationId>,
        limit: usize,
    ) -> Result<Vec<Revocation>, StoreError>;

    /// All that is kept of registrations. Where one cannot be read the whole read fails: it may be what keeps an agent
    /// from working.
    async fn registered(&self) -> Result<Vec<Registered>, StoreError>;

    /// Where this broker's chain ends.
    async fn head(&self) -> Result<ChainHead, StoreError>;
    /// Entries from `first` on, at most `limit`, in order.
    async fn entries(&self, first: u64, limit: usize) -> Result<Vec<Entry>, StoreError>;
    /// Entries that name this task, as those of its leases do, in order.
    async fn entries_of_task(&self, task: TaskId, limit: usize) -> Result<Vec<Entry>, StoreError>;
    /// Entries with `from <= at < to` that hold this text, in the order of `at`, then of writing. Looks at every entry
    /// of that time until there are `limit`: keep it short.
    async fn entries_with(
        &self,
        text: &str,
        from: Timestamp,
        to: Timestamp,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// For each target and lane that has any: its leases, as of `now`.
    async fn counts_by_lane(&self, now: Timestamp) -> Result<Vec<LaneCounts>, StoreError>;
    /// How many there are.
    async fn counts(&self) -> Result<Counts, StoreError>;

    /// Waits until other brokers have changed something, and says what. A store of one broker never answers.
    async fn foreign_changes(&self) -> Vec<Foreign> {
        std::future::pending().await
    }
    /// How many brokers of this store live, this one among them. A store of one broker has no other.
    async fn live_brokers(&self) -> Result<u32, StoreError> {
        Ok(1)
    }
    /// Tells the other brokers which tasks this one has heard from, and how long ago: all of them, each time.
    async fn tell_heard(&self, _tasks: &[(TaskId, Span)]) -> Result<(), StoreError> {
        Ok(())
    }
    /// How long ago other brokers heard from these tasks; one that none of them has heard from is left out.
    async fn heard_elsewhere(&self, _tasks: &[TaskId]) -> Result<Vec<(TaskId, Span)>, StoreError> {
        Ok(Vec::new())
    }
    /// Writes what was handed in and lets go, so that the next broker of this name need not wait.
    async fn leave(&self) {}
}
