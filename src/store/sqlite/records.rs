//! Reading what is neither lease nor task: revocations, versions, digests, numbers and counts.

use std::collections::HashMap;

use leasehold_law::id::RevocationId;
use leasehold_law::registry::Entry as Registered;
use leasehold_law::revocation::Revocation;
use leasehold_law::subject::Subject;
use leasehold_law::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::readers::Reader;
use super::rows::{newest, one, text};
use super::sql::{Place, lane_of, rows, terms, unsigned, unusable, version_query};
use super::{AsideKind, Counts, LaneCounts, StoreError};
use crate::store::conditions::Conditions;
use crate::store::set::registration;

pub(super) fn revocation(reader: &Reader<'_>, id: RevocationId) -> Result<Option<Revocation>, StoreError> {
    one(reader, AsideKind::Revocation, "SELECT id, body FROM revocations WHERE id = ?", [id.to_string()])
}

pub(super) fn revocations(
    reader: &Reader<'_>,
    freezing: bool,
    before: Option<RevocationId>,
    limit: usize,
) -> Result<Vec<Revocation>, StoreError> {
    let terms = terms().when(freezing, "freezing = 1").with("id <", before.map(|id| id.to_string()));
    if freezing {
        return barriers(reader, &terms, limit);
    }
    newest(reader, AsideKind::Revocation, &terms, limit)
}

/// A barrier that cannot be read still stands: the whole read fails then, and nothing passes.
fn barriers(reader: &Reader<'_>, terms: &Conditions, limit: usize) -> Result<Vec<Revocation>, StoreError> {
    let sql = format!("SELECT id FROM revocations{terms} ORDER BY id DESC LIMIT {}", rows(limit));
    let mut statement = reader.conn.prepare_cached(&sql).map_err(unusable)?;
    let ids = statement.query_map(params_from_iter(terms.values()), |row| text(row, 0)).map_err(unusable)?;
    let mut found = Vec::new();
    for id in ids {
        let id = id.map_err(unusable)?;
        let sql = "SELECT id, body FROM revocations WHERE id = ?";
        found.extend(one::<Revocation>(reader, AsideKind::Revocation, sql, [id])?);
    }
    Ok(found)
}

pub(super) fn registered(reader: &Reader<'_>) -> Result<Vec<Registered>, StoreError> {
    let sql = "SELECT who, body FROM agents ORDER BY who";
    let mut statement = reader.conn.prepare_cached(sql).map_err(unusable)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(unusable)?;
    rows.map(|row| row.map_err(unusable).and_then(|(who, body): (String, String)| registration(&who, &body)))
        .collect()
}

pub(super) fn versions(reader: &Reader<'_>, subjects: &[Subject]) -> Result<Vec<u64>, StoreError> {
    subjects.iter().map(|subject| version(reader, subject)).collect()
}

fn version(reader: &Reader<'_>, subject: &Subject) -> Result<u64, StoreError> {
    let place = Place::of(subject)?;
    let (sql, key) = version_query(&place);
    let mut statement = reader.conn.prepare_cached(sql).map_err(unusable)?;
    let found: Option<i64> = statement.query_row([key], |row| row.get(0)).optional().map_err(unusable)?;
    Ok(found.map_or(0, unsigned))
}

/// The versions of all subjects that have one, by their keys.
pub(super) fn all_versions(conn: &Connection) -> Result<HashMap<String, u64>, StoreError> {
    let mut statement = conn.prepare("SELECT subject, version FROM subjects").map_err(unusable)?;
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1).map(unsigned)?)));
    found.map_err(unusable)?.collect::<Result<_, _>>().map_err(unusable)
}

pub(super) fn digests(reader: &Reader<'_>) -> Result<Vec<(Subject, String)>, StoreError> {
    const SQL: &str = "SELECT subject, digest FROM subjects WHERE digest IS NOT NULL ORDER BY subject";
    let mut statement = reader.conn.prepare_cached(SQL).map_err(unusable)?;
    let mut rows = statement.query([]).map_err(unusable)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(unusable)? {
        let key: String = row.get(0).map_err(unusable)?;
        match serde_json::from_str(&key) {
            Ok(subject) => found.push((subject, row.get(1).map_err(unusable)?)),
            Err(error) => tracing::error!(%error, "a config subject cannot be read and is left out"),
        }
    }
    Ok(found)
}

pub(super) fn number(reader: &Reader<'_>, name: &str) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT value FROM numbers WHERE name = ?";
    let mut statement = reader.conn.prepare_cached(sql).map_err(unusable)?;
    statement.query_row([name], |row| row.get(0)).optional().map_err(unusable)
}

pub(super) fn token_key(reader: &Reader<'_>, token: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT key FROM tokens WHERE token = ?";
    let mut statement = reader.conn.prepare_cached(sql).map_err(unusable)?;
    statement.query_row([token], |row| row.get(0)).optional().map_err(unusable)
}

/// Each count walks a partial index, so that what is over costs nothing.
pub(super) fn counts(reader: &Reader<'_>) -> Result<Counts, StoreError> {
    const SQL: &str = "SELECT
        (SELECT count(*) FROM leases WHERE due IS NOT NULL),
        (SELECT count(*) FROM leases WHERE state = 'revoking'),
        (SELECT count(*) FROM leases WHERE state = 'revoking' AND stuck = 1),
        (SELECT count(*) FROM tasks WHERE due IS NOT NULL AND state = 'open'),
        (SELECT count(*) FROM set_aside WHERE kind <> 'orphan'),
        (SELECT count(*) FROM set_aside WHERE due IS NOT NULL)";
    let met = reader.bad.count();
    let mut statement = reader.conn.prepare_cached(SQL).map_err(unusable)?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Counts {
            live: row.get(0).map(unsigned)?,
            revoking: row.get(1).map(unsigned)?,
            stuck: row.get(2).map(unsigned)?,
            open_tasks: row.get(3).map(unsigned)?,
            bad_rows: row.get(4).map(unsigned)?.saturating_add(met),
            aside: row.get(5).map(unsigned)?,
        })
    };
    statement.query_row([], read).map_err(unusable)
}

/// What is live is counted in the index alone; what is being revoked, and what is overdue, is read row by row.
pub(super) fn counts_by_lane(reader: &Reader<'_>, now: Timestamp) -> Result<Vec<LaneCounts>, StoreError> {
    const SQL: &str = "SELECT target, lane, sum(live), sum(due), sum(stuck) FROM (
        SELECT target, lane, count(*) AS live, 0 AS due, 0 AS stuck FROM leases WHERE due IS NOT NULL
            GROUP BY target, lane
        UNION ALL SELECT target, lane, 0, count(*), sum(stuck) FROM leases WHERE state = 'revoking'
            GROUP BY target, lane
        UNION ALL SELECT target, lane, 0, count(*), 0 FROM leases WHERE due <= ? AND state <> 'revoking'
            GROUP BY target, lane)
        GROUP BY target, lane ORDER BY target, lane";
    let mut statement = reader.conn.prepare_cached(SQL).map_err(unusable)?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(LaneCounts {
            target: row.get(0)?,
            lane: row.get(1).map(lane_of)?,
            live: row.get(2).map(unsigned)?,
            due: row.get(3).map(unsigned)?,
            stuck: row.get(4).map(unsigned)?,
        })
    };
    let rows = statement.query_map([now.0], read).map_err(unusable)?;
    rows.collect::<Result<_, _>>().map_err(unusable)
}
