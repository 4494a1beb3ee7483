//! What is durable, as the store acknowledged it to the simulation alone, and what must hold of it at every step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use leasehold::store::Change;
use leasehold_law::caller::CallerId;
use leasehold_law::id::{LeaseId, RevocationId, TaskId};
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::revocation::{Revocation, Selector};
use leasehold_law::task::{Outcome, Task, TaskState};

use crate::ground::{LIVE_AT_MOST, owner_of};
use crate::punctual::{Beat, Beats, Moment};
use crate::target::Site;
use crate::world::World;

/// The rows, and what has been said about them.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) leases: BTreeMap<LeaseId, Lease>,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    pub(crate) revocations: BTreeMap<RevocationId, Revocation>,
    /// Leases that were Active on record at some time.
    activated: BTreeSet<LeaseId>,
    /// Leases that were live when a revocation that means them was put on record.
    meant: BTreeMap<LeaseId, RevocationId>,
    /// Leases that an operator was told are revoked.
    told_revoked: BTreeSet<LeaseId>,
    /// Leases that were killed while the journal took nothing (RULES R-24): a crash forgets why, and the row says active
    /// until its end.
    killed_first: BTreeSet<LeaseId>,
    /// Heartbeats that were answered.
    pub(crate) beats: Beats,
}

/// The record of one world.
#[derive(Default)]
pub(crate) struct Record(Mutex<Rows>);

impl Record {
    pub(crate) fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These changes are durable.
    pub(crate) fn learn(&self, world: &World, changes: &[Change]) {
        let mut rows = self.rows();
        for change in changes {
            if let Change::Lease(lease) = change {
                rows.activation(world, lease);
                rows.leases.insert(lease.terms.id, (**lease).clone());
            } else if let Change::Task(task) = change {
                rows.heartbeats_count(world, task);
                rows.tasks.insert(task.terms.id, (**task).clone());
            } else if let Change::Revocation(revocation) = change {
                rows.begun(revocation);
            }
        }
        for change in changes {
            if let Change::Lease(lease) = change {
                dead_is_dead(world, lease);
                rows.within_quota(world, &lease.terms.agent);
            } else if let Change::Task(task) = change {
                rows.ended_is_over(world, task);
            }
        }
    }

    /// Something landed in a target: nothing lives there that is not on record (law 2), and no request has two
    /// credentials (RULES R-5).
    pub(crate) fn landed(&self, world: &World, site: &Site) {
        let rows = self.rows();
        let mut requests = BTreeSet::new();
        for name in site.usable().keys() {
            let row = rows.leases.values().find(|lease| lease.terms.principal.as_str() == name);
            let Some(lease) = row.filter(|lease| lease.state.is_live()) else {
                let state = row.map_or("nowhere", |lease| lease.state.name());
                world.history.wrong(format!("{name} lives in {}, and on record it is {state}", site.name));
                continue;
            };
            if !requests.insert((lease.terms.task, lease.terms.request_id.clone())) {
                let id = &lease.terms.request_id;
                world.history.wrong(format!("request {id} of {} has two credentials", lease.terms.task));
            }
        }
    }

    /// A caller holds a credential.
    pub(crate) fn handed(&self, world: &World, id: LeaseId) {
        if !self.rows().activated.contains(&id) {
            world.history.wrong(format!("{id} was handed out, and is not active on record"));
        }
    }

    /// An operator was told that these are revoked. Of what is not on record nobody promises that it outlives a crash.
    pub(crate) fn told_revoked(&self, revocation: &Revocation) {
        let mut rows = self.rows();
        if rows.revocations.contains_key(&revocation.id) {
            rows.told_revoked.extend(&revocation.leases);
        }
    }

    /// A target is told to kill this.
    pub(crate) fn killing(&self, name: &str) {
        let mut rows = self.rows();
        let killed = rows.leases.values().find(|lease| lease.terms.principal.as_str() == name);
        let killed = killed.filter(|lease| lease.state.is_usable()).map(|lease| lease.terms.id);
        rows.killed_first.extend(killed);
    }
}

impl Rows {
    fn activation(&mut self, world: &World, lease: &Lease) {
        if !lease.state.is_usable() || !self.activated.insert(lease.terms.id) {
            return;
        }
        let mut standing = self.revocations.values().filter(|revocation| revocation.is_freezing());
        // A lease that is revoked by itself is in the list that follows.
        let over =
            |selector: &Selector| !matches!(selector, Selector::Lease(_)) && self.selects(selector, lease);
        if let Some(barrier) = standing.find(|revocation| over(&revocation.selector)) {
            world
                .history
                .wrong(format!("{} became active behind the barrier {}", lease.terms.id, barrier.id));
        }
        let open = self.tasks.get(&lease.terms.task).is_some_and(|task| task.state == TaskState::Open);
        if !open {
            world.history.wrong(format!("{} became active in a task that is not open", lease.terms.id));
        }
    }

