//! A set of changes, made ready in the caller's task, so that a writer only writes.

use std::borrow::Cow;
use std::sync::Arc;

use leasehold_law::cause::Rank;
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::registry::Entry as Registered;
use leasehold_law::revocation::Revocation;
use leasehold_law::subject::{Guard, Subject};
use leasehold_law::task::{Task, TaskState};
use leasehold_law::time::Timestamp;

use super::{Aside, Ceiling, Change, Draft, Ended, StoreError, TokenUse};

/// What is written whole or not at all.
pub(super) struct Set {
    /// What must still hold.
    pub(super) checks: Vec<Check>,
    /// What must not be reached.
    pub(super) ceilings: Vec<Ceiling>,
    /// What is written then, in order.
    pub(super) writes: Vec<Write>,
}

/// A subject that must still have this version.
pub(super) struct Check {
    /// The subject.
    pub(super) subject: Subject,
    /// Where its version is.
    pub(super) place: Place,
    /// Its version.
    pub(super) version: i64,
}

/// One change with its texts made.
pub(super) enum Write {
    /// A lease's row.
    Lease(Box<LeaseRow>),
    /// A task's row.
    Task(Box<TaskRow>),
    /// A revocation's row.
    Revocation(RevocationRow),
    /// A registration's row.
    Agents(AgentsRow),
    /// The next version of a subject, by its key.
    Bump(String),
    /// A digest, by its subject's key.
    Digest(String, String),
    /// A number by name.
    Number(Cow<'static, str>, i64),
    /// A token and its key.
    Token(TokenUse),
    /// A row to be moved out of its table.
    SetAside(Box<Aside>),
    /// What became of one that was.
    Aside(Box<Aside>),
    /// A row that is over.
    Archive(Ended),
    /// An entry.
    Append(Draft),
}

/// A lease, and its columns that are not in its terms.
pub(super) struct LeaseRow {
    /// The lease.
    pub(super) lease: Arc<Lease>,
    /// Null unless live.
    pub(super) due: Option<i64>,
    /// Whether a try to revoke it failed.
    pub(super) stuck: bool,
    /// When it died, with proof.
    pub(super) revoked_at: Option<i64>,
    /// All of it.
    pub(super) body: String,
}

/// A task, and its columns that are not in its terms.
pub(super) struct TaskRow {
    /// The task.
    pub(super) task: Arc<Task>,
    /// Null once it is over.
    pub(super) due: Option<i64>,
    /// All of it.
    pub(super) body: String,
}

/// A revocation.
pub(super) struct RevocationRow {
    /// Its id.
    pub(super) id: String,
    /// What it took, as text.
    pub(super) selector: String,
    /// Whether its barrier stands.
    pub(super) freezing: bool,
    /// All of it.
    pub(super) body: String,
}

/// What is kept of a registration.
pub(super) struct AgentsRow {
    /// Whose, as text.
    pub(super) who: String,
    /// All of it.
    pub(super) body: String,
}

impl Set {
    /// Makes a set ready.
    ///
    /// # Errors
    /// Where a subject is bumped that has its version in its own row.
    pub(super) fn prepare(
        changes: Vec<Change>,
        guards: Vec<Guard>,
        ceilings: Vec<Ceiling>,
    ) -> Result<Self, StoreError> {
        let checks = guards.into_iter().map(Check::prepare).collect::<Result<_, _>>()?;
        let writes = changes.into_iter().map(Write::prepare).collect::<Result<_, _>>()?;
        Ok(Self { checks, ceilings, writes })
    }
}

impl Check {
    fn prepare(guard: Guard) -> Result<Self, StoreError> {
        let place = Place::of(&guard.subject)?;
        Ok(Self { subject: guard.subject, place, version: signed(guard.version) })
    }
}

impl Write {
    fn prepare(change: Change) -> Result<Self, StoreError> {
        Ok(match change {
            Change::Lease(lease) => Self::Lease(Box::new(LeaseRow::prepare(*lease)?)),
            Change::Task(task) => Self::Task(Box::new(TaskRow::prepare(*task)?)),
            Change::Revocation(revocation) => Self::Revocation(RevocationRow::prepare(&revocation)?),
            Change::Agents(entry) => {
                Self::Agents(AgentsRow { who: entry.who.to_string(), body: json(&entry)? })
            }
            Change::Bump(subject) => Self::Bump(own_key(&subject)?),
            Change::Digest(subject, digest) => Self::Digest(own_key(&subject)?, digest),
            Change::Number(name, value) => Self::Number(name, value),
            Change::Token(token) => Self::Token(token),
            Change::SetAside(aside) => Self::SetAside(aside),
            Change::Aside(aside) => Self::Aside(aside),
            Change::Archive(ended) => Self::Archive(ended),
            Change::Append(draft) => Self::Append(draft),
        })
    }
}

fn own_key(subject: &Subject) -> Result<String, StoreError> {
    match Place::of(subject)? {
        Place::Subject(key) => Ok(key),
        Place::Task(_) | Place::Lease(_) => {
            Err(StoreError::Unusable(format!("the version of {subject} moves only with its row")))
        }
    }
}

impl LeaseRow {
    fn prepare(lease: Lease) -> Result<Self, StoreError> {
        Ok(Self {
            due: lease.state.due().map(|at| at.0),
            stuck: is_stuck(&lease.state),
            revoked_at: revoked_at(&lease.state).map(|at| at.0),
            body: json(&lease)?,
            lease: Arc::new(lease),
        })
    }
}

/// A try without an error waits for sessions to end; that is progress.
fn is_stuck(state: &LeaseState) -> bool {
    matches!(state, LeaseState::Revoking { progress, .. } if progress.last_error.is_some())
}

fn revoked_at(state: &LeaseState) -> Option<Timestamp> {
    match state {
        LeaseState::Revoked { at, .. } => Some(*at),
        LeaseState::New
        | LeaseState::Refused { .. }
        | LeaseState::Minting { .. }
        | LeaseState::Active { .. }
        | LeaseState::Renewing { .. }
        | LeaseState::Revoking { .. }
        | LeaseState::Residual { .. }
        | LeaseState::Lapsed { .. } => None,
    }
}

impl TaskRow {
    fn prepare(task: Task) -> Result<Self, StoreError> {
        let due = match &task.state {
            TaskState::Open => Some(task.ends_at().0),
            TaskState::Ending { .. } => Some(0),
            TaskState::New | TaskState::Refused | TaskState::Ended { .. } => None,
        };
        Ok(Self { due, body: json(&task)?, task: Arc::new(task) })
    }
}

impl RevocationRow {
    fn prepare(revocation: &Revocation) -> Result<Self, StoreError> {
        Ok(Self {
            id: revocation.id.to_string(),
            selector: revocation.selector.to_string(),
            freezing: revocation.is_freezing(),
            body: json(revocation)?,
        })
    }
}

/// Where the version of a subject is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    /// In the task's own row.
    Task(String),
    /// In the lease's own row.
    Lease(String),
    /// In the table of subjects, by its JSON.
    Subject(String),
}

