//! Reviews that fall due: from that moment an agent may only observe, and what it holds is decided again (ID-8).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use leasehold_law::registry::Who;
use leasehold_law::time::{Span, Timestamp};

use super::Inner;
use super::refused::Refused;

/// How often the registry is looked through.
const EVERY: Span = Span::from_secs(10);
/// A lease that was decided just before its agent's review fell due is live only a while later: so long, those who fell
/// due are looked at again.
const STILL: Span = Span::from_mins(2);

/// Up to when the registry was looked through; from the beginning of time, where a broker has just started.
#[derive(Default)]
pub(super) struct Reviews {
    busy: AtomicBool,
    looked: AtomicI64,
}

impl Inner {
    /// Looks beside the beat for reviews that have fallen due.
    pub(super) fn tend_reviews(self: &Arc<Self>) {
        let (now, looked) = (self.clock.now(), Timestamp(self.reviews.looked.load(Ordering::Relaxed)));
        let holds_for_ever = self.registry.load().catalog().rules.review_every.is_none();
        if holds_for_ever
            || !(looked + EVERY).has_come(now, EVERY)
            || self.reviews.busy.swap(true, Ordering::Relaxed)
        {
            return;
        }
        let inner = self.clone();
        self.owned.spawn(async move {
            match inner.reassess_unreviewed(looked - STILL, now).await {
                Ok(0) => inner.reviews.looked.store(now.0, Ordering::Relaxed),
                Ok(ended) => {
                    tracing::info!(ended, "leases end because the review of their agent is overdue");
                    inner.reviews.looked.store(now.0, Ordering::Relaxed);
                }
                Err(error) => tracing::warn!(%error, "leases of agents without a review are not decided yet"),
            }
            inner.reviews.busy.store(false, Ordering::Relaxed);
        });
    }

    async fn reassess_unreviewed(
        self: &Arc<Self>,
        after: Timestamp,
        now: Timestamp,
    ) -> Result<usize, Refused> {
        // The review may have been made at another broker.
        self.standing().await?;
        let due = self.fallen_due(after, now);
        if due.is_empty() { Ok(0) } else { self.reassess_agents(&due).await }
    }

    /// The registrations whose review fell due in this time.
    fn fallen_due(&self, after: Timestamp, now: Timestamp) -> Vec<Who> {
        let registry = self.registry.load();
        let rules = &registry.catalog().rules;
        let views = registry.registrations().into_iter();
        let due = views.filter(|view| view.standing.overdue(rules, now).is_some_and(|due| due >= after));
        due.map(|view| view.who).collect()
    }
}
