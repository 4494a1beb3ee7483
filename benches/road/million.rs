//! A million live leases in the store: how soon a broker is ready with them, what it holds, how fast it issues.

use std::time::Duration;

use crate::callers::{PAIR, drive};
use crate::memory::policies;
use crate::start::measure;
use crate::table::{Table, millis};
use crate::world::{Setup, World};

const LEASES: u32 = 1_000_000;
/// They are spread over so many agents, each with a task of its own.
const AGENTS: u32 = 1_000;
const CALLERS: usize = 64;
const RUN: Duration = Duration::from_secs(8);

pub(crate) async fn run(table: &mut Table) {
    let setup = Setup { policy: policies(50), ..Setup::default() };
    let mut world = World::prepare(&setup).await;
    world.start(&setup).await.unwrap();
    let empty = drive(&world, CALLERS, RUN).await.rate;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[PAIR]).await.unwrap();
    let one = agent.lease(&task, PAIR).await.unwrap().lease.unwrap().id;
    world.stop().await;

    multiply(&world, &task.id, &one);
    let (ready, resident) = measure(&world, &setup).await;
    table.row(
        "start to ready with 1,000,000 live leases",
        format!("{}, {resident:.0} MiB resident", millis(ready)),
        "under 1 s and 120 MB",
        ready < Duration::from_secs(1) && resident * 1.048_576 < 120.0,
    );
    world.start(&setup).await.unwrap();
    let full = drive(&world, CALLERS, RUN).await.rate;
    table.row(
        "request + release, 64 callers, memory, beside 1,000,000 live leases",
        format!("{full:.0} leases/s beside {empty:.0} without them: {:.0} %", 100.0 * full / empty),
        "70 %",
        full >= 0.7 * empty,
    );
    world.stop().await;
}

/// Writes the row of one task a thousand times more, each under an id and of an agent of its own, and that of one lease a
/// million times, spread over them. Their journal is not written: nothing reads it here.
fn multiply(world: &World, task: &str, lease: &str) {
    let (task_id, lease_id) = (task.strip_prefix("task_").unwrap(), lease.strip_prefix("lease_").unwrap());
    let task_columns = "request_id, state, due, version, opened_at, person";
    let columns = "target, handle, state, due, request_id, attempt, version, created_at, stuck, revoked_at, lane, intent";
    let counted = |most: u32| {
        format!("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {most})")
    };
    world.on_store(&format!(
        "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA cache_size = -200000;
        {}
        INSERT INTO tasks (id, agent, body, {task_columns})
        SELECT replace(id, '{task_id}', t), replace(agent, 'triage', 'a' || k),
            replace(replace(body, '{task_id}', t), 'agent/triage', 'agent/a' || k), {task_columns}
        FROM tasks, (SELECT printf('%020d', i % {AGENTS}) AS t, i % {AGENTS} AS k FROM n) WHERE id = '{task}';
        {}
        INSERT INTO leases (id, principal, agent, task, body, {columns})
        SELECT replace(id, '{lease_id}', x), replace(principal, '{lease_id}', x), replace(agent, 'triage', 'a' || k),
            'task_' || t,
            replace(replace(replace(body, '{lease_id}', x), '{task_id}', t), 'agent/triage', 'agent/a' || k), {columns}
        FROM leases, (SELECT printf('%020d', i) AS x, printf('%020d', i % {AGENTS}) AS t, i % {AGENTS} AS k FROM n)
        WHERE id = '{lease}'",
        counted(AGENTS),
        counted(LEASES),
    ));
}
