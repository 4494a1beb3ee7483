//! A PostgreSQL that is away for minutes while leases on it end: stopped as by `pg_ctl stop -m immediate`, or frozen in
//! the middle of whatever it does, with connections that stay open and answer nothing.
//!
//! The real outages last 45 s, and as long as `LEASEHOLD_OUTAGE_SECONDS` says: 180 is the promise, and makes the suite
//! two minutes longer. The outage of 20 minutes is by the injected clock, on a server that is really stopped.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use leasehold_proto::v1;
use leasehold_proto::v1::selector::Kind;
use tokio::task::block_in_place;
use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::Client as Session;

use crate::site::{ADMIN, GROUP, Site, login, login_config, works};
use crate::stopping::{revoke, run};
use crate::world::{Client, Setup, World, eventually, lease_request, seconds};

const PAIR: &str = "db.read@db";
/// What else is used meanwhile: a target in memory, and a PostgreSQL that stands.
const OTHERS: [&str; 2] = ["stock.read@stock", "db.read@standing"];
const MARK: &str = "outage";

/// What holders do so that they might last: each in a session that it keeps.
const HOLDINGS: [&str; 7] = [
    "CREATE TEMP TABLE t(n int); INSERT INTO t VALUES (1); CREATE TEMP VIEW v AS SELECT n FROM t",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; SELECT pg_temp.f()",
    "CREATE FUNCTION work.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TABLE work.own(n int)",
    "CREATE FOREIGN TABLE work.far(n int) SERVER far; CREATE USER MAPPING FOR CURRENT_USER SERVER far",
    "BEGIN; CREATE TABLE work.mine(n int); LOCK TABLE work.mine IN ACCESS EXCLUSIVE MODE; SELECT n FROM orders",
    "SELECT pg_advisory_lock(7); BEGIN; LOCK TABLE orders IN ACCESS SHARE MODE; DECLARE c CURSOR FOR SELECT 1",
    "BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'mine'",
];
/// Leases that end by themselves in the outage, and how long they live where time is real.
const EXPIRING: usize = 30;
const BRIEF: i64 = 30;
/// Leases whose task ends in the outage, that an operator revokes in it, and that live through it.
const SOME: usize = 5;

/// The promise: dead so soon after the target is back. Four seconds of it are the longest pause between two questions
/// whether it is.
const BOUND: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(3);
/// What the same may take where a whole suite runs beside it on two cores, and starts servers of its own.
const BESIDE_A_SUITE: Duration = Duration::from_secs(15);
/// How often each other target is used before the outage.
const ROUNDS: usize = 100;
/// Below these nothing has waited for the target that is away, whatever it was before: the shortest deadline of a call is
/// five seconds, twenty times as long, and a round is some two commits, of which a busy disk may delay each by a tenth
/// of a second. The first is for the worst moments of all, the second for those of an ordinary while.
const FLOORS: [Duration; 2] = [Duration::from_millis(250); 2];
/// The same beside a suite: servers that start make every commit of the machine wait, some of them here and not there.
const FLOORS_BESIDE_A_SUITE: [Duration; 2] = [Duration::from_millis(2500), Duration::from_secs(1)];

/// How the server goes away.
#[derive(Clone, Copy, Debug)]
enum Away {
    Halted,
    Frozen,
}

/// For how long.
#[derive(Clone, Copy, Debug)]
enum Length {
    Real(Duration),
    /// So many minutes by the injected clock.
    Injected(u64),
}

impl Length {
    /// A PostgreSQL lives by the host's clock: where the broker's is moved, it gives that broker nothing.
    const fn others(self) -> usize {
        match self {
            Self::Real(_) => OTHERS.len(),
            Self::Injected(_) => 1,
        }
    }
}

