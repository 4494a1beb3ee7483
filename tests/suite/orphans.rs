//! Principals that no lease explains, leases whose principal is gone, and targets that others have claimed (RULES R-11).

use std::sync::Arc;

use leasehold_backend::{Backend, Claim};
use leasehold_memory::{Call, Fault, Gate, MemoryBackend, MemoryTarget, Rule};
use leasehold_proto::v1;
use rusqlite::params;
use tokio_postgres::error::SqlState;

use crate::child::{PAIR, Rig};
use crate::site::{Site, login as log_in, login_config};
use crate::world::{Client, Setup, World, eventually, login, reason};

const READ: &str = "orders.read@orders";

pub(crate) async fn sweep(admin: &Client, target: &str, dry_run: bool, at_most: u64) -> v1::Sweep {
    sweep_as(admin, v1::SweepTargetRequest { target: target.into(), dry_run, at_most, ..Default::default() })
        .await
}

pub(crate) async fn sweep_as(admin: &Client, request: v1::SweepTargetRequest) -> v1::Sweep {
    admin.targets.clone().sweep_target(request).await.unwrap().into_inner().sweep.unwrap()
}

async fn status(admin: &Client) -> v1::StatusResponse {
    admin.admin.clone().status(v1::StatusRequest {}).await.unwrap().into_inner()
}

async fn owner(target: &Arc<MemoryTarget>) -> Option<Claim> {
    MemoryBackend::new(target.clone()).owner().await.unwrap()
}

async fn until_gone(target: &Arc<MemoryTarget>, principal: &str) {
    eventually("the principal is gone", || async { !target.accounts().contains_key(principal) }).await;
}

/// A world whose store has forgotten so many leases that the target still has.
pub(crate) async fn forgetful(setup: &Setup, count: usize) -> (World, Vec<v1::RequestLeaseResponse>) {
    forgetful_of(setup, count, count).await
}

/// As [`forgetful`], with more leases that it remembers: so many in all.
async fn forgetful_of(setup: &Setup, count: usize, all: usize) -> (World, Vec<v1::RequestLeaseResponse>) {
    let mut world = World::with(Setup { config: setup.config.clone(), ..Setup::default() }).await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let mut granted = Vec::new();
    for _ in 0..all {
        granted.push(agent.lease(&task, READ).await.unwrap());
    }
    world.stop().await;
    granted.truncate(count);
    for one in &granted {
        let id = &one.lease.as_ref().unwrap().id;
        world.on_store(&format!("DELETE FROM leases WHERE id = '{id}'"));
    }
    world.start(setup).await.unwrap();
    (world, granted)
}

#[tokio::test]
async fn a_principal_that_no_row_explains_is_revoked_after_its_grace() {
    let (world, granted) = forgetful(&Setup::default(), 1).await;
    let (user, password) = login(&granted[0]);
    let session = world.orders.login(&user, &password).unwrap();
    let admin = world.admin().await;
    let young = sweep(&admin, "orders", false, 0).await;
    assert_eq!((young.ours, young.young, young.found), (1, 1, 0), "it may be in the middle of something");
    world.pass(61);
    let dry = sweep(&admin, "orders", true, 0).await;
    assert_eq!(dry.verdict(), v1::SweepVerdict::DryRun);
    sweep(&admin, "orders", false, 0).await;
    until_gone(&world.orders, &user).await;
    assert!(!world.orders.serves(session), "its sessions go with it");
    eventually("its death is on record", || async {
        status(&admin).await.set_aside.iter().any(|one| one.id == user && !one.alive)
    })
    .await;
    let screen = status(&admin).await;
    assert_eq!(screen.set_aside[0].kind, "orphan");
    assert_eq!(screen.needs_person, Vec::<String>::new(), "what is dead needs nobody");
}

