//! A journal that takes nothing, and a clock that cannot be trusted: issuing stops, revoking goes on (RULES ).

use leasehold_law::lease::{Reached, Sessions};
use leasehold_memory::{Call, Fault, Rule};
use leasehold_proto::v1;
use tonic::Code;

use crate::stopping::{revoke, run};
use crate::world::{World, eventually, refused, scope};

fn journal() -> (Code, String) {
    (Code::Unavailable, "JOURNAL".into())
}

#[tokio::test]
async fn without_a_journal_nothing_is_issued_and_revoking_goes_on() {
    let world = World::new().await;
    let (mut agent, mut viewer) = (world.agent("triage").await, world.operator("viewer").await);
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    world.break_journal();
    assert_eq!(refused(agent.lease(&task, "orders.read@orders").await), journal());
    assert_eq!(refused(agent.open(&["orders.read@orders"]).await), journal());
    assert_eq!(refused(agent.renew(&lease.id, 60).await), journal());
    assert_eq!(World::principals(&world.orders), 1, "no record, no credential");
    let release = v1::ReleaseLeaseRequest { lease: lease.id.clone(), wait: None };
    agent.leases.release_lease(release).await.unwrap();
    eventually("the principal is gone", || async { World::principals(&world.orders) == 0 }).await;
    let screen = viewer.admin.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert!(!screen.journal.unwrap().healthy);
    assert!(
        screen.needs_person.iter().any(|line| line.contains("disk is full")),
        "{:?}",
        screen.needs_person
    );
    world.mend_journal();
    let dead = agent.until_lease(&lease.id, v1::LeaseState::Revoked).await;
    assert_eq!(dead.cause(), v1::Cause::Released, "it is recorded late");
    agent.lease(&task, "orders.read@orders").await.unwrap();
}

#[tokio::test]
async fn without_a_journal_the_end_of_a_task_still_kills() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    world.break_journal();
    assert_eq!(refused(agent.complete(&task).await), journal(), "the end is not durable, and that is said");
    eventually("the principal is gone", || async { World::principals(&world.orders) == 0 }).await;
    world.mend_journal();
    let dead = agent.until_lease(&lease.id, v1::LeaseState::Revoked).await;
    assert_eq!(dead.cause(), v1::Cause::TaskCompleted);
    agent.complete(&task).await.unwrap();
    agent.until_task(&task, v1::TaskState::Ended).await;
}

#[tokio::test]
async fn without_a_journal_a_narrower_scope_still_kills() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders", "stock.read@stock"]).await.unwrap();
    agent.lease(&task, "orders.read@orders").await.unwrap();
    agent.lease(&task, "stock.read@stock").await.unwrap();
    world.break_journal();
    assert_eq!(refused(agent.change(&task, scope(&["stock.read@stock"])).await), journal());
    eventually("the principal is gone", || async { World::principals(&world.orders) == 0 }).await;
    assert_eq!(World::principals(&world.stock), 1);
}

#[tokio::test]
async fn without_a_journal_operators_still_stop_things() {
    let world = World::new().await;
    let (mut agent, mut revoker) = (world.agent("triage").await, world.operator("revoker").await);
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    world.break_journal();
    let request = v1::RevokeRequest {
        selector: Some(v1::Selector { kind: Some(v1::selector::Kind::Lease(lease.id.clone())) }),
        reason: "a leak".into(),
        ..v1::RevokeRequest::default()
    };
    // It is killed, and the answer says that a crash would forget it.
    assert_eq!(refused(revoker.revocations.revoke(request).await), journal());
    eventually("the principal is gone", || async { World::principals(&world.orders) == 0 }).await;
    world.mend_journal();
    let dead = agent.until_lease(&lease.id, v1::LeaseState::Revoked).await;
    assert_eq!(dead.cause(), v1::Cause::Operator);
}

#[tokio::test]
async fn an_hour_back_stops_issuing_until_an_admin_confirms_the_clock() {
    let world = World::new().await;
    let (mut agent, mut admin) = (world.agent("triage").await, world.admin().await);
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    let kept = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    world.time.step_wall(-3_600_000);
    assert_eq!(refused(agent.lease(&task, "orders.read@orders").await), (Code::Unavailable, "CLOCK".into()));
    assert_eq!(refused(agent.renew(&kept.id, 60).await), (Code::Unavailable, "CLOCK".into()));
    let screen = admin.admin.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert!(!screen.clock.unwrap().ok);
    assert!(
        screen.needs_person.iter().any(|line| line.contains("clock confirm")),
        "{:?}",
        screen.needs_person
    );
    agent.release(&lease.id).await.unwrap();
    assert_eq!(World::principals(&world.orders), 1, "revoking goes on");
    let confirm = |reason: &str| v1::ConfirmClockRequest { reason: reason.into() };
    assert_eq!(
        refused(admin.admin.confirm_clock(confirm("")).await),
        (Code::InvalidArgument, "BAD_REQUEST".into())
    );
    let clock =
        admin.admin.confirm_clock(confirm("ntp was wrong")).await.unwrap().into_inner().clock.unwrap();
    assert!(clock.ok);
    agent.lease(&task, "orders.read@orders").await.unwrap();
}

/// A target was away, and another could not remove a lease, while the wall clock was an hour ahead: once an operator has
/// confirmed the right one, nothing waits for that hour.
#[tokio::test]
async fn what_was_put_off_by_a_clock_an_hour_ahead_dies_once_the_clock_is_confirmed() {
    let world = World::new().await;
    let (mut agent, mut admin) = (world.agent("triage").await, world.admin().await);
    let mut revoker = world.operator("revoker").await;
    let task = agent.open(&["orders.read@orders", "stock.read@stock"]).await.unwrap();
    agent.lease(&task, "orders.read@orders").await.unwrap();
    let stuck = agent.lease(&task, "stock.read@stock").await.unwrap().lease.unwrap().id;
    world.orders.faults.add(Rule::always(Call::Revoke, Fault::down()));
    world.stock.faults.add(Rule::always(Call::Revoke, Fault::StopAt(Reached::Cut, Sessions::None)));
    world.time.step_wall(3_600_000);
    eventually("one is tried", || async { world.orders.calls(Call::Revoke) > 1 }).await;
    let looking = agent.clone();
    eventually("the other came as far as it can", || {
        let (mut looking, stuck) = (looking.clone(), stuck.clone());
        async move { looking.look(&stuck).await.reached() == v1::Reached::Cut }
    })
    .await;
    world.time.step_wall(-3_600_000);
    let confirm = v1::ConfirmClockRequest { reason: "it was an hour ahead".into() };
    assert!(admin.admin.confirm_clock(confirm).await.unwrap().into_inner().clock.unwrap().ok);
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let leaked = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap().id;
    let kind = v1::selector::Kind::Lease(leaked);
    run(&mut revoker, v1::RevokeRequest { wait: None, ..revoke(kind) }).await.unwrap();
    world.stock.faults.clear();
    world.pass(61);
    eventually("what was stuck is dead", || async { World::principals(&world.stock) == 0 }).await;
    world.orders.faults.clear();
    eventually("all is dead", || async { World::principals(&world.orders) == 0 }).await;
    agent.until_lease(&stuck, v1::LeaseState::Revoked).await;
}

#[tokio::test]
async fn a_clock_that_comes_back_by_itself_needs_nobody() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    world.time.step_wall(-60_000);
    assert_eq!(refused(agent.lease(&task, "orders.read@orders").await).1, "CLOCK");
    world.time.step_wall(60_000);
    agent.lease(&task, "orders.read@orders").await.unwrap();
}
