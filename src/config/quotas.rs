//! `[quotas]`: what agents, owners and targets may use at most (REQUIREMENTS POL-9).

use std::collections::BTreeSet;

use leasehold_law::caller::CallerId;
use leasehold_law::catalog::Owner;
use leasehold_law::quota::{Holder, Quota, Quotas, Rate};
use leasehold_law::registry::Pattern;

use super::names::Names;
use super::table::{Entry, Table, Value};

/// The live leases of an agent where nothing is said: more than honest use needs, fewer than fill a store.
const LIVE_OF_AN_AGENT: u64 = 10_000;
/// The word for no bound.
const UNLIMITED: &str = "unlimited";

/// Names that quotas may refer to.
pub(super) struct World<'a, A, T> {
    pub(super) agents: &'a Names<A>,
    /// Agents that other tables make, each by its own name: one for each person who may have it.
    pub(super) personal: &'a BTreeSet<CallerId>,
    /// Whoever fits one is an agent too.
    pub(super) patterns: &'a [Pattern],
    pub(super) targets: &'a Names<T>,
}

impl<A, T> World<'_, A, T> {
    /// Whether this is an agent that no table of `[agents]` and its like names.
    fn knows(&self, id: &CallerId) -> bool {
        self.personal.contains(id) || self.patterns.iter().any(|pattern| pattern.matches(id))
    }

    fn personal_names(&self) -> Vec<String> {
        self.personal.iter().map(ToString::to_string).collect()
    }
}

pub(super) fn defaults() -> Quotas {
    let agent = Quota { live: Some(LIVE_OF_AN_AGENT), rate: None };
    Quotas { agent, ..Quotas::default() }
}

pub(super) fn read<A, T>(root: &Table<'_>, world: &World<'_, A, T>) -> Quotas {
    let read = |value: Value<'_>| value.read(|table| Some(quotas(table, world)));
    root.get("quotas").and_then(read).unwrap_or_else(defaults)
}

fn quotas<A, T>(table: &Table<'_>, world: &World<'_, A, T>) -> Quotas {
    let mut quotas = defaults();
    quotas.agent = general(table, "agent", quotas.agent);
    quotas.owner = general(table, "owner", quotas.owner);
    quotas.target = general(table, "target", quotas.target);
    let report = table.context().report;
    for entry in entries(table, "agents") {
        let id = entry.name.parse::<CallerId>().ok();
        if !id.as_ref().is_some_and(|id| world.knows(id)) {
            world.agents.check_among(entry.name, &world.personal_names(), &entry.place, report);
        }
        if entry.name.parse::<Pattern>().is_ok() {
            report.problem(&entry.place, format!("`{}`: a quota names one agent, not a pattern", entry.name));
        }
        let holder = id.map(Holder::Agent);
        name(&mut quotas, holder, &entry);
    }
    for entry in entries(table, "owners") {
        let owner: Result<Owner, _> = entry.name.parse();
        let owner = owner.map_err(|error| report.problem(&entry.place, error.to_string()));
        if owner == Ok(Owner::Broker) {
            report.problem(&entry.place, format!("no quota counts what `{}` drills", entry.name));
        }
        name(&mut quotas, owner.ok().map(Holder::Owner), &entry);
    }
    for entry in entries(table, "targets") {
        world.targets.check(entry.name, &entry.place, report);
        name(&mut quotas, Some(Holder::Target(entry.name.to_owned())), &entry);
    }
    quotas
}

fn entries<'a>(table: &Table<'a>, key: &'static str) -> Vec<Entry<'a>> {
    table.get(key).and_then(|value| value.table()).map(|table| table.entries()).unwrap_or_default()
}

/// What a named quota leaves out it has from its kind.
fn name(quotas: &mut Quotas, holder: Option<Holder>, entry: &Entry<'_>) {
    let Some(holder) = holder else { return };
    let quota = quota(&entry.value, quotas.of(&holder));
    quotas.named.insert(holder, quota);
}

fn general(table: &Table<'_>, key: &'static str, default: Quota) -> Quota {
    table.get(key).map_or(default, |value| quota(&value, default))
}

fn quota(value: &Value<'_>, default: Quota) -> Quota {
    let read = value.read(|table| {
        let live = table.get("live").map_or(default.live, |value| live(&value));
        let rate = table.get("rate").map_or(default.rate, |value| rate(&value));
        Some(Quota { live, rate: burst(table, rate) })
    });
    read.unwrap_or(default)
}

fn live(value: &Value<'_>) -> Option<u64> {
    if value.raw().as_str() == Some(UNLIMITED) {
        return None;
    }
    let number = value.int()?;
    let live = u64::try_from(number);
    live.map_err(|_| value.problem(format!("`live` is 0 or more, or \"{UNLIMITED}\"; this is {number}"))).ok()
}

fn rate(value: &Value<'_>) -> Option<Rate> {
    if value.raw().as_str() == Some(UNLIMITED) { None } else { value.parsed() }
}

fn burst(table: &Table<'_>, rate: Option<Rate>) -> Option<Rate> {
    let Some(value) = table.get("burst") else { return rate };
    let burst = value.int().and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0);
    match (rate, burst) {
        (Some(rate), Some(burst)) => Some(Rate { burst, ..rate }),
        (None, _) => {
            value.problem("`burst` says how many may come at once beyond a rate; write `rate` beside it");
            None
        }
        (rate, None) => {
            value.problem("`burst` is a whole number from 1 on");
            rate
        }
    }
}
