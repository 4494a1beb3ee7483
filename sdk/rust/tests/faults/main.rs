//! What a client does when things go wrong: the broker away, answers lost, tasks lost, leases revoked.
//!
//! The server here exists for faults only, which a real broker would not show on demand; what a broker does is
//! tested with a real one, in the suite of the root package.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod fake;

use std::time::Duration;

use fake::{Fake, lease, refusal, spent};
use leasehold_client::{ClientError, LeaseStage, TaskStatus, v1};
use tonic::Code;

const PAIR: &str = "orders.read@orders-db";
/// Bounds waiting for a server that should have been asked long before.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_task_is_opened_under_one_name_whatever_it_takes() {
    let fake = Fake::start();
    fake.script().open.extend([
        refusal(Code::Unavailable, "DRAINING", Some(1)),
        refusal(Code::Aborted, "CONTENDED", Some(1)),
    ]);
    let client = fake.client().await;
    let task = client.task().scope(PAIR).refs([("run", "8812")]).open().await.unwrap();
    let seen = std::mem::take(&mut fake.script().opened);
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|request| *request == seen[0] && !request.request_id.is_empty()));
    assert_eq!(task.id(), "task_1");
}

#[tokio::test]
async fn what_is_over_a_quota_is_asked_again_when_the_broker_said_and_not_for_ever() {
    let fake = Fake::start();
    let full = || refusal(Code::ResourceExhausted, "QUOTA", Some(200));
    fake.script().open.extend([full(), full()]);
    let client = fake.client().await;
    let begun = std::time::Instant::now();
    client.task().scope(PAIR).open().await.unwrap().leave();
    assert!(begun.elapsed() >= Duration::from_millis(400), "each delay was waited for");
    let opened = std::mem::take(&mut fake.script().opened);
    assert!(opened.len() == 3 && opened.iter().all(|request| *request == opened[0]));
    fake.script().open.extend((0..9).map(|_| full()));
    let error = client.task().scope(PAIR).open().await.err().unwrap();
    assert!(error.is("QUOTA"));
    assert_eq!(fake.script().opened.len(), 4);
}

#[tokio::test]
async fn a_refusal_is_not_asked_again() {
    let fake = Fake::start();
    fake.script().open.push_back(refusal(Code::PermissionDenied, "FORBIDDEN", None));
    let error = fake.client().await.task().scope(PAIR).open().await.err().unwrap();
    assert!(error.is("FORBIDDEN"));
    assert_eq!(fake.script().opened.len(), 1);
}

#[tokio::test]
async fn what_is_no_pair_is_never_sent() {
    let fake = Fake::start();
    let error = fake.client().await.task().scope("orders.read").open().await.err().unwrap();
    assert!(matches!(error, ClientError::Invalid(_)));
    assert!(fake.script().opened.is_empty());
}

#[tokio::test]
async fn a_spent_attempt_is_raised_and_the_name_stays() {
    let fake = Fake::start();
    fake.script().request.extend([
        refusal(Code::Aborted, "CONTENDED", Some(1)),
        spent(2),
        refusal(Code::Unavailable, "TARGET_DOWN", Some(1)),
    ]);
    let client = fake.client().await;
    let task = client.task().scope(PAIR).open().await.unwrap();
    task.lease(PAIR).await.unwrap();
    let script = fake.script();
    let attempts: Vec<_> = script.requested.iter().map(|request| request.attempt).collect();
    assert_eq!(attempts, [0, 0, 2, 2]);
    assert!(script.requested.iter().all(|request| request.request_id == script.requested[0].request_id));
}

#[tokio::test]
async fn attempts_are_not_raised_for_ever() {
    let fake = Fake::start();
    // A broker that always names the attempt that was just spent.
    fake.script().request.extend((0..20).map(|_| spent(0)));
    let task = fake.client().await.task().scope(PAIR).open().await.unwrap();
    let error = task.lease(PAIR).await.err().unwrap();
    assert!(error.is("ATTEMPT_SPENT"));
    assert!(fake.script().requested.len() <= 4);
}

#[tokio::test]
async fn a_revoked_lease_says_so_at_once() {
    let fake = Fake::start();
    let client = fake.client().await;
    let task = client.task().scope(PAIR).open().await.unwrap();
    let db = task.lease(PAIR).await.unwrap();
    assert!(db.dsn().unwrap().expose().contains(":s3cret@"));
    fake.revoke().await;
    assert_eq!(db.ended().await, "operator");
}

#[tokio::test]
async fn a_lease_revoked_on_its_way_is_seen_to_end() {
    let fake = Fake::start();
    fake.script().revoke_while_minting = true;
    let client = fake.client().await;
    let task = client.task().scope(PAIR).open().await.unwrap();
    // Told before or after the credential arrives: either way it must not be taken for alive.
    assert_eq!(task.lease(PAIR).await.unwrap().ended().await, "operator");
}

