//! `[sweep]`: how often targets are searched for principals that no lease explains.

use leasehold_law::time::Span;

use super::table::Table;

/// The shortest and the longest time between two sweeps.
const EVERY: (Span, Span) = (Span::from_mins(1), Span::from_mins(24 * 60));

/// `[sweep]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// How often each target is swept.
    pub every: Span,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { every: Span::from_mins(10) }
    }
}

pub(super) fn read(root: &Table<'_>) -> Sweep {
    let read = |value: super::table::Value<'_>| value.read(|table| Some(sweep(table)));
    root.get("sweep").and_then(read).unwrap_or_default()
}

fn sweep(table: &Table<'_>) -> Sweep {
    let (least, most) = EVERY;
    let Some(value) = table.get("every") else { return Sweep::default() };
    let every = value.parsed::<Span>().unwrap_or(Sweep::default().every);
    if every < least || every > most {
        value.problem(format!("targets are swept every {least} to {most}; this is {every}"));
    }
    Sweep { every }
}
