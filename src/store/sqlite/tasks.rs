//! Reading tasks.

use leasehold_law::caller::CallerId;
use leasehold_law::id::TaskId;
use leasehold_law::request::RequestId;
use leasehold_law::task::Task;
use leasehold_law::time::Timestamp;
use rusqlite::params;

use super::archive;
use super::readers::Reader;
use super::rows::{many, newest, one};
use super::sql::terms;
use super::{AsideKind, StoreError, TaskFilter};

pub(super) fn by_id(reader: &Reader<'_>, id: TaskId) -> Result<Option<Task>, StoreError> {
    match one(reader, AsideKind::Task, "SELECT id, body FROM tasks WHERE id = ?", [id.to_string()])? {
        Some(task) => Ok(Some(task)),
        None => archive::task(reader, id),
    }
}

pub(super) fn by_request(
    reader: &Reader<'_>,
    agent: &CallerId,
    request: &RequestId,
) -> Result<Option<Task>, StoreError> {
    const SQL: &str =
        "SELECT id, body FROM tasks WHERE agent = ? AND request_id = ? ORDER BY id DESC LIMIT 1";
    one(reader, AsideKind::Task, SQL, params![agent.to_string(), request.to_string()])
}

pub(super) fn list(reader: &Reader<'_>, filter: &TaskFilter, limit: usize) -> Result<Vec<Task>, StoreError> {
    // One term in two halves, since each takes one value.
    let (name, value) = filter.reference.clone().unzip();
    let terms = terms()
        .with("agent =", filter.agent.as_ref().map(ToString::to_string))
        .with("person =", filter.person.as_ref().map(ToString::to_string))
        .with("id IN (SELECT task FROM task_refs WHERE name =", name)
        .with_closing("value =", value, ")")
        .when(filter.live, "due IS NOT NULL")
        .when(filter.ending, "due = 0")
        .with("id <", filter.before.map(|id| id.to_string()));
    newest(reader, AsideKind::Task, &terms, limit)
}

/// Without those that are ending: they are due at 0.
pub(super) fn due(reader: &Reader<'_>, now: Timestamp, limit: usize) -> Result<Vec<Task>, StoreError> {
    many(
        reader,
        AsideKind::Task,
        "SELECT id, body FROM tasks WHERE due > 0 AND due <= ? ORDER BY due, id",
        [now.0],
        limit,
    )
}
