//! Policy: what is asked of it, and what it answers. Default deny, and an error denies (law 4).

pub mod annotation;
pub mod approvers;
mod conjunct;
pub mod engine;
mod facts;
mod fault;
mod load;
mod memo;
mod names;
pub mod permit;
mod rule;
pub mod schema;
pub mod source;
mod words;

use serde::{Deserialize, Serialize};

use crate::caller::Vouched;
use crate::catalog::{Agent, Autonomy, Floor, Owner};
use crate::id::DecisionId;
use crate::param::Params;
use crate::registry::{LoweredBy, Ruling, Status};
use crate::scope::Pair;
use crate::subject::Guard;
use crate::time::{Span, Timestamp};
pub use engine::Engine;
pub use permit::{IssueOrder, MintTerms, Permit, RenewOrder, RenewTerms};
pub use source::{PolicyProblem, PolicySource};

/// What is asked, with every fact that policy may see.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The id under which the answer is on record.
    pub id: DecisionId,
    /// Who asks.
    pub agent: &'a Agent,
    /// What on what.
    pub pair: &'a Pair,
    /// The parameters. `None` while required ones are not fixed yet: the pair is then judged by the scope
    /// clauses of policies alone (principal, action, resource).
    pub params: Option<&'a Params>,
    /// The lifetime asked for, or the grant's default.
    pub ttl: Span,
    /// The present. Policies see its whole second.
    pub now: Timestamp,
    /// What holds the task: `heartbeat` or `deadline`.
    pub liveness: &'a str,
    /// How old the task is. Policies see whole seconds.
    pub task_age: Span,
    /// How the caller proved who it is, e.g. `x509-svid`.
    pub proof: &'a str,
    /// Whom the task acts for.
    pub on_behalf_of: Option<&'a Vouched>,
    /// How many hands the task went through.
    pub depth: u32,
    /// Whether a live lease is to be renewed.
    pub renewal: bool,
    /// Whether nobody will hold anything by the answer: a proposal, or the scope of a task.
    pub dry_run: bool,
    /// What the facts were read at (RULES R-1).
    pub guards: &'a [Guard],
}

/// The answer.
#[derive(Debug)]
pub enum Verdict {
    /// Go ahead, with this.
    Allow(Permit),
    /// People must be asked.
    Ask(ApprovalNeed),
    /// No.
    Deny(Denial),
}

/// Who would have to be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalNeed {
    /// A conjunction such as `1 of target-owner and 1 of group:oncall`, as policy wrote it.
    pub approvers: String,
    /// Whose vote does not count: the person in whose session the agent acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded: Option<Owner>,
    /// How long they have.
    pub timeout: Span,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Denial {
    /// No policy permits it.
    NoPermit {
        /// The permit that came nearest, and what of the agent's own inputs stood against it.
        nearest: Option<Near>,
    },
    /// Policies forbid it.
    Forbidden {
        /// Each with the conditions on the agent's own inputs that held.
        by: Vec<Near>,
    },
    /// A policy failed on it, so that the whole answer denies.
    PolicyError {
        /// The policies that failed; none where the facts themselves did not fit the schema.
        policies: Vec<String>,
    },
    /// Its status stops the agent, whatever policy says.
    Stopped {
        /// The status.
        status: Status,
        /// Who gave it, if it is not the registration that says so.
        ruling: Option<Ruling>,
    },
    /// It is beyond the agent's autonomy, whatever policy says (REQUIREMENTS POL-4).
    BeyondAutonomy {
        /// The level that stands in the way.
        level: Autonomy,
        /// What lowered the agent to it; nothing, where it is registered so.
        lowered: Option<LoweredBy>,
    },
}

/// A policy and what the agent may be told of its conditions: only those on its own inputs (ttl, params, groups,
/// task); every other reads "a further condition".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Near {
    /// Its id.
    pub policy: String,
    /// The conditions, in plain words.
    pub conditions: Vec<String>,
}

/// An answer with its record.
#[derive(Debug)]
pub struct Decision {
    /// The answer.
    pub verdict: Verdict,
    /// What goes on record.
    pub record: DecisionRecord,
}

/// The three answers in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Go ahead.
    Allow,
    /// Ask people.
    Ask,
    /// No.
    Deny,
}

/// A decision as it is kept (POL-10: it can be replayed).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// Its id.
    pub id: DecisionId,
    /// The answer.
    pub answer: Answer,
    /// Who asked, and what stood in the registry then.
    pub agent: Agent,
    /// What on what.
    pub pair: Pair,
    /// The parameters, if they were known.
    pub params: Option<Params>,
    /// The lifetime asked for.
    pub ttl: Span,
    /// When.
    pub at: Timestamp,
    /// What held the task.
    pub liveness: String,
    /// How old the task was.
    pub task_age: Span,
    /// How the caller proved who it is.
    pub proof: String,
    /// Whom the task acted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<Vouched>,
    /// Whether it was a renewal.
    pub renewal: bool,
    /// Whether nobody was to hold anything by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// The policies that determined the answer, sorted.
    pub policies: Vec<String>,
    /// The digest of the policy set and everything it was checked against.
    pub policy_digest: String,
    /// The floor of the class on this target.
    pub floor: Floor,
    /// Why not, for a denial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denial: Option<Denial>,
    /// Who would have to be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need: Option<ApprovalNeed>,
}
