//! Room 4, which agent: what operators defined, the engine over it, and the versions of both.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold_law::caller::CallerId;
use leasehold_law::catalog::{Agent, Catalog, Grant, Intent, Target};
use leasehold_law::policy::Engine;
use leasehold_law::scope::Pair;
use leasehold_law::subject::{Guard, Subject};

/// What operators defined, as of the versions that the store gave it.
#[derive(Debug)]
pub struct Registry {
    catalog: Catalog,
    engine: Arc<Engine>,
    versions: BTreeMap<Subject, u64>,
}

impl Registry {
    /// A registry. `versions` holds the version of each config subject; those that are missing count as 0.
    #[must_use]
    pub fn new(catalog: Catalog, engine: Arc<Engine>, versions: BTreeMap<Subject, u64>) -> Self {
        Self { catalog, engine, versions }
    }

    /// Everything that operators defined.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// A registered agent.
    #[must_use]
    pub fn agent(&self, id: &CallerId) -> Option<&Agent> {
        self.catalog.agents.get(id)
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
            .collect()
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
