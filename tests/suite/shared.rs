//! Several brokers on one store.

use std::os::unix::fs::PermissionsExt as _;

use leasehold::config::Trust;
use leasehold::server::{Restore, Running, StartError, backup, check, restore};
use leasehold_memory::{Call, Fault, Gate, Rule};
use leasehold_proto::v1;
use leasehold_proto::v1::watch_task_response::Event;
use rustix::process::Signal;
use tokio_postgres::Client as Session;
use tonic::Code;

use crate::child::{PAIR, Rig};
use crate::drills::{begin, drill, has_passed};
use crate::orphans::sweep;
use crate::restart::renamed;
use crate::site::Site;
use crate::world::{
    PATIENCE, Setup, World, by_heartbeat, eventually, lease_request, open_request, refused, seconds,
};

pub(crate) const SQLITE: &str = "sqlite = \"store/leases.db\"";
pub(crate) const POSTGRES: &str = "postgres = { url_file = \"store.url\", tls = \"disable\" }";

/// With the store in PostgreSQL, as the first of several brokers.
pub(crate) fn first(setup: Setup) -> Setup {
    setup.replace(SQLITE, POSTGRES)
}

/// With the store in PostgreSQL, as the second.
pub(crate) fn second(setup: Setup) -> Setup {
    first(setup).replace("name = \"suite\"", "name = \"suite-2\"").replace("unix:admin/", "unix:admin-2/")
}

