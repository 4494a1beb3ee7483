//! The revocation engine: security before everything, targets that are away and come back, journals that hang.

use leasehold_law::lease::{Reached, Sessions};
use leasehold_law::time::Span;
use leasehold_memory::{Call, Fault, Gate, Rule};
use leasehold_proto::v1;
use leasehold_proto::v1::selector::Kind;

use crate::stopping::{revoke, run};
use crate::world::{Client, World, eventually, login, open_request, scope, seconds};

const READ: &str = "orders.read@orders";
/// More than all shared calls of a target carry at a time.
const STORM: usize = 300;

/// So many leases in one task of an agent.
async fn leases(agent: &mut Client, count: usize) -> (v1::Task, Vec<String>) {
    let task = agent.open(&[READ]).await.unwrap();
    let mut leases = Vec::new();
    for _ in 0..count {
        leases.push(agent.lease(&task, READ).await.unwrap().lease.unwrap().id);
    }
    (task, leases)
}

async fn orders(operator: &mut Client) -> v1::Target {
    let status = operator.admin.status(v1::StatusRequest {}).await.unwrap().into_inner();
    status.targets.into_iter().find(|one| one.name == "orders").unwrap()
}

/// A storm of expiries that its target is slow with has every shared call; an incident has its own.
#[tokio::test]
async fn an_incident_in_the_middle_of_a_storm_of_expiries_is_confirmed() {
    let world = World::new().await;
    let (mut agent, mut other) = (world.agent("triage").await, world.agent("other").await);
    let (mut revoker, mut admin) = (world.operator("revoker").await, world.admin().await);
    leases(&mut agent, STORM).await;
    world.pass(300);
    let (_, wanted) = leases(&mut other, 50).await;
    let gate = Gate::default();
    world.orders.faults.add(Rule::times(Call::Revoke, 4, Fault::Hold(gate.clone())));
    world.pass(301);
    for _ in 0..4 {
        gate.arrival().await;
    }
    let id = "spiffe://suite.leasehold.test/agent/other".to_owned();
    let told = run(&mut revoker, revoke(Kind::Agent(id))).await.unwrap();
    let last = told.last().unwrap();
    let counts = last.revocation.clone().unwrap().counts.unwrap();
    assert!(last.done, "all confirmed while the storm stands still");
    assert_eq!((counts.total as usize, counts.confirmed as usize), (wanted.len(), wanted.len()));
    let seen = orders(&mut admin).await;
    assert_eq!((seen.due, seen.due_security), (STORM as u64, 0), "and the storm waits: {seen:?}");
    for _ in 0..4 {
        gate.open();
    }
    eventually("the storm is over", || async { World::principals(&world.orders) == 0 }).await;
}

/// Twenty minutes, by the injected clock.
#[tokio::test]
async fn after_a_long_outage_all_is_dead_as_soon_as_the_target_is_back() {
    let world = World::new().await;
    let (mut agent, mut admin) = (world.agent("triage").await, world.admin().await);
    let (task, held) = leases(&mut agent, STORM).await;
    world.orders.faults.add(Rule::always(Call::Revoke, Fault::down()));
    world.orders.faults.add(Rule::always(Call::Health, Fault::down()));
    let complete = v1::CompleteTaskRequest { task: task.id.clone(), wait: None };
    agent.tasks.complete_task(complete).await.unwrap();
    let is_open = |target: &v1::Target| target.breaker.unwrap().state() == v1::BreakerState::Open;
    eventually("the breaker opens", || {
        let mut admin = admin.clone();
        async move { is_open(&orders(&mut admin).await) }
    })
    .await;
    let mut before = u64::MAX;
    for _ in 0..20 {
        let asked = world.orders.calls(Call::Revoke);
        world.time.advance(Span::from_mins(1));
        eventually("it is asked again", || async { world.orders.calls(Call::Revoke) > asked }).await;
        before = before.min(world.orders.calls(Call::Revoke));
    }
    let seen = orders(&mut admin).await;
    assert_eq!((seen.live, seen.due, seen.due_task_end), (300, 300, 300), "{seen:?}");
    let breaker = seen.breaker.unwrap();
    assert!(breaker.failures > 20 && breaker.since.is_some(), "{breaker:?}");
    let asked = world.orders.calls(Call::Revoke) - before;
    assert!(asked < STORM as u64, "one lease at a time asks whether it is back, and not often: {asked}");
    let screen = admin.admin.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert!(screen.needs_person.iter().any(|line| line.contains("has not answered")), "{screen:?}");

    world.orders.faults.clear();
    world.time.advance(Span::from_secs(4));
    eventually("all is dead", || async { World::principals(&world.orders) == 0 }).await;
    for lease in &held {
        agent.until_lease(lease, v1::LeaseState::Revoked).await;
    }
    let seen = orders(&mut admin).await;
    assert_eq!((seen.due, seen.breaker.unwrap().state()), (0, v1::BreakerState::Closed));
    agent.until_task(&task, v1::TaskState::Ended).await;
}

