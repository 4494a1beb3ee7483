//! Backups taken under load, and what a broker does on a store that was put back (RULES R-12, OPS-4).

use std::path::PathBuf;

use leasehold::config::Trust;
use leasehold::server::{Copied, PutBack, Restore, StartError, backup, restore};
use leasehold::store::StoreError;
use leasehold_memory::{Call, Fault, Rule};
use leasehold_proto::v1;

use crate::world::{Client, Setup, World, eventually, login, millis, reason};

const READ: &str = "orders.read@orders";
const STOCK: &str = "stock.read@stock";

pub(crate) async fn back_up(world: &World, name: &str) -> Result<Copied, StartError> {
    backup(world.path("leasehold.toml"), Trust::Dev, world.path(name), world.time.clone()).await
}

pub(crate) async fn put_back(world: &World, name: &str, replace: bool) -> Result<PutBack, StartError> {
    let how = Restore { from: world.path(name), replace, incarnation: None };
    restore(world.path("leasehold.toml"), Trust::Dev, how, world.time.clone()).await
}

async fn status(world: &World) -> v1::StatusResponse {
    world.admin().await.admin.status(v1::StatusRequest {}).await.unwrap().into_inner()
}

async fn until_reconciled(world: &World) {
    eventually("every target was compared", || async {
        let needs = status(world).await.needs_person;
        !needs.iter().any(|line| line.contains("not compared"))
    })
    .await;
}

async fn agent_with(world: &World, pairs: &[&str]) -> (Client, v1::Task) {
    let mut agent = world.agent("triage").await;
    let task = agent.open(pairs).await.unwrap();
    (agent, task)
}

#[tokio::test]
async fn what_was_revoked_stays_dead_what_was_renewed_lives_on_and_what_was_minted_since_is_revoked() {
    let mut world = World::new().await;
    let (mut agent, task) = agent_with(&world, &[READ]).await;
    let kept = agent.lease(&task, READ).await.unwrap();
    let renewed = agent.lease(&task, READ).await.unwrap().lease.unwrap();
    let revoked = agent.lease(&task, READ).await.unwrap().lease.unwrap();
    back_up(&world, "copy.db").await.unwrap();
    world.pass(300);
    let until = agent.renew(&renewed.id, 900).await.unwrap().lease.unwrap().expires_at;
    agent.release(&revoked.id).await.unwrap();
    let mut since = Vec::new();
    for _ in 0..12 {
        since.push(agent.lease(&task, READ).await.unwrap());
    }
    let session = world.orders.login(&login(&since[0]).0, &login(&since[0]).1).unwrap();
    world.stop().await;
    // By now the end that the backup knows has passed, and the one that the target has has not.
    world.pass(330);
    let back = put_back(&world, "copy.db", true).await.unwrap();
    assert_eq!(back.chain.as_str(), "suite/2");
    world.start(&Setup::default()).await.unwrap();
    until_reconciled(&world).await;
    let mut agent = world.agent("triage").await;
    let alive = agent.look(&renewed.id).await;
    assert_eq!(alive.state(), v1::LeaseState::Active, "it is not killed early");
    assert!((millis(alive.expires_at) - millis(until)).abs() < 2_000, "{alive:?}");
    let dead = agent.until_lease(&revoked.id, v1::LeaseState::Revoked).await;
    assert_eq!(dead.cause(), v1::Cause::Restored);
    eventually("what came since is gone", || async {
        let there = world.orders.accounts();
        since.iter().all(|one| !there.contains_key(&login(one).0))
    })
    .await;
    assert!(!world.orders.serves(session));
    let dead = agent.until_lease(&kept.lease.unwrap().id, v1::LeaseState::Revoked).await;
    assert_eq!(dead.cause(), v1::Cause::Expired, "what was not renewed ends when the backup says");
    assert_eq!(World::principals(&world.orders), 1);
    agent.lease(&task, READ).await.unwrap();
}

