//! What operators and hosts do to a broker while leases live: targets left out, passwords changed, roles dropped or
//! locked in where the broker cannot go, clocks put an hour on or back. docs/guarantees.md lists all of them.

use leasehold_proto::v1;
use tokio_postgres::Client as Session;
use tokio_postgres::error::SqlState;
use tonic::Code;

use crate::child::{PAIR, Rig};
use crate::orphans::sweep;
use crate::site::{ADMIN, GROUP, Site, login as log_in, login_config};
use crate::world::{Client, PATIENCE, Setup, World, lease_request, login, refused, seconds};

const HOUR: i64 = 3_600_000;
const READ: &str = "orders.read@orders";
const STOCK: &str = "stock.read@stock";

/// A broker in this process, whose clock can be moved, on the shared PostgreSQL; and an agent's task.
async fn on_postgres(site: &Site, change: impl FnOnce(Setup) -> Setup) -> (Rig, Client, v1::Task) {
    let mut rig = Rig::new(site, site.port()).await;
    rig.setup = change(rig.setup);
    rig.world.start(&rig.setup).await.unwrap_or_else(|error| panic!("{error}"));
    let mut agent = rig.world.agent("triage").await;
    let task = agent.open(&[PAIR]).await.unwrap();
    (rig, agent, task)
}

async fn give_back(agent: &mut Client, lease: &str) {
    let request = v1::ReleaseLeaseRequest { lease: lease.to_owned(), wait: None };
    agent.leases.release_lease(request).await.unwrap();
}

/// Waits until a lease that is being revoked says so of its last try.
async fn until_told(agent: &Client, lease: &str, words: &str) -> v1::Lease {
    let (mut agent, until) = (agent.clone(), tokio::time::Instant::now() + PATIENCE);
    loop {
        let seen = agent.look(lease).await;
        if seen.last_error.contains(words) {
            return seen;
        }
        assert!(tokio::time::Instant::now() < until, "it does not say {words}: {seen:?}");
        tokio::task::yield_now().await;
    }
}

/// Whether a session goes on, whatever it may still do.
async fn goes_on(session: &Session) -> bool {
    session.simple_query("SELECT 1").await.is_ok()
}

/// Nobody can revoke what is in a target that has no name any more: it is shown, harms nobody else, and dies as soon as
/// its name is back.
#[tokio::test]
async fn what_lives_in_a_target_that_was_left_out_by_force_dies_when_it_is_back() {
    let mut world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ, STOCK]).await.unwrap();
    let long = v1::RequestLeaseRequest { ttl: seconds(900), ..lease_request(&task, STOCK) };
    let left = agent.leases.request_lease(long).await.unwrap().into_inner();
    let (user, password) = login(&left);
    let (left, other) = (left.lease.unwrap().id, agent.lease(&task, READ).await.unwrap().lease.unwrap().id);
    let renamed = Setup::default()
        .replace("[targets.stock]", "[targets.renamed]")
        .replace("targets = [\"stock\"]", "targets = [\"renamed\"]");
    world.restart(&Setup { force: true, ..renamed }).await;
    world.pass(601);
    let (agent, mut admin) = (world.agent("triage").await, world.admin().await);
    agent.until_lease(&other, v1::LeaseState::Revoked).await;
    assert!(world.stock.accepts(&user, &password), "nobody reaches it");
    let screen = admin.admin.status(v1::StatusRequest {}).await.unwrap().into_inner();
    let told =
        screen.needs_person.iter().any(|line| line.contains("stock: it is not in the config any more"));
    assert!(told, "{:?}", screen.needs_person);
    assert_ne!(admin.look(&left).await.state(), v1::LeaseState::Revoked, "nobody says that it is dead");
    world.restart(&Setup::default()).await;
    let agent = world.agent("triage").await;
    agent.until_lease(&left, v1::LeaseState::Revoked).await;
    assert!(!world.stock.accepts(&user, &password));
}

