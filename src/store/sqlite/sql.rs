//! Between Rust values and SQL ones.

use std::fmt;

use rusqlite::types::Value;

use super::StoreError;
pub(super) use crate::store::set::{Place, lane_number, lane_of, rows, signed, unsigned};

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

/// The query for the version of what lies here, and its one parameter.
pub(super) fn version_query(place: &Place) -> (&'static str, &str) {
    match place {
        Place::Task(id) => ("SELECT version FROM tasks WHERE id = ?", id),
        Place::Lease(id) => ("SELECT version FROM leases WHERE id = ?", id),
        Place::Subject(key) => ("SELECT version FROM subjects WHERE subject = ?", key),
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
