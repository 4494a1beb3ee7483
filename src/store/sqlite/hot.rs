//! What was written last, kept for reading: what a lease's road asks for again and again is answered without a query.
//!
//! Only the writer puts rows in, after their commit and before it is acknowledged, so that what is found here is what
//! the file holds. It is bounded, and what is not here is read from the file: nothing depends on a row being found.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

use leasehold_law::id::{LeaseId, TaskId};
use leasehold_law::lease::Lease;
use leasehold_law::request::RequestId;
use leasehold_law::subject::Subject;
use leasehold_law::task::Task;

use super::Ended;
use super::requests::Requests;
use crate::store::set::{Set, Write};

/// So many rows of a kind are kept at least once so many were written; at most twice as many. A row is about two KiB.
const KEPT: usize = 2048;
/// So many versions of subjects are kept at most. Operators make them, by config and by freezing; none is forgotten
/// while there are fewer, so that a subject that is not here has version 0.
const MAX_SUBJECTS: usize = 100_000;

/// Rows and versions, as of the last commit.
pub(super) struct Hot(RwLock<Rows>);

#[derive(Default)]
struct Rows {
    leases: Recent<LeaseId, Arc<Lease>>,
    tasks: Recent<TaskId, Arc<Task>>,
    requests: Requests,
    /// All of them, by key; `None` where they are too many, or not known.
    subjects: Option<HashMap<String, u64>>,
}

impl Hot {
    /// With the versions of all subjects, as the file holds them.
    pub(super) fn new(subjects: HashMap<String, u64>) -> Self {
        let subjects = Some(subjects).filter(|subjects| subjects.len() <= MAX_SUBJECTS);
        Self(RwLock::new(Rows { subjects, ..Rows::default() }))
    }

    /// A lease that was written lately.
    pub(super) fn lease(&self, id: LeaseId) -> Option<Arc<Lease>> {
        self.read(|rows| rows.leases.find(&id).cloned())
    }

    /// A task that was written lately.
    pub(super) fn task(&self, id: TaskId) -> Option<Arc<Task>> {
        self.read(|rows| rows.tasks.find(&id).cloned())
    }

    /// Whether it is certain that no lease of this task was requested by this id.
    pub(super) fn is_new_request(&self, task: TaskId, request: &RequestId) -> bool {
        self.read(|rows| rows.requests.is_new(task, request))
    }

    /// The versions of these subjects, where all of them are known.
    pub(super) fn versions(&self, subjects: &[Subject]) -> Option<Vec<u64>> {
        self.read(|rows| subjects.iter().map(|subject| rows.version(subject)).collect())
    }

    /// Takes in what was committed.
    pub(super) fn learn<'a>(&self, committed: impl Iterator<Item = &'a Set>) {
        let mut rows = self.0.write().unwrap_or_else(PoisonError::into_inner);
        committed.flat_map(|set| &set.writes).for_each(|write| rows.learn(write));
    }

    /// Forgets all: nobody knows what a commit that failed has left.
    pub(super) fn forget(&self) {
        let mut rows = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *rows = Rows::default();
    }

    fn read<T>(&self, look: impl FnOnce(&Rows) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Rows {
    fn version(&self, subject: &Subject) -> Option<u64> {
        match subject {
            Subject::Task(id) => self.tasks.find(id).map(|task| task.version),
            Subject::Lease(id) => self.leases.find(id).map(|lease| lease.version),
            Subject::Agent(_)
            | Subject::Agents
            | Subject::Target(_)
            | Subject::Policy
            | Subject::Freezes
            | Subject::Term(_)
            | Subject::Revocation(_) => {
                let key = serde_json::to_string(subject).ok()?;
                self.subjects.as_ref().map(|subjects| subjects.get(&key).copied().unwrap_or(0))
            }
        }
    }

    fn learn(&mut self, write: &Write) {
        match write {
            Write::Lease(row) => {
                self.requests.learn_lease(&row.lease);
                self.leases.put(row.lease.terms.id, row.lease.clone());
            }
            Write::Task(row) => {
                self.requests.learn_task(&row.task);
                self.tasks.put(row.task.terms.id, row.task.clone());
            }
            Write::Bump(key) => self.bump(key),
            Write::SetAside(aside) => self.unlearn(&aside.row.id),
            Write::Archive(Ended::Lease(id)) => self.leases.drop(id),
            Write::Archive(Ended::Task(id)) => self.tasks.drop(id),
            Write::Revocation(_)
            | Write::Agents(_)
            | Write::Digest(..)
            | Write::Number(..)
            | Write::Token(_)
            | Write::Aside(_)
            | Write::Append(_) => {}
        }
    }

    /// A row that left its table.
    fn unlearn(&mut self, id: &str) {
        if let Ok(id) = id.parse::<LeaseId>() {
            self.leases.drop(&id);
        }
        if let Ok(id) = id.parse::<TaskId>() {
            self.tasks.drop(&id);
        }
    }

    fn bump(&mut self, key: &str) {
        if let Some(subjects) = &mut self.subjects {
            *subjects.entry(key.to_owned()).or_default() += 1;
        }
        self.subjects.take_if(|subjects| subjects.len() > MAX_SUBJECTS);
    }
}

/// The values that were put last: two generations, of which the older goes when the younger is full.
struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Eq + Hash, V> Recent<K, V> {
    fn find(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    fn drop(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    fn put(&mut self, key: K, value: V) {
        if self.young.len() >= KEPT {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_last_is_found_and_no_more_than_two_generations_are_kept() {
        let mut recent = Recent::default();
        (0..10 * KEPT).for_each(|n| recent.put(n, n));
        assert!(recent.young.len() + recent.old.len() <= 2 * KEPT);
        assert!((9 * KEPT + 1..10 * KEPT).all(|n| recent.find(&n) == Some(&n)));
        assert_eq!(recent.find(&0), None);
    }

    #[test]
    fn a_newer_value_hides_the_older_one() {
        let mut recent = Recent::default();
        recent.put(0, "old");
        (1..=KEPT).for_each(|n| recent.put(n, "other"));
        recent.put(0, "new");
        assert_eq!(recent.find(&0), Some(&"new"));
    }
}