/// A target that is away costs the leases on another nothing.
#[tokio::test]
async fn a_target_that_is_away_holds_up_no_other() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ, "stock.read@stock"]).await.unwrap();
    agent.lease(&task, READ).await.unwrap();
    agent.lease(&task, "stock.read@stock").await.unwrap();
    let gate = Gate::default();
    world.orders.faults.add(Rule::always(Call::Revoke, Fault::Hold(gate)));
    world.pass(601);
    eventually("the other is dead", || async { World::principals(&world.stock) == 0 }).await;
    assert_eq!(World::principals(&world.orders), 1);
}

/// More tasks than are looked at in a beat wait for a target that is away; those on another target end on time (law 9).
#[tokio::test]
async fn tasks_that_wait_for_a_target_that_is_away_keep_no_other_from_its_end() {
    const MANY: usize = 520;
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    world.orders.faults.add(Rule::always(Call::Revoke, Fault::down()));
    let mut waiting = Vec::new();
    for _ in 0..MANY {
        let task = agent.open(&[READ]).await.unwrap();
        agent.lease(&task, READ).await.unwrap();
        let complete = v1::CompleteTaskRequest { task: task.id.clone(), wait: None };
        agent.tasks.complete_task(complete).await.unwrap();
        waiting.push(task);
    }
    let mut open = open_request(&["stock.read@stock"]);
    open.deadline = seconds(300);
    let brief = agent.open_as(open).await.unwrap();
    world.pass(301);
    let ended = agent.until_task(&brief, v1::TaskState::Ended).await;
    assert_eq!(ended.cause(), v1::Cause::TaskExpired);
    assert_eq!(agent.task(&waiting[0]).await.state(), v1::TaskState::Ending);
    world.orders.faults.clear();
    world.pass(4);
    agent.until_task(&waiting[0], v1::TaskState::Ended).await;
    agent.until_task(&waiting[MANY - 1], v1::TaskState::Ended).await;
}

/// REV-1: what cannot be removed is disabled and cut, and the record says how far it came.
#[tokio::test]
async fn what_cannot_be_removed_is_disabled_and_cut_and_says_so() {
    let world = World::new().await;
    let (mut agent, mut admin) = (world.agent("triage").await, world.admin().await);
    let task = agent.open(&[READ]).await.unwrap();
    let granted = agent.lease(&task, READ).await.unwrap();
    let (user, password) = login(&granted);
    let lease = granted.lease.unwrap().id;
    assert!(world.orders.accepts(&user, &password));
    world.orders.faults.add(Rule::always(Call::Revoke, Fault::StopAt(Reached::Cut, Sessions::None)));
    agent.leases.release_lease(v1::ReleaseLeaseRequest { lease: lease.clone(), wait: None }).await.unwrap();
    let mut seen = agent.clone();
    eventually("it came as far as it can", || {
        let (mut seen, lease) = (seen.clone(), lease.clone());
        async move { seen.look(&lease).await.reached() == v1::Reached::Cut }
    })
    .await;
    let stuck = seen.look(&lease).await;
    assert_eq!((stuck.state(), stuck.sessions()), (v1::LeaseState::Revoking, v1::Sessions::None));
    assert!(stuck.last_error.contains("Cut") && stuck.revoking_since.is_some() && stuck.next_try.is_some());
    assert!(!world.orders.accepts(&user, &password), "nobody can log in any more");
    let target = orders(&mut admin).await;
    assert_eq!((target.stuck, target.due_expiry), (1, 1));
    let answered = target.breaker.unwrap();
    assert_eq!(
        answered.state(),
        v1::BreakerState::Closed,
        "the target answers; it is this lease that is stuck"
    );
    world.orders.faults.clear();
    world.pass(61);
    agent.until_lease(&lease, v1::LeaseState::Revoked).await;
}

