//! What runs beside an open task, on the client's thread: its heartbeats, and the eye on its leases.

use std::{sync::Arc, time::Duration};

use zeroize::Zeroizing;

use crate::bearer::FRESH;
use crate::line::Line;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::Shared;
use super::person::{self, Person};
use crate::{
    ClientError, TaskEvent,
    lease::cause_words,
    retry::jittered,
    v1,
    v1::{lease_service_client::LeaseServiceClient, task_service_client::TaskServiceClient},
    watch as stream,
};

/// Where the broker names no grace, its least one is assumed.
const LEAST_GRACE: Duration = Duration::from_secs(30);
/// Between tries while the broker is away.
const AWAY_PAUSE: Duration = Duration::from_secs(1);
const CALL_LIMIT: Duration = Duration::from_secs(10);
const QUEUE: usize = 64;
const PAGE: i32 = 1000;

/// Sends a heartbeat every third of the grace until the task has ended.
pub(super) async fn heartbeats(channel: Line, shared: Arc<Shared>, mut person: Option<Person>) {
    let mut tasks = TaskServiceClient::new(channel);
    let every = grace(&shared.task) / 3;
    let mut pause = every;
    loop {
        let newer = beside_the_pause(person.as_ref(), pause, every).await;
        let on_behalf_of = newer.as_ref().map(person::wire);
        let request = v1::HeartbeatRequest { task: shared.task.id.clone(), on_behalf_of };
        let answer = timeout(CALL_LIMIT, tasks.heartbeat(request)).await;
        let answer =
            answer.map_err(|_| ClientError::Late(CALL_LIMIT)).and_then(|answer| Ok(answer?.into_inner()));
        if let (Some(person), Some(newer), true) = (&mut person, newer, is_judged(&answer)) {
            person.judged(newer);
        }
        pause = match answer {
            Ok(answer) if is_open(answer.state()) => every,
            Ok(_) => return shared.end("the task has ended"),
            Err(error) if is_final(&error) => return shared.end(&error.to_string()),
            // The beat counted; it is the token that did not.
            Err(error) if is_unfit(&error) || error.is("ISSUER_DOWN") => {
                tracing::warn!(%error, "the newer token of the person that the task acts for is not taken");
                every
            }
            Err(_) => jittered(AWAY_PAUSE.min(every)),
        };
    }
}

/// A newer token, where one is needed, had while the pause lasts: no beat waits for whoever issues it.
async fn beside_the_pause(
    person: Option<&Person>,
    pause: Duration,
    every: Duration,
) -> Option<Zeroizing<String>> {
    let fetching = async {
        let newer = timeout(pause, person?.newer(2 * every + FRESH)).await;
        newer.unwrap_or_default()
    };
    tokio::join!(fetching, sleep(pause)).0
}

fn grace(task: &v1::Task) -> Duration {
    use v1::liveness::Kind;
    let named = match task.liveness.as_ref().and_then(|liveness| liveness.kind) {
        Some(Kind::Heartbeat(heartbeat)) => heartbeat.grace,
        Some(Kind::Deadline(_)) | None => None,
    };
    named
        .and_then(|grace| grace.try_into().ok())
        .filter(|grace: &Duration| !grace.is_zero())
        .unwrap_or(LEAST_GRACE)
}

fn is_open(state: v1::TaskState) -> bool {
    match state {
        v1::TaskState::Open | v1::TaskState::Unspecified => true,
        v1::TaskState::Ending | v1::TaskState::Ended | v1::TaskState::Refused => false,
    }
}

/// Whether the broker has judged the token that came with a heartbeat.
fn is_judged<T>(answer: &Result<T, ClientError>) -> bool {
    answer.as_ref().err().is_none_or(is_unfit)
}

/// The token was refused. The heartbeat counted.
fn is_unfit(error: &ClientError) -> bool {
    error.is("BAD_REQUEST")
}

/// Only these say that the task is over; any other failure may pass.
fn is_final(error: &ClientError) -> bool {
    ["TASK_LOST", "TASK_ENDED", "NOT_FOUND"].iter().any(|reason| error.is(reason))
}

/// Follows the task's stream and ends its leases as soon as the broker revokes them.
pub(super) async fn watch(channel: Line, shared: Arc<Shared>) {
    let (sender, mut events) = mpsc::channel(QUEUE);
    let reading = stream::read(TaskServiceClient::new(channel.clone()), shared.task.id.clone(), sender);
    let mut leases = LeaseServiceClient::new(channel);
    let following = async {
        while let Some(event) = events.recv().await {
            follow(&mut leases, &shared, event).await;
        }
    };
    tokio::join!(reading, following);
}

async fn follow(leases: &mut LeaseServiceClient<Line>, shared: &Shared, event: TaskEvent) {
    match event {
        TaskEvent::LeaseRevoked(seen) | TaskEvent::LeaseChanged(seen) => {
            shared.observe(&seen);
        }
        TaskEvent::Ending(cause) | TaskEvent::Ended(cause, _) => shared.end(&cause_words(cause)),
        TaskEvent::Resync { task, .. } if !is_open(task.state()) => shared.end(&cause_words(task.cause())),
        TaskEvent::Resync { .. } => look_again(leases, shared).await,
        TaskEvent::Refused(reason) => tracing::warn!(%reason, "the task can no longer be watched"),
        TaskEvent::ScopeChanged(_)
        | TaskEvent::DeadlineNear(_)
        | TaskEvent::Silent { .. }
        | TaskEvent::ApprovalDecided { .. } => {}
    }
}

/// After a gap: what was revoked meanwhile is seen in the list. A failure shows at the next renewal instead.
async fn look_again(leases: &mut LeaseServiceClient<Line>, shared: &Shared) {
    let request = v1::ListLeasesRequest {
        page_size: PAGE,
        task: shared.task.id.clone(),
        ..v1::ListLeasesRequest::default()
    };
    let Ok(Ok(answer)) = timeout(CALL_LIMIT, leases.list_leases(request)).await else { return };
    for seen in &answer.into_inner().leases {
        shared.observe(seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grace_is_the_task_s() {
        use v1::liveness::{Deadline, Heartbeat, Kind};
        let task =
            |kind| v1::Task { liveness: Some(v1::Liveness { kind: Some(kind) }), ..v1::Task::default() };
        let minute = prost_types::Duration { seconds: 60, nanos: 0 };
        assert_eq!(grace(&task(Kind::Heartbeat(Heartbeat { grace: Some(minute) }))), Duration::from_secs(60));
        assert_eq!(grace(&task(Kind::Heartbeat(Heartbeat { grace: None }))), LEAST_GRACE);
        assert_eq!(grace(&task(Kind::Deadline(Deadline {}))), LEAST_GRACE);
    }
}
