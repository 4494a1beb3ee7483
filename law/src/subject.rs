//! What a decision rests on, by version, so that it can be compared again when it is recorded (RULES R-1).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::caller::CallerId;
use crate::id::{LeaseId, RevocationId, TaskId};

/// Something whose change makes a decision stale.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A task: bumped by scope, deadline and state, never by leases or heartbeats.
    Task(TaskId),
    /// A lease: bumped by each of its events.
    Lease(LeaseId),
    /// An agent's registration in the config.
    Agent(CallerId),
    /// What was applied and done to registrations since the config, all together: operators do that seldom, and one
    /// version costs each commit one comparison.
    Agents,
    /// A target, its intents and its grants.
    Target(String),
    /// The policy set, with floors and groups.
    Policy,
    /// All barriers together: bumped where one is raised or lifted. One version for all costs each commit one
    /// comparison; where another's barrier moved, whoever is in the middle looks again, and is not revoked for it.
    Freezes,
    /// The term that this installation has of a target: bumped where the next is taken.
    Term(String),
    /// A revocation: bumped by each change of it. Who sees it through and who lifts it may be two brokers.
    Revocation(RevocationId),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(id) => write!(f, "task:{id}"),
            Self::Lease(id) => write!(f, "lease:{id}"),
            Self::Agent(id) => write!(f, "agent:{id}"),
            Self::Agents => f.write_str("agents"),
            Self::Target(name) => write!(f, "target:{name}"),
            Self::Term(target) => write!(f, "term:{target}"),
            Self::Policy => f.write_str("policy"),
            Self::Freezes => f.write_str("freezes"),
            Self::Revocation(id) => write!(f, "revocation:{id}"),
        }
    }
}

/// A subject and the version that it must still have when a change is written; 0 if it must not exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// What must not have changed.
    pub subject: Subject,
    /// The version that was read.
    pub version: u64,
}
