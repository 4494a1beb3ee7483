//! A task: the unit of work that everything leased hangs on, and dies with.

pub mod event;
pub mod state;

use serde::{Deserialize, Serialize};

use crate::caller::CallerId;
use crate::id::TaskId;
use crate::manifest::Digest;
use crate::request::{Liveness, Refs, RequestDigest, RequestId};
use crate::scope::Scope;
use crate::time::Timestamp;
pub use event::TaskEvent;
pub use state::{IllegalTaskTransition, Outcome, TaskState};

/// What a task was opened with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskTerms {
    /// Its id.
    pub id: TaskId,
    /// Whose it is.
    pub agent: CallerId,
    /// What for: recorded, never an input to a decision.
    pub purpose: String,
    /// What keeps it alive.
    pub liveness: Liveness,
    /// When it ends at the latest.
    pub deadline: Timestamp,
    /// References.
    pub refs: Refs,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// The caller's own name for the request.
    pub request_id: RequestId,
    /// What was asked under that name.
    pub request_digest: RequestDigest,
    /// What the agent said that it runs: asserted by the agent (RULES R-18).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
}

/// A task as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What it was opened with.
    pub terms: TaskTerms,
    /// What it may ask for now.
    pub scope: Scope,
    /// How it stands.
    pub state: TaskState,
    /// How many events made it so: what RULES R-1 compares.
    pub version: u64,
}

impl Task {
    /// The task that its first event makes.
    ///
    /// # Errors
    /// Where the event cannot be a first one.
    pub fn first(terms: TaskTerms, scope: Scope, event: &TaskEvent) -> Result<Self, IllegalTaskTransition> {
        Ok(Self { state: TaskState::New.next(event)?, terms, scope, version: 1 })
    }

    /// The task that the next event makes.
    ///
    /// # Errors
    /// Where the law knows no such step.
    pub fn apply(&self, event: &TaskEvent) -> Result<Self, IllegalTaskTransition> {
        let scope = match event {
            TaskEvent::ScopeChanged { scope } => scope,
            TaskEvent::Opened
            | TaskEvent::Refused
            | TaskEvent::EndStarted { .. }
            | TaskEvent::Ended { .. } => &self.scope,
        };
        Ok(Self {
            state: self.state.next(event)?,
            terms: self.terms.clone(),
            scope: scope.clone(),
            version: self.version + 1,
        })
    }
}
