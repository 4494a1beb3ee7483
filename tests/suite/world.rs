//! A broker on real sockets, and clients of every sort.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use leasehold::clock::{SystemTime, TimeSource};
use leasehold::config::{KeyKind, Trust, write_installation_key};
use leasehold::dev::trust_domain::{DevIdentity, DevTrustDomain};
use leasehold::entropy::SystemEntropy;
use leasehold::identity::listener::Limits;
use leasehold::server::{Running, Start, StartError, start};
use leasehold_backend::{BackendKind, Entropy};
use leasehold_client::channel::{connect_spiffe, connect_unix};
use leasehold_law::lease::Grade;
use leasehold_law::time::{Span, Timestamp};
use leasehold_memory::{MemoryKind, MemoryTarget, Settings};
use leasehold_proto::v1;
use leasehold_proto::v1::admin_service_client::AdminServiceClient;
use leasehold_proto::v1::audit_service_client::AuditServiceClient;
use leasehold_proto::v1::identity_service_client::IdentityServiceClient;
use leasehold_proto::v1::lease_service_client::LeaseServiceClient;
use leasehold_proto::v1::revocation_service_client::RevocationServiceClient;
use leasehold_proto::v1::target_service_client::TargetServiceClient;
use leasehold_proto::v1::task_service_client::TaskServiceClient;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The trust domain of every test.
pub(crate) const DOMAIN: &str = "suite.leasehold.test";
/// SVIDs outlive any jump of the clock that a test makes.
const SVID_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// No test waits so long unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The host's clocks, moved by the test.
#[derive(Default)]
pub(crate) struct MovedTime {
    wall: AtomicI64,
    both: AtomicI64,
}

impl MovedTime {
    /// Lets time pass.
    pub(crate) fn advance(&self, span: Span) {
        self.both.fetch_add(i64::try_from(span.0).unwrap(), Ordering::SeqCst);
    }

    /// Moves the wall clock alone.
    pub(crate) fn step_wall(&self, millis: i64) {
        self.wall.fetch_add(millis, Ordering::SeqCst);
    }
}

impl TimeSource for MovedTime {
    fn wall(&self) -> Timestamp {
        let moved = self.wall.load(Ordering::SeqCst) + self.both.load(Ordering::SeqCst);
        SystemTime.wall().shifted(moved)
    }

    fn boot(&self) -> Span {
        Span(SystemTime.boot().0 + u64::try_from(self.both.load(Ordering::SeqCst)).unwrap())
    }
}

/// What a target's clock is in tests: the moved one.
#[derive(Clone)]
pub(crate) struct TargetEntropy(pub(crate) Arc<MovedTime>, Arc<SystemEntropy>);

impl std::fmt::Debug for TargetEntropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TargetEntropy")
    }
}

impl Entropy for TargetEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), leasehold_backend::kind::EntropyError> {
        self.1.fill(buffer)
    }

    fn now(&self) -> Timestamp {
        self.0.wall()
    }
}

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

/// What a test may change before the broker starts.
pub(crate) struct Setup {
    pub(crate) config: String,
    pub(crate) policy: String,
    pub(crate) orders: Settings,
    pub(crate) limits: Limits,
    /// As `serve --force` does.
    pub(crate) force: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            config: CONFIG.to_owned(),
            policy: POLICY.to_owned(),
            orders: Settings::of(Grade::Exact),
            // A test's clients are slower than people.
            limits: Limits { visitor_life: Duration::from_secs(600), ..Limits::default() },
            force: false,
        }
    }
}

const CONFIG: &str = r#"
[broker]
name = "suite"
trust_domain = "suite.leasehold.test"
installation_key = "installation.key"
[listen]
agents = "127.0.0.1:0"
admin = ["unix:admin/admin.sock", "127.0.0.1:0"]
[operators]
"uid:UID" = ["admin"]
"spiffe://suite.leasehold.test/operator/viewer" = ["viewer"]
"spiffe://suite.leasehold.test/operator/revoker" = ["revoker"]
"spiffe://suite.leasehold.test/operator/auditor" = ["auditor"]
"spiffe://suite.leasehold.test/operator/admin" = ["admin"]
[identity.spiffe]
workload_api = "unix:dev/leasehold.sock"
[store]
sqlite = "store/leases.db"
[people]
ana = { issuer = "https://idp.example", subject = "ana" }
ben = { issuer = "https://idp.example", subject = "ben" }
[groups]
data = ["ana", "ben"]
[policy]
files = ["policy.cedar"]
[targets.orders]
backend = "memory"
owner = "group:data"
labels = { env = "test" }
[targets.stock]
backend = "memory"
owner = "group:data"
labels = { env = "prod" }
[intents."orders.read"]
class = "read-only"
params = { reason = { enum = ["triage", "audit"], type = "string", optional = true } }
[intents."orders.write"]
class = "reversible"
[intents."orders.purge"]
class = "irreversible"
[intents."stock.read"]
class = "read-only"
[[grants]]
intent = "orders.read"
targets = ["orders"]
allow = ["agents:soc"]
recipe = { role = "reader" }
ttl = { default = "10m", max = "15m", life = "1h" }
[[grants]]
intent = "orders.write"
targets = ["orders"]
recipe = { role = "writer" }
ttl = { default = "5m", max = "10m", life = "10m" }
[[grants]]
intent = "orders.purge"
targets = ["orders"]
allow = ["agents:soc"]
recipe = { role = "purger" }
ttl = { default = "5m", max = "10m", life = "10m" }
[[grants]]
intent = "stock.read"
targets = ["stock"]
allow = ["agents:soc"]
recipe = { role = "reader" }
ttl = { default = "10m", max = "15m", life = "1h" }
[agents."spiffe://suite.leasehold.test/agent/triage"]
owner = "person:ana"
groups = ["soc"]
autonomy = "act"
[agents."spiffe://suite.leasehold.test/agent/other"]
owner = "person:ben"
groups = ["soc"]
autonomy = "act"
"#;

