//! A task: the unit of work that everything leased hangs on, and dies with.

pub mod event;
pub mod state;

use serde::{Deserialize, Serialize};

use crate::behalf::{OnBehalfOf, SESSION_GRACE};
use crate::caller::{CallerId, Vouched};
use crate::cause::Cause;
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
    /// Whom it acts for: proven, and bound to the task when it was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<OnBehalfOf>,
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
    /// The end of the newest token of the person that it acts for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_until: Option<Timestamp>,
    /// How many events made it so: what RULES R-1 compares.
    pub version: u64,
}

impl Task {
    /// The task that its first event makes.
    ///
    /// # Errors
    /// Where the event cannot be a first one.
    pub fn first(terms: TaskTerms, scope: Scope, event: &TaskEvent) -> Result<Self, IllegalTaskTransition> {
        let session_until = terms.on_behalf_of.as_ref().and_then(|behalf| behalf.until);
        Ok(Self { state: TaskState::New.next(event)?, terms, scope, session_until, version: 1 })
    }

    /// The person that it acts for.
    #[must_use]
    pub fn person(&self) -> Option<&Vouched> {
        self.terms.on_behalf_of.as_ref().map(|behalf| &behalf.person)
    }

    /// When it ends unless something moves that: its deadline, or a minute after the session of its person.
    #[must_use]
    pub fn ends_at(&self) -> Timestamp {
        let session = self.session_until.map(|until| until + SESSION_GRACE);
        session.map_or(self.terms.deadline, |session| session.min(self.terms.deadline))
    }

    /// Why it ends then.
    #[must_use]
    pub fn ends_by(&self) -> Cause {
        if self.ends_at() < self.terms.deadline { Cause::PersonEnded } else { Cause::TaskExpired }
    }

    /// The task that the next event makes.
    ///
    /// # Errors
    /// Where the law knows no such step.
    pub fn apply(&self, event: &TaskEvent) -> Result<Self, IllegalTaskTransition> {
        let state = self.state.next(event)?;
        let mut next = Self { state, version: self.version + 1, ..self.clone() };
        match event {
            TaskEvent::ScopeChanged { scope } => next.scope.clone_from(scope),
            TaskEvent::SessionRenewed { until } => next.session_until = Some(*until),
            TaskEvent::Opened
            | TaskEvent::Refused
            | TaskEvent::EndStarted { .. }
            | TaskEvent::Ended { .. } => {}
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::ScopeEntry;
    use crate::time::Span;

    const T: Timestamp = Timestamp(1_795_000_000_000);

    fn task(session: Option<Span>) -> Task {
        let terms = TaskTerms {
            id: TaskId::derive(T, 1),
            agent: "spiffe://prod.example/agent/triage".parse().unwrap(),
            purpose: String::new(),
            liveness: Liveness::Deadline,
            deadline: T + Span::from_mins(30),
            refs: Refs::new(),
            opened_at: T,
            request_id: "one".parse().unwrap(),
            request_digest: RequestDigest::derive(&1),
            manifest: None,
            on_behalf_of: session.map(|session| OnBehalfOf {
                person: "https://idp.example|00u1".parse().unwrap(),
                until: Some(T + session),
            }),
        };
        let scope = Scope::new(vec![ScopeEntry::of("a.read@b".parse().unwrap())]).unwrap();
        Task::first(terms, scope, &TaskEvent::Opened).unwrap()
    }

    #[test]
    fn a_task_ends_a_minute_after_its_person_s_session_and_never_after_its_deadline() {
        let check = |task: &Task, ends: Span, by: Cause| {
            assert_eq!((task.ends_at(), task.ends_by()), (T + ends, by));
        };
        let deadline = Span::from_mins(30);
        check(&task(None), deadline, Cause::TaskExpired);
        check(&task(Some(Span::from_mins(60))), deadline, Cause::TaskExpired);
        check(&task(Some(Span::from_mins(29))), deadline, Cause::TaskExpired);
        let short = task(Some(Span::from_mins(5)));
        check(&short, Span::from_mins(6), Cause::PersonEnded);
        let renewed = short.apply(&TaskEvent::SessionRenewed { until: T + Span::from_mins(10) }).unwrap();
        check(&renewed, Span::from_mins(11), Cause::PersonEnded);
        assert_eq!((renewed.version, renewed.state), (2, TaskState::Open));
    }

    #[test]
    fn a_task_that_was_written_before_it_could_act_for_a_person_acts_for_none() {
        let text = serde_json::to_string(&task(None)).unwrap();
        assert!(!text.contains("behalf") && !text.contains("session"), "{text}");
        let read: Task = serde_json::from_str(&text).unwrap();
        assert_eq!(read.person(), None);
    }
}
