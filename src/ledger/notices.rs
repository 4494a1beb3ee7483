//! Who hears of what became durable: everything for whoever watches, the steps of a few leases for whoever waits.
//!
//! A wait has a way of its own, since each step of each lease would otherwise wake every call that waits for another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leasehold_law::id::LeaseId;
use leasehold_law::lease::Lease;
use leasehold_law::task::Task;
use tokio::sync::{broadcast, mpsc};

/// How many notices a watcher may fall behind before it must read anew.
const NOTICES: usize = 4096;

/// What changed, for whoever watches. Sent after it is durable.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A lease.
    Lease(Arc<Lease>),
    /// A task.
    Task(Arc<Task>),
}

/// Tells them.
pub(super) struct Notices {
    all: broadcast::Sender<Notice>,
    awaited: Arc<Awaited>,
}

/// The waits for each lease, by their numbers.
#[derive(Default)]
struct Awaited(Mutex<Waits>);

#[derive(Default)]
struct Waits {
    made: u64,
    of: HashMap<LeaseId, Vec<Wait>>,
}

struct Wait {
    number: u64,
    steps: mpsc::UnboundedSender<Arc<Lease>>,
}

/// The steps of some leases from now on: a few for each, so that no bound is needed beside theirs.
pub struct Steps {
    number: u64,
    ids: Vec<LeaseId>,
    awaited: Arc<Awaited>,
    steps: mpsc::UnboundedReceiver<Arc<Lease>>,
}

impl Notices {
    pub(super) fn new() -> Self {
        Self { all: broadcast::channel(NOTICES).0, awaited: Arc::default() }
    }

    /// Every change from now on.
    pub(super) fn watch(&self) -> broadcast::Receiver<Notice> {
        self.all.subscribe()
    }

    /// The steps of these leases from now on.
    pub(super) fn wait(&self, ids: &[LeaseId]) -> Steps {
        let (sender, steps) = mpsc::unbounded_channel();
        let mut waits = self.awaited.lock();
        waits.made += 1;
        let number = waits.made;
        for id in ids {
            waits.of.entry(*id).or_default().push(Wait { number, steps: sender.clone() });
        }
        Steps { number, ids: ids.to_vec(), awaited: self.awaited.clone(), steps }
    }

    /// Whether anybody would hear of this lease.
    pub(super) fn reach(&self, id: LeaseId) -> bool {
        self.all.receiver_count() > 0 || self.awaited.lock().of.contains_key(&id)
    }

    /// Nobody listening is no fault.
    pub(super) fn tell_lease(&self, lease: &Arc<Lease>) {
        if let Some(waits) = self.awaited.lock().of.get(&lease.terms.id) {
            waits.iter().for_each(|wait| drop(wait.steps.send(lease.clone())));
        }
        drop(self.all.send(Notice::Lease(lease.clone())));
    }

    pub(super) fn tell_task(&self, task: Task) {
        drop(self.all.send(Notice::Task(Arc::new(task))));
    }
}

impl Awaited {
    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Steps {
    /// The next step of one of them.
    pub async fn next(&mut self) -> Option<Arc<Lease>> {
        self.steps.recv().await
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        let mut waits = self.awaited.lock();
        for id in &self.ids {
            if let Some(others) = waits.of.get_mut(id) {
                others.retain(|wait| wait.number != self.number);
                if others.is_empty() {
                    waits.of.remove(id);
                }
            }
        }
    }
}
