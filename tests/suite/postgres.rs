//! The whole road on a real PostgreSQL: a broker of its own process, an agent with tokio-postgres, a superuser's proof.

use std::time::Duration;

use leasehold_proto::v1;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client as Session, Config};

use crate::child::{OTHER, PAIR, Rig};
use crate::proxy::{Hold, Wire};
use crate::site::{ADMIN, ADMIN_PASSWORD, GROUP, Site, login, login_config, works};
use crate::world::{Client, PATIENCE, eventually, reason, scope, seconds};

const MINT: &str = "SCRAM-SHA-256$";

/// A broker that serves, and an agent's task with a lease that is in use.
struct Scene {
    site: &'static Site,
    rig: Rig,
    agent: Client,
    task: v1::Task,
    lease: v1::Lease,
    login: Config,
    session: Session,
}

impl Scene {
    async fn new(site: &'static Site) -> Self {
        Self::of(site, Rig::new(site, site.port()).await).await
    }

    async fn of(site: &'static Site, mut rig: Rig) -> Self {
        rig.start(&[]).await;
        let mut agent = rig.agent().await;
        let task = agent.open(&[PAIR, OTHER]).await.unwrap();
        let granted = agent.lease(&task, PAIR).await.unwrap();
        let login_config = login_config(&granted.credential.unwrap());
        let session = login(&login_config).await.unwrap();
        assert!(works(&session).await);
        Self { site, rig, agent, task, lease: granted.lease.unwrap(), login: login_config, session }
    }

    /// The lease is dead: by the broker's word, by the server's, and by the agent's own try.
    async fn is_dead(&mut self, cause: v1::Cause) {
        let lease = self.agent.look(&self.lease.id).await;
        assert_eq!((lease.state(), lease.cause()), (v1::LeaseState::Revoked, cause));
        assert_eq!(self.site.roles(&self.rig.mark).await, Vec::<String>::new());
        let refused = login(&self.login).await.map(drop).expect_err("a dead lease logs in");
        assert_eq!(refused.code(), Some(&SqlState::INVALID_PASSWORD), "{refused}");
        assert!(!works(&self.session).await, "a session outlived its lease");
        self.rig.journal().await;
    }

    /// Revokes the agent, and waits until all is confirmed.
    async fn revoke_agent(&self) -> v1::Revocation {
        let kind = v1::selector::Kind::Agent(self.lease.agent.clone());
        let request = v1::RevokeRequest {
            selector: Some(v1::Selector { kind: Some(kind) }),
            reason: "a test".into(),
            wait: seconds(20),
            ..v1::RevokeRequest::default()
        };
        let mut progress = self.rig.admin().await.revocations.revoke(request).await.unwrap().into_inner();
        let mut last = progress.message().await.unwrap().unwrap();
        while !last.done {
            last = progress.message().await.unwrap().expect("it ended before all was confirmed");
        }
        last.revocation.unwrap()
    }

    /// Sleeps in the server, for longer than any test.
    async fn fall_asleep(&self) -> tokio::task::JoinHandle<Result<(), tokio_postgres::Error>> {
        let sleeper = login(&self.login).await.unwrap();
        let asleep = tokio::spawn(async move { sleeper.batch_execute("SELECT pg_sleep(3600)").await });
        let root = self.site.root().await;
        eventually("the query sleeps", || async {
            let query =
                "SELECT FROM pg_stat_activity WHERE usename = $1::text::name AND wait_event = 'PgSleep'";
            !root.query(query, &[&self.lease.principal]).await.unwrap().is_empty()
        })
        .await;
        asleep
    }
}

/// How a query ends whose session is ended.
async fn is_cut(asleep: tokio::task::JoinHandle<Result<(), tokio_postgres::Error>>) {
    let error = timeout(PATIENCE, asleep).await.expect("it sleeps on").unwrap().unwrap_err();
    let fatal = error.as_db_error().map(|error| (error.severity(), error.code().clone()));
    assert_eq!(fatal, Some(("FATAL", SqlState::ADMIN_SHUTDOWN)), "{error:?}");
}

