//! `[[grants]]`: which intent is minted how on which targets, and for how long.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_law::catalog::{Grant, Intent, Recipe, TtlRule};
use leasehold_law::registry::Registration;
use leasehold_law::request::MAX_TTL;
use leasehold_law::scope::Pair;
use leasehold_law::time::Span;

use super::json::{self, Lines};
use super::names::Names;
use super::personal::Personal;
use super::problem::did_you_mean;
use super::source::Place;
use super::table::{Table, Value};
use super::targets::Target;
use super::twice;

/// What grants may name.
pub(super) struct World<'a> {
    pub(super) agents: &'a Names<Registration>,
    pub(super) personal: &'a Names<Personal>,
    /// Groups that agents may be put into while the broker runs.
    pub(super) groups: &'a BTreeSet<String>,
    pub(super) intents: &'a Names<Intent>,
    pub(super) targets: &'a Names<Target>,
}

/// The grants, and where they and the parts of their recipes stand.
#[derive(Default)]
pub(super) struct Grants {
    pub(super) values: BTreeMap<Pair, Grant>,
    pub(super) places: BTreeMap<Pair, Place>,
    pub(super) recipes: BTreeMap<Pair, Lines>,
}

pub(super) fn read(parts: &[Table<'_>], world: &World<'_>) -> Grants {
    let mut grants = Grants::default();
    for item in parts.iter().filter_map(|part| part.get("grants")).flat_map(|list| list.items()) {
        item.read(|table| {
            let targets = targets(table, world);
            let intent = intent(table, world);
            let recipe = table.need("recipe").and_then(|value| json::read(&value, &[]));
            let ttl = table.need("ttl").and_then(|value| ttl(&value));
            let allow = allow(table, world);
            let (intent, (recipe, lines), ttl) = (intent?, recipe?, ttl?);
            for (target, place) in targets {
                let pair = Pair { intent: intent.to_owned(), target: target.to_owned() };
                let grant = Grant { pair, recipe: Recipe(recipe.clone()), ttl, allow: allow.clone() };
                grants.define(grant, place, lines.clone(), &item);
            }
            Some(())
        });
    }
    grants
}

impl Grants {
    fn define(&mut self, grant: Grant, place: Place, lines: Lines, item: &Value<'_>) {
        let pair = grant.pair.clone();
        if let Some(first) = self.places.get(&pair) {
            item.context().report.problem(&place, twice::told(&format!("a grant for `{pair}`"), first));
            return;
        }
        self.places.insert(pair.clone(), place);
        self.recipes.insert(pair.clone(), lines);
        self.values.insert(pair, grant);
    }
}

fn intent<'a>(table: &Table<'a>, world: &World<'_>) -> Option<&'a str> {
    let value = table.need("intent")?;
    let name = value.text()?;
    world.intents.check(name, value.place(), value.context().report);
    Some(name)
}

fn targets<'a>(table: &Table<'a>, world: &World<'_>) -> Vec<(&'a str, Place)> {
    let Some(list) = table.need("targets") else { return Vec::new() };
    let targets = list.texts();
    if targets.is_empty() && list.raw().as_array().is_some_and(|items| items.is_empty()) {
        list.problem("a grant needs a target");
    }
    targets.iter().for_each(|(name, place)| world.targets.check(name, place, list.context().report));
    targets
}

/// The rule that the law rests on: a default, no longer than one lease, no longer than all of its renewals.
fn ttl(value: &Value<'_>) -> Option<TtlRule> {
    let rule = value.read(|table| {
        let (default, max, life) =
            (table.need_parsed("default"), table.need_parsed("max"), table.need_parsed("life"));
        Some(TtlRule { default: default?, max: max?, life: life? })
    })?;
    let TtlRule { default, max, life } = rule;
    if default == Span::ZERO || default > max || max > life {
        let what = format!(
            "ttl needs 0 < default <= max <= life; this is default {default}, max {max}, life {life}"
        );
        value.problem(what);
    }
    if max > MAX_TTL {
        value.problem(format!("the longest ttl is {MAX_TTL}; this is max {max}"));
    }
    Some(rule)
}

fn allow(table: &Table<'_>, world: &World<'_>) -> BTreeSet<String> {
    let personal = world.personal.values.values().flat_map(|personal| &personal.agents);
    let groups = world.agents.values.values().map(|one| &one.terms.groups);
    let groups = groups.chain(personal.map(|agent| &agent.groups)).chain([world.groups]);
    let known: BTreeSet<_> = groups.flatten().map(String::as_str).collect();
    let report = table.context().report;
    let mut groups = BTreeSet::new();
    for (text, place) in table.texts("allow") {
        match text.strip_prefix("agents:") {
            // An agent that could not be read may be in any group.
            Some(group)
                if known.contains(group) || !world.agents.is_whole() || !world.personal.is_whole() =>
            {
                groups.insert(group.to_owned());
            }
            Some(group) => {
                let hint = did_you_mean(group, known.iter().copied());
                report.absent(&place, format!("no agent is in a group `{group}`{hint}"));
            }
            None => report.problem(&place, format!("`{text}` allows nobody; write `agents:GROUP`")),
        }
    }
    groups
}
