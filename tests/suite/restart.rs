//! What a broker finds when it starts, and how one stops.

use leasehold::config::Trust;
use leasehold::server::{StartError, check};
use leasehold::store::StoreError;
use leasehold_memory::{Call, Fault, Gate, Rule};
use leasehold_proto::v1;
use tonic::Code;

use crate::world::{Setup, World, eventually, lease_request, login, millis, refused};

#[tokio::test]
async fn what_lived_lives_on_and_what_ended_meanwhile_is_revoked() {
    let mut world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders", "stock.read@stock"]).await.unwrap();
    let mut short = lease_request(&task, "orders.read@orders");
    short.ttl = crate::world::seconds(60);
    let short = agent.leases.request_lease(short).await.unwrap().into_inner().lease.unwrap();
    let long = agent.lease(&task, "stock.read@stock").await.unwrap();
    let (user, password) = login(&long);
    world.stop().await;
    world.pass(61);
    world.start(&Setup::default()).await.unwrap();
    let mut agent = world.agent("triage").await;
    let dead = agent.until_lease(&short.id, v1::LeaseState::Revoked).await;
    assert_eq!(dead.cause(), v1::Cause::Expired);
    assert_eq!(World::principals(&world.orders), 0);
    assert_eq!(agent.look(&long.lease.unwrap().id).await.state(), v1::LeaseState::Active);
    assert!(world.stock.accepts(&user, &password));
    agent.lease(&task, "orders.read@orders").await.unwrap();
}

#[tokio::test]
async fn a_mint_of_the_last_run_is_undone() {
    let mut world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let gate = Gate::default();
    world.orders.faults.add(Rule::once(Call::Issue, Fault::HoldAnswer(gate.clone())));
    let mut asking = agent.clone();
    let request = lease_request(&task, "orders.read@orders");
    let asked = tokio::spawn(async move { asking.leases.request_lease(request).await });
    gate.arrival().await;
    // The target has it, and nothing that came after that is on record: as after a crash.
    world.break_journal();
    world.orders.faults.add(Rule::always(Call::Revoke, Fault::down()));
    gate.open();
    assert_eq!(refused(asked.await.unwrap()), (Code::Unavailable, "JOURNAL".into()));
    world.stop().await;
    world.mend_journal();
    world.orders.faults.clear();
    assert_eq!(World::principals(&world.orders), 1);
    world.start(&Setup::default()).await.unwrap();
    let mut agent = world.agent("triage").await;
    let listed = agent.leases.list_leases(v1::ListLeasesRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.leases[0].state(), v1::LeaseState::Minting);
    world.pass(11);
    let dead = agent.until_lease(&listed.leases[0].id, v1::LeaseState::Revoked).await;
    assert_eq!((dead.cause(), dead.proof()), (v1::Cause::CrashRecovery, v1::Proof::ReadBack));
    assert_eq!(World::principals(&world.orders), 0);
}

#[tokio::test]
async fn a_renewal_whose_answer_is_lost_is_read_back_from_the_target() {
    for (fault, moved) in [(Fault::lost_answer(), true), (Fault::down(), false)] {
        let mut world = World::new().await;
        let mut agent = world.agent("triage").await;
        let task = agent.open(&["orders.read@orders"]).await.unwrap();
        let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
        world.pass(300);
        world.orders.faults.add(Rule::once(Call::Renew, fault));
        assert_eq!(refused(agent.renew(&lease.id, 600).await), (Code::Unavailable, "TARGET_DOWN".into()));
        assert_eq!(agent.look(&lease.id).await.state(), v1::LeaseState::Renewing);
        assert_eq!(refused(agent.renew(&lease.id, 600).await), (Code::Aborted, "CONTENDED".into()));
        world.restart(&Setup::default()).await;
        world.pass(11);
        let agent = world.agent("triage").await;
        let found = agent.until_lease(&lease.id, v1::LeaseState::Active).await;
        let later = millis(found.expires_at) - millis(lease.expires_at);
        assert_eq!(later > 290_000, moved, "{later} ms later");
        assert!(moved || later == 0);
    }
}

