//! A drill on the wire: how far it has come, step by step.

use std::pin::Pin;

use leasehold_law::drill::{Drill, DrillState, Step, Taken};
use leasehold_proto::v1;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::write;
use crate::broker::Drilling;

/// The stream of a drill's progress.
pub(super) type DrillStream = Pin<Box<dyn Stream<Item = Result<v1::DrillTargetResponse, Status>> + Send>>;

/// What is told of a drill as it goes on.
pub(super) fn progress(told: Drilling) -> DrillStream {
    let response = |drill: Drill| v1::DrillTargetResponse { drill: Some(view(&drill)) };
    Box::pin(ReceiverStream::new(told).map(move |told| told.map(response).map_err(Status::from)))
}

/// A drill as operators see it.
pub(super) fn view(drill: &Drill) -> v1::Drill {
    let failure = drill.failure.as_ref();
    let taken = |taken: &Taken| v1::DrillStepTime {
        step: step(taken.step).into(),
        took: Some(write::span(taken.took)),
    };
    v1::Drill {
        at: Some(write::moment(drill.at)),
        target: drill.pair.target.clone(),
        intent: drill.pair.intent.clone(),
        by: drill.by.as_ref().map(ToString::to_string).unwrap_or_default(),
        task: drill.task.to_string(),
        lease: drill.lease.map(|id| id.to_string()).unwrap_or_default(),
        state: state(drill.state()).into(),
        steps: drill.steps.iter().map(taken).collect(),
        failed_step: failure.map_or(v1::DrillStep::Unspecified, |failure| step(failure.step)).into(),
        why: failure.map(|failure| failure.why.clone()).unwrap_or_default(),
        alive: failure.is_some_and(|failure| failure.alive),
    }
}

const fn state(state: DrillState) -> v1::DrillState {
    match state {
        DrillState::Running => v1::DrillState::Running,
        DrillState::Passed => v1::DrillState::Passed,
        DrillState::Failed => v1::DrillState::Failed,
    }
}

const fn step(step: Step) -> v1::DrillStep {
    match step {
        Step::Mint => v1::DrillStep::Mint,
        Step::Use => v1::DrillStep::Use,
        Step::Revoke => v1::DrillStep::Revoke,
        Step::Refuse => v1::DrillStep::Refuse,
    }
}