impl Place {
    /// Where this subject's version is kept.
    pub(super) fn of(subject: &Subject) -> Result<Self, StoreError> {
        Ok(match subject {
            Subject::Task(id) => Self::Task(id.to_string()),
            Subject::Lease(id) => Self::Lease(id.to_string()),
            Subject::Agent(_)
            | Subject::Agents
            | Subject::Target(_)
            | Subject::Policy
            | Subject::Freezes
            | Subject::Term(_)
            | Subject::Revocation(_) => Self::Subject(json(subject)?),
        })
    }
}

/// SQL's numbers have 63 bits and a sign; no count of ours comes near.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// How many rows at most.
pub(super) fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// A count or a version that was stored.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A lane as it is stored.
pub(super) const fn lane_number(lane: Rank) -> i64 {
    match lane {
        Rank::Routine => 0,
        Rank::TaskEnd => 1,
        Rank::Security => 2,
    }
}

/// A lane that was stored; a number of no lane counts as the most urgent.
pub(super) const fn lane_of(number: i64) -> Rank {
    match number {
        0 => Rank::Routine,
        1 => Rank::TaskEnd,
        _ => Rank::Security,
    }
}

/// A value of ours as JSON text.
pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unusable(error.to_string()))
}

/// What is kept of a registration, from its row.
pub(super) fn registration(who: &str, body: &str) -> Result<Registered, StoreError> {
    serde_json::from_str(body)
        .map_err(|error| StoreError::Unreadable(format!("the registration of `{who}`: {error}")))
}
