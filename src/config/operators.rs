//! `[operators]`: who may do what to the broker itself (RULES R-19).

use std::collections::{BTreeMap, BTreeSet};

use leasehold_law::caller::{CallerId, Vouched};

use super::names::Names;
use super::roles::Role;
use super::table::{Entry, Table, Value};

/// The roles of each operator, with those that an admin holds by being one.
pub type Operators = BTreeMap<CallerId, BTreeSet<Role>>;

/// Who they are, as far as it can be told by their keys alone: people are told by [`read`], and never are agents.
pub(super) fn ids(root: &Table<'_>) -> impl Iterator<Item = CallerId> {
    let table = root.get("operators").filter(|value| value.raw().is_table()).and_then(|value| value.table());
    let names = table.map(|table| table.entries()).unwrap_or_default().into_iter().map(|entry| entry.name);
    names.filter_map(|name| name.parse().ok())
}

pub(super) fn read(root: &Table<'_>, people: &Names<Vouched>, trust_domain: Option<&str>) -> Operators {
    let Some(table) = root.need("operators").and_then(|value| value.table()) else { return Operators::new() };
    let operators: Operators =
        table.entries().iter().filter_map(|entry| operator(&table, entry, people, trust_domain)).collect();
    if !operators.values().any(|roles| roles.contains(&Role::Admin)) {
        table.context().report.warning(table.place(), "nobody is an admin: no freeze can be lifted");
    }
    operators
}

fn operator(
    table: &Table<'_>,
    Entry { name, place, value }: &Entry<'_>,
    people: &Names<Vouched>,
    trust_domain: Option<&str>,
) -> Option<(CallerId, BTreeSet<Role>)> {
    let roles = roles(value);
    let report = table.context().report;
    let id = match name.strip_prefix("person:") {
        Some(person) => {
            people.check(person, place, report);
            CallerId::Person(people.values.get(person)?.clone())
        }
        None => name.parse().map_err(|error| report.problem(place, format!("{error}"))).ok()?,
    };
    unfit(name, &id).into_iter().for_each(|what| report.problem(place, what));
    foreign(&id, trust_domain).into_iter().for_each(|what| report.problem(place, what));
    Some((id, roles))
}

/// The roles that a list names, with those that they bring.
pub(super) fn roles(value: &Value<'_>) -> BTreeSet<Role> {
    let words = Role::ALL.map(|role| (role.name(), role));
    value.items().iter().filter_map(|item| item.word(&words)).flat_map(Role::held).collect()
}

/// Why somebody is no operator. Automation is none: one identity is never agent and operator and automation at once.
fn unfit(name: &str, id: &CallerId) -> Option<String> {
    match id {
        CallerId::Agent(_) | CallerId::LocalUser(_) => None,
        CallerId::Person(_) if name.starts_with("person:") => None,
        CallerId::Person(_) => Some(format!("write `person:NAME` instead of `{name}`, and NAME in [people]")),
        CallerId::Drill => Some(format!("`{id}` is the broker's own, and nobody else is it")),
        CallerId::CiJob(_) | CallerId::KubeAccount(_) | CallerId::PersonalAgent(_) => Some(format!(
            "`{name}` is automation: it asks for leases, and holds no role over the broker; name its person, or an SVID \
             of its own"
        )),
    }
}

/// What is wrong with an id of another trust domain: its handshake would be refused.
pub(super) fn foreign(id: &CallerId, trust_domain: Option<&str>) -> Option<String> {
    let (CallerId::Agent(spiffe), Some(ours)) = (id, trust_domain) else { return None };
    (spiffe.trust_domain() != ours).then(|| {
        format!("`{id}` is in trust domain `{}`; this broker serves `{ours}`", spiffe.trust_domain())
    })
}