pub(crate) fn write_url(world: &World, url: &str) {
    let file = world.path("store.url");
    std::fs::write(&file, url).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Two brokers on one store and one target, and a superuser in the store.
struct Pair {
    world: World,
    a: Running,
    b: Running,
    root: Session,
}

impl Pair {
    async fn new() -> Self {
        let world = World::prepare(&Setup::default()).await;
        let (name, url) = Site::shared().store().await;
        write_url(&world, &url);
        let a = world.start_another(&first(Setup::default())).await.unwrap();
        let b = world.start_another(&second(Setup::default())).await.unwrap();
        Self { world, a, b, root: Site::shared().root_in(&name).await }
    }

    async fn count(&self, query: &str) -> i64 {
        self.root.query_one(query, &[]).await.unwrap().get(0)
    }
}

#[tokio::test]
async fn any_broker_serves_any_call() {
    let pair = Pair::new().await;
    let (mut a, mut b) =
        (pair.world.agent_at("triage", &pair.a).await, pair.world.agent_at("triage", &pair.b).await);
    let task = a.open(&["orders.read@orders"]).await.unwrap();
    let request = lease_request(&task, "orders.read@orders");
    let lease = b.leases.request_lease(request.clone()).await.unwrap().into_inner().lease.unwrap();
    let spent = a.leases.request_lease(request).await;
    assert_eq!(refused(spent), (Code::FailedPrecondition, "ATTEMPT_SPENT".into()));
    let renewed = a.renew(&lease.id, 120).await.unwrap().lease.unwrap();
    assert_eq!(b.look(&lease.id).await.expires_at, renewed.expires_at);
    assert_eq!(b.complete(&task).await.unwrap().pending, [] as [String; 0]);
    assert_eq!(World::principals(&pair.world.orders), 0);
    a.until_task(&task, v1::TaskState::Ended).await;
    pair.a.stop().await;
    pair.b.stop().await;
}

#[tokio::test]
async fn a_watch_on_one_broker_sees_a_revoke_on_the_other() {
    let pair = Pair::new().await;
    let mut a = pair.world.agent_at("triage", &pair.a).await;
    let mut revoker = pair.world.operator_at("revoker", &pair.b).await;
    let task = a.open(&["orders.read@orders"]).await.unwrap();
    let lease = a.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    let watch = v1::WatchTaskRequest { task: task.id.clone() };
    let mut watched = a.tasks.watch_task(watch).await.unwrap().into_inner();
    let kind = v1::selector::Kind::Agent(task.agent.clone());
    let selector = Some(v1::Selector { kind: Some(kind) });
    let revoke = v1::RevokeRequest { selector, reason: "drill".into(), ..v1::RevokeRequest::default() };
    revoker.revocations.revoke(revoke).await.unwrap().into_inner().message().await.unwrap().unwrap();
    loop {
        let told = tokio::time::timeout(PATIENCE, watched.message()).await.expect("it is told");
        let Some(Event::LeaseRevoked(told)) = told.unwrap().unwrap().event else { continue };
        let told = told.lease.unwrap();
        assert_eq!(told.id, lease.id);
        if [v1::LeaseState::Revoking, v1::LeaseState::Revoked].contains(&told.state()) {
            break;
        }
    }
    let frozen = refused(a.lease(&task, "orders.read@orders").await);
    assert_eq!(frozen.1, "FROZEN", "the barrier stands before every broker");
    a.until_lease(&lease.id, v1::LeaseState::Revoked).await;
    pair.a.stop().await;
    pair.b.stop().await;
}

#[tokio::test]
async fn brokers_drill_a_target_one_at_a_time() {
    let pair = Pair::new().await;
    let (mut a, mut b) =
        (pair.world.operator_at("admin", &pair.a).await, pair.world.operator_at("admin", &pair.b).await);
    let gate = Gate::default();
    pair.world.orders.faults.add(Rule::once(Call::Issue, Fault::Hold(gate.clone())));
    let mut first = begin(&mut a, "orders").await.unwrap();
    gate.arrival().await;
    assert_eq!(refused(drill(&mut b, "orders").await), (Code::Aborted, "CONTENDED".into()));
    gate.open();
    while first.message().await.unwrap().is_some() {}
    let next = drill(&mut b, "orders").await.unwrap();
    has_passed(&next);
    let of_drills = "SELECT count(*) FROM leasehold.tasks WHERE agent = 'leasehold/drill'";
    assert_eq!(pair.count(of_drills).await, 2);
    pair.a.stop().await;
    pair.b.stop().await;
}

/// It takes no name in the store, and fences nobody.
#[tokio::test]
async fn check_looks_into_the_store_beside_its_brokers() {
    let pair = Pair::new().await;
    let mut a = pair.world.agent_at("triage", &pair.a).await;
    let task = a.open(&["stock.read@stock"]).await.unwrap();
    a.lease(&task, "stock.read@stock").await.unwrap();
    let brokers = "SELECT sum(fence)::int8 FROM leasehold.brokers";
    let before = pair.count(brokers).await;
    let checked = check(&pair.world.write_config(&first(renamed())), Trust::Dev, true).await;
    let [problem] = &checked.problems[..] else { panic!("{checked:?}") };
    assert!(problem.starts_with("target `stock` is not in the config, and leases live in it"), "{problem}");
    assert_eq!(pair.count(brokers).await, before);
    let (name, url) = Site::shared().store().await;
    write_url(&pair.world, &url);
    let checked = check(&pair.world.write_config(&first(renamed())), Trust::Dev, true).await;
    assert_eq!(checked.problems, [] as [String; 0]);
    let empty = Site::shared().root_in(&name).await;
    let made = empty.query_one("SELECT to_regnamespace('leasehold') IS NOT NULL", &[]).await.unwrap();
    assert!(!made.get::<_, bool>(0), "it makes no store");
    pair.a.stop().await;
    pair.b.stop().await;
}

/// RULES R-11: each sees the whole target, so that each keeps to the bound; revoking twice harms nobody.
#[tokio::test]
async fn brokers_that_sweep_at_once_revoke_an_orphan_and_nothing_else() {
    let pair = Pair::new().await;
    let mut a = pair.world.agent_at("triage", &pair.a).await;
    let task = a.open(&["orders.read@orders"]).await.unwrap();
    let lost = a.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    let kept = a.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    pair.root.execute("DELETE FROM leasehold.leases WHERE id = $1", &[&lost.id]).await.unwrap();
    pair.world.pass(61);
    let (first, second) =
        (pair.world.operator_at("admin", &pair.a).await, pair.world.operator_at("admin", &pair.b).await);
    futures::join!(sweep(&first, "orders", false, 0), sweep(&second, "orders", false, 0));
    let there = |name: &str| pair.world.orders.accounts().contains_key(name);
    eventually("the orphan is gone", || async { !there(&lost.principal) }).await;
    let alive = "SELECT count(*) FROM leasehold.set_aside WHERE gone_at IS NULL";
    eventually("its death is on record", || async { pair.count(alive).await == 0 }).await;
    assert_eq!(pair.count("SELECT count(*) FROM leasehold.set_aside").await, 1);
    assert!(there(&kept.principal));
    assert_eq!(a.look(&kept.id).await.state(), v1::LeaseState::Active);
    pair.a.stop().await;
    pair.b.stop().await;
}

/// Law 9, over brokers.
#[tokio::test]
async fn a_row_that_cannot_be_read_is_killed_by_one_of_the_brokers() {
    let pair = Pair::new().await;
    let mut a = pair.world.agent_at("triage", &pair.a).await;
    let task = a.open(&["orders.read@orders"]).await.unwrap();
    let lease = a.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    let spoil = "UPDATE leasehold.leases SET body = '{' WHERE id = $1";
    pair.root.execute(spoil, &[&lease.id]).await.unwrap();
    pair.world.pass(3600);
    let there = || pair.world.orders.accounts().contains_key(&lease.principal);
    eventually("its principal is gone", || async { !there() }).await;
    let gone = "SELECT count(*) FROM leasehold.set_aside WHERE kind = 'lease' AND bytes = '{' AND gone_at IS NOT NULL";
    eventually("its bytes are kept", || async { pair.count(gone).await == 1 }).await;
    assert_eq!(pair.count("SELECT count(*) FROM leasehold.leases").await, 0);
    pair.a.stop().await;
    pair.b.stop().await;
}

/// A server that brokers share is copied by its own tools.
#[tokio::test]
async fn backup_and_restore_refuse_a_shared_store_and_say_what_to_use() {
    let pair = Pair::new().await;
    let (config, time) = (pair.world.path("leasehold.toml"), pair.world.time.clone());
    let refused = backup(config.clone(), Trust::Dev, pair.world.path("copy.db"), time.clone()).await;
    let told = refused.unwrap_err().to_string();
    assert!(told.contains("PostgreSQL: use pg_dump"), "{told}");
    let how = Restore { from: pair.world.path("copy.db"), replace: true, incarnation: None };
    let told = restore(config, Trust::Dev, how, time).await.unwrap_err().to_string();
    assert!(told.contains("PostgreSQL: use pg_restore"), "{told}");
    pair.a.stop().await;
    pair.b.stop().await;
}

/// A wait on one broker ends by what another one does.
#[tokio::test]
async fn a_wait_ends_by_what_the_other_broker_does() {
    let pair = Pair::new().await;
    let (mut a, mut b) =
        (pair.world.agent_at("triage", &pair.a).await, pair.world.agent_at("triage", &pair.b).await);
    let task = a.open(&["orders.read@orders"]).await.unwrap();
    let lease = a.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    let (first, second) = futures::join!(a.release(&lease.id), b.release(&lease.id));
    for released in [first, second] {
        let released = released.unwrap();
        assert_eq!(released.leases[0].state(), v1::LeaseState::Revoked, "{released:?}");
    }
    pair.a.stop().await;
    pair.b.stop().await;
}

/// REQUIREMENTS TASK-3, over brokers: only when none of them hears anything any more.
#[tokio::test]
async fn a_task_is_lost_when_no_broker_hears_of_it() {
    let pair = Pair::new().await;
    let (mut a, mut b) =
        (pair.world.agent_at("triage", &pair.a).await, pair.world.agent_at("triage", &pair.b).await);
    let mut open = open_request(&["orders.read@orders"]);
    open.liveness = by_heartbeat(30);
    let task = a.open_as(open).await.unwrap();
    b.until_task(&task, v1::TaskState::Open).await;
    pair.world.live_through(&pair.b.broker, 20).await;
    a.tasks.heartbeat(v1::HeartbeatRequest { task: task.id.clone(), ..Default::default() }).await.unwrap();
    let told = "SELECT count(*) FROM leasehold.heard WHERE broker = 'suite' AND ages[1] < 20000";
    eventually("the other broker is told", || async { pair.count(told).await == 1 }).await;
    pair.world.live_through(&pair.b.broker, 15).await;
    assert_eq!(b.task(&task).await.state(), v1::TaskState::Open, "heard by the other broker");
    pair.a.stop().await;
    pair.root.batch_execute("UPDATE leasehold.heard SET at = at - interval '40 s'").await.unwrap();
    pair.world.live_through(&pair.b.broker, 40).await;
    let ended = b.until_task(&task, v1::TaskState::Ended).await;
    assert_eq!(ended.cause(), v1::Cause::TaskLost);
    pair.b.stop().await;
}

/// RULES R-23.
#[tokio::test]
async fn time_in_which_the_others_cannot_be_asked_is_nobody_s_silence() {
    let pair = Pair::new().await;
    let mut b = pair.world.agent_at("triage", &pair.b).await;
    let mut open = open_request(&["orders.read@orders"]);
    open.liveness = by_heartbeat(30);
    let task = b.open_as(open).await.unwrap();
    pair.a.stop().await;
    pair.root.batch_execute("ALTER TABLE leasehold.heard RENAME TO unheard").await.unwrap();
    pair.world.live_through(&pair.b.broker, 60).await;
    assert_eq!(b.task(&task).await.state(), v1::TaskState::Open);
    pair.root.batch_execute("ALTER TABLE leasehold.unheard RENAME TO heard").await.unwrap();
    pair.b.broker.sweep_once(0).await;
    assert_eq!(b.task(&task).await.state(), v1::TaskState::Open, "it may have called another broker");
    pair.world.live_through(&pair.b.broker, 35).await;
    let ended = b.until_task(&task, v1::TaskState::Ended).await;
    assert_eq!(ended.cause(), v1::Cause::TaskLost);
    pair.b.stop().await;
}

/// More than all calls under way when a target goes away: what a broker cannot kill, another one may.
#[tokio::test]
async fn a_target_that_does_not_answer_leaves_no_lease_claimed_but_what_asks_it() {
    const MANY: usize = 500;
    let pair = Pair::new().await;
    let mut agent = pair.world.agent_at("triage", &pair.a).await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    for _ in 0..MANY {
        agent.lease(&task, "orders.read@orders").await.unwrap();
    }
    pair.world.orders.faults.add(Rule::always(Call::Revoke, Fault::down()));
    pair.world.pass(601);
    let dying = "SELECT count(*) FROM leasehold.leases WHERE state = 'revoking'";
    eventually("all are condemned", || async { pair.count(dying).await == MANY as i64 }).await;
    let claimed = "SELECT count(*) FROM leasehold.leases WHERE state = 'revoking' AND claimed_by IS NOT NULL";
    eventually("all but a few are free", || async { pair.count(claimed).await <= 6 }).await;
    pair.world.orders.faults.clear();
    eventually("all are dead", || async { World::principals(&pair.world.orders) == 0 }).await;
    pair.a.stop().await;
    pair.b.stop().await;
}

/// RULES R-9.
#[tokio::test]
async fn a_target_that_is_the_store_is_refused() {
    let site = Site::shared();
    let rig = Rig::new(site, site.port()).await;
    write_url(&rig.world, &format!("postgres://postgres:throwaway@localhost:{}/postgres", site.port()));
    let error = rig.world.start_another(&first(like(&rig))).await.map(drop).unwrap_err();
    assert!(matches!(&error, StartError::Config(_)), "{error}");
    assert!(error.to_string().contains("`targets.db.connect`: is the broker's own store"), "{error}");
    let made = "SELECT count(*) FROM pg_namespace WHERE nspname = 'leasehold'";
    assert_eq!(
        site.root().await.query_one(made, &[]).await.unwrap().get::<_, i64>(0),
        0,
        "nothing is written"
    );
}

/// Set up as the process will be.
fn like(rig: &Rig) -> Setup {
    Setup { config: rig.setup.config.clone(), policy: rig.setup.policy.clone(), ..Setup::default() }
}

/// A process on a store that another broker shares.
async fn rig(site: &Site) -> (Rig, Running, Session) {
    let mut rig = Rig::new(site, site.port()).await;
    let (name, url) = site.store().await;
    write_url(&rig.world, &url);
    let other =
        Setup { config: rig.setup.config.clone(), policy: rig.setup.policy.clone(), ..Setup::default() };
    rig.setup.config = rig.setup.config.replace(SQLITE, POSTGRES);
    let other = rig.world.start_another(&second(other)).await.unwrap();
    (rig, other, site.root_in(&name).await)
}

/// Killed between mint and record, while another broker runs: that one revokes, and the killed one's next process
/// goes on with its name and its chain.
#[cfg(feature = "fault-points")]
#[tokio::test]
async fn what_a_killed_broker_left_is_revoked_by_the_other() {
    let site = Site::shared();
    let (mut rig, other, _root) = rig(site).await;
    rig.start(&[("LEASEHOLD_FAULT_POINT", "Minted")]).await;
    let mut agent = rig.agent().await;
    let task = agent.open(&[PAIR]).await.unwrap();
    agent.lease(&task, PAIR).await.unwrap_err();
    rig.exit().await;
    assert_eq!(site.roles(&rig.mark).await.len(), 1);
    eventually("the role is gone", || async { site.roles(&rig.mark).await.is_empty() }).await;
    let mut elsewhere = rig.world.agent_at("triage", &other).await;
    let request = v1::ListLeasesRequest { task: task.id.clone(), ..v1::ListLeasesRequest::default() };
    let leases = elsewhere.leases.list_leases(request).await.unwrap().into_inner().leases;
    assert_eq!(leases.iter().map(v1::Lease::cause).collect::<Vec<_>>(), [v1::Cause::CrashRecovery]);
    elsewhere.until_lease(&leases[0].id, v1::LeaseState::Revoked).await;
    rig.start(&[]).await;
    rig.agent().await.lease(&task, PAIR).await.unwrap();
    rig.journal().await;
    other.stop().await;
}

/// As a machine that was suspended: what it would have written on top of the others is refused, and it goes on.
#[tokio::test]
async fn a_broker_that_was_stopped_is_fenced_and_comes_back() {
    let site = Site::shared();
    let (mut rig, other, root) = rig(site).await;
    rig.start(&[]).await;
    let mut agent = rig.agent().await;
    let task = agent.open(&[PAIR]).await.unwrap();
    agent.lease(&task, PAIR).await.unwrap();
    rig.signal(Signal::STOP);
    let silent = "UPDATE leasehold.brokers SET seen_at = seen_at - interval '1 minute' WHERE name = 'suite'";
    root.batch_execute(silent).await.unwrap();
    let fallen = "SELECT count(*) FROM leasehold.brokers WHERE name = 'suite' AND holder IS NULL";
    eventually("it is fenced", || async { root.query_one(fallen, &[]).await.unwrap().get::<_, i64>(0) == 1 })
        .await;
    let mut elsewhere = rig.world.agent_at("triage", &other).await;
    let complete = v1::CompleteTaskRequest { task: task.id.clone(), wait: seconds(20) };
    elsewhere.tasks.complete_task(complete).await.unwrap();
    rig.signal(Signal::CONT);
    eventually("it serves again", || async { rig.agent().await.open(&[PAIR]).await.is_ok() }).await;
    let ended = refused(agent.lease(&task, PAIR).await);
    assert_eq!(ended.1, "TASK_ENDED");
    assert!(site.roles(&rig.mark).await.is_empty());
    rig.journal().await;
    other.stop().await;
}
