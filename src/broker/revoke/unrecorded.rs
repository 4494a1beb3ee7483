//! A journal that takes nothing stops no revocation (RULES R-24): what is condemned meanwhile is killed at once and
//! recorded late.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use leasehold_law::cause::Cause;
use leasehold_law::id::LeaseId;
use leasehold_law::lease::Lease;
use leasehold_law::time::Span;

use crate::broker::Inner;
use crate::ledger::LedgerError;

/// How soon a lease that was killed without a record is looked at again.
pub(super) const RECORD_AGAIN: Span = Span::from_secs(5);

/// Condemned while the journal took nothing, and not on record yet.
#[derive(Default)]
pub(super) struct Unrecorded {
    condemned: Mutex<BTreeMap<LeaseId, (Cause, Option<String>)>>,
    mending: AtomicBool,
}

impl Unrecorded {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.condemned.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Remembers one, for the cause of the highest rank. Whether that is news.
    fn put(&self, id: LeaseId, cause: Cause, handle: Option<String>) -> bool {
        let mut condemned = self.condemned.lock().unwrap_or_else(PoisonError::into_inner);
        let known = condemned.get(&id).map(|(cause, _)| cause.rank());
        if known.is_some_and(|known| known >= cause.rank()) {
            return false;
        }
        condemned.insert(id, (cause, handle));
        true
    }

    fn take(&self) -> BTreeMap<LeaseId, (Cause, Option<String>)> {
        std::mem::take(&mut *self.condemned.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    /// Kills a lease without a record, and remembers that it is owed one.
    pub(in crate::broker) fn kill_unrecorded(
        self: &Arc<Self>,
        lease: Lease,
        cause: Cause,
        handle: Option<String>,
    ) {
        if self.revoker.unrecorded.put(lease.terms.id, cause, handle) {
            self.held.put(lease.terms.id.to_string(), self.clock.now() + RECORD_AGAIN);
            self.kill_as(lease, cause.rank());
        }
    }

    /// As [`Inner::kill_unrecorded`] for many, where this is why the journal did not take their condemnation.
    pub(in crate::broker) fn kill_without_record(
        self: &Arc<Self>,
        leases: impl IntoIterator<Item = Lease>,
        cause: Cause,
        error: &LedgerError,
    ) {
        if matches!(error, LedgerError::Store(_) | LedgerError::Unknown(_)) {
            leases.into_iter().for_each(|lease| self.kill_unrecorded(lease, cause, None));
        }
    }

    /// Sees whether a journal that took nothing takes entries again, and records late what is owed. It runs beside the
    /// sweep, one at a time: a journal that hangs holds up nobody.
    pub(in crate::broker) fn mend_records(self: &Arc<Self>) {
        let unrecorded = &self.revoker.unrecorded;
        let owed = unrecorded.len() > 0 || !self.ledger.is_well();
        if !owed || unrecorded.mending.swap(true, Ordering::Relaxed) {
            return;
        }
        let inner = self.clone();
        self.owned.spawn(async move {
            if inner.ledger.healthy().await.is_ok() {
                inner.record_late().await;
            }
            inner.revoker.unrecorded.mending.store(false, Ordering::Relaxed);
        });
    }

    async fn record_late(self: &Arc<Self>) {
        for (id, (cause, handle)) in self.revoker.unrecorded.take() {
            match self.ledger.store().lease(id).await {
                Ok(Some(lease)) if lease.state.is_live() => self.condemn(lease, cause, handle).await,
                Ok(Some(_) | None) => {}
                Err(_) => {
                    self.revoker.unrecorded.put(id, cause, handle);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use leasehold_law::time::Timestamp;

    use super::*;

    #[test]
    fn the_strongest_cause_is_owed_a_record() {
        let unrecorded = Unrecorded::default();
        let id = LeaseId::derive(Timestamp(1), 1);
        assert!(unrecorded.put(id, Cause::Expired, None));
        assert!(!unrecorded.put(id, Cause::Released, None), "it is being killed already");
        assert!(unrecorded.put(id, Cause::Operator, Some("oid".to_owned())));
        assert!(!unrecorded.put(id, Cause::Expired, None));
        assert_eq!(unrecorded.len(), 1);
        assert_eq!(unrecorded.take(), BTreeMap::from([(id, (Cause::Operator, Some("oid".to_owned())))]));
        assert_eq!(unrecorded.len(), 0);
    }
}
