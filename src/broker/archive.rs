//! Leases and tasks that are over leave the tables after their retention; the journal goes on telling them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use leasehold_law::time::{Span, Timestamp};

use super::Inner;

/// How many rows leave in one transaction.
const SLICE: usize = 256;
/// How many slices go without a rest, so that what agents ask for is never far behind them.
const SLICES: usize = 8;
/// How soon to look again where nothing was left.
const AGAIN: Span = Span::from_mins(1);

/// When to look next.
#[derive(Default)]
pub(super) struct Archive {
    busy: AtomicBool,
    next: AtomicI64,
}

impl Inner {
    /// Archives beside the beat, a few slices at a time.
    pub(super) fn tend_archive(self: &Arc<Self>) {
        let due = Timestamp(self.archive.next.load(Ordering::Relaxed)).has_come(self.clock.now(), AGAIN);
        if !due || self.archive.busy.swap(true, Ordering::Relaxed) {
            return;
        }
        let inner = self.clone();
        self.owned.spawn(async move {
            if inner.archive_slices().await {
                inner.archive.next.store((inner.clock.now() + AGAIN).0, Ordering::Relaxed);
            }
            inner.archive.busy.store(false, Ordering::Relaxed);
        });
    }

    /// Gives whether nothing was left, or nothing can be done now.
    async fn archive_slices(&self) -> bool {
        let before = self.clock.now() - self.keep.retention();
        for _ in 0..SLICES {
            let ended = match self.ledger.store().ended(before, SLICE).await {
                Ok(ended) => ended,
                Err(error) => {
                    tracing::warn!(%error, "the store does not say what is over");
                    return true;
                }
            };
            let last = ended.len() < SLICE;
            if !ended.is_empty()
                && let Err(error) = self.ledger.archive(ended).await
            {
                tracing::warn!(%error, "what is over stays in its table for now");
                return true;
            }
            if last {
                return true;
            }
        }
        false
    }
}
