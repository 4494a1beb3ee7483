//! Stores that were copied, set back or made anew, and servers that answer in a target's place: whatever looks like
//! ours and is not is left alone, and what cannot be killed is told (RULES ).

use std::path::Path;
use std::sync::Arc;

use leasehold::clock::TimeSource as _;
use leasehold_backend::{Backend, Claim};
use leasehold_memory::{MemoryBackend, MemoryTarget};
use leasehold_proto::v1;

use crate::orphans::{sweep, sweep_as};
use crate::restore::{back_up, put_back};
use crate::world::{Client, Setup, World, by_heartbeat, eventually, login, open_request, reason};

const READ: &str = "orders.read@orders";

async fn owner(target: &Arc<MemoryTarget>) -> Option<Claim> {
    MemoryBackend::new(target.clone()).owner().await.unwrap()
}

async fn until_claimed(target: &Arc<MemoryTarget>) -> Claim {
    eventually("it is claimed", || async { owner(target).await.is_some() }).await;
    owner(target).await.unwrap()
}

/// A term later: a broker takes one every half minute.
async fn until_next_term(world: &World, target: &Arc<MemoryTarget>) -> Claim {
    let before = until_claimed(target).await;
    eventually("the next term is taken", || async {
        world.pass(1);
        owner(target).await.is_some_and(|claim| claim.term > before.term)
    })
    .await;
    owner(target).await.unwrap()
}

/// Replaces whatever stands.
async fn set_claim(target: &Arc<MemoryTarget>, claim: &Claim) {
    let stands = owner(target).await;
    MemoryBackend::new(target.clone()).claim(claim, stands.as_ref()).await.unwrap();
}

async fn needs(admin: &Client) -> Vec<String> {
    admin.admin.clone().status(v1::StatusRequest {}).await.unwrap().into_inner().needs_person
}

/// A lease of a task that is lost when its agent falls silent.
async fn watched_lease(world: &World) -> (Client, v1::Task, v1::RequestLeaseResponse) {
    let mut agent = world.agent("triage").await;
    let request = v1::OpenTaskRequest { liveness: by_heartbeat(600), ..open_request(&[READ]) };
    let task = agent.open_as(request).await.unwrap();
    let granted = agent.lease(&task, READ).await.unwrap();
    (agent, task, granted)
}

/// Another host with the first one's config and targets, and a key and a store of its own.
async fn beside(first: &World) -> World {
    let mut second = World::prepare(&Setup::default()).await;
    (second.orders, second.stock) = (first.orders.clone(), first.stock.clone());
    std::fs::create_dir(second.path("store")).unwrap();
    second
}

fn copy_key(from: &World, to: &World) {
    std::fs::copy(from.path("installation.key"), to.path("installation.key")).unwrap();
}

/// As `cp` and `rsync` do, beside a broker that serves.
fn copy_store(from: &World, to: &World) {
    for end in ["", "-wal"] {
        let name = format!("store/leases.db{end}");
        std::fs::copy(from.path(&name), to.path(&name)).unwrap();
    }
}

/// Another host with the first one's config, targets, key and store.
async fn copy_of(first: &World) -> World {
    let second = beside(first).await;
    copy_key(first, &second);
    copy_store(first, &second);
    second
}

fn move_store(from: &Path, to: &World) {
    for end in ["", "-wal"] {
        let from = format!("{}{end}", from.display());
        if Path::new(&from).exists() {
            std::fs::rename(from, to.path(&format!("store/leases.db{end}"))).unwrap();
        }
    }
}

/// Waits until a lease is told to be stuck for this reason.
async fn until_stuck(admin: &Client, lease: &str, why: &str) {
    eventually(&format!("it is told that {why}"), || {
        let mut admin = admin.clone();
        async move {
            let lease = admin.look(lease).await;
            lease.state() == v1::LeaseState::Revoking && lease.last_error.contains(why)
        }
    })
    .await;
}

