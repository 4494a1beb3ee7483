//! What is over and old leaves its table; the journal tells it again.

use leasehold_law::id::{LeaseId, TaskId};
use leasehold_law::lease::Lease;
use leasehold_law::task::Task;
use leasehold_law::time::{Span, Timestamp};
use rusqlite::{Connection, OptionalExtension, Params, params};

use super::apply::Failure;
use super::readers::Reader;
use super::rows::{bytes, text};
use super::sql::{rows, unusable};
use super::{Ended, StoreError};
use crate::store::archive as told;

/// Leases first: a task leaves after its last one, and the keys of its requests live as long as it is open.
pub(super) fn ended(reader: &Reader<'_>, before: Timestamp, limit: usize) -> Result<Vec<Ended>, StoreError> {
    const LEASES: &str = "SELECT id FROM leases WHERE id < ?1 AND due IS NULL
        AND (revoked_at IS NULL OR revoked_at < ?2)
        AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.id = leases.task AND tasks.due IS NOT NULL)
        ORDER BY id LIMIT ?3";
    const TASKS: &str = "SELECT id FROM tasks WHERE id < ?1 AND due IS NULL AND opened_at < ?2
        AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.task = tasks.id) ORDER BY id LIMIT ?3";
    // Ids sort by the moment they were made; the minute allows for an id that was made before its row.
    let made = before - Span::from_mins(1);
    let oldest = LeaseId::derive(made, 0).to_string();
    let leases = ids(reader, LEASES, params![oldest, before.0, rows(limit)])?;
    let left = rows(limit.saturating_sub(leases.len()));
    let oldest = TaskId::derive(made, 0).to_string();
    let tasks = ids(reader, TASKS, params![oldest, before.0, left])?;
    let leases = leases.iter().filter_map(|id| id.parse().ok()).map(Ended::Lease);
    Ok(leases.chain(tasks.iter().filter_map(|id| id.parse().ok()).map(Ended::Task)).collect())
}

fn ids(reader: &Reader<'_>, sql: &str, params: impl Params) -> Result<Vec<String>, StoreError> {
    let mut statement = reader.conn.prepare_cached(sql).map_err(unusable)?;
    let found = statement.query_map(params, |row| text(row, 0)).map_err(unusable)?;
    found.collect::<Result<_, _>>().map_err(unusable)
}

/// Takes a row out of its table, unless it came back to life.
pub(super) fn remove(conn: &Connection, ended: &Ended) -> Result<(), Failure> {
    match ended {
        Ended::Lease(id) => {
            conn.prepare_cached("DELETE FROM leases WHERE id = ? AND due IS NULL")?
                .execute([id.to_string()])?;
        }
        Ended::Task(id) => {
            let id = id.to_string();
            conn.prepare_cached("DELETE FROM tasks WHERE id = ? AND due IS NULL")?.execute([&id])?;
            let refs =
                "DELETE FROM task_refs WHERE task = ?1 AND NOT EXISTS (SELECT 1 FROM tasks WHERE id = ?1)";
            conn.prepare_cached(refs)?.execute([&id])?;
        }
    }
    Ok(())
}

/// A lease that has left its table. Entries are found by their task, and that by the moment in the lease's id.
pub(super) fn lease(reader: &Reader<'_>, id: LeaseId) -> Result<Option<Lease>, StoreError> {
    const TASK: &str = "SELECT task FROM journal WHERE at BETWEEN ? AND ? AND lease = ? LIMIT 1";
    let ((first, last), text_id) = (told::first_entry(id), id.to_string());
    let around = params![first.0, last.0, text_id];
    let mut statement = reader.conn.prepare_cached(TASK).map_err(unusable)?;
    let task = statement.query_row(around, |row| text(row, 0)).optional().map_err(unusable)?;
    let Some(task) = task else { return Ok(None) };
    let sql = "SELECT body FROM journal WHERE task = ?1 AND lease = ?2 ORDER BY rowid";
    let bodies = bodies(reader, sql, params![task, text_id])?;
    Ok(told::lease(bodies.iter().map(Vec::as_slice)))
}

/// A task that has left its table.
pub(super) fn task(reader: &Reader<'_>, id: TaskId) -> Result<Option<Task>, StoreError> {
    let sql = "SELECT body FROM journal WHERE task = ? AND lease IS NULL ORDER BY rowid";
    let bodies = bodies(reader, sql, params![id.to_string()])?;
    Ok(told::task(bodies.iter().map(Vec::as_slice)))
}

fn bodies(reader: &Reader<'_>, sql: &str, params: impl Params) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut statement = reader.conn.prepare_cached(sql).map_err(unusable)?;
    let found = statement.query_map(params, |row| bytes(row, 0)).map_err(unusable)?;
    found.collect::<Result<_, _>>().map_err(unusable)
}