/// The password of the broker's own login is changed in the target first and in its file later: what has to die
/// meanwhile waits, says why, and dies without a restart.
#[tokio::test]
async fn a_password_of_the_broker_that_changes_while_leases_live_is_taken_from_its_file() {
    let site = Site::shared();
    let root = site.root().await;
    let version: String = root.query_one("SHOW server_version_num", &[]).await.unwrap().get(0);
    let options = if version.as_str() >= "160000" { "WITH ADMIN TRUE, INHERIT FALSE, SET FALSE" } else { "" };
    root.batch_execute(&format!(
        "CREATE ROLE changing LOGIN CREATEROLE PASSWORD 'old'; GRANT {GROUP} TO changing {options}; \
         GRANT pg_signal_backend, pg_read_all_stats TO changing"
    ))
    .await
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "old").unwrap();
    let (mut rig, mut agent, task) = on_postgres(site, |setup| {
        setup
            .replace(&format!("user = \"{ADMIN}\""), "user = \"changing\"")
            .replace(site.password_file().to_str().unwrap(), file.to_str().unwrap())
    })
    .await;
    let granted = agent.lease(&task, PAIR).await.unwrap();
    let config = login_config(&granted.credential.unwrap());
    let (lease, session) = (granted.lease.unwrap().id, log_in(&config).await.unwrap());
    let change = "ALTER ROLE changing PASSWORD 'new'; \
        SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'changing'";
    root.batch_execute(change).await.unwrap();
    give_back(&mut agent, &lease).await;
    let waiting = until_told(&agent, &lease, "refused the broker's login as `changing`").await;
    assert_eq!(waiting.state(), v1::LeaseState::Revoking);
    assert!(goes_on(&session).await, "nobody reached it, and nobody says so");
    std::fs::write(&file, "new\n").unwrap();
    rig.world.pass(61);
    agent.until_lease(&lease, v1::LeaseState::Revoked).await;
    assert!(!goes_on(&session).await, "a session outlived its lease");
    assert_eq!(site.roles(&rig.mark).await, [] as [String; 0]);
    rig.journal().await;
    rig.world.stop().await;
}

/// It is disabled and cut all the same; the record names the database, and another lease of the same batch is dead.
#[tokio::test]
async fn a_role_that_owns_a_table_where_the_broker_cannot_go_is_cut_and_named_until_it_can_be_dropped() {
    let site = Site::shared();
    let root = site.root().await;
    root.batch_execute("CREATE DATABASE walled").await.unwrap();
    let inside = site.root_in("walled").await;
    inside.batch_execute(&format!("GRANT CREATE ON SCHEMA public TO {GROUP}")).await.unwrap();
    let (mut rig, mut agent, task) = on_postgres(site, |setup| setup).await;
    let (owner, other) = (agent.lease(&task, PAIR).await.unwrap(), agent.lease(&task, PAIR).await.unwrap());
    let mut config = login_config(&owner.credential.unwrap());
    let session = log_in(config.dbname("walled")).await.unwrap();
    session.batch_execute("CREATE TABLE far(n int)").await.unwrap();
    session.batch_execute("BEGIN; LOCK TABLE far").await.unwrap();
    root.batch_execute("REVOKE CONNECT ON DATABASE walled FROM PUBLIC").await.unwrap();
    let owner = owner.lease.unwrap().id;
    let ended = v1::CompleteTaskRequest { task: task.id.clone(), wait: None };
    agent.tasks.complete_task(ended).await.unwrap();
    let stuck = until_told(&agent, &owner, "`walled`").await;
    assert_eq!((stuck.state(), stuck.reached()), (v1::LeaseState::Revoking, v1::Reached::Cut));
    assert_eq!(stuck.sessions(), v1::Sessions::None);
    agent.until_lease(&other.lease.unwrap().id, v1::LeaseState::Revoked).await;
    assert!(!goes_on(&session).await, "a session outlived its lease");
    let refused = log_in(config.dbname("postgres")).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION), "{refused}");
    inside.batch_execute("DROP TABLE far").await.unwrap();
    rig.world.pass(61);
    agent.until_lease(&owner, v1::LeaseState::Revoked).await;
    assert_eq!(site.roles(&rig.mark).await, [] as [String; 0]);
    rig.world.stop().await;
}

