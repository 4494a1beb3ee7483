//! Between Rust values and SQL ones.

use std::fmt;

use leasehold_law::cause::Rank;
use leasehold_law::subject::Subject;
use rusqlite::types::Value;

use super::StoreError;

/// SQLite's numbers have 63 bits and a sign; no count of ours comes near.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// How many rows at most.
pub(super) fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// A count or a version that was stored.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A lane as it is stored.
pub(super) const fn lane_number(lane: Rank) -> i64 {
    match lane {
        Rank::Routine => 0,
        Rank::TaskEnd => 1,
        Rank::Security => 2,
    }
}

/// A lane that was stored; a number of no lane counts as the most urgent.
pub(super) const fn lane_of(number: i64) -> Rank {
    match number {
        0 => Rank::Routine,
        1 => Rank::TaskEnd,
        _ => Rank::Security,
    }
}

/// What SQLite says went wrong; its messages name tables and columns, never values.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub(super) fn unusable(error: rusqlite::Error) -> StoreError {
    let text = error.to_string();
    if is_about_a_value(&error) { StoreError::Unreadable(text) } else { StoreError::Unusable(text) }
}

fn is_about_a_value(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
    )
}

/// A value of ours as JSON text.
pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unusable(error.to_string()))
}

/// Where the version of a subject is kept.
#[derive(Debug)]
pub(super) enum Place {
    /// In the task's own row.
    Task(String),
    /// In the lease's own row.
    Lease(String),
    /// In the table of subjects, by its JSON.
    Subject(String),
}

impl Place {
    /// Where this subject's version is kept.
    pub(super) fn of(subject: &Subject) -> Result<Self, StoreError> {
        Ok(match subject {
            Subject::Task(id) => Self::Task(id.to_string()),
            Subject::Lease(id) => Self::Lease(id.to_string()),
            Subject::Agent(_) | Subject::Target(_) | Subject::Policy | Subject::Freezes => {
                Self::Subject(json(subject)?)
            }
        })
    }

    /// The query for the version and its one parameter.
    pub(super) fn query(&self) -> (&'static str, &str) {
        match self {
            Self::Task(id) => ("SELECT version FROM tasks WHERE id = ?", id),
            Self::Lease(id) => ("SELECT version FROM leases WHERE id = ?", id),
            Self::Subject(key) => ("SELECT version FROM subjects WHERE subject = ?", key),
        }
    }
}

/// The terms of a WHERE clause, each with at most one parameter.
#[derive(Default)]
pub(super) struct Terms {
    sql: String,
    values: Vec<Value>,
}

impl Terms {
    /// Adds a term if there is a value for it.
    pub(super) fn with<T: Into<Value>>(mut self, term: &str, value: Option<T>) -> Self {
        if let Some(value) = value {
            self.push(term);
            self.values.push(value.into());
        }
        self
    }

    /// Adds a term without a value if it is asked for.
    pub(super) fn when(mut self, asked: bool, term: &str) -> Self {
        if asked {
            self.push(term);
        }
        self
    }

    fn push(&mut self, term: &str) {
        self.sql.push_str(if self.sql.is_empty() { " WHERE " } else { " AND " });
        self.sql.push_str(term);
    }

    /// The values, in the order of their terms.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value> {
        self.values.iter()
    }
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sql)
    }
}
