//! How things are shown to people: words, times, columns.

use std::time::{Duration, SystemTime};

use leasehold_client::v1;
use v1::param_value::Kind;

/// The word of an enum without its prefix: `LEASE_STATE_ACTIVE` is "active"; unspecified is empty.
pub(crate) fn word(name: &str, prefix: &str) -> String {
    match name.strip_prefix(prefix).unwrap_or(name) {
        "UNSPECIFIED" => String::new(),
        word => word.to_lowercase().replace('_', "-"),
    }
}

/// Of enums that are shown.
pub(crate) trait Word {
    fn word(self) -> String;
}

macro_rules! words {
    ($($type:ty = $prefix:literal),* $(,)?) => {$(
        impl Word for $type {
            fn word(self) -> String {
                word(self.as_str_name(), $prefix)
            }
        }
    )*};
}

words! {
    v1::LeaseState = "LEASE_STATE_", v1::TaskState = "TASK_STATE_", v1::TaskOutcome = "TASK_OUTCOME_",
    v1::Cause = "CAUSE_", v1::Reached = "REACHED_", v1::Sessions = "SESSIONS_", v1::Proof = "PROOF_",
    v1::Grade = "GRADE_", v1::Limit = "LIMIT_", v1::Refusal = "REFUSAL_",
    v1::ReversibilityClass = "REVERSIBILITY_CLASS_", v1::decision::Outcome = "OUTCOME_",
    v1::CallerKind = "CALLER_KIND_", v1::Door = "DOOR_", v1::OperatorRole = "OPERATOR_ROLE_",
    v1::SweepVerdict = "SWEEP_VERDICT_", v1::DrillState = "DRILL_STATE_", v1::DrillStep = "DRILL_STEP_",
    v1::TargetState = "TARGET_STATE_", v1::BreakerState = "BREAKER_STATE_", v1::FindKind = "FIND_KIND_",
    v1::AgentStatus = "AGENT_STATUS_", v1::AgentSource = "AGENT_SOURCE_", v1::param_spec::Type = "TYPE_",
}

/// A moment in whole seconds, RFC 3339, UTC.
pub(crate) fn moment(at: SystemTime) -> String {
    stamp(Some(prost_types::Timestamp::from(at)))
}

/// A moment of the wire in whole seconds; empty when unset.
pub(crate) fn stamp(at: Option<prost_types::Timestamp>) -> String {
    at.map(|at| prost_types::Timestamp { nanos: 0, ..at }.to_string()).unwrap_or_default()
}

/// `1h30m`, `45s`, `250ms`.
pub(crate) fn length(length: Duration) -> String {
    let seconds = length.as_secs();
    if seconds == 0 {
        return if length.is_zero() { "0s".to_owned() } else { format!("{}ms", length.as_millis()) };
    }
    let parts =
        [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect()
}

/// A duration of the wire; empty when unset, with a sign when negative.
pub(crate) fn wire_length(wire: Option<prost_types::Duration>) -> String {
    wire.map(|wire| match Duration::try_from(wire) {
        Ok(positive) => length(positive),
        Err(error) => {
            let negative: prost_types::DurationError = error;
            match negative {
                prost_types::DurationError::NegativeDuration(size) => format!("-{}", length(size)),
                error @ (prost_types::DurationError::ParseFailure
                | prost_types::DurationError::OutOfRange
                | _) => error.to_string(),
            }
        }
    })
    .unwrap_or_default()
}

/// A parameter as it is written on the command line.
pub(crate) fn param(value: &v1::ParamValue) -> String {
    match &value.kind {
        Some(Kind::StringValue(text)) => text.clone(),
        Some(Kind::IntValue(number)) => number.to_string(),
        Some(Kind::BoolValue(flag)) => flag.to_string(),
        Some(Kind::ListValue(list)) => format!("[{}]", list.values.join("|")),
        None => String::new(),
    }
}

/// A pair with what narrows it, as it is written on the command line.
pub(crate) fn pair(pair: &v1::ScopePair) -> String {
    let mut text = format!("{}@{}", pair.intent, pair.target);
    if pair.max_ttl.is_some() {
        text.push_str(",ttl=");
        text.push_str(&wire_length(pair.max_ttl));
    }
    for (name, value) in &pair.params {
        text.push_str(&format!(",param.{name}={}", param(value)));
    }
    text
}

/// What a selector selects.
pub(crate) fn selector(selector: Option<&v1::Selector>) -> String {
    use v1::selector::Kind::{Agent, All, Incident, Intent, Lease, Owner, Person, Ref, Target, Task};
    match selector.and_then(|selector| selector.kind.as_ref()) {
        Some(Lease(id)) => format!("lease {id}"),
        Some(Task(id)) => format!("task {id}"),
        Some(Agent(id)) => format!("agent {id}"),
        Some(Owner(id)) => format!("owner {id}"),
        Some(Person(id)) => format!("person {id}"),
        Some(Target(name)) => format!("target {name}"),
        Some(Intent(name)) => format!("intent {name}"),
        Some(Ref(found)) => format!("ref {}={}", found.key, found.value),
        Some(Incident(id)) => format!("incident {id}"),
        Some(All(_)) => "everything".to_owned(),
        None => String::new(),
    }
}

/// Columns under a heading; `empty` instead when there are no rows.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>], empty: &str) -> String {
    if rows.is_empty() {
        return format!("{empty}\n");
    }
    let heading: Vec<String> = heading.iter().map(|name| (*name).to_owned()).collect();
    let mut widths: Vec<usize> = heading.iter().map(|name| name.chars().count()).collect();
    for row in rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    std::iter::once(&heading).chain(rows).map(|row| line(row, &widths)).collect()
}

fn line(row: &[String], widths: &[usize]) -> String {
    let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect::<String>();
    format!("{}\n", cells.trim_end())
}

/// Named values, one a line; those that are empty are left out.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let shown = fields.iter().filter(|(_, value)| !value.is_empty());
    let width = shown.clone().map(|(name, _)| name.len()).max().unwrap_or_default();
    shown.map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_length(seconds: u64, expect: &str) {
        assert_eq!(length(Duration::from_secs(seconds)), expect);
    }

    #[test]
    fn lengths_read_back_as_they_are_written() {
        check_length(0, "0s");
        check_length(45, "45s");
        check_length(600, "10m");
        check_length(5430, "1h30m30s");
        check_length(90_000, "1d1h");
        assert_eq!(length(Duration::from_millis(250)), "250ms");
        let negative = prost_types::Duration { seconds: -61, nanos: 0 };
        assert_eq!(wire_length(Some(negative)), "-1m1s");
    }

    #[test]
    fn enums_read_as_words() {
        assert_eq!(v1::Cause::TaskLost.word(), "task-lost");
        assert_eq!(v1::LeaseState::Unspecified.word(), "");
    }

    #[test]
    fn columns_stand_under_their_heading() {
        let rows = [vec!["a".to_owned(), "long".to_owned()], vec!["bbbb".to_owned(), String::new()]];
        assert_eq!(table(&["ID", "B"], &rows, "none"), "ID    B\na     long\nbbbb\n");
        assert_eq!(table(&["ID"], &[], "no leases"), "no leases\n");
    }

    #[test]
    fn empty_fields_are_left_out() {
        assert_eq!(
            fields(&[("id", "x".into()), ("owner", String::new()), ("a", "y".into())]),
            "id  x\na   y\n"
        );
    }
}
