//! `[operators]`: who may do what to the broker itself (RULES R-19).

use std::collections::{BTreeMap, BTreeSet};

use leasehold_law::caller::CallerId;

use super::roles::Role;
use super::table::{Entry, Table};

/// The roles of each operator, with those that an admin holds by being one.
pub type Operators = BTreeMap<CallerId, BTreeSet<Role>>;

pub(super) fn read(root: &Table<'_>, trust_domain: Option<&str>) -> Operators {
    let Some(table) = root.need("operators").and_then(|value| value.table()) else { return Operators::new() };
    let operators: Operators =
        table.entries().iter().filter_map(|entry| operator(&table, entry, trust_domain)).collect();
    if !operators.values().any(|roles| roles.contains(&Role::Admin)) {
        table.context().report.warning(table.place(), "nobody is an admin: no freeze can be lifted");
    }
    operators
}

fn operator(
    table: &Table<'_>,
    Entry { name, place, value }: &Entry<'_>,
    trust_domain: Option<&str>,
) -> Option<(CallerId, BTreeSet<Role>)> {
    let words = Role::ALL.map(|role| (role.name(), role));
    let roles: Vec<_> = value.items().iter().filter_map(|item| item.word(&words)).collect();
    let report = table.context().report;
    let id = name.parse().map_err(|error| report.problem(place, format!("{error}"))).ok()?;
    if id == CallerId::Drill {
        report.problem(place, format!("`{id}` is the broker's own, and nobody else is it"));
    }
    foreign(&id, trust_domain).into_iter().for_each(|what| report.problem(place, what));
    Some((id, roles.into_iter().flat_map(Role::held).collect()))
}

/// What is wrong with an id of another trust domain: its handshake would be refused.
pub(super) fn foreign(id: &CallerId, trust_domain: Option<&str>) -> Option<String> {
    let (CallerId::Agent(spiffe), Some(ours)) = (id, trust_domain) else { return None };
    (spiffe.trust_domain() != ours).then(|| {
        format!("`{id}` is in trust domain `{}`; this broker serves `{ours}`", spiffe.trust_domain())
    })
}
