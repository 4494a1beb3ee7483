//! A broker on real sockets, and what is around it.

mod client;
mod setup;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use leasehold::broker::Broker;
use leasehold::clock::{SystemTime, TimeSource as _};
use leasehold::config::{KeyKind, Trust, write_installation_key};
use leasehold::dev::trust_domain::{DevIdentity, DevTrustDomain};
use leasehold::entropy::SystemEntropy;
use leasehold::server::{Running, Start, StartError, start};
use leasehold_backend::BackendKind;
use leasehold_client::channel::{connect_spiffe, connect_unix};
use leasehold_law::lease::Grade;
use leasehold_law::time::Span;
use leasehold_memory::{MemoryKind, MemoryTarget, Settings};
use tempfile::TempDir;

pub(crate) use client::{
    Client, by_heartbeat, detail, fresh_id, lease_request, login, millis, open_request, reason, refused,
    scope, seconds,
};
pub(crate) use setup::{MovedTime, Setup, TargetEntropy, WRITES};

/// The trust domain of every test.
pub(crate) const DOMAIN: &str = "suite.leasehold.test";
/// No test waits so long unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Who has a Workload API in every test.
const IDENTITIES: &[(&str, &str)] = &[
    ("leasehold", "/leasehold"),
    ("triage", "/agent/triage"),
    ("other", "/agent/other"),
    ("nobody", "/agent/nobody"),
    ("viewer", "/operator/viewer"),
    ("revoker", "/operator/revoker"),
    ("auditor", "/operator/auditor"),
    ("admin", "/operator/admin"),
];

/// A broker with everything around it. What it leaves in the store survives [`World::restart`].
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) time: Arc<MovedTime>,
    pub(crate) domain: DevTrustDomain,
    pub(crate) identities: Vec<(String, DevIdentity)>,
    pub(crate) orders: Arc<MemoryTarget>,
    pub(crate) stock: Arc<MemoryTarget>,
    pub(crate) running: Option<Running>,
}

impl World {
    /// A broker that serves.
    pub(crate) async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    /// A broker that serves, set up otherwise.
    pub(crate) async fn with(setup: Setup) -> Self {
        let mut world = Self::prepare(&setup).await;
        world.start(&setup).await.unwrap_or_else(|error| panic!("the broker does not start: {error}"));
        world
    }

    /// Everything around a broker, and no broker yet.
    pub(crate) async fn prepare(setup: &Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now: leasehold::identity::Now = Arc::new(|| SystemTime.wall());
        let domain = DevTrustDomain::open(&dir.path().join("dev"), DOMAIN, setup.svid_life, now).unwrap();
        let mut identities = Vec::new();
        for (name, path) in IDENTITIES {
            identities.push(((*name).to_owned(), domain.serve(name, path).await.unwrap()));
        }
        let time = Arc::new(MovedTime::default());
        let clock = Arc::new(leasehold::clock::Clock::new(time.clone(), None));
        let entropy = SystemEntropy::new(clock);
        write_installation_key(&dir.path().join("installation.key"), KeyKind::Dev, entropy.as_ref()).unwrap();
        let target_entropy = Arc::new(TargetEntropy::new(time.clone(), entropy));
        let target = |settings| Arc::new(MemoryTarget::new(settings, target_entropy.clone()));
        let (orders, stock) = (target(setup.orders.clone()), target(Settings::of(Grade::Exact)));
        Self { dir, time, domain, identities, orders, stock, running: None }
    }

    /// Starts the broker on what the last one left.
    pub(crate) async fn start(&mut self, setup: &Setup) -> Result<(), StartError> {
        self.running = Some(self.start_another(setup).await?);
        Ok(())
    }

    /// Starts a broker, whether or not one runs.
    pub(crate) async fn start_another(&self, setup: &Setup) -> Result<Running, StartError> {
        let config = self.write_config(setup);
        let kind =
            MemoryKind::default().with("orders", self.orders.clone()).with("stock", self.stock.clone());
        let kinds: Vec<Box<dyn BackendKind>> =
            vec![Box::new(kind), Box::new(leasehold_postgres::PostgresKind)];
        let (time, limits, force) = (self.time.clone(), setup.limits, setup.force);
        let how = Start { trust: Trust::Dev, kinds, time, limits, force };
        start(&config, how).await
    }

    /// Writes the config as it would be started with.
    pub(crate) fn write_config(&self, setup: &Setup) -> PathBuf {
        self.write_config_as("leasehold.toml", setup)
    }

    /// Writes the config of one of several brokers.
    pub(crate) fn write_config_as(&self, name: &str, setup: &Setup) -> PathBuf {
        let uid = rustix::process::getuid().as_raw().to_string();
        let config = self.dir.path().join(name);
        std::fs::write(&config, setup.config.replace("UID", &uid)).unwrap();
        std::fs::write(self.dir.path().join("policy.cedar"), &setup.policy).unwrap();
        config
    }

