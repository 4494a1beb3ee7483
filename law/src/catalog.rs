//! What operators define: people, agents, targets, intents and grants, as checked config hands them over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::caller::{CallerId, Vouched};
use crate::drill::Plan;
use crate::param::ParamSpec;
use crate::registry::{Pattern, Rules, Standing, Terms};
use crate::scope::{Pair, is_name};
use crate::time::Span;

/// How well an action can be undone; drives the floor of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Changes nothing.
    ReadOnly,
    /// Can be undone by us.
    Reversible,
    /// Can be undone, but others have seen it.
    ExternalReversible,
    /// Cannot be undone.
    Irreversible,
}

impl Class {
    /// Every class, mildest first.
    pub const ALL: [Self; 4] =
        [Self::ReadOnly, Self::Reversible, Self::ExternalReversible, Self::Irreversible];

    /// The name in config, and in policy behind `class:`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Reversible => "reversible",
            Self::ExternalReversible => "external-reversible",
            Self::Irreversible => "irreversible",
        }
    }
}

/// The least that a class needs, whatever a permit says (RULES R-13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Floor {
    /// A permit is enough.
    Permit,
    /// People are asked, unless the permit is `@unattended`.
    Ask,
}

/// Floors by class, and the stricter ones of production.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floors {
    /// By class.
    pub base: BTreeMap<Class, Floor>,
    /// Label values that make a target production, e.g. `env` = `prod`.
    pub production_labels: BTreeMap<String, BTreeSet<String>>,
    /// By class, in production, where it differs.
    pub production: BTreeMap<Class, Floor>,
}

impl Default for Floors {
    /// Irreversible and external-reversible ask; in production reversible asks too.
    fn default() -> Self {
        let ask = |class| (class, Floor::Ask);
        Self {
            base: BTreeMap::from([ask(Class::ExternalReversible), ask(Class::Irreversible)]),
            production_labels: BTreeMap::from([("env".to_owned(), BTreeSet::from(["prod".to_owned()]))]),
            production: BTreeMap::from([ask(Class::Reversible)]),
        }
    }
}

impl Floors {
    /// The floor for a class on a target with these labels.
    #[must_use]
    pub fn of(&self, class: Class, labels: &BTreeMap<String, String>) -> Floor {
        let base = self.base.get(&class).copied().unwrap_or(Floor::Permit);
        let production = self.production.get(&class).copied().filter(|_| self.is_production(labels));
        production.map_or(base, |floor| floor.max(base))
    }

    /// Whether a target with these labels is production.
    #[must_use]
    pub fn is_production(&self, labels: &BTreeMap<String, String>) -> bool {
        self.production_labels
            .iter()
            .any(|(label, values)| labels.get(label).is_some_and(|value| values.contains(value)))
    }
}

/// Who answers for an agent or a target: `person:ana` or `group:oncall`; the broker for its own drills.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Owner {
    /// One person, by the name that config gives them.
    Person(String),
    /// A group of people.
    Group(String),
    /// The broker itself: it owns what drills, and nothing that config defines.
    Broker,
}

/// The text of [`Owner::Broker`].
const BROKER: &str = "leasehold";

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person(name) => write!(f, "person:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Broker => f.write_str(BROKER),
        }
    }
}

/// Why a text names no owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an owner; write `person:NAME` or `group:NAME`")]
pub struct OwnerError(String);

impl FromStr for Owner {
    type Err = OwnerError;
    fn from_str(text: &str) -> Result<Self, OwnerError> {
        match text.split_once(':') {
            Some(("person", name)) if is_name(name) => Ok(Self::Person(name.to_owned())),
            Some(("group", name)) if is_name(name) => Ok(Self::Group(name.to_owned())),
            None if text == BROKER => Ok(Self::Broker),
            Some(_) | None => Err(OwnerError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Owner {
    type Error = OwnerError;
    fn try_from(text: String) -> Result<Self, OwnerError> {
        text.parse()
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.to_string()
    }
}

/// How much an agent may do by itself: a bound that no policy lifts, and an attribute that policy reads
/// (REQUIREMENTS POL-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Autonomy {
    /// Intents that change nothing.
    Observe,
    /// It may ask what would be decided, and open tasks; it never holds a lease.
    Propose,
    /// Within its tier.
    Act,
}

impl Autonomy {
    /// The name in config and policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Propose => "propose",
            Self::Act => "act",
        }
    }
}

/// A registered workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// The proven identity.
    pub id: CallerId,
    /// Who answers for it.
    pub owner: Owner,
    /// The groups that policy and grants name.
    pub groups: BTreeSet<String>,
    /// How much it may do by itself.
    pub autonomy: Autonomy,
    /// What it is for.
    #[serde(default)]
    pub purpose: String,
    /// What the registry says of it beside that.
    #[serde(default, skip_serializing_if = "Standing::is_plain")]
    pub standing: Standing,
}

