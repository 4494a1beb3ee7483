//! What the streams say: bounded, so that a client that never reads costs a fixed amount and is let go.

use std::collections::HashSet;
use std::pin::Pin;
use std::time::Duration;

use leasehold_law::id::{LeaseId, TaskId};
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::task::{Task, TaskState};
use leasehold_law::time::Span;
use leasehold_proto::v1::WatchTaskResponse;
use leasehold_proto::v1::watch_task_response::{self as response, Event};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{task, write};
use crate::broker::{Asker, Broker, Refused};
use crate::ledger::Notice;

/// The stream of a watched task.
pub(super) type TaskStream = Pin<Box<dyn Stream<Item = Result<WatchTaskResponse, Status>> + Send>>;

/// How many events wait for a client.
pub(super) const WAITING: usize = 64;
/// How long a client may read nothing while events wait.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How often time itself is looked at: the silence, the deadline.
const LOOK: Duration = Duration::from_secs(1);
/// How long before a deadline it is said to be near.
const NEAR: Span = Span::from_secs(60);

/// Watches a caller's own task until it has ended or the client is gone.
pub(super) async fn task(broker: Broker, asker: Asker, id: TaskId) -> Result<TaskStream, Refused> {
    let notices = broker.ledger().watch();
    let task = broker.task(Some(&asker), id).await?;
    let (out, stream) = mpsc::channel(WAITING);
    let watch = Watch { broker, asker, task, out, warned: Warned::default() };
    tokio::spawn(watch.run(notices));
    Ok(Box::pin(ReceiverStream::new(stream)))
}

struct Watch {
    broker: Broker,
    asker: Asker,
    task: Task,
    out: mpsc::Sender<Result<WatchTaskResponse, Status>>,
    warned: Warned,
}

/// What was said already.
#[derive(Default)]
struct Warned {
    silent: bool,
    deadline: bool,
    /// Leases that are dying, and the client knows.
    dying: HashSet<LeaseId>,
}

impl Warned {
    /// Whether a client learns from this that it must stop using a lease. What happens on another broker may be over
    /// before it is seen here, so that the end itself says so where nothing before it did.
    fn of_the_end(&mut self, lease: &Lease) -> bool {
        match lease.state {
            LeaseState::Revoking { .. } => {
                self.dying.insert(lease.terms.id);
                true
            }
            LeaseState::Revoked { .. } | LeaseState::Residual { .. } | LeaseState::Lapsed { .. } => {
                !self.dying.remove(&lease.terms.id)
            }
            LeaseState::New
            | LeaseState::Refused { .. }
            | LeaseState::Minting { .. }
            | LeaseState::Active { .. }
            | LeaseState::Renewing { .. } => false,
        }
    }
}

/// The client is gone, or has been let go.
pub(super) struct Gone;

impl Watch {
    async fn run(mut self, mut notices: broadcast::Receiver<Notice>) {
        // Either end of the stream is a normal one.
        let _: Result<(), Gone> = self.follow(&mut notices).await;
    }

    async fn follow(&mut self, notices: &mut broadcast::Receiver<Notice>) -> Result<(), Gone> {
        self.resync(false).await?;
        let mut look = tokio::time::interval(LOOK);
        while !matches!(self.task.state, TaskState::Ended { .. } | TaskState::Refused) {
            tokio::select! {
                notice = notices.recv() => match notice {
                    Ok(notice) => self.pass_on(notice).await?,
                    Err(RecvError::Lagged(_)) => self.reread().await?,
                    Err(RecvError::Closed) => return Ok(()),
                },
                _ = look.tick() => self.look_at_time().await?,
                () = self.out.closed() => return Err(Gone),
            }
        }
        Ok(())
    }

    async fn resync(&self, fell_behind: bool) -> Result<(), Gone> {
        let task = Some(task::view(&self.broker, &self.task));
        self.say(Event::Resync(response::Resync { task, fell_behind })).await
    }

    async fn reread(&mut self) -> Result<(), Gone> {
        self.task = self.broker.task(Some(&self.asker), self.task.terms.id).await.map_err(|_| Gone)?;
        self.resync(true).await
    }

    async fn pass_on(&mut self, notice: Notice) -> Result<(), Gone> {
        match notice {
            Notice::Lease(lease) if lease.terms.task == self.task.terms.id => {
                let view = Some(write::lease(&lease));
                let event = if self.warned.of_the_end(&lease) {
                    Event::LeaseRevoked(response::LeaseRevoked { lease: view })
                } else {
                    Event::LeaseChanged(response::LeaseChanged { lease: view })
                };
                self.say(event).await
            }
            Notice::Task(task) if task.terms.id == self.task.terms.id => {
                self.task_changed((*task).clone()).await
            }
            Notice::Lease(_) | Notice::Task(_) => Ok(()),
        }
    }

    async fn task_changed(&mut self, task: Task) -> Result<(), Gone> {
        let event = match task.state {
            TaskState::New | TaskState::Refused => None,
            TaskState::Open if task.scope == self.task.scope => None,
            TaskState::Open => {
                Some(Event::ScopeChanged(response::ScopeChanged { scope: write::scope(&task.scope) }))
            }
            TaskState::Ending { cause, .. } => {
                Some(Event::Ending(response::TaskEnding { cause: write::cause(cause).into() }))
            }
            TaskState::Ended { cause, outcome, .. } => Some(Event::Ended(response::TaskEnded {
                cause: write::cause(cause).into(),
                outcome: write::task_outcome(outcome).into(),
            })),
        };
        self.task = task;
        match event {
            Some(event) => self.say(event).await,
            None => Ok(()),
        }
    }

    async fn look_at_time(&mut self) -> Result<(), Gone> {
        let now = self.broker.now();
        let near = self.task.ends_at() <= now + NEAR;
        let warned = std::mem::replace(&mut self.warned.deadline, near);
        if near && !warned {
            let deadline = Some(write::moment(self.task.ends_at()));
            self.say(Event::DeadlineNear(response::DeadlineNear { deadline })).await?;
        }
        let silent = self.broker.is_silent(&self.task);
        let was = std::mem::replace(&mut self.warned.silent, silent);
        match self.broker.pulse(&self.task) {
            Some((last, lost_at)) if silent && !was => {
                let (last_heartbeat, lost_at) = (Some(write::moment(last)), Some(write::moment(lost_at)));
                self.say(Event::Silent(response::SilentWarning { last_heartbeat, lost_at })).await
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn say(&self, event: Event) -> Result<(), Gone> {
        let at = Some(write::moment(self.broker.now()));
        let said = WatchTaskResponse { at, event: Some(event) };
        self.out.send_timeout(Ok(said), PATIENCE).await.map_err(|_| Gone)
    }
}
