//! Records of drills: the verdict of each, and which is the last of a target, for as long as the journal is kept.

use leasehold_law::drill::Drill;
use leasehold_law::journal::{Body, Event};
use leasehold_law::time::{Span, Timestamp};

use super::entry::about_drill;
use super::{Ledger, LedgerError};
use crate::store::{Change, StoreError};

/// What marks the entry of a verdict: no text of a caller holds it, since quotes in texts are escaped.
const MARK: &str = r#""type":"drilled""#;
/// How many verdicts of one moment are looked through for that of a target.
const AT_ONCE: usize = 64;

impl Ledger {
    /// A drill that is over. It is the last of its target until another one is over: drills that are refused before
    /// they prove anything take no verdict's place.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn record_drill(&self, drill: &Drill) -> Result<(), LedgerError> {
        let entry = about_drill(drill, self.clock.now())?;
        let target = &drill.pair.target;
        let mut changes = vec![Change::Number(drilled_name(target).into(), entry.at.0)];
        if drill.has_passed() {
            changes.push(Change::Number(passed_name(target).into(), drill.at.0));
        }
        changes.push(Change::Append(entry));
        self.commit(changes, Vec::new()).await
    }

    /// When the last drill of a target began that has passed, by whichever broker of this store.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn last_passed(&self, target: &str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.store.number(&passed_name(target)).await?.map(Timestamp))
    }

    /// The last drill of a target that came to its end, by whichever broker of this store.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn last_drill(&self, target: &str) -> Result<Option<Drill>, StoreError> {
        let Some(at) = self.store.number(&drilled_name(target)).await?.map(Timestamp) else {
            return Ok(None);
        };
        let entries = self.store.entries_with(MARK, at, at + Span(1), AT_ONCE).await?;
        let mut drills = entries.iter().rev().filter_map(|entry| drilled(&entry.body));
        Ok(drills.find(|drill| drill.pair.target == target))
    }
}

/// The name under which the moment of a target's last verdict is kept.
fn drilled_name(target: &str) -> String {
    format!("drilled.{target}")
}

/// The name under which is kept when a target was last proven to kill.
fn passed_name(target: &str) -> String {
    format!("drill_passed.{target}")
}

fn drilled(body: &[u8]) -> Option<Drill> {
    match Body::parse(body).ok()?.event {
        Event::Drilled { drill } => Some(*drill),
        Event::Lease { .. }
        | Event::Task { .. }
        | Event::Decided { .. }
        | Event::Refused { .. }
        | Event::RefusedAgain { .. }
        | Event::Strangers { .. }
        | Event::Revocation { .. }
        | Event::Lifted { .. }
        | Event::Reaped { .. }
        | Event::Registry { .. }
        | Event::Broker { .. } => None,
    }
}
