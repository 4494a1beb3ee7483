//! Reading tasks, claiming those that are due, and who was heard from by whom.

use leasehold_law::caller::CallerId;
use leasehold_law::id::TaskId;
use leasehold_law::request::RequestId;
use leasehold_law::task::Task;
use leasehold_law::time::{Span, Timestamp};

use super::super::set::{rows, signed, unsigned};
use super::super::{AsideKind, StoreError, TaskFilter};
use super::conditions::{newest, terms};
use super::presence::Presence;
use super::readers::Readers;
use super::{archive, column};

pub(super) async fn by_id(readers: &Readers, id: TaskId) -> Result<Option<Task>, StoreError> {
    let sql = "SELECT id, body FROM tasks WHERE id = $1";
    match readers.one(AsideKind::Task, sql, &[&id.to_string()]).await? {
        Some(task) => Ok(Some(task)),
        None => archive::task(readers, id).await,
    }
}

pub(super) async fn by_request(
    readers: &Readers,
    agent: &CallerId,
    request: &RequestId,
) -> Result<Option<Task>, StoreError> {
    const SQL: &str =
        "SELECT id, body FROM tasks WHERE agent = $1 AND request_id = $2 ORDER BY id DESC LIMIT 1";
    readers.one(AsideKind::Task, SQL, &[&agent.to_string(), &request.to_string()]).await
}

pub(super) async fn list(
    readers: &Readers,
    filter: &TaskFilter,
    limit: usize,
) -> Result<Vec<Task>, StoreError> {
    // One term in two halves, since each takes one value.
    let (name, value) = filter.reference.clone().unzip();
    let terms = terms()
        .with("agent =", filter.agent.as_ref().map(ToString::to_string))
        .with("person =", filter.person.as_ref().map(ToString::to_string))
        .with("EXISTS (SELECT FROM task_refs r WHERE r.task = tasks.id AND r.name =", name)
        .with_closing("r.value =", value, ")")
        .when(filter.live, "due IS NOT NULL")
        .when(filter.ending, "due = 0")
        .with("id <", filter.before.map(|id| id.to_string()));
    newest(readers, AsideKind::Task, &terms, limit).await
}

/// Without those that are ending: they are due at 0. Claims as for leases.
pub(super) async fn due(
    readers: &Readers,
    own: &Presence,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<Task>, StoreError> {
    const CLAIM: &str = "WITH free AS (SELECT id FROM tasks WHERE due > 0 AND due <= $1 AND CASE \
            WHEN claimed_by = $2 THEN claimed_until < clock_timestamp() + interval '15 s' \
            ELSE claimed_by IS NULL OR claimed_until < clock_timestamp() END \
            ORDER BY due, id LIMIT $4 FOR UPDATE SKIP LOCKED) \
        UPDATE tasks SET claimed_by = $2, claimed_until = clock_timestamp() + interval '30 s' FROM free \
        WHERE tasks.id = free.id AND EXISTS (SELECT FROM brokers WHERE name = $2 AND holder = $3)";
    const SQL: &str = "SELECT id, body FROM tasks WHERE due > 0 AND due <= $1 AND claimed_by = $2 ORDER BY due, id LIMIT $3";
    readers.rows(CLAIM, &[&now.0, &own.name, &own.holder, &rows(limit)]).await?;
    readers.many(AsideKind::Task, SQL, &[&now.0, &own.name], limit).await
}

/// All that this broker has heard from, in its one row.
pub(super) async fn tell_heard(
    readers: &Readers,
    own: &Presence,
    tasks: &[(TaskId, Span)],
) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO heard (broker, at, tasks, ages) VALUES ($1, clock_timestamp(), $2, $3) \
        ON CONFLICT (broker) DO UPDATE SET at = excluded.at, tasks = excluded.tasks, ages = excluded.ages";
    let ids: Vec<_> = tasks.iter().map(|(id, _)| id.to_string()).collect();
    let ages: Vec<_> = tasks.iter().map(|(_, age)| signed(age.0)).collect();
    readers.rows(SQL, &[&own.name, &ids, &ages]).await.map(drop)
}

/// By the database's clock, so that no two brokers' clocks are compared.
pub(super) async fn heard_elsewhere(
    readers: &Readers,
    own: &Presence,
    tasks: &[TaskId],
) -> Result<Vec<(TaskId, Span)>, StoreError> {
    const SQL: &str = "SELECT u.task, min(greatest(0, u.age + \
            (extract(epoch FROM clock_timestamp() - heard.at) * 1000)::int8)) \
        FROM heard, unnest(heard.tasks, heard.ages) AS u (task, age) \
        WHERE heard.broker <> $1 AND u.task = ANY($2) GROUP BY u.task";
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<_> = tasks.iter().map(ToString::to_string).collect();
    let found = readers.rows(SQL, &[&own.name, &ids]).await?;
    let read = |row| Some((column::<&str>(row, 0).ok()?.parse().ok()?, Span(unsigned(column(row, 1).ok()?))));
    Ok(found.iter().filter_map(read).collect())
}
