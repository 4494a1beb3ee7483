//! Chapter 6: three ways to end.

use std::time::{Duration, Instant};

use leasehold_client::{Client, Credential, Task, v1, wire_duration};

use super::ground::Ground;
use super::stage::{DOMAIN, Stage};
use super::story::{Failure, Seen, Story, ensure, seconds, until};

const WAIT: Duration = Duration::from_secs(20);
const REASON: &str = "demo";
const TASKS: usize = 2;
const LEASES: usize = 6;

pub(super) async fn tell(stage: &mut Stage, story: &mut Story<'_>) -> Seen<()> {
    story.claim(11, "task completed", completed(stage).await)?;
    story.claim(12, "agent killed -9, no goodbye", vanished(stage).await)?;
    let revoked = revoked(stage).await;
    let id = revoked.as_ref().map(|(id, _)| id.clone()).unwrap_or_default();
    story.claim(13, "revoke --agent, dry run, then for real", revoked.map(|(_, seen)| seen))?;
    story.claim(14, "its next request", frozen(stage, &id).await)?;
    Ok(())
}

/// The end is told by the agent, and watched at the target meanwhile.
async fn completed(stage: &Stage) -> Seen {
    let ground = stage.ground.as_ref();
    let task = stage
        .agent("triage")
        .await?
        .task()
        .scope("orders.read@orders-db")
        .purpose("short work")
        .open()
        .await?;
    let lease = task.lease("orders.read@orders-db").await?;
    let (role, credential) = (lease.lease().principal, lease.credential());
    ensure(ground.accepts(&credential).await?, || "the login never worked".to_owned())?;
    let begun = Instant::now();
    let (ended, refused, gone) =
        tokio::join!(task.complete(), refused(ground, &credential, begun), gone(ground, &role, begun));
    let ended = ended?;
    ensure(ended.pending.is_empty(), || ended.to_string())?;
    Ok(format!("login refused after {}, read back as gone after {}", seconds(refused?), seconds(gone?)))
}

async fn refused(ground: &dyn Ground, credential: &Credential, begun: Instant) -> Seen<Duration> {
    let look = async || Ok((!ground.accepts(credential).await?).then(|| begun.elapsed()));
    until("its login is refused", WAIT, look).await
}

async fn gone(ground: &dyn Ground, role: &str, begun: Instant) -> Seen<Duration> {
    let look =
        async || Ok(ground.leased().await?.iter().all(|found| found.name != role).then(|| begun.elapsed()));
    until("its role is gone", WAIT, look).await
}

async fn vanished(stage: &mut Stage) -> Seen {
    let vanishing = stage.vanishing.take().ok_or_else(|| Failure::new("no agent vanished"))?;
    let gone = vanishing.collect().await?;
    let later = gone.gone_after.saturating_sub(gone.lost_after);
    Ok(format!(
        "lost {} s after the kill (30 s of silence), role gone {} later",
        gone.lost_after.as_secs(),
        seconds(later)
    ))
}

/// The revocation's id, and what was seen.
async fn revoked(stage: &Stage) -> Seen<(String, String)> {
    let (tasks, admin) = (batch(stage).await?, stage.admin().await?);
    let before = stage.leased().await?.len();
    let dry = revoke(&admin, true).await?;
    let exact = dry.outcomes.iter().filter(|outcome| outcome.grade() == v1::Grade::Exact).count();
    let radius = (dry.tasks.len(), dry.outcomes.len(), exact);
    ensure(radius == (TASKS, LEASES, LEASES), || format!("the dry run says {radius:?}"))?;
    let untouched = stage.leased().await?.len();
    ensure(before == LEASES && untouched == before, || {
        format!("{before} roles, {untouched} after a dry run")
    })?;
    let begun = Instant::now();
    let real = revoke(&admin, false).await?;
    let took = begun.elapsed();
    let counts = real.counts.unwrap_or_default();
    let left = stage.leased().await?.len();
    ensure(left == 0, || format!("{left} roles are there"))?;
    ensure(counts.confirmed as usize == LEASES, || format!("{counts:?}"))?;
    drop(tasks);
    let seen = format!(
        "{TASKS} tasks, {LEASES} leases, all exact; {} of {LEASES} confirmed in {}",
        counts.confirmed,
        seconds(took)
    );
    Ok((real.id, seen))
}

async fn batch(stage: &Stage) -> Seen<Vec<Task>> {
    let client = stage.agent("batch").await?;
    let mut tasks = Vec::new();
    for _ in 0..TASKS {
        let task =
            client.task().scope("orders.read@orders-db").scope("stock.read@orders-db").purpose("a batch");
        let task = task.open().await?;
        for pair in ["orders.read@orders-db", "stock.read@orders-db", "orders.read@orders-db"] {
            // The task keeps what it leased.
            drop(task.lease(pair).await?);
        }
        tasks.push(task);
    }
    Ok(tasks)
}

async fn revoke(admin: &Client, dry_run: bool) -> Seen<v1::Revocation> {
    let agent = v1::selector::Kind::Agent(format!("spiffe://{DOMAIN}/agent/batch"));
    let request = v1::RevokeRequest {
        selector: Some(v1::Selector { kind: Some(agent) }),
        freeze: None,
        dry_run,
        reason: REASON.to_owned(),
        wait: wire_duration(WAIT),
    };
    let mut stream = admin.call(admin.revocations().revoke(request)).await?;
    let mut last = None;
    while let Some(progress) = stream.message().await? {
        last = progress.revocation.or(last);
    }
    last.ok_or_else(|| Failure::new("the stream said nothing"))
}

async fn frozen(stage: &Stage, revocation: &str) -> Seen {
    let answer =
        stage.agent("batch").await?.task().scope("orders.read@orders-db").purpose("again").open().await;
    let error = answer.err().ok_or_else(|| Failure::new("a frozen agent opened a task"))?;
    ensure(error.is("FROZEN"), || error.to_string())?;
    let told = format!("{error:?}");
    ensure(told.contains(revocation) && told.contains(REASON), || told.clone())?;
    let left = stage.leased().await?.len();
    ensure(left == 0, || format!("{left} roles are there"))?;
    Ok(format!("denied FROZEN by {revocation}, reason \"{REASON}\""))
}
