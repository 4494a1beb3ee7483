//! What is kept of an agent beside the config: what `agents apply` said, and what operators and the agent did since.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::pattern::Who;
use super::standing::{Ruling, Standing, Status};
use crate::caller::CallerId;
use crate::catalog::{Agent, Autonomy, Owner};
use crate::id::TaskId;
use crate::manifest::Digest;
use crate::time::Timestamp;

/// What a table `[agents."..."]` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Who answers for it.
    pub owner: Owner,
    /// The groups that policy and grants name.
    pub groups: BTreeSet<String>,
    /// How much it may do by itself.
    pub autonomy: Autonomy,
    /// What it is for.
    #[serde(default)]
    pub purpose: String,
    /// Whether it works.
    #[serde(default)]
    pub status: Status,
    /// When it was last reviewed.
    #[serde(default)]
    pub reviewed: Option<Timestamp>,
    /// What it ran then.
    #[serde(default)]
    pub manifest: Option<Digest>,
}

/// A table with whom it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Whom it is for.
    pub who: Who,
    /// What it says.
    pub terms: Terms,
}

impl Terms {
    /// The agent that these terms make of an identity.
    #[must_use]
    pub fn agent(self, id: CallerId) -> Agent {
        let standing = self.standing();
        let Self { owner, groups, autonomy, purpose, .. } = self;
        Agent { id, owner, groups, autonomy, purpose, standing }
    }

    /// How an agent stands of which nothing else is known.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let Self { status, reviewed, manifest, .. } = *self;
        Standing { status, reviewed, manifest, ..Standing::default() }
    }
}

impl From<&Agent> for Terms {
    fn from(agent: &Agent) -> Self {
        let Standing { status, reviewed, manifest, .. } = agent.standing;
        let Agent { owner, groups, autonomy, purpose, .. } = agent.clone();
        Self { owner, groups, autonomy, purpose, status, reviewed, manifest }
    }
}

/// A review by an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// The manifest that was accepted, instead of what the registration says.
    pub manifest: Option<Digest>,
    /// What the registration said then. Once it says something else, that counts.
    pub over: Option<Digest>,
}

/// That an agent said it runs something else than was reviewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// What it said; nothing, where it said nothing.
    pub claimed: Option<Digest>,
    /// In which task it first did.
    pub task: TaskId,
    /// When.
    pub at: Timestamp,
}

/// What the store keeps of a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Of whom.
    pub who: Who,
    /// What was applied; nothing, where config or a pattern registers it.
    #[serde(default)]
    pub terms: Option<Terms>,
    /// The status that an operator gave it.
    #[serde(default)]
    pub ruling: Option<Ruling>,
    /// The last review.
    #[serde(default)]
    pub review: Option<Review>,
    /// What it ran since that was not reviewed, each once.
    #[serde(default)]
    pub drift: Vec<Drift>,
}

impl Entry {
    /// So many different manifests of one agent are remembered between two reviews: it could make up a new one each
    /// time.
    pub const MOST_DRIFTS: usize = 16;

    /// Nothing yet.
    #[must_use]
    pub fn of(who: Who) -> Self {
        Self { who, terms: None, ruling: None, review: None, drift: Vec::new() }
    }
}

/// What was done to a registration, for the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// It was applied for the first time.
    Registered,
    /// It was applied with other terms.
    Changed,
    /// An operator let it work again.
    Resumed,
    /// An operator suspended it.
    Suspended,
    /// An operator put it into quarantine.
    Quarantined,
    /// An operator retired it.
    Retired,
    /// An operator reviewed it.
    Reviewed,
    /// It said that it runs something else than was reviewed.
    Drifted,
}

impl Act {
    /// The kind of its journal entry.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Registered => "agent.registered",
            Self::Changed => "agent.changed",
            Self::Resumed => "agent.resumed",
            Self::Suspended => "agent.suspended",
            Self::Quarantined => "agent.quarantined",
            Self::Retired => "agent.retired",
            Self::Reviewed => "agent.reviewed",
            Self::Drifted => "agent.drifted",
        }
    }

    /// What gives an agent this status.
    #[must_use]
    pub const fn giving(status: Status) -> Self {
        match status {
            Status::Active => Self::Resumed,
            Status::Retired => Self::Retired,
            Status::Suspended => Self::Suspended,
            Status::Quarantined => Self::Quarantined,
        }
    }
}
