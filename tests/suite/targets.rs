//! Targets that are down, that cannot kill, and what operators see of them.

use leasehold_law::lease::{Grade, Reached, Sessions};
use leasehold_memory::{Call, Fault, Rule};
use leasehold_proto::v1;
use tonic::Code;

use crate::world::{Client, Setup, World, detail, eventually, login, millis, reason, refused, seconds};

async fn status(admin: &mut Client) -> v1::StatusResponse {
    admin.admin.status(v1::StatusRequest {}).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_target_that_is_down_gives_nothing_and_works_again_by_itself() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let mut admin = world.admin().await;
    let task = agent.open(&["orders.read@orders", "stock.read@stock"]).await.unwrap();
    world.orders.faults.add(Rule::always(Call::Issue, Fault::down()));
    world.orders.faults.add(Rule::always(Call::Health, Fault::down()));
    let failed = agent.lease(&task, "orders.read@orders").await.unwrap_err();
    assert_eq!((failed.code(), reason(&failed)), (Code::Unavailable, "TARGET_DOWN".into()));
    assert_eq!(detail(&failed, "target"), "orders");
    refused(agent.lease(&task, "orders.read@orders").await);
    assert_eq!(world.orders.calls(Call::Issue), 1, "what is known to be down is not asked to mint");
    let target =
        |status: v1::StatusResponse| status.targets.into_iter().find(|one| one.name == "orders").unwrap();
    assert_eq!(target(status(&mut admin).await).state(), v1::TargetState::Down);
    agent.lease(&task, "stock.read@stock").await.unwrap();
    world.orders.faults.clear();
    agent.lease(&task, "orders.read@orders").await.unwrap();
    assert_eq!(target(status(&mut admin).await).state(), v1::TargetState::Ready);
    world.pass(12);
    let leases =
        agent.leases.list_leases(v1::ListLeasesRequest::default()).await.unwrap().into_inner().leases;
    let failed = leases.iter().find(|lease| lease.cause() == v1::Cause::MintFailed).unwrap();
    let dead = agent.until_lease(&failed.id, v1::LeaseState::Revoked).await;
    assert_eq!(dead.proof(), v1::Proof::NeverMinted);
}

#[tokio::test]
async fn a_target_whose_clock_is_wrong_mints_nothing() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    world.orders.set_clock_offset(-90_000);
    world.pass(31);
    assert_eq!(refused(agent.lease(&task, "orders.read@orders").await), (Code::Unavailable, "CLOCK".into()));
    world.orders.set_clock_offset(2_000);
    world.pass(31);
    agent.lease(&task, "orders.read@orders").await.unwrap();
}

#[tokio::test]
async fn what_a_target_refuses_is_said_as_a_refusal() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    world.orders.faults.add(Rule::once(Call::Issue, Fault::refuse("it is read-only")));
    let status = agent.lease(&task, "orders.read@orders").await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::FailedPrecondition, "TARGET_REFUSED".into()));
    assert!(detail(&status, "why").contains("it is read-only"));
}

#[tokio::test]
async fn a_revocation_that_fails_is_stuck_and_tried_until_it_is_done() {
    let world = World::new().await;
    let (mut agent, mut admin) = (world.agent("triage").await, world.admin().await);
    let task = agent.open(&["orders.read@orders", "stock.read@stock"]).await.unwrap();
    let granted = agent.lease(&task, "orders.read@orders").await.unwrap();
    let (user, password) = login(&granted);
    let lease = granted.lease.unwrap().id;
    let elsewhere = agent.lease(&task, "stock.read@stock").await.unwrap().lease.unwrap().id;
    let trouble = Fault::StopAt(Reached::None, Sessions::Unknown);
    world.orders.faults.add(Rule::always(Call::Revoke, trouble));
    let given =
        agent.leases.release_lease(v1::ReleaseLeaseRequest { lease: lease.clone(), wait: seconds(0) });
    assert_eq!(given.await.unwrap().into_inner().pending, [lease.as_str()]);
    agent.release(&elsewhere).await.unwrap();
    let mut waits = Vec::new();
    for tries in 1..=5 {
        let mut seen = agent.clone();
        eventually("it was tried again", || {
            let (mut seen, lease) = (seen.clone(), lease.clone());
            async move { seen.look(&lease).await.attempts >= tries }
        })
        .await;
        let stuck = seen.look(&lease).await;
        assert_eq!((stuck.state(), stuck.attempts), (v1::LeaseState::Revoking, tries));
        assert!(stuck.last_error.contains("stopped it"), "{}", stuck.last_error);
        let now = status(&mut admin).await.clock.unwrap().now;
        waits.push(millis(stuck.next_try) - millis(now));
        world.pass(u64::try_from(waits.last().unwrap() / 1000 + 1).unwrap());
    }
    assert!(waits.windows(2).all(|pair| pair[1] > pair[0]), "each wait is longer: {waits:?}");
    let listed = v1::ListLeasesRequest { stuck: true, ..v1::ListLeasesRequest::default() };
    let listed = admin.leases.list_leases(listed).await.unwrap().into_inner().leases;
    assert_eq!(listed.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), [lease.as_str()]);
    let screen = status(&mut admin).await;
    assert_eq!((screen.due, screen.stuck), (1, 1));
    assert!(screen.needs_person.iter().any(|line| line.contains("stuck")), "{:?}", screen.needs_person);
    assert!(world.orders.accepts(&user, &password), "nobody says that it is dead");
    world.orders.faults.clear();
    world.pass(61);
    agent.until_lease(&lease, v1::LeaseState::Revoked).await;
    assert!(!world.orders.accepts(&user, &password));
    assert_eq!(status(&mut admin).await.stuck, 0);
}

