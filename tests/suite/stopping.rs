//! What operators do: revoke, behind a barrier or without, see it through, lift the barrier.

use leasehold_memory::{Call, Fault, Rule};
use leasehold_proto::v1;
use leasehold_proto::v1::selector::Kind;
use tonic::{Code, Status};

use crate::world::{Client, World, detail, reason, refused, seconds};

const ID: &str = "spiffe://suite.leasehold.test/agent/triage";

pub(crate) fn revoke(kind: Kind) -> v1::RevokeRequest {
    v1::RevokeRequest {
        selector: Some(v1::Selector { kind: Some(kind) }),
        reason: "a leak in ticket 7".into(),
        wait: seconds(20),
        ..v1::RevokeRequest::default()
    }
}

/// All that a revocation says until its stream ends.
pub(crate) async fn run(
    operator: &mut Client,
    request: v1::RevokeRequest,
) -> Result<Vec<v1::RevocationProgress>, Status> {
    let mut told = operator.revocations.revoke(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(progress) = told.message().await? {
        all.push(progress);
    }
    Ok(all)
}

pub(crate) async fn lift(operator: &mut Client, id: &str) -> Result<v1::Revocation, Status> {
    let request = v1::LiftRevocationRequest { revocation: id.into(), reason: "it was a drill".into() };
    Ok(operator.revocations.lift_revocation(request).await?.into_inner())
}

#[tokio::test]
async fn a_stopped_agent_gets_nothing_until_an_admin_lifts_it() {
    let world = World::new().await;
    let (mut agent, mut other) = (world.agent("triage").await, world.agent("other").await);
    let (mut revoker, mut admin) = (world.operator("revoker").await, world.admin().await);
    let task = agent.open(&["orders.read@orders", "stock.read@stock"]).await.unwrap();
    for pair in ["orders.read@orders", "stock.read@stock"] {
        agent.lease(&task, pair).await.unwrap();
    }
    let told = run(&mut revoker, revoke(Kind::Agent(ID.into()))).await.unwrap();
    let last = told.last().unwrap();
    let revocation = last.revocation.clone().unwrap();
    let counts = revocation.counts.unwrap();
    assert!(last.done && revocation.frozen);
    assert_eq!((counts.total, counts.confirmed, counts.pending), (2, 2, 0));
    assert_eq!(World::principals(&world.orders) + World::principals(&world.stock), 0);

    let status = agent.lease(&task, "orders.read@orders").await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::PermissionDenied, "FROZEN".into()));
    assert_eq!(detail(&status, "revocation"), revocation.id);
    assert!(detail(&status, "why").contains("a leak in ticket 7"), "{status:?}");
    assert!(detail(&status, "next").contains(&format!("leasehold revocations lift {}", revocation.id)));
    assert_eq!(refused(agent.open(&["orders.read@orders"]).await), (Code::PermissionDenied, "FROZEN".into()));
    let me = agent.identity.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(me.frozen.unwrap().revocation, revocation.id);
    let elsewhere = other.open(&["orders.read@orders"]).await.unwrap();
    other.lease(&elsewhere, "orders.read@orders").await.unwrap();

    assert_eq!(
        refused(lift(&mut revoker, &revocation.id).await),
        (Code::PermissionDenied, "ROLE_MISSING".into())
    );
    let lifted = lift(&mut admin, &revocation.id).await.unwrap();
    assert!(!lifted.frozen && lifted.lifted_by.starts_with("uid:"), "{lifted:?}");
    assert_eq!(lift(&mut admin, &revocation.id).await.unwrap(), lifted, "lifting twice is no error");
    agent.lease(&task, "orders.read@orders").await.unwrap();
}

