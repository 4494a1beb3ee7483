//! What a selector takes: its live leases, a page at a time, since all of them need not fit in memory.

use leasehold_law::id::TaskId;
use leasehold_law::lease::Lease;
use leasehold_law::revocation::Selector;

use super::Inner;
use super::refused::Refused;
use crate::registry::Registry;
use crate::store::{LeaseFilter, Store, StoreError};

/// How many leases are read at a time.
const PAGE: usize = 512;

/// A walk over live leases, newest first. One that is made after the walk began is not met: a barrier keeps it away, or
/// it is none of the walk's.
pub(super) struct Walk {
    filters: Vec<LeaseFilter>,
}

impl Walk {
    /// The next page; an empty one is the end.
    pub(super) async fn next(&mut self, store: &dyn Store) -> Result<Vec<Lease>, StoreError> {
        while let Some(filter) = self.filters.last_mut() {
            let page = store.leases(filter, PAGE).await?;
            if let Some(last) = page.last() {
                filter.before = Some(last.terms.id);
                return Ok(page);
            }
            self.filters.pop();
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
                let agents = registry.catalog().agents.values().filter(|agent| agent.owner == owner);
                let of = |id| LeaseFilter { agent: Some(id), ..live.clone() };
                return Walk { filters: agents.map(|agent| of(agent.id.clone())).collect() };
            }
            Selector::Target(target) => LeaseFilter { target: Some(target), ..live },
            Selector::Intent(intent) => LeaseFilter { intent: Some(intent), ..live },
            Selector::Ref { key, value } => LeaseFilter { reference: Some((key, value)), ..live },
            Selector::All => live,
        };
        Walk { filters: vec![filter] }
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
            Selector::Lease(id) => store.lease(*id).await?.is_some(),
            Selector::Task(id) => store.task(*id).await?.is_some(),
            // Nobody need be registered, and no task be open, to be frozen: the barrier may come first.
            Selector::Agent(_) | Selector::Ref { .. } | Selector::All => true,
            Selector::Owner(_) | Selector::Target(_) | Selector::Intent(_) => {
                registry.names(selector) || !self.walk(selector).next(store).await?.is_empty()
            }
        };
        if known { Ok(()) } else { Err(Refused::not_found("match for", selector)) }
    }
}

impl Registry {
    /// Whether operators defined what a selector names.
    fn names(&self, selector: &Selector) -> bool {
        use leasehold_law::catalog::Owner;
        let catalog = self.catalog();
        match selector {
            Selector::Owner(Owner::Person(name)) => catalog.people.contains(name),
            Selector::Owner(Owner::Group(name)) => catalog.groups.contains_key(name),
            Selector::Owner(Owner::Broker) => !catalog.drills.is_empty(),
            Selector::Target(name) => catalog.targets.contains_key(name),
            Selector::Intent(name) => catalog.intents.contains_key(name),
            Selector::Lease(_)
            | Selector::Task(_)
            | Selector::Agent(_)
            | Selector::Ref { .. }
            | Selector::All => false,
        }
    }
}
