//! Quotas: of live leases and of requests, by agent, owner and target; and what a flood leaves on record.

use std::process::Stdio;

use leasehold_law::journal::{Body, Event};
use leasehold_law::time::Timestamp;
use leasehold_proto::v1;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::world::{Client, Setup, World, detail, lease_request, reason, refused};

pub(crate) const PAIR: &str = "orders.read@orders";

/// A world with these quotas.
async fn with_quotas(quotas: &str) -> World {
    World::with(
        Setup::default().replace("[targets.orders]", &format!("[quotas]\n{quotas}\n[targets.orders]")),
    )
    .await
}

pub(crate) fn over_quota<T>(answer: Result<T, Status>) -> Status {
    let Err(status) = answer else { panic!("it should have been refused") };
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "QUOTA"), "{status:?}");
    assert!(status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()), "{status:?}");
    status
}

async fn propose(agent: &mut Client) -> Result<v1::ProposeResponse, Status> {
    let (intent, target) = ("orders.read".to_owned(), "orders".to_owned());
    let request = v1::ProposeRequest { intent, target, ..v1::ProposeRequest::default() };
    agent.leases.propose(request).await.map(tonic::Response::into_inner)
}

/// What the journal holds of one kind.
async fn entries(world: &World, kind: &str) -> Vec<Body> {
    let entries = world.running().broker.journal_entries(1, 10_000).await.unwrap();
    let bodies = entries.iter().map(|entry| Body::parse(&entry.body).unwrap());
    bodies.filter(|body| body.kind == kind).collect()
}

#[tokio::test]
async fn a_program_that_waits_for_a_place_says_so() {
    let world = with_quotas("agent = { live = 1 }").await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[PAIR]).await.unwrap();
    let held = agent.lease(&task, PAIR).await.unwrap().lease.unwrap().id;
    let mut exec = world.program(Some("triage"), &["exec", "--lease", PAIR, "--", "true"]);
    let mut exec = exec.stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(exec.stderr.take().unwrap()).lines();
    let first = told.next_line().await.unwrap().unwrap();
    assert!(first.starts_with("leasehold: waiting "), "{first}");
    assert!(first.contains("may have no more live leases (QUOTA): its quota is 1 at one time"), "{first}");
    agent.release(&held).await.unwrap();
    assert!(exec.wait().await.unwrap().success());
}

#[tokio::test]
async fn two_requests_at_once_take_one_place() {
    let world = with_quotas("agent = { live = 1 }").await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[PAIR]).await.unwrap();
    let (mut one, mut two) = (agent.clone(), agent.clone());
    let answers = tokio::join!(one.lease(&task, PAIR), two.lease(&task, PAIR));
    let (granted, status) = match answers {
        (Ok(granted), refused) | (refused, Ok(granted)) => (granted, over_quota(refused)),
        (Err(one), Err(two)) => panic!("nobody got the one place: {one:?} {two:?}"),
    };
    assert_eq!(World::principals(&world.orders), 1);
    let holder = "agent spiffe://suite.leasehold.test/agent/triage";
    assert_eq!(detail(&status, "quota"), holder);
    assert_eq!(status.message(), format!("{holder} may have no more live leases"));
    assert_eq!(detail(&status, "why"), "its quota is 1 at one time");
    assert!(detail(&status, "decision").starts_with("dec_"));
    agent.release(&granted.lease.unwrap().id).await.unwrap();
    agent.lease(&task, PAIR).await.unwrap();
}

#[tokio::test]
async fn each_kind_of_holder_has_its_quota() {
    let quotas = "owners.\"person:ana\" = { live = 1 }\ntargets.stock = { live = 0 }\n\
                  agents.\"spiffe://suite.leasehold.test/agent/other\" = { live = 2 }";
    let world = with_quotas(quotas).await;
    let (mut triage, mut other) = (world.agent("triage").await, world.agent("other").await);
    let of_triage = triage.open(&[PAIR]).await.unwrap();
    let of_other = other.open(&[PAIR, "stock.read@stock"]).await.unwrap();
    triage.lease(&of_triage, PAIR).await.unwrap();
    assert_eq!(detail(&over_quota(triage.lease(&of_triage, PAIR).await), "quota"), "owner person:ana");
    for _ in 0..2 {
        other.lease(&of_other, PAIR).await.unwrap();
    }
    let full = over_quota(other.lease(&of_other, PAIR).await);
    assert_eq!(detail(&full, "quota"), "agent spiffe://suite.leasehold.test/agent/other");
    // The agent's own quota is full as well; it is asked first.
    other.complete(&of_other).await.unwrap();
    let again = other.open(&["stock.read@stock"]).await.unwrap();
    assert_eq!(detail(&over_quota(other.lease(&again, "stock.read@stock").await), "quota"), "target stock");
}