/// What a copy that was started by mistake comes to: its leases wait, and those of the original live.
async fn assert_harmless(original: &World, copy: &World, granted: &v1::RequestLeaseResponse) {
    copy.time.advance(original.time.wall().since(copy.time.wall()));
    let mut agent = copy.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let refused = agent.lease(&task, READ).await.unwrap_err();
    assert_eq!(reason(&refused), "TARGET_REFUSED", "{refused}");
    copy.pass(3600);
    let lease = &granted.lease.as_ref().unwrap().id;
    let admin = copy.admin().await;
    until_stuck(&admin, lease, "another store of this installation").await;
    let told = needs(&admin).await;
    assert!(told.iter().any(|line| line.contains("orders: nothing is minted")), "{told:?}");
    let swept = sweep(&admin, "orders", false, 0).await;
    assert_eq!(swept.verdict(), v1::SweepVerdict::NotOurs);
    let (user, password) = login(granted);
    assert!(original.orders.accepts(&user, &password));
    assert_eq!(original.admin().await.look(lease).await.state(), v1::LeaseState::Active);
}

#[tokio::test]
async fn a_copy_of_a_store_does_not_start_with_another_key() {
    let first = World::new().await;
    let (_agent, _task, granted) = watched_lease(&first).await;
    let mut second = beside(&first).await;
    copy_store(&first, &second);
    let told = second.start(&Setup::default()).await.unwrap_err().to_string();
    assert!(told.contains("belongs to installation") && told.contains("next:"), "{told}");
    // As the store of a version that did not say whose it was.
    second.on_store("UPDATE identity SET installation = NULL");
    let told = second.start(&Setup::default()).await.unwrap_err().to_string();
    assert!(told.contains("belongs to another installation"), "{told}");
    assert!(first.orders.accepts(&login(&granted).0, &login(&granted).1));
}

#[tokio::test]
async fn a_copy_under_another_key_ends_nothing_where_it_was_minted() {
    let first = World::new().await;
    let (_agent, _task, granted) = watched_lease(&first).await;
    until_claimed(&first.orders).await;
    let (user, password) = login(&granted);
    let session = first.orders.login(&user, &password).unwrap();
    let mut second = beside(&first).await;
    copy_store(&first, &second);
    let told = second.start(&Setup::default()).await.unwrap_err().to_string();
    let here = told.split('`').nth(3).unwrap();
    second.on_store(&format!("UPDATE identity SET installation = '{here}'"));
    second.start(&Setup::default()).await.unwrap();
    second.pass(3600);
    let admin = second.admin().await;
    let lease = granted.lease.unwrap().id;
    until_stuck(&admin, &lease, "does not carry the code").await;
    assert!(needs(&admin).await.iter().any(|line| line.contains("lease stuck")));
    let swept = sweep(&admin, "orders", false, 0).await;
    assert_eq!((swept.verdict(), swept.ours), (v1::SweepVerdict::ClaimGone, 0));
    assert!(first.orders.accepts(&user, &password) && first.orders.serves(session));
    assert_eq!(first.admin().await.look(&lease).await.state(), v1::LeaseState::Active);
}

#[tokio::test]
async fn a_copy_that_starts_after_a_term_touches_nothing() {
    let first = World::new().await;
    let (_agent, _task, granted) = watched_lease(&first).await;
    until_claimed(&first.orders).await;
    let mut second = copy_of(&first).await;
    until_next_term(&first, &first.orders).await;
    second.start(&Setup::default()).await.unwrap();
    assert_harmless(&first, &second, &granted).await;
}

/// Nothing tells the two apart before; the one that was there first goes on.
#[tokio::test]
async fn a_copy_that_starts_within_a_term_is_known_by_the_next() {
    let first = World::new().await;
    let (_agent, _task, granted) = watched_lease(&first).await;
    until_claimed(&first.orders).await;
    let mut second = copy_of(&first).await;
    second.start(&Setup::default()).await.unwrap();
    let admin = second.admin().await;
    until_next_term(&first, &first.orders).await;
    eventually("the copy sees it", || async {
        second.pass(1);
        needs(&admin).await.iter().any(|line| line.contains("orders: nothing is minted"))
    })
    .await;
    assert_harmless(&first, &second, &granted).await;
    until_next_term(&first, &first.orders).await;
    let told = needs(&first.admin().await).await;
    assert!(!told.iter().any(|line| line.contains("nothing is minted")), "the first goes on: {told:?}");
}