#[tokio::test]
async fn what_cannot_be_killed_is_residual_until_its_natural_end() {
    for (grade, wire, reached) in [
        (Grade::Coarse, v1::Grade::Coarse, v1::Reached::Disabled),
        (Grade::None, v1::Grade::None, v1::Reached::None),
    ] {
        let world = World::with(Setup::default().grade(grade)).await;
        let mut agent = world.agent("triage").await;
        let task = agent.open(&["orders.read@orders"]).await.unwrap();
        let granted = agent.lease(&task, "orders.read@orders").await.unwrap();
        assert_eq!(granted.grade, i32::from(wire), "the agent is told before it relies on it");
        let lease = granted.lease.unwrap();
        let ended = agent.complete(&task).await.unwrap();
        assert_eq!(ended.leases.len(), 1);
        let left = agent.until_lease(&lease.id, v1::LeaseState::Residual).await;
        assert_eq!((left.reached(), left.residual_until), (reached, lease.expires_at));
        let ended = agent.until_task(&task, v1::TaskState::Ended).await;
        assert_eq!(ended.outcome(), v1::TaskOutcome::WithResidue);
        world.pass(601);
        let over = agent.until_lease(&lease.id, v1::LeaseState::Lapsed).await;
        assert_eq!(over.cause(), v1::Cause::TaskCompleted);
    }
}

#[tokio::test]
async fn a_mint_that_never_landed_ends_where_nothing_can_be_killed() {
    for grade in [Grade::Coarse, Grade::None] {
        let world = World::with(Setup::default().grade(grade)).await;
        let mut agent = world.agent("triage").await;
        let task = agent.open(&["orders.read@orders"]).await.unwrap();
        world.orders.faults.add(Rule::once(Call::Issue, Fault::down()));
        assert_eq!(refused(agent.lease(&task, "orders.read@orders").await).1, "TARGET_DOWN");
        let listed = agent.leases.list_leases(v1::ListLeasesRequest::default()).await.unwrap().into_inner();
        let lease = listed.leases[0].id.clone();
        assert_eq!(agent.look(&lease).await.state(), v1::LeaseState::Revoking, "it may still land");
        world.pass(11);
        agent.until_lease(&lease, v1::LeaseState::Revoked).await;
    }
}

#[tokio::test]
async fn a_clock_that_jumps_calls_nothing_dead_that_lives() {
    const HOUR: i64 = 3_600_000;
    let world = World::with(Setup::default().grade(Grade::None)).await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let granted = agent.lease(&task, "orders.read@orders").await.unwrap();
    let (user, password) = login(&granted);
    let lease = granted.lease.unwrap().id;
    agent.complete(&task).await.unwrap();
    world.time.step_wall(HOUR);
    world.orders.set_clock_offset(-HOUR);
    eventually("the target is asked", || async { world.orders.calls(Call::Lookup) > 0 }).await;
    assert_eq!(agent.look(&lease).await.state(), v1::LeaseState::Residual);
    assert!(world.orders.accepts(&user, &password), "by its own clock it has ten minutes left");
    world.pass(601);
    agent.until_lease(&lease, v1::LeaseState::Lapsed).await;
    assert!(!world.orders.accepts(&user, &password));
}

#[tokio::test]
async fn a_target_that_cannot_renew_says_so_and_what_to_do_instead() {
    let world = World::with(Setup::default().grade(Grade::Coarse)).await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    let status = agent.renew(&lease.id, 60).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "NOT_SERVED"));
    assert_eq!(status.message(), format!("{} cannot be renewed", lease.id));
    assert_eq!(detail(&status, "why"), "`orders` cannot move the end of what was minted in it");
    let next = detail(&status, "next");
    let command = format!("leasehold lease request orders.read@orders --task {}", task.id);
    assert!(next.contains("a new request id") && next.ends_with(&command), "{next}");
    assert_eq!(world.orders.calls(Call::Renew), 0);
    agent.lease(&task, "orders.read@orders").await.unwrap();
}

#[tokio::test]
async fn operators_see_and_check_targets() {
    let world = World::new().await;
    let mut admin = world.admin().await;
    let listed = admin.targets.list_targets(v1::ListTargetsRequest::default()).await.unwrap().into_inner();
    let names: Vec<_> = listed.targets.iter().map(|one| (one.name.as_str(), one.backend.as_str())).collect();
    assert_eq!(names, [("orders", "memory"), ("stock", "memory")]);
    assert_eq!(listed.targets[0].labels["env"], "test");
    let check = |target: &str| v1::CheckTargetRequest { target: target.into() };
    let good = admin.targets.check_target(check("orders")).await.unwrap().into_inner();
    assert_eq!((good.target.unwrap().state(), good.problems), (v1::TargetState::Ready, Vec::new()));
    // The broker asks for the target's health by itself too.
    world.orders.faults.add(Rule::always(Call::Health, Fault::down()));
    let bad = admin.targets.check_target(check("orders")).await.unwrap().into_inner().target.unwrap();
    assert_eq!(bad.state(), v1::TargetState::Down);
    assert!(!bad.last_error.is_empty());
    world.orders.faults.clear();
    assert_eq!(
        refused(admin.targets.check_target(check("nowhere")).await),
        (Code::NotFound, "NOT_FOUND".into())
    );
    let setup = |target: &str| v1::SetupTargetRequest { target: target.into() };
    admin.targets.setup_target(setup("orders")).await.unwrap();
    assert_eq!(refused(admin.targets.setup_target(setup("nowhere")).await).1, "NOT_FOUND");
}
