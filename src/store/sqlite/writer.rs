//! The way to the one writer: a bounded queue before a thread, or a lock around the same code.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::batch::Batcher;
use super::{Outcome, StoreError};
use crate::store::set::Set;

/// So many sets may wait; a batch takes a few milliseconds.
const QUEUE: usize = 4096;
/// So many sets share a transaction at most.
const BATCH: usize = 256;
/// With so many writes it takes no further set: a few have many, and others wait for it.
const WRITES: usize = 1024;
/// After a batch of so many others are likely on their way: the next begins no sooner than [`PACE`] after it.
const RUSH: usize = 8;
/// Each commit flushes the disk, and writes whole pages that the next one touches again. A slow disk gathers by itself.
const PACE: Duration = Duration::from_millis(4);
/// After so long without work the log is moved into the database.
const QUIET: Duration = Duration::from_millis(200);
/// After so long without work memory is given back.
const IDLE: Duration = Duration::from_secs(30);

/// Takes sets to be written.
pub(super) enum Queue {
    /// To a thread of its own.
    Thread(WriterThread),
    /// In the caller's own task.
    Inline(Box<Mutex<Batcher>>),
}

/// A thread that ends, after its last answer, when this is dropped.
pub(super) struct WriterThread {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

struct Job {
    set: Set,
    answer: oneshot::Sender<Outcome>,
}

impl Queue {
    /// A queue before a thread.
    pub(super) fn thread(batcher: Batcher) -> Result<Self, StoreError> {
        let (jobs, waiting) = mpsc::sync_channel(QUEUE);
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || serve(batcher, &waiting))
            .map_err(|error| StoreError::Unusable(error.to_string()))?;
        Ok(Self::Thread(WriterThread { jobs: Some(jobs), thread: Some(thread) }))
    }

    /// No queue: the caller writes.
    pub(super) fn inline(batcher: Batcher) -> Self {
        Self::Inline(Box::new(Mutex::new(batcher)))
    }

    /// Has a set written and waits for its answer. A caller that no longer waits does not take its set back.
    pub(super) async fn write(&self, set: Set) -> Outcome {
        match self {
            Self::Thread(writer) => writer.write(set).await,
            Self::Inline(batcher) => {
                let mut batcher = batcher.lock().unwrap_or_else(PoisonError::into_inner);
                batcher.write(&[set]).pop().unwrap_or_else(|| Outcome::Unknown(stopped()))
            }
        }
    }
}

impl WriterThread {
    async fn write(&self, set: Set) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let Some(jobs) = &self.jobs else { return Outcome::Failed(stopped()) };
        match jobs.try_send(Job { set, answer }) {
            Ok(()) => answered.await.unwrap_or_else(|_| Outcome::Unknown(stopped())),
            Err(TrySendError::Full(_)) => Outcome::Failed(StoreError::Busy),
            Err(TrySendError::Disconnected(_)) => Outcome::Failed(stopped()),
        }
    }
}

impl Drop for WriterThread {
    /// Waits, so that whoever opens the store next finds it free.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the store's writer panicked");
        }
    }
}

fn stopped() -> StoreError {
    StoreError::Unusable("the writer has stopped".to_owned())
}

fn serve(mut batcher: Batcher, waiting: &Receiver<Job>) {
    let (mut last, mut began) = (0, Instant::now());
    while let Some(first) = next(&mut batcher, waiting) {
        if last >= RUSH {
            thread::sleep(PACE.saturating_sub(began.elapsed()));
        }
        began = Instant::now();
        let (sets, answers) = batch(first, waiting);
        last = sets.len();
        for (answer, outcome) in answers.into_iter().zip(batcher.write(&sets)) {
            // Whoever asked may be gone; its set stands all the same.
            drop(answer.send(outcome));
        }
    }
}

/// What is written in one transaction.
fn batch(first: Job, waiting: &Receiver<Job>) -> (Vec<Set>, Vec<oneshot::Sender<Outcome>>) {
    let mut writes = first.set.writes.len();
    let (mut sets, mut answers) = (vec![first.set], vec![first.answer]);
    while sets.len() < BATCH && writes < WRITES {
        let Ok(job) = waiting.try_recv() else { break };
        writes += job.set.writes.len();
        sets.push(job.set);
        answers.push(job.answer);
    }
    (sets, answers)
}

/// The next job; while there is none the writer tidies up once, then sleeps without waking.
fn next(batcher: &mut Batcher, waiting: &Receiver<Job>) -> Option<Job> {
    match waiting.recv_timeout(QUIET) {
        Ok(job) => return Some(job),
        Err(RecvTimeoutError::Disconnected) => return None,
        Err(RecvTimeoutError::Timeout) => batcher.checkpoint(),
    }
    match waiting.recv_timeout(IDLE) {
        Ok(job) => return Some(job),
        Err(RecvTimeoutError::Disconnected) => return None,
        Err(RecvTimeoutError::Timeout) => batcher.shrink(),
    }
    waiting.recv().ok()
}
