//! What an entry says. The bytes are made once, from this; nothing is ever serialised again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::caller::CallerId;
use crate::drill::Drill;
use crate::id::{DecisionId, LeaseId, RevocationId, TaskId};
use crate::lease::{LeaseEvent, LeaseTerms};
use crate::policy::DecisionRecord;
use crate::registry::{Act, Who};
use crate::revocation::{Lifted, Revocation};
use crate::scope::Scope;
use crate::task::{TaskEvent, TaskTerms};
use crate::time::Timestamp;

/// The version of the format.
pub const VERSION: u32 = 1;

/// One entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// The version of the format.
    pub v: u32,
    /// What happened, in a word.
    pub kind: String,
    /// When, by the broker's clock.
    pub at: Timestamp,
    /// What it happened to.
    pub subject: String,
    /// The subject's version after it; replay orders by this.
    pub subject_version: u64,
    /// The task it belongs to.
    pub task: Option<TaskId>,
    /// The lease it belongs to.
    pub lease: Option<LeaseId>,
    /// The seven fields of AUD-5.
    pub aims: Aims,
    /// The event itself.
    pub event: Event,
}

/// The seven fields that draft-ietf-wimse-aims asks of an agent's audit record (AUD-5). None may be empty;
/// what does not apply is written `none`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aims {
    /// The agent.
    pub agent: String,
    /// For whom it acts.
    pub delegated_subject: String,
    /// The resource or tool.
    pub resource: String,
    /// The action, and what was decided of it.
    pub action_decision: String,
    /// When, and the id that ties entries together.
    pub time_correlation: String,
    /// The posture or risk that influenced it.
    pub posture: String,
    /// Remediation or revocation, and its cause.
    pub remediation: String,
}

/// What does not apply to an entry.
pub const NOT_APPLICABLE: &str = "none";

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// To a lease; the terms come with the first event, the decision with those that rest on one.
    Lease {
        /// The terms, once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        terms: Option<Arc<LeaseTerms>>,
        /// The decision that this step rests on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decision: Option<Box<DecisionRecord>>,
        /// The step.
        step: LeaseEvent,
    },
    /// To a task; terms and scope come with the first event, decisions with those that rest on them.
    Task {
        /// The terms, once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        terms: Option<Box<TaskTerms>>,
        /// The scope it was opened with, once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<Scope>,
        /// The decisions that this step rests on, one a pair.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        decisions: Vec<DecisionRecord>,
        /// The step.
        step: TaskEvent,
    },
    /// A question that led to nothing else: a dry run, or a refusal before there was a lease.
    Decided {
        /// The decision.
        decision: Box<DecisionRecord>,
    },
    /// A caller that was turned away before policy was asked.
    Refused {
        /// The id by which people speak of it.
        decision: DecisionId,
        /// Who.
        caller: CallerId,
        /// The call.
        call: String,
        /// The reason's word.
        reason: String,
    },
    /// Refusals of one kind in one minute, after the first, which is on record by itself (RULES R-24).
    RefusedAgain {
        /// The id of the first.
        first: DecisionId,
        /// The caller, or the holder of a quota.
        about: String,
        /// The reason's word.
        reason: String,
        /// The minute's beginning.
        minute: Timestamp,
        /// How many came after the first.
        count: u64,
    },
    /// Callers without an identity that were turned away, by reason, in one minute (RULES R-24).
    Strangers {
        /// The reason.
        reason: String,
        /// The minute's beginning.
        minute: Timestamp,
        /// How many.
        count: u64,
    },
    /// An act of stopping.
    Revocation {
        /// What was done.
        revocation: Box<Revocation>,
    },
    /// The end of a barrier.
    Lifted {
        /// Whose.
        id: RevocationId,
        /// Who, why, when.
        lifted: Lifted,
    },
    /// A principal was found alive in a target after it was called dead, or a session arrived late and was ended.
    Reaped {
        /// The target.
        target: String,
        /// What the target knew it by.
        handle: String,
        /// How many sessions were ended.
        sessions: u32,
    },
    /// A drill that is over: whether a target kills what it is told to.
    Drilled {
        /// How it went.
        drill: Box<Drill>,
    },
    /// To a registration of agents.
    Registry {
        /// Whose: an identity or a pattern.
        who: Who,
        /// What was done.
        act: Act,
        /// Who did it: an operator, or the agent that drifted.
        by: String,
        /// The reason given: recorded, never an input to a decision.
        reason: String,
        /// The details, sorted by key.
        details: std::collections::BTreeMap<String, String>,
    },
    /// The broker itself: started, stopped, configured anew, clock confirmed.
    Broker {
        /// What happened.
        what: String,
        /// The details, sorted by key.
        details: std::collections::BTreeMap<String, String>,
    },
}

impl Body {
    /// The bytes of the entry, made once.
    ///
    /// # Errors
    /// Where a value cannot be written as JSON, which no value of ours does.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Reads an entry back.
    ///
    /// # Errors
    /// Where the bytes are not an entry of this version.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}
