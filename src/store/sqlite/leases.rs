//! Reading leases.

use leasehold_law::cause::Rank;
use leasehold_law::id::{ID_CHARS, LeaseId, TaskId};
use leasehold_law::lease::Lease;
use leasehold_law::principal::PREFIX;
use leasehold_law::request::RequestId;
use leasehold_law::time::{Span, Timestamp};
use rusqlite::{Row, params};

use super::readers::Reader;
use super::rows::{newest, one};
use super::sql::{Terms, lane_number, rows, unusable};
use super::{BadRow, DueLease, LeaseFilter, StoreError};

const LIVE: &str = "due IS NOT NULL";

pub(super) fn by_id(reader: &Reader<'_>, id: LeaseId) -> Result<Option<Lease>, StoreError> {
    one(reader, "SELECT body FROM leases WHERE id = ?", [id.to_string()])
}

/// A principal's name carries its lease's id (RULES R-11), so that it needs no index of its own.
pub(super) fn by_principal(reader: &Reader<'_>, principal: &str) -> Result<Option<Lease>, StoreError> {
    let suffix = principal.strip_prefix(PREFIX).and_then(|rest| rest.get(..ID_CHARS));
    let Some(id) = suffix.and_then(LeaseId::from_suffix) else { return Ok(None) };
    one(reader, "SELECT body FROM leases WHERE id = ? AND principal = ?", params![id.to_string(), principal])
}

pub(super) fn by_request(
    reader: &Reader<'_>,
    task: TaskId,
    request: &RequestId,
) -> Result<Option<Lease>, StoreError> {
    const SQL: &str = "SELECT body FROM leases WHERE task = ? AND request_id = ?
        ORDER BY attempt DESC, id DESC LIMIT 1";
    one(reader, SQL, params![task.to_string(), request.to_string()])
}

pub(super) fn list(
    reader: &Reader<'_>,
    filter: &LeaseFilter,
    limit: usize,
) -> Result<Vec<Lease>, StoreError> {
    newest(reader, "leases", &terms(filter), limit)
}

fn terms(filter: &LeaseFilter) -> Terms {
    // One term in two halves, since each takes one value.
    let (name, value) = filter.reference.clone().unzip();
    Terms::default()
        .with("id = ?", filter.id.map(|id| id.to_string()))
        .with("agent = ?", filter.agent.as_ref().map(ToString::to_string))
        .with("task = ?", filter.task.map(|id| id.to_string()))
        .with("target = ?", filter.target.clone())
        .with("intent = ?", filter.intent.clone())
        .with("task IN (SELECT task FROM task_refs WHERE name = ?", name)
        .with("value = ?)", value)
        .when(filter.live, LIVE)
        .when(filter.stuck, "state = 'revoking' AND stuck = 1")
        .with("created_at >= ?", filter.since.map(|at| at.0))
        .with("id >= ?", filter.since.map(|at| oldest_id(at).to_string()))
        .with("id < ?", filter.before.map(|id| id.to_string()))
}

/// Ids sort by time, so that "since" ends the walk through the ids early; the minute allows for an id that was
/// made before its lease was.
fn oldest_id(since: Timestamp) -> LeaseId {
    LeaseId::derive(since - Span::from_mins(1), 0)
}

/// The targets with live leases: one step through the index for each, however many leases it has.
pub(super) fn live_targets(reader: &Reader<'_>) -> Result<Vec<String>, StoreError> {
    const SQL: &str = "WITH RECURSIVE found (target) AS (
        SELECT min(target) FROM leases WHERE due IS NOT NULL
        UNION ALL SELECT (SELECT min(target) FROM leases WHERE due IS NOT NULL AND target > found.target)
            FROM found WHERE found.target IS NOT NULL)
        SELECT target FROM found WHERE target IS NOT NULL";
    let mut statement = reader.conn.prepare_cached(SQL).map_err(unusable)?;
    let found = statement.query_map([], |row| row.get(0)).map_err(unusable)?;
    found.collect::<Result<_, _>>().map_err(unusable)
}

pub(super) fn due(
    reader: &Reader<'_>,
    target: &str,
    lane: Rank,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<DueLease>, StoreError> {
    const SQL: &str = "SELECT id, target, principal, handle, body FROM leases
        WHERE target = ? AND lane = ? AND due <= ? ORDER BY due, id LIMIT ?";
    let mut statement = reader.conn.prepare_cached(SQL).map_err(unusable)?;
    let params = params![target, lane_number(lane), now.0, rows(limit)];
    let found = statement.query_map(params, |row| read_due(reader, row));
    found.map_err(unusable)?.collect::<Result<_, _>>().map_err(unusable)
}

fn read_due(reader: &Reader<'_>, row: &Row<'_>) -> rusqlite::Result<DueLease> {
    let body: String = row.get(4)?;
    match serde_json::from_str(&body) {
        Ok(lease) => Ok(DueLease::Lease(Box::new(lease))),
        Err(error) => {
            let (id, error): (String, _) = (row.get(0)?, error.to_string());
            reader.set_aside(&id, &error);
            let (target, principal, handle) = (row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(DueLease::Bad(BadRow { id, target, principal, handle, error }))
        }
    }
}

/// Handles with their target.
pub(super) fn recent_handles(
    reader: &Reader<'_>,
    since: Timestamp,
) -> Result<Vec<(String, String)>, StoreError> {
    const SQL: &str = "SELECT DISTINCT handle, target FROM leases
        WHERE revoked_at >= ? AND handle IS NOT NULL ORDER BY target, handle";
    let mut statement = reader.conn.prepare_cached(SQL).map_err(unusable)?;
    let found = statement.query_map([since.0], |row| Ok((row.get(0)?, row.get(1)?))).map_err(unusable)?;
    found.collect::<Result<_, _>>().map_err(unusable)
}
