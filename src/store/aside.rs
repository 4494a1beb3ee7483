//! What is set aside, and what both stores ask of a row before they trust it.

use leasehold_law::id::TaskId;
use leasehold_law::lease::Lease;
use leasehold_law::time::{Span, Timestamp};

/// What was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AsideKind {
    /// The row of a lease.
    Lease,
    /// The row of a task.
    Task,
    /// The row of a revocation.
    Revocation,
    /// A principal of this installation that no lease explains.
    Orphan,
}

impl AsideKind {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Lease, Self::Task, Self::Revocation, Self::Orphan];

    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Task => "task",
            Self::Revocation => "revocation",
            Self::Orphan => "orphan",
        }
    }

    /// The kind of a word that was stored; a word of none counts as the one that is killed by its name.
    pub(super) fn of(word: &str) -> Self {
        Self::ALL.into_iter().find(|kind| kind.name() == word).unwrap_or(Self::Lease)
    }
}

/// A row that cannot be read, or that contradicts itself: what its plain columns say is enough to kill what it stands
/// for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// What it is.
    pub kind: AsideKind,
    /// Its id; of an orphan, its name in the target.
    pub id: String,
    /// The task it belongs to; empty where it belongs to none.
    pub task: String,
    /// Where. Of a revocation: what it selects, while it freezes; otherwise empty where there is no target.
    pub target: String,
    /// The name in the target; empty where there is none.
    pub principal: String,
    /// What the target knows it by.
    pub handle: Option<String>,
    /// What it held.
    pub bytes: Vec<u8>,
    /// What is wrong.
    pub error: String,
}

/// Something that was set aside, and how far killing what it stands for has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// What it was.
    pub row: BadRow,
    /// When it was set aside.
    pub at: Timestamp,
    /// When to try next; `None` where nothing of it can be alive.
    pub due: Option<Timestamp>,
    /// Tries so far.
    pub tries: u32,
    /// What stood in the way last.
    pub last_error: Option<String>,
    /// When its target read back that it is gone.
    pub gone_at: Option<Timestamp>,
}

impl Aside {
    /// The longest wait between two tries to kill one.
    pub const LONGEST_WAIT: Span = Span::from_mins(1);
}

/// Which of what was set aside; newest first.
#[derive(Clone, Debug, Default)]
pub struct AsideFilter {
    /// Only what may still be alive in its target.
    pub alive: bool,
    /// Only what is due at this moment.
    pub due: Option<Timestamp>,
    /// Only on this target.
    pub target: Option<String>,
    /// Only of this task.
    pub task: Option<TaskId>,
}

/// The table of these rows. An orphan has none.
pub(super) const fn table(kind: AsideKind) -> &'static str {
    match kind {
        AsideKind::Lease => "leases",
        AsideKind::Task => "tasks",
        AsideKind::Revocation => "revocations",
        AsideKind::Orphan => "set_aside",
    }
}

/// The lease of a row, where its body can be read and says what the plain columns say; otherwise what is wrong.
pub(super) fn sound_lease(plain: &BadRow, word: &str, due: Option<i64>) -> Result<Lease, String> {
    let lease: Lease = serde_json::from_slice(&plain.bytes).map_err(|error| error.to_string())?;
    let (terms, state) = (&lease.terms, &lease.state);
    let pairs = [
        ("id", terms.id.to_string() == plain.id),
        ("task", terms.task.to_string() == plain.task),
        ("target", terms.pair.target == plain.target),
        ("principal", terms.principal.as_str() == plain.principal),
        ("handle", state.handle() == plain.handle.as_deref()),
        ("state", word == state.name()),
        ("due", state.due().map(|at| at.0) == due),
    ];
    match pairs.iter().find(|(_, same)| !same) {
        Some((column, _)) => Err(format!("its {column} is not what its body says")),
        None => Ok(lease),
    }
}

/// A bad row that stands for nothing in a target.
pub(super) fn bare(kind: AsideKind, id: &str, bytes: Vec<u8>, error: String) -> BadRow {
    let nothing = String::new;
    BadRow {
        kind,
        id: id.to_owned(),
        task: nothing(),
        target: nothing(),
        principal: nothing(),
        handle: None,
        bytes,
        error,
    }
}