/// A halted reconciliation is none: nothing is minted until an operator has looked.
#[tokio::test]
async fn more_orphans_than_the_bound_keep_a_restore_open_until_an_operator_has_looked() {
    let mut world = World::new().await;
    let (mut agent, task) = agent_with(&world, &[READ]).await;
    let mut lost = Vec::new();
    for _ in 0..11 {
        lost.push(agent.lease(&task, READ).await.unwrap().lease.unwrap());
    }
    world.stop().await;
    for one in &lost {
        world.on_store(&format!("DELETE FROM leases WHERE id = '{}'", one.id));
    }
    world.pass(200);
    world.start(&Setup::default()).await.unwrap();
    back_up(&world, "copy.db").await.unwrap();
    let mut agent = world.agent("triage").await;
    lost.push(agent.lease(&task, READ).await.unwrap().lease.unwrap());
    world.stop().await;
    put_back(&world, "copy.db", true).await.unwrap();
    world.start(&Setup::default()).await.unwrap();
    eventually("it is told that it was halted", || async {
        status(&world).await.needs_person.iter().any(|line| line.contains("12 orphans"))
    })
    .await;
    assert!(status(&world).await.needs_person.iter().any(|line| line.contains("orders: not compared")));
    let mut agent = world.agent("triage").await;
    let refused = agent.lease(&task, READ).await.unwrap_err();
    assert_eq!(reason(&refused), "TARGET_DOWN", "{refused}");
    assert_eq!(World::principals(&world.orders), 12, "none of them is touched");
    let (_, text) = world.command(&["targets", "check", "orders"]).await;
    assert!(text.contains("NOT COMPLETE"), "{text}");
    let (code, text) = world.command(&["targets", "sweep", "orders", "--dry-run"]).await;
    assert!(code == Some(0) && text.contains("after the backup"), "{text}");
    let (code, text) = world.command(&["targets", "sweep", "orders", "--at-most", "11"]).await;
    assert!(code == Some(0), "{text}");
    eventually("all of them are gone", || async { World::principals(&world.orders) == 0 }).await;
    until_reconciled(&world).await;
    agent.lease(&task, READ).await.unwrap();
    let (_, text) = world.command(&["targets", "check", "orders"]).await;
    assert!(text.contains("complete, compared") && text.contains("12 (swept)"), "{text}");
}

#[tokio::test]
async fn a_lease_that_nothing_happened_to_goes_on_working() {
    let mut world = World::new().await;
    let (mut agent, task) = agent_with(&world, &[READ]).await;
    let kept = agent.lease(&task, READ).await.unwrap();
    back_up(&world, "copy.db").await.unwrap();
    world.stop().await;
    put_back(&world, "copy.db", true).await.unwrap();
    world.start(&Setup::default()).await.unwrap();
    until_reconciled(&world).await;
    let (user, password) = login(&kept);
    let lease = kept.lease.unwrap();
    let alive = world.agent("triage").await.look(&lease.id).await;
    assert_eq!((alive.state(), alive.expires_at), (v1::LeaseState::Active, lease.expires_at));
    assert!(world.orders.accepts(&user, &password));
}

#[tokio::test]
async fn a_target_that_is_down_is_compared_when_it_returns_and_gives_nothing_before() {
    let mut world = World::new().await;
    let (mut agent, task) = agent_with(&world, &[READ, STOCK]).await;
    let old = agent.lease(&task, STOCK).await.unwrap().lease.unwrap();
    back_up(&world, "copy.db").await.unwrap();
    world.pass(300);
    agent.renew(&old.id, 900).await.unwrap();
    let since = agent.lease(&task, STOCK).await.unwrap().lease.unwrap();
    world.stop().await;
    put_back(&world, "copy.db", true).await.unwrap();
    world.stock.faults.add(Rule::always(Call::Lookup, Fault::down()));
    world.pass(330);
    world.start(&Setup::default()).await.unwrap();
    let mut agent = world.agent("triage").await;
    eventually("the other target gives", || {
        let (mut agent, task) = (agent.clone(), task.clone());
        async move { agent.lease(&task, READ).await.is_ok() }
    })
    .await;
    eventually("it was asked", || async { world.stock.calls(Call::Lookup) > 0 }).await;
    let refused = agent.lease(&task, STOCK).await.unwrap_err();
    assert_eq!(reason(&refused), "TARGET_DOWN", "{refused}");
    assert!(status(&world).await.needs_person.iter().any(|line| line.contains("stock: not compared")));
    assert_eq!(agent.look(&old.id).await.state(), v1::LeaseState::Active, "nobody knows its end yet");
    world.stock.faults.clear();
    world.pass(6);
    until_reconciled(&world).await;
    agent.lease(&task, STOCK).await.unwrap();
    assert_eq!(agent.look(&old.id).await.state(), v1::LeaseState::Active);
    eventually("what came since is gone", || async {
        !world.stock.accounts().contains_key(&since.principal)
    })
    .await;
}

#[tokio::test]
async fn the_new_chain_begins_with_the_old_one_s_head() {
    let mut world = World::new().await;
    let (_agent, _task) = agent_with(&world, &[READ]).await;
    let copied = back_up(&world, "copy.db").await.unwrap();
    world.stop().await;
    put_back(&world, "copy.db", true).await.unwrap();
    world.start(&Setup::default()).await.unwrap();
    let mut stream =
        world.admin().await.audit.export(v1::ExportRequest::default()).await.unwrap().into_inner();
    let mut text = String::new();
    while let Some(piece) = stream.message().await.unwrap() {
        text.push_str(std::str::from_utf8(&piece.lines).unwrap());
    }
    let head = leasehold_law::journal::verify(text.lines()).unwrap();
    assert_eq!(head.chain.as_str(), "suite/2");
    let first = text.lines().nth(1).unwrap();
    assert!(
        first.contains("restored from a backup") && first.contains(&copied.head.hash.to_string()),
        "{first}"
    );
    assert!(first.contains("suite/1"), "{first}");
}

