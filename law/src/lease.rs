//! A lease: its terms, which never change, and its state, which only the law moves.

pub mod event;
pub mod state;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::caller::{CallerId, ProvenBy, Vouched};
use crate::catalog::Recipe;
use crate::id::{DecisionId, LeaseId, TaskId};
use crate::param::Params;
use crate::principal::PrincipalName;
use crate::request::{RequestDigest, RequestId};
use crate::scope::Pair;
use crate::time::{Span, Timestamp};
pub use event::{LeaseEvent, Refusal};
pub use state::{IllegalTransition, LeaseState, Progress, Proof, Reached, Sessions};

/// How dead "revoked" is in a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Disabled, sessions cut, both read back.
    Exact,
    /// The next login or use fails; what is open may go on for the window.
    Coarse,
    /// Nothing can be done before its natural end.
    None,
}

/// What made a lifetime no longer than it is (CRED-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitedBy {
    /// Nothing but the request itself, or the grant's default.
    Asked,
    /// The grant's longest lifetime.
    Grant,
    /// The grant's full life, all renewals together.
    Life,
    /// The scope of the task.
    Scope,
    /// The task's deadline.
    TaskDeadline,
    /// The longest lifetime that the target gives.
    Backend,
}

/// What a lease was made on. Never the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTerms {
    /// Its id.
    pub id: LeaseId,
    /// The task that it hangs on.
    pub task: TaskId,
    /// Whose it is.
    pub agent: CallerId,
    /// How that was proven when it was asked for.
    #[serde(default, skip_serializing_if = "ProvenBy::is_usual")]
    pub proven_by: ProvenBy,
    /// Whom its task acts for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<Vouched>,
    /// What on what.
    pub pair: Pair,
    /// Parameters.
    pub params: Params,
    /// The name in the target, known before anything is minted (law 2).
    pub principal: PrincipalName,
    /// How it is minted and unmade.
    pub recipe: Recipe,
    /// How dead "revoked" is.
    pub grade: Grade,
    /// What stays open at worst after it is revoked.
    pub window: Span,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// No renewal goes beyond this.
    pub life_ends_at: Timestamp,
    /// What limited its lifetime.
    pub limited_by: LimitedBy,
    /// The caller's own name for the request.
    pub request_id: RequestId,
    /// Which attempt of it.
    pub attempt: u32,
    /// What was asked under that name.
    pub request_digest: RequestDigest,
    /// The decision that it rests on.
    pub decision: DecisionId,
    /// The lease whose place it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<LeaseId>,
}

/// A lease as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// What it was made on.
    pub terms: Arc<LeaseTerms>,
    /// How it stands.
    pub state: LeaseState,
    /// How many events made it so.
    pub version: u64,
}

impl Lease {
    /// The lease that its first event makes.
    ///
    /// # Errors
    /// Where the event cannot be a first one.
    pub fn first(terms: Arc<LeaseTerms>, event: &LeaseEvent) -> Result<Self, IllegalTransition> {
        Ok(Self { state: LeaseState::New.next(event)?, terms, version: 1 })
    }

    /// The lease that the next event makes.
    ///
    /// # Errors
    /// Where the law knows no such step.
    pub fn apply(&self, event: &LeaseEvent) -> Result<Self, IllegalTransition> {
        let state = self.state.next(event)?;
        Ok(Self { terms: self.terms.clone(), state, version: self.version + 1 })
    }
}