impl Agent {
    /// The agent that drills: the broker itself. It is in no group, so that no grant allows it anything.
    #[must_use]
    pub fn drill() -> Self {
        Self {
            id: CallerId::Drill,
            owner: Owner::Broker,
            groups: BTreeSet::new(),
            autonomy: Autonomy::Act,
            purpose: "proves that what is revoked is dead".to_owned(),
            standing: Standing::default(),
        }
    }

    /// The autonomy that policy sees: the lowest of what it is registered with and what lowers that now.
    #[must_use]
    pub fn level(&self) -> Autonomy {
        self.standing.lowered.iter().map(|lowered| lowered.to).fold(self.autonomy, Ord::min)
    }
}

/// Where a credential is minted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Who answers for it.
    pub owner: Owner,
    /// Labels such as `env` and `data`.
    pub labels: BTreeMap<String, String>,
    /// Groups of targets that policy names.
    pub groups: BTreeSet<String>,
}

/// Something that agents may mean to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Its name.
    pub name: String,
    /// How well it can be undone.
    pub class: Class,
    /// What a request may carry.
    pub params: BTreeMap<String, ParamSpec>,
}

/// Lifetimes of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TtlRule {
    /// What a request gets that names none.
    pub default: Span,
    /// The longest lifetime of one lease between renewals.
    pub max: Span,
    /// The longest life with all renewals together.
    pub life: Span,
}

/// What a backend needs to mint, in its own words; stored with the lease, so that a later edit of the config
/// cannot strand it.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Recipe(pub serde_json::Map<String, serde_json::Value>);

/// The operator's binding of an intent on a target to a recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// What on what.
    pub pair: Pair,
    /// How it is minted.
    pub recipe: Recipe,
    /// For how long.
    pub ttl: TtlRule,
    /// Agent groups that may have it without further policy: each becomes a permit with the id
    /// `grant:INTENT@TARGET`.
    pub allow: BTreeSet<String>,
}

/// Everything that policy is checked against and decides from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// People by name, and what their issuer calls them.
    pub people: BTreeMap<String, Vouched>,
    /// Groups of people.
    pub groups: BTreeMap<String, BTreeSet<String>>,
    /// Registered agents.
    pub agents: BTreeMap<CallerId, Agent>,
    /// Registrations for every workload that fits; no two of them share one.
    #[serde(default)]
    pub patterns: BTreeMap<Pattern, Terms>,
    /// What holds for all registered agents.
    #[serde(default)]
    pub rules: Rules,
    /// Who holds operator roles, and the broker itself: none of them is ever an agent.
    #[serde(default)]
    pub reserved: BTreeSet<CallerId>,
    /// Targets by name.
    pub targets: BTreeMap<String, Target>,
    /// Intents by name.
    pub intents: BTreeMap<String, Intent>,
    /// Grants by pair.
    pub grants: BTreeMap<Pair, Grant>,
    /// Floors.
    pub floors: Floors,
    /// What each target is drilled with, by target: each becomes a permit for the agent that drills, with the id
    /// `drill:INTENT@TARGET`.
    pub drills: BTreeMap<String, Plan>,
}

impl Catalog {
    /// Every group that agents are registered in, or may be put into while the broker runs.
    pub fn agent_groups(&self) -> impl Iterator<Item = &str> {
        let agents = self.agents.values().map(|agent| &agent.groups);
        let patterns = self.patterns.values().map(|terms| &terms.groups);
        agents.chain(patterns).chain([&self.rules.groups]).flatten().map(String::as_str)
    }

    /// What a person is called in the config.
    #[must_use]
    pub fn name_of(&self, person: &Vouched) -> Option<&str> {
        let mut named = self.people.iter().filter(|(_, known)| *known == person);
        named.next().map(|(name, _)| name.as_str())
    }

    /// The same with these drills, and with the agent that does them, if there are any.
    #[must_use]
    pub fn with_drills(mut self, drills: BTreeMap<String, Plan>) -> Self {
        if !drills.is_empty() {
            self.agents.insert(CallerId::Drill, Agent::drill());
        }
        self.drills = drills;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn production_raises_a_floor_and_never_lowers_it() {
        let floors = Floors::default();
        let check = |class, env: &str, expect| {
            let labels = BTreeMap::from([("env".to_owned(), env.to_owned())]);
            assert_eq!(floors.of(class, &labels), expect, "{class:?} {env}");
        };
        check(Class::ReadOnly, "prod", Floor::Permit);
        check(Class::Reversible, "dev", Floor::Permit);
        check(Class::Reversible, "prod", Floor::Ask);
        check(Class::ExternalReversible, "dev", Floor::Ask);
        check(Class::Irreversible, "prod", Floor::Ask);
    }

    #[test]
    fn owners_read_as_they_print() {
        for good in ["person:ana", "group:data-platform", "leasehold"] {
            assert_eq!(good.parse::<Owner>().unwrap().to_string(), good);
        }
        for bad in ["ana", "person:", "team:x", "person:a b"] {
            assert!(bad.parse::<Owner>().is_err(), "{bad}");
        }
    }
}
