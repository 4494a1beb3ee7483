//! What is done to registrations of agents: rows, entries and the version of all of them, in one transaction.

use std::collections::BTreeMap;

use leasehold_law::journal::Event;
use leasehold_law::registry::{Act, Entry};
use leasehold_law::subject::{Guard, Subject};

use super::entry::about_nothing;
use super::{Ledger, LedgerError};
use crate::store::Change;

/// One registration as it stands after something was done to it.
#[derive(Clone, Debug)]
pub struct Registering {
    /// What is kept of it.
    pub entry: Entry,
    /// What was done.
    pub act: Act,
    /// Who did it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// More, for the journal.
    pub details: BTreeMap<String, String>,
}

impl Ledger {
    /// Writes registrations, all or none. Where decisions may rest on what changes, they no longer stand.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] where registrations have changed since `guard` was read; or where it cannot be written.
    pub async fn record_registrations(
        &self,
        changed: Vec<Registering>,
        guard: Guard,
    ) -> Result<(), LedgerError> {
        // What an agent says of itself is no change of its registration: it must not make others' decisions stale.
        let decides = changed.iter().any(|one| one.act != Act::Drifted);
        let mut changes = Vec::with_capacity(2 * changed.len() + 1);
        for Registering { entry, act, by, reason, details } in changed {
            let who = entry.who.clone();
            let subject = who.to_string();
            let event = Event::Registry { who, act, by, reason, details };
            let draft = about_nothing(&subject, None, event, self.clock.now())?;
            changes.extend([Change::Agents(Box::new(entry)), Change::Append(draft)]);
        }
        changes.extend(decides.then_some(Change::Bump(Subject::Agents)));
        self.commit(changes, vec![guard]).await
    }
}