/// The copy had the target while the original was stopped; an operator gives it back.
#[tokio::test]
async fn a_copy_that_had_a_target_kills_nothing_when_the_original_has_it_again() {
    let mut first = World::new().await;
    let (_agent, _task, granted) = watched_lease(&first).await;
    until_claimed(&first.orders).await;
    let mut second = copy_of(&first).await;
    first.stop().await;
    second.start(&Setup::default()).await.unwrap();
    second.time.advance(first.time.wall().since(second.time.wall()));
    until_next_term(&second, &first.orders).await;
    first.start(&Setup::default()).await.unwrap();
    let admin = first.admin().await;
    eventually("the original sees it", || async {
        first.pass(1);
        needs(&admin).await.iter().any(|line| line.contains("orders: nothing is minted"))
    })
    .await;
    let (code, told) = first.command(&["targets", "sweep", "orders", "--claim"]).await;
    assert!(code == Some(0), "{told}");
    let copy = second.admin().await;
    eventually("the copy sees it", || async {
        second.pass(1);
        needs(&copy).await.iter().any(|line| line.contains("orders: nothing is minted"))
    })
    .await;
    first.time.advance(second.time.wall().since(first.time.wall()));
    assert_harmless(&first, &second, &granted).await;
}

#[tokio::test]
async fn a_backup_that_was_copied_over_its_store_kills_nothing_and_says_what_to_do() {
    let mut world = World::new().await;
    let (_agent, _task, granted) = watched_lease(&world).await;
    until_claimed(&world.orders).await;
    back_up(&world, "copy.db").await.unwrap();
    until_next_term(&world, &world.orders).await;
    world.stop().await;
    std::fs::copy(world.path("copy.db"), world.path("store/leases.db")).unwrap();
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(world.path(&format!("store/leases.db{end}")));
    }
    world.start(&Setup::default()).await.unwrap();
    world.pass(3600);
    let admin = world.admin().await;
    until_stuck(&admin, &granted.lease.clone().unwrap().id, "leasehold restore").await;
    assert!(world.orders.accounts().contains_key(&login(&granted).0));
}

/// The store that `restore` kept aside, started again beside the one that took its place.
#[tokio::test]
async fn a_store_beside_a_later_incarnation_kills_nothing_before_it_has_the_target_again() {
    let mut first = World::new().await;
    let (_agent, _task, granted) = watched_lease(&first).await;
    let mine = until_claimed(&first.orders).await;
    let lease = granted.lease.clone().unwrap().id;
    back_up(&first, "copy.db").await.unwrap();
    first.stop().await;
    let aside = put_back(&first, "copy.db", true).await.unwrap().aside.unwrap();
    first.start(&Setup::default()).await.unwrap();
    eventually("the later one has it", || async {
        owner(&first.orders).await.is_some_and(|claim| claim.incarnation == 2)
    })
    .await;
    let mut second = beside(&first).await;
    copy_key(&first, &second);
    move_store(&aside, &second);
    second.start(&Setup::default()).await.unwrap();
    second.pass(3600);
    let admin = second.admin().await;
    until_stuck(&admin, &lease, "incarnation 2").await;
    let told = needs(&admin).await;
    assert!(told.iter().any(|line| line.contains("orders: nothing is minted")), "{told:?}");
    let (user, password) = login(&granted);
    assert!(first.orders.accepts(&user, &password));
    let mut agent = first.agent("triage").await;
    assert_eq!(agent.look(&lease).await.state(), v1::LeaseState::Active);
    first.stop().await;
    set_claim(&first.orders, &mine).await;
    admin.until_lease(&lease, v1::LeaseState::Revoked).await;
    assert!(!first.orders.accounts().contains_key(&user), "what waited goes on by itself");
}

