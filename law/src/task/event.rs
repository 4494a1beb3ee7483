//! What happens to a task.

use serde::{Deserialize, Serialize};

use super::state::Outcome;
use crate::cause::Cause;
use crate::scope::Scope;
use crate::time::Timestamp;

/// One step in the life of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TaskEvent {
    /// It may be worked on.
    Opened,
    /// Policy denied a pair of its scope.
    Refused,
    /// It may ask for this from now on.
    ScopeChanged {
        /// The new scope.
        scope: Scope,
    },
    /// The person that it acts for is still signed in.
    SessionRenewed {
        /// The end of their newer token.
        until: Timestamp,
    },
    /// It is over; its leases are being revoked.
    EndStarted {
        /// Why.
        cause: Cause,
        /// When.
        at: Timestamp,
    },
    /// Nothing of it is left, or only what no one can revoke.
    Ended {
        /// Which of the two.
        outcome: Outcome,
        /// When.
        at: Timestamp,
    },
}

impl TaskEvent {
    /// The entry's kind in the journal.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Opened => "task.opened",
            Self::Refused => "task.refused",
            Self::ScopeChanged { .. } => "task.scope_changed",
            Self::SessionRenewed { .. } => "task.session_renewed",
            Self::EndStarted { .. } => "task.end_started",
            Self::Ended { .. } => "task.ended",
        }
    }
}
