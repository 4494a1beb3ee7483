//! `[agents]`: the workloads that may ask, and who answers for each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use leasehold_law::caller::{CallerId, DRILL, Vouched};
use leasehold_law::catalog::{Agent, Autonomy, Owner};
use leasehold_law::registry::pattern::WhoError;
use leasehold_law::registry::{Pattern, Registration, Rules, Status, Terms, Who};
use leasehold_law::request::MAX_PURPOSE_BYTES;
use leasehold_law::scope::is_name;
use leasehold_law::time::{Day, DayError, Timestamp};

use super::identity::TrustDomains;
use super::names::Names;
use super::problem::Report;
use super::source::Place;
use super::table::{Table, Value};

/// The people and groups that may own things.
pub(super) struct Owners<'a> {
    pub(super) people: &'a Names<Vouched>,
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

/// What a registration is checked against.
#[derive(Clone, Copy)]
pub(super) struct World<'a> {
    pub(super) owners: &'a Owners<'a>,
    pub(super) trusted: TrustDomains<'a>,
    /// Operators and the broker itself: none of them is ever an agent.
    pub(super) reserved: &'a BTreeSet<CallerId>,
}

pub(super) fn read(parts: &[Table<'_>], world: World<'_>) -> Names<Registration> {
    let agents = Names::collect(parts, ("agents", "agent"), Table::entries, |id, value| {
        registration(id, value, world)
    });
    let patterns: Vec<_> =
        agents.values.iter().filter_map(|(name, one)| Some((name, pattern(&one.who)?))).collect();
    for (index, (name, one)) in patterns.iter().enumerate() {
        let other = patterns.iter().take(index).find(|(_, other)| other.overlaps(one));
        if let (Some((first, _)), Some(place), Some(part)) = (other, agents.place(name), parts.first()) {
            part.context().report.problem(place, overlap(name, first));
        }
    }
    agents
}

/// Warns of agents that may only observe until somebody has looked at them.
pub(super) fn warn_unreviewed(agents: &Names<Registration>, rules: &Rules, report: &Report) {
    let never = |one: &Registration| rules.review_every.is_some() && one.terms.reviewed.is_none();
    for (name, _) in agents.values.iter().filter(|(_, one)| never(one)) {
        let what = format!("no `reviewed` for `{name}`: until it is reviewed it may only observe");
        agents.place(name).into_iter().for_each(|place| report.warning(place, &*what));
    }
}

/// Groups of agents, each with the place where it is first named.
pub(super) type Groups<'a> = BTreeMap<&'a str, &'a Place>;

/// The groups that registrations name.
pub(super) fn groups(agents: &Names<Registration>) -> impl Iterator<Item = (&str, &Place)> {
    let named = agents.values.iter().filter_map(|(name, one)| Some((&one.terms.groups, agents.place(name)?)));
    named.flat_map(|(groups, place)| groups.iter().map(move |group| (group.as_str(), place)))
}

/// The message for two patterns that take in the same identity.
pub(super) fn overlap(one: &impl fmt::Display, other: &impl fmt::Display) -> String {
    format!("`{one}` and `{other}` take in the same identities: one of them must be narrower, or go")
}

/// The pattern, of a registration that is for many.
pub(super) fn pattern(who: &Who) -> Option<&Pattern> {
    match who {
        Who::One(_) => None,
        Who::Each(pattern) => Some(pattern),
    }
}

/// One table.
pub(super) fn registration(id: &str, value: &Value<'_>, world: World<'_>) -> Option<Registration> {
    let who = who(id, value, world);
    let terms = value.read(|table| terms(table, world.owners));
    Some(Registration { who: who?, terms: terms? })
}

/// What operators say of an agent, however it is proven.
pub(super) struct Facts(Terms);

impl Facts {
    pub(super) fn read(table: &Table<'_>, owners: &Owners<'_>) -> Option<Self> {
        terms(table, owners).map(Self)
    }

    /// The agent of this identity.
    pub(super) fn of(self, id: CallerId) -> Agent {
        self.0.agent(id)
    }
}

/// An agent that another table registers, by its name.
pub(super) fn named(agent: &Agent) -> (String, Registration) {
    (agent.id.to_string(), Registration { who: Who::One(agent.id.clone()), terms: Terms::from(agent) })
}

fn terms(table: &Table<'_>, owners: &Owners<'_>) -> Option<Terms> {
    let owner = owners.read(table);
    let groups = group_names(table);
    let autonomy = table.need("autonomy").and_then(|value| value.word(&levels()));
    let purpose = table.get("purpose").and_then(|value| purpose(&value)).unwrap_or_default();
    let statuses = Status::ALL.map(|status| (status.name(), status));
    let status = table.get("status").map_or(Some(Status::Active), |value| value.word(&statuses));
    let reviewed = table.get("reviewed").map(|value| day(&value));
    let manifest = table.get("manifest").map(|value| value.parsed());
    Some(Terms {
        owner: owner?,
        groups,
        autonomy: autonomy?,
        purpose,
        status: status?,
        reviewed: lift(reviewed)?,
        manifest: lift(manifest)?,
    })
}

/// What may be left out, but not be wrong.
fn lift<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    read.map_or(Some(None), |value| value.map(Some))
}

/// The levels of autonomy, by name.
pub(super) fn levels() -> [(&'static str, Autonomy); 3] {
    [Autonomy::Observe, Autonomy::Propose, Autonomy::Act].map(|level| (level.name(), level))
}

/// A day, in quotes or as TOML writes one.
fn day(value: &Value<'_>) -> Option<Timestamp> {
    let written = value.raw().as_datetime().map(ToString::to_string);
    let day: Day = match written {
        Some(text) => text.parse().map_err(|error: DayError| value.problem(error.to_string())).ok()?,
        None => value.parsed()?,
    };
    Some(day.0)
}

fn who(text: &str, value: &Value<'_>, world: World<'_>) -> Option<Who> {
    if text == DRILL {
        value.problem(format!(
            "`{DRILL}` is the broker's own agent: it is there by itself, and nobody else is it"
        ));
        return None;
    }
    let who: Who = text.parse().map_err(|error: WhoError| value.problem(error.to_string())).ok()?;
    match &who {
        Who::One(CallerId::Agent(_)) => {}
        Who::One(_) => {
            value.problem(WhoError::Id(text.to_owned()).to_string());
            return None;
        }
        Who::Each(pattern) => {
            elsewhere(pattern, world.trusted).into_iter().for_each(|what| value.problem(what));
        }
    }
    if let Who::One(id) = &who {
        world.trusted.foreign(id).into_iter().for_each(|what| value.problem(what));
    }
    if let Some(taken) = world.reserved.iter().find(|id| who.takes_in(id)) {
        value.problem(format!(
            "`{taken}` is an operator or the broker itself: one identity is never that and an agent"
        ));
    }
    Some(who)
}

/// What is wrong with a pattern of another trust domain.
fn elsewhere(pattern: &Pattern, trusted: TrustDomains<'_>) -> Option<String> {
    trusted.elsewhere(&pattern.to_string(), pattern.trust_domain())
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
