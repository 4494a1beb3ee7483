//! What a broker of a test is started with, and the clocks that it and its targets go by.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use leasehold::clock::{SystemTime, TimeSource};
use leasehold::entropy::SystemEntropy;
use leasehold::identity::listener::Limits;
use leasehold_backend::Entropy;
use leasehold_law::lease::Grade;
use leasehold_law::time::{Span, Timestamp};
use leasehold_memory::Settings;

/// What a test may change before the broker starts.
pub(crate) struct Setup {
    pub(crate) config: String,
    pub(crate) policy: String,
    pub(crate) orders: Settings,
    pub(crate) limits: Limits,
    /// How long an SVID of the trust domain lives; it rotates at half of it.
    pub(crate) svid_life: Duration,
    /// As `serve --force` does.
    pub(crate) force: bool,
}

/// SVIDs outlive any jump of the clock that a test makes.
const SVID_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

impl Default for Setup {
    fn default() -> Self {
        Self {
            config: CONFIG.to_owned(),
            policy: POLICY.to_owned(),
            orders: Settings::of(Grade::Exact),
            // A test's clients are slower than people.
            limits: Limits { visitor_life: Duration::from_secs(600), ..Limits::default() },
            svid_life: SVID_LIFE,
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

impl TargetEntropy {
    pub(crate) fn new(time: Arc<MovedTime>, bits: Arc<SystemEntropy>) -> Self {
        Self(time, bits)
    }
}

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
