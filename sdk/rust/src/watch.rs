//! What happens to a task, as it happens.

use tokio::{
    sync::mpsc,
    time::{Duration, sleep},
};
use tonic::Streaming;

use crate::line::Line;

use crate::{
    ClientError,
    io::Guard,
    retry::jittered,
    v1,
    v1::{task_service_client::TaskServiceClient, watch_task_response::Event},
};

/// Events that wait for a slow reader before the stream itself is slowed down.
const QUEUE: usize = 64;
const PAUSE: Duration = Duration::from_secs(1);

/// One event of a task.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskEvent {
    /// Stop using this lease.
    LeaseRevoked(Box<v1::Lease>),
    /// A lease changed in another way.
    LeaseChanged(Box<v1::Lease>),
    /// The whole new scope.
    ScopeChanged(Vec<v1::ScopePair>),
    /// Nothing new is issued.
    Ending(v1::Cause),
    /// The last event.
    Ended(v1::Cause, v1::TaskOutcome),
    /// The deadline is near.
    DeadlineNear(Option<prost_types::Timestamp>),
    /// Half the grace has passed without a heartbeat.
    Silent {
        /// When the task is lost unless one comes.
        lost_at: Option<prost_types::Timestamp>,
    },
    /// People answered.
    ApprovalDecided {
        /// The lease that waited.
        lease: String,
        /// Whether they said yes.
        approved: bool,
    },
    /// The stream begins, or begins again after a gap: read the leases anew, then go by what follows.
    Resync {
        /// The task now.
        task: Box<v1::Task>,
        /// Whether events were lost.
        gap: bool,
    },
    /// The broker no longer answers for this task: the last event.
    Refused(String),
}

/// A stream of events. It survives the loss of a connection; the event after a gap is [`TaskEvent::Resync`].
pub struct Events {
    receiver: mpsc::Receiver<TaskEvent>,
    _reader: Guard,
}

impl Events {
    pub(crate) fn start(client: &crate::Client, task: String) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let reader = client.io().keep(read(TaskServiceClient::new(client.channel()), task, sender));
        Self { receiver, _reader: reader }
    }

    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<TaskEvent> {
        self.receiver.recv().await
    }
}

/// Reads until the task has ended or nobody listens.
pub(crate) async fn read(mut tasks: TaskServiceClient<Line>, task: String, sender: mpsc::Sender<TaskEvent>) {
    loop {
        let request = v1::WatchTaskRequest { task: task.clone() };
        let outcome = match tasks.watch_task(request).await {
            Ok(stream) => forward(stream.into_inner(), &sender).await,
            Err(status) => Err(status.into()),
        };
        match outcome {
            Ok(()) => return,
            // A refusal without a delay is final: ended long ago, or never this caller's.
            Err(error) if error.refusal().is_some_and(|refusal| refusal.retry_after.is_none()) => {
                // Nobody listening is as good as told.
                drop(sender.send(TaskEvent::Refused(error.to_string())).await);
                return;
            }
            Err(_) => sleep(jittered(PAUSE)).await,
        }
    }
}

/// Passes events on; done at the last event, or when nobody listens.
async fn forward(
    mut stream: Streaming<v1::WatchTaskResponse>,
    sender: &mpsc::Sender<TaskEvent>,
) -> Result<(), ClientError> {
    while let Some(message) = stream.message().await? {
        let Some(event) = message.event.and_then(typed) else { continue };
        let last = matches!(event, TaskEvent::Ended(..));
        if sender.send(event).await.is_err() || last {
            return Ok(());
        }
    }
    Err(ClientError::Broken("the stream ended early".to_owned()))
}

fn typed(event: Event) -> Option<TaskEvent> {
    Some(match event {
        Event::LeaseRevoked(event) => TaskEvent::LeaseRevoked(Box::new(event.lease?)),
        Event::LeaseChanged(event) => TaskEvent::LeaseChanged(Box::new(event.lease?)),
        Event::ScopeChanged(event) => TaskEvent::ScopeChanged(event.scope),
        Event::Ending(event) => TaskEvent::Ending(event.cause()),
        Event::Ended(event) => TaskEvent::Ended(event.cause(), event.outcome()),
        Event::DeadlineNear(event) => TaskEvent::DeadlineNear(event.deadline),
        Event::Silent(event) => TaskEvent::Silent { lost_at: event.lost_at },
        Event::ApprovalDecided(event) => {
            TaskEvent::ApprovalDecided { lease: event.lease, approved: event.approved }
        }
        Event::Resync(event) => TaskEvent::Resync { task: Box::new(event.task?), gap: event.fell_behind },
    })
}
