//! The broker: a child process of the same program, killed and started again like any other.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use leasehold_client::{Client, Options, v1};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::story::{Failure, Seen, ensure, until};

const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(15);

/// A broker that serves.
pub(super) struct BrokerProcess {
    child: Child,
    pub(super) pid: u32,
}

/// Where a broker's things are.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The program that is both demo and broker.
    pub(super) program: PathBuf,
    pub(super) dir: PathBuf,
    /// The agents' door.
    pub(super) agents: String,
}

impl Place {
    pub(super) fn config(&self) -> PathBuf {
        self.dir.join("leasehold.toml")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("broker.log")
    }

    pub(super) fn admin(&self) -> String {
        format!("unix:{}", self.dir.join("admin/admin.sock").display())
    }

    /// What a client of this broker reads from its environment.
    pub(super) fn environment(&self, workload_api: &str) -> [(&'static str, String); 3] {
        [
            ("SPIFFE_ENDPOINT_SOCKET", workload_api.to_owned()),
            ("LEASEHOLD_ADDR", self.agents.clone()),
            ("LEASEHOLD_ADMIN_ADDR", self.admin()),
        ]
    }

    pub(super) fn options(&self, workload_api: &str) -> Options {
        let table = self.environment(workload_api);
        Options::from_lookup(|key| {
            table.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone())
        })
    }
}

impl BrokerProcess {
    /// Starts a broker that logs at TRACE, and waits until it answers.
    pub(super) async fn start(place: &Place) -> Seen<Self> {
        let mut child = Command::new(&place.program)
            .args(["serve", "--dev-trust", "--config"])
            .arg(place.config())
            .env("RUST_LOG", "trace")
            .env("LEASEHOLD_LOG", "json")
            .stdin(Stdio::null())
            .stdout(log(&place.log())?)
            .stderr(log(&place.log())?)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or_else(|| Failure::new("the broker ended at once"))?;
        until("the broker answers", START, async || {
            if let Some(status) = child.try_wait()? {
                return Err(Failure::new(format!(
                    "the broker ended with {status}: {}",
                    last_words(&place.log())
                )));
            }
            Ok(answers(place).await.then_some(()))
        })
        .await?;
        Ok(Self { child, pid })
    }

    /// kill -9.
    pub(super) async fn kill(mut self) -> Seen<()> {
        Ok(self.child.kill().await?)
    }

    /// SIGTERM, and wait for the end.
    pub(super) async fn stop(mut self) -> Seen<ExitStatus> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        kill_process(pid.ok_or_else(|| Failure::new("no such process"))?, Signal::TERM)?;
        let ended = tokio::time::timeout(STOP, self.child.wait()).await;
        let status =
            ended.map_err(|_| Failure::new(format!("not stopped within {} s", STOP.as_secs())))??;
        ensure(status.success(), || format!("the broker ended with {status}"))?;
        Ok(status)
    }
}

fn log(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Of a folder that will be gone.
fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or("it said nothing").to_owned()
}

async fn answers(place: &Place) -> bool {
    let Ok(client) = Client::connect_admin(place.options("")).await else { return false };
    client.call(client.admin().status(v1::StatusRequest {})).await.is_ok()
}
