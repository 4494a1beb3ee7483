//! A broker as a process of its own, on a real PostgreSQL: it can be killed, restarted and looked at from outside.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use leasehold_client::channel::connect_spiffe;
use leasehold_law::journal::verify;
use leasehold_proto::v1;
use rustix::process::{Pid, Signal, kill_process};

use crate::site::{ADMIN, GROUP, Site};
use crate::world::{Client, PATIENCE, Setup, World, eventually};

/// What every child's agent asks for.
pub(crate) const PAIR: &str = "db.read@db";
/// What is left of a scope after narrowing.
pub(crate) const OTHER: &str = "db.count@db";

/// A child and all around it. What it leaves survives a restart.
pub(crate) struct Rig {
    pub(crate) world: World,
    /// What its roles can be told by.
    pub(crate) mark: String,
    pub(crate) setup: Setup,
    process: Option<Process>,
    runs: u32,
}

/// A broker's process, and what it wrote.
pub(crate) struct Process {
    child: Child,
    agents: Option<SocketAddr>,
    log: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Process {
    /// Starts a process with its output in a file.
    pub(crate) fn spawn(command: &mut Command, log: PathBuf) -> Self {
        let file = File::create(&log).unwrap();
        let child =
            command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self { child, agents: None, log }
    }

    /// Waits until it serves.
    pub(crate) async fn serves(&mut self) {
        eventually("the broker serves", || async {
            let text = self.log();
            assert!(self.is_running(), "the broker does not start: {text}");
            text.contains(SERVING)
        })
        .await;
        let text = self.log();
        let address = text.split(SERVING).nth(1).unwrap().split_whitespace().next().unwrap();
        self.agents = Some(address.parse().unwrap());
    }

    /// Where agents connect.
    pub(crate) fn agents(&self) -> SocketAddr {
        self.agents.expect("it serves")
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&self) -> bool {
        // A process that has ended and was not waited for is a zombie, which takes signals: look at its state.
        let status = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        status
            .rsplit(')')
            .next()
            .is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']) && !rest.is_empty())
    }

    /// What it wrote to its output.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Kills it, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.exit().await;
    }

    /// Waits until it has ended.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        eventually("the broker ends", || async { !self.is_running() }).await;
        self.child.wait().unwrap()
    }
}

impl Rig {
    /// Everything around a broker that reaches its target through `port`.
    pub(crate) async fn new(site: &Site, port: u16) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("m{}", NEXT.fetch_add(1, Ordering::SeqCst));
        let config = config(site, port, &mark);
        let setup = Setup { config, policy: "// No rule of its own.\n".to_owned(), ..Setup::default() };
        let world = World::prepare(&setup).await;
        Self { world, mark, setup, process: None, runs: 0 }
    }

    /// Starts a broker and waits until it serves.
    pub(crate) async fn start(&mut self, env: &[(&str, &str)]) {
        self.spawn(env);
        self.serves().await;
    }

    /// Waits until the broker serves.
    pub(crate) async fn serves(&mut self) {
        self.process.as_mut().expect("a broker runs").serves().await;
    }

    /// Starts a broker, whatever comes of it.
    pub(crate) fn spawn(&mut self, env: &[(&str, &str)]) {
        let config = self.world.write_config(&self.setup);
        self.spawn_with(serve(&config).arg("--dev-trust").envs(env.iter().copied()));
    }

    /// Starts a process with its output in a file of its own.
    pub(crate) fn spawn_with(&mut self, command: &mut Command) {
        self.runs += 1;
        let log = self.world.path(&format!("log-{}", self.runs));
        self.process = Some(Process::spawn(command, log));
    }

    /// The broker's process.
    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().expect("a broker runs")
    }

    /// The child's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process().child.id()
    }

    /// What this run wrote to its output.
    pub(crate) fn log(&self) -> String {
        self.process().log()
    }

    /// Kills it, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.process.as_mut().expect("a broker runs").kill().await;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// Waits until it has ended.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        self.process.as_mut().expect("a broker runs").exit().await
    }

    /// A client on the agents' door.
    pub(crate) async fn agent(&self) -> Client {
        let address = self.process().agents().to_string();
        let channel = connect_spiffe(&self.world.endpoint("triage"), &address, None, PATIENCE).await;
        Client::new(
            channel.unwrap_or_else(|error| panic!("the agent cannot connect: {error}\n{}", self.log())),
        )
    }

    /// A client on the admin socket.
    pub(crate) async fn admin(&self) -> Client {
        self.world.admin().await
    }

    /// Every lease that the broker knows, oldest first.
    pub(crate) async fn leases(&self) -> Vec<v1::Lease> {
        all_leases(&self.admin().await).await
    }

    /// How the target is after it was asked.
    pub(crate) async fn check_target(&self) -> v1::CheckTargetResponse {
        let request = v1::CheckTargetRequest { target: "db".into() };
        self.admin().await.targets.check_target(request).await.unwrap().into_inner()
    }

    /// The journal, verified as an auditor does.
    pub(crate) async fn journal(&self) -> String {
        journal(&self.admin().await).await
    }
}

