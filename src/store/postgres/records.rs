//! Reading what is neither lease nor task: revocations, versions, digests, numbers and counts.

use std::collections::HashMap;

use leasehold_law::id::RevocationId;
use leasehold_law::registry::Entry as Registered;
use leasehold_law::revocation::Revocation;
use leasehold_law::subject::Subject;
use leasehold_law::time::Timestamp;

use super::super::conditions::Conditions;
use super::super::set::{Place, lane_of, registration, rows, unsigned};
use super::super::{AsideKind, Counts, LaneCounts, StoreError};
use super::column;
use super::conditions::{newest, select, terms};
use super::readers::Readers;

pub(super) async fn revocation(
    readers: &Readers,
    id: RevocationId,
) -> Result<Option<Revocation>, StoreError> {
    let sql = "SELECT id, body FROM revocations WHERE id = $1";
    readers.one(AsideKind::Revocation, sql, &[&id.to_string()]).await
}

pub(super) async fn revocations(
    readers: &Readers,
    freezing: bool,
    before: Option<RevocationId>,
    limit: usize,
) -> Result<Vec<Revocation>, StoreError> {
    let terms = terms().when(freezing, "freezing").with("id <", before.map(|id| id.to_string()));
    if freezing {
        return barriers(readers, &terms, limit).await;
    }
    newest(readers, AsideKind::Revocation, &terms, limit).await
}

/// A barrier that cannot be read still stands: the whole read fails then, and nothing passes.
async fn barriers(
    readers: &Readers,
    terms: &Conditions,
    limit: usize,
) -> Result<Vec<Revocation>, StoreError> {
    let query = "SELECT id, body FROM revocations";
    let found = select(readers, query, terms, "id DESC", rows(limit)).await?;
    found.iter().map(|row| readers.read(AsideKind::Revocation, row)).collect()
}

pub(super) async fn registered(readers: &Readers) -> Result<Vec<Registered>, StoreError> {
    let found = readers.rows("SELECT who, body FROM agents ORDER BY who", &[]).await?;
    found.iter().map(|row| registration(column(row, 0)?, column(row, 1)?)).collect()
}

/// In one question: every decision asks for several.
pub(super) async fn versions(readers: &Readers, subjects: &[Subject]) -> Result<Vec<u64>, StoreError> {
    const SQL: &str = "SELECT 't', id, version FROM tasks WHERE id = ANY($1) \
        UNION ALL SELECT 'l', id, version FROM leases WHERE id = ANY($2) \
        UNION ALL SELECT 's', subject, version FROM subjects WHERE subject = ANY($3)";
    let places: Vec<_> = subjects.iter().map(Place::of).collect::<Result<_, _>>()?;
    let (mut tasks, mut leases, mut keys) = (vec![], vec![], vec![]);
    for place in &places {
        match place {
            Place::Task(id) => tasks.push(id),
            Place::Lease(id) => leases.push(id),
            Place::Subject(key) => keys.push(key),
        }
    }
    let mut found: HashMap<Place, u64> = HashMap::new();
    for row in readers.rows(SQL, &[&tasks, &leases, &keys]).await? {
        let id: String = column(&row, 1)?;
        let place = match column::<&str>(&row, 0)? {
            "t" => Place::Task(id),
            "l" => Place::Lease(id),
            _ => Place::Subject(id),
        };
        found.insert(place, unsigned(column(&row, 2)?));
    }
    Ok(places.iter().map(|place| found.get(place).copied().unwrap_or(0)).collect())
}

pub(super) async fn digests(readers: &Readers) -> Result<Vec<(Subject, String)>, StoreError> {
    const SQL: &str = "SELECT subject, digest FROM subjects WHERE digest IS NOT NULL ORDER BY subject";
    let mut found = Vec::new();
    for row in readers.rows(SQL, &[]).await? {
        let key: &str = column(&row, 0)?;
        match serde_json::from_str(key) {
            Ok(subject) => found.push((subject, column(&row, 1)?)),
            Err(error) => tracing::error!(%error, "a config subject cannot be read and is left out"),
        }
    }
    Ok(found)
}

pub(super) async fn number(readers: &Readers, name: &str) -> Result<Option<i64>, StoreError> {
    let found = readers.rows("SELECT value FROM numbers WHERE name = $1", &[&name]).await?.pop();
    found.map(|row| column(&row, 0)).transpose()
}

pub(super) async fn token_key(readers: &Readers, token: &str) -> Result<Option<String>, StoreError> {
    let found = readers.rows("SELECT key FROM tokens WHERE token = $1", &[&token]).await?.pop();
    found.map(|row| column(&row, 0)).transpose()
}

/// Each count walks a partial index, so that what is over costs nothing.
pub(super) async fn counts(readers: &Readers) -> Result<Counts, StoreError> {
    const SQL: &str = "SELECT \
        (SELECT count(*) FROM leases WHERE due IS NOT NULL), \
        (SELECT count(*) FROM leases WHERE state = 'revoking'), \
        (SELECT count(*) FROM leases WHERE state = 'revoking' AND stuck), \
        (SELECT count(*) FROM tasks WHERE due IS NOT NULL AND state = 'open'), \
        (SELECT count(*) FROM set_aside WHERE kind <> 'orphan'), \
        (SELECT count(*) FROM set_aside WHERE due IS NOT NULL)";
    let Some(row) = readers.rows(SQL, &[]).await?.pop() else { return Ok(Counts::default()) };
    Ok(Counts {
        live: unsigned(column(&row, 0)?),
        revoking: unsigned(column(&row, 1)?),
        stuck: unsigned(column(&row, 2)?),
        open_tasks: unsigned(column(&row, 3)?),
        bad_rows: unsigned(column(&row, 4)?).saturating_add(readers.bad.count()),
        aside: unsigned(column(&row, 5)?),
    })
}

/// What is live is counted in the index alone; what is being revoked, and what is overdue, is read row by row.
pub(super) async fn counts_by_lane(readers: &Readers, now: Timestamp) -> Result<Vec<LaneCounts>, StoreError> {
    const SQL: &str = "SELECT target, lane, sum(live)::int8, sum(due)::int8, sum(stuck)::int8 FROM (\
        SELECT target, lane, count(*) AS live, 0 AS due, 0 AS stuck FROM leases WHERE due IS NOT NULL \
            GROUP BY target, lane \
        UNION ALL SELECT target, lane, 0, count(*), count(*) FILTER (WHERE stuck) FROM leases \
            WHERE state = 'revoking' GROUP BY target, lane \
        UNION ALL SELECT target, lane, 0, count(*), 0 FROM leases WHERE due <= $1 AND state <> 'revoking' \
            GROUP BY target, lane) AS counted \
        GROUP BY target, lane ORDER BY target, lane";
    let found = readers.rows(SQL, &[&now.0]).await?;
    let read = |row| {
        Ok(LaneCounts {
            target: column(row, 0)?,
            lane: lane_of(column(row, 1)?),
            live: unsigned(column(row, 2)?),
            due: unsigned(column(row, 3)?),
            stuck: unsigned(column(row, 4)?),
        })
    };
    found.iter().map(read).collect()
}