#[tokio::test]
async fn an_agent_may_be_stopped_without_a_barrier_and_a_task_with_one() {
    let world = World::new().await;
    let (mut agent, mut revoker) = (world.agent("triage").await, world.operator("revoker").await);
    let (first, second) = (
        agent.open(&["orders.read@orders"]).await.unwrap(),
        agent.open(&["orders.read@orders"]).await.unwrap(),
    );
    agent.lease(&first, "orders.read@orders").await.unwrap();
    run(&mut revoker, v1::RevokeRequest { freeze: Some(false), ..revoke(Kind::Agent(ID.into())) })
        .await
        .unwrap();
    assert_eq!(World::principals(&world.orders), 0);
    agent.lease(&first, "orders.read@orders").await.unwrap();
    run(&mut revoker, v1::RevokeRequest { freeze: Some(true), ..revoke(Kind::Task(first.id.clone())) })
        .await
        .unwrap();
    assert_eq!(World::principals(&world.orders), 0);
    assert_eq!(refused(agent.lease(&first, "orders.read@orders").await).1, "FROZEN");
    agent.lease(&second, "orders.read@orders").await.unwrap();
}

#[tokio::test]
async fn a_lease_is_revoked_alone() {
    let world = World::new().await;
    let (mut agent, mut revoker) = (world.agent("triage").await, world.operator("revoker").await);
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let first = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    let second = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    let told = run(&mut revoker, revoke(Kind::Lease(first.id.clone()))).await.unwrap();
    let revocation = told.last().unwrap().revocation.clone().unwrap();
    assert!(!revocation.frozen);
    assert_eq!(revocation.by, "spiffe://suite.leasehold.test/operator/revoker");
    let outcome = &revocation.outcomes[0];
    assert_eq!((outcome.state(), outcome.proof()), (v1::LeaseState::Revoked, v1::Proof::ReadBack));
    assert_eq!(agent.look(&first.id).await.cause(), v1::Cause::Operator);
    assert_eq!(agent.look(&second.id).await, second);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_stopped_and_stops_nothing() {
    let world = World::new().await;
    let (mut agent, mut revoker) = (world.agent("triage").await, world.operator("revoker").await);
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    let request = v1::RevokeRequest { dry_run: true, ..revoke(Kind::Agent(ID.into())) };
    let told = run(&mut revoker, request).await.unwrap();
    let plan = told[0].revocation.clone().unwrap();
    assert_eq!((told.len(), told[0].done, plan.id.as_str(), plan.frozen), (1, true, "", true));
    assert_eq!((plan.outcomes[0].lease.as_str(), plan.tasks), (lease.id.as_str(), vec![task.id.clone()]));
    assert_eq!(agent.look(&lease.id).await, lease);
    agent.lease(&task, "orders.read@orders").await.unwrap();
    let listed = revoker.revocations.list_revocations(v1::ListRevocationsRequest::default()).await.unwrap();
    assert_eq!(listed.into_inner().revocations, []);
}

#[tokio::test]
async fn a_revocation_is_followed_until_all_is_confirmed() {
    let world = World::new().await;
    let (mut agent, mut revoker) = (world.agent("triage").await, world.operator("revoker").await);
    let task = agent.open(&["orders.read@orders", "stock.read@stock"]).await.unwrap();
    agent.lease(&task, "orders.read@orders").await.unwrap();
    agent.lease(&task, "stock.read@stock").await.unwrap();
    world.stock.faults.add(Rule::always(Call::Revoke, Fault::down()));
    let request = v1::RevokeRequest { wait: None, ..revoke(Kind::Task(task.id.clone())) };
    let first = run(&mut revoker, request).await.unwrap();
    let id = first[0].revocation.clone().unwrap().id;
    let get = v1::GetRevocationRequest { revocation: id.clone() };
    crate::world::eventually("one lease is dead and one is stuck", || {
        let (mut revoker, get) = (revoker.clone(), get.clone());
        async move {
            let now = revoker.revocations.get_revocation(get).await.unwrap().into_inner().counts.unwrap();
            (now.total, now.confirmed, now.pending, now.stuck) == (2, 1, 1, 1)
        }
    })
    .await;
    let pending = v1::ListRevocationsRequest { pending: true, ..v1::ListRevocationsRequest::default() };
    let listed =
        revoker.revocations.list_revocations(pending.clone()).await.unwrap().into_inner().revocations;
    assert_eq!(listed.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
    let watch = v1::WatchRevocationRequest { revocation: id.clone() };
    let mut watched = revoker.revocations.watch_revocation(watch).await.unwrap().into_inner();
    let told = watched.message().await.unwrap().unwrap();
    assert_eq!((told.pending.len(), told.done), (1, false));
    world.stock.faults.clear();
    world.pass(60);
    let mut last = told;
    while let Some(told) = watched.message().await.unwrap() {
        last = told;
    }
    assert!(last.done && last.pending.is_empty());
    let listed = revoker.revocations.list_revocations(pending).await.unwrap().into_inner().revocations;
    assert_eq!(listed, []);
}

#[tokio::test]
async fn what_cannot_be_selected_is_refused_and_nothing_is_done() {
    let world = World::new().await;
    let (mut agent, mut revoker) = (world.agent("triage").await, world.operator("revoker").await);
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    agent.lease(&task, "orders.read@orders").await.unwrap();
    let without_reason = v1::RevokeRequest { reason: " ".into(), ..revoke(Kind::Task(task.id.clone())) };
    let nothing = v1::RevokeRequest { selector: None, ..revoke(Kind::Task(task.id.clone())) };
    let none = "00000000000000000000";
    for (request, word) in [
        (without_reason, "BAD_REQUEST"),
        (nothing, "BAD_REQUEST"),
        (revoke(Kind::Lease(format!("lease_{none}"))), "NOT_FOUND"),
        (revoke(Kind::Task(format!("task_{none}"))), "NOT_FOUND"),
        (revoke(Kind::Lease(task.id.clone())), "BAD_REQUEST"),
        (revoke(Kind::Agent("triage".into())), "BAD_REQUEST"),
        (revoke(Kind::Person("nobody".into())), "NOT_FOUND"),
        (revoke(Kind::Incident("inc_7".into())), "NOT_SERVED"),
    ] {
        assert_eq!(refused(run(&mut revoker, request.clone()).await).1, word, "{request:?}");
    }
    assert_eq!(World::principals(&world.orders), 1);
}

/// The task itself ends as completed: that is what its agent said.
#[tokio::test]
async fn a_goodbye_after_a_stop_does_not_hide_it() {
    let world = World::new().await;
    let (mut agent, mut revoker) = (world.agent("triage").await, world.operator("revoker").await);
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let mut leases = Vec::new();
    for _ in 0..4 {
        leases.push(agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap());
    }
    agent.release(&leases[0].id).await.unwrap();
    let told = run(&mut revoker, revoke(Kind::Lease(leases[1].id.clone()))).await.unwrap();
    let one = told.last().unwrap().revocation.clone().unwrap().id;
    let told = run(&mut revoker, revoke(Kind::Agent(ID.into()))).await.unwrap();
    let rest = told.last().unwrap().revocation.clone().unwrap().id;
    let ended = agent.complete(&task).await.unwrap().task.unwrap();
    assert_eq!((ended.state(), ended.cause()), (v1::TaskState::Ended, v1::Cause::TaskCompleted));

    let stop = |leases, revocation: &str| v1::TaskStop {
        cause: v1::Cause::Operator.into(),
        leases,
        revocation: revocation.into(),
    };
    let mut viewer = world.operator("admin").await;
    assert_eq!(viewer.task(&task).await.stops, [stop(1, &one), stop(2, &rest)]);
    assert_eq!(agent.task(&task).await.stops, [stop(3, "")], "which act it was is for operators");
    let list = v1::ListTasksRequest::default();
    assert_eq!(agent.tasks.list_tasks(list).await.unwrap().into_inner().tasks, [ended]);
}
