//! Tasks.

use leasehold_law::caller::{CallerId, Vouched};
use leasehold_law::request::Liveness;
use leasehold_law::task::{Outcome, Task, TaskState};
use leasehold_proto::v1;

use super::{cause, moment, scope, span};
use crate::broker::Stop;

/// A task; `silent` is a view in memory, not a state.
pub(in crate::api) fn task(task: &Task, silent: bool, drift: bool) -> v1::Task {
    let (outcome, ended_at) = match task.state {
        TaskState::Ended { outcome, at, .. } => (Some(task_outcome(outcome)), Some(moment(at))),
        TaskState::New | TaskState::Refused | TaskState::Open | TaskState::Ending { .. } => (None, None),
    };
    v1::Task {
        id: task.terms.id.to_string(),
        agent: task.terms.agent.to_string(),
        purpose: task.terms.purpose.clone(),
        scope: scope(&task.scope),
        liveness: Some(liveness(task.terms.liveness)),
        deadline: Some(moment(task.terms.deadline)),
        state: task_state(&task.state).into(),
        cause: task.state.cause().map(cause).unwrap_or_default().into(),
        outcome: outcome.unwrap_or_default().into(),
        refs: task.terms.refs.clone(),
        opened_at: Some(moment(task.terms.opened_at)),
        ended_at,
        silent,
        version: task.version,
        manifest: task.terms.manifest.map(|digest| digest.to_string()).unwrap_or_default(),
        drift,
        on_behalf_of: task.person().map(person).unwrap_or_default(),
        session_until: task.session_until.map(moment),
        stops: Vec::new(),
    }
}

pub(in crate::api) fn stop(stop: &Stop) -> v1::TaskStop {
    v1::TaskStop {
        cause: cause(stop.cause).into(),
        leases: stop.leases,
        revocation: stop.revocation.map(|id| id.to_string()).unwrap_or_default(),
    }
}

/// A person, as an operator may name them again.
pub(in crate::api) fn person(person: &Vouched) -> String {
    CallerId::Person(person.clone()).to_string()
}

pub(in crate::api) fn task_state(state: &TaskState) -> v1::TaskState {
    match state {
        TaskState::New => v1::TaskState::Unspecified,
        TaskState::Refused => v1::TaskState::Refused,
        TaskState::Open => v1::TaskState::Open,
        TaskState::Ending { .. } => v1::TaskState::Ending,
        TaskState::Ended { .. } => v1::TaskState::Ended,
    }
}

pub(in crate::api) fn task_outcome(outcome: Outcome) -> v1::TaskOutcome {
    match outcome {
        Outcome::Clean => v1::TaskOutcome::Clean,
        Outcome::WithResidue => v1::TaskOutcome::WithResidue,
    }
}

fn liveness(liveness: Liveness) -> v1::Liveness {
    use v1::liveness::{Deadline, Heartbeat, Kind};
    let kind = match liveness {
        Liveness::Heartbeat { grace } => Kind::Heartbeat(Heartbeat { grace: Some(span(grace)) }),
        Liveness::Deadline => Kind::Deadline(Deadline {}),
    };
    v1::Liveness { kind: Some(kind) }
}