#[tokio::test]
async fn a_renewal_of_what_is_gone_ends_the_lease() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    world.orders.remove(&lease.principal);
    assert_eq!(
        refused(agent.renew(&lease.id, 600).await),
        (Code::FailedPrecondition, "TARGET_REFUSED".into())
    );
    let dead = agent.until_lease(&lease.id, v1::LeaseState::Revoked).await;
    assert_eq!(dead.cause(), v1::Cause::PrincipalMissing);
}

#[tokio::test]
async fn an_agent_that_left_the_config_loses_its_leases() {
    let gone = r#"[agents."spiffe://suite.leasehold.test/agent/triage"]
owner = "person:ana"
groups = ["soc"]
autonomy = "act"
"#;
    let mut world = World::new().await;
    let (mut agent, mut other) = (world.agent("triage").await, world.agent("other").await);
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let lost = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    let task = other.open(&["orders.read@orders"]).await.unwrap();
    let kept = other.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    world.restart(&Setup::default().replace(gone, "")).await;
    let viewer = world.operator("viewer").await;
    let dead = viewer.until_lease(&lost.id, v1::LeaseState::Revoked).await;
    assert_eq!(dead.cause(), v1::Cause::AgentChanged);
    assert_eq!(viewer.clone().look(&kept.id).await.state(), v1::LeaseState::Active);
    assert_eq!(World::principals(&world.orders), 1);
    let mut agent = world.agent("triage").await;
    assert_eq!(refused(agent.open(&["orders.read@orders"]).await).1, "UNKNOWN_AGENT");
}

#[tokio::test]
async fn leases_that_a_new_policy_forbids_are_revoked_at_the_start() {
    let mut world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders", "stock.read@stock"]).await.unwrap();
    let orders = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    let stock = agent.lease(&task, "stock.read@stock").await.unwrap().lease.unwrap();
    let closed = r#"
@id("orders-are-closed")
forbid (principal, action == Action::"orders.read", resource == Target::"orders");
"#;
    world.restart(&Setup::default().policy(closed)).await;
    let mut agent = world.agent("triage").await;
    let dead = agent.until_lease(&orders.id, v1::LeaseState::Revoked).await;
    assert_eq!(dead.cause(), v1::Cause::PolicyChanged);
    assert_eq!(agent.look(&stock.id).await.state(), v1::LeaseState::Active);
    assert_eq!(
        refused(agent.lease(&task, "orders.read@orders").await),
        (Code::PermissionDenied, "FORBIDDEN".into())
    );
}

/// With a target that leases may live in under another name.
pub(crate) fn renamed() -> Setup {
    Setup::default()
        .replace("[targets.stock]", "[targets.renamed]")
        .replace("targets = [\"stock\"]", "targets = [\"renamed\"]")
}

#[tokio::test]
async fn check_refuses_what_serve_refuses_in_its_words_beside_a_broker_that_serves() {
    let mut world = World::prepare(&Setup::default()).await;
    let checked = check(&world.write_config(&renamed()), Trust::Dev, true).await;
    assert_eq!(checked.problems, [] as [String; 0]);
    assert!(checked.good.contains(&"store: there is none yet; serve makes it".to_owned()), "{checked:?}");
    assert!(!world.path("store").exists(), "it makes none");
    world.start(&Setup::default()).await.unwrap();
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["stock.read@stock"]).await.unwrap();
    agent.lease(&task, "stock.read@stock").await.unwrap();
    let checked = check(&world.write_config(&Setup::default()), Trust::Dev, true).await;
    assert_eq!(checked.problems, [] as [String; 0]);
    assert!(checked.good.contains(&"store: leases live in stock".to_owned()), "{checked:?}");
    let checked = check(&world.write_config(&renamed()), Trust::Dev, true).await;
    world.stop().await;
    let refused = world.start(&renamed()).await.unwrap_err();
    assert_eq!(checked.problems, [refused.to_string()]);
}

