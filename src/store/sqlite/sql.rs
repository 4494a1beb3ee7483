//! Between Rust values and SQL ones.

use rusqlite::ToSql;
use rusqlite::types::ToSqlOutput;

use super::StoreError;
use crate::store::conditions::{Conditions, Mark, Value};
pub(super) use crate::store::set::{Place, lane_number, lane_of, rows, signed, unsigned};

/// What marks the places of bound values.
pub(super) const MARK: Mark = Mark::Question;

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

/// No terms yet.
pub(super) const fn terms() -> Conditions {
    Conditions::new(MARK)
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Text(text) => text.to_sql(),
            Self::Number(number) => number.to_sql(),
        }
    }
}
