//! Rows that some read met and could not read: each is told once, counted until it is set aside or mended, and hides
//! none of the rows beside it (law 9).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::de::DeserializeOwned;

use super::AsideKind;

/// So many are told apart; beyond that they count no higher.
const MOST: usize = 10_000;

/// What was met, with what was wrong.
type Met = BTreeMap<(AsideKind, String), String>;

/// The bad rows that a store's readers have met.
#[derive(Default)]
pub(super) struct BadRows(Mutex<Met>);

impl BadRows {
    /// What a body says; `None` for one that cannot be read, which is noted.
    pub(super) fn parse<T: DeserializeOwned>(&self, kind: AsideKind, id: &str, body: &[u8]) -> Option<T> {
        match serde_json::from_slice(body) {
            Ok(value) => Some(value),
            Err(error) => {
                self.note(kind, id, &error.to_string());
                None
            }
        }
    }

    /// Remembers a bad row, once, until it is forgotten.
    pub(super) fn note(&self, kind: AsideKind, id: &str, error: &str) {
        let mut met = self.lock();
        let key = (kind, id.to_owned());
        if met.len() < MOST && !met.contains_key(&key) {
            tracing::error!(row = id, error, "a {} cannot be read and is set aside", kind.name());
            met.insert(key, error.to_owned());
        }
    }

    /// Those that were met and are not forgotten yet.
    pub(super) fn all(&self) -> Vec<(AsideKind, String, String)> {
        self.lock().iter().map(|((kind, id), error)| (*kind, id.clone(), error.clone())).collect()
    }

    /// How many they are.
    pub(super) fn count(&self) -> u64 {
        u64::try_from(self.lock().len()).unwrap_or(u64::MAX)
    }

    /// Forgets one that is there no more.
    pub(super) fn forget(&self, kind: AsideKind, id: &str) {
        self.lock().remove(&(kind, id.to_owned()));
    }

    fn lock(&self) -> MutexGuard<'_, Met> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_row_is_counted_once_until_it_is_forgotten() {
        let bad = BadRows::default();
        assert_eq!(bad.parse::<u8>(AsideKind::Task, "task_1", b"7"), Some(7));
        for _ in 0..2 {
            assert_eq!(bad.parse::<u8>(AsideKind::Lease, "lease_1", b"{"), None);
        }
        assert_eq!((bad.count(), bad.all().len()), (1, 1));
        bad.forget(AsideKind::Lease, "lease_1");
        assert_eq!(bad.count(), 0);
    }
}
