//! What Cedar does not take from us: no policy file is to blame.

use std::fmt::Display;

/// Cedar refused what we made for it. While loading it stops the load; while deciding it denies (law 4).
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct CedarError(String);

impl CedarError {
    /// The error in Cedar's words; its own types are too large to hand around.
    pub(super) fn of(error: impl Display) -> Self {
        Self(error.to_string())
    }
}
