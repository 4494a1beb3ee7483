//! The agent that vanishes: `leasehold exec`, killed with -9 while it holds a lease. Begun first, since its silence takes
//! half a minute; looked after in the background.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold_client::{Client, v1};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::ground::Ground;
use super::stage::{DOMAIN, Stage};
use super::story::{Failure, Patience, Seen, until};

const START: Duration = Duration::from_secs(20);
const LOST: Duration = Duration::from_secs(90);

/// What the agent left, and who looks after it.
pub(super) struct Vanishing {
    pub(super) role: String,
    watch: JoinHandle<Seen<Gone>>,
}

/// When what happened.
pub(super) struct Gone {
    /// From the kill until the task was called lost.
    pub(super) lost_after: Duration,
    /// From the kill until the target had no such role.
    pub(super) gone_after: Duration,
}

impl Vanishing {
    /// Lets the agent lease, and kills it.
    pub(super) async fn begin(stage: &Stage) -> Seen<Self> {
        // Secrets of `exec` lie in memory; what a killed one leaves there is removed with this folder.
        let secrets = TempDir::with_prefix_in("leasehold-demo-", "/dev/shm")?;
        let mut agent = exec(stage, &secrets)?;
        let admin = stage.admin().await?;
        let lease = until("the vanishing agent leases", START, async || leased(&admin).await).await?;
        let roles = stage.ground.leased().await?;
        let role = roles.into_iter().find(|role| role.name == lease.principal);
        let role = role.ok_or_else(|| Failure::new("the vanishing agent's role is not there"))?.name;
        agent.kill().await?;
        let watch = watch(admin, stage.ground.clone(), lease.task, role.clone(), secrets);
        Ok(Self { role, watch: tokio::spawn(watch) })
    }

    /// Waits for its end.
    pub(super) async fn collect(self) -> Seen<Gone> {
        self.watch.await?
    }
}

/// `cat` ends when its input does: nothing of the agent is left behind.
fn exec(stage: &Stage, secrets: &TempDir) -> Seen<Child> {
    let environment = stage.place.environment(&stage.endpoint("vanishing")?);
    let agent = Command::new(&stage.place.program)
        .args(["exec", "--lease", "orders.read@orders-db", "--purpose", "will vanish", "--", "cat"])
        .envs(environment)
        .env("XDG_RUNTIME_DIR", secrets.path())
        .env_remove("LEASEHOLD_TASK")
        .env_remove("LEASEHOLD_SERVER_ID")
        .current_dir(&stage.place.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    Ok(agent?)
}

async fn leased(admin: &Client) -> Seen<Option<v1::Lease>> {
    let request = v1::ListLeasesRequest {
        agent: format!("spiffe://{DOMAIN}/agent/vanishing"),
        live: true,
        ..Default::default()
    };
    let leases = admin.call(admin.leases().list_leases(request)).await?.leases;
    Ok(leases.into_iter().find(|lease| lease.state() == v1::LeaseState::Active))
}

async fn watch(
    admin: Client,
    ground: Arc<dyn Ground>,
    task: String,
    role: String,
    _secrets: TempDir,
) -> Seen<Gone> {
    let killed = Instant::now();
    let mut lost_after = None;
    let mut patience = Patience::new("the vanished agent's role is gone", LOST);
    let gone_after = loop {
        patience.next().await?;
        if lost_after.is_none() && is_lost(&admin, &task).await? {
            lost_after = Some(killed.elapsed());
        }
        if ground.leased().await?.iter().all(|found| found.name != role) {
            break killed.elapsed();
        }
    };
    let lost = is_lost(&admin, &task).await?;
    let lost_after = lost_after.or(lost.then_some(gone_after));
    Ok(Gone {
        lost_after: lost_after.ok_or_else(|| Failure::new("gone, and its task is not lost"))?,
        gone_after,
    })
}

async fn is_lost(admin: &Client, task: &str) -> Seen<bool> {
    let task = admin.call(admin.tasks().get_task(v1::GetTaskRequest { task: task.to_owned() })).await?;
    Ok(task.state() != v1::TaskState::Open && task.cause() == v1::Cause::TaskLost)
}
