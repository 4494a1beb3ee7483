//! Rows that cannot be read: set aside with their bytes, killed by their plain columns, and in nobody's way (REV-7).

use leasehold_memory::{Call, Fault, Rule};
use leasehold_proto::v1;
use leasehold_proto::v1::selector::Kind;

use crate::stopping::{revoke, run};
use crate::world::{Client, Setup, World, eventually, login, reason};

const READ: &str = "orders.read@orders";

async fn status(admin: &Client) -> v1::StatusResponse {
    admin.admin.clone().status(v1::StatusRequest {}).await.unwrap().into_inner()
}

fn count(world: &World, sql: &str) -> i64 {
    let store = rusqlite::Connection::open(world.path("store/leases.db")).unwrap();
    store.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// A broker that starts on a store in which this statement was run on the row of one of two leases.
async fn spoiled(sql: &str) -> (World, v1::RequestLeaseResponse, v1::Lease, v1::Task) {
    let mut world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let bad = agent.lease(&task, READ).await.unwrap();
    let good = agent.lease(&task, READ).await.unwrap().lease.unwrap();
    world.stop().await;
    world.on_store(&sql.replace("BAD", &bad.lease.as_ref().unwrap().id).replace("TASK", &task.id));
    world.start(&Setup::default()).await.unwrap();
    (world, bad, good, task)
}

#[tokio::test]
async fn a_lease_whose_row_cannot_be_read_is_killed_by_its_plain_columns() {
    for spoil in [
        "UPDATE leases SET body = '{}' WHERE id = 'BAD'",
        "UPDATE leases SET body = CAST(x'ff00fe' AS TEXT) WHERE id = 'BAD'",
        "UPDATE leases SET state = 'revoked', due = 1 WHERE id = 'BAD'",
    ] {
        let (world, bad, good, _) =
            spoiled(&format!("{spoil}; UPDATE leases SET due = 1 WHERE id = 'BAD'")).await;
        let (user, password) = login(&bad);
        let session = world.orders.login(&user, &password);
        eventually("its principal is gone", || async { !world.orders.accounts().contains_key(&user) }).await;
        assert!(session.is_none_or(|session| !world.orders.serves(session)));
        let admin = world.admin().await;
        eventually("it left the due index", || async {
            count(&world, "SELECT count(*) FROM set_aside WHERE due IS NULL AND gone_at IS NOT NULL") == 1
        })
        .await;
        let id = &bad.lease.unwrap().id;
        let screen = status(&admin).await;
        assert_eq!(
            (screen.set_aside[0].id.as_str(), screen.set_aside[0].alive),
            (id.as_str(), false),
            "{spoil}"
        );
        assert!(screen.needs_person.iter().any(|line| line.contains("cannot be read")));
        assert_eq!(count(&world, &format!("SELECT count(*) FROM leases WHERE id = '{id}'")), 0);
        assert_eq!(count(&world, "SELECT length(bytes) > 0 FROM set_aside"), 1, "its bytes are kept");
        assert_eq!(admin.clone().look(&good.id).await.state(), v1::LeaseState::Active, "its neighbour lives");
        let noted =
            "SELECT count(*) FROM journal WHERE CAST(body AS TEXT) LIKE '%what was set aside is gone%'";
        assert_eq!(count(&world, noted), 1);
    }
}

#[tokio::test]
async fn a_bad_row_that_a_read_meets_is_set_aside_before_it_is_due() {
    let (world, bad, _, _) = spoiled("UPDATE leases SET body = '{}' WHERE id = 'BAD'").await;
    let admin = world.admin().await;
    admin.leases.clone().list_leases(v1::ListLeasesRequest::default()).await.unwrap();
    let (user, _) = login(&bad);
    eventually("its principal is gone", || async { !world.orders.accounts().contains_key(&user) }).await;
}

/// REV-2: a journal that takes nothing and a target that is away at the same moment delay no kill for long.
#[tokio::test]
async fn a_bad_row_that_cannot_be_set_aside_is_killed_again_within_a_minute() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let bad = agent.lease(&task, READ).await.unwrap().lease.unwrap().id;
    world.break_journal();
    world.orders.faults.add(Rule::always(Call::Revoke, Fault::down()));
    world.on_store(&format!("UPDATE leases SET body = '{{}}', due = 1 WHERE id = '{bad}'"));
    eventually("it is tried", || async { world.orders.calls(Call::Revoke) > 0 }).await;
    world.orders.faults.clear();
    world.pass(61);
    eventually("its principal is gone", || async { World::principals(&world.orders) == 0 }).await;
    assert_eq!(count(&world, "SELECT count(*) FROM set_aside"), 0, "and nothing can be written yet");
}

