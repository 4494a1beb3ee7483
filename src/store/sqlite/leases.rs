//! Reading leases.

use leasehold_law::caller::CallerId;
use leasehold_law::cause::Rank;
use leasehold_law::id::{ID_CHARS, LeaseId, TaskId};
use leasehold_law::lease::Lease;
use leasehold_law::principal::PREFIX;
use leasehold_law::request::RequestId;
use leasehold_law::time::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::archive;
use super::readers::Reader;
use super::rows::{bytes, newest, one, text};
use super::sql::{MARK, lane_number, rows, unusable};
use super::{AsideKind, BadRow, DueLease, LeaseFilter, StoreError};
use crate::store::aside::sound_lease;
use crate::store::conditions::{Conditions, each_live};

pub(super) fn by_id(reader: &Reader<'_>, id: LeaseId) -> Result<Option<Lease>, StoreError> {
    match one(reader, AsideKind::Lease, "SELECT id, body FROM leases WHERE id = ?", [id.to_string()])? {
        Some(lease) => Ok(Some(lease)),
        None => archive::lease(reader, id),
    }
}

/// A principal's name carries its lease's id (RULES R-11), so that it needs no index of its own.
pub(super) fn by_principal(reader: &Reader<'_>, principal: &str) -> Result<Option<Lease>, StoreError> {
    let suffix = principal.strip_prefix(PREFIX).and_then(|rest| rest.get(..ID_CHARS));
    let Some(id) = suffix.and_then(LeaseId::from_suffix) else { return Ok(None) };
    Ok(by_id(reader, id)?.filter(|lease| lease.terms.principal.as_str() == principal))
}

pub(super) fn by_request(
    reader: &Reader<'_>,
    task: TaskId,
    request: &RequestId,
) -> Result<Option<Lease>, StoreError> {
    const SQL: &str = "SELECT id, body FROM leases WHERE task = ? AND request_id = ?
        ORDER BY attempt DESC, id DESC LIMIT 1";
    one(reader, AsideKind::Lease, SQL, params![task.to_string(), request.to_string()])
}

pub(super) fn list(
    reader: &Reader<'_>,
    filter: &LeaseFilter,
    limit: usize,
) -> Result<Vec<Lease>, StoreError> {
    newest(reader, AsideKind::Lease, &Conditions::of_leases(MARK, filter), limit)
}

pub(super) fn live_targets(reader: &Reader<'_>) -> Result<Vec<String>, StoreError> {
    texts(reader, &each_live("target"))
}

/// An identity that cannot be read belongs to a row that is set aside, and is nobody's.
pub(super) fn live_agents(reader: &Reader<'_>) -> Result<Vec<CallerId>, StoreError> {
    let agents = texts(reader, &each_live("agent"))?;
    Ok(agents.iter().filter_map(|agent| agent.parse().ok()).collect())
}

fn texts(reader: &Reader<'_>, sql: &str) -> Result<Vec<String>, StoreError> {
    let mut statement = reader.conn.prepare_cached(sql).map_err(unusable)?;
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
    const SQL: &str = "SELECT id, task, target, principal, handle, state, due, body FROM leases
        WHERE target = ? AND lane = ? AND due <= ? ORDER BY due, id LIMIT ?";
    let mut statement = reader.conn.prepare_cached(SQL).map_err(unusable)?;
    let params = params![target, lane_number(lane), now.0, rows(limit)];
    let found = statement.query_map(params, |row| read_due(reader, row));
    found.map_err(unusable)?.collect::<Result<_, _>>().map_err(unusable)
}

fn read_due(reader: &Reader<'_>, row: &Row<'_>) -> rusqlite::Result<DueLease> {
    let plain = plain(row)?;
    match sound(row, &plain) {
        Ok(lease) => Ok(DueLease::Lease(Box::new(lease))),
        Err(error) => {
            reader.bad.note(AsideKind::Lease, &plain.id, &error);
            Ok(DueLease::Bad(BadRow { error, ..plain }))
        }
    }
}

/// What a row says without its body being understood. The query names id, task, target, principal, handle, state, due
/// and body, in this order.
fn plain(row: &Row<'_>) -> rusqlite::Result<BadRow> {
    Ok(BadRow {
        kind: AsideKind::Lease,
        id: text(row, 0)?,
        task: text(row, 1)?,
        target: text(row, 2)?,
        principal: text(row, 3)?,
        handle: Some(text(row, 4)?).filter(|handle| !handle.is_empty()),
        bytes: bytes(row, 7)?,
        error: String::new(),
    })
}

/// The lease, where its body can be read and says what the plain columns say.
fn sound(row: &Row<'_>, plain: &BadRow) -> Result<Lease, String> {
    let due = row.get(6).map_err(|error| error.to_string())?;
    sound_lease(plain, &text(row, 5).map_err(|error| error.to_string())?, due)
}

/// A row that some read could not read, as it is now; `None` where it is gone or can be read.
pub(super) fn bad(reader: &Reader<'_>, id: &str) -> Result<Option<BadRow>, StoreError> {
    const SQL: &str = "SELECT id, task, target, principal, handle, state, due, body FROM leases WHERE id = ?";
    let mut statement = reader.conn.prepare_cached(SQL).map_err(unusable)?;
    let read = |row: &Row<'_>| {
        let plain = plain(row)?;
        Ok(sound(row, &plain).err().map(|error| BadRow { error, ..plain }))
    };
    Ok(statement.query_row([id], read).optional().map_err(unusable)?.flatten())
}

/// Which of these handles were revoked since; each is one look into the indexes of what is gone.
pub(super) fn revoked_handles(
    reader: &Reader<'_>,
    target: &str,
    among: &[String],
    since: Timestamp,
) -> Result<Vec<String>, StoreError> {
    const SQL: &str =
        "SELECT EXISTS (SELECT 1 FROM leases WHERE handle = ?1 AND target = ?2 AND revoked_at >= ?3
        UNION ALL SELECT 1 FROM set_aside WHERE handle = ?1 AND target = ?2 AND gone_at >= ?3)";
    let mut statement = reader.conn.prepare_cached(SQL).map_err(unusable)?;
    let mut found = Vec::new();
    for handle in among {
        if statement.query_row(params![handle, target, since.0], |row| row.get(0)).map_err(unusable)? {
            found.push(handle.clone());
        }
    }
    Ok(found)
}
