//! A task with thousands of leases: its scope changes, and it ends.

use std::collections::BTreeMap;

use leasehold_proto::v1;

use crate::world::{Client, World, eventually_within, scope};

const PAIRS: [&str; 2] = ["orders.read@orders", "stock.read@stock"];
/// Leases on each of the two targets.
const EACH: usize = 1000;
/// How many are asked for at a time.
const AT_ONCE: usize = 20;
/// A second here is a minute on a busy machine.
const LONG: std::time::Duration = std::time::Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_of_two_thousand_leases_is_narrowed_and_ended() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&PAIRS).await.unwrap();
    let asking: Vec<_> = (0..AT_ONCE).map(|_| tokio::spawn(ask(agent.clone(), task.clone()))).collect();
    for asked in asking {
        asked.await.unwrap();
    }
    assert_eq!((World::principals(&world.orders), World::principals(&world.stock)), (EACH, EACH));

    // No answer waits for a thousand deaths: whoever needs to know looks again.
    let narrower = scope(&PAIRS[1..]);
    let request = v1::ChangeScopeRequest { task: task.id.clone(), scope: narrower, wait: None };
    agent.tasks.change_scope(request).await.unwrap();
    eventually_within(LONG, "what no longer fits is dead", || async {
        World::principals(&world.orders) == 0
    })
    .await;
    let narrowed = v1::Cause::ScopeChanged;
    until_counted(
        &world,
        &[(v1::LeaseState::Revoked, narrowed), (v1::LeaseState::Active, v1::Cause::Unspecified)],
    )
    .await;
    assert_eq!(World::principals(&world.stock), EACH, "what fits is not touched");

    let request = v1::CompleteTaskRequest { task: task.id.clone(), wait: None };
    agent.tasks.complete_task(request).await.unwrap();
    eventually_within(LONG, "the task is ended", || {
        let (mut agent, task) = (agent.clone(), task.clone());
        async move { agent.task(&task).await.state() == v1::TaskState::Ended }
    })
    .await;
    assert_eq!(World::principals(&world.stock), 0);
    let ended = v1::Cause::TaskCompleted;
    until_counted(&world, &[(v1::LeaseState::Revoked, narrowed), (v1::LeaseState::Revoked, ended)]).await;
}

/// One of those who ask at the same time: its share of each target.
async fn ask(mut agent: Client, task: v1::Task) {
    for pair in PAIRS {
        for _ in 0..EACH / AT_ONCE {
            agent.lease(&task, pair).await.unwrap();
        }
    }
}

/// Each kind of ending has a thousand leases, and there is no other.
async fn until_counted(world: &World, kinds: &[(v1::LeaseState, v1::Cause)]) {
    let expected: BTreeMap<_, _> =
        kinds.iter().map(|(state, cause)| ((*state as i32, *cause as i32), EACH)).collect();
    let admin = world.admin().await;
    eventually_within(LONG, "the record says so", || async {
        let mut counted = BTreeMap::new();
        for lease in crate::child::all_leases(&admin).await {
            *counted.entry((lease.state, lease.cause)).or_insert(0) += 1;
        }
        counted == expected
    })
    .await;
}
