//! How the broker makes a backend out of a target's table in config.

use std::fmt;
use std::sync::Arc;

use leasehold_law::time::Timestamp;
use serde_json::{Map, Value};

use crate::Backend;

/// One thing that is wrong, by JSON pointer (RFC 6901) into the table that was parsed; config maps it to file and line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, e.g. `/connect/port`.
    pub pointer: String,
    /// What is wrong, and what to write instead.
    pub what: String,
}

impl Problem {
    /// A problem.
    #[must_use]
    pub fn new(pointer: impl Into<String>, what: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), what: what.into() }
    }
}

/// Where random bits come from (law 10).
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Fills the buffer with bits that nobody can guess.
    ///
    /// # Errors
    /// Where there are none to be had.
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError>;

    /// The time, for what a backend must time by itself.
    fn now(&self) -> Timestamp;
}

/// No random bits were to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntropyError;

impl fmt::Display for EntropyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no random bits were to be had")
    }
}

impl std::error::Error for EntropyError {}

/// What is wrong with a table: all of it at once.
pub type KindError = Vec<Problem>;

/// A kind of backend, named by `backend = "..."`.
pub trait BackendKind: Send + Sync {
    /// The name in config.
    fn name(&self) -> &'static str;

    /// What is wrong with a target's table, without reading a secret or dialling anything.
    fn check(&self, table: &Map<String, Value>) -> Vec<Problem>;

    /// The backend behind a target's table. Reads secret files; dials nothing.
    ///
    /// # Errors
    /// Every problem at once.
    fn open(
        &self,
        target: &str,
        table: &Map<String, Value>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<dyn Backend>, KindError>;
}