/// As `cp` makes it beside a broker that writes: the newest entries are in the log alone.
#[tokio::test]
async fn a_copy_that_has_its_log_beside_it_is_restored_whole() {
    let mut world = World::new().await;
    let (mut agent, task) = agent_with(&world, &[READ]).await;
    let lease = agent.lease(&task, READ).await.unwrap().lease.unwrap().id;
    for end in ["", "-wal"] {
        let (from, to) = (format!("store/leases.db{end}"), format!("copy.db{end}"));
        std::fs::copy(world.path(&from), world.path(&to)).unwrap();
    }
    world.stop().await;
    let back = put_back(&world, "copy.db", true).await.unwrap();
    let store = rusqlite::Connection::open(world.path("store/leases.db")).unwrap();
    let count = |sql: &str| store.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let head = i64::try_from(back.copy.head.seq).unwrap();
    assert_eq!(count("SELECT max(seq) FROM journal WHERE chain = 'suite/1'"), head);
    assert_eq!(count(&format!("SELECT count(*) FROM leases WHERE id = '{lease}'")), 1);
    drop(store);
    world.start(&Setup::default()).await.unwrap();
}

#[tokio::test]
async fn a_store_is_never_overwritten_and_the_replaced_one_is_kept() {
    let mut world = World::new().await;
    let (_agent, _task) = agent_with(&world, &[READ]).await;
    let copied = back_up(&world, "copy.db").await.unwrap();
    assert!(matches!(back_up(&world, "copy.db").await, Err(StartError::Store(StoreError::Unusable(_)))));
    let running = put_back(&world, "copy.db", true).await.unwrap_err();
    assert!(matches!(running, StartError::Serving(_)), "{running}");
    world.stop().await;
    let refused = put_back(&world, "copy.db", false).await.unwrap_err();
    assert!(refused.to_string().contains("--replace"), "{refused}");
    let second = put_back(&world, "copy.db", true).await.unwrap();
    assert_eq!(second.chain.as_str(), "suite/2");
    let aside: PathBuf = second.aside.unwrap();
    let old = rusqlite::Connection::open(&aside).unwrap();
    let entries: i64 = old.query_row("SELECT count(*) FROM journal", [], |row| row.get(0)).unwrap();
    assert!(entries >= i64::try_from(copied.head.seq).unwrap(), "the old store is whole");
    let third = put_back(&world, "copy.db", true).await.unwrap();
    assert_eq!(third.chain.as_str(), "suite/3", "no incarnation comes twice");
    world.start(&Setup::default()).await.unwrap();
}

#[tokio::test]
async fn a_copy_that_is_not_whole_or_not_ours_is_refused() {
    let mut world = World::new().await;
    let (_agent, _task) = agent_with(&world, &[READ]).await;
    back_up(&world, "copy.db").await.unwrap();
    world.stop().await;
    let good = std::fs::read(world.path("copy.db")).unwrap();
    std::fs::write(world.path("short.db"), &good[..good.len() / 2]).unwrap();
    std::fs::write(world.path("text.db"), "hello").unwrap();
    for (name, sql) in [
        ("forged.db", "UPDATE journal SET body = CAST(body || ' ' AS BLOB) WHERE seq = 2"),
        ("foreign.db", "UPDATE identity SET broker = 'other'"),
        ("production.db", "UPDATE identity SET stamp = 'production'"),
        ("newer.db", "PRAGMA user_version = 99"),
    ] {
        std::fs::write(world.path(name), &good).unwrap();
        rusqlite::Connection::open(world.path(name)).unwrap().execute_batch(sql).unwrap();
    }
    for name in ["short.db", "text.db", "forged.db", "foreign.db", "production.db", "newer.db", "absent.db"] {
        let refused = put_back(&world, name, true).await.map(drop).unwrap_err();
        assert!(matches!(refused, StartError::Store(_)), "{name}: {refused}");
    }
    world.start(&Setup::default()).await.unwrap();
    assert_eq!(status(&world).await.journal.unwrap().chain, "suite/1", "what was there is untouched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_taken_while_leases_come_and_go() {
    let world = World::new().await;
    let (mut agent, task) = agent_with(&world, &[READ]).await;
    let load = tokio::spawn(async move {
        for _ in 0..40 {
            let lease = agent.lease(&task, READ).await.unwrap().lease.unwrap();
            agent.release(&lease.id).await.unwrap();
        }
    });
    let mut heads = Vec::new();
    for n in 0..5 {
        let copied = back_up(&world, &format!("copy-{n}.db")).await.unwrap();
        heads.push(copied.head.seq);
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(world.path(&format!("copy-{n}.db"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    load.await.unwrap();
    assert!(heads.is_sorted() && heads[0] > 0, "{heads:?}");
    assert_eq!(World::principals(&world.orders), 0, "the broker was not disturbed");
}