    /// A task begins with a beat, and is not lost while its beats are answered.
    fn heartbeats_count(&mut self, world: &World, task: &Task) {
        if task.state == TaskState::Open && !self.tasks.contains_key(&task.terms.id) {
            let opened = Moment::of(world, task.terms.opened_at);
            self.beats.heard(task.terms.id, Beat(opened, opened));
        } else if let Some(why) = self.beats.wrongly_lost(world, task) {
            world.history.wrong(why);
        }
    }

    /// Whether an operator who names this means that lease.
    fn selects(&self, selector: &Selector, lease: &Lease) -> bool {
        let terms = &lease.terms;
        match selector {
            Selector::Lease(id) => *id == terms.id,
            Selector::Task(id) => *id == terms.task,
            Selector::Agent(id) => *id == terms.agent,
            Selector::Owner(owner) => *owner == owner_of(&terms.agent),
            Selector::Person(person) => {
                self.tasks.get(&terms.task).is_some_and(|task| task.person() == Some(person))
            }
            Selector::Target(name) => *name == terms.pair.target,
            Selector::Intent(name) => *name == terms.pair.intent,
            Selector::Ref { key, value } => {
                self.tasks.get(&terms.task).is_some_and(|task| task.terms.refs.get(key) == Some(value))
            }
            Selector::All => true,
        }
    }

    /// A revocation is on record: whatever is live and meant by it dies, whoever must see it through.
    fn begun(&mut self, revocation: &Revocation) {
        if self.revocations.insert(revocation.id, revocation.clone()).is_none() {
            let meant = self.live().filter(|lease| self.selects(&revocation.selector, lease));
            let meant: Vec<_> = meant.map(|lease| (lease.terms.id, revocation.id)).collect();
            self.meant.extend(meant);
        }
    }

    /// What a revocation on record means, and an agent may still use.
    pub(crate) fn spared(&self) -> Vec<(LeaseId, RevocationId)> {
        let meant = self.meant.iter().filter(|(lease, _)| self.is_usable(**lease));
        meant.map(|(lease, revocation)| (*lease, *revocation)).collect()
    }

    /// No agent ever has more live leases than it may.
    fn within_quota(&self, world: &World, agent: &CallerId) {
        let live = self.live().filter(|lease| lease.terms.agent == *agent).count();
        if live > LIVE_AT_MOST {
            world.history.wrong(format!("{agent} has {live} live leases"));
        }
    }

    /// An ended task has no live lease.
    fn ended_is_over(&self, world: &World, task: &Task) {
        let TaskState::Ended { outcome, .. } = &task.state else { return };
        let mut live = self.leases.values().filter(|l| l.terms.task == task.terms.id && l.state.is_live());
        let residual = |lease: &Lease| matches!(lease.state, LeaseState::Residual { .. });
        let may_live = |lease: &Lease| *outcome == Outcome::WithResidue && residual(lease);
        if let Some(lease) = live.find(|lease| !may_live(lease)) {
            world.history.wrong(format!("{} is ended, and its {} is live", task.terms.id, lease.terms.id));
        }
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values().filter(|lease| lease.state.is_live())
    }

    /// Those that an agent may use, by what they are called in their target.
    pub(crate) fn active(&self, target: &str) -> impl Iterator<Item = (String, bool)> {
        let here = self.leases.values().filter(move |lease| lease.terms.pair.target == target);
        let usable = here.filter(|lease| lease.state.is_usable());
        usable.map(|l| (l.terms.principal.to_string(), self.killed_first.contains(&l.terms.id)))
    }

    pub(crate) fn is_usable(&self, id: LeaseId) -> bool {
        self.leases.get(&id).is_some_and(|lease| lease.state.is_usable())
    }

    /// What an operator was told is revoked, and an agent may still use.
    pub(crate) fn broken_promises(&self) -> Vec<LeaseId> {
        self.told_revoked.iter().copied().filter(|id| self.is_usable(*id)).collect()
    }
}

/// Nothing that is called dead is alive in its target.
fn dead_is_dead(world: &World, lease: &Lease) {
    let id = lease.terms.id;
    let site = world.site(&lease.terms.pair.target);
    let name = lease.terms.principal.as_str();
    let called_dead = match lease.state {
        LeaseState::Revoked { .. } => site.target.accounts().contains_key(name),
        LeaseState::Lapsed { .. } => site.usable().contains_key(name),
        LeaseState::New
        | LeaseState::Refused { .. }
        | LeaseState::Minting { .. }
        | LeaseState::Active { .. }
        | LeaseState::Renewing { .. }
        | LeaseState::Revoking { .. }
        | LeaseState::Residual { .. } => false,
    };
    if called_dead {
        world.history.wrong(format!("{id} is {}, and {name} lives in {}", lease.state.name(), site.name));
    }
}