/// REV-6, law 8: whoever stops everything is not told that all is dead while something is alive whose row nobody can read.
#[tokio::test]
async fn a_kill_switch_is_not_done_while_a_lease_whose_row_cannot_be_read_lives() {
    let (world, bad, good, _) = spoiled("UPDATE leases SET body = '{}' WHERE id = 'BAD'").await;
    let (user, _) = login(&bad);
    let id = bad.lease.unwrap().id;
    world.orders.faults.add(Rule::always(Call::Revoke, Fault::down()).on(&user));
    let mut revoker = world.operator("revoker").await;
    let all = revoke(Kind::All(v1::All {}));
    let dry = v1::RevokeRequest { dry_run: true, ..all.clone() };
    let radius = run(&mut revoker, dry).await.unwrap().remove(0).revocation.unwrap();
    assert_eq!(radius.counts.unwrap().total, 2);
    let told = run(&mut revoker, v1::RevokeRequest { wait: None, ..all }).await.unwrap();
    let last = told.last().unwrap();
    assert!(!last.done && last.pending.contains(&id), "{last:?}");
    assert_eq!(last.revocation.as_ref().unwrap().counts.unwrap().total, 2);
    world.admin().await.until_lease(&good.id, v1::LeaseState::Revoked).await;
    let id = last.revocation.as_ref().unwrap().id.clone();
    let watch = v1::WatchRevocationRequest { revocation: id };
    let mut watched = revoker.revocations.watch_revocation(watch).await.unwrap().into_inner();
    let first = watched.message().await.unwrap().unwrap();
    assert!(!first.done && first.revocation.unwrap().counts.unwrap().pending == 1, "the other one is alive");
    world.orders.faults.clear();
    world.pass(61);
    loop {
        let progress = watched.message().await.unwrap().expect("it ends only when all is done");
        if progress.done {
            assert_eq!(progress.revocation.unwrap().counts.unwrap().confirmed, 2);
            break;
        }
    }
    assert!(!world.orders.accounts().contains_key(&user), "it was said to be dead");
}

#[tokio::test]
async fn a_task_with_a_bad_row_of_its_own_is_not_called_ended_while_that_lives() {
    let (world, _, good, task) = spoiled("UPDATE leases SET body = '{}', due = 1 WHERE id = 'BAD'").await;
    let mut agent = world.agent("triage").await;
    world.orders.faults.add(Rule::always(Call::Revoke, Fault::down()));
    eventually("it was set aside", || async { count(&world, "SELECT count(*) FROM set_aside") == 1 }).await;
    let request = v1::CompleteTaskRequest { task: task.id.clone(), wait: crate::world::seconds(0) };
    agent.tasks.complete_task(request).await.unwrap();
    if count(&world, "SELECT count(*) FROM set_aside WHERE due IS NOT NULL") == 1 {
        assert_eq!(agent.task(&task).await.state(), v1::TaskState::Ending);
    }
    world.orders.faults.clear();
    world.pass(61);
    agent.until_lease(&good.id, v1::LeaseState::Revoked).await;
    agent.until_task(&task, v1::TaskState::Ended).await;
    assert_eq!(World::principals(&world.orders), 0);
}

#[tokio::test]
async fn a_task_whose_row_cannot_be_read_takes_its_leases_with_it() {
    let (world, bad, good, task) = spoiled("UPDATE tasks SET body = 'x', due = 1 WHERE id = 'TASK'").await;
    let admin = world.admin().await;
    for id in [&bad.lease.unwrap().id, &good.id] {
        let dead = admin.until_lease(id, v1::LeaseState::Revoked).await;
        assert_eq!(dead.cause(), v1::Cause::Unreadable);
    }
    eventually("it is set aside", || async {
        status(&admin).await.set_aside.iter().any(|one| one.kind == "task" && one.id == task.id)
    })
    .await;
    assert_eq!(count(&world, "SELECT count(*) FROM tasks"), 0);
}

#[tokio::test]
async fn a_barrier_whose_row_cannot_be_read_goes_on_standing_and_can_be_lifted() {
    let mut world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let mut admin = world.admin().await;
    let kind = Kind::Agent("spiffe://suite.leasehold.test/agent/triage".into());
    let revoke = v1::RevokeRequest {
        selector: Some(v1::Selector { kind: Some(kind) }),
        reason: "a test".into(),
        ..v1::RevokeRequest::default()
    };
    let mut told = admin.revocations.revoke(revoke).await.unwrap().into_inner();
    let revocation = told.message().await.unwrap().unwrap().revocation.unwrap().id;
    while told.message().await.unwrap().is_some() {}
    world.stop().await;
    world.on_store("UPDATE revocations SET body = 'x'");
    world.start(&Setup::default()).await.unwrap();
    let (mut agent, mut admin) = (world.agent("triage").await, world.admin().await);
    assert!(agent.lease(&task, READ).await.is_err(), "nobody can read it, and it stands");
    eventually("it is set aside", || async {
        status(&admin).await.set_aside.iter().any(|one| one.kind == "revocation")
    })
    .await;
    assert_eq!(reason(&agent.lease(&task, READ).await.unwrap_err()), "FROZEN");
    let lift = v1::LiftRevocationRequest { revocation, reason: "over".into() };
    admin.revocations.lift_revocation(lift).await.unwrap();
    agent.lease(&task, READ).await.unwrap();
}