#[tokio::test]
async fn a_rate_runs_on_the_broker_s_clock_and_never_stops_giving_back() {
    let world = with_quotas("agent = { rate = \"1/m\", burst = 3 }").await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[PAIR]).await.unwrap();
    let lease = agent.lease(&task, PAIR).await.unwrap().lease.unwrap();
    propose(&mut agent).await.unwrap();
    let status = over_quota(propose(&mut agent).await);
    assert_eq!(detail(&status, "why"), "its quota is 1 in 1m, and 3 at once");
    let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!((50..=60).contains(&wait.as_secs()), "{wait:?}");
    over_quota(agent.lease(&task, PAIR).await);
    over_quota(agent.open(&[PAIR]).await);
    over_quota(agent.renew(&lease.id, 60).await);
    over_quota(agent.leases.list_grants(v1::ListGrantsRequest::default()).await);
    agent
        .tasks
        .heartbeat(v1::HeartbeatRequest { task: task.id.clone(), ..Default::default() })
        .await
        .unwrap();
    agent.release(&lease.id).await.unwrap();
    world.pass(61);
    propose(&mut agent).await.unwrap();
    over_quota(propose(&mut agent).await);
    agent.complete(&task).await.unwrap();
}

#[tokio::test]
async fn a_target_s_rate_is_used_up_only_by_those_who_may_ask_for_it() {
    let world = with_quotas("targets.orders = { rate = \"1/m\" }").await;
    let (mut triage, mut other) = (world.agent("triage").await, world.agent("other").await);
    let stock = other.open(&["stock.read@stock"]).await.unwrap();
    for _ in 0..3 {
        let answer = other.leases.request_lease(lease_request(&stock, PAIR)).await;
        assert_eq!(refused(answer), (Code::PermissionDenied, "OUT_OF_SCOPE".into()));
    }
    let task = triage.open(&[PAIR]).await.unwrap();
    triage.lease(&task, PAIR).await.unwrap();
    assert_eq!(detail(&over_quota(triage.lease(&task, PAIR).await), "quota"), "target orders");
}

#[tokio::test]
async fn a_flood_over_a_quota_is_two_entries_a_minute() {
    let world = with_quotas("agent = { rate = \"1/h\" }").await;
    let mut agent = world.agent("triage").await;
    agent.open(&[PAIR]).await.unwrap();
    let mut decisions = Vec::new();
    // So that no minute ends within the flood.
    let now = world.running().broker.now();
    world.pass(u64::try_from(60 - now.0.div_euclid(1000).rem_euclid(60)).unwrap());
    for _ in 0..50 {
        decisions.push(detail(&over_quota(propose(&mut agent).await), "decision"));
    }
    decisions.dedup();
    assert_eq!(decisions.len(), 1, "all carry the id of the one on record");
    let first = entries(&world, "caller.refused").await;
    assert_eq!((first.len(), first[0].subject.as_str()), (1, decisions[0].as_str()));
    world.running().broker.record_repeats(Timestamp(i64::MAX)).await;
    let again = entries(&world, "caller.refused_again").await;
    let counts = again.iter().filter_map(|body| {
        let Event::RefusedAgain { about, reason, count, .. } = &body.event else { return None };
        Some((about.as_str(), reason.as_str(), *count))
    });
    let holder = "agent spiffe://suite.leasehold.test/agent/triage";
    assert_eq!(counts.collect::<Vec<_>>(), [(holder, "QUOTA", 49)]);
}

#[tokio::test]
async fn the_proven_whom_nobody_registered_fill_no_disk() {
    let world = World::new().await;
    let mut nobody = world.agent("nobody").await;
    let now = world.running().broker.now();
    world.pass(u64::try_from(60 - now.0.div_euclid(1000).rem_euclid(60)).unwrap());
    let mut decisions = Vec::new();
    for _ in 0..50 {
        let Err(status) = nobody.open(&[PAIR]).await else { panic!("it should have been refused") };
        assert_eq!(reason(&status), "UNKNOWN_AGENT");
        decisions.push(detail(&status, "decision"));
    }
    decisions.dedup();
    assert_eq!(decisions.len(), 1);
    assert_eq!(entries(&world, "caller.refused").await.len(), 1);
    world.running().broker.record_repeats(Timestamp(i64::MAX)).await;
    let again = entries(&world, "caller.refused_again").await;
    assert_eq!(again.len(), 1);
    let mut auditor = world.operator("auditor").await;
    let found =
        auditor.audit.find(v1::FindRequest { text: decisions[0].clone(), ..v1::FindRequest::default() });
    assert_eq!(found.await.unwrap().into_inner().hits.len(), 1, "the first can be looked up");
}
