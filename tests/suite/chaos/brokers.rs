//! Three brokers on one PostgreSQL store with a synchronous standby: killed at random, one of them suspended for longer
//! than its claims, and then the primary dies and the standby takes its place.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold_client::channel::connect_unix;
use leasehold_postgres::throwaway::{self, Cluster, SUPERUSER, SUPERUSER_PASSWORD};
use rustix::process::Signal;
use tokio_postgres::{Client as Session, NoTls};

use super::agents::{Doors, Load};
use super::dice::Dice;
use super::verdict::{self, Store};
use super::{kills, runs_for, seed, tell};
use crate::child::{Process, Rig, serve};
use crate::shared::{POSTGRES, SQLITE, write_url};
use crate::site::{Site, programs};
use crate::world::{Client, eventually, eventually_within};

/// So many of each agent are at work.
const EACH: u64 = 2;
/// The pause between two calls of an agent.
const PAUSE: Duration = Duration::from_millis(120);
/// How many answers agents get at most between two kills.
const ANSWERS: u64 = 30;
/// The one that is suspended.
const SUSPENDED: usize = 2;
/// So long it is suspended at least: nobody's claims last longer than thirty seconds.
const SUSPENSION: Duration = Duration::from_secs(32);
/// How long the others may take to fence it, and how long it may take to come back.
const FENCED: Duration = Duration::from_secs(90);

/// One of the brokers.
struct Member {
    config: PathBuf,
    process: Option<Process>,
    runs: u32,
}

/// All of them.
struct Fleet {
    rig: Rig,
    members: Vec<Member>,
    doors: Arc<Doors>,
}

impl Fleet {
    async fn start(rig: Rig) -> Self {
        let mut members = Vec::new();
        for n in 1..=3 {
            let text = rig.setup.config.replace("name = \"suite\"", &format!("name = \"suite-{n}\""));
            let text = text.replace("unix:admin/", &format!("unix:admin-{n}/"));
            let setup =
                crate::world::Setup { config: text, policy: rig.setup.policy.clone(), ..Default::default() };
            let config = rig.world.write_config_as(&format!("broker-{n}.toml"), &setup);
            members.push(Member { config, process: None, runs: 0 });
        }
        let mut fleet = Self { rig, members, doors: Arc::default() };
        for n in 0..fleet.members.len() {
            fleet.spawn(n).await;
        }
        fleet
    }

    async fn spawn(&mut self, n: usize) {
        let member = &mut self.members[n];
        member.runs += 1;
        let log = self.rig.world.path(&format!("broker-{n}-{}.log", member.runs));
        let mut process = Process::spawn(serve(&member.config).arg("--dev-trust"), log);
        process.serves().await;
        self.doors.open(n, process.agents());
        member.process = Some(process);
    }

    fn process(&mut self, n: usize) -> &mut Process {
        self.members[n].process.as_mut().expect("it runs")
    }

    /// One of these dies after some answers and a moment, and another process takes its place.
    async fn lose_one(&mut self, of: usize, load: &Load, dice: &Dice) {
        let n = usize::try_from(dice.roll(of as u64)).unwrap();
        load.answers(dice.roll(ANSWERS)).await;
        runs_for(self.process(n), dice.millis(0, 40)).await;
        self.doors.close(n);
        self.process(n).kill().await;
        self.spawn(n).await;
    }

    async fn admins(&self) -> Vec<Client> {
        let mut admins = Vec::new();
        for n in 1..=self.members.len() {
            let socket = self.rig.world.path(&format!("admin-{n}/admin.sock"));
            admins.push(Client::new(connect_unix(&socket).await.unwrap()));
        }
        admins
    }
}

/// What the store knows of the suspended broker: its fence, whether it has its name, and how much it has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seat {
    fence: i64,
    is_held: bool,
    entries: i64,
}