fn real() -> Length {
    let told = std::env::var("LEASEHOLD_OUTAGE_SECONDS").ok();
    let told = told.map(|text| text.parse().expect("LEASEHOLD_OUTAGE_SECONDS is a number"));
    Length::Real(Duration::from_secs(told.unwrap_or(45)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_ended_while_its_server_was_stopped_is_dead_seconds_after_its_return() {
    outage(Away::Halted, real()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_ended_while_its_server_was_frozen_is_dead_seconds_after_its_return() {
    outage(Away::Frozen, real()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_minutes_of_outage_are_over_in_seconds() {
    outage(Away::Halted, Length::Injected(20)).await;
}

async fn outage(away: Away, length: Length) {
    let begun = Instant::now();
    let mut site = tokio::task::spawn_blocking(Site::start).await.unwrap();
    site.root().await.batch_execute(&ground()).await.unwrap();
    let standing = tokio::task::spawn_blocking(Site::shared).await.unwrap();
    let world =
        World::with(with_database(with_database(Setup::default(), "db", &site), "standing", standing)).await;
    let undisturbed = World::with(with_database(Setup::default(), "standing", standing)).await;
    let mut others = Vec::new();
    for pair in &OTHERS[..length.others()] {
        others.push(Other::new(pair, &world, &undisturbed).await);
    }
    for _ in 0..ROUNDS {
        rounds(&mut others).await;
    }
    let before: Vec<_> = others.iter_mut().map(Other::paces).collect();
    let usual = usual(&world).await;
    let held = Held::take(&world, length).await;

    let gone = Instant::now();
    go(&mut site, away);
    held.end_some(&world).await;
    last(&world, length, &mut others).await;
    let during: Vec<_> = others.iter_mut().map(Other::paces).collect();
    is_known(&world).await;
    // Where it is stopped, it is back as soon as it takes logins.
    let thawed = Instant::now();
    come_back(&mut site, away);
    let back = match away {
        Away::Halted => Instant::now(),
        Away::Frozen => thawed,
    };
    only_the_kept_are_left(&site, &held).await;
    let took = back.elapsed();

    // The promise is for a broker that has a machine: by itself, with LEASEHOLD_OUTAGE_SECONDS, it is held to that.
    let alone = std::env::var_os("LEASEHOLD_OUTAGE_SECONDS").is_some();
    let bound = (if alone { BOUND } else { BESIDE_A_SUITE }).max(PAUSE + usual * 8);
    tell(&format!(
        "{away:?} for {length:?}: all dead {took:?} after its return, of {bound:?} (usually in {usual:?})"
    ));
    assert!(took <= bound, "all were dead only {took:?} after its return");
    for (other, (before, during)) in others.iter().zip(before.into_iter().zip(during)) {
        other.is_undisturbed(before, during, if alone { FLOORS } else { FLOORS_BESIDE_A_SUITE });
    }
    held.is_over(&world).await;
    tell(&format!(
        "{away:?} for {length:?}: {:?} before it went, {:?} in all",
        gone - begun,
        begun.elapsed()
    ));
}

#[expect(clippy::print_stderr, reason = "figures are what these tests are for")]
fn tell(line: &str) {
    eprintln!("{line}");
}

/// What holders may use.
fn ground() -> String {
    format!(
        "CREATE SCHEMA work; GRANT USAGE, CREATE ON SCHEMA work TO {GROUP}; CREATE FOREIGN DATA WRAPPER far; \
         CREATE SERVER far FOREIGN DATA WRAPPER far; GRANT USAGE ON FOREIGN SERVER far TO {GROUP}"
    )
}

fn with_database(mut setup: Setup, name: &str, site: &Site) -> Setup {
    let target = TARGET.replace("PORT", &site.port().to_string()).replace("ADMIN", ADMIN);
    let target = target.replace("PASSWORD", site.password_file().to_str().unwrap());
    let grant = GRANT.replace("GROUP", GROUP).replace("MARK", MARK);
    if !setup.config.contains(INTENT) {
        setup.config.push_str(INTENT);
    }
    setup.config.push_str(&(target + &grant).replace("NAME", name));
    setup
}

const INTENT: &str = r#"
[intents."db.read"]
class = "read-only"
"#;
const TARGET: &str = r#"
[targets.NAME]
backend = "postgres"
owner = "person:ana"
connect = { host = "127.0.0.1", port = PORT, dbname = "postgres" }
tls = "disable"
admin = { user = "ADMIN", password_file = "PASSWORD" }
"#;
const GRANT: &str = r#"
[[grants]]
intent = "db.read"
targets = ["NAME"]
allow = ["agents:soc"]
recipe = { member_of = ["GROUP"], settings = { application_name = "MARK" } }
ttl = { default = "10m", max = "1h", life = "2h" }
"#;

fn go(site: &mut Site, away: Away) {
    block_in_place(|| match away {
        Away::Halted => site.cluster().halt(),
        Away::Frozen => site.cluster().freeze(),
    })
    .unwrap();
}

fn come_back(site: &mut Site, away: Away) {
    block_in_place(|| match away {
        Away::Halted => site.cluster().resume(),
        Away::Frozen => site.cluster().thaw(),
    })
    .unwrap();
}

/// Another target in use, through the broker that has the target that is away and through one that has not: what the
/// machine itself costs at that moment is in both.
struct Other {
    pair: &'static str,
    here: Pace,
    elsewhere: Pace,
}

/// A lease and its release, again and again.
struct Pace {
    agent: Client,
    task: v1::Task,
    took: Vec<Duration>,
}

impl Other {
    async fn new(pair: &'static str, here: &World, elsewhere: &World) -> Self {
        Self { pair, here: Pace::new(here, pair).await, elsewhere: Pace::new(elsewhere, pair).await }
    }

    /// The paces since they were asked last, here and elsewhere.
    fn paces(&mut self) -> [[Duration; 2]; 2] {
        [self.here.pace(), self.elsewhere.pace()]
    }

    /// Both figures are within twice what they were before, or what they are at the same time where no target is away.
    fn is_undisturbed(&self, before: [[Duration; 2]; 2], during: [[Duration; 2]; 2], floors: [Duration; 2]) {
        let ([before, _], [during, elsewhere]) = (before, during);
        tell(&format!(
            "{}: p99 and worst of a while {before:?} before, {during:?} meanwhile, and {elsewhere:?} at a broker \
             whose targets all stand",
            self.pair
        ));
        for (((before, during), elsewhere), floor) in
            before.into_iter().zip(during).zip(elsewhere).zip(floors)
        {
            let bound = floor.max(before.max(elsewhere) * 2);
            assert!(during <= bound, "the pace of {} went from {before:?} to {during:?}", self.pair);
        }
    }
}

/// One round of each, here and elsewhere by turns.
async fn rounds(others: &mut [Other]) {
    for other in others {
        other.here.round(other.pair).await;
        other.elsewhere.round(other.pair).await;
    }
}

impl Pace {
    async fn new(world: &World, pair: &str) -> Self {
        let mut agent = world.agent("other").await;
        let task = agent.open(&[pair]).await.unwrap();
        Self { agent, task, took: Vec::new() }
    }

    async fn round(&mut self, pair: &str) {
        let begun = Instant::now();
        let lease = self.agent.lease(&self.task, pair).await.unwrap().lease.unwrap();
        let released = self.agent.release(&lease.id).await.unwrap();
        assert_eq!(released.pending, [] as [String; 0]);
        self.took.push(begun.elapsed());
    }

    /// Of all rounds since it was asked last: the 99th percentile, and the worst of each tenth, of these the middle one.
    /// A busy moment of the machine spoils the first, and a target that delays others does so again and again.
    fn pace(&mut self) -> [Duration; 2] {
        let mut took = std::mem::take(&mut self.took);
        let tenths = took.chunks(took.len().div_ceil(10));
        let mut worst: Vec<_> = tenths.map(|tenth| tenth.iter().max().copied().unwrap()).collect();
        worst.sort_unstable();
        took.sort_unstable();
        [took[took.len() * 99 / 100], worst[worst.len() / 2]]
    }
}

/// How long as many take to die as will be due, with the server there.
async fn usual(world: &World) -> Duration {
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[PAIR]).await.unwrap();
    for _ in 0..EXPIRING + 2 * SOME {
        agent.lease(&task, PAIR).await.unwrap();
    }
    let begun = Instant::now();
    let ended = agent.complete(&task).await.unwrap();
    assert_eq!(ended.pending, [] as [String; 0]);
    begun.elapsed()
}

/// Leases on the server that goes away, and how each of them ends.
struct Held {
    agent: Client,
    expiring: Vec<String>,
    ended: (v1::Task, Vec<String>),
    stopped: (v1::Task, Vec<String>),
    kept: Vec<v1::Lease>,
    sessions: Vec<Session>,
    kept_session: tokio_postgres::Config,
}

impl Held {
    async fn take(world: &World, length: Length) -> Self {
        let mut agent = world.agent("triage").await;
        let (ended, stopped) = (some(&mut agent).await, some(&mut agent).await);
        let task = agent.open(&[PAIR]).await.unwrap();
        let mut kept = Vec::new();
        for _ in 0..SOME {
            kept.push(lease_for(&mut agent, &task, seconds(3600)).await);
        }
        let brief = match length {
            Length::Real(_) => seconds(BRIEF),
            Length::Injected(_) => None,
        };
        let (mut expiring, mut sessions) = (Vec::new(), Vec::new());
        for n in 0..EXPIRING {
            let granted = lease_for(&mut agent, &task, brief).await;
            if let Some(holding) = HOLDINGS.get(n) {
                let session = login(&login_config(&granted.credential.unwrap())).await.unwrap();
                session.batch_execute(holding).await.unwrap_or_else(|error| panic!("{holding}: {error:?}"));
                sessions.push(session);
            }
            expiring.push(granted.lease.unwrap().id);
        }
        let kept_session = login_config(kept[0].credential.as_ref().unwrap());
        let kept = kept.into_iter().map(|granted| granted.lease.unwrap()).collect();
        Self { agent, expiring, ended, stopped, kept, sessions, kept_session }
    }

    /// In the outage a task ends, and an operator revokes another. Nobody says that anything is dead.
    async fn end_some(&self, world: &World) {
        let (mut agent, mut revoker) = (self.agent.clone(), world.operator("revoker").await);
        let complete = v1::CompleteTaskRequest { task: self.ended.0.id.clone(), wait: None };
        agent.tasks.complete_task(complete).await.unwrap();
        let stop = v1::RevokeRequest { wait: None, ..revoke(Kind::Task(self.stopped.0.id.clone())) };
        let told = run(&mut revoker, stop).await.unwrap();
        let counts = told.last().unwrap().revocation.clone().unwrap().counts.unwrap();
        assert_eq!((counts.total as usize, counts.confirmed), (SOME, 0), "nobody can look at it");
    }

    /// The record says what is; sessions are cut, and what should live lives.
    async fn is_over(&self, world: &World) {
        for (leases, cause) in [
            (&self.expiring, v1::Cause::Expired),
            (&self.ended.1, v1::Cause::TaskCompleted),
            (&self.stopped.1, v1::Cause::Operator),
        ] {
            for lease in leases {
                let dead = self.agent.until_lease(lease, v1::LeaseState::Revoked).await;
                assert_eq!(dead.cause(), cause, "{dead:?}");
            }
        }
        for session in &self.sessions {
            assert!(!works(session).await, "a session outlived its lease");
        }
        assert!(works(&login(&self.kept_session).await.unwrap()).await, "what should live lives");
        let ended = self.agent.until_task(&self.ended.0, v1::TaskState::Ended).await;
        assert_eq!(ended.cause(), v1::Cause::TaskCompleted);
        let closed = database(world).await.breaker.unwrap();
        assert_eq!(closed.state(), v1::BreakerState::Closed, "{closed:?}");
    }
}

async fn some(agent: &mut Client) -> (v1::Task, Vec<String>) {
    let task = agent.open(&[PAIR]).await.unwrap();
    let mut leases = Vec::new();
    for _ in 0..SOME {
        leases.push(lease_for(agent, &task, seconds(3600)).await.lease.unwrap().id);
    }
    (task, leases)
}

async fn lease_for(
    agent: &mut Client,
    task: &v1::Task,
    ttl: Option<prost_types::Duration>,
) -> v1::RequestLeaseResponse {
    let request = v1::RequestLeaseRequest { ttl, ..lease_request(task, PAIR) };
    agent.leases.request_lease(request).await.unwrap().into_inner()
}

/// The outage, with the other targets in use all the while.
async fn last(world: &World, length: Length, others: &mut [Other]) {
    let mut beat = interval(Duration::from_millis(50));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    match length {
        Length::Real(span) => {
            let begun = Instant::now();
            while begun.elapsed() < span {
                beat.tick().await;
                rounds(others).await;
            }
        }
        Length::Injected(minutes) => {
            for _ in 0..minutes {
                let failures = database(world).await.breaker.unwrap().failures;
                world.pass(60);
                let again = async || database(world).await.breaker.unwrap().failures > failures;
                eventually("it is asked again", again).await;
                for _ in 0..ROUNDS / 20 {
                    rounds(others).await;
                }
            }
        }
    }
}

/// Operators see that it is away, and what waits for it.
async fn is_known(world: &World) {
    let waiting = (EXPIRING + 2 * SOME) as u64;
    eventually("all of it waits", || async { database(world).await.due == waiting }).await;
    let seen = database(world).await;
    assert_eq!((seen.live, seen.due_security), (waiting + SOME as u64, SOME as u64), "{seen:?}");
    let breaker = seen.breaker.unwrap();
    assert!(breaker.state() != v1::BreakerState::Closed && breaker.failures > 1, "{breaker:?}");
}

async fn database(world: &World) -> v1::Target {
    let status = world.admin().await.admin.status(v1::StatusRequest {}).await.unwrap().into_inner();
    status.targets.into_iter().find(|target| target.name == "db").unwrap()
}

/// By the server's own catalog.
async fn only_the_kept_are_left(site: &Site, held: &Held) {
    let kept: BTreeSet<_> = held.kept.iter().map(|lease| lease.principal.clone()).collect();
    eventually("only what should live is left", || async {
        site.roles(MARK).await.into_iter().collect::<BTreeSet<_>>() == kept
    })
    .await;
}