#[tokio::test]
async fn a_task_s_end_takes_login_sessions_and_role() {
    let mut scene = Scene::new(Site::shared()).await;
    let ended = scene.agent.complete(&scene.task.clone()).await.unwrap();
    assert_eq!(ended.pending, Vec::<String>::new());
    scene.is_dead(v1::Cause::TaskCompleted).await;
}

#[tokio::test]
async fn narrowing_cuts_a_query_in_the_middle() {
    let mut scene = Scene::new(Site::shared()).await;
    let asleep = scene.fall_asleep().await;
    let request =
        v1::ChangeScopeRequest { task: scene.task.id.clone(), scope: scope(&[OTHER]), wait: seconds(20) };
    let changed = scene.agent.tasks.change_scope(request).await.unwrap().into_inner();
    assert_eq!(changed.pending, Vec::<String>::new());
    is_cut(asleep).await;
    scene.is_dead(v1::Cause::ScopeChanged).await;
}

#[tokio::test]
async fn revoking_an_agent_cuts_a_query_in_the_middle_and_bars_the_next() {
    let mut scene = Scene::new(Site::shared()).await;
    let asleep = scene.fall_asleep().await;
    let revocation = scene.revoke_agent().await;
    assert!(revocation.frozen);
    let counts = revocation.counts.unwrap();
    assert_eq!((counts.total, counts.confirmed), (1, 1));
    is_cut(asleep).await;
    scene.is_dead(v1::Cause::Operator).await;
    let task = scene.task.clone();
    assert_eq!(reason(&scene.agent.lease(&task, PAIR).await.unwrap_err()), "FROZEN");
}

/// A revocation ends every login on its server that stays half-way, so attackers take turns.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// a login past its check and asleep for an hour, invisible, and as its group where `options` say so.
async fn a_sleeping_login_dies(options: &str) {
    let _turn = turn().await;
    let site = Site::attacked();
    let mut rig = Rig::new(site, site.port()).await;
    rig.setup.config = rig.setup.config.replace("limbo_wait = \"3s\"", "limbo_wait = \"250ms\"");
    let mut scene = Scene::of(site, rig).await;
    let mut attack = scene.login.clone();
    attack.options(format!("-c post_auth_delay=2147 {options}"));
    let attacker = tokio::spawn(async move { login(&attack).await });
    let root = site.root().await;
    half_way_at_every_look(&root).await;
    let asked = tokio::time::Instant::now();
    let revocation = scene.revoke_agent().await;
    assert_eq!(revocation.counts.unwrap().confirmed, 1);
    assert!(asked.elapsed() < Duration::from_secs(20), "it waited for the attacker");
    let woken = timeout(PATIENCE, attacker).await.expect("it sleeps on").unwrap();
    if let Ok(session) = woken {
        assert!(!works(&session).await, "the attacker has a session");
    }
    scene.is_dead(v1::Cause::Operator).await;
}

/// Waits until a login is half-way and stays there: one that is only slow is through a few looks later.
async fn half_way_at_every_look(root: &Session) {
    let query = "SELECT l.pid FROM pg_locks l WHERE locktype = 'virtualxid' AND NOT EXISTS \
        (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.usesysid IS NOT NULL)";
    let looks: Mutex<Vec<Vec<i32>>> = Mutex::default();
    eventually("a login is half-way", || async {
        let rows = root.query(query, &[]).await.unwrap();
        let mut looks = looks.lock().await;
        looks.push(rows.iter().map(|row| row.get(0)).collect());
        let last = looks.iter().rev().take(LOOKS);
        rows.iter().any(|row| last.clone().filter(|look| look.contains(&row.get(0))).count() == LOOKS)
    })
    .await;
}

/// As many looks, a fiftieth of a second apart, as no honest login takes.
const LOOKS: usize = 25;

#[tokio::test]
async fn an_attacker_s_sleeping_login_dies() {
    a_sleeping_login_dies("").await;
}

