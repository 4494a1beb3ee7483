//! What is looked for less often than each beat, since the beat's own sweep leaves it out: tasks whose end was cut short,
//! leases that expire out of reach, and leases that wait for a moment which a clock put back has moved away.

use std::sync::{Arc, Mutex, PoisonError};

use leasehold_law::cause::Cause;
use leasehold_law::id::TaskId;

use super::Inner;
use super::revoke::LONGEST_WAIT;
use crate::store::{LeaseFilter, StoreError, TaskFilter};

/// How many tasks that are ending are looked at in a second, in turn: each ends with its last lease, and only what was
/// cut short between the two is found here.
const ENDING: usize = 64;
/// How many leases are read at a time.
const SLICE: usize = 512;

/// Up to where the tasks that are ending have been looked at, the newest first.
#[derive(Default)]
pub(super) struct Ending(Mutex<Option<TaskId>>);

impl Inner {
    /// Looks whether some of the tasks that are ending have ended.
    pub(super) async fn finish_tasks(&self) {
        let before = self.ending.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let filter = TaskFilter { ending: true, before, ..TaskFilter::default() };
        let page = match self.ledger.store().tasks(&filter, ENDING).await {
            Ok(page) => page,
            Err(error) => return tracing::error!(%error, "the store does not say which tasks are ending"),
        };
        let last = page.last().filter(|_| page.len() == ENDING).map(|task| task.terms.id);
        *self.ending.0.lock().unwrap_or_else(PoisonError::into_inner) = last;
        for task in page {
            self.finish_task(task.terms.id).await;
        }
    }

    /// Condemns what expired in targets that do not answer: for these the sweep brings no more than asks whether they
    /// are back.
    pub(super) async fn condemn_out_of_reach(self: &Arc<Self>) {
        for target in self.revoker.out_of_reach() {
            let expired = Some(self.clock.now());
            let filter = LeaseFilter { target: Some(target), expired, ..LeaseFilter::default() };
            match self.ledger.store().leases(&filter, SLICE).await {
                Ok(mut expired) => {
                    expired.retain(|lease| self.is_expired(lease));
                    self.condemn_all(expired, Cause::Expired).await;
                }
                Err(error) => tracing::error!(%error, "the store does not say what has expired"),
            }
        }
    }

    /// Wakes leases whose next try was reckoned by a clock that has been put back since, here or at another broker: no
    /// try is ever set further ahead than [`LONGEST_WAIT`]. Beside the beat.
    pub(super) fn wake_put_off(self: &Arc<Self>) {
        let inner = self.clone();
        self.owned.spawn(async move {
            if let Err(error) = inner.try_wake_put_off().await {
                tracing::error!(%error, "the store does not say what waits for too long");
            }
        });
    }

    /// All of them, so that none hides another.
    async fn try_wake_put_off(self: &Arc<Self>) -> Result<(), StoreError> {
        let tried_after = Some(self.clock.now() + LONGEST_WAIT);
        let mut filter = LeaseFilter { tried_after, ..LeaseFilter::default() };
        loop {
            let page = self.ledger.store().leases(&filter, SLICE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            filter.before = Some(last.terms.id);
            page.into_iter().for_each(|lease| self.kill(lease));
        }
    }
}
