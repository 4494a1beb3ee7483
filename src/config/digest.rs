//! What each thing that decisions rest on looked like, so that the broker sees which of them a new config changed
//! (RULES R-1).

use std::collections::BTreeMap;

use leasehold_law::caller::Vouched;
use leasehold_law::catalog::{Catalog, Grant, Intent};
use leasehold_law::hex::Hex;
use leasehold_law::policy::PolicySource;
use leasehold_law::subject::Subject;
use ring::digest::{SHA256, digest};
use serde::Serialize;

use super::targets::Target;

/// SHA-256 in hexadecimal, by subject.
pub type Digests = BTreeMap<Subject, String>;

/// What config holds beside the catalog.
pub(super) struct Beside<'a> {
    pub(super) targets: &'a BTreeMap<String, Target>,
    pub(super) people: &'a BTreeMap<String, Vouched>,
    pub(super) sources: &'a [PolicySource],
}

pub(super) fn digests(catalog: &Catalog, beside: &Beside<'_>) -> Digests {
    let agents = catalog.agents.iter().map(|(id, agent)| (Subject::Agent(id.clone()), of(agent)));
    let targets = beside.targets.iter().map(|(name, target)| {
        let drill = catalog.drills.get(name);
        let what = (&target.law, &target.backend, &target.table, granted(catalog, name), drill);
        (Subject::Target(name.clone()), of(&what))
    });
    agents.chain(targets).chain([(Subject::Policy, policy(catalog, beside))]).collect()
}

/// The grants of a target, each with its intent.
fn granted<'a>(catalog: &'a Catalog, target: &str) -> Vec<(&'a Grant, Option<&'a Intent>)> {
    let grants = catalog.grants.values().filter(|grant| grant.pair.target == target);
    grants.map(|grant| (grant, catalog.intents.get(&grant.pair.intent))).collect()
}

/// Policies without the names of their files: moving a folder changes no decision.
fn policy(catalog: &Catalog, beside: &Beside<'_>) -> String {
    let texts: Vec<_> = beside.sources.iter().map(|source| &source.text).collect();
    let people: Vec<_> = beside.people.iter().collect();
    let patterns: Vec<_> = catalog.patterns.iter().collect();
    of(&(texts, &catalog.floors, &catalog.groups, people, patterns, &catalog.rules))
}

fn of(what: &impl Serialize) -> String {
    // Plain trees with texts for keys: writing them as JSON has no way to fail.
    let bytes = serde_json::to_vec(what).unwrap_or_default();
    Hex(digest(&SHA256, &bytes).as_ref()).to_string()
}
