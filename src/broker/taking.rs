//! Revocations seen through: what a selector takes is listed, written down and condemned, by whoever was asked, or later
//! by whoever finds that it was cut short.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leasehold_law::cause::Cause;
use leasehold_law::id::{LeaseId, RevocationId};
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::revocation::Revocation;
use leasehold_law::time::{Span, Timestamp};

use super::Inner;
use super::selected::Walk;
use crate::ledger::LedgerError;
use crate::store::StoreError;

/// How often a page that cannot be read, or a barrier that cannot be written, is tried again at once.
pub(super) const TRIES: usize = 3;
/// How often a change of a revocation is tried again that met another one.
pub(super) const RACES: usize = 16;
/// How soon revocations that were cut short are looked for again.
const AGAIN: Span = Span::from_mins(1);
/// How soon where this broker knows of one.
const SOON: Span = Span::from_secs(1);
/// How long a revocation is left to the broker that was asked, where others share its store.
const LEFT_ALONE: Span = Span::from_mins(1);
/// How many revocations are read at a time, since one may name many leases, and how many at most.
const PAGE: usize = 16;
const UNDER_WAY: usize = 512;
/// A revocation is on record within this of the moment in its id: what is older and complete is not read again.
const LATEST: Span = Span::from_mins(10);
/// How long a revocation may have taken from its beginning until it was on record.
const RECORDED_WITHIN: Span = Span::from_secs(10);

/// Which revocations are being seen through here, and when to look for those that nobody sees through.
#[derive(Default)]
pub(super) struct Taking {
    known: Mutex<Known>,
    next: AtomicI64,
    busy: AtomicBool,
}

#[derive(Default)]
struct Known {
    under_way: BTreeSet<RevocationId>,
    /// Cut short here: nobody else sees them through.
    owed: BTreeSet<RevocationId>,
    /// Up to here all are complete.
    complete: Option<RevocationId>,
}

/// A revocation that is being seen through; it is over when this is gone.
pub(super) struct Turn<'a>(&'a Taking, RevocationId);

impl Taking {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, id: RevocationId) -> Turn<'_> {
        self.known().under_way.insert(id);
        Turn(self, id)
    }

    /// One was cut short here.
    pub(super) fn owe(&self, id: RevocationId) {
        self.known().owed.insert(id);
        self.next.store(0, Ordering::Relaxed);
    }

    /// One that was complete is not any more.
    pub(super) fn reopen(&self, id: RevocationId) {
        self.known().complete = None;
        self.owe(id);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.known().under_way.remove(&self.1);
    }
}