/// Every lease that a broker knows, oldest first.
pub(crate) async fn all_leases(admin: &Client) -> Vec<v1::Lease> {
    let mut leases = Vec::new();
    let mut request = v1::ListLeasesRequest { page_size: 1000, ..v1::ListLeasesRequest::default() };
    loop {
        let page = admin.leases.clone().list_leases(request.clone()).await.unwrap().into_inner();
        leases.extend(page.leases);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    leases.sort_by(|one, other| one.id.cmp(&other.id));
    leases
}

/// A broker's journal, verified as an auditor does.
pub(crate) async fn journal(admin: &Client) -> String {
    let export = admin.audit.clone().export(v1::ExportRequest::default()).await;
    let (mut stream, mut bytes) = (export.unwrap().into_inner(), Vec::new());
    while let Some(piece) = stream.message().await.unwrap() {
        bytes.extend(piece.lines);
    }
    let text = String::from_utf8(bytes).unwrap();
    let head = verify(text.lines()).unwrap_or_else(|error| panic!("the chain is broken: {error}"));
    assert!(head.seq > 0, "an empty journal proves nothing");
    text
}

/// What the log says before the address, once the doors are open.
const SERVING: &str = "serving agents=";

/// The binary, told to serve.
pub(crate) fn serve(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
    command.arg("serve").arg("--config").arg(config).env_remove("RUST_LOG").env_remove("LEASEHOLD_LOG");
    command
}

fn config(site: &Site, port: u16, mark: &str) -> String {
    CONFIG
        .replace("SERVER", &site.port().to_string())
        .replace("PORT", &port.to_string())
        .replace("PASSWORD", site.password_file().to_str().unwrap())
        .replace("ADMIN", ADMIN)
        .replace("GROUP", GROUP)
        .replace("MARK", mark)
}

const CONFIG: &str = r#"
[broker]
name = "suite"
trust_domain = "suite.leasehold.test"
installation_key = "installation.key"
[listen]
agents = "127.0.0.1:0"
admin = ["unix:admin/admin.sock"]
[operators]
"uid:UID" = ["admin"]
[identity.spiffe]
workload_api = "unix:dev/leasehold.sock"
[store]
sqlite = "store/leases.db"
[people]
ana = { issuer = "https://idp.example", subject = "ana" }
[policy]
files = ["policy.cedar"]
[targets.db]
backend = "postgres"
owner = "person:ana"
labels = { env = "test" }
connect = { host = "127.0.0.1", port = PORT, dbname = "postgres" }
agents = { port = SERVER }
tls = "disable"
admin = { user = "ADMIN", password_file = "PASSWORD" }
limbo_wait = "3s"
pool = 2
[intents."db.read"]
class = "read-only"
[intents."db.count"]
class = "read-only"
[[grants]]
intent = "db.read"
targets = ["db"]
allow = ["agents:soc"]
recipe = { member_of = ["GROUP"], settings = { application_name = "MARK" } }
ttl = { default = "10m", max = "20m", life = "1h" }
[[grants]]
intent = "db.count"
targets = ["db"]
allow = ["agents:soc"]
recipe = { member_of = ["GROUP"], settings = { application_name = "MARK" } }
ttl = { default = "10m", max = "20m", life = "1h" }
[agents."spiffe://suite.leasehold.test/agent/triage"]
owner = "person:ana"
groups = ["soc"]
autonomy = "act"
"#;
