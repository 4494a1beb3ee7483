//! Request ids and attempts (RULES R-5): a secret is never shown twice, and no two of a request live at once.

use leasehold_memory::{Call, Fault, Gate, Rule};
use leasehold_proto::v1;
use tonic::Code;
use tonic_types::StatusExt;

use crate::world::{World, detail, lease_request, login, millis, reason, refused, seconds};

#[tokio::test]
async fn the_same_request_at_the_same_time_is_told_to_wait() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let gate = Gate::default();
    world.orders.faults.add(Rule::once(Call::Issue, Fault::Hold(gate.clone())));
    let request = lease_request(&task, "orders.read@orders");
    let mut first = agent.clone();
    let (sent, waits) = (request.clone(), gate.clone());
    let first = tokio::spawn(async move { first.leases.request_lease(sent).await });
    waits.arrival().await;
    for attempt in [1, 2] {
        let again = v1::RequestLeaseRequest { attempt, ..request.clone() };
        let status = agent.leases.request_lease(again).await.unwrap_err();
        assert_eq!((status.code(), reason(&status)), (Code::Aborted, "CONTENDED".into()));
        assert!(status.get_details_retry_info().is_some(), "it says when to try again");
    }
    gate.open();
    first.await.unwrap().unwrap();
    assert_eq!(World::principals(&world.orders), 1);
}

#[tokio::test]
async fn an_attempt_is_answered_once() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let request = lease_request(&task, "orders.read@orders");
    let lease = agent.leases.request_lease(request.clone()).await.unwrap().into_inner().lease.unwrap();
    let spent = agent.leases.request_lease(request.clone()).await.unwrap_err();
    assert_eq!((spent.code(), reason(&spent)), (Code::FailedPrecondition, "ATTEMPT_SPENT".into()));
    let told = ["lease", "state", "next_attempt"].map(|key| detail(&spent, key));
    assert_eq!(told, [lease.id.as_str(), "active", "2"]);
    let other = v1::RequestLeaseRequest { ttl: seconds(60), ..request.clone() };
    assert_eq!(
        refused(agent.leases.request_lease(other).await),
        (Code::AlreadyExists, "REQUEST_ID_REUSED".into())
    );
    agent.release(&lease.id).await.unwrap();
    let spent = agent.leases.request_lease(request).await.unwrap_err();
    assert_eq!((reason(&spent), detail(&spent, "state")), ("ATTEMPT_SPENT".into(), "revoked".into()));
}

#[tokio::test]
async fn a_higher_attempt_takes_the_place_of_the_one_before() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let request = lease_request(&task, "orders.read@orders");
    let first = agent.leases.request_lease(request.clone()).await.unwrap().into_inner();
    let next = v1::RequestLeaseRequest { attempt: 2, ..request };
    let second = agent.leases.request_lease(next).await.unwrap().into_inner();
    let (user, password) = login(&first);
    assert!(!world.orders.accepts(&user, &password), "the old one is dead before the new one is shown");
    let (user, password) = login(&second);
    assert!(world.orders.accepts(&user, &password));
    let (first, second) = (first.lease.unwrap(), second.lease.unwrap());
    assert_eq!(second.supersedes, first.id);
    let dead = agent.look(&first.id).await;
    assert_eq!((dead.state(), dead.cause()), (v1::LeaseState::Revoked, v1::Cause::Superseded));
    assert_eq!(World::principals(&world.orders), 1);
}

#[tokio::test]
async fn what_cannot_be_proven_dead_is_not_replaced() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let request = lease_request(&task, "orders.read@orders");
    let first = agent.leases.request_lease(request.clone()).await.unwrap().into_inner().lease.unwrap();
    world.orders.faults.add(Rule::always(Call::Revoke, Fault::down()));
    let next = v1::RequestLeaseRequest { attempt: 2, ..request };
    let status = agent.leases.request_lease(next.clone()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::Unavailable, "TARGET_DOWN".into()));
    let until = written_millis(&detail(&status, "alive_until"));
    assert!((until - millis(first.expires_at)).abs() < 1000, "{status:?}");
    assert_eq!(world.orders.calls(Call::Issue), 1);
    world.orders.faults.clear();
    world.pass(2);
    agent.until_lease(&first.id, v1::LeaseState::Revoked).await;
    agent.leases.request_lease(next).await.unwrap();
    assert_eq!(World::principals(&world.orders), 1);
}

/// A moment in a message, in milliseconds.
fn written_millis(text: &str) -> i64 {
    let text = text.strip_suffix('Z').expect("a moment in UTC");
    let (seconds, millis) = text.split_once('.').expect("with milliseconds");
    let at: prost_types::Timestamp = format!("{seconds}Z").parse().expect("RFC 3339");
    at.seconds * 1000 + millis.parse::<i64>().expect("milliseconds")
}