impl Seat {
    async fn of_the_suspended(root: &Session) -> Self {
        let query = "SELECT fence, holder IS NOT NULL, \
            (SELECT count(*) FROM leasehold.journal WHERE journal.chain = brokers.chain) \
            FROM leasehold.brokers WHERE name = $1";
        let name = format!("suite-{}", SUSPENDED + 1);
        let row = root.query_one(query, &[&name]).await.unwrap();
        Self { fence: row.get(0), is_held: row.get(1), entries: row.get(2) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_brokers_lose_nothing_and_double_nothing_whatever_dies() {
    let begun = Instant::now();
    let tell = |what: &str| tell(&format!("three brokers: {what} after {:?}", begun.elapsed()));
    let (site, mut primary, standby) = tokio::task::spawn_blocking(servers).await.unwrap();
    let root = session(&primary).await;
    wait_for_the_standby(&root).await;
    let mut rig = kills::rig(&site).await;
    let ports = format!("127.0.0.1:{},127.0.0.1:{}", primary.port(), standby.port());
    write_url(&rig.world, &format!("postgres://{SUPERUSER}:{SUPERUSER_PASSWORD}@{ports}/postgres\n"));
    rig.setup = rig.setup.replace(SQLITE, POSTGRES);
    let mut fleet = Fleet::start(rig).await;
    let seed = seed("three brokers");
    let (dice, load) = (Dice::of(seed), Load::begin(&fleet.rig.world, &fleet.doors, EACH, PAUSE, seed));

    let lost = is_fenced(&mut fleet, &root, &load, &dice).await;
    tell(&format!("the suspended one is fenced, and {lost} were killed meanwhile"));
    comes_back(&mut fleet, &root).await;
    fleet.lose_one(3, &load, &dice).await;

    tokio::task::spawn_blocking(move || primary.halt().map(|()| primary)).await.unwrap().unwrap();
    let promoted = session(&standby).await;
    promoted.batch_execute("SELECT pg_promote()").await.unwrap();
    load.answers(ANSWERS).await;
    tell("agents are served from the standby");
    fleet.lose_one(3, &load, &dice).await;

    let told = load.end().await;
    verdict::holds(&site, &fleet.rig.mark, &told, &fleet.admins().await, Store::WasLost).await;
    tell("all of it");
}

/// The server of the target, the one of the store, and its standby.
fn servers() -> (Site, Cluster, Cluster) {
    let primary = throwaway::start(&programs()).unwrap();
    let standby = primary.standby().unwrap();
    (Site::start(), primary, standby)
}

async fn session(server: &Cluster) -> Session {
    let (client, connection) =
        tokio_postgres::connect(&server.superuser_dsn("postgres"), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// From now on nothing is committed that the standby has not.
async fn wait_for_the_standby(root: &Session) {
    root.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
    root.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let query = "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'";
    eventually("the standby follows", || async { !root.query(query, &[]).await.unwrap().is_empty() }).await;
}

/// One is suspended, as a machine that sleeps, until the others have given it up. These go on dying meanwhile. Gives how
/// many did.
async fn is_fenced(fleet: &mut Fleet, root: &Session, load: &Load, dice: &Dice) -> u32 {
    load.answers(ANSWERS).await;
    let before = Seat::of_the_suspended(root).await;
    assert!(before.is_held && before.entries > 0, "{before:?}");
    fleet.process(SUSPENDED).signal(Signal::STOP);
    fleet.doors.close(SUSPENDED);
    let (begun, mut lost) = (Instant::now(), 0);
    while begun.elapsed() < SUSPENSION || Seat::of_the_suspended(root).await.is_held {
        assert!(begun.elapsed() < FENCED, "nobody fences it: {:?}", Seat::of_the_suspended(root).await);
        fleet.lose_one(SUSPENDED, load, dice).await;
        lost += 1;
    }
    assert!(Seat::of_the_suspended(root).await.fence > before.fence);
    lost
}

/// It wakes up and believes that nothing has happened. Under its old fence it writes nothing; it takes a new one, and
/// serves.
async fn comes_back(fleet: &mut Fleet, root: &Session) {
    let fallen = Seat::of_the_suspended(root).await;
    fleet.process(SUSPENDED).signal(Signal::CONT);
    eventually_within(FENCED, "it takes its name again", || async {
        let now = Seat::of_the_suspended(root).await;
        assert!(now.fence > fallen.fence || now == fallen, "{now:?} under a fence that fell as {fallen:?}");
        now.is_held && now.fence > fallen.fence
    })
    .await;
    let address = fleet.process(SUSPENDED).agents();
    fleet.doors.open(SUSPENDED, address);
}
