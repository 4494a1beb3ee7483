//! Reading leases, and claiming those that are due.

use leasehold_law::caller::CallerId;
use leasehold_law::cause::Rank;
use leasehold_law::id::{ID_CHARS, LeaseId, TaskId};
use leasehold_law::lease::Lease;
use leasehold_law::principal::PREFIX;
use leasehold_law::request::RequestId;
use leasehold_law::time::Timestamp;
use tokio_postgres::Row;

use super::super::aside::sound_lease;
use super::super::conditions::{Conditions, each_live};
use super::super::set::{lane_number, rows};
use super::super::{AsideKind, BadRow, DueLease, LeaseFilter, StoreError};
use super::conditions::{MARK, newest};
use super::presence::Presence;
use super::readers::Readers;
use super::{archive, column};

pub(super) async fn by_id(readers: &Readers, id: LeaseId) -> Result<Option<Lease>, StoreError> {
    let sql = "SELECT id, body FROM leases WHERE id = $1";
    match readers.one(AsideKind::Lease, sql, &[&id.to_string()]).await? {
        Some(lease) => Ok(Some(lease)),
        None => archive::lease(readers, id).await,
    }
}

/// A principal's name carries its lease's id (RULES R-11), so that it needs no index of its own.
pub(super) async fn by_principal(readers: &Readers, principal: &str) -> Result<Option<Lease>, StoreError> {
    let suffix = principal.strip_prefix(PREFIX).and_then(|rest| rest.get(..ID_CHARS));
    let Some(id) = suffix.and_then(LeaseId::from_suffix) else { return Ok(None) };
    Ok(by_id(readers, id).await?.filter(|lease| lease.terms.principal.as_str() == principal))
}

pub(super) async fn by_request(
    readers: &Readers,
    task: TaskId,
    request: &RequestId,
) -> Result<Option<Lease>, StoreError> {
    const SQL: &str = "SELECT id, body FROM leases WHERE task = $1 AND request_id = $2 \
        ORDER BY attempt DESC, id DESC LIMIT 1";
    readers.one(AsideKind::Lease, SQL, &[&task.to_string(), &request.to_string()]).await
}

pub(super) async fn list(
    readers: &Readers,
    filter: &LeaseFilter,
    limit: usize,
) -> Result<Vec<Lease>, StoreError> {
    newest(readers, AsideKind::Lease, &Conditions::of_leases(MARK, filter), limit).await
}

pub(super) async fn live_targets(readers: &Readers) -> Result<Vec<String>, StoreError> {
    readers.rows(&each_live("target"), &[]).await?.iter().map(|row| column(row, 0)).collect()
}

/// An identity that cannot be read belongs to a row that is set aside, and is nobody's.
pub(super) async fn live_agents(readers: &Readers) -> Result<Vec<CallerId>, StoreError> {
    let rows = readers.rows(&each_live("agent"), &[]).await?;
    let agents: Vec<String> = rows.iter().map(|row| column(row, 0)).collect::<Result<_, _>>()?;
    Ok(agents.iter().filter_map(|agent| agent.parse().ok()).collect())
}

/// Those that nobody else has claimed are claimed for 30 s by the database's clock, and half-way through again. A row
/// that somebody is writing is passed over until the next look. Versions keep what is true; the fence keeps a broker
/// that was taken for dead from claiming anything.
pub(super) async fn due(
    readers: &Readers,
    own: &Presence,
    (target, lane): (&str, Rank),
    now: Timestamp,
    limit: usize,
) -> Result<Vec<DueLease>, StoreError> {
    const CLAIM: &str = "WITH free AS (SELECT id FROM leases WHERE target = $5 AND lane = $6 AND due <= $1 AND CASE \
            WHEN claimed_by = $2 THEN claimed_until < clock_timestamp() + interval '15 s' \
            ELSE claimed_by IS NULL OR claimed_until < clock_timestamp() END \
            ORDER BY due, id LIMIT $4 FOR UPDATE SKIP LOCKED) \
        UPDATE leases SET claimed_by = $2, claimed_until = clock_timestamp() + interval '30 s' FROM free \
        WHERE leases.id = free.id AND EXISTS (SELECT FROM brokers WHERE name = $2 AND holder = $3)";
    const SQL: &str = "SELECT id, task, target, principal, handle, state, due, body FROM leases \
        WHERE target = $4 AND lane = $5 AND due <= $1 AND claimed_by = $2 ORDER BY due, id LIMIT $3";
    let lane = lane_number(lane);
    readers.rows(CLAIM, &[&now.0, &own.name, &own.holder, &rows(limit), &target, &lane]).await?;
    let found = readers.rows(SQL, &[&now.0, &own.name, &rows(limit), &target, &lane]).await?;
    found.iter().map(|row| read_due(readers, row)).collect()
}

/// Rows that somebody is writing are passed over: they have a claim of their own after that.
pub(super) async fn let_go(
    readers: &Readers,
    own: &Presence,
    target: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    const SQL: &str = "WITH mine AS (SELECT id FROM leases WHERE claimed_by = $1 AND target = $2 AND due <= $3 \
            FOR UPDATE SKIP LOCKED) \
        UPDATE leases SET claimed_by = NULL, claimed_until = NULL FROM mine WHERE leases.id = mine.id";
    readers.rows(SQL, &[&own.name, &target, &now.0]).await.map(drop)
}

fn read_due(readers: &Readers, row: &Row) -> Result<DueLease, StoreError> {
    Ok(match sound(row)? {
        Ok(lease) => DueLease::Lease(Box::new(lease)),
        Err(row) => {
            readers.bad.note(AsideKind::Lease, &row.id, &row.error);
            DueLease::Bad(row)
        }
    })
}

/// The lease, where its body can be read and says what the plain columns say. The query names id, task, target,
/// principal, handle, state, due and body, in this order.
fn sound(row: &Row) -> Result<Result<Lease, BadRow>, StoreError> {
    let plain = BadRow {
        kind: AsideKind::Lease,
        id: column(row, 0)?,
        task: column(row, 1)?,
        target: column(row, 2)?,
        principal: column(row, 3)?,
        handle: column(row, 4)?,
        bytes: column::<String>(row, 7)?.into_bytes(),
        error: String::new(),
    };
    let sound = sound_lease(&plain, column(row, 5)?, column(row, 6)?);
    Ok(sound.map_err(|error| BadRow { error, ..plain }))
}

/// A row that some read could not read, as it is now; `None` where it is gone or can be read.
pub(super) async fn bad(readers: &Readers, id: &str) -> Result<Option<BadRow>, StoreError> {
    const SQL: &str =
        "SELECT id, task, target, principal, handle, state, due, body FROM leases WHERE id = $1";
    match readers.rows(SQL, &[&id]).await?.first() {
        Some(row) => Ok(sound(row)?.err()),
        None => Ok(None),
    }
}

/// Those of these handles whose leases on this target were revoked, or set aside and gone, at or after `since`.
pub(super) async fn revoked_handles(
    readers: &Readers,
    target: &str,
    among: &[String],
    since: Timestamp,
) -> Result<Vec<String>, StoreError> {
    const SQL: &str = "SELECT handle FROM leases WHERE handle = ANY($1) AND target = $2 AND revoked_at >= $3 \
        UNION SELECT handle FROM set_aside WHERE handle = ANY($1) AND target = $2 AND gone_at >= $3 \
        ORDER BY handle";
    let found = readers.rows(SQL, &[&among, &target, &since.0]).await?;
    found.iter().map(|row| column(row, 0)).collect()
}
