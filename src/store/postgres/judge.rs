//! Which sets of a batch still hold, against what the database has and what the sets before them make of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use leasehold_law::lease::LeaseTerms;
use leasehold_law::subject::Subject;

use super::super::set::{LeaseRow, Place, Set, Write, signed};
use super::super::{AsideKind, BadRow, Ceiling, Counted, Outcome, StoreError};

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
    /// Whose live leases are counted: nobody else who counts them may add one meanwhile.
    pub(super) counts: BTreeSet<String>,
    /// Rows that are set aside, if they are what was read.
    pub(super) asides: BTreeMap<AsideKind, Vec<String>>,
}

/// Under what the live leases of a ceiling are counted.
fn holders(ceiling: &Ceiling) -> Vec<String> {
    match &ceiling.counted {
        Counted::Target(name) => vec![of_target(name)],
        Counted::Agents(agents) => agents.iter().map(|agent| of_agent(&agent.to_string())).collect(),
    }
}

fn of_agent(agent: &str) -> String {
    format!("agent:{agent}")
}

fn of_target(name: &str) -> String {
    format!("target:{name}")
}

/// Under what a lease is counted while it is live.
fn counted_under(terms: &LeaseTerms) -> [String; 2] {
    [of_agent(&terms.agent.to_string()), of_target(&terms.pair.target)]
}

impl Needs {
    /// Of these sets, together.
    pub(super) fn of(sets: &[Set]) -> Self {
        let mut needs = Self::default();
        for set in sets {
            set.checks.iter().for_each(|check| needs.add(check.place.clone(), false));
            set.writes.iter().for_each(|write| needs.add_write(write));
            needs.counts.extend(set.ceilings.iter().flat_map(holders));
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
            Write::SetAside(aside) => self.add_aside(&aside.row),
            Write::Revocation(_)
            | Write::Agents(_)
            | Write::Number(..)
            | Write::Token(_)
            | Write::Aside(_)
            | Write::Archive(_)
            | Write::Append(_) => {}
        }
    }