/// The key and the config, and a store that was made anew.
#[tokio::test]
async fn a_second_store_with_the_same_key_touches_nothing_before_an_operator_says_that_the_first_is_gone() {
    let mut first = World::new().await;
    let mut agent = first.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let granted = agent.lease(&task, READ).await.unwrap();
    let theirs = until_claimed(&first.orders).await;
    let mut second = beside(&first).await;
    copy_key(&first, &second);
    second.start(&Setup::default()).await.unwrap();
    let admin = second.admin().await;
    for target in [&second.orders, &second.stock] {
        until_claimed(target).await;
    }
    first.pass(120);
    second.pass(120);
    let swept = sweep(&admin, "orders", false, 0).await;
    assert_eq!((swept.verdict(), swept.ours, swept.found), (v1::SweepVerdict::NotOurs, 1, 1));
    let mut agent = second.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let refused = agent.lease(&task, READ).await.unwrap_err();
    assert_eq!(reason(&refused), "TARGET_REFUSED", "{refused}");
    assert!(first.orders.accounts().contains_key(&login(&granted).0));
    assert_eq!(owner(&first.orders).await.unwrap().installation, theirs.installation);
    first.stop().await;
    let theirs = owner(&first.orders).await.unwrap();
    let claim = v1::SweepTargetRequest { target: "orders".into(), claim: true, ..Default::default() };
    assert_eq!(sweep_as(&admin, claim).await.verdict(), v1::SweepVerdict::Swept);
    eventually("what nobody remembers is gone", || async { World::principals(&second.orders) == 0 }).await;
    let now = owner(&first.orders).await.unwrap();
    assert_eq!(now.installation, theirs.installation);
    assert!(now.term > theirs.term);
    agent.lease(&task, READ).await.unwrap();
}

/// A world whose target was exchanged for an empty one, as by a change of DNS, and the one that agents still reach.
async fn led_elsewhere(first: &mut World) -> Arc<MemoryTarget> {
    until_next_term(first, &first.orders).await;
    first.stop().await;
    let other = World::prepare(&Setup::default()).await;
    other.time.advance(first.time.wall().since(other.time.wall()));
    let old = std::mem::replace(&mut first.orders, other.orders.clone());
    first.start(&Setup::default()).await.unwrap();
    old
}

#[tokio::test]
async fn a_server_without_our_claim_proves_no_death_and_is_given_nothing() {
    let mut world = World::new().await;
    let (_agent, _task, granted) = watched_lease(&world).await;
    let (user, password) = login(&granted);
    let lease = granted.lease.unwrap().id;
    let old = led_elsewhere(&mut world).await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let refused = agent.lease(&task, READ).await.unwrap_err();
    assert_eq!(reason(&refused), "TARGET_REFUSED", "{refused}");
    assert_eq!(owner(&world.orders).await, None, "and it is not claimed");
    let admin = world.admin().await;
    let swept = sweep(&admin, "orders", false, 0).await;
    assert_eq!((swept.verdict(), swept.missing.len()), (v1::SweepVerdict::ClaimGone, 1));
    let told = needs(&admin).await;
    assert!(told.iter().any(|line| line.contains("targets sweep orders --claim")), "{told:?}");
    assert_eq!(agent.look(&lease).await.state(), v1::LeaseState::Active, "nobody says that it is dead");
    let release = v1::ReleaseLeaseRequest { lease: lease.clone(), wait: None };
    agent.leases.release_lease(release).await.unwrap();
    until_stuck(&admin, &lease, "proves nothing").await;
    assert!(old.accounts().contains_key(&user), "it lives on the server that agents reach");
    world.stop().await;
    world.orders = old;
    world.start(&Setup::default()).await.unwrap();
    let admin = world.admin().await;
    admin.until_lease(&lease, v1::LeaseState::Revoked).await;
    assert!(!world.orders.accepts(&user, &password), "and dies there");
}