/// A dropped role leaves its sessions open: they are cut by the OID, whether the lease is given back or a sweep finds
/// that its role is gone.
#[tokio::test]
async fn a_role_that_somebody_dropped_by_hand_takes_its_sessions_with_it() {
    let site = Site::shared();
    let root = site.root().await;
    let (mut rig, mut agent, task) = on_postgres(site, |setup| setup).await;
    let mut leases = Vec::new();
    for _ in 0..3 {
        let granted = agent.lease(&task, PAIR).await.unwrap();
        let session = log_in(&login_config(&granted.credential.unwrap())).await.unwrap();
        leases.push((granted.lease.unwrap(), session));
    }
    for (lease, session) in &leases[..2] {
        root.batch_execute(&format!("DROP ROLE {}", lease.principal)).await.unwrap();
        assert!(goes_on(session).await, "a dropped role cuts no session by itself");
    }
    agent.release(&leases[0].0.id).await.unwrap();
    let given_back = agent.until_lease(&leases[0].0.id, v1::LeaseState::Revoked).await;
    assert_eq!(given_back.cause(), v1::Cause::Released);
    let swept = sweep(&rig.world.admin().await, "db", false, 0).await;
    assert_eq!(swept.missing, [leases[1].0.id.as_str()], "{swept:?}");
    let closed = agent.until_lease(&leases[1].0.id, v1::LeaseState::Revoked).await;
    assert_eq!(closed.cause(), v1::Cause::PrincipalMissing);
    for (lease, session) in &leases[..2] {
        assert!(!goes_on(session).await, "a session of {} outlived its lease", lease.id);
    }
    assert!(goes_on(&leases[2].1).await, "nobody else is touched");
    rig.journal().await;
    rig.world.stop().await;
}

/// A jump forward is taken as it is: leases end early, never late, and issuing goes on once the target agrees.
#[tokio::test]
async fn an_hour_forward_ends_leases_early_and_an_hour_back_again_stops_issuing() {
    let world = World::new().await;
    let (mut agent, mut admin) = (world.agent("triage").await, world.admin().await);
    let task = agent.open(&[READ]).await.unwrap();
    let granted = agent.lease(&task, READ).await.unwrap();
    let (user, password) = login(&granted);
    // The broker's clock alone: the target's stays where it was.
    world.time.step_wall(HOUR);
    world.orders.set_clock_offset(-HOUR);
    agent.until_lease(&granted.lease.unwrap().id, v1::LeaseState::Revoked).await;
    assert!(!world.orders.accepts(&user, &password), "early, and not late");
    world.pass(31);
    let task = agent.open(&[READ]).await.unwrap();
    assert_eq!(refused(agent.lease(&task, READ).await), (Code::Unavailable, "CLOCK".into()));
    world.orders.set_clock_offset(0);
    world.pass(31);
    agent.lease(&task, READ).await.unwrap();
    world.time.step_wall(-HOUR);
    assert_eq!(refused(agent.lease(&task, READ).await), (Code::Unavailable, "CLOCK".into()));
    let confirm = v1::ConfirmClockRequest { reason: "ntp was wrong".into() };
    admin.admin.confirm_clock(confirm).await.unwrap();
    agent.lease(&task, READ).await.unwrap();
}

/// The high-water mark is in the store, so that a clock put back while no broker ran is seen.
#[tokio::test]
async fn an_hour_back_between_two_runs_is_seen_at_the_start() {
    let mut world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    agent.lease(&task, READ).await.unwrap();
    world.running().broker.sweep_once(0).await;
    world.stop().await;
    world.time.step_wall(-HOUR);
    world.start(&Setup::default()).await.unwrap();
    let mut agent = world.agent("triage").await;
    assert_eq!(refused(agent.lease(&task, READ).await), (Code::Unavailable, "CLOCK".into()));
    agent.complete(&task).await.unwrap();
    assert_eq!(World::principals(&world.orders), 0, "revoking goes on");
}