#[tokio::test]
async fn a_target_with_live_leases_does_not_leave_the_config_unless_it_is_forced() {
    let mut world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders", "stock.read@stock"]).await.unwrap();
    agent.lease(&task, "stock.read@stock").await.unwrap();
    world.stop().await;
    let setup = renamed();
    let refused = world.start(&setup).await.unwrap_err();
    let abandoned = matches!(&refused, StartError::Abandoned { target } if target == "stock");
    assert!(abandoned && refused.to_string().contains("--force"), "{refused}");
    world.start(&Setup::default()).await.unwrap();
    let mut agent = world.agent("triage").await;
    agent.complete(&task).await.unwrap();
    world.stop().await;
    world.start(&setup).await.unwrap_or_else(|error| panic!("its leases are over: {error}"));
}

#[tokio::test]
async fn a_silent_task_has_its_whole_grace_again_after_a_start() {
    let mut world = World::new().await;
    let mut agent = world.agent("triage").await;
    let mut open = crate::world::open_request(&["orders.read@orders"]);
    open.liveness = crate::world::by_heartbeat(30);
    let task = agent.open_as(open).await.unwrap();
    world.stop().await;
    world.pass(40);
    world.start(&Setup::default()).await.unwrap();
    let mut agent = world.agent("triage").await;
    world.live_through(&world.running().broker, 20).await;
    let heartbeat = v1::HeartbeatRequest { task: task.id.clone(), ..Default::default() };
    assert_eq!(agent.tasks.heartbeat(heartbeat).await.unwrap().into_inner().state(), v1::TaskState::Open);
    world.live_through(&world.running().broker, 35).await;
    agent.until_task(&task, v1::TaskState::Ended).await;
}

#[tokio::test]
async fn a_store_serves_one_broker() {
    let world = World::new().await;
    let second = world.start_another(&Setup::default()).await.map(drop).unwrap_err();
    assert!(matches!(second, StartError::Store(StoreError::Held(_))), "{second}");
    let mut agent = world.agent("triage").await;
    agent.open(&["orders.read@orders"]).await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let setup = Setup::default().replace("agents = \"127.0.0.1:0\"", &format!("agents = \"{address}\""));
    let mut world = World::prepare(&setup).await;
    let error = world.start(&setup).await.unwrap_err();
    assert!(matches!(error, StartError::Listen(_)) && error.to_string().contains(&address), "{error}");
    drop(taken);
    world.start(&setup).await.unwrap_or_else(|error| panic!("the store is left free: {error}"));
}

#[tokio::test]
async fn a_draining_broker_takes_nothing_new_and_goes_on_revoking() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    world.running().broker.drain();
    let draining = || (Code::Unavailable, "DRAINING".to_owned());
    assert_eq!(refused(agent.open(&["orders.read@orders"]).await), draining());
    assert_eq!(refused(agent.lease(&task, "orders.read@orders").await), draining());
    assert_eq!(refused(agent.renew(&lease.id, 60).await), draining());
    agent.release(&lease.id).await.unwrap();
    assert_eq!(World::principals(&world.orders), 0);
}

#[tokio::test]
async fn a_mint_that_is_under_way_is_finished_before_the_broker_stops() {
    let mut world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let gate = Gate::default();
    world.orders.faults.add(Rule::once(Call::Issue, Fault::Hold(gate.clone())));
    let asked = tokio::spawn(async move { agent.lease(&task, "orders.read@orders").await });
    gate.arrival().await;
    let orders = world.orders.clone();
    let other = world.agent("other").await;
    let opening = async {
        eventually("the broker takes nothing new", || {
            let mut other = other.clone();
            async move { other.open(&["orders.read@orders"]).await.is_err() }
        })
        .await;
        gate.open();
        asked.await.unwrap().unwrap()
    };
    let (granted, ()) = tokio::join!(opening, world.stop());
    let (user, password) = login(&granted);
    assert!(orders.accepts(&user, &password));
}
