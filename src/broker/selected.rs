//! What a selector takes: its live leases, a page at a time, since all of them need not fit in memory.

use std::sync::Arc;

use leasehold_law::caller::CallerId;
use leasehold_law::catalog::Owner;
use leasehold_law::id::{LeaseId, TaskId};
use leasehold_law::lease::Lease;
use leasehold_law::revocation::Selector;
use leasehold_law::task::{Task, TaskState};

use super::Inner;
use super::aside::lease_of;
use super::refused::Refused;
use crate::near::likest;
use crate::registry::Registry;
use crate::store::{AsideFilter, AsideKind, BadRow, LeaseFilter, Store, StoreError, TaskFilter};

/// How many leases are read at a time.
const PAGE: usize = 512;

/// A walk over live leases, newest first. One that is made after the walk began is not met: a barrier keeps it away, or
/// it is none of the walk's.
pub(super) struct Walk {
    filters: Vec<LeaseFilter>,
    /// Whose leases are kept of those that the filters find: an owner's, whose agents cannot be listed by name.
    kept: Option<Kept>,
}

struct Kept {
    registry: Arc<Registry>,
    owner: Owner,
}

impl Walk {
    /// The next page; an empty one is the end.
    pub(super) async fn next(&mut self, store: &dyn Store) -> Result<Vec<Lease>, StoreError> {
        while let Some(filter) = self.filters.last_mut() {
            let mut page = store.leases(filter, PAGE).await?;
            let Some(last) = page.last() else {
                self.filters.pop();
                continue;
            };
            filter.before = Some(last.terms.id);
            if let Some(Kept { registry, owner }) = &self.kept {
                page.retain(|lease| registry.owner(&lease.terms.agent) == Some(owner));
            }
            if !page.is_empty() {
                return Ok(page);
            }
        }
        Ok(Vec::new())
    }
}

impl Inner {
    /// A walk over what a selector takes. An owner's leases are those of the agents that are registered as theirs now.
    pub(super) fn walk(&self, selector: &Selector) -> Walk {
        let live = LeaseFilter { live: true, ..LeaseFilter::default() };
        let filter = match selector.clone() {
            Selector::Lease(id) => LeaseFilter { id: Some(id), ..live },
            Selector::Task(id) => LeaseFilter { task: Some(id), ..live },
            Selector::Agent(id) => LeaseFilter { agent: Some(id), ..live },
            Selector::Owner(owner) => {
                let registry = self.registry.load_full();
                if registry.owns_patterns(&owner) {
                    let kept = Some(Kept { registry, owner });
                    return Walk { filters: vec![live], kept };
                }
                let of = |id| LeaseFilter { agent: Some(id), ..live.clone() };
                let agents = registry.named_agents_of(&owner).into_iter();
                return Walk { filters: agents.map(of).collect(), kept: None };
            }
            Selector::Person(person) => LeaseFilter { person: Some(person), ..live },
            Selector::Target(target) => LeaseFilter { target: Some(target), ..live },
            Selector::Intent(intent) => LeaseFilter { intent: Some(intent), ..live },
            Selector::Ref { key, value } => LeaseFilter { reference: Some((key, value)), ..live },
            Selector::All => live,
        };
        Walk { filters: vec![filter], kept: None }
    }

    /// The leases whose rows cannot be read, or were set aside for that, that are not proven gone and may be among the
    /// selected: they die by their plain columns, whatever is selected, and whoever asks whether all is dead waits for
    /// them too. Read after the selected, since what cannot be read is known once something met it.
    pub(super) async fn unread(&self, selector: &Selector) -> Result<Vec<LeaseId>, StoreError> {
        let store = self.ledger.store();
        let met = store.unreadable(usize::MAX).await?;
        let met = met.into_iter().filter(|row| row.kind == AsideKind::Lease);
        let alive = AsideFilter { alive: true, ..AsideFilter::default() };
        let set_aside = store.asides(&alive, usize::MAX).await?.into_iter().map(|aside| aside.row);
        let mut found = Vec::new();
        for row in met.chain(set_aside) {
            if self.may_be_selected(selector, &row).await {
                found.extend(lease_of(&row));
            }
        }
        Ok(found)
    }

