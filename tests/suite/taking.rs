//! Revocations that are cut short, and who sees them through.

use leasehold_memory::{Call, Fault, Rule};
use leasehold_proto::v1;
use leasehold_proto::v1::selector::Kind;
use tonic::Code;

use crate::stopping::{lift, revoke, run};
use crate::world::{World, detail, eventually, reason};

const ID: &str = "spiffe://suite.leasehold.test/agent/triage";
const READ: &str = "orders.read@orders";

async fn counts(world: &World, revocation: &str) -> v1::RevocationCounts {
    let request = v1::GetRevocationRequest { revocation: revocation.to_owned() };
    let mut admin = world.admin().await;
    admin.revocations.get_revocation(request).await.unwrap().into_inner().counts.unwrap()
}

/// A broker that shares the store may have died in the middle of it: nobody need start again under its name.
#[tokio::test]
async fn a_revocation_that_was_cut_short_is_seen_through_by_whoever_sweeps() {
    let world = World::new().await;
    let (mut agent, mut revoker) = (world.agent("triage").await, world.operator("revoker").await);
    let task = agent.open(&[READ]).await.unwrap();
    agent.lease(&task, READ).await.unwrap();
    let request = v1::RevokeRequest { freeze: Some(false), ..revoke(Kind::Agent(ID.into())) };
    let told = run(&mut revoker, request).await.unwrap();
    let id = told.last().unwrap().revocation.clone().unwrap().id;
    // As it would be listed, and not condemned yet.
    let left = agent.lease(&task, READ).await.unwrap().lease.unwrap();
    let complete = [r#""complete":true"#, r#""complete":false"#];
    let [from, to] = complete;
    world.on_store(&format!("UPDATE revocations SET body = replace(body, '{from}', '{to}')"));
    assert_eq!(agent.look(&left.id).await.state(), v1::LeaseState::Active);
    world.pass(130);
    let dead = agent.until_lease(&left.id, v1::LeaseState::Revoked).await;
    assert_eq!(dead.cause(), v1::Cause::Operator);
    eventually("it is listed, and complete", || async {
        let store = rusqlite::Connection::open(world.path("store/leases.db")).unwrap();
        let done = format!("SELECT count(*) FROM revocations WHERE id = '{id}' AND body LIKE '%{from}%'");
        store.query_row(&done, [], |row| row.get::<_, i64>(0)) == Ok(1)
    })
    .await;
    assert_eq!(counts(&world, &id).await.total, 2);
}

/// What cannot be listed now is listed later: the barrier stands meanwhile, and the operator is told.
#[tokio::test]
async fn a_revocation_whose_leases_cannot_be_listed_goes_on_by_itself() {
    let world = World::new().await;
    let (mut agent, mut revoker) = (world.agent("triage").await, world.operator("revoker").await);
    let task = agent.open(&[READ]).await.unwrap();
    let lease = agent.lease(&task, READ).await.unwrap().lease.unwrap();
    world.on_store("ALTER TABLE leases RENAME TO hidden");
    let refused = run(&mut revoker, revoke(Kind::Agent(ID.into()))).await.unwrap_err();
    let id = detail(&refused, "revocation");
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, "JOURNAL".into()), "{refused:?}");
    assert!(detail(&refused, "next").contains(&format!("leasehold revocations watch {id}")), "{refused:?}");
    world.on_store("ALTER TABLE hidden RENAME TO leases");
    assert_eq!(agent.until_lease(&lease.id, v1::LeaseState::Revoked).await.cause(), v1::Cause::Operator);
    assert_eq!(reason(&agent.lease(&task, READ).await.unwrap_err()), "FROZEN");
    let watch = v1::WatchRevocationRequest { revocation: id.clone() };
    let mut told = revoker.revocations.watch_revocation(watch).await.unwrap().into_inner();
    loop {
        let progress = told.message().await.unwrap().expect("it ends only when all is done");
        if progress.done {
            assert_eq!(progress.revocation.unwrap().counts.unwrap().confirmed, 1);
            break;
        }
    }
    lift(&mut world.admin().await, &id).await.unwrap();
    agent.lease(&task, READ).await.unwrap();
}

/// A broker that is short of connections of its own asks again, and does not take the target for one that is away.
#[tokio::test]
async fn a_shortage_of_the_broker_opens_no_breaker() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let lease = agent.lease(&task, READ).await.unwrap().lease.unwrap();
    (0..3).for_each(|_| world.orders.faults.add(Rule::once(Call::Revoke, Fault::Unasked)));
    agent.release(&lease.id).await.unwrap();
    agent.until_lease(&lease.id, v1::LeaseState::Revoked).await;
    let store = rusqlite::Connection::open(world.path("store/leases.db")).unwrap();
    let tries = "SELECT count(*) FROM journal WHERE CAST(body AS TEXT) LIKE '%revoke_tried%'";
    assert_eq!(store.query_row(tries, [], |row| row.get(0)), Ok(0), "the target was said to have failed");
}