    /// Held as what is written is.
    fn add_aside(&mut self, row: &BadRow) {
        match row.kind {
            AsideKind::Lease => self.leases.push(row.id.clone()),
            AsideKind::Task => self.add(Place::Task(row.id.clone()), true),
            AsideKind::Revocation => {}
            AsideKind::Orphan => return,
        }
        self.asides.entry(row.kind).or_default().push(row.id.clone());
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

/// What is so of all that a batch touches, and what its sets make of it.
#[derive(Default)]
pub(super) struct Known {
    /// Versions; 0 for what does not exist.
    pub(super) versions: HashMap<Place, i64>,
    /// Whether a lease is live.
    pub(super) live: HashMap<String, bool>,
    /// How many live leases were counted under a name before the batch.
    pub(super) counts: HashMap<String, i64>,
    /// By how much the sets that hold change that.
    pub(super) moved: BTreeMap<String, i64>,
    /// Rows that are set aside if they are what was read, as they are.
    pub(super) held: HashMap<(AsideKind, String), HeldRow>,
}

/// A row that may be set aside.
pub(super) struct HeldRow {
    pub(super) body: String,
    /// The agent and the target that a live lease is counted under, by its columns.
    pub(super) counted: Option<(String, String)>,
}

/// What one set makes of it.
#[derive(Default)]
struct Made {
    versions: HashMap<Place, i64>,
    live: HashMap<String, bool>,
    moved: BTreeMap<String, i64>,
    /// What is no longer as it was held.
    changed: BTreeSet<(AsideKind, String)>,
}

impl Known {
    /// The version of a place as it would be now.
    pub(super) fn version(&self, place: &Place) -> i64 {
        self.versions.get(place).copied().unwrap_or(0)
    }

    /// Whether a set still holds; where it does, what it writes counts for those behind it.
    ///
    /// # Errors
    /// What its caller is told: the first subject that has another version, or the first ceiling that is reached.
    pub(super) fn admit(&mut self, set: &Set) -> Result<(), Outcome> {
        if let Some(stale) = set.checks.iter().find(|check| self.version(&check.place) != check.version) {
            return Err(Outcome::Stale(stale.subject.clone()));
        }
        if let Some(full) = set.ceilings.iter().find(|ceiling| self.count(ceiling) >= signed(ceiling.most)) {
            return Err(Outcome::Full(Box::new(full.clone())));
        }
        let made = self.try_write(set)?;
        made.changed.iter().for_each(|key| drop(self.held.remove(key)));
        self.versions.extend(made.versions);
        self.live.extend(made.live);
        for (holder, moved) in made.moved {
            *self.moved.entry(holder).or_default() += moved;
        }
        Ok(())
    }

    fn count(&self, ceiling: &Ceiling) -> i64 {
        let of = |holder: &String| {
            self.counts.get(holder).copied().unwrap_or(0) + self.moved.get(holder).copied().unwrap_or(0)
        };
        holders(ceiling).iter().map(of).sum()
    }

    fn try_write(&self, set: &Set) -> Result<Made, Outcome> {
        let mut made = Made::default();
        for write in &set.writes {
            if let Write::SetAside(aside) = write {
                self.take(&mut made, &aside.row)?;
            }
            if !self.held.is_empty() {
                made.changed.extend(written(write));
            }
            let Some((place, version, subject)) = moved(write) else { continue };
            let before = made.versions.get(&place).copied().unwrap_or_else(|| self.version(&place));
            match (version, subject) {
                (Some(version), Some(subject)) if version != before + 1 => {
                    return Err(Outcome::Stale(subject));
                }
                (Some(_) | None, _) => made.versions.insert(place, before + 1),
            };
            if let Write::Lease(row) = write {
                self.count_lease(&mut made, row);
            }
        }
        Ok(made)
    }

    /// Moves a row out of its table, if it is still the one that was read: it has no version then, and counts no more.
    fn take(&self, made: &mut Made, row: &BadRow) -> Result<(), Outcome> {
        if row.kind == AsideKind::Orphan {
            return Ok(());
        }
        let key = (row.kind, row.id.clone());
        let held = self.held.get(&key).filter(|held| held.body.as_bytes() == row.bytes);
        let Some(held) = held.filter(|_| !made.changed.contains(&key)) else {
            let what = format!("the {} `{}` is not what it was", row.kind.name(), row.id);
            return Err(Outcome::Failed(StoreError::Unreadable(what)));
        };
        if let Some((agent, target)) = &held.counted {
            *made.moved.entry(of_agent(agent)).or_default() -= 1;
            *made.moved.entry(of_target(target)).or_default() -= 1;
        }
        match row.kind {
            AsideKind::Lease => {
                made.live.insert(row.id.clone(), false);
                made.versions.insert(Place::Lease(row.id.clone()), 0);
            }
            AsideKind::Task => drop(made.versions.insert(Place::Task(row.id.clone()), 0)),
            AsideKind::Revocation | AsideKind::Orphan => {}
        }
        made.changed.insert(key);
        Ok(())
    }

    fn count_lease(&self, made: &mut Made, row: &LeaseRow) {
        let id = row.lease.terms.id.to_string();
        let was = made.live.get(&id).or_else(|| self.live.get(&id)).copied().unwrap_or(false);
        let is = row.due.is_some();
        if was != is {
            for holder in counted_under(&row.lease.terms) {
                *made.moved.entry(holder).or_default() += if is { 1 } else { -1 };
            }
        }
        made.live.insert(id, is);
    }
}

/// The row that a write leaves in a table from which one may be set aside.
fn written(write: &Write) -> Option<(AsideKind, String)> {
    match write {
        Write::Lease(row) => Some((AsideKind::Lease, row.lease.terms.id.to_string())),
        Write::Task(row) => Some((AsideKind::Task, row.task.terms.id.to_string())),
        Write::Revocation(row) => Some((AsideKind::Revocation, row.id.clone())),
        Write::Bump(_)
        | Write::Agents(_)
        | Write::Digest(..)
        | Write::Number(..)
        | Write::Token(_)
        | Write::SetAside(_)
        | Write::Aside(_)
        | Write::Archive(_)
        | Write::Append(_) => None,
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
        Write::Digest(..)
        | Write::Revocation(_)
        | Write::Agents(_)
        | Write::Number(..)
        | Write::Token(_)
        | Write::SetAside(_)
        | Write::Aside(_)
        | Write::Archive(_)
        | Write::Append(_) => None,
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
        Set::prepare(changes, guards.into_iter().collect(), vec![]).unwrap()
    }

    #[test]
    fn a_set_counts_for_those_behind_it() {
        let mut known = Known::default();
        let (first, second) = (minting(1, 1), active(&minting(1, 1)));
        let bump = || vec![Change::Bump(Subject::Policy)];
        assert_eq!(
            known.admit(&set(vec![lease_change(&second)], None)),
            Err(Outcome::Stale(Subject::Lease(first.terms.id)))
        );
        assert_eq!(known.admit(&set(vec![lease_change(&first)], Some(0))), Ok(()));
        assert_eq!(
            known.admit(&set(vec![lease_change(&first)], None)),
            Err(Outcome::Stale(Subject::Lease(first.terms.id)))
        );
        assert_eq!(known.admit(&set(bump(), Some(0))), Ok(()));
        assert_eq!(known.admit(&set(bump(), Some(0))), Err(Outcome::Stale(Subject::Policy)));
        assert_eq!(known.admit(&set(vec![lease_change(&second)], Some(1))), Ok(()));
    }

    #[test]
    fn a_set_that_does_not_hold_leaves_nothing() {
        let mut known = Known::default();
        let changes = vec![Change::Bump(Subject::Policy), lease_change(&active(&minting(1, 1)))];
        assert!(known.admit(&set(changes, None)).is_err());
        assert_eq!(known.version(&Place::of(&Subject::Policy).unwrap()), 0);
    }

    #[test]
    fn what_is_written_and_compared_is_taken_for_oneself() {
        let needs = Needs::of(&[set(vec![Change::Bump(Subject::Policy)], None), set(vec![], Some(1))]);
        assert_eq!(needs.locks.into_values().collect::<Vec<_>>(), [true]);
    }
}
