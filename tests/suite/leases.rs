//! One lease: what may be asked, the dry run, use, renewal, giving back, expiry.

use leasehold_memory::{Call, Fault, Gate, Rule};
use leasehold_proto::v1;
use leasehold_proto::v1::decision::Outcome;
use tonic::Code;

use crate::world::{Client, Setup, World, lease_request, login, millis, open_request, refused, seconds};

fn proposal(pair: &str) -> v1::ProposeRequest {
    let (intent, target) = pair.split_once('@').unwrap();
    v1::ProposeRequest { intent: intent.into(), target: target.into(), ..v1::ProposeRequest::default() }
}

async fn propose(agent: &mut Client, request: v1::ProposeRequest) -> v1::ProposeResponse {
    agent.leases.propose(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn proposing_mints_nothing() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let said = propose(&mut agent, proposal("orders.read@orders")).await;
    let decision = said.decision.unwrap();
    assert_eq!(decision.outcome(), Outcome::Allow);
    assert_eq!(decision.ttl, seconds(600));
    assert_eq!(said.grade, i32::from(v1::Grade::Exact));
    assert_eq!((world.orders.calls(Call::Issue), World::principals(&world.orders)), (0, 0));
    let listed = agent.leases.list_leases(v1::ListLeasesRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.leases, []);
}

#[tokio::test]
async fn a_proposal_says_what_a_request_would_meet() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    for (pair, ttl, outcome, word, limit) in [
        ("orders.read@orders", None, Outcome::Allow, "", v1::Limit::Asked),
        ("orders.read@orders", seconds(1200), Outcome::Allow, "", v1::Limit::Grant),
        ("orders.read@orders", seconds(1860), Outcome::Deny, "FORBIDDEN", v1::Limit::Grant),
        ("orders.write@orders", None, Outcome::Deny, "NO_PERMIT", v1::Limit::Asked),
        ("orders.purge@orders", None, Outcome::Ask, "NEEDS_APPROVAL", v1::Limit::Asked),
    ] {
        let said = propose(&mut agent, v1::ProposeRequest { ttl, ..proposal(pair) }).await;
        let decision = said.decision.unwrap();
        let words: Vec<_> = decision.reasons.iter().map(|reason| reason.code.as_str()).collect();
        assert_eq!((decision.outcome(), words.concat().as_str()), (outcome, word), "{pair} {ttl:?}");
        assert_eq!(decision.limited_by(), limit, "{pair} {ttl:?}");
    }
}

#[tokio::test]
async fn grants_list_what_may_be_asked_and_nothing_denied() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let mut pages = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListGrantsRequest { page_size: 2, page_token, target: String::new() };
        let page = agent.leases.list_grants(request).await.unwrap().into_inner();
        pages.extend(page.grants);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let listed: Vec<_> = pages.iter().map(|grant| (grant.intent.as_str(), grant.outcome())).collect();
    let expect =
        [("orders.purge", Outcome::Ask), ("orders.read", Outcome::Allow), ("stock.read", Outcome::Allow)];
    assert_eq!(listed, expect);
    assert_eq!(pages[1].params[0].one_of, ["triage", "audit"]);
}

#[tokio::test]
async fn a_lease_works_until_it_is_given_back() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let granted = agent.lease(&task, "orders.read@orders").await.unwrap();
    let (user, password) = login(&granted);
    assert!(world.orders.accepts(&user, &password));
    assert!(!world.orders.accepts(&user, b"another password"));
    let session = world.orders.login(&user, &password).unwrap();
    let lease = granted.lease.unwrap();
    assert_eq!(lease.principal, user);
    let given = agent.release(&lease.id).await.unwrap();
    assert_eq!(given.pending, Vec::<String>::new());
    assert_eq!(given.leases[0].state(), v1::LeaseState::Revoked);
    assert!(!world.orders.accepts(&user, &password));
    assert!(!world.orders.serves(session), "its open session is cut");
    let dead = agent.look(&lease.id).await;
    assert_eq!((dead.cause(), dead.proof()), (v1::Cause::Released, v1::Proof::ReadBack));
    let again = agent.release(&lease.id).await.unwrap();
    assert_eq!(again.leases[0].state(), v1::LeaseState::Revoked, "giving it back twice is no error");
    assert_eq!(agent.look(&lease.id).await, dead);
}

#[tokio::test]
async fn a_lease_lives_no_longer_than_the_least_of_its_limits() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let open = |max_ttl, deadline| {
        let mut request = open_request(&["orders.read@orders"]);
        request.scope[0].max_ttl = max_ttl;
        request.deadline = deadline;
        request
    };
    for (open, ttl, limit, lives) in [
        (open(None, None), seconds(60), v1::Limit::Asked, 60),
        (open(None, None), None, v1::Limit::Asked, 600),
        (open(None, None), seconds(1000), v1::Limit::Grant, 900),
        (open(seconds(120), None), None, v1::Limit::Scope, 120),
        (open(None, seconds(90)), None, v1::Limit::TaskDeadline, 90),
    ] {
        let task = agent.open_as(open).await.unwrap();
        let request = v1::RequestLeaseRequest { ttl, ..lease_request(&task, "orders.read@orders") };
        let granted = agent.leases.request_lease(request).await.unwrap().into_inner();
        let lease = granted.lease.unwrap();
        let life = millis(lease.expires_at) - millis(lease.created_at);
        assert_eq!(granted.limited_by, i32::from(limit));
        assert!((lives * 1000 - 5000..=lives * 1000).contains(&life), "{limit:?}: {life} ms");
    }
}

