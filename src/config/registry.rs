//! `[registry]`: what holds for all agents, however they were registered.

use leasehold_law::registry::Rules;
use leasehold_law::time::Span;

use super::agents::{group_names, levels};
use super::table::{Table, Value};

/// A shorter time between two reviews is a slip of the pen.
const LEAST_REVIEW: Span = Span::from_mins(24 * 60);

pub(super) fn read(root: &Table<'_>) -> Rules {
    let read = |value: Value<'_>| value.read(|table| Some(rules(table)));
    root.get("registry").and_then(read).unwrap_or_default()
}

fn rules(table: &Table<'_>) -> Rules {
    let default = Rules::default();
    Rules {
        review_every: table.get("review_every").and_then(|value| review_every(&value)),
        on_drift: table.get("on_drift").and_then(|value| value.word(&levels())).unwrap_or(default.on_drift),
        groups: group_names(table),
    }
}

fn review_every(value: &Value<'_>) -> Option<Span> {
    let every: Span = value.parsed()?;
    if every < LEAST_REVIEW {
        value.problem(format!("agents are reviewed every {LEAST_REVIEW} or more seldom; this is {every}"));
    }
    Some(every)
}
