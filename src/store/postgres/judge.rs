//! Which sets of a batch still hold, against what the database has and what the sets before them make of it.

use std::collections::{BTreeMap, HashMap};

use leasehold_law::subject::Subject;

use super::super::set::{Place, Set, Write, signed};

/// What a batch must know before it may write.
#[derive(Default)]
pub(super) struct Needs {
    /// What is compared or made: taken in the database before it is read; true where it is taken for oneself.
    pub(super) locks: BTreeMap<Place, bool>,
    /// Leases whose rows are read, and held.
    pub(super) leases: Vec<String>,
    /// Tasks whose versions are read.
    pub(super) tasks: Vec<String>,
    /// Subjects whose versions are read.
    pub(super) subjects: Vec<String>,
}

impl Needs {
    /// Of these sets, together.
    pub(super) fn of(sets: &[Set]) -> Self {
        let mut needs = Self::default();
        for set in sets {
            set.checks.iter().for_each(|check| needs.add(check.place.clone(), false));
            set.writes.iter().for_each(|write| needs.add_write(write));
        }
        needs.leases.sort_unstable();
        needs.leases.dedup();
        needs.read_what_is_locked();
        needs
    }

    fn add(&mut self, place: Place, alone: bool) {
        if let Place::Lease(id) = &place {
            self.leases.push(id.clone());
        }
        *self.locks.entry(place).or_default() |= alone;
    }

    /// A lease that exists is held by its row. One that is being made has none: it is held by its key, as tasks and
    /// subjects are.
    fn add_write(&mut self, write: &Write) {
        match write {
            Write::Lease(row) if row.lease.version > 1 => self.leases.push(row.lease.terms.id.to_string()),
            Write::Lease(row) => self.add(Place::Lease(row.lease.terms.id.to_string()), true),
            Write::Task(row) => self.add(Place::Task(row.task.terms.id.to_string()), true),
            Write::Bump(key) | Write::Digest(key, _) => self.add(Place::Subject(key.clone()), true),
            Write::Revocation(_) | Write::Number(..) | Write::Append(_) => {}
        }
    }

    fn read_what_is_locked(&mut self) {
        for place in self.locks.keys() {
            match place {
                Place::Task(id) => self.tasks.push(id.clone()),
                Place::Subject(key) => self.subjects.push(key.clone()),
                Place::Lease(_) => {}
            }
        }
    }
}

/// The versions of all that a batch touches; 0 for what does not exist.
#[derive(Default)]
pub(super) struct Versions(pub(super) HashMap<Place, i64>);

impl Versions {
    /// The version of a place as it would be now.
    pub(super) fn of(&self, place: &Place) -> i64 {
        self.0.get(place).copied().unwrap_or(0)
    }

    /// Whether a set still holds; where it does, what it writes counts for those behind it.
    ///
    /// # Errors
    /// The first subject that has another version.
    pub(super) fn admit(&mut self, set: &Set) -> Result<(), Subject> {
        if let Some(stale) = set.checks.iter().find(|check| self.of(&check.place) != check.version) {
            return Err(stale.subject.clone());
        }
        let mut made: HashMap<Place, i64> = HashMap::new();
        for write in &set.writes {
            let Some((place, version, subject)) = moved(write) else { continue };
            let before = made.get(&place).copied().unwrap_or_else(|| self.of(&place));
            match (version, subject) {
                (Some(version), Some(subject)) if version != before + 1 => return Err(subject),
                (Some(_) | None, _) => made.insert(place, before + 1),
            };
        }
        self.0.extend(made);
        Ok(())
    }
}

/// Where a write moves a version, and for rows to which one.
fn moved(write: &Write) -> Option<(Place, Option<i64>, Option<Subject>)> {
    match write {
        Write::Lease(row) => {
            let id = row.lease.terms.id;
            Some((Place::Lease(id.to_string()), Some(signed(row.lease.version)), Some(Subject::Lease(id))))
        }
        Write::Task(row) => {
            let id = row.task.terms.id;
            Some((Place::Task(id.to_string()), Some(signed(row.task.version)), Some(Subject::Task(id))))
        }
        Write::Bump(key) => Some((Place::Subject(key.clone()), None, None)),
        Write::Digest(..) | Write::Revocation(_) | Write::Number(..) | Write::Append(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use leasehold_law::subject::Guard;

    use super::*;
    use crate::store::Change;
    use crate::store::suite::samples::{active, lease_change, minting};

    fn set(changes: Vec<Change>, policy: Option<u64>) -> Set {
        let guards = policy.map(|version| Guard { subject: Subject::Policy, version });
        Set::prepare(changes, guards.into_iter().collect()).unwrap()
    }

    #[test]
    fn a_set_counts_for_those_behind_it() {
        let mut versions = Versions::default();
        let (first, second) = (minting(1, 1), active(&minting(1, 1)));
        let bump = || vec![Change::Bump(Subject::Policy)];
        assert_eq!(
            versions.admit(&set(vec![lease_change(&second)], None)),
            Err(Subject::Lease(first.terms.id))
        );
        assert_eq!(versions.admit(&set(vec![lease_change(&first)], Some(0))), Ok(()));
        assert_eq!(
            versions.admit(&set(vec![lease_change(&first)], None)),
            Err(Subject::Lease(first.terms.id))
        );
        assert_eq!(versions.admit(&set(bump(), Some(0))), Ok(()));
        assert_eq!(versions.admit(&set(bump(), Some(0))), Err(Subject::Policy));
        assert_eq!(versions.admit(&set(vec![lease_change(&second)], Some(1))), Ok(()));
    }

    #[test]
    fn a_set_that_does_not_hold_leaves_nothing() {
        let mut versions = Versions::default();
        let changes = vec![Change::Bump(Subject::Policy), lease_change(&active(&minting(1, 1)))];
        assert!(versions.admit(&set(changes, None)).is_err());
        assert_eq!(versions.of(&Place::of(&Subject::Policy).unwrap()), 0);
    }

    #[test]
    fn what_is_written_and_compared_is_taken_for_oneself() {
        let needs = Needs::of(&[set(vec![Change::Bump(Subject::Policy)], None), set(vec![], Some(1))]);
        assert_eq!(needs.locks.into_values().collect::<Vec<_>>(), [true]);
    }
}
