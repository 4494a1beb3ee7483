//! Changes of the registry that are cut short: by a caller that hangs up, by a broker that falls.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use leasehold::broker::{Asker, Broker, Order};
use leasehold::ledger::Registering;
use leasehold_law::caller::ProvenBy;
use leasehold_law::registry::{Act, Entry, Ruling, Status, Who};
use leasehold_law::request::{Liveness, OpenRequest, Refs};
use leasehold_law::scope::{Scope, ScopeEntry};
use leasehold_proto::v1;

use crate::drift::{digest, setup};
use crate::registry::TRIAGE;
use crate::world::World;

const READ: &str = "orders.read@orders";

/// Whether a call ends within so many polls; where it does not, its caller hangs up.
async fn ends_within<T>(polls: usize, call: impl Future<Output = T>) -> bool {
    let (mut call, mut left) = (pin!(call), polls);
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        call.as_mut().poll(cx).map(|_| true)
    })
    .await
}

/// Waits until nothing is under way that the broker owns, and nothing on its way to the journal.
async fn settle(broker: &Broker) {
    broker.drain();
    broker.drained().await;
    broker.ledger().record_time().await.unwrap();
}

fn triage() -> Who {
    Who::One(TRIAGE.parse().unwrap())
}

/// RULES R-3, at every await: whoever is suspended on record holds no lease.
#[tokio::test]
async fn a_registration_whose_caller_hangs_up_is_seen_through_or_never_begun() {
    let mut waits = 0;
    for polls in 1.. {
        let mut world = World::new().await;
        let mut agent = world.agent("triage").await;
        let task = agent.open(&[READ]).await.unwrap();
        let lease = agent.lease(&task, READ).await.unwrap().lease.unwrap().id.parse().unwrap();
        let broker = world.running().broker.clone();
        let order = Order { by: "uid:0".parse().unwrap(), reason: "a test".to_owned() };
        let ended = ends_within(polls, broker.set_agent_status(order, &triage(), Status::Suspended)).await;
        settle(&broker).await;
        let store = broker.ledger().store();
        let is_on_record = !store.registered().await.unwrap().is_empty();
        let lives = store.lease(lease).await.unwrap().unwrap().state.is_usable();
        assert_eq!(is_on_record, !lives, "hung up after {polls} polls");
        world.stop().await;
        if ended {
            break;
        }
        waits += 1;
    }
    assert!(waits > 0, "it never waited, and nobody could hang up");
}

/// The same for what an agent says that it runs: what is on record of it, this broker knows.
#[tokio::test]
async fn a_drift_whose_caller_hangs_up_is_seen_through_or_never_begun() {
    let mut waits = 0;
    for polls in 1.. {
        let mut world = World::with(setup()).await;
        let broker = world.running().broker.clone();
        let asker = Asker { id: TRIAGE.parse().unwrap(), proof: ProvenBy::X509Svid };
        let opened = broker.open_task(&asker, open_request(), async { Ok(None) });
        let ended = ends_within(polls, opened).await;
        settle(&broker).await;
        let is_on_record = !broker.ledger().store().registered().await.unwrap().is_empty();
        let known = broker.registry().registration(&triage()).is_some_and(|view| !view.drift.is_empty());
        assert_eq!(is_on_record, known, "hung up after {polls} polls");
        world.stop().await;
        if ended {
            break;
        }
        waits += 1;
    }
    assert!(waits > 0, "it never waited, and nobody could hang up");
}

fn open_request() -> OpenRequest {
    OpenRequest {
        request_id: "one".parse().unwrap(),
        purpose: String::new(),
        scope: Scope::new(vec![ScopeEntry::of(READ.parse().unwrap())]).unwrap(),
        liveness: Liveness::Deadline,
        deadline: None,
        refs: Refs::new(),
        manifest: Some(digest("02").parse().unwrap()),
        on_behalf_of: None,
    }
}

/// A registration is on record, and the broker falls before it has looked at the leases that rest on it.
#[tokio::test]
async fn what_a_broker_that_fell_had_still_to_decide_again_the_next_one_decides() {
    let mut world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let lease = agent.lease(&task, READ).await.unwrap().lease.unwrap().id;
    let mut other = world.agent("other").await;
    let others = other.open(&[READ]).await.unwrap();
    let others = other.lease(&others, READ).await.unwrap().lease.unwrap();
    let broker = world.running().broker.clone();
    let (by, reason) = ("uid:0".to_owned(), "a test".to_owned());
    let ruling =
        Ruling { status: Status::Suspended, by: by.clone(), reason: reason.clone(), at: broker.now() };
    let entry = Entry { ruling: Some(ruling), ..Entry::of(triage()) };
    let change = Registering { entry, act: Act::Suspended, by, reason, details: BTreeMap::new() };
    let guard = broker.registry().book_guard();
    broker.ledger().record_registrations(vec![change], guard).await.unwrap();
    drop(broker);
    assert_eq!(agent.look(&lease).await.state(), v1::LeaseState::Active);

    world.restart(&crate::world::Setup::default()).await;
    let agent = world.agent("triage").await;
    let ended = agent.until_lease(&lease, v1::LeaseState::Revoked).await;
    assert_eq!(ended.cause(), v1::Cause::AgentChanged);
    let mut other = world.agent("other").await;
    assert_eq!(other.look(&others.id).await, others);
}
