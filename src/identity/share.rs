//! What one caller may hold of a door, over all its connections, so that nobody keeps the others out.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use leasehold_law::caller::CallerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most that one caller may hold of one door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Each {
    /// Open connections.
    pub connections: usize,
    /// Calls at one time; as many again that keep alive or give back.
    pub calls: usize,
    /// Answers that stay open, such as watching a task.
    pub streams: usize,
}

impl Default for Each {
    /// For an agent that runs in dozens of processes under one identity; one process needs a connection.
    fn default() -> Self {
        Self { connections: 64, calls: 256, streams: 1024 }
    }
}

impl Each {
    /// For those who are proven and may do nothing: enough to be told why.
    pub(super) const OF_A_VISITOR: Self = Self { connections: 4, calls: 8, streams: 8 };
}

/// One caller's share, for as long as it has a connection.
pub struct Share {
    connections: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    returns: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").finish_non_exhaustive()
    }
}

impl Share {
    fn new(each: Each) -> Self {
        let bound = |most| Arc::new(Semaphore::new(most));
        Self {
            connections: bound(each.connections),
            calls: bound(each.calls),
            returns: bound(each.calls),
            streams: bound(each.streams),
        }
    }

    pub(super) fn connection(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.clone().try_acquire_owned().ok()
    }

    /// Room for one more call, until the permit is dropped; none where the caller has as many as it may.
    #[must_use]
    pub fn call(&self) -> Option<OwnedSemaphorePermit> {
        self.calls.clone().try_acquire_owned().ok()
    }

    /// Room for one more call that keeps alive or gives back, likewise.
    #[must_use]
    pub fn giving_back(&self) -> Option<OwnedSemaphorePermit> {
        self.returns.clone().try_acquire_owned().ok()
    }

    /// Room for one more answer that stays open, likewise.
    #[must_use]
    pub fn stream(&self) -> Option<OwnedSemaphorePermit> {
        self.streams.clone().try_acquire_owned().ok()
    }
}

/// The shares of all who have a connection, and of nobody else: memory is bounded by the connections.
#[derive(Default)]
pub(super) struct Shares(Mutex<HashMap<CallerId, Weak<Share>>>);

impl Shares {
    pub(super) fn of(&self, caller: &CallerId, each: Each) -> Arc<Share> {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(caller).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Share::new(each));
        shares.insert(caller.clone(), Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_one_caller_s_and_is_forgotten_with_its_last_connection() {
        let shares = Shares::default();
        let caller = |n: usize| format!("spiffe://prod.example/agent/{n}").parse().unwrap();
        let each = Each { connections: 1, ..Each::default() };
        let share = shares.of(&caller(1), each);
        let held = share.connection();
        assert!(held.is_some() && shares.of(&caller(1), each).connection().is_none());
        assert!(shares.of(&caller(2), each).connection().is_some(), "another caller has its own");
        drop((held, share));
        for n in 0..100 {
            assert!(shares.of(&caller(n), each).connection().is_some());
        }
        assert_eq!(shares.0.lock().unwrap().len(), 1);
    }
}
