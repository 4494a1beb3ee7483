//! `[tasks]`: how long tasks live, and how long their agents may be silent.

use leasehold_law::time::Span;

use super::table::{Table, Value};

/// The shortest and the longest grace that an agent may be silent for (DESIGN.md section 3, "What holds a task").
const GRACE: (Span, Span) = (Span::from_secs(30), Span::from_mins(10));

/// `[tasks]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tasks {
    /// How long an agent may be silent, unless its task says otherwise.
    pub grace: Span,
    /// The deadline of a task that names none.
    pub default_deadline: Span,
    /// The longest deadline that a task may ask for.
    pub max_deadline: Span,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            grace: Span::from_secs(60),
            default_deadline: Span::from_mins(60),
            max_deadline: Span::from_mins(12 * 60),
        }
    }
}

pub(super) fn read(root: &Table<'_>) -> Tasks {
    let read = |value: Value<'_>| value.read(|table| Some(tasks(table)));
    root.get("tasks").and_then(read).unwrap_or_default()
}

fn tasks(table: &Table<'_>) -> Tasks {
    let mut tasks = Tasks::default();
    if let Some(value) = table.get("grace") {
        tasks.grace = grace(&value).unwrap_or(tasks.grace);
    }
    if let Some(value) = table.get("deadline") {
        let default = value.read(|table| {
            tasks.max_deadline = table.parsed_or("max", tasks.max_deadline);
            Some(table.parsed_or("default", tasks.default_deadline.min(tasks.max_deadline)))
        });
        tasks.default_deadline = default.unwrap_or(tasks.default_deadline);
        let (default, max) = (tasks.default_deadline, tasks.max_deadline);
        if default == Span::ZERO || default > max {
            value.problem(format!("deadlines need 0 < default <= max; this is default {default}, max {max}"));
        }
    }
    tasks
}

fn grace(value: &Value<'_>) -> Option<Span> {
    let (least, most) = GRACE;
    let grace: Span = value.parsed()?;
    if grace < least || grace > most {
        value.problem(format!("grace is {least} to {most}; this is {grace}"));
    }
    Some(grace)
}