    /// Whether a selector may mean what a row stands for, as far as its plain columns and its task tell.
    async fn may_be_selected(&self, selector: &Selector, row: &BadRow) -> bool {
        match selector {
            Selector::All => true,
            Selector::Target(name) => row.target == *name || row.target.is_empty(),
            Selector::Lease(id) => lease_of(row) == Some(*id),
            // A principal that no row explains is nobody's in particular.
            Selector::Task(_)
            | Selector::Agent(_)
            | Selector::Owner(_)
            | Selector::Person(_)
            | Selector::Intent(_)
            | Selector::Ref { .. }
                if row.kind == AsideKind::Orphan =>
            {
                false
            }
            Selector::Intent(_) => true,
            Selector::Task(_)
            | Selector::Agent(_)
            | Selector::Owner(_)
            | Selector::Person(_)
            | Selector::Ref { .. } => {
                let Ok(id) = row.task.parse() else { return true };
                let Ok(Some(task)) = self.ledger.store().task(id).await else { return true };
                let registry = self.registry.load_full();
                selector.covers(&registry.reach(&task.terms.agent, Some(&task), None))
            }
        }
    }

    /// The open tasks that a selector ends by themselves, whether they hold a lease or none: those of a person.
    pub(super) async fn tasks_of(&self, selector: &Selector) -> Result<Vec<Task>, StoreError> {
        let Selector::Person(person) = selector else { return Ok(Vec::new()) };
        let filter = TaskFilter { person: Some(person.clone()), live: true, ..TaskFilter::default() };
        let mut tasks = self.ledger.store().tasks(&filter, usize::MAX).await?;
        tasks.retain(|task| task.state == TaskState::Open);
        Ok(tasks)
    }

    /// Every live lease of a task: as many as its own agent asked for.
    pub(super) async fn live_of_task(&self, task: TaskId) -> Result<Vec<Lease>, StoreError> {
        let filter = LeaseFilter { task: Some(task), live: true, ..LeaseFilter::default() };
        self.ledger.store().leases(&filter, usize::MAX).await
    }

    /// Whether there is, or may come to be, anything that a selector takes. What only config can name must be known to
    /// it or be alive: an operator who mistypes a target must not be told that all of it is dead.
    pub(super) async fn require_selected(&self, selector: &Selector) -> Result<(), Refused> {
        let store = self.ledger.store();
        let registry = self.registry.load_full();
        let known = match selector {
            Selector::Lease(id) => is_there(store.lease(*id).await)?,
            Selector::Task(id) => is_there(store.task(*id).await)?,
            // Nobody need be registered, and no task be open, to be frozen: the barrier may come first.
            Selector::Agent(_) | Selector::Person(_) | Selector::Ref { .. } | Selector::All => true,
            Selector::Owner(_) | Selector::Target(_) | Selector::Intent(_) => {
                registry.names(selector) || !self.walk(selector).next(store).await?.is_empty()
            }
        };
        if known || !self.unread(selector).await?.is_empty() {
            return Ok(());
        }
        Err(Refused::not_found("match for", selector))
    }
}

/// How many names are told in the place of one that nobody knows.
const LIKEST: usize = 3;

impl Inner {
    /// Of an agent that is not registered, and of which no task is kept: the names of registered ones that are likest to
    /// it. It may be frozen all the same, before it comes; a slip of the finger looks just like that.
    pub(super) async fn unknown_agent(&self, selector: &Selector) -> Result<Option<Vec<String>>, Refused> {
        let Selector::Agent(id) = selector else { return Ok(None) };
        let registry = self.registry.load_full();
        let its_tasks = TaskFilter { agent: Some(id.clone()), ..TaskFilter::default() };
        let found = self.ledger.store().tasks(&its_tasks, 1).await.map(|tasks| tasks.into_iter().next());
        if registry.knows(id) || *id == CallerId::Drill || is_there(found)? {
            return Ok(None);
        }
        let named = registry.named_agents().into_iter().map(ToString::to_string);
        Ok(Some(likest(&id.to_string(), named, LIKEST)))
    }
}

/// What cannot be read is there.
fn is_there<T>(read: Result<Option<T>, StoreError>) -> Result<bool, StoreError> {
    match read {
        Err(StoreError::Unreadable(_)) => Ok(true),
        read => Ok(read?.is_some()),
    }
}

impl Registry {
    /// Whether operators defined what a selector names.
    fn names(&self, selector: &Selector) -> bool {
        use leasehold_law::catalog::Owner;
        let catalog = self.catalog();
        match selector {
            Selector::Owner(Owner::Person(name)) => catalog.people.contains_key(name),
            Selector::Owner(Owner::Group(name)) => catalog.groups.contains_key(name),
            Selector::Owner(Owner::Broker) => !catalog.drills.is_empty(),
            Selector::Target(name) => catalog.targets.contains_key(name),
            Selector::Intent(name) => catalog.intents.contains_key(name),
            Selector::Lease(_)
            | Selector::Task(_)
            | Selector::Agent(_)
            | Selector::Person(_)
            | Selector::Ref { .. }
            | Selector::All => false,
        }
    }
}
