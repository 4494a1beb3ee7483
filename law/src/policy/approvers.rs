//! Who must say yes, as `@approvers` writes it: a conjunction, so that two people on call are not "owner and on
//! call" (RULES R-13).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use cedar_policy::{EntityUid, Policy, PrincipalConstraint, ResourceConstraint};

use crate::catalog::{Agent, Catalog, Owner, Target};
use crate::scope::is_name;

/// A conjunction of quorums: `1 of target-owner and 2 of group:oncall`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approvers(Vec<Quorum>);

/// So many of these people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// How many, at least one.
    pub count: usize,
    /// Of whom.
    pub who: Approver,
}

/// People who may approve.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Approver {
    /// Who answers for the target.
    TargetOwner,
    /// Who answers for the agent.
    AgentOwner,
    /// A group of people.
    Group(String),
    /// One person.
    Person(String),
}

/// Why a text names no approvers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApproversError {
    /// A part has another form.
    #[error(
        "`{0}` names no approvers; write `N of WHO`, joined by ` and `, where WHO is target-owner, agent-owner, \
         group:NAME or person:NAME"
    )]
    Form(String),
    /// Somebody is named in two parts.
    #[error("`{0}` is named twice")]
    Twice(Approver),
}

impl Approvers {
    /// The parts, all of which must be met.
    #[must_use]
    pub fn quorums(&self) -> &[Quorum] {
        &self.0
    }

    /// How many people are needed in all.
    #[must_use]
    pub fn people(&self) -> usize {
        self.0.iter().map(|quorum| quorum.count).fold(0, usize::saturating_add)
    }
}

impl FromStr for Approvers {
    type Err = ApproversError;
    fn from_str(text: &str) -> Result<Self, ApproversError> {
        let quorums: Vec<Quorum> = text.split(" and ").map(str::parse).collect::<Result<_, _>>()?;
        let mut seen = BTreeSet::new();
        match quorums.iter().find(|quorum| !seen.insert(&quorum.who)) {
            Some(twice) => Err(ApproversError::Twice(twice.who.clone())),
            None => Ok(Self(quorums)),
        }
    }
}

impl FromStr for Quorum {
    type Err = ApproversError;
    fn from_str(text: &str) -> Result<Self, ApproversError> {
        let wrong = || ApproversError::Form(text.to_owned());
        let (count, who) = text.trim().split_once(" of ").ok_or_else(wrong)?;
        let count = count.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
        let who = match who.split_once(':') {
            None if who == "target-owner" => Approver::TargetOwner,
            None if who == "agent-owner" => Approver::AgentOwner,
            Some(("group", name)) if is_name(name) => Approver::Group(name.to_owned()),
            Some(("person", name)) if is_name(name) => Approver::Person(name.to_owned()),
            None | Some(_) => return Err(wrong()),
        };
        Ok(Self { count, who })
    }
}

impl fmt::Display for Approver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TargetOwner => f.write_str("target-owner"),
            Self::AgentOwner => f.write_str("agent-owner"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Person(name) => write!(f, "person:{name}"),
        }
    }
}

impl Quorum {
    /// Why it can never be met where `policy` applies: nobody has that name, or there are too few people.
    pub(super) fn problem(&self, catalog: &Catalog, policy: &Policy) -> Option<String> {
        match &self.who {
            Approver::Group(name) => self.shortage(catalog, &Owner::Group(name.clone())),
            Approver::Person(name) => self.shortage(catalog, &Owner::Person(name.clone())),
            Approver::TargetOwner => {
                let constraint = policy.resource_constraint();
                let targets = catalog.targets.values().filter(|target| on_target(&constraint, target));
                self.first_shortage(catalog, targets.map(|t| (format!("target `{}`", t.name), &t.owner)))
            }
            Approver::AgentOwner => {
                let constraint = policy.principal_constraint();
                // The broker owns what drills, and a drill asks nobody: it is refused where people are to be asked.
                let asking = catalog.agents.values().filter(|agent| agent.owner != Owner::Broker);
                let agents = asking.filter(|agent| for_agent(&constraint, agent));
                self.first_shortage(catalog, agents.map(|a| (format!("agent `{}`", a.id), &a.owner)))
            }
        }
    }

    fn first_shortage<'a>(
        &self,
        catalog: &Catalog,
        mut owners: impl Iterator<Item = (String, &'a Owner)>,
    ) -> Option<String> {
        owners.find_map(|(what, owner)| {
            let shortage = self.shortage(catalog, owner)?;
            Some(format!("{} of {what}: {shortage}", self.who))
        })
    }

    fn shortage(&self, catalog: &Catalog, owner: &Owner) -> Option<String> {
        let people = match owner {
            Owner::Person(name) => usize::from(catalog.people.contains_key(name)),
            Owner::Group(name) => catalog.groups.get(name).map_or(0, BTreeSet::len),
            Owner::Broker => 0,
        };
        let known = match owner {
            Owner::Person(name) => catalog.people.contains_key(name),
            Owner::Group(name) => catalog.groups.contains_key(name),
            Owner::Broker => false,
        };
        match people {
            _ if !known => Some(format!("`{owner}` is not in the config")),
            people if people < self.count => {
                Some(format!("`{owner}` has {people}, and {} are needed", self.count))
            }
            _ => None,
        }
    }
}

fn on_target(constraint: &ResourceConstraint, target: &Target) -> bool {
    match constraint {
        ResourceConstraint::Any | ResourceConstraint::Is(_) => true,
        ResourceConstraint::In(uid) | ResourceConstraint::Eq(uid) | ResourceConstraint::IsIn(_, uid) => {
            is_or_holds(uid, &target.name, &target.groups)
        }
    }
}

fn for_agent(constraint: &PrincipalConstraint, agent: &Agent) -> bool {
    match constraint {
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => true,
        PrincipalConstraint::In(uid) | PrincipalConstraint::Eq(uid) | PrincipalConstraint::IsIn(_, uid) => {
            is_or_holds(uid, &agent.id.to_string(), &agent.groups)
        }
    }
}

fn is_or_holds(uid: &EntityUid, name: &str, groups: &BTreeSet<String>) -> bool {
    let id: &str = uid.id().as_ref();
    id == name || groups.contains(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn approvers_are_a_conjunction_of_quorums() {
        let check = |text: &str, people: Option<usize>| {
            assert_eq!(text.parse::<Approvers>().ok().map(|a| a.people()), people, "{text}");
        };
        check("1 of target-owner", Some(1));
        check("1 of target-owner and 2 of group:oncall", Some(3));
        check("1 of agent-owner and 1 of person:ana", Some(2));
        for bad in [
            "",
            "target-owner",
            "0 of target-owner",
            "-1 of target-owner",
            "1 of owner",
            "1 of group:",
            "1 of team:x",
            "1 of target-owner or 1 of group:oncall",
            "1 of target-owner and ",
            "1 of group:oncall and 1 of group:oncall",
        ] {
            check(bad, None);
        }
    }
}
