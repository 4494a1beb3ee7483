//! What a start makes of its config: each subject that is not as it was gets its next version, once.
//!
//! Brokers that share a store may start at the same moment with different config. What a broker takes for its own
//! versions is therefore what it read before it wrote, and one more for what it wrote under that guard; it never reads
//! them again, or it could take another broker's for its own.

use std::collections::BTreeMap;

use leasehold_law::journal::Event;
use leasehold_law::subject::{Guard, Subject};

use super::entry::about_nothing;
use super::{Ledger, LedgerError};
use crate::store::Change;

/// How often it is looked again when another broker's start comes between the look and the record.
const TRIES: usize = 16;

/// What is remembered of a subject that has left the config.
const GONE: &str = "gone";

/// A config, and how it differs from what the store remembers: the versions are as of that look.
#[derive(Clone, Debug)]
pub struct ConfigLook {
    versions: BTreeMap<Subject, u64>,
    changed: Vec<(Subject, String)>,
}

/// A config that is on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigOnRecord {
    /// The versions that this config stands for. Where another broker has moved one since, what rests on it is stale.
    pub versions: BTreeMap<Subject, u64>,
    /// What was not as it was, with what has left the config.
    pub changed: Vec<Subject>,
}

impl ConfigLook {
    fn guards(&self) -> Vec<Guard> {
        let version = |subject: &Subject| self.versions.get(subject).copied();
        let guard = |subject: &Subject| Some(Guard { version: version(subject)?, subject: subject.clone() });
        self.changed.iter().filter_map(|(subject, _)| guard(subject)).collect()
    }

    fn recorded(mut self) -> ConfigOnRecord {
        let changed: Vec<_> = self.changed.into_iter().map(|(subject, _)| subject).collect();
        for subject in &changed {
            if let Some(version) = self.versions.get_mut(subject) {
                *version = version.saturating_add(1);
            }
        }
        ConfigOnRecord { versions: self.versions, changed }
    }
}

impl Ledger {
    /// Looks at what the store remembers of a config, by the digest of each subject, and records what differs.
    ///
    /// # Errors
    /// Where it cannot be read or written, or other brokers keep coming between.
    pub async fn settle_config(
        &self,
        digests: &BTreeMap<Subject, String>,
    ) -> Result<ConfigOnRecord, LedgerError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_settle(digests).await {
                Err(LedgerError::Stale(_)) if tries < TRIES => {}
                settled => return settled,
            }
        }
    }

    async fn try_settle(&self, digests: &BTreeMap<Subject, String>) -> Result<ConfigOnRecord, LedgerError> {
        let look = self.look_at_config(digests).await?;
        self.record_config(look).await
    }

    /// How a config differs from what the store remembers.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] where another broker records its own meanwhile; or where the store cannot be read.
    pub async fn look_at_config(
        &self,
        digests: &BTreeMap<Subject, String>,
    ) -> Result<ConfigLook, LedgerError> {
        let subjects: Vec<_> = digests.keys().cloned().collect();
        // Before the digests and after them: what lies between two equal versions belongs to that version.
        let before = self.store.versions(&subjects).await?;
        let known: BTreeMap<Subject, String> = self.store.digests().await?.into_iter().collect();
        let after = self.store.versions(&subjects).await?;
        let moved =
            subjects.iter().zip(before.iter().zip(&after)).find(|(_, (before, after))| before != after);
        if let Some((subject, _)) = moved {
            return Err(LedgerError::Stale(subject.clone()));
        }
        let versions = subjects.into_iter().zip(before).collect();
        Ok(ConfigLook { versions, changed: differences(&known, digests) })
    }

    /// Gives what differs its next versions, in one transaction with its entry.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] where another broker has recorded its own since the look; or where it cannot be written.
    pub async fn record_config(&self, look: ConfigLook) -> Result<ConfigOnRecord, LedgerError> {
        if look.changed.is_empty() {
            return Ok(look.recorded());
        }
        let details =
            look.changed.iter().map(|(subject, digest)| (subject.to_string(), digest.clone())).collect();
        let event = Event::Broker { what: "configured".to_owned(), details };
        let draft = about_nothing("config", None, event, self.clock.now())?;
        let changes =
            look.changed.iter().cloned().flat_map(|(subject, digest)| {
                [Change::Bump(subject.clone()), Change::Digest(subject, digest)]
            });
        self.commit(changes.chain([Change::Append(draft)]).collect(), look.guards()).await?;
        Ok(look.recorded())
    }
}

/// Every subject whose digest is not the known one, and those that are gone, with the digest to remember.
fn differences(
    known: &BTreeMap<Subject, String>,
    digests: &BTreeMap<Subject, String>,
) -> Vec<(Subject, String)> {
    let new = digests.iter().filter(|(subject, digest)| known.get(subject) != Some(*digest));
    let new = new.map(|(subject, digest)| (subject.clone(), digest.clone()));
    let gone =
        known.iter().filter(|(subject, digest)| !digests.contains_key(subject) && digest.as_str() != GONE);
    new.chain(gone.map(|(subject, _)| (subject.clone(), GONE.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_changed_or_gone_differs_once() {
        let of = |pairs: &[(&str, &str)]| -> BTreeMap<Subject, String> {
            pairs.iter().map(|(name, digest)| (Subject::Target((*name).into()), (*digest).into())).collect()
        };
        let differ = |known: &[(&str, &str)], digests: &[(&str, &str)], expect: &[(&str, &str)]| {
            let found: BTreeMap<_, _> = differences(&of(known), &of(digests)).into_iter().collect();
            assert_eq!(found, of(expect));
        };
        differ(&[], &[("a", "1")], &[("a", "1")]);
        differ(&[("a", "1")], &[("a", "1")], &[]);
        differ(&[("a", "1"), ("b", "1")], &[("a", "2")], &[("a", "2"), ("b", GONE)]);
        differ(&[("b", GONE)], &[], &[]);
        differ(&[("b", GONE)], &[("b", "1")], &[("b", "1")]);
    }
}