#[tokio::test]
async fn a_lost_task_ends_its_leases() {
    let fake = Fake::start();
    fake.script().grace = Duration::from_millis(30);
    fake.script().heartbeat = Some(refusal(Code::FailedPrecondition, "TASK_LOST", None));
    let client = fake.client().await;
    let task = client.task().scope(PAIR).open().await.unwrap();
    let mut status = task.status();
    let ended = status.wait_for(|status| matches!(status, TaskStatus::Ended(_))).await.unwrap().clone();
    assert!(matches!(ended, TaskStatus::Ended(why) if why.contains("TASK_LOST")));
    // One that was on its way meanwhile is born ended.
    assert!(task.lease(PAIR).await.unwrap().ended().await.contains("TASK_LOST"));
}

#[test]
fn a_blocked_agent_keeps_its_task() {
    let fake = Fake::start();
    fake.script().grace = Duration::from_millis(30);
    let beats = fake.beats();
    let agent = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = agent.block_on(fake.client());
    let task = agent.block_on(client.task().scope(PAIR).open()).unwrap();
    // From here on nobody drives the agent's event loop.
    for _ in 0..3 {
        beats.recv_timeout(PATIENCE).unwrap();
    }
    drop(task);
}

#[test]
fn a_dropped_task_is_aborted() {
    let fake = Fake::start();
    let aborts = fake.aborts();
    let agent = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = agent.block_on(fake.client());
    drop(agent.block_on(client.task().scope(PAIR).open()).unwrap());
    drop(client);
    drop(agent);
    assert_eq!(aborts.recv_timeout(PATIENCE).unwrap(), "task_1");
}

#[tokio::test]
async fn a_completed_task_is_not_aborted_and_names_what_is_pending() {
    let fake = Fake::start();
    let aborts = fake.aborts();
    let client = fake.client().await;
    let task = client.task().scope(PAIR).open().await.unwrap();
    let ending = task.complete().await.unwrap();
    assert_eq!(ending.to_string(), "1 confirmed dead, 1 pending: lease_2");
    drop((client, fake));
    assert!(aborts.recv_timeout(PATIENCE).is_err(), "the server ended without an abort");
}

#[tokio::test]
async fn a_lease_is_renewed_until_its_life_is_reached() {
    let fake = Fake::start();
    fake.script().lifetime_ms = 1500;
    fake.script().renew.extend([Ok(renewed(3000)), refusal(Code::FailedPrecondition, "LIFE_REACHED", None)]);
    let client = fake.client().await;
    let task = client.task().scope(PAIR).open().await.unwrap();
    let db = task.lease(PAIR).await.unwrap();
    let mut status = db.status();
    let last = status.wait_for(|now| matches!(now.stage, LeaseStage::Last { .. })).await.unwrap().clone();
    assert!(matches!(last.stage, LeaseStage::Last { reason } if reason.contains("LIFE_REACHED")));
    assert_eq!(db.ended().await, "expired");
    let script = fake.script();
    assert_eq!(script.renewals.len(), 2);
    assert_ne!(script.renewals[0], script.renewals[1], "each renewal has its own name");
}

fn renewed(expires_ms: i64) -> v1::RenewLeaseResponse {
    let lease = Some(lease(v1::LeaseState::Active, expires_ms));
    v1::RenewLeaseResponse { lease, ..v1::RenewLeaseResponse::default() }
}

#[tokio::test]
async fn while_the_broker_is_away_a_lease_lasts_to_its_expiry() {
    let fake = Fake::start();
    fake.script().lifetime_ms = 900;
    let client = fake.client().await;
    let task = client.task().scope(PAIR).open().await.unwrap();
    let db = task.lease(PAIR).await.unwrap();
    fake.stop();
    let mut status = db.status();
    let away =
        status.wait_for(|now| matches!(now.stage, LeaseStage::BrokerAway { .. })).await.unwrap().clone();
    assert!(away.ends > std::time::Instant::now(), "told before the end");
    assert_eq!(db.ended().await, "expired");
}

#[tokio::test]
async fn a_client_connects_again_by_itself() {
    let fake = Fake::start();
    let client = fake.client().await;
    client.task().scope(PAIR).open().await.unwrap().leave();
    let fake = fake.restart();
    client.task().scope(PAIR).open().await.unwrap().leave();
    assert_eq!(fake.script().opened.len(), 1);
}

#[tokio::test]
async fn nobody_at_the_socket_is_told_in_types() {
    let fake = Fake::start();
    let options = fake.options();
    fake.stop();
    let error = leasehold_client::Client::connect_admin(options).await.err().unwrap();
    assert!(
        matches!(error, ClientError::Connect(leasehold_client::ChannelError::NoSocket { .. })),
        "{error:?}"
    );
}
