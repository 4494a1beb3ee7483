//! What happens at the same time as a mint: nothing remains that nobody decided, recorded or received.

use http::uri::PathAndQuery;
use leasehold_memory::{Call, Fault, Gate, Rule};
use leasehold_proto::v1;
use tokio::task::JoinHandle;
use tonic::client::Grpc;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::raw;
use crate::world::{Client, World, eventually, lease_request, refused, scope};

type Answer = Result<Response<v1::RequestLeaseResponse>, Status>;

/// A request whose mint stands at a gate.
async fn held(
    world: &World,
    agent: &Client,
    task: &v1::Task,
    fault: fn(Gate) -> Fault,
) -> (Gate, JoinHandle<Answer>) {
    let gate = Gate::default();
    world.orders.faults.add(Rule::once(Call::Issue, fault(gate.clone())));
    let (mut agent, request) = (agent.clone(), lease_request(task, "orders.read@orders"));
    let asked = tokio::spawn(async move { agent.leases.request_lease(request).await });
    gate.arrival().await;
    (gate, asked)
}

async fn only_lease(agent: &mut Client) -> v1::Lease {
    let listed = agent.leases.list_leases(v1::ListLeasesRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.leases.len(), 1);
    listed.leases.into_iter().next().unwrap()
}

/// The one lease dies for this cause, and nothing of it remains.
async fn dies(world: &World, agent: &mut Client, cause: v1::Cause) -> v1::Lease {
    let lease = only_lease(agent).await;
    world.pass(2);
    let dead = agent.until_lease(&lease.id, v1::LeaseState::Revoked).await;
    assert_eq!(dead.cause(), cause);
    assert_eq!(World::principals(&world.orders), 0);
    dead
}

#[tokio::test]
async fn a_scope_change_in_the_middle_of_a_mint_kills_it() {
    for fault in [Fault::Hold as fn(Gate) -> Fault, Fault::HoldAnswer] {
        let world = World::new().await;
        let mut agent = world.agent("triage").await;
        let task = agent.open(&["orders.read@orders", "stock.read@stock"]).await.unwrap();
        let (gate, asked) = held(&world, &agent, &task, fault).await;
        let narrower =
            v1::ChangeScopeRequest { task: task.id.clone(), scope: scope(&["stock.read@stock"]), wait: None };
        let changed = agent.tasks.change_scope(narrower).await.unwrap().into_inner();
        assert_eq!(changed.leases.len(), 1, "what is being minted counts as alive");
        gate.open();
        assert_eq!(refused(asked.await.unwrap()), (Code::Aborted, "CONTENDED".into()));
        dies(&world, &mut agent, v1::Cause::ScopeChanged).await;
    }
}

#[tokio::test]
async fn a_wider_scope_in_the_middle_of_a_mint_makes_its_decision_stale() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let (gate, asked) = held(&world, &agent, &task, Fault::Hold).await;
    agent.change(&task, scope(&["orders.read@orders", "stock.read@stock"])).await.unwrap();
    gate.open();
    assert_eq!(refused(asked.await.unwrap()), (Code::Aborted, "CONTENDED".into()));
    dies(&world, &mut agent, v1::Cause::ScopeChanged).await;
}

#[tokio::test]
async fn stopping_an_agent_in_the_middle_of_a_mint_kills_it() {
    let world = World::new().await;
    let (mut agent, mut revoker) = (world.agent("triage").await, world.operator("revoker").await);
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let (gate, asked) = held(&world, &agent, &task, Fault::Hold).await;
    let kind = v1::selector::Kind::Agent(task.agent.clone());
    let revoke = v1::RevokeRequest {
        selector: Some(v1::Selector { kind: Some(kind) }),
        reason: "it misbehaves".into(),
        ..v1::RevokeRequest::default()
    };
    let mut told = revoker.revocations.revoke(revoke).await.unwrap().into_inner();
    let progress = told.message().await.unwrap().unwrap();
    assert_eq!(progress.pending.len(), 1);
    gate.open();
    assert_eq!(refused(asked.await.unwrap()), (Code::Aborted, "CONTENDED".into()));
    dies(&world, &mut agent, v1::Cause::Operator).await;
}

