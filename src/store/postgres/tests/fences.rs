//! Brokers that fall silent, and what they find when they come back.

use std::time::Duration;

use leasehold_law::cause::{Cause, Rank};
use leasehold_law::lease::{LeaseEvent, Reached, Sessions};
use leasehold_law::subject::{Guard, Subject};

use super::super::super::set::{Place, Set};
use super::super::PostgresStore;
use super::super::batch::key;
use super::world::Base;
use crate::store::suite::samples::{draft, lease, lease_change, minting, terms};
use crate::store::suite::{put, verify_export};
use crate::store::{Change, DueLease, Foreign, Outcome, Store, StoreError};

const SILENT: &str = "UPDATE leasehold.brokers SET seen_at = seen_at - interval '1 minute' WHERE name = 'a'";

/// Two brokers of which neither says by itself that it lives, nor looks for others.
async fn two(base: &Base) -> (PostgresStore, PostgresStore) {
    let (a, b) = (base.open("a").await, base.open("b").await);
    a.herald.abort();
    b.herald.abort();
    (a, b)
}

#[tokio::test]
async fn a_fenced_broker_writes_nothing_and_comes_back_with_a_new_fence() {
    let base = Base::new().await;
    let (a, b) = two(&base).await;
    put(&a, vec![Change::Append(draft(1))]).await;
    let link = base.link().await;
    assert_eq!(b.presence.take_over(&link).await, Ok(vec![]));
    base.sql(SILENT).await;
    assert_eq!(b.presence.take_over(&link).await, Ok(vec!["a".to_owned()]));
    let late = || vec![lease_change(&minting(1, 1)), Change::Append(draft(2))];
    assert_eq!(a.commit(late(), vec![]).await, Outcome::Failed(StoreError::Fenced));
    assert_eq!(a.lease(minting(1, 1).terms.id).await, Ok(None));
    assert_eq!(a.head().await.unwrap().seq, 1);
    put(&a, late()).await;
    assert_eq!(verify_export(&a).await, 2);
}

/// Everything that waited when the fence fell fails alike, whichever of them wrote first.
#[tokio::test]
async fn what_a_fenced_broker_had_in_flight_fails_as_fenced() {
    let base = Base::new().await;
    let (a, b) = two(&base).await;
    let mut batcher = base.batcher(&a).await;
    base.sql(SILENT).await;
    b.presence.take_over(&base.link().await).await.unwrap();
    let sets = [1, 2].map(|n| Set::prepare(vec![Change::Append(draft(n))], vec![], vec![]).unwrap());
    let fenced = Outcome::Failed(StoreError::Fenced);
    assert_eq!(batcher.write(&sets).await, [fenced.clone(), fenced]);
    assert_eq!(batcher.write(&sets).await, [Outcome::Committed, Outcome::Committed]);
}

/// The transaction holds its broker's row; nobody is fenced in the middle of one.
#[tokio::test]
async fn a_takeover_passes_over_a_transaction_in_flight() {
    let base = Base::new().await;
    let (a, b) = two(&base).await;
    let link = base.link().await;
    let policy = key(&Place::of(&Subject::Policy).unwrap());
    base.sql(SILENT).await;
    base.sql(&format!("SELECT pg_advisory_lock({policy})")).await;
    let guards = vec![Guard { subject: Subject::Policy, version: 0 }];
    let (written, fallen) = futures::join!(a.commit(vec![Change::Append(draft(1))], guards), async {
        base.until_waiting(1).await;
        let fallen = b.presence.take_over(&link).await;
        base.sql(&format!("SELECT pg_advisory_unlock({policy})")).await;
        fallen
    });
    assert_eq!((written, fallen), (Outcome::Committed, Ok(vec![])));
    assert_eq!(b.presence.take_over(&link).await, Ok(vec!["a".to_owned()]));
    let outcome = a.commit(vec![Change::Append(draft(2))], vec![]).await;
    assert_eq!(outcome, Outcome::Failed(StoreError::Fenced));
}

fn ids(due: &[DueLease]) -> Vec<String> {
    let id = |row: &DueLease| match row {
        DueLease::Lease(lease) => lease.terms.id.to_string(),
        DueLease::Bad(row) => row.id.clone(),
    };
    due.iter().map(id).collect()
}

