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

/// A child and all around it. What it leaves survives a restart.
pub(crate) struct Rig {
    pub(crate) world: World,
    /// What its roles can be told by.
    pub(crate) mark: String,
    pub(crate) setup: Setup,
    process: Option<Process>,
    runs: u32,
}

struct Process {
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
        let log = self.log_file().to_owned();
        eventually("the broker serves", || async {
            let text = std::fs::read_to_string(&log).unwrap();
            assert!(self.is_running(), "the broker does not start: {text}");
            text.contains(SERVING)
        })
        .await;
        let text = self.log();
        let address = text.split(SERVING).nth(1).unwrap().split_whitespace().next().unwrap();
        self.process.as_mut().unwrap().agents = Some(address.parse().unwrap());
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
        let file = File::create(&log).unwrap();
        let child =
            command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        self.process = Some(Process { child, agents: None, log });
    }

    fn is_running(&self) -> bool {
        // A process that has ended and was not waited for is a zombie, which takes signals: look at its state.
        let status = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        status
            .rsplit(')')
            .next()
            .is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']) && !rest.is_empty())
    }

    /// The child's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("a broker runs").child.id()
    }

    fn log_file(&self) -> &Path {
        &self.process.as_ref().expect("a broker runs").log
    }

    /// What this run wrote to its output.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap()
    }

    /// Kills it, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.exit().await;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until it has ended.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        eventually("the broker ends", || async { !self.is_running() }).await;
        self.process.as_mut().unwrap().child.wait().unwrap()
    }

    /// A client on the agents' door.
    pub(crate) async fn agent(&self) -> Client {
        let address = self.process.as_ref().unwrap().agents.expect("it serves").to_string();
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
        let mut admin = self.admin().await;
        let request = v1::ListLeasesRequest { page_size: 1000, ..v1::ListLeasesRequest::default() };
        let mut leases = admin.leases.list_leases(request).await.unwrap().into_inner().leases;
        leases.sort_by(|one, other| one.id.cmp(&other.id));
        leases
    }

    /// How the target is after it was asked.
    pub(crate) async fn check_target(&self) -> v1::CheckTargetResponse {
        let request = v1::CheckTargetRequest { target: "db".into() };
        self.admin().await.targets.check_target(request).await.unwrap().into_inner()
    }

    /// The journal, verified as an auditor does.
    pub(crate) async fn journal(&self) -> String {
        let mut admin = self.admin().await;
        let mut stream = admin.audit.export(v1::ExportRequest::default()).await.unwrap().into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = stream.message().await.unwrap() {
            bytes.extend(piece.lines);
        }
        let text = String::from_utf8(bytes).unwrap();
        let head = verify(text.lines()).unwrap_or_else(|error| panic!("the chain is broken: {error}"));
        assert!(head.seq > 0, "an empty journal proves nothing");
        text
    }
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