#[tokio::test]
async fn the_end_of_a_task_in_the_middle_of_a_mint_kills_it() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let (gate, asked) = held(&world, &agent, &task, Fault::HoldAnswer).await;
    let complete = v1::CompleteTaskRequest { task: task.id.clone(), wait: None };
    agent.tasks.complete_task(complete).await.unwrap();
    gate.open();
    assert_eq!(refused(asked.await.unwrap()), (Code::Aborted, "CONTENDED".into()));
    dies(&world, &mut agent, v1::Cause::TaskCompleted).await;
    agent.until_task(&task, v1::TaskState::Ended).await;
}

#[tokio::test]
async fn a_caller_that_goes_in_the_middle_of_a_mint_leaves_nothing_behind() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let (gate, asked) = held(&world, &agent, &task, Fault::Hold).await;
    asked.abort();
    // What is sent on one connection arrives in its order: when this is answered, the broker knows of the reset.
    for _ in 0..3 {
        agent.task(&task).await;
    }
    gate.open();
    eventually("the mint is over", || async { world.orders.calls(Call::Revoke) > 0 }).await;
    let dead = dies(&world, &mut agent, v1::Cause::Undelivered).await;
    assert_eq!(dead.proof(), v1::Proof::ReadBack);
}

#[tokio::test]
async fn an_answer_that_does_not_get_through_is_taken_back() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    // The headers of the answer come, and its window lets nothing more through.
    let mut narrow = Grpc::new(raw::narrow(&world, "triage").await);
    narrow.ready().await.unwrap();
    let path = PathAndQuery::from_static("/leasehold.v1.LeaseService/RequestLease");
    let request = Request::new(lease_request(&task, "orders.read@orders"));
    let codec: ProstCodec<_, v1::RequestLeaseResponse> = ProstCodec::default();
    let answer = narrow.server_streaming(request, path, codec).await.unwrap();
    assert_eq!(only_lease(&mut agent).await.state(), v1::LeaseState::Active);
    drop(answer);
    dies(&world, &mut agent, v1::Cause::Undelivered).await;
}

#[tokio::test]
async fn a_mint_that_lands_after_its_revocation_began_is_found_and_killed() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    world.orders.faults.add(Rule::once(Call::Issue, Fault::late()));
    assert_eq!(
        refused(agent.lease(&task, "orders.read@orders").await),
        (Code::Unavailable, "TARGET_DOWN".into())
    );
    let lease = only_lease(&mut agent).await;
    eventually("it was looked for once", || async { world.orders.calls(Call::Revoke) > 0 }).await;
    let waiting = agent.look(&lease.id).await;
    assert_eq!(
        waiting.state(),
        v1::LeaseState::Revoking,
        "absent proves nothing while a mint may still land"
    );
    assert_eq!(world.orders.land(), Ok(1));
    assert_eq!(World::principals(&world.orders), 1);
    let dead = dies(&world, &mut agent, v1::Cause::MintFailed).await;
    assert_eq!(dead.proof(), v1::Proof::ReadBack);
}

#[tokio::test]
async fn no_mint_lands_after_its_lease_was_called_dead() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    world.orders.faults.add(Rule::once(Call::Issue, Fault::late()));
    refused(agent.lease(&task, "orders.read@orders").await);
    world.pass(11);
    let dead = dies(&world, &mut agent, v1::Cause::MintFailed).await;
    assert_eq!(dead.proof(), v1::Proof::NeverMinted);
    assert!(world.orders.land().is_err(), "the target refuses what comes after its time");
    assert_eq!(World::principals(&world.orders), 0);
}

#[tokio::test]
async fn a_mint_whose_answer_is_lost_is_revoked() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    world.orders.faults.add(Rule::once(Call::Issue, Fault::lost_answer()));
    assert_eq!(
        refused(agent.lease(&task, "orders.read@orders").await),
        (Code::Unavailable, "TARGET_DOWN".into())
    );
    let dead = dies(&world, &mut agent, v1::Cause::MintFailed).await;
    assert_eq!(dead.proof(), v1::Proof::ReadBack);
}
