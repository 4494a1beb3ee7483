//! A journal that takes nothing stops no revocation (RULES R-24): what is condemned meanwhile is killed at once and
//! recorded late.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use leasehold_law::cause::Cause;
use leasehold_law::id::LeaseId;
use leasehold_law::lease::Lease;
use leasehold_law::time::{Span, Timestamp};

use crate::broker::Inner;
use crate::ledger::LedgerError;

/// How soon a lease that was killed without a record is looked at again.
pub(super) const RECORD_AGAIN: Span = Span::from_secs(5);

/// Condemned while the journal took nothing, and not on record yet.
#[derive(Default)]
pub(super) struct Unrecorded {
    condemned: Mutex<BTreeMap<LeaseId, Owed>>,
    /// How many of those that were taken out to be recorded are not on record yet; moved under that lock.
    recording: AtomicUsize,
    killed_at: Mutex<Timestamp>,
    mending: AtomicBool,
}

/// A lease that is owed a record.
#[derive(Clone)]
struct Owed {
    lease: Lease,
    cause: Cause,
    handle: Option<String>,
}

impl Unrecorded {
    /// How many there are, with those that are being recorded just now: only what is on record is owed no more.
    pub(super) fn len(&self) -> usize {
        let condemned = self.condemned.lock().unwrap_or_else(PoisonError::into_inner);
        condemned.len() + self.recording.load(Ordering::Relaxed)
    }

    /// Remembers one, for the cause of the highest rank. Whether that is news.
    fn put(&self, owed: Owed) -> bool {
        let mut condemned = self.condemned.lock().unwrap_or_else(PoisonError::into_inner);
        let known = condemned.get(&owed.lease.terms.id).map(|known| known.cause.rank());
        if known.is_some_and(|known| known >= owed.cause.rank()) {
            return false;
        }
        condemned.insert(owed.lease.terms.id, owed);
        true
    }

    /// Takes them out to be recorded; each counts until [`Unrecorded::recorded`] is called for it.
    fn take(&self) -> BTreeMap<LeaseId, Owed> {
        let mut condemned = self.condemned.lock().unwrap_or_else(PoisonError::into_inner);
        self.recording.fetch_add(condemned.len(), Ordering::Relaxed);
        std::mem::take(&mut *condemned)
    }

    /// One that was taken out is on record, or was put back.
    fn recorded(&self) {
        let _held = self.condemned.lock().unwrap_or_else(PoisonError::into_inner);
        self.recording.fetch_sub(1, Ordering::Relaxed);
    }

    /// Those that are to be killed again: no row says that they are due, so that nothing else would.
    fn again(&self, now: Timestamp) -> Vec<Owed> {
        let mut killed_at = self.killed_at.lock().unwrap_or_else(PoisonError::into_inner);
        if !(*killed_at + RECORD_AGAIN).has_come(now, RECORD_AGAIN) {
            return Vec::new();
        }
        *killed_at = now;
        self.condemned.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
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
        let owed = Owed { lease: lease.clone(), cause, handle };
        if self.revoker.unrecorded.put(owed) {
            self.held.put(lease.terms.id.to_string(), self.clock.now() + RECORD_AGAIN);
        }
        self.kill_as(lease, cause.rank());
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
            match inner.ledger.check_writable().await {
                Ok(()) => inner.record_late().await,
                Err(_) => inner.kill_again(),
            }
            inner.revoker.unrecorded.mending.store(false, Ordering::Relaxed);
        });
    }

    /// A try may have been answered and yet not have killed: sessions that arrived late, a mint that had not landed.
    fn kill_again(self: &Arc<Self>) {
        for Owed { lease, cause, .. } in self.revoker.unrecorded.again(self.clock.now()) {
            self.kill_as(lease, cause.rank());
        }
    }

    async fn record_late(self: &Arc<Self>) {
        for (id, owed) in self.revoker.unrecorded.take() {
            match self.ledger.store().lease(id).await {
                Ok(Some(lease)) if lease.state.is_live() => {
                    self.condemn(lease, owed.cause, owed.handle).await;
                }
                Ok(Some(_) | None) => {}
                Err(_) => {
                    self.revoker.unrecorded.put(owed);
                }
            }
            self.revoker.unrecorded.recorded();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite::samples::minting;

    fn owed(cause: Cause, handle: Option<&str>) -> Owed {
        Owed { lease: minting(1, 1), cause, handle: handle.map(str::to_owned) }
    }

    #[test]
    fn the_strongest_cause_is_owed_a_record() {
        let unrecorded = Unrecorded::default();
        assert!(unrecorded.put(owed(Cause::Expired, None)));
        assert!(!unrecorded.put(owed(Cause::Released, None)), "it is being killed already");
        assert!(unrecorded.put(owed(Cause::Operator, Some("oid"))));
        assert!(!unrecorded.put(owed(Cause::Expired, None)));
        assert_eq!(unrecorded.len(), 1);
        let taken = unrecorded.take().into_values().next().unwrap();
        assert_eq!((taken.cause, taken.handle.as_deref()), (Cause::Operator, Some("oid")));
    }

    /// A revocation is complete once nothing is owed a record: a crash forgets what is only about to be written.
    #[test]
    fn what_is_being_recorded_late_is_owed_until_it_is_on_record() {
        let unrecorded = Unrecorded::default();
        let other = Owed { lease: minting(2, 1), ..owed(Cause::Operator, None) };
        assert!(unrecorded.put(owed(Cause::Operator, None)) && unrecorded.put(other.clone()));
        assert_eq!((unrecorded.take().len(), unrecorded.len()), (2, 2));
        unrecorded.recorded();
        assert_eq!(unrecorded.len(), 1);
        assert!(unrecorded.put(other), "the journal took nothing again");
        unrecorded.recorded();
        assert_eq!(unrecorded.len(), 1);
    }

    /// No row says that they are due while the journal takes nothing.
    #[test]
    fn what_is_owed_a_record_is_killed_again_and_not_at_every_look() {
        let unrecorded = Unrecorded::default();
        let now = Timestamp(1_795_000_000_000);
        assert!(unrecorded.put(owed(Cause::Operator, None)));
        let again = |later: Span| unrecorded.again(now + later).len();
        assert_eq!(
            [again(Span::ZERO), again(Span(1)), again(RECORD_AGAIN), again(RECORD_AGAIN)],
            [1, 0, 1, 0]
        );
    }
}