const POLICY: &str = r#"
@id("reads-are-brief")
forbid (principal in AgentGroup::"soc", action == Action::"orders.read", resource == Target::"orders")
when { context.ttl > duration("30m") };
"#;

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

impl Setup {
    /// With a passage of the config put otherwise.
    pub(crate) fn replace(mut self, passage: &str, with: &str) -> Self {
        assert!(self.config.contains(passage), "the config has no passage {passage}");
        self.config = self.config.replace(passage, with);
        self
    }

    /// With one more policy.
    pub(crate) fn policy(mut self, policy: &str) -> Self {
        self.policy.push_str(policy);
        self
    }

    /// With `orders` of another grade.
    pub(crate) fn grade(mut self, grade: Grade) -> Self {
        self.orders = Settings::of(grade);
        self
    }
}

/// Lets the agents of the tests write orders.
pub(crate) const WRITES: &str = r#"
@id("orders-may-be-written")
permit (principal in AgentGroup::"soc", action == Action::"orders.write", resource == Target::"orders");
"#;

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
        let domain = DevTrustDomain::open(&dir.path().join("dev"), DOMAIN, SVID_LIFE, now).unwrap();
        let mut identities = Vec::new();
        for (name, path) in IDENTITIES {
            identities.push(((*name).to_owned(), domain.serve(name, path).await.unwrap()));
        }
        let time = Arc::new(MovedTime::default());
        let clock = Arc::new(leasehold::clock::Clock::new(time.clone(), None));
        let entropy = SystemEntropy::new(clock);
        write_installation_key(&dir.path().join("installation.key"), KeyKind::Dev, entropy.as_ref()).unwrap();
        let target_entropy = Arc::new(TargetEntropy(time.clone(), entropy));
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

/// Every service over one channel.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) tasks: TaskServiceClient<Channel>,
    pub(crate) leases: LeaseServiceClient<Channel>,
    pub(crate) identity: IdentityServiceClient<Channel>,
    pub(crate) revocations: RevocationServiceClient<Channel>,
    pub(crate) audit: AuditServiceClient<Channel>,
    pub(crate) targets: TargetServiceClient<Channel>,
    pub(crate) admin: AdminServiceClient<Channel>,
    pub(crate) channel: Channel,
}

impl Client {
    pub(crate) fn new(channel: Channel) -> Self {
        Self {
            tasks: TaskServiceClient::new(channel.clone()),
            leases: LeaseServiceClient::new(channel.clone()),
            identity: IdentityServiceClient::new(channel.clone()),
            revocations: RevocationServiceClient::new(channel.clone()),
            audit: AuditServiceClient::new(channel.clone()),
            targets: TargetServiceClient::new(channel.clone()),
            admin: AdminServiceClient::new(channel.clone()),
            channel,
        }
    }

    /// Opens a task over these pairs.
    pub(crate) async fn open(&mut self, pairs: &[&str]) -> Result<v1::Task, Status> {
        self.open_as(open_request(pairs)).await
    }

    /// Opens a task.
    pub(crate) async fn open_as(&mut self, request: v1::OpenTaskRequest) -> Result<v1::Task, Status> {
        Ok(self.tasks.open_task(request).await?.into_inner().task.unwrap())
    }

    /// Requests a lease.
    pub(crate) async fn lease(
        &mut self,
        task: &v1::Task,
        pair: &str,
    ) -> Result<v1::RequestLeaseResponse, Status> {
        Ok(self.leases.request_lease(lease_request(task, pair)).await?.into_inner())
    }

    /// Gives a lease back and waits until it is dead.
    pub(crate) async fn release(&mut self, lease: &str) -> Result<v1::ReleaseLeaseResponse, Status> {
        let request = v1::ReleaseLeaseRequest { lease: lease.to_owned(), wait: seconds(20) };
        Ok(self.leases.release_lease(request).await?.into_inner())
    }

    /// Renews a lease for so many seconds.
    pub(crate) async fn renew(&mut self, lease: &str, ttl: i64) -> Result<v1::RenewLeaseResponse, Status> {
        let request =
            v1::RenewLeaseRequest { lease: lease.to_owned(), ttl: seconds(ttl), request_id: fresh_id() };
        Ok(self.leases.renew_lease(request).await?.into_inner())
    }