impl Inner {
    /// Writes a revocation down, with its barrier. Of a try that failed nobody may know what became: one that is found
    /// on record was good.
    pub(super) async fn raise(&self, revocation: &Revocation, tries: usize) -> Result<(), LedgerError> {
        for _ in 1..tries {
            match self.ledger.record_revocation(revocation).await {
                Ok(()) | Err(LedgerError::Stale(_)) => return Ok(()),
                Err(error) => tracing::warn!(revocation = %revocation.id, %error, "not on record yet"),
            }
        }
        match self.ledger.record_revocation(revocation).await {
            Ok(()) | Err(LedgerError::Stale(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Lists and condemns what is live, a page at a time. The list is on record before its leases are touched; since it
    /// is written whole, it is written whenever it has doubled.
    pub(super) async fn take(self: &Arc<Self>, revocation: &mut Revocation) -> Result<(), StoreError> {
        let mut walk = self.walk(&revocation.selector);
        let mut listed: BTreeSet<_> = revocation.leases.iter().copied().collect();
        for page_number in 1_usize.. {
            let page = self.next_page(&mut walk).await?;
            if page.is_empty() {
                break;
            }
            list(revocation, &mut listed, page.iter().map(|lease| lease.terms.id));
            if page_number.is_power_of_two() {
                self.remember(revocation).await;
            }
            crate::fault::point(crate::fault::Point::TakenListed);
            self.condemn_all(page, Cause::Operator).await;
        }
        let unread = self.unread(&revocation.selector).await?;
        list(revocation, &mut listed, unread);
        self.end_tasks_of(revocation).await
    }

    /// Ends the tasks that a revoked person stands behind, as the end of their session does. What was opened after a
    /// revocation that leaves no barrier is not meant. One that cannot be ended stops no other (law 9).
    async fn end_tasks_of(self: &Arc<Self>, revocation: &mut Revocation) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        for task in self.tasks_of(&revocation.selector).await? {
            if !revocation.is_freezing() && task.terms.opened_at > revocation.at + RECORDED_WITHIN {
                continue;
            }
            match self.end_task(task, Cause::PersonEnded).await {
                Ok((task, _)) => revocation.tasks.push(task.terms.id),
                Err(refused) => outcome = Err(StoreError::Unusable(refused.what)),
            }
        }
        outcome
    }

    /// A page that cannot be read is tried again: nothing of it is passed over meanwhile.
    async fn next_page(&self, walk: &mut Walk) -> Result<Vec<Lease>, StoreError> {
        for _ in 1..TRIES {
            if let Ok(page) = walk.next(self.ledger.store()).await {
                return Ok(page);
            }
        }
        walk.next(self.ledger.store()).await
    }

    /// Writes down what a revocation took so far, beside what others wrote of it meanwhile: a barrier that was lifted
    /// stays so. Gives it as it stands on record. What is not on record is not made so here, where nothing would
    /// compare with its barrier, and a journal that takes nothing is not waited for.
    pub(super) async fn remember(&self, taken: &Revocation) -> Option<Revocation> {
        for _ in 0..RACES {
            if !self.ledger.is_well() {
                return None;
            }
            let (stored, version) = self.ledger.revocation(taken.id).await.ok().flatten()?;
            let both = united(stored, taken);
            match self.ledger.remember_taken(&both, version).await {
                Ok(()) => return Some(both),
                Err(LedgerError::Stale(_)) => {}
                Err(error) => {
                    tracing::error!(revocation = %taken.id, %error, "what was taken is not on record");
                    return None;
                }
            }
        }
        None
    }

    /// All is listed. It is complete once each of its leases is condemned on record too: what was killed without a
    /// record would be forgotten by a crash.
    pub(super) async fn finish(&self, listed: Revocation) -> Revocation {
        let complete = self.revoker.unrecorded() == 0;
        let stored = self.remember(&Revocation { complete, ..listed.clone() }).await.unwrap_or(listed);
        if !stored.complete {
            self.taking.owe(stored.id);
        }
        stored
    }

    /// Goes on with revocations that were cut short, beside the beat, once in a while.
    pub(super) fn tend_revocations(self: &Arc<Self>) {
        let now = self.clock.now();
        let next = Timestamp(self.taking.next.load(Ordering::Relaxed));
        let due = next.has_come(now, AGAIN) && self.ledger.is_well();
        if !due || self.taking.busy.swap(true, Ordering::Relaxed) {
            return;
        }
        // Before the look: what is cut short during it is looked for soon.
        self.taking.next.store((now + AGAIN).0, Ordering::Relaxed);
        let inner = self.clone();
        self.owned.spawn(async move {
            if let Err(error) = inner.resume_revocations(LEFT_ALONE).await {
                tracing::warn!(%error, "revocations that were cut short cannot be looked for");
                inner.taking.next.store((inner.clock.now() + SOON).0, Ordering::Relaxed);
            }
            inner.taking.busy.store(false, Ordering::Relaxed);
        });
    }

    /// Goes on with revocations that were cut short and are older than this: what was live when they were made, and
    /// still is, is taken now. Gives how many leases that were. One that cannot be seen through yet stops no other.
    pub(super) async fn resume_revocations(self: &Arc<Self>, older: Span) -> Result<usize, StoreError> {
        let mut taken = 0;
        for revocation in self.cut_short(older).await? {
            let id = revocation.id;
            let _turn = self.taking.begin(id);
            match self.resume(revocation, &mut taken).await {
                Ok(true) => drop(self.taking.known().owed.remove(&id)),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(revocation = %id, %error, "a revocation was cut short, and waits");
                    self.taking.owe(id);
                }
            }
        }
        Ok(taken)
    }

    /// Revocations that are not complete, and that nobody sees through here. Those up to which all are complete are
    /// read once.
    async fn cut_short(&self, older: Span) -> Result<Vec<Revocation>, StoreError> {
        let (now, known) = (self.clock.now(), self.taking.known().complete);
        let (mut found, mut before) = (self.owed().await?, None);
        let mut complete = None;
        let mut all = false;
        for _ in 0..UNDER_WAY.div_ceil(PAGE) {
            let page = self.ledger.store().revocations(false, before, PAGE).await?;
            for revocation in page.iter().take_while(|one| known.is_none_or(|known| one.id > known)) {
                if !revocation.complete {
                    complete = None;
                } else if now.since(revocation.id.made_at()) > LATEST {
                    complete = complete.or(Some(revocation.id));
                }
            }
            before = page.last().map(|one| one.id);
            all = page.len() < PAGE || before <= known;
            found.extend(page.into_iter().filter(|one| !one.complete));
            if all {
                break;
            }
        }
        // Only where the look came to its end, and nothing was opened again meanwhile.
        let mut taking = self.taking.known();
        if all && taking.complete == known {
            taking.complete = complete.or(known);
        }
        found.sort_by_key(|one| one.id);
        found.dedup_by_key(|one| one.id);
        let is_left = |id: &RevocationId| taking.owed.contains(id) || now.since(id.made_at()) >= older;
        found.retain(|one| is_left(&one.id) && !taking.under_way.contains(&one.id));
        Ok(found)
    }

    /// Those that were cut short here, however old they are.
    async fn owed(&self) -> Result<Vec<Revocation>, StoreError> {
        let ids: Vec<_> = self.taking.known().owed.iter().copied().collect();
        let mut found = Vec::new();
        for id in ids {
            found.extend(self.ledger.store().revocation(id).await?.filter(|one| !one.complete));
        }
        Ok(found)
    }

    /// Whether it is complete now.
    async fn resume(
        self: &Arc<Self>,
        mut revocation: Revocation,
        taken: &mut usize,
    ) -> Result<bool, StoreError> {
        let id = revocation.id;
        let mut listed: BTreeSet<_> = revocation.leases.iter().copied().collect();
        let mut walk = self.walk(&revocation.selector);
        loop {
            let mut page = self.next_page(&mut walk).await?;
            if page.is_empty() {
                break;
            }
            // After the page: of what was read before a lift, nothing came after it.
            if let Some(stored) = self.ledger.store().revocation(revocation.id).await? {
                revocation.lifted = stored.lifted;
            }
            page.retain(|lease| is_meant(&revocation, lease));
            // What is dying already may be of those that were condemned and not written down any more.
            list(&mut revocation, &mut listed, page.iter().map(|lease| lease.terms.id));
            self.remember(&revocation).await;
            page.retain(is_untouched);
            *taken += page.len();
            self.condemn_all(page, Cause::Operator).await;
        }
        let unread = self.unread(&revocation.selector).await?;
        list(&mut revocation, &mut listed, unread);
        self.end_tasks_of(&mut revocation).await?;
        let complete = self.finish(revocation).await.complete;
        tracing::warn!(revocation = %id, complete, "a revocation was cut short: all of it is listed now");
        Ok(complete)
    }
}

/// Adds to the list of a revocation what is not on it yet.
fn list(
    revocation: &mut Revocation,
    listed: &mut BTreeSet<LeaseId>,
    more: impl IntoIterator<Item = LeaseId>,
) {
    revocation.leases.extend(more.into_iter().filter(|id| listed.insert(*id)));
}

/// What is on record of a revocation, and what was taken for it since.
fn united(stored: Revocation, taken: &Revocation) -> Revocation {
    let mut both = Revocation { complete: stored.complete || taken.complete, ..stored };
    let mut listed: BTreeSet<_> = both.leases.iter().copied().collect();
    list(&mut both, &mut listed, taken.leases.iter().copied());
    let ended = taken.tasks.iter().filter(|task| !both.tasks.contains(task)).copied().collect::<Vec<_>>();
    both.tasks.extend(ended);
    both
}

/// Whether a revocation that was cut short was to take this lease. Behind a barrier that stands nothing younger is legal;
/// without one, what was minted until the revocation was on record, by a clock that may be a little ahead, is taken too.
fn is_meant(revocation: &Revocation, lease: &Lease) -> bool {
    revocation.is_freezing() || lease.terms.created_at <= revocation.at + RECORDED_WITHIN
}

/// Live, and nobody has begun to kill it.
fn is_untouched(lease: &Lease) -> bool {
    match lease.state {
        LeaseState::Minting { .. } | LeaseState::Active { .. } | LeaseState::Renewing { .. } => true,
        LeaseState::New
        | LeaseState::Refused { .. }
        | LeaseState::Revoking { .. }
        | LeaseState::Residual { .. }
        | LeaseState::Revoked { .. }
        | LeaseState::Lapsed { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use leasehold_law::revocation::{Lifted, Selector};

    use super::*;
    use crate::store::suite::samples::{agent, minting, revocation, without_freeze};

    fn made(revocation: &Revocation, millis: i64) -> Lease {
        let mut lease = minting(1, 1);
        Arc::make_mut(&mut lease.terms).created_at = revocation.at.shifted(millis);
        lease
    }

    /// Behind a barrier that stands nothing younger is legal, however long after it the broker died.
    #[test]
    fn behind_its_barrier_a_revocation_is_resumed_whole() {
        let standing = revocation(1, Selector::All);
        let lifted = Lifted { by: agent(9), reason: "over".to_owned(), at: standing.at };
        let lifted = Revocation { lifted: Some(lifted), ..standing.clone() };
        let none = without_freeze(standing.clone());
        for (millis, behind, without) in
            [(-5, true, true), (10_000, true, true), (10_001, true, false), (3_600_000, true, false)]
        {
            let meant = [&standing, &lifted, &none].map(|one| is_meant(one, &made(one, millis)));
            assert_eq!(meant, [behind, without, without], "{millis} ms later");
        }
    }

    #[test]
    fn what_was_taken_and_what_is_on_record_are_united() {
        let [a, b, c] = [1, 2, 3].map(|n| minting(n, 1).terms.id);
        let stored = revocation(1, Selector::All);
        let lifted = Some(Lifted { by: agent(9), reason: "over".to_owned(), at: stored.at });
        let taken = Revocation { leases: vec![a, c], complete: true, ..stored.clone() };
        let both = united(Revocation { leases: vec![a, b], lifted: lifted.clone(), ..stored }, &taken);
        assert_eq!((both.leases, both.lifted, both.complete), (vec![a, b, c], lifted, true));
    }
}
