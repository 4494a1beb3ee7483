//! Reading the journal.

use leasehold_law::id::TaskId;
use leasehold_law::journal::{ChainHead, ChainId, Entry, Hash};
use leasehold_law::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use super::StoreError;
use super::readers::Reader;
use super::sql::{rows, signed, unsigned, unusable};

/// Where a chain ends, by what is stored.
pub(super) fn head(conn: &Connection, chain: &ChainId) -> Result<ChainHead, StoreError> {
    const SQL: &str = "SELECT seq, hash FROM journal WHERE chain = ? ORDER BY seq DESC LIMIT 1";
    let mut statement = conn.prepare_cached(SQL).map_err(unusable)?;
    let read = |row: &Row<'_>| Ok((row.get(0).map(unsigned)?, row.get(1).map(Hash)?));
    let last = statement.query_row([chain.as_str()], read).optional().map_err(unusable)?;
    Ok(match last {
        Some((seq, hash)) => ChainHead { chain: chain.clone(), seq, hash },
        None => ChainHead::genesis(chain.clone()),
    })
}

pub(super) fn from(
    reader: &Reader<'_>,
    chain: &ChainId,
    first: u64,
    limit: usize,
) -> Result<Vec<Entry>, StoreError> {
    const SQL: &str = "SELECT seq, body, prev, hash FROM journal WHERE chain = ? AND seq >= ?
        ORDER BY seq LIMIT ?";
    entries(reader, SQL, params![chain.as_str(), signed(first), rows(limit)])
}

/// A lease's entries name its task too, so that one index finds both.
pub(super) fn of_task(reader: &Reader<'_>, task: TaskId, limit: usize) -> Result<Vec<Entry>, StoreError> {
    const SQL: &str = "SELECT seq, body, prev, hash FROM journal WHERE task = ? ORDER BY rowid LIMIT ?";
    entries(reader, SQL, params![task.to_string(), rows(limit)])
}

/// By an index, not by a binary search on `seq`: concurrent callers take their `at` before they queue, so that it is
/// only nearly monotone, and a search would lose the entries at either end. The index grows at its end alone.
pub(super) fn with(
    reader: &Reader<'_>,
    text: &str,
    from: Timestamp,
    to: Timestamp,
    limit: usize,
) -> Result<Vec<Entry>, StoreError> {
    const SQL: &str = "SELECT seq, body, prev, hash FROM journal WHERE at >= ? AND at < ?
        AND instr(body, CAST(? AS BLOB)) > 0 ORDER BY at, rowid LIMIT ?";
    entries(reader, SQL, params![from.0, to.0, text, rows(limit)])
}

fn entries(reader: &Reader<'_>, sql: &str, params: impl Params) -> Result<Vec<Entry>, StoreError> {
    let mut statement = reader.conn.prepare_cached(sql).map_err(unusable)?;
    let found = statement.query_map(params, entry).map_err(unusable)?;
    found.collect::<Result<_, _>>().map_err(unusable)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        seq: row.get(0).map(unsigned)?,
        body: row.get(1)?,
        prev: row.get(2).map(Hash)?,
        hash: row.get(3).map(Hash)?,
    })
}
