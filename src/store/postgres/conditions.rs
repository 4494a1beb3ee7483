//! Questions by terms.

use serde::de::DeserializeOwned;
use tokio_postgres::Row;

use super::super::AsideKind;
use super::super::aside::table;
use super::super::conditions::{Conditions, Mark, Value};
use super::StoreError;
use super::link::Param;
use super::readers::Readers;

/// What marks the places of bound values.
pub(super) const MARK: Mark = Mark::Dollar;

/// No terms yet.
pub(super) const fn terms() -> Conditions {
    Conditions::new(MARK)
}

/// Rows of a table that meet these terms, newest first.
pub(super) async fn newest<T: DeserializeOwned>(
    readers: &Readers,
    kind: AsideKind,
    terms: &Conditions,
    limit: usize,
) -> Result<Vec<T>, StoreError> {
    let last = terms.next_place();
    let sql = format!("SELECT id, body FROM {}{terms} ORDER BY id DESC LIMIT {last}", table(kind));
    readers.many(kind, &sql, &params(terms), limit).await
}

/// Rows of a query that meet these terms, whatever they hold.
pub(super) async fn select(
    readers: &Readers,
    query: &str,
    terms: &Conditions,
    order: &str,
    count: i64,
) -> Result<Vec<Row>, StoreError> {
    let sql = format!("{query}{terms} ORDER BY {order} LIMIT {}", terms.next_place());
    let params: Vec<Param<'_>> = params(terms).into_iter().chain([&count as Param<'_>]).collect();
    readers.rows(&sql, &params).await
}

fn params(terms: &Conditions) -> Vec<Param<'_>> {
    terms.values().iter().map(param).collect()
}

fn param(value: &Value) -> Param<'_> {
    match value {
        Value::Text(text) => text,
        Value::Number(number) => number,
    }
}