    /// Changes the scope of a task, and waits until what no longer fits is dead.
    pub(crate) async fn change(
        &mut self,
        task: &v1::Task,
        scope: Vec<v1::ScopePair>,
    ) -> Result<v1::ChangeScopeResponse, Status> {
        let request = v1::ChangeScopeRequest { task: task.id.clone(), scope, wait: seconds(20) };
        Ok(self.tasks.change_scope(request).await?.into_inner())
    }

    /// A task as it stands.
    pub(crate) async fn task(&mut self, task: &v1::Task) -> v1::Task {
        let request = v1::GetTaskRequest { task: task.id.clone() };
        self.tasks.get_task(request).await.unwrap().into_inner()
    }

    /// Waits until a lease is in a state.
    pub(crate) async fn until_lease(&self, lease: &str, state: v1::LeaseState) -> v1::Lease {
        let mut client = self.clone();
        eventually(&format!("{lease} is {state:?}"), || {
            let mut client = client.clone();
            async move { client.look(lease).await.state() == state }
        })
        .await;
        client.look(lease).await
    }

    /// Waits until a task is in a state.
    pub(crate) async fn until_task(&self, task: &v1::Task, state: v1::TaskState) -> v1::Task {
        let mut client = self.clone();
        eventually(&format!("{} is {state:?}", task.id), || {
            let mut client = client.clone();
            async move { client.task(task).await.state() == state }
        })
        .await;
        client.task(task).await
    }

    /// A lease as it stands.
    pub(crate) async fn look(&mut self, lease: &str) -> v1::Lease {
        self.leases.get_lease(v1::GetLeaseRequest { lease: lease.to_owned() }).await.unwrap().into_inner()
    }

    /// Completes a task and waits until its leases are dead.
    pub(crate) async fn complete(&mut self, task: &v1::Task) -> Result<v1::CompleteTaskResponse, Status> {
        let request = v1::CompleteTaskRequest { task: task.id.clone(), wait: seconds(20) };
        Ok(self.tasks.complete_task(request).await?.into_inner())
    }
}

/// A request id that no other has.
pub(crate) fn fresh_id() -> String {
    static NEXT: AtomicI64 = AtomicI64::new(0);
    format!("r-{}", NEXT.fetch_add(1, Ordering::SeqCst))
}

pub(crate) fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

pub(crate) fn scope(pairs: &[&str]) -> Vec<v1::ScopePair> {
    let pair = |text: &&str| {
        let (intent, target) = text.split_once('@').unwrap();
        v1::ScopePair { intent: intent.into(), target: target.into(), ..v1::ScopePair::default() }
    };
    pairs.iter().map(pair).collect()
}

pub(crate) fn open_request(pairs: &[&str]) -> v1::OpenTaskRequest {
    v1::OpenTaskRequest {
        request_id: fresh_id(),
        purpose: "a test".into(),
        scope: scope(pairs),
        liveness: by_deadline(),
        ..v1::OpenTaskRequest::default()
    }
}

pub(crate) fn lease_request(task: &v1::Task, pair: &str) -> v1::RequestLeaseRequest {
    let (intent, target) = pair.split_once('@').unwrap();
    v1::RequestLeaseRequest {
        task: task.id.clone(),
        intent: intent.into(),
        target: target.into(),
        request_id: fresh_id(),
        attempt: 1,
        ..v1::RequestLeaseRequest::default()
    }
}

/// Held by its deadline alone: moving time loses no such task.
pub(crate) fn by_deadline() -> Option<v1::Liveness> {
    Some(v1::Liveness { kind: Some(v1::liveness::Kind::Deadline(v1::liveness::Deadline {})) })
}

/// Held by heartbeats.
pub(crate) fn by_heartbeat(grace: i64) -> Option<v1::Liveness> {
    let heartbeat = v1::liveness::Heartbeat { grace: seconds(grace) };
    Some(v1::Liveness { kind: Some(v1::liveness::Kind::Heartbeat(heartbeat)) })
}

/// Name and password of a credential.
pub(crate) fn login(granted: &v1::RequestLeaseResponse) -> (String, Vec<u8>) {
    let credential = granted.credential.as_ref().unwrap();
    (credential.public["user"].clone(), credential.secret["password"].clone())
}

/// The moment on the wire, in milliseconds.
pub(crate) fn millis(at: Option<prost_types::Timestamp>) -> i64 {
    let at = at.expect("a moment");
    at.seconds * 1000 + i64::from(at.nanos) / 1_000_000
}

/// What a refusal says, in metadata.
pub(crate) fn detail(status: &Status, key: &str) -> String {
    let info = status.get_details_error_info();
    info.and_then(|info| info.metadata.get(key).cloned()).unwrap_or_default()
}

/// Code and reason of a call that must be refused.
pub(crate) fn refused<T>(answer: Result<T, Status>) -> (Code, String) {
    match answer {
        Ok(_) => panic!("it should have been refused"),
        Err(status) => (status.code(), reason(&status)),
    }
}

/// The reason's word in a refusal.
pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_else(|| format!("{status:?}"))
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
