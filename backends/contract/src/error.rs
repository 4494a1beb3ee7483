//! What can go wrong in a target, split by who acts next.

use serde::{Deserialize, Serialize};

/// Why a call to a target did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum BackendError {
    /// No answer, or one that says to come back: the broker acts, by trying again or by revoking. After a mint the
    /// outcome is unknown.
    #[error("{target} did not answer: {what}")]
    Transient {
        /// The target, as its connection names it; no credentials.
        target: String,
        /// What happened.
        what: String,
    },
    /// The target refused: its operator acts.
    #[error("the target refused: {what}")]
    Refused {
        /// What it said, without any secret.
        what: String,
        /// The privilege that is missing, and the statement that gives it.
        fix: Option<String>,
    },
    /// The recipe cannot be minted: the operator of the broker acts.
    #[error("bad recipe: {0}")]
    BadRecipe(String),
    /// The name exists already, or is disabled.
    #[error("{0}")]
    Conflict(String),
    /// There is no principal by that name.
    #[error("no such principal")]
    Absent,
    /// The moment before which it had to land has passed; it did not land.
    #[error("too late: the target's clock is past the moment before which this had to land")]
    TooLate,
}

impl BackendError {
    /// Whether the target may have done what it was asked nevertheless.
    #[must_use]
    pub const fn outcome_unknown(&self) -> bool {
        match self {
            Self::Transient { .. } => true,
            Self::Refused { .. } | Self::BadRecipe(_) | Self::Conflict(_) | Self::Absent | Self::TooLate => {
                false
            }
        }
    }
}