#[tokio::test]
async fn an_attacker_s_sleeping_login_as_its_group_dies() {
    a_sleeping_login_dies(&format!("-c role={GROUP}")).await;
}

/// a session of a leased OID that appears when its role is long gone. It is made by giving a dead role's OID to
/// another, which is then dropped: nothing else looks so much like a login that was asleep.
#[tokio::test]
async fn a_late_session_is_reaped() {
    let _turn = turn().await;
    let mut scene = Scene::new(Site::attacked()).await;
    let root = scene.site.root().await;
    let query = "SELECT oid FROM pg_roles WHERE rolname = $1::text::name";
    let oid: u32 = root.query_one(query, &[&scene.lease.principal]).await.unwrap().get(0);
    let ended = scene.agent.complete(&scene.task.clone()).await.unwrap();
    assert_eq!(ended.pending, Vec::<String>::new());
    root.batch_execute(&format!(
        "SET allow_system_table_mods = on; CREATE ROLE late LOGIN PASSWORD 'late'; \
         UPDATE pg_authid SET oid = {oid} WHERE rolname = 'late'"
    ))
    .await
    .unwrap();
    let mut config = scene.login.clone();
    let session = login(config.user("late").password("late")).await.unwrap();
    assert_eq!(scene.site.sessions_of(oid).await, 1);
    root.batch_execute("DROP ROLE late").await.unwrap();
    eventually("the late session is ended", || async { scene.site.sessions_of(oid).await == 0 }).await;
    assert!(!works(&session).await);
    let journal = async || scene.rig.journal().await;
    eventually("it is on record", || async { journal().await.contains("target.reaped") }).await;
    scene.is_dead(v1::Cause::TaskCompleted).await;
}

