//! The way to the one writer: a bounded queue before a task.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot};

use super::super::set::Set;
use super::super::{Outcome, StoreError};
use super::batch::Batcher;

/// So many sets may wait; a batch takes a few milliseconds.
const QUEUE: usize = 4096;
/// So many sets share a transaction at most: each takes a few of the server's locks.
const BATCH: usize = 128;

/// Takes sets to be written.
pub(super) struct Queue {
    jobs: mpsc::Sender<Job>,
}

enum Job {
    Write { set: Set, answer: oneshot::Sender<Outcome> },
    Leave(oneshot::Sender<()>),
}

impl Queue {
    /// A queue before a task, which ends after its last answer, when this is dropped. `written` is woken by commits.
    pub(super) fn new(batcher: Batcher, written: Arc<Notify>) -> Self {
        let (jobs, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(serve(batcher, waiting, written));
        Self { jobs }
    }

    /// Has a set written and waits for its answer. A caller that no longer waits does not take its set back.
    pub(super) async fn write(&self, set: Set) -> Outcome {
        let (answer, answered) = oneshot::channel();
        match self.jobs.try_send(Job::Write { set, answer }) {
            Ok(()) => answered.await.unwrap_or_else(|_| Outcome::Unknown(stopped())),
            Err(mpsc::error::TrySendError::Full(_)) => Outcome::Failed(StoreError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Outcome::Failed(stopped()),
        }
    }

    /// Waits until what was handed in is written, and the broker's name is let go. Nothing is written after that.
    pub(super) async fn leave(&self) {
        let (answer, answered) = oneshot::channel();
        if self.jobs.send(Job::Leave(answer)).await.is_ok() {
            // A task that is gone has nothing to let go.
            let _ = answered.await;
        }
    }
}

fn stopped() -> StoreError {
    StoreError::Unusable("the writer has stopped".to_owned())
}

async fn serve(mut batcher: Batcher, mut waiting: mpsc::Receiver<Job>, written: Arc<Notify>) {
    let mut jobs = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut jobs, BATCH).await > 0 {
        let (mut sets, mut answers, mut left) = (Vec::new(), Vec::new(), None);
        for job in jobs.drain(..) {
            match job {
                Job::Write { set, answer } => {
                    sets.push(set);
                    answers.push(answer);
                }
                Job::Leave(answer) => left = Some(answer),
            }
        }
        let outcomes = batcher.write(&sets).await;
        if outcomes.contains(&Outcome::Committed) {
            written.notify_one();
        }
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // Whoever asked may be gone; its set stands all the same.
            drop(answer.send(outcome));
        }
        if let Some(left) = left {
            batcher.leave().await;
            let _ = left.send(());
            return;
        }
    }
    batcher.leave().await;
}