#[tokio::test]
async fn an_operator_says_that_a_server_without_our_claim_is_the_right_one() {
    let mut world = World::new().await;
    let (_agent, _task, granted) = watched_lease(&world).await;
    led_elsewhere(&mut world).await;
    let lease = granted.lease.unwrap().id;
    let release = v1::ReleaseLeaseRequest { lease: lease.clone(), wait: None };
    world.agent("triage").await.leases.release_lease(release).await.unwrap();
    let admin = world.admin().await;
    until_stuck(&admin, &lease, "proves nothing").await;
    let (code, told) = world.command(&["targets", "sweep", "orders"]).await;
    assert!(code == Some(1) && told.contains("--claim"), "{told}");
    let (code, told) = world.command(&["targets", "sweep", "orders", "--claim"]).await;
    assert!(code == Some(0), "{told}");
    assert!(owner(&world.orders).await.is_some());
    admin.until_lease(&lease, v1::LeaseState::Revoked).await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    agent.lease(&task, READ).await.unwrap();
}

/// As after going back to an earlier moment of the server: it holds what agents no longer reach.
#[tokio::test]
async fn a_server_that_was_set_back_proves_no_death() {
    let world = World::new().await;
    let (_agent, _task, granted) = watched_lease(&world).await;
    let first = until_claimed(&world.orders).await;
    until_next_term(&world, &world.orders).await;
    until_next_term(&world, &world.orders).await;
    set_claim(&world.orders, &first).await;
    let admin = world.admin().await;
    eventually("it is seen", || async {
        world.pass(1);
        needs(&admin).await.iter().any(|line| line.contains("orders: nothing is minted"))
    })
    .await;
    let lease = granted.lease.clone().unwrap().id;
    let release = v1::ReleaseLeaseRequest { lease: lease.clone(), wait: None };
    world.agent("triage").await.leases.release_lease(release).await.unwrap();
    until_stuck(&admin, &lease, "proves nothing").await;
    assert!(!world.orders.accounts().contains_key(&login(&granted).0), "it is killed there all the same");
    let (code, told) = world.command(&["targets", "sweep", "orders", "--claim"]).await;
    assert!(code == Some(0), "{told}");
    admin.until_lease(&lease, v1::LeaseState::Revoked).await;
}

/// Two databases of one server: what claims it is one comment.
#[tokio::test]
async fn targets_on_one_server_share_its_claim() {
    let mut world = World::prepare(&Setup::default()).await;
    world.stock = world.orders.clone();
    world.start(&Setup::default()).await.unwrap();
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ, "stock.read@stock"]).await.unwrap();
    for _ in 0..3 {
        until_next_term(&world, &world.orders).await;
        world.pass(6);
        for pair in [READ, "stock.read@stock"] {
            let lease = agent.lease(&task, pair).await.unwrap().lease.unwrap().id;
            let release = v1::ReleaseLeaseRequest { lease: lease.clone(), wait: None };
            agent.leases.release_lease(release).await.unwrap();
            world.admin().await.until_lease(&lease, v1::LeaseState::Revoked).await;
        }
    }
    let admin = world.admin().await;
    let told = needs(&admin).await;
    assert!(!told.iter().any(|line| line.contains("nothing is minted")), "{told:?}");
}

/// Two targets were on one server, and one of them moves to another.
#[tokio::test]
async fn a_target_that_moves_with_an_operator_s_word_leaves_the_other_as_it_was() {
    let mut world = World::prepare(&Setup::default()).await;
    world.stock = world.orders.clone();
    world.start(&Setup::default()).await.unwrap();
    until_next_term(&world, &world.orders).await;
    led_elsewhere(&mut world).await;
    let (code, told) = world.command(&["targets", "sweep", "orders", "--claim"]).await;
    assert!(code == Some(0), "{told}");
    let (orders, stock) = (owner(&world.orders).await.unwrap(), owner(&world.stock).await.unwrap());
    assert_ne!(orders.place, stock.place);
    for target in [&world.orders, &world.stock] {
        until_next_term(&world, target).await;
    }
    let agent = world.agent("triage").await;
    let task = agent.clone().open(&[READ, "stock.read@stock"]).await.unwrap();
    for pair in [READ, "stock.read@stock"] {
        eventually(&format!("{pair} is had"), || {
            // The broker looks at a clock every half minute.
            world.pass(1);
            set_clock(&world, &world.orders);
            let (mut agent, task) = (agent.clone(), task.clone());
            async move { agent.lease(&task, pair).await.is_ok() }
        })
        .await;
    }
}

