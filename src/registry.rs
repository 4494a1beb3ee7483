//! Room 4, which agent: what operators defined, the engine over it, the agents that were applied since, and the
//! versions of all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use leasehold_law::caller::{CallerId, Vouched};
use leasehold_law::catalog::{Agent, Catalog, Grant, Intent, Owner, Target};
use leasehold_law::policy::Engine;
use leasehold_law::registry::{Book, Claim, View, Who};
use leasehold_law::scope::Pair;
use leasehold_law::subject::{Guard, Subject};
use leasehold_law::time::Timestamp;

/// What operators defined, as of the versions that the store gave it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    catalog: Arc<Catalog>,
    engine: Arc<Engine>,
    versions: Arc<BTreeMap<Subject, u64>>,
    domain: Option<Arc<str>>,
    federated: Arc<BTreeSet<String>>,
    book: Arc<Book>,
    book_version: u64,
}

impl Registry {
    /// A registry. `versions` holds the version of each config subject; those that are missing count as 0.
    #[must_use]
    pub fn new(catalog: Catalog, engine: Arc<Engine>, versions: BTreeMap<Subject, u64>) -> Self {
        let (catalog, versions) = (Arc::new(catalog), Arc::new(versions));
        Self {
            catalog,
            engine,
            versions,
            domain: None,
            federated: Arc::default(),
            book: Arc::default(),
            book_version: 0,
        }
    }

    /// The same, of a broker in this trust domain that federates with those.
    #[must_use]
    pub fn in_domain(self, domain: &str, federated: BTreeSet<String>) -> Self {
        Self { domain: Some(domain.into()), federated: Arc::new(federated), ..self }
    }

    /// The same, with what the store keeps of registrations as of this version of it.
    #[must_use]
    pub fn with_book(&self, book: Arc<Book>, version: u64) -> Self {
        Self { book, book_version: version, ..self.clone() }
    }

    /// Everything that operators defined in the config.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// What the store keeps of registrations.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// The version of [`Registry::book`].
    #[must_use]
    pub fn book_version(&self) -> u64 {
        self.book_version
    }

    /// The broker's trust domain, where it was told.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// The other trust domains whose agents can prove who they are here.
    #[must_use]
    pub fn federated(&self) -> &BTreeSet<String> {
        &self.federated
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Whether anybody registered this identity.
    #[must_use]
    pub fn knows(&self, id: &CallerId) -> bool {
        self.book.knows(&self.catalog, id)
    }

    /// Who answers for a registered agent.
    #[must_use]
    pub fn owner(&self, id: &CallerId) -> Option<&Owner> {
        self.book.owner(&self.catalog, id)
    }

    /// A registered agent at this moment, for one that says this of itself.
    #[must_use]
    pub fn agent(&self, id: &CallerId, now: Timestamp, claim: Claim) -> Option<Agent> {
        self.book.agent(&self.catalog, id, now, claim)
    }

    /// A registration as it stands, or what a pattern makes of an identity.
    #[must_use]
    pub fn registration(&self, who: &Who) -> Option<View> {
        self.book.view(&self.catalog, who)
    }

    /// Every registration as it stands.
    #[must_use]
    pub fn registrations(&self) -> Vec<View> {
        self.book.views(&self.catalog)
    }

    /// The agents of an owner that are registered by name; those that only fit a pattern are nobody's to list.
    #[must_use]
    pub fn named_agents_of(&self, owner: &Owner) -> Vec<CallerId> {
        self.named_agents().into_iter().filter(|id| self.owner(id) == Some(owner)).cloned().collect()
    }

    /// The agents that an owner answers for: those that are registered by name, and of these others the ones that a
    /// pattern makes theirs.
    #[must_use]
    pub fn agents_of(&self, owner: &Owner, others: &[CallerId]) -> Vec<CallerId> {
        let mut agents = self.named_agents_of(owner);
        let by_pattern = others.iter().filter(|id| self.owner(id) == Some(owner) && !agents.contains(id));
        let by_pattern: Vec<_> = by_pattern.cloned().collect();
        agents.extend(by_pattern);
        agents
    }

    /// The agents that are registered by name.
    #[must_use]
    pub fn named_agents(&self) -> BTreeSet<&CallerId> {
        let applied = self.book.entries().filter_map(|entry| match &entry.who {
            Who::One(id) => Some(id),
            Who::Each(_) => None,
        });
        self.catalog.agents.keys().chain(applied).collect()
    }

    /// Whether an owner answers for agents that are registered by a pattern.
    #[must_use]
    pub fn owns_patterns(&self, owner: &Owner) -> bool {
        let applied = self.book.entries().filter(|entry| matches!(entry.who, Who::Each(_)));
        let applied = applied.filter_map(|entry| entry.terms.as_ref());
        self.catalog.patterns.values().chain(applied).any(|terms| terms.owner == *owner)
    }

    /// Those owners of agents that a person is, alone or with a group: nobody, where the config does not name the person or
    /// they own no agent.
    #[must_use]
    pub fn owners_of_agents(&self, person: &Vouched) -> BTreeSet<Owner> {
        let names = self.catalog.people.iter().filter(|(_, known)| *known == person);
        let owners = names.flat_map(|(name, _)| {
            let with = self.catalog.groups.iter().filter(|(_, members)| members.contains(name));
            with.map(|(group, _)| Owner::Group(group.clone())).chain([Owner::Person(name.clone())])
        });
        owners.filter(|owner| self.owns_patterns(owner) || !self.named_agents_of(owner).is_empty()).collect()
    }

    /// What a pair names, if operators granted it.
    #[must_use]
    pub fn granted(&self, pair: &Pair) -> Option<Granted<'_>> {
        Some(Granted {
            grant: self.catalog.grants.get(pair)?,
            intent: self.catalog.intents.get(&pair.intent)?,
            target: self.catalog.targets.get(&pair.target)?,
        })
    }

    /// Every config subject with the version that it has here.
    pub fn versions(&self) -> impl Iterator<Item = (Subject, u64)> {
        self.versions.iter().map(|(subject, version)| (subject.clone(), *version))
    }

    /// The versions that a decision about this agent and this target rests on (RULES R-1).
    #[must_use]
    pub fn guards(&self, agent: &CallerId, target: &str) -> Vec<Guard> {
        [Subject::Policy, Subject::Agent(agent.clone()), Subject::Target(target.to_owned())]
            .into_iter()
            .map(|subject| Guard { version: self.versions.get(&subject).copied().unwrap_or(0), subject })
            .chain([self.book_guard()])
            .collect()
    }

    /// The version of what was applied and done to registrations.
    #[must_use]
    pub fn book_guard(&self) -> Guard {
        Guard { subject: Subject::Agents, version: self.book_version }
    }
}

/// A pair with what stands behind it.
#[derive(Clone, Copy, Debug)]
pub struct Granted<'a> {
    /// The grant.
    pub grant: &'a Grant,
    /// The intent.
    pub intent: &'a Intent,
    /// The target.
    pub target: &'a Target,
}
