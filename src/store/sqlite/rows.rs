//! Rows of an id and a body, whatever they hold.

use rusqlite::{OptionalExtension, Params, Row, params_from_iter};
use serde::de::DeserializeOwned;

use super::readers::Reader;
use super::sql::unusable;
use super::{AsideKind, StoreError};
use crate::store::aside::table;
use crate::store::conditions::Conditions;

/// The one row of a query for id and body; a body that cannot be read is an error here.
pub(super) fn one<T: DeserializeOwned>(
    reader: &Reader<'_>,
    kind: AsideKind,
    sql: &str,
    params: impl Params,
) -> Result<Option<T>, StoreError> {
    let mut statement = reader.conn.prepare_cached(sql).map_err(unusable)?;
    let read = |row: &Row<'_>| Ok((text(row, 0)?, bytes(row, 1)?));
    let found = statement.query_row(params, read).optional().map_err(unusable)?;
    let Some((id, body)) = found else { return Ok(None) };
    match reader.bad.parse(kind, &id, &body) {
        Some(value) => Ok(Some(value)),
        None => Err(StoreError::Unreadable(format!("the {} `{id}`", kind.name()))),
    }
}

/// A text column, whatever bytes are in it: one bad byte must not hide the rows beside it.
pub(super) fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(String::from_utf8_lossy(raw(row, column)?).into_owned())
}

/// The bytes of a column; none for a null.
pub(super) fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<u8>> {
    raw(row, column).map(<[u8]>::to_vec)
}

fn raw<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a [u8]> {
    Ok(row.get_ref(column)?.as_bytes_or_null().ok().flatten().unwrap_or_default())
}

/// The rows of a query for ids and bodies: the first `limit` that can be read. A page that is shorter is the last.
pub(super) fn many<T: DeserializeOwned>(
    reader: &Reader<'_>,
    kind: AsideKind,
    sql: &str,
    params: impl Params,
    limit: usize,
) -> Result<Vec<T>, StoreError> {
    let mut statement = reader.conn.prepare_cached(sql).map_err(unusable)?;
    let mut rows = statement.query(params).map_err(unusable)?;
    let mut found = Vec::new();
    while found.len() < limit {
        let Some(row) = rows.next().map_err(unusable)? else { break };
        let (id, body) = (text(row, 0).map_err(unusable)?, bytes(row, 1).map_err(unusable)?);
        found.extend(reader.bad.parse::<T>(kind, &id, &body));
    }
    Ok(found)
}

/// Rows of a table that meet these terms, newest first.
pub(super) fn newest<T: DeserializeOwned>(
    reader: &Reader<'_>,
    kind: AsideKind,
    terms: &Conditions,
    limit: usize,
) -> Result<Vec<T>, StoreError> {
    let sql = format!("SELECT id, body FROM {}{terms} ORDER BY id DESC", table(kind));
    many(reader, kind, &sql, params_from_iter(terms.values()), limit)
}
