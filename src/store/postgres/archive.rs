//! What is over and old, and what has left its table, told again from the journal.

use leasehold_law::id::{LeaseId, TaskId};
use leasehold_law::lease::Lease;
use leasehold_law::task::Task;
use leasehold_law::time::{Span, Timestamp};

use super::super::archive as told;
use super::super::set::rows;
use super::super::{Ended, StoreError};
use super::column;
use super::link::Param;
use super::readers::Readers;

/// Leases first: a task leaves after its last one, and the keys of its requests live as long as it is open.
pub(super) async fn ended(
    readers: &Readers,
    before: Timestamp,
    limit: usize,
) -> Result<Vec<Ended>, StoreError> {
    const LEASES: &str = "SELECT id FROM leases WHERE id < $1 AND due IS NULL \
        AND (revoked_at IS NULL OR revoked_at < $2) \
        AND NOT EXISTS (SELECT FROM tasks WHERE tasks.id = leases.task AND tasks.due IS NOT NULL) \
        ORDER BY id LIMIT $3";
    const TASKS: &str = "SELECT id FROM tasks WHERE id < $1 AND due IS NULL AND opened_at < $2 \
        AND NOT EXISTS (SELECT FROM leases WHERE leases.task = tasks.id) ORDER BY id LIMIT $3";
    // Ids sort by the moment they were made; the minute allows for an id that was made before its row.
    let made = before - Span::from_mins(1);
    let oldest = LeaseId::derive(made, 0).to_string();
    let leases = ids(readers, LEASES, &[&oldest, &before.0, &rows(limit)]).await?;
    let left = rows(limit.saturating_sub(leases.len()));
    let oldest = TaskId::derive(made, 0).to_string();
    let tasks = ids(readers, TASKS, &[&oldest, &before.0, &left]).await?;
    let leases = leases.iter().filter_map(|id| id.parse().ok()).map(Ended::Lease);
    Ok(leases.chain(tasks.iter().filter_map(|id| id.parse().ok()).map(Ended::Task)).collect())
}

async fn ids(readers: &Readers, sql: &str, params: &[Param<'_>]) -> Result<Vec<String>, StoreError> {
    readers.rows(sql, params).await?.iter().map(|row| column(row, 0)).collect()
}

/// A lease that has left its table. Entries are found by their task, and that by the moment in the lease's id.
pub(super) async fn lease(readers: &Readers, id: LeaseId) -> Result<Option<Lease>, StoreError> {
    const TASK: &str =
        "SELECT task FROM journal WHERE at BETWEEN $1 AND $2 AND lease = $3 AND task IS NOT NULL LIMIT 1";
    const BODIES: &str = "SELECT body FROM journal WHERE task = $1 AND lease = $2 ORDER BY id";
    let ((first, last), id) = (told::first_entry(id), id.to_string());
    let found = readers.rows(TASK, &[&first.0, &last.0, &id]).await?.pop();
    let Some(task) = found.map(|row| column::<String>(&row, 0)).transpose()? else { return Ok(None) };
    let bodies = bodies(readers, BODIES, &[&task, &id]).await?;
    Ok(told::lease(bodies.iter().map(Vec::as_slice)))
}

/// A task that has left its table.
pub(super) async fn task(readers: &Readers, id: TaskId) -> Result<Option<Task>, StoreError> {
    const BODIES: &str = "SELECT body FROM journal WHERE task = $1 AND lease IS NULL ORDER BY id";
    let bodies = bodies(readers, BODIES, &[&id.to_string()]).await?;
    Ok(told::task(bodies.iter().map(Vec::as_slice)))
}

async fn bodies(readers: &Readers, sql: &str, params: &[Param<'_>]) -> Result<Vec<Vec<u8>>, StoreError> {
    readers.rows(sql, params).await?.iter().map(|row| column(row, 0)).collect()
}
