//! Records of what was set aside, of what leaves its table, and of targets that were reconciled after a restore.

use std::collections::BTreeMap;

use leasehold_law::journal::{ChainHead, Event};
use leasehold_law::revocation::Revocation;
use leasehold_law::subject::Subject;
use leasehold_law::time::Timestamp;

use super::entry::about_nothing;
use super::{Ledger, LedgerError};
use crate::store::{Aside, Change, Draft, Ended, StoreError};

impl Ledger {
    /// Sets something aside, with the entry that says so. `instead` takes the place of a revocation whose row cannot
    /// be read, so that its barrier goes on standing.
    ///
    /// # Errors
    /// Where it cannot be written, or the row is no longer the one that was read.
    pub async fn set_aside(&self, aside: &Aside, instead: Option<Revocation>) -> Result<(), LedgerError> {
        let what = match aside.row.kind {
            crate::store::AsideKind::Orphan => "found an orphan",
            crate::store::AsideKind::Lease
            | crate::store::AsideKind::Task
            | crate::store::AsideKind::Revocation => "set aside a row",
        };
        let mut changes = vec![Change::SetAside(Box::new(aside.clone()))];
        if let Some(revocation) = instead {
            changes.push(Change::Bump(Subject::Revocation(revocation.id)));
            changes.push(Change::Revocation(Box::new(revocation)));
        }
        changes.push(self.noted(what, details(aside))?);
        self.commit(changes, Vec::new()).await
    }

    /// How far what was set aside has come; with an entry once its target read back that it is gone.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn note_aside(&self, aside: &Aside) -> Result<(), LedgerError> {
        let mut changes = vec![Change::Aside(Box::new(aside.clone()))];
        if aside.gone_at.is_some() {
            changes.push(self.noted("what was set aside is gone", details(aside))?);
        }
        self.commit(changes, Vec::new()).await
    }

    /// Rows that are over leave their tables. No entry is written: what the journal says of them goes on being said.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn archive(&self, ended: Vec<Ended>) -> Result<(), LedgerError> {
        self.commit(ended.into_iter().map(Change::Archive).collect(), Vec::new()).await
    }

    /// A target that agrees with this incarnation of the store (RULES R-12).
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn record_reconciled(
        &self,
        target: &str,
        incarnation: u32,
        details: BTreeMap<String, String>,
    ) -> Result<(), LedgerError> {
        let number = Change::Number(reconciled_name(target).into(), i64::from(incarnation));
        let entry = self.noted("reconciled a target after a restore", details)?;
        self.commit(vec![number, entry], Vec::new()).await
    }

    /// The incarnation that a target was last reconciled with.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn reconciled(&self, target: &str) -> Result<Option<i64>, LedgerError> {
        Ok(self.store.number(&reconciled_name(target)).await?)
    }

    fn noted(&self, what: &str, details: BTreeMap<String, String>) -> Result<Change, LedgerError> {
        let event = Event::Broker { what: what.to_owned(), details };
        Ok(Change::Append(about_nothing("broker", None, event, self.clock.now())?))
    }
}

/// The first entry of a store that was put back: what it continues, and from where.
///
/// # Errors
/// Where its bytes cannot be made.
pub fn restored_entry(old: &ChainHead, taken_at: Timestamp, now: Timestamp) -> Result<Draft, StoreError> {
    let details = BTreeMap::from([
        ("old chain".to_owned(), old.chain.as_str().to_owned()),
        ("old chain's last entry".to_owned(), old.seq.to_string()),
        ("old chain's head".to_owned(), old.hash.to_string()),
        ("backup taken at".to_owned(), taken_at.to_string()),
    ]);
    about_nothing("broker", None, Event::Broker { what: "restored from a backup".to_owned(), details }, now)
}

fn reconciled_name(target: &str) -> String {
    format!("reconciled.{target}")
}

fn details(aside: &Aside) -> BTreeMap<String, String> {
    let row = &aside.row;
    let all = [
        ("kind", row.kind.name().to_owned()),
        ("id", row.id.clone()),
        ("task", row.task.clone()),
        ("target", row.target.clone()),
        ("principal", row.principal.clone()),
        ("handle", row.handle.clone().unwrap_or_default()),
        ("why", row.error.clone()),
    ];
    let said = all.into_iter().filter(|(_, value)| !value.is_empty());
    said.map(|(key, value)| (key.to_owned(), value)).collect()
}
