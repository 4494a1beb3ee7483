//! `[drill]`, and `drill` of a target: how often it is proven that what is revoked is dead, and with what
//! (REQUIREMENTS REV-8).

use std::collections::BTreeMap;

use leasehold_law::catalog::{Catalog, Class, Floor, Grant};
use leasehold_law::drill::Plan;
use leasehold_law::param::{ParamValue, Params, check_params};
use leasehold_law::scope::Pair;
use leasehold_law::time::Span;

use super::json;
use super::problem::Report;
use super::source::Place;
use super::table::{Table, Value};
use super::targets::Target;

/// The shortest and the longest time between two drills of a target.
const EVERY: (Span, Span) = (Span::from_mins(10), Span::from_mins(31 * 24 * 60));

/// `[drill]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drill {
    /// How often each target is drilled; not by itself, where nothing is said.
    pub every: Option<Span>,
}

/// What `drill` of a target says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DrillChoice {
    /// Nothing: it is drilled with the read-only grant of the shortest life that needs no word of anybody.
    #[default]
    Narrowest,
    /// It is never drilled.
    Never,
    /// It is drilled with this.
    With {
        /// The intent.
        intent: String,
        /// What the intent needs.
        params: Params,
        /// Where that stands.
        place: Place,
    },
}

pub(super) fn read(root: &Table<'_>) -> Drill {
    let read = |value: Value<'_>| value.read(|table| Some(drill(table)));
    root.get("drill").and_then(read).unwrap_or_default()
}

fn drill(table: &Table<'_>) -> Drill {
    let (least, most) = EVERY;
    let Some(value) = table.need("every") else { return Drill::default() };
    let every: Option<Span> = value.parsed();
    if let Some(every) = every.filter(|every| *every < least || *every > most) {
        value.problem(format!("targets are drilled every {least} to {most}; this is {every}"));
    }
    Drill { every }
}

/// `"INTENT"`, `{ intent = "INTENT", params = { KEY = VALUE } }` or `false`.
pub(super) fn choice(value: &Value<'_>) -> Option<DrillChoice> {
    if let Some(wanted) = value.raw().as_bool() {
        return Some(if wanted { DrillChoice::Narrowest } else { DrillChoice::Never });
    }
    let place = value.place().clone();
    if value.raw().is_table() {
        return value.read(|table| {
            let intent = table.need("intent").and_then(|value| value.filled());
            let params = table.get("params").map(|value| params(&value)).unwrap_or_default();
            Some(DrillChoice::With { intent: intent?.to_owned(), params, place: place.clone() })
        });
    }
    let intent = value.filled()?.to_owned();
    Some(DrillChoice::With { intent, params: Params::new(), place })
}

fn params(value: &Value<'_>) -> Params {
    let (table, lines) = json::read(value, &[]).unzip();
    let mut params = Params::new();
    for (name, json) in table.unwrap_or_default() {
        match serde_json::from_value::<ParamValue>(json) {
            Ok(param) => drop(params.insert(name, param)),
            Err(_) => {
                let place = lines.as_ref().map_or(value.place(), |lines| lines.place(&format!("/{name}")));
                let what =
                    format!("parameter `{name}` is text, a whole number, true or false, or a list of texts");
                value.context().report.problem(place, what);
            }
        }
    }
    params
}

/// What each target is drilled with.
pub(super) fn plans(
    catalog: &Catalog,
    targets: &BTreeMap<String, Target>,
    drill: Drill,
    report: &Report,
) -> BTreeMap<String, Plan> {
    let plan = |(name, target): (&String, &Target)| {
        let plan = match &target.drill {
            DrillChoice::Never => return None,
            DrillChoice::Narrowest => narrowest(catalog, name),
            DrillChoice::With { intent, params, place } => {
                let pair = Pair { intent: intent.clone(), target: name.clone() };
                return chosen(catalog, Plan { pair, params: params.clone() }, place, report);
            }
        };
        if plan.is_none() && drill.every.is_some() {
            let what = format!(
                "`{name}` is not drilled: no read-only grant on it does without people and parameters; name one with \
                 `drill`, or write `drill = false`"
            );
            report.warning(target.lines.place(""), what);
        }
        Some((name.clone(), plan?))
    };
    targets.iter().filter_map(plan).collect()
}

/// The grant that does least: it reads, needs neither people nor parameters, and lives the shortest.
fn narrowest(catalog: &Catalog, target: &str) -> Option<Plan> {
    let of_target = catalog.grants.values().filter(|grant| grant.pair.target == target);
    let fit = of_target.filter(|grant| reads(catalog, grant) && fault(catalog, &bare(grant)).is_none());
    fit.min_by_key(|grant| (grant.ttl.life, grant.ttl.max, grant.pair.clone())).map(bare)
}

fn bare(grant: &Grant) -> Plan {
    Plan { pair: grant.pair.clone(), params: Params::new() }
}

fn reads(catalog: &Catalog, grant: &Grant) -> bool {
    catalog.intents.get(&grant.pair.intent).is_some_and(|intent| intent.class == Class::ReadOnly)
}

fn chosen(catalog: &Catalog, plan: Plan, place: &Place, report: &Report) -> Option<(String, Plan)> {
    match fault(catalog, &plan) {
        None => Some((plan.pair.target.clone(), plan)),
        Some(what) => {
            report.problem(place, what);
            None
        }
    }
}

/// Why a target cannot be drilled with that.
fn fault(catalog: &Catalog, plan: &Plan) -> Option<String> {
    let pair = &plan.pair;
    if !catalog.grants.contains_key(pair) {
        return Some(format!("there is no grant `{pair}` to drill with"));
    }
    let (intent, target) = (catalog.intents.get(&pair.intent)?, catalog.targets.get(&pair.target)?);
    if catalog.floors.of(intent.class, &target.labels) == Floor::Ask {
        return Some(format!("`{pair}` needs people, and a drill asks nobody"));
    }
    let wrong = check_params(&intent.params, &plan.params).into_iter().next()?;
    Some(format!(
        "a drill with `{pair}`: {wrong}; write `drill = {{ intent = \"{}\", params = {{ ... }} }}`",
        pair.intent
    ))
}