#[tokio::test]
async fn a_lease_that_reached_its_end_is_revoked_by_the_sweep() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    world.pass(601);
    let dead = agent.until_lease(&lease.id, v1::LeaseState::Revoked).await;
    assert_eq!((dead.cause(), dead.proof()), (v1::Cause::Expired, v1::Proof::ReadBack));
    assert_eq!(World::principals(&world.orders), 0);
    assert_eq!(agent.task(&task).await.state(), v1::TaskState::Open);
}

#[tokio::test]
async fn renewing_moves_the_end_up_to_the_full_life() {
    let life = r#"recipe = { role = "reader" }
ttl = { default = "10m", max = "15m", life = "1h" }
[[grants]]
intent = "orders.write""#;
    let setup = Setup::default().replace(life, &life.replace("1h", "20m"));
    let world = World::with(setup).await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let granted = agent.lease(&task, "orders.read@orders").await.unwrap();
    let (user, password) = login(&granted);
    let lease = granted.lease.unwrap();
    world.pass(540);
    let renewed = agent.renew(&lease.id, 600).await.unwrap();
    assert_eq!(renewed.credential, None);
    let renewed = renewed.lease.unwrap();
    assert_eq!((&renewed.id, renewed.state()), (&lease.id, v1::LeaseState::Active));
    assert!(millis(renewed.expires_at) >= millis(lease.expires_at) + 535_000);
    world.pass(540);
    assert!(world.orders.accepts(&user, &password), "the target has the later end");
    let last = agent.renew(&lease.id, 600).await.unwrap();
    assert_eq!(last.limited_by, i32::from(v1::Limit::Life));
    assert_eq!(last.lease.unwrap().expires_at, lease.life_ends_at);
    assert_eq!(refused(agent.renew(&lease.id, 600).await), (Code::FailedPrecondition, "LIFE_REACHED".into()));
    world.pass(125);
    let dead = agent.until_lease(&lease.id, v1::LeaseState::Revoked).await;
    assert_eq!(dead.cause(), v1::Cause::Expired);
}

#[tokio::test]
async fn a_dead_lease_is_not_renewed() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    agent.release(&lease.id).await.unwrap();
    assert_eq!(refused(agent.renew(&lease.id, 600).await), (Code::FailedPrecondition, "LEASE_ENDED".into()));
    assert_eq!(world.orders.calls(Call::Renew), 0);
}

#[tokio::test]
async fn another_agent_s_lease_is_as_absent_as_none() {
    let world = World::new().await;
    let (mut agent, mut other) = (world.agent("triage").await, world.agent("other").await);
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    let absent = "lease_00000000000000000000";
    for id in [lease.id.as_str(), absent] {
        let words = format!("no lease `{id}` of yours");
        let get = other.leases.get_lease(v1::GetLeaseRequest { lease: id.into() }).await.map(drop);
        let renew = other.renew(id, 600).await.map(drop);
        let release = other.release(id).await.map(drop);
        for answer in [get, renew, release] {
            let status = answer.unwrap_err();
            assert_eq!((status.code(), status.message()), (Code::NotFound, words.as_str()));
        }
    }
    assert_eq!(agent.look(&lease.id).await.state(), v1::LeaseState::Active);
    let listed = other
        .leases
        .list_leases(v1::ListLeasesRequest { agent: lease.agent, ..v1::ListLeasesRequest::default() });
    assert_eq!(listed.await.unwrap().into_inner().leases, []);
}

#[tokio::test]
async fn what_policy_does_not_permit_is_refused_on_record() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let mut viewer = world.operator("viewer").await;
    let task = agent.open(&["orders.read@orders", "orders.purge@orders"]).await.unwrap();
    let mut ask = lease_request(&task, "orders.purge@orders");
    ask.ttl = seconds(60);
    assert_eq!(
        refused(agent.leases.request_lease(ask).await),
        (Code::FailedPrecondition, "NEEDS_APPROVAL".into())
    );
    let mut long = lease_request(&task, "orders.read@orders");
    long.ttl = seconds(1860);
    assert_eq!(refused(agent.leases.request_lease(long).await), (Code::PermissionDenied, "FORBIDDEN".into()));
    let listed = viewer.leases.list_leases(v1::ListLeasesRequest::default()).await.unwrap().into_inner();
    let refusals: Vec<_> = listed.leases.iter().map(|lease| (lease.state(), lease.refusal())).collect();
    let never = v1::LeaseState::Refused;
    assert_eq!(refusals, [(never, v1::Refusal::Denied), (never, v1::Refusal::Unasked)]);
    assert_eq!(world.orders.calls(Call::Issue), 0);
    assert_eq!(
        refused(agent.open(&["orders.write@orders"]).await),
        (Code::PermissionDenied, "NO_PERMIT".into())
    );
}

/// Two renewals at once: one is made, the other is told to try again.
#[tokio::test]
async fn a_renewal_that_is_worked_on_is_not_begun_twice() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    let request = v1::RenewLeaseRequest { lease: lease.id, ttl: None, request_id: "again".into() };
    let gate = Gate::default();
    world.orders.faults.add(Rule::once(Call::Renew, Fault::Hold(gate.clone())));
    let (mut one, first) = (agent.clone(), request.clone());
    let renewing = tokio::spawn(async move { one.leases.renew_lease(first).await });
    gate.arrival().await;
    assert_eq!(refused(agent.leases.renew_lease(request.clone()).await), (Code::Aborted, "CONTENDED".into()));
    gate.open();
    renewing.await.unwrap().unwrap();
    agent.leases.renew_lease(request.clone()).await.unwrap();
    let nameless = v1::RenewLeaseRequest { request_id: String::new(), ..request };
    assert_eq!(refused(agent.leases.renew_lease(nameless).await).1, "BAD_REQUEST");
}
