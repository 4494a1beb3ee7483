//! `[personal_agents]`: agents on people's own machines, each in the session of its person.

use std::collections::BTreeSet;

use leasehold_law::caller::{CallerId, Vouched};
use leasehold_law::catalog::{Agent, Autonomy, Owner};
use leasehold_law::registry::Standing;

use super::agents::{self, Owners};
use super::identity::Identity;
use super::listen::Listen;
use super::names::Names;
use super::source::Place;
use super::table::{Table, Value};

/// One such agent, as everybody's who may have it: to the law each is an agent of its own.
pub(super) struct Personal {
    pub(super) agents: Vec<Agent>,
}

pub(super) fn read(parts: &[Table<'_>], owners: &Owners<'_>) -> Names<Personal> {
    Names::collect(parts, ("personal_agents", "personal agent"), Table::named, |name, value| {
        personal(name, value, owners)
    })
}

fn personal(name: &str, value: &Value<'_>, owners: &Owners<'_>) -> Option<Personal> {
    let words = [Autonomy::Observe, Autonomy::Propose, Autonomy::Act].map(|level| (level.name(), level));
    value.read(|table| {
        let groups = agents::group_names(table);
        let autonomy = table.need("autonomy").and_then(|value| value.word(&words));
        let purpose = table.get("purpose").and_then(|value| agents::purpose(&value)).unwrap_or_default();
        let people = table.need("people").map(|value| people(&value, owners));
        let (autonomy, people) = (autonomy?, people?);
        let agent = |person: &String| {
            let known = owners.people.values.get(person)?;
            let id = Vouched::new(known.issuer(), &format!("{}/{name}", known.name()));
            let id = CallerId::PersonalAgent(id.map_err(|error| value.problem(error.to_string())).ok()?);
            let (owner, groups) = (Owner::Person(person.clone()), groups.clone());
            let standing = Standing::default();
            Some(Agent { id, owner, groups, autonomy, purpose: purpose.clone(), standing })
        };
        Some(Personal { agents: people.iter().filter_map(agent).collect() })
    })
}

/// The people that a list names, themselves or by a group.
fn people(list: &Value<'_>, owners: &Owners<'_>) -> BTreeSet<String> {
    let report = list.context().report;
    let mut all = BTreeSet::new();
    for (name, place) in list.texts() {
        match name.strip_prefix("group:") {
            Some(group) => {
                owners.groups.check(group, &place, report);
                all.extend(owners.groups.values.get(group).into_iter().flatten().cloned());
            }
            None => {
                let person = name.strip_prefix("person:").unwrap_or(name);
                owners.people.check(person, &place, report);
                all.insert(person.to_owned());
            }
        }
    }
    all
}

/// The groups that they are in.
pub(super) fn groups(personal: &Names<Personal>) -> impl Iterator<Item = (&str, &Place)> {
    let named = personal.values.iter().filter_map(|(name, one)| Some((&one.agents, personal.place(name)?)));
    let agents = named.flat_map(|(agents, place)| agents.iter().map(move |agent| (agent, place)));
    agents.flat_map(|(agent, place)| agent.groups.iter().map(move |group| (group.as_str(), place)))
}

/// They come with a token, from an issuer that people sign in at.
pub(super) fn have_a_door(
    root: &Table<'_>,
    personal: &Names<Personal>,
    listen: Option<&Listen>,
    identity: Option<&Identity>,
) {
    let (Some(listen), Some(identity)) = (listen, identity) else { return };
    if personal.values.is_empty() {
        return;
    }
    if listen.bearer.is_none() || identity.people.is_empty() {
        let what = "agents of [personal_agents] come with their person's token: write [identity.people] and `listen.bearer`";
        let report = root.context().report;
        personal
            .values
            .keys()
            .filter_map(|name| personal.place(name))
            .for_each(|at| report.problem(at, what));
        return;
    }
    let issuers: BTreeSet<_> = identity.people.iter().map(|issuer| issuer.issuer.as_str()).collect();
    let agents = personal.values.values().flat_map(|personal| &personal.agents);
    for id in agents.map(|agent| &agent.id) {
        let CallerId::PersonalAgent(vouched) = id else { continue };
        if !issuers.contains(vouched.issuer()) {
            let what =
                format!("nobody can be `{id}`: no [identity.people] has the issuer `{}`", vouched.issuer());
            root.context().report.warning(root.place(), what);
        }
    }
}