    /// Stops the broker, as SIGTERM does.
    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    /// Stops the broker and starts the next one on what it left.
    pub(crate) async fn restart(&mut self, setup: &Setup) {
        self.stop().await;
        self.start(setup).await.unwrap_or_else(|error| panic!("the broker does not start again: {error}"));
    }

    /// Lets so many seconds pass.
    pub(crate) fn pass(&self, seconds: u64) {
        self.time.advance(Span::from_secs(seconds));
    }

    /// Lets so many seconds pass as a broker lives through them: it looks again and again. What passes between two of
    /// its looks is nobody's silence but for five seconds.
    pub(crate) async fn live_through(&self, broker: &Broker, seconds: u64) {
        for passed in (0..seconds).step_by(5) {
            self.pass(5.min(seconds - passed));
            broker.sweep_once(0).await;
        }
    }

    /// The broker that serves.
    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().expect("the broker serves")
    }

    /// The Workload API endpoint of an identity.
    pub(crate) fn endpoint(&self, name: &str) -> String {
        self.identity(name).endpoint()
    }

    /// One dev identity.
    pub(crate) fn identity(&self, name: &str) -> &DevIdentity {
        let found = self.identities.iter().find(|(known, _)| known == name);
        &found.unwrap_or_else(|| panic!("no identity {name}")).1
    }

    /// A file in the broker's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A client on the agents' door.
    pub(crate) async fn agent(&self, name: &str) -> Client {
        self.spiffe(name, self.running().agents).await
    }

    /// A client on the admin door, by SVID.
    pub(crate) async fn operator(&self, name: &str) -> Client {
        self.spiffe(name, self.running().admin_tcp[0]).await
    }

    /// A client on the agents' door of one of several brokers.
    pub(crate) async fn agent_at(&self, name: &str, broker: &Running) -> Client {
        self.spiffe(name, broker.agents).await
    }

    /// A client on the admin door of one of several brokers, by SVID.
    pub(crate) async fn operator_at(&self, name: &str, broker: &Running) -> Client {
        self.spiffe(name, broker.admin_tcp[0]).await
    }

    async fn spiffe(&self, name: &str, address: std::net::SocketAddr) -> Client {
        let channel = connect_spiffe(&self.endpoint(name), &address.to_string(), None, PATIENCE).await;
        Client::new(channel.unwrap_or_else(|error| panic!("{name} cannot connect: {error}")))
    }

    /// A client on the admin socket: the test's own user, an admin.
    pub(crate) async fn admin(&self) -> Client {
        Client::new(connect_unix(&self.path("admin/admin.sock")).await.unwrap())
    }

    /// The program: as an operator on the broker's host, and as a workload where one is named. Nothing of this machine's
    /// environment reaches it.
    pub(crate) fn program(&self, workload: Option<&str>, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_leasehold"));
        command.args(args).env_clear().env("PATH", "/usr/bin:/bin").current_dir(self.dir.path());
        let socket = format!("unix:{}", self.path("admin/admin.sock").display());
        command.env("LEASEHOLD_ADMIN_ADDR", socket).stdin(std::process::Stdio::null()).kill_on_drop(true);
        if let Some(name) = workload {
            command.env("SPIFFE_ENDPOINT_SOCKET", self.endpoint(name));
            command.env("LEASEHOLD_ADDR", self.running().agents.to_string());
        }
        command
    }

    /// What became of a run of the program as an operator: its exit code, and all that it said.
    pub(crate) async fn command(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.program(None, args).output().await.unwrap();
        let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.code(), told.concat())
    }

    /// A statement on the store, beside the broker.
    pub(crate) fn on_store(&self, sql: &str) {
        let store = rusqlite::Connection::open(self.path("store/leases.db")).unwrap();
        store.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// From now on nothing can be written down, as on a full disk.
    pub(crate) fn break_journal(&self) {
        for table in ["journal", "numbers"] {
            let full = "SELECT RAISE(ABORT, 'database or disk is full')";
            self.on_store(&format!("CREATE TRIGGER full_{table} BEFORE INSERT ON {table} BEGIN {full}; END"));
        }
    }

    /// Entries can be written again.
    pub(crate) fn mend_journal(&self) {
        self.on_store("DROP TRIGGER full_numbers; DROP TRIGGER full_journal");
    }

    /// How many principals a target holds.
    pub(crate) fn principals(target: &MemoryTarget) -> usize {
        target.accounts().len()
    }
}

/// Asks until the answer is yes; a condition of a real server, waited for with a bound.
pub(crate) async fn eventually<F, R>(what: &str, condition: F)
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    eventually_within(PATIENCE, what, condition).await;
}

/// As [`eventually`], with a bound of its own.
pub(crate) async fn eventually_within<F, R>(patience: Duration, what: &str, mut condition: F)
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    let until = tokio::time::Instant::now() + patience;
    let mut beat = tokio::time::interval(Duration::from_millis(20));
    loop {
        beat.tick().await;
        if condition().await {
            return;
        }
        assert!(tokio::time::Instant::now() < until, "never: {what}");
    }
}

/// Reads a file that must be there.
pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
