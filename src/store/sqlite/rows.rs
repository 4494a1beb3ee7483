//! Rows of an id and a body, whatever they hold.

use rusqlite::{OptionalExtension, Params, params_from_iter};
use serde::de::DeserializeOwned;

use super::StoreError;
use super::readers::Reader;
use super::sql::{Terms, unusable};

/// The one row of a query for a body; a body that cannot be read is an error here.
pub(super) fn one<T: DeserializeOwned>(
    reader: &Reader<'_>,
    sql: &str,
    params: impl Params,
) -> Result<Option<T>, StoreError> {
    let mut statement = reader.conn.prepare_cached(sql).map_err(unusable)?;
    let body: Option<String> = statement.query_row(params, |row| row.get(0)).optional().map_err(unusable)?;
    let parse = |body: String| serde_json::from_str(&body);
    body.map(parse).transpose().map_err(|error| StoreError::Unreadable(error.to_string()))
}

/// The rows of a query for ids and bodies: the first `limit` that can be read. A page that is shorter is the last.
pub(super) fn many<T: DeserializeOwned>(
    reader: &Reader<'_>,
    sql: &str,
    params: impl Params,
    limit: usize,
) -> Result<Vec<T>, StoreError> {
    let mut statement = reader.conn.prepare_cached(sql).map_err(unusable)?;
    let mut rows = statement.query(params).map_err(unusable)?;
    let mut found = Vec::new();
    while found.len() < limit {
        let Some(row) = rows.next().map_err(unusable)? else { break };
        let (id, body): (String, String) = (row.get(0).map_err(unusable)?, row.get(1).map_err(unusable)?);
        found.extend(reader.parse::<T>(&id, &body));
    }
    Ok(found)
}

/// Rows of a table that meet these terms, newest first.
pub(super) fn newest<T: DeserializeOwned>(
    reader: &Reader<'_>,
    table: &str,
    terms: &Terms,
    limit: usize,
) -> Result<Vec<T>, StoreError> {
    let sql = format!("SELECT id, body FROM {table}{terms} ORDER BY id DESC");
    many(reader, &sql, params_from_iter(terms.values()), limit)
}