#[tokio::test]
async fn a_target_is_swept_by_itself_on_the_schedule() {
    let (world, granted) = forgetful(&Setup::default(), 1).await;
    let (user, _) = login(&granted[0]);
    eventually("the principal is gone, and nobody asked", || {
        world.pass(61);
        let gone = !world.orders.accounts().contains_key(&user);
        async move { gone }
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_touches_nothing() {
    let mut world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let lease = agent.lease(&task, READ).await.unwrap().lease.unwrap();
    world.stop().await;
    call_dead(&world, &lease.id);
    world.start(&Setup::default()).await.unwrap();
    let admin = world.admin().await;
    let dry = sweep(&admin, "orders", true, 0).await;
    assert_eq!((dry.verdict(), dry.found), (v1::SweepVerdict::DryRun, 1));
    assert_eq!(dry.orphans[0].principal, lease.principal);
    assert!(world.orders.accounts().contains_key(&lease.principal));
    assert_eq!(admin.clone().look(&lease.id).await.state(), v1::LeaseState::Revoked);
}

/// Makes a row say that its lease is dead, as if somebody had brought the principal back.
fn call_dead(world: &World, lease: &str) {
    let store = rusqlite::Connection::open(world.path("store/leases.db")).unwrap();
    let body: String =
        store.query_row("SELECT body FROM leases WHERE id = ?", [lease], |row| row.get(0)).unwrap();
    let mut body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let handle = body["state"]["handle"].clone();
    body["state"] = serde_json::json!({
        "state": "revoked", "handle": handle, "cause": "released", "proof": "read_back", "at": 1,
    });
    let sql = "UPDATE leases SET state = 'revoked', due = NULL, revoked_at = 1, body = ? WHERE id = ?";
    store.execute(sql, params![body.to_string(), lease]).unwrap();
}

#[tokio::test]
async fn a_revoked_lease_whose_principal_is_back_is_revoked_anew() {
    let mut world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let lease = agent.lease(&task, READ).await.unwrap().lease.unwrap();
    world.stop().await;
    call_dead(&world, &lease.id);
    world.start(&Setup::default()).await.unwrap();
    let admin = world.admin().await;
    let swept = sweep(&admin, "orders", false, 0).await;
    assert_eq!((swept.found, swept.verdict()), (1, v1::SweepVerdict::Swept), "no grace for what was dead");
    let dead = admin.until_lease(&lease.id, v1::LeaseState::Revoked).await;
    assert_eq!(dead.cause(), v1::Cause::Resurrected);
    assert_eq!(World::principals(&world.orders), 0);
}

#[tokio::test]
async fn more_than_the_bound_is_left_alone_and_alarmed() {
    let (world, granted) = forgetful(&Setup::default(), 11).await;
    let admin = world.admin().await;
    world.pass(61);
    let halted = sweep(&admin, "orders", false, 0).await;
    assert_eq!((halted.verdict(), halted.found, halted.bound), (v1::SweepVerdict::Halted, 11, 10));
    assert_eq!(World::principals(&world.orders), 11, "none of them is touched");
    let screen = status(&admin).await;
    assert!(screen.needs_person.iter().any(|line| line.contains("11 orphans")), "{:?}", screen.needs_person);
    let swept = sweep(&admin, "orders", false, 11).await;
    assert_eq!(swept.verdict(), v1::SweepVerdict::Swept);
    for one in &granted {
        until_gone(&world.orders, &login(one).0).await;
    }
}

/// One in twenty of what is ours, where that is more than ten.
#[tokio::test]
async fn the_bound_grows_with_what_is_ours() {
    let (world, granted) = forgetful_of(&Setup::default(), 12, 240).await;
    let admin = world.admin().await;
    world.pass(61);
    let swept = sweep(&admin, "orders", false, 0).await;
    assert_eq!((swept.verdict(), swept.found, swept.bound), (v1::SweepVerdict::Swept, 12, 12));
    for one in &granted {
        until_gone(&world.orders, &login(one).0).await;
    }
    assert_eq!(World::principals(&world.orders), 228);
}

#[tokio::test]
async fn a_lease_whose_principal_is_gone_is_closed_and_its_sessions_are_cut() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let granted = agent.lease(&task, READ).await.unwrap();
    let kept = agent.lease(&task, READ).await.unwrap().lease.unwrap();
    let (user, password) = login(&granted);
    let session = world.orders.login(&user, &password).unwrap();
    world.orders.remove(&user);
    let admin = world.admin().await;
    let swept = sweep(&admin, "orders", false, 0).await;
    let lease = granted.lease.unwrap().id;
    assert_eq!(swept.missing, [lease.as_str()]);
    let dead = admin.until_lease(&lease, v1::LeaseState::Revoked).await;
    assert_eq!(dead.cause(), v1::Cause::PrincipalMissing);
    assert!(!world.orders.serves(session));
    assert_eq!(admin.clone().look(&kept.id).await.state(), v1::LeaseState::Active);
}

#[tokio::test]
async fn what_is_minted_or_revoked_while_a_target_is_listed_is_no_orphan() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let dying = agent.lease(&task, READ).await.unwrap().lease.unwrap();
    let admin = world.admin().await;
    let gate = Gate::default();
    world.orders.faults.add(Rule::once(Call::List, Fault::HoldAnswer(gate.clone())));
    let asking = admin.clone();
    let swept = tokio::spawn(async move { sweep(&asking, "orders", false, 0).await });
    gate.arrival().await;
    let minted = agent.lease(&task, READ).await.unwrap().lease.unwrap();
    agent.release(&dying.id).await.unwrap();
    gate.open();
    let swept = swept.await.unwrap();
    assert_eq!((swept.found, swept.young, swept.missing.len()), (0, 0, 0));
    assert_eq!(admin.clone().look(&minted.id).await.state(), v1::LeaseState::Active);
}

#[tokio::test]
async fn a_second_installation_on_a_target_never_touches_what_is_not_its_own() {
    let first = World::new().await;
    let mut agent = first.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let theirs = agent.lease(&task, READ).await.unwrap();
    eventually("the first has claimed it", || async { owner(&first.orders).await.is_some() }).await;
    let mut second = World::prepare(&Setup::default()).await;
    second.orders = first.orders.clone();
    second.start(&Setup::default()).await.unwrap();
    let mut agent = second.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let lost = agent.lease(&task, READ).await.unwrap();
    second.stop().await;
    second.on_store("DELETE FROM leases");
    second.start(&Setup::default()).await.unwrap();
    second.pass(61);
    let admin = second.admin().await;
    let swept = sweep(&admin, "orders", false, 0).await;
    assert_eq!(swept.verdict(), v1::SweepVerdict::NotOurs);
    assert_eq!((swept.ours, swept.strangers, swept.found), (1, 1, 1), "its own orphan is only reported");
    for one in [&theirs, &lost] {
        assert!(first.orders.accounts().contains_key(&login(one).0));
    }
    let claimed = status(&admin).await.targets.into_iter().find(|one| one.name == "orders").unwrap();
    assert_eq!(claimed.claimed_by, owner(&first.orders).await.unwrap().installation);
    let (user, password) = login(&theirs);
    assert!(first.orders.accepts(&user, &password));
}

/// The same key, and a target that says that a later incarnation has it: an old store that somebody started again.
#[tokio::test]
async fn a_clone_beside_a_later_incarnation_mints_and_sweeps_nothing() {
    let (world, granted) = forgetful(&Setup::default(), 1).await;
    eventually("it was greeted", || async { owner(&world.orders).await.is_some() }).await;
    let mine = owner(&world.orders).await.unwrap();
    let later = Claim { incarnation: mine.incarnation + 1, ..mine };
    let stands = owner(&world.orders).await;
    MemoryBackend::new(world.orders.clone()).claim(&later, stands.as_ref()).await.unwrap();
    world.pass(61);
    let admin = world.admin().await;
    let swept = sweep(&admin, "orders", false, 0).await;
    assert_eq!((swept.verdict(), swept.found), (v1::SweepVerdict::NotOurs, 1));
    assert!(world.orders.accounts().contains_key(&login(&granted[0]).0));
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let refused = agent.lease(&task, READ).await.unwrap_err();
    assert_eq!(reason(&refused), "TARGET_REFUSED", "{refused}");
    assert_eq!(owner(&world.orders).await, Some(later), "a claim is never taken back from a later one");
}

#[tokio::test]
async fn a_target_that_was_down_at_the_start_is_claimed_when_it_first_answers() {
    let mut world = World::prepare(&Setup::default()).await;
    world.orders.faults.add(Rule::always(Call::Health, Fault::down()));
    world.start(&Setup::default()).await.unwrap();
    let stock = world.stock.clone();
    eventually("the other is claimed", || async { owner(&stock).await.is_some() }).await;
    eventually("it was asked", || async { world.orders.calls(Call::Health) > 0 }).await;
    assert_eq!(owner(&world.orders).await, None);
    world.orders.faults.clear();
    world.pass(6);
    let claimant = async |target| owner(target).await.map(|claim| claim.installation);
    eventually("it is claimed", || async { claimant(&world.orders).await == claimant(&stock).await }).await;
}

#[tokio::test]
async fn an_orphan_that_cannot_be_killed_yet_is_tried_until_it_is_dead() {
    let (world, granted) = forgetful(&Setup::default(), 1).await;
    let (user, _) = login(&granted[0]);
    world.pass(61);
    let admin = world.admin().await;
    world.orders.faults.add(Rule::always(Call::Revoke, Fault::down()));
    sweep(&admin, "orders", false, 0).await;
    eventually("it is listed as alive", || async {
        status(&admin).await.set_aside.iter().any(|one| one.alive && one.tries > 0)
    })
    .await;
    let screen = status(&admin).await;
    assert!(
        screen.needs_person.iter().any(|line| line.contains("not dead yet")),
        "{:?}",
        screen.needs_person
    );
    assert!(screen.set_aside[0].last_error.contains("took the answer"));
    world.orders.faults.clear();
    world.pass(61);
    until_gone(&world.orders, &user).await;
}

#[tokio::test]
async fn an_orphan_on_postgresql_loses_its_sessions_and_its_role() {
    let site = Site::start();
    let mut rig = Rig::new(&site, site.port()).await;
    rig.world.start(&rig.setup).await.unwrap();
    let mut agent = rig.world.agent("triage").await;
    let task = agent.open(&[PAIR]).await.unwrap();
    let lost = agent.lease(&task, PAIR).await.unwrap();
    let kept = agent.lease(&task, PAIR).await.unwrap();
    let config = login_config(&lost.credential.unwrap());
    let session = log_in(&config).await.unwrap();
    let root = site.root().await;
    let foreign = "lh06jr1k4t0b0000000000aaaaaaaaaa";
    root.batch_execute(&format!("CREATE ROLE {foreign} LOGIN")).await.unwrap();
    rig.world.stop().await;
    rig.world.on_store(&format!("DELETE FROM leases WHERE id = '{}'", lost.lease.as_ref().unwrap().id));
    rig.world.start(&rig.setup).await.unwrap();
    rig.world.pass(61);
    let admin = rig.world.admin().await;
    let swept = sweep(&admin, "db", false, 0).await;
    assert_eq!((swept.ours, swept.verdict()), (2, v1::SweepVerdict::Swept));
    assert!(swept.strangers >= 1, "the role that only looks like ours, and the one that holds the claim");
    let names = || async {
        let rows = root.query("SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'lh0%'", &[]).await;
        rows.unwrap().iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>()
    };
    let mut left = vec![kept.lease.unwrap().principal, foreign.to_owned()];
    left.sort();
    eventually("the role is gone", || async {
        let mut names = names().await;
        names.sort();
        names == left
    })
    .await;
    let refused = log_in(&config).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::INVALID_PASSWORD));
    assert!(!crate::site::works(&session).await);
    rig.world.stop().await;
}
