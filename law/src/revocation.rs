//! One act of stopping: what it selects, why, who did it, and the barrier that it may leave behind.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::caller::{CallerId, Vouched};
use crate::catalog::Owner;
use crate::id::{LeaseId, RevocationId, TaskId};
use crate::request::Refs;
use crate::scope::Pair;
use crate::time::Timestamp;

/// What a revocation takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// One lease.
    Lease(LeaseId),
    /// Every lease of a task.
    Task(TaskId),
    /// Every lease of an agent.
    Agent(CallerId),
    /// Every lease of the agents that answer to a person or a group.
    Owner(Owner),
    /// Every task that acts for a person, with its leases.
    Person(Vouched),
    /// Every lease on a target.
    Target(String),
    /// Every lease for an intent, on whatever target.
    Intent(String),
    /// Every lease of the tasks that carry a reference.
    Ref {
        /// Its key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Everything: the kill switch.
    All,
}

/// What is asked for, and by whom, as far as a barrier may stand in its way. What is not known yet is in nobody's way.
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// Who asks.
    pub agent: &'a CallerId,
    /// Who answers for it.
    pub owner: Option<&'a Owner>,
    /// For which person.
    pub person: Option<&'a Vouched>,
    /// Under which task.
    pub task: Option<TaskId>,
    /// What that task refers to.
    pub refs: Option<&'a Refs>,
    /// What on what.
    pub pair: Option<&'a Pair>,
}

impl Selector {
    /// Whether nothing new is issued to the selected until somebody lifts it: on for agents and wider (RULES R-2).
    #[must_use]
    pub const fn freezes_by_default(&self) -> bool {
        match self {
            Self::Lease(_) | Self::Task(_) => false,
            Self::Agent(_)
            | Self::Owner(_)
            | Self::Person(_)
            | Self::Target(_)
            | Self::Intent(_)
            | Self::Ref { .. }
            | Self::All => true,
        }
    }

    /// Whether its barrier stands in the way of this. A lease that exists needs no barrier: it is revoked.
    #[must_use]
    pub fn covers(&self, reach: &Reach<'_>) -> bool {
        match self {
            Self::Lease(_) => false,
            Self::Task(id) => reach.task == Some(*id),
            Self::Agent(id) => reach.agent == id,
            Self::Owner(owner) => reach.owner == Some(owner),
            Self::Person(person) => reach.person == Some(person),
            Self::Target(name) => reach.pair.is_some_and(|pair| pair.target == *name),
            Self::Intent(name) => reach.pair.is_some_and(|pair| pair.intent == *name),
            Self::Ref { key, value } => reach.refs.and_then(|refs| refs.get(key)) == Some(value),
            Self::All => true,
        }
    }
}

/// As people type it: `--agent spiffe://…` is `agent:spiffe://…` in records.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lease(id) => write!(f, "lease:{id}"),
            Self::Task(id) => write!(f, "task:{id}"),
            Self::Agent(id) => write!(f, "agent:{id}"),
            Self::Owner(owner) => write!(f, "owner:{owner}"),
            Self::Person(person) => write!(f, "person:oidc:{person}"),
            Self::Target(name) => write!(f, "target:{name}"),
            Self::Intent(name) => write!(f, "intent:{name}"),
            Self::Ref { key, value } => write!(f, "ref:{key}={value}"),
            Self::All => f.write_str("all"),
        }
    }
}

/// One act of stopping, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Its id.
    pub id: RevocationId,
    /// What it took.
    pub selector: Selector,
    /// Who did it.
    pub by: CallerId,
    /// The reason given: recorded, never an input to a decision.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// Whether it left a barrier.
    pub freeze: bool,
    /// Who lifted the barrier, and when.
    pub lifted: Option<Lifted>,
    /// The leases that it took, live at that moment.
    pub leases: Vec<LeaseId>,
    /// The open tasks that it ended by themselves: those of a person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskId>,
    /// Whether each of them is condemned: a start goes on with those that are not.
    #[serde(default)]
    pub complete: bool,
}

/// The end of a barrier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifted {
    /// Who lifted it.
    pub by: CallerId,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

impl Revocation {
    /// Whether its barrier still stands.
    #[must_use]
    pub fn is_freezing(&self) -> bool {
        self.freeze && self.lifted.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_stands_in_the_way_of_what_it_selects_and_of_nothing_else() {
        let agent: CallerId = "spiffe://prod.example/agent/a".parse().unwrap();
        let other: CallerId = "spiffe://prod.example/agent/b".parse().unwrap();
        let (ana, data): (Owner, Owner) = ("person:ana".parse().unwrap(), "group:data".parse().unwrap());
        let eve: Vouched = "https://idp.example|00u7".parse().unwrap();
        let (task, pair) = (TaskId::derive(Timestamp(1), 1), "orders.read@orders".parse().unwrap());
        let refs = Refs::from([("ticket".to_owned(), "T-1".to_owned())]);
        let full = Reach {
            agent: &agent,
            owner: Some(&ana),
            person: Some(&eve),
            task: Some(task),
            refs: Some(&refs),
            pair: Some(&pair),
        };
        let bare = Reach { agent: &agent, owner: None, person: None, task: None, refs: None, pair: None };
        let check = |selector: Selector, in_full: bool, in_bare: bool| {
            assert_eq!((selector.covers(&full), selector.covers(&bare)), (in_full, in_bare), "{selector}");
        };
        let reference = |value: &str| Selector::Ref { key: "ticket".into(), value: value.into() };
        check(Selector::All, true, true);
        check(Selector::Agent(agent.clone()), true, true);
        check(Selector::Agent(other), false, false);
        check(Selector::Owner(ana.clone()), true, false);
        check(Selector::Owner(data), false, false);
        check(Selector::Person(eve.clone()), true, false);
        check(Selector::Person("https://idp.example|ana".parse().unwrap()), false, false);
        check(Selector::Task(task), true, false);
        check(Selector::Task(TaskId::derive(Timestamp(2), 2)), false, false);
        check(Selector::Target("orders".into()), true, false);
        check(Selector::Target("orders.read".into()), false, false);
        check(Selector::Intent("orders.read".into()), true, false);
        check(Selector::Intent("orders".into()), false, false);
        check(reference("T-1"), true, false);
        check(reference("T-2"), false, false);
        check(Selector::Lease(LeaseId::derive(Timestamp(1), 1)), false, false);
    }

    #[test]
    fn a_revocation_that_was_written_before_it_could_be_incomplete_reads_as_such() {
        let old = r#"{"id":"rev_00000000000000000000","selector":{"agent":"uid:7"},"by":"uid:0","reason":"r",
            "at":5,"freeze":true,"lifted":null,"leases":[]}"#;
        let read: Revocation = serde_json::from_str(old).unwrap();
        assert_eq!(read.selector.to_string(), "agent:uid:7");
        assert!(!read.complete && read.is_freezing());
    }
}
