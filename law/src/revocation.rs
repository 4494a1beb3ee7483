//! One act of stopping: what it selects, why, who did it, and the barrier that it may leave behind.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::caller::CallerId;
use crate::id::{LeaseId, RevocationId, TaskId};
use crate::time::Timestamp;

/// What a revocation takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// One lease.
    Lease(LeaseId),
    /// Every lease of a task.
    Task(TaskId),
    /// Every lease of an agent.
    Agent(CallerId),
}

impl Selector {
    /// Whether nothing new is issued to the selected until somebody lifts it: on for agents and wider (RULES R-2).
    #[must_use]
    pub fn freezes_by_default(&self) -> bool {
        match self {
            Self::Lease(_) | Self::Task(_) => false,
            Self::Agent(_) => true,
        }
    }
}

/// As people type it: `--agent spiffe://…` is `agent:spiffe://…` in records.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lease(id) => write!(f, "lease:{id}"),
            Self::Task(id) => write!(f, "task:{id}"),
            Self::Agent(id) => write!(f, "agent:{id}"),
        }
    }
}

/// One act of stopping, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Its id.
    pub id: RevocationId,
    /// What it took.
    pub selector: Selector,
    /// Who did it.
    pub by: CallerId,
    /// The reason given: recorded, never an input to a decision.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// Whether it left a barrier.
    pub freeze: bool,
    /// Who lifted the barrier, and when.
    pub lifted: Option<Lifted>,
    /// The leases that it took, live at that moment.
    pub leases: Vec<LeaseId>,
}

/// The end of a barrier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifted {
    /// Who lifted it.
    pub by: CallerId,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

impl Revocation {
    /// Whether its barrier still stands.
    #[must_use]
    pub fn is_freezing(&self) -> bool {
        self.freeze && self.lifted.is_none()
    }
}