#[tokio::test]
async fn a_database_that_is_down_at_the_start_is_used_when_it_comes() {
    let site = Site::shared();
    let wire = Wire::lay(site.port()).await;
    wire.cut();
    let mut rig = Rig::new(site, wire.port).await;
    rig.start(&[]).await;
    let mut agent = rig.agent().await;
    let task = agent.open(&[PAIR]).await.unwrap();
    assert_eq!(reason(&agent.lease(&task, PAIR).await.unwrap_err()), "TARGET_DOWN");
    assert_eq!(rig.check_target().await.target.unwrap().state(), v1::TargetState::Down);
    assert_eq!(rig.leases().await, [], "nothing was on its way");
    wire.mend();
    let granted = agent.lease(&task, PAIR).await.unwrap();
    assert!(works(&login(&login_config(&granted.credential.unwrap())).await.unwrap()).await);
    assert_eq!(rig.check_target().await.target.unwrap().state(), v1::TargetState::Ready);
    agent.complete(&task).await.unwrap();
    assert_eq!(site.roles(&rig.mark).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_wrong_admin_password_is_told_and_not_shown() {
    let site = Site::shared();
    let mut rig = Rig::new(site, site.port()).await;
    let (right, wrong) = (site.password_file(), rig.world.path("wrong"));
    std::fs::write(&wrong, "wrong-Jq7-password\n").unwrap();
    let config = rig.setup.config.replace(right.to_str().unwrap(), wrong.to_str().unwrap());
    assert_ne!(config, rig.setup.config);
    rig.setup.config = config;
    rig.start(&[]).await;
    let mut agent = rig.agent().await;
    let task = agent.open(&[PAIR]).await.unwrap();
    let refused = agent.lease(&task, PAIR).await.unwrap_err();
    let checked = rig.check_target().await;
    let told = format!("{refused:?} {checked:?} {}", rig.log());
    assert!(told.contains("password authentication failed"), "{told}");
    assert!(!told.contains("wrong-Jq7"), "{told}");
    assert_eq!(reason(&refused), "TARGET_DOWN");
    assert_ne!(checked.target.unwrap().state(), v1::TargetState::Ready);
}

#[tokio::test]
async fn a_missing_privilege_is_named_with_the_grant_that_mends_it() {
    let site = Site::shared();
    let root = site.root().await;
    root.batch_execute(&format!("CREATE ROLE poor LOGIN CREATEROLE PASSWORD '{ADMIN_PASSWORD}'"))
        .await
        .unwrap();
    let mut rig = Rig::new(site, site.port()).await;
    rig.setup.config = rig.setup.config.replace(&format!("user = \"{ADMIN}\""), "user = \"poor\"");
    rig.start(&[]).await;
    let mut agent = rig.agent().await;
    let task = agent.open(&[PAIR]).await.unwrap();
    let refused = agent.lease(&task, PAIR).await.unwrap_err();
    assert_eq!(reason(&refused), "PRIVILEGE_MISSING");
    let grant = "GRANT pg_signal_backend TO \"poor\";";
    assert!(format!("{refused:?}").contains(&grant.escape_debug().to_string()), "{refused:?}");
    let checked = rig.check_target().await;
    assert_eq!(checked.target.unwrap().state(), v1::TargetState::Unfit);
    let fixes: Vec<_> = checked.problems.iter().map(|problem| problem.fix.as_str()).collect();
    assert!(fixes.contains(&grant), "{fixes:?}");
    for fix in fixes {
        root.batch_execute(fix).await.unwrap();
    }
    assert_eq!(rig.check_target().await.target.unwrap().state(), v1::TargetState::Ready);
    agent.lease(&task, PAIR).await.unwrap();
    agent.complete(&task).await.unwrap();
    assert_eq!(site.roles(&rig.mark).await, Vec::<String>::new());
}

/// The connection breaks when the role is made: the agent hears no secret, and nothing stays.
#[tokio::test]
async fn a_mint_whose_answer_is_lost_is_undone() {
    let site = Site::shared();
    let wire = Wire::lay(site.port()).await;
    let mut rig = Rig::new(site, wire.port).await;
    rig.start(&[]).await;
    let mut agent = rig.agent().await;
    let task = agent.open(&[PAIR]).await.unwrap();
    wire.hold(Hold::Answer(MINT));
    let minting = tokio::spawn({
        let (mut agent, task) = (agent.clone(), task.clone());
        async move { agent.lease(&task, PAIR).await }
    });
    wire.holds().await;
    assert_eq!(site.roles(&rig.mark).await.len(), 1, "the role is made");
    wire.cut();
    assert_eq!(reason(&minting.await.unwrap().unwrap_err()), "TARGET_DOWN");
    wire.mend();
    eventually("it is undone", || async {
        let lease = rig.leases().await.remove(0);
        (lease.state(), lease.cause()) == (v1::LeaseState::Revoked, v1::Cause::MintFailed)
    })
    .await;
    assert_eq!(site.roles(&rig.mark).await, Vec::<String>::new());
    rig.journal().await;
}

/// The server stops in the middle of a mint and stays away: nothing is called dead that nobody could look at.
#[tokio::test]
async fn a_server_that_stops_in_the_middle_of_a_mint_leaves_no_false_proof() {
    let site = tokio::task::spawn_blocking(Site::start).await.unwrap();
    let wire = Wire::lay(site.port()).await;
    let mut rig = Rig::new(&site, wire.port).await;
    rig.start(&[]).await;
    let mut agent = rig.agent().await;
    let task = agent.open(&[PAIR]).await.unwrap();
    wire.hold(Hold::Question(MINT));
    let minting = tokio::spawn(async move { agent.lease(&task, PAIR).await });
    wire.holds().await;
    tokio::task::spawn_blocking(move || drop(site)).await.unwrap();
    wire.let_go();
    assert_eq!(reason(&minting.await.unwrap().unwrap_err()), "TARGET_DOWN");
    eventually("a revocation has failed", || async { !rig.leases().await[0].last_error.is_empty() }).await;
    let lease = rig.leases().await.remove(0);
    assert_eq!((lease.state(), lease.cause()), (v1::LeaseState::Revoking, v1::Cause::MintFailed));
    assert_eq!(rig.check_target().await.target.unwrap().state(), v1::TargetState::Down);
    rig.journal().await;
}