/// The clock of a target that another world made.
fn set_clock(world: &World, target: &MemoryTarget) {
    target.set_clock_offset(0);
    let behind = world.time.wall().since(target.now());
    target.set_clock_offset(i64::try_from(behind.0).unwrap());
}

/// As where a copy of the server was given to another installation.
#[tokio::test]
async fn a_server_that_another_installation_has_is_not_the_one_that_was_ours() {
    let world = World::new().await;
    let (_agent, task, granted) = watched_lease(&world).await;
    let mine = until_claimed(&world.orders).await;
    set_claim(&world.orders, &Claim { installation: "staging".to_owned(), ..mine }).await;
    assert!(world.orders.remove(&login(&granted).0));
    let admin = world.admin().await;
    eventually("it is seen", || async {
        world.pass(1);
        needs(&admin).await.iter().any(|line| line.contains("orders: nothing is minted"))
    })
    .await;
    let mut agent = world.agent("triage").await;
    assert_eq!(reason(&agent.lease(&task, READ).await.unwrap_err()), "TARGET_REFUSED");
    let lease = granted.lease.clone().unwrap().id;
    let release = v1::ReleaseLeaseRequest { lease: lease.clone(), wait: None };
    agent.leases.release_lease(release).await.unwrap();
    until_stuck(&admin, &lease, "proves nothing").await;
    let (code, told) = world.command(&["targets", "sweep", "orders", "--claim"]).await;
    assert!(code != Some(0) && told.contains("staging"), "{told}");
    assert_eq!(owner(&world.orders).await.unwrap().installation, "staging", "nobody's claim is taken away");
    let (code, _) = world.command(&["targets", "check", "orders"]).await;
    assert_ne!(code, Some(0));
}

/// An address that leads to another server of the same installation, whose terms the store knows.
#[tokio::test]
async fn a_server_of_another_target_is_not_believed() {
    let mut world = World::new().await;
    let (_agent, _task, granted) = watched_lease(&world).await;
    for target in [&world.orders, &world.stock] {
        until_claimed(target).await;
    }
    until_next_term(&world, &world.orders).await;
    world.stop().await;
    let (orders, stock) = (world.orders.clone(), world.stock.clone());
    (world.orders, world.stock) = (stock, orders.clone());
    world.start(&Setup::default()).await.unwrap();
    let admin = world.admin().await;
    let lease = granted.lease.clone().unwrap().id;
    let release = v1::ReleaseLeaseRequest { lease: lease.clone(), wait: None };
    world.agent("triage").await.leases.release_lease(release).await.unwrap();
    until_stuck(&admin, &lease, "proves nothing").await;
    assert!(orders.accounts().contains_key(&login(&granted).0));
}

#[tokio::test]
async fn more_missing_principals_than_the_bound_are_called_dead_by_an_operator_alone() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let mut leases = Vec::new();
    for _ in 0..11 {
        let lease = agent.lease(&task, READ).await.unwrap().lease.unwrap();
        assert!(world.orders.remove(&lease.principal));
        leases.push(lease.id);
    }
    let admin = world.admin().await;
    let swept = sweep(&admin, "orders", false, 0).await;
    assert_eq!(
        (swept.verdict(), swept.missing.len(), swept.missing_bound),
        (v1::SweepVerdict::Halted, 11, 10)
    );
    for lease in &leases {
        assert_eq!(agent.look(lease).await.state(), v1::LeaseState::Active);
    }
    let told = needs(&admin).await;
    assert!(told.iter().any(|line| line.contains("11 leases are gone")), "{told:?}");
    let (_, text) = world.command(&["targets", "sweep", "orders", "--dry-run"]).await;
    assert!(text.contains("principals gone"), "{text}");
    let (code, text) = world.command(&["targets", "sweep", "orders", "--missing-at-most", "11"]).await;
    assert!(code == Some(0), "{text}");
    for lease in &leases {
        let dead = admin.until_lease(lease, v1::LeaseState::Revoked).await;
        assert_eq!(dead.cause(), v1::Cause::PrincipalMissing);
    }
}
