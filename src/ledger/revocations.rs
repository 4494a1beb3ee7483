//! Records of revocations: each change is compared with the version that it was read with, since who takes and who lifts
//! may be two brokers.

use leasehold_law::id::{RevocationId, TaskId};
use leasehold_law::journal::Event;
use leasehold_law::revocation::{Lifted, Revocation, Selector};
use leasehold_law::subject::{Guard, Subject};

use super::entry::about_nothing;
use super::{Ledger, LedgerError};
use crate::store::{Change, StoreError};

impl Ledger {
    /// A revocation as it stands, with the version that a change of it is compared with. The version is read first:
    /// whatever changes after it makes it stale.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn revocation(&self, id: RevocationId) -> Result<Option<(Revocation, u64)>, StoreError> {
        let versions = self.store.versions(&[Subject::Revocation(id)]).await?;
        let version = versions.first().copied().unwrap_or_default();
        Ok(self.store.revocation(id).await?.map(|revocation| (revocation, version)))
    }

    /// A revocation, before anything is listed: its barrier stands from here on (RULES R-2).
    ///
    /// # Errors
    /// Where it cannot be written; [`LedgerError::Stale`] where it is on record already.
    pub async fn record_revocation(&self, revocation: &Revocation) -> Result<(), LedgerError> {
        let event = Event::Revocation { revocation: Box::new(revocation.clone()) };
        let barrier = revocation.freeze.then_some(Change::Bump(Subject::Freezes));
        self.put_revocation(revocation, 0, Some(event), barrier).await
    }

    /// The end of the barrier of a revocation that has this version.
    ///
    /// # Errors
    /// Where it cannot be written; [`LedgerError::Stale`] where it has changed meanwhile.
    pub async fn record_lift(
        &self,
        (revocation, version): (Revocation, u64),
        lifted: Lifted,
    ) -> Result<Revocation, LedgerError> {
        let next = Revocation { lifted: Some(lifted.clone()), ..revocation };
        let event = Event::Lifted { id: next.id, lifted };
        self.put_revocation(&next, version, Some(event), Some(Change::Bump(Subject::Freezes))).await?;
        Ok(next)
    }

    /// What a revocation took so far, which had this version before.
    ///
    /// # Errors
    /// Where it cannot be written; [`LedgerError::Stale`] where it has changed meanwhile.
    pub async fn remember_taken(&self, revocation: &Revocation, version: u64) -> Result<(), LedgerError> {
        self.put_revocation(revocation, version, None, None).await
    }

    async fn put_revocation(
        &self,
        revocation: &Revocation,
        version: u64,
        event: Option<Event>,
        barrier: Option<Change>,
    ) -> Result<(), LedgerError> {
        let subject = Subject::Revocation(revocation.id);
        let mut changes =
            vec![Change::Revocation(Box::new(revocation.clone())), Change::Bump(subject.clone())];
        if let Some(event) = event {
            let (id, task) = (revocation.id.to_string(), task_of(&revocation.selector));
            changes.push(Change::Append(about_nothing(&id, task, event, self.clock.now())?));
        }
        changes.extend(barrier);
        self.commit(changes, vec![Guard { subject, version }]).await
    }
}

fn task_of(selector: &Selector) -> Option<TaskId> {
    match selector {
        Selector::Task(id) => Some(*id),
        Selector::Lease(_)
        | Selector::Agent(_)
        | Selector::Owner(_)
        | Selector::Person(_)
        | Selector::Target(_)
        | Selector::Intent(_)
        | Selector::Ref { .. }
        | Selector::All => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{Clock, SystemTime};
    use crate::store::sqlite::{Options, SqliteStore, Writer};
    use crate::store::suite::samples::{minting, revocation};
    use crate::store::{Stamp, Store as _};

    fn ledger(store: &Arc<SqliteStore>) -> Ledger {
        Ledger::new(store.clone(), Arc::new(Clock::new(Arc::new(SystemTime), None)))
    }

    /// Two brokers share a store: one sees a revocation through while the other lifts it.
    #[tokio::test]
    async fn a_lift_and_what_was_taken_do_not_overwrite_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/leasehold.db");
        let (chain, stamp) = ("broker-1".to_owned(), Stamp::Production);
        let key = crate::store::suite::samples::key();
        let options = Options { path, chain, key, stamp, writer: Writer::Inline, cache_mib: 1 };
        let store = Arc::new(SqliteStore::open(&options).unwrap());
        let (taker, lifter) = (ledger(&store), ledger(&store));
        let begun = revocation(1, Selector::All);
        let id = begun.id;
        let stale = Err(LedgerError::Stale(Subject::Revocation(id)));
        taker.record_revocation(&begun).await.unwrap();
        assert_eq!(taker.record_revocation(&begun).await, stale, "it is on record already");
        let (taken, version) = taker.revocation(id).await.unwrap().unwrap();
        let found = lifter.revocation(id).await.unwrap().unwrap();
        let lifted = Lifted { by: begun.by.clone(), reason: "over".to_owned(), at: begun.at };
        lifter.record_lift(found.clone(), lifted.clone()).await.unwrap();
        let taken = Revocation { leases: vec![minting(1, 1).terms.id], ..taken };
        assert_eq!(taker.remember_taken(&taken, version).await, stale, "the barrier would stand again");
        let (stored, version) = taker.revocation(id).await.unwrap().unwrap();
        let taken = Revocation { leases: taken.leases, ..stored };
        taker.remember_taken(&taken, version).await.unwrap();
        assert_eq!(lifter.record_lift(found, lifted).await.map(drop), stale, "what was taken would be lost");
        assert_eq!(store.revocation(id).await, Ok(Some(taken)));
    }
}