#[tokio::test]
async fn claims_are_disjoint_until_their_broker_falls() {
    let base = Base::new().await;
    let (a, b) = two(&base).await;
    put(&a, (1..=40).map(|n| lease_change(&minting(n, 1))).collect()).await;
    let now = minting(99, 1).terms.created_at;
    let (first, second) = futures::join!(
        a.due_leases("orders-db", Rank::TaskEnd, now, 25),
        b.due_leases("orders-db", Rank::TaskEnd, now, 25)
    );
    let (first, second) = (ids(&first.unwrap()), ids(&second.unwrap()));
    assert!(first.iter().all(|id| !second.contains(id)), "{first:?} {second:?}");
    let rest = (
        a.due_leases("orders-db", Rank::TaskEnd, now, 99).await.unwrap(),
        b.due_leases("orders-db", Rank::TaskEnd, now, 99).await.unwrap(),
    );
    let (mine, theirs) = (ids(&rest.0), ids(&rest.1));
    assert_eq!(mine.len() + theirs.len(), 40);
    assert!(first.iter().all(|id| mine.contains(id)) && second.iter().all(|id| theirs.contains(id)));
    base.sql(SILENT).await;
    b.presence.take_over(&base.link().await).await.unwrap();
    assert_eq!(b.due_leases("orders-db", Rank::TaskEnd, now, 99).await.unwrap().len(), 40);
    assert_eq!(
        ids(&a.due_leases("orders-db", Rank::TaskEnd, now, 99).await.unwrap()),
        [] as [String; 0],
        "the fallen claim nothing"
    );
}

#[tokio::test]
async fn what_a_broker_lets_go_of_another_one_takes_at_once() {
    let base = Base::new().await;
    let (a, b) = two(&base).await;
    let elsewhere = {
        let mut terms = terms(41, 1);
        terms.pair.target = "stock".to_owned();
        lease(terms)
    };
    let rows = (1..=40).map(|n| lease_change(&minting(n, 1))).chain([lease_change(&elsewhere)]).collect();
    put(&a, rows).await;
    let now = minting(99, 1).terms.created_at;
    let due = async |broker: &PostgresStore, target| {
        broker.due_leases(target, Rank::TaskEnd, now, 99).await.unwrap().len()
    };
    assert_eq!((due(&a, "orders-db").await, due(&a, "stock").await), (40, 1));
    b.let_go("orders-db", now).await.unwrap();
    a.let_go("orders-db", minting(1, 1).terms.created_at).await.unwrap();
    assert_eq!(due(&b, "orders-db").await, 0, "neither another's, nor what is not due");
    a.let_go("orders-db", now).await.unwrap();
    assert_eq!((due(&b, "orders-db").await, due(&b, "stock").await), (40, 0));
}

/// Where this broker does not reach the target another one may.
#[tokio::test]
async fn a_try_that_failed_lets_go_of_its_claim() {
    let base = Base::new().await;
    let (a, b) = two(&base).await;
    let minting = minting(1, 1);
    let at = minting.terms.created_at;
    let begun = LeaseEvent::RevokeStarted { cause: Cause::Operator, at, handle: None };
    let dying = minting.apply(&begun).unwrap();
    put(&a, vec![lease_change(&minting)]).await;
    put(&a, vec![lease_change(&dying)]).await;
    let tried = |error: Option<&str>| LeaseEvent::RevokeTried {
        reached: Reached::Disabled,
        sessions: Sessions::Reaping,
        error: error.map(str::to_owned),
        next_try: at,
        handle: None,
    };
    let due =
        async || b.due_leases("orders-db", Rank::Security, at.shifted(3_600_000), 9).await.unwrap().len();
    let waits = dying.apply(&tried(None)).unwrap();
    put(&a, vec![lease_change(&waits)]).await;
    assert_eq!(due().await, 0, "its sessions are still arriving: it goes on here");
    put(&a, vec![lease_change(&waits.apply(&tried(Some("no route to it"))).unwrap())]).await;
    assert_eq!(due().await, 1);
}

/// What a broker that is gone left in the middle is looked for at once, by whoever fenced it.
#[tokio::test]
async fn who_fences_a_broker_says_so_to_whoever_follows() {
    let base = Base::new().await;
    let (a, b) = (base.open("a").await, base.open("b").await);
    a.herald.abort();
    base.sql(SILENT).await;
    let heard = tokio::time::timeout(Duration::from_secs(10), b.foreign_changes()).await;
    assert_eq!(heard.unwrap(), [Foreign::Fallen]);
}

#[tokio::test]
async fn who_condemns_a_lease_claims_it() {
    let base = Base::new().await;
    let (a, b) = two(&base).await;
    let minting = minting(1, 1);
    let at = minting.terms.created_at;
    let step = LeaseEvent::RevokeStarted { cause: Cause::Operator, at, handle: None };
    let dying = minting.apply(&step).unwrap();
    put(&a, vec![lease_change(&minting)]).await;
    put(&a, vec![lease_change(&dying)]).await;
    let far = dying.state.due().unwrap().shifted(3_600_000);
    assert_eq!(b.due_leases("orders-db", Rank::Security, far, 9).await.unwrap().len(), 0);
    assert_eq!(a.due_leases("orders-db", Rank::Security, far, 9).await.unwrap().len(), 1);
    base.sql("UPDATE leasehold.leases SET claimed_until = claimed_until - interval '1 minute'").await;
    assert_eq!(b.due_leases("orders-db", Rank::Security, far, 9).await.unwrap().len(), 1);
}
