//! `[agents]`: the workloads that may ask, and who answers for each.

use std::collections::BTreeSet;

use leasehold_law::caller::{CallerId, DRILL};
use leasehold_law::catalog::{Agent, Autonomy, Owner};
use leasehold_law::request::MAX_PURPOSE_BYTES;
use leasehold_law::scope::is_name;

use super::identity::TrustDomains;
use super::names::Names;
use super::people::Person;
use super::table::{Table, Value};

/// The people and groups that may own things.
pub(super) struct Owners<'a> {
    pub(super) people: &'a Names<Person>,
    pub(super) groups: &'a Names<BTreeSet<String>>,
}

impl Owners<'_> {
    /// The owner that a table names, who must exist.
    pub(super) fn read(&self, table: &Table<'_>) -> Option<Owner> {
        let value = table.need("owner")?;
        let owner: Owner = value.parsed()?;
        let report = value.context().report;
        match &owner {
            Owner::Person(name) => self.people.check(name, value.place(), report),
            Owner::Group(name) => self.groups.check(name, value.place(), report),
            Owner::Broker => value.problem(format!(
                "`{owner}` answers for its own drills alone; write `person:NAME` or `group:NAME`"
            )),
        }
        Some(owner)
    }
}

pub(super) fn read(parts: &[Table<'_>], owners: &Owners<'_>, trusted: TrustDomains<'_>) -> Names<Agent> {
    Names::collect(parts, ("agents", "agent"), Table::entries, |id, value| agent(id, value, owners, trusted))
}

fn agent(id: &str, value: &Value<'_>, owners: &Owners<'_>, trusted: TrustDomains<'_>) -> Option<Agent> {
    let id = agent_id(id, value, trusted);
    value.read(|table| {
        let facts = Facts::read(table, owners);
        Some(facts?.of(id?))
    })
}

/// What operators say of an agent, however it is proven.
pub(super) struct Facts {
    owner: Owner,
    groups: BTreeSet<String>,
    autonomy: Autonomy,
    purpose: String,
}

impl Facts {
    pub(super) fn read(table: &Table<'_>, owners: &Owners<'_>) -> Option<Self> {
        let words = [Autonomy::Observe, Autonomy::Propose, Autonomy::Act].map(|level| (level.name(), level));
        let owner = owners.read(table);
        let groups = group_names(table);
        let autonomy = table.need("autonomy").and_then(|value| value.word(&words));
        let purpose = table.get("purpose").and_then(|value| purpose(&value)).unwrap_or_default();
        Some(Self { owner: owner?, groups, autonomy: autonomy?, purpose })
    }

    /// The agent of this identity.
    pub(super) fn of(self, id: CallerId) -> Agent {
        let Self { owner, groups, autonomy, purpose } = self;
        Agent { id, owner, groups, autonomy, purpose }
    }
}

fn agent_id(text: &str, value: &Value<'_>, trusted: TrustDomains<'_>) -> Option<CallerId> {
    if text == DRILL {
        value.problem(format!(
            "`{DRILL}` is the broker's own agent: it is there by itself, and nobody else is it"
        ));
        return None;
    }
    let Ok(id) = text.parse().map(CallerId::Agent) else {
        value.problem(format!(
            "`{text}` is not a SPIFFE ID: write it like `spiffe://prod.example/agent/triage`"
        ));
        return None;
    };
    trusted.foreign(&id).into_iter().for_each(|what| value.problem(what));
    Some(id)
}

/// The groups that an agent or a target puts itself into.
pub(super) fn group_names(table: &Table<'_>) -> BTreeSet<String> {
    let (good, bad): (Vec<_>, Vec<_>) =
        table.texts("groups").into_iter().partition(|(name, _)| is_name(name));
    for (name, place) in bad {
        table.context().report.problem(&place, format!("`{name}` is not the name of a group"));
    }
    good.into_iter().map(|(name, _)| name.to_owned()).collect()
}

pub(super) fn purpose(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.len() > MAX_PURPOSE_BYTES {
        value
            .problem(format!("a purpose has at most {MAX_PURPOSE_BYTES} bytes; this one has {}", text.len()));
    }
    Some(text.to_owned())
}