/// A stranger holds the write lock, so that commits hang: RULES R-24.
/// Many are killed as soon as the journal is known to hang: no part of them waits for it again.
#[tokio::test]
async fn a_journal_that_hangs_holds_up_a_kill_of_many_once() {
    const MANY: usize = 800;
    let world = World::new().await;
    let (mut agent, mut revoker) = (world.agent("triage").await, world.operator("revoker").await);
    let task = agent.open(&[READ]).await.unwrap();
    for _ in 0..MANY {
        agent.lease(&task, READ).await.unwrap();
    }
    let stranger = rusqlite::Connection::open(world.path("store/leases.db")).unwrap();
    stranger.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = std::time::Instant::now();
    let request = v1::RevokeRequest { wait: None, ..revoke(Kind::Task(task.id.clone())) };
    let stopped = tokio::spawn(async move { run(&mut revoker, request).await });
    eventually("all are gone", || async { World::principals(&world.orders) == 0 }).await;
    // Each part that waited would have taken five seconds, and there are four.
    assert!(began.elapsed() < std::time::Duration::from_secs(15), "{:?}", began.elapsed());
    stranger.execute_batch("ROLLBACK").unwrap();
    drop(stopped.await.unwrap());
}

#[tokio::test]
async fn a_journal_that_hangs_holds_up_no_kill() {
    let world = World::new().await;
    let (mut agent, mut revoker) = (world.agent("triage").await, world.operator("revoker").await);
    let (_, released) = leases(&mut agent, 2).await;
    let task = agent.open(&["stock.read@stock", READ]).await.unwrap();
    let narrowed = agent.lease(&task, "stock.read@stock").await.unwrap().lease.unwrap().id;
    let stranger = rusqlite::Connection::open(world.path("store/leases.db")).unwrap();
    stranger.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut asking = agent.clone();
    let lease = released[0].clone();
    let given = tokio::spawn(async move {
        asking.leases.release_lease(v1::ReleaseLeaseRequest { lease, wait: None }).await
    });
    eventually("the released one is gone", || async { World::principals(&world.orders) == 1 }).await;
    // From here on the journal is known to hang, and is not waited for.
    let kind = Kind::Lease(released[1].clone());
    let request = v1::RevokeRequest { wait: None, ..revoke(kind) };
    let stopped = tokio::spawn(async move { run(&mut revoker, request).await });
    eventually("the stopped one is gone", || async { World::principals(&world.orders) == 0 }).await;
    let mut asking = agent.clone();
    let changed = tokio::spawn(async move { asking.change(&task, scope(&[READ])).await });
    eventually("the narrowed one is gone", || async { World::principals(&world.stock) == 0 }).await;
    stranger.execute_batch("ROLLBACK").unwrap();
    given.await.unwrap().unwrap();
    // These say that they are not on record, where the journal came back too late for them.
    drop((stopped.await.unwrap(), changed.await.unwrap()));
    for (lease, cause) in [
        (&released[0], v1::Cause::Released),
        (&released[1], v1::Cause::Operator),
        (&narrowed, v1::Cause::ScopeChanged),
    ] {
        let dead = agent.until_lease(lease, v1::LeaseState::Revoked).await;
        assert_eq!(dead.cause(), cause, "it is recorded late");
    }
}
