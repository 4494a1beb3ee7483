//! One total function from state and event to state, for live code and for replay.

use serde::{Deserialize, Serialize};

use super::event::TaskEvent;
use crate::cause::Cause;
use crate::time::Timestamp;

/// What a task left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing.
    Clean,
    /// A credential that lives on to its natural end.
    WithResidue,
}

/// How a task stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TaskState {
    /// Before its first event; never stored.
    New,
    /// It was never opened.
    Refused,
    /// It may ask for leases.
    Open,
    /// It may ask for nothing more; its leases are being revoked.
    Ending {
        /// Why.
        cause: Cause,
        /// Since when.
        at: Timestamp,
    },
    /// It is over.
    Ended {
        /// Why.
        cause: Cause,
        /// What it left behind.
        outcome: Outcome,
        /// Since when.
        at: Timestamp,
    },
}

/// A step that the law does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event} cannot follow {state}")]
pub struct IllegalTaskTransition {
    state: &'static str,
    event: &'static str,
}

impl TaskState {
    /// The state that an event leads to.
    ///
    /// # Errors
    /// Where the law knows no such step.
    pub fn next(&self, event: &TaskEvent) -> Result<Self, IllegalTaskTransition> {
        match (self, event) {
            (Self::New, TaskEvent::Opened)
            | (Self::Open, TaskEvent::ScopeChanged { .. } | TaskEvent::SessionRenewed { .. }) => {
                Ok(Self::Open)
            }
            (Self::New, TaskEvent::Refused) => Ok(Self::Refused),
            (Self::Open, TaskEvent::EndStarted { cause, at }) => Ok(Self::Ending { cause: *cause, at: *at }),
            (Self::Ending { cause, .. }, TaskEvent::Ended { outcome, at }) => {
                Ok(Self::Ended { cause: *cause, outcome: *outcome, at: *at })
            }
            (Self::New | Self::Refused | Self::Open | Self::Ending { .. } | Self::Ended { .. }, _) => {
                Err(IllegalTaskTransition { state: self.name(), event: event.kind() })
            }
        }
    }

    /// The state in one word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Refused => "refused",
            Self::Open => "open",
            Self::Ending { .. } => "ending",
            Self::Ended { .. } => "ended",
        }
    }

    /// Why it ended or is ending.
    #[must_use]
    pub const fn cause(&self) -> Option<Cause> {
        match self {
            Self::Ending { cause, .. } | Self::Ended { cause, .. } => Some(*cause),
            Self::New | Self::Refused | Self::Open => None,
        }
    }
}
