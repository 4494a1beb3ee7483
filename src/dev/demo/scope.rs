//! Chapter 4: the scope narrows in the middle of a query.

use std::time::{Duration, Instant};

use leasehold_client::{v1, wire_duration};

use super::ground::Session;
use super::stage::Stage;
use super::story::{Seen, Story, ensure, seconds};

/// The query runs for so long before the scope changes.
const HEAD_START: Duration = Duration::from_millis(300);
const WAIT: Duration = Duration::from_secs(20);

pub(super) async fn tell(stage: &mut Stage, story: &mut Story<'_>) -> Seen<()> {
    let ground = stage.ground.clone();
    let work = stage.work().await?;
    let task = work.task.id().to_owned();
    let (orders, stock) = (work.orders.credential(), work.stock.credential());
    let stock_role = work.stock.lease().principal;
    let (query, other) = (ground.login(&orders).await?, ground.login(&stock).await?);
    story.claim(8, "triage> select pg_sleep(60)", cut(stage, &task, query.as_ref()).await)?;
    let there = ground.leased().await?.iter().any(|role| role.name == stock_role && role.alive);
    let untouched = ensure(there && other.answers().await, || "it was cut as well".to_owned());
    let seen = untouched.map(|()| "still answers: only what no longer fits was cut".to_owned());
    story.claim(9, "triage> its other lease, stock.read", seen)?;
    if let Some(work) = stage.work.take() {
        work.task.complete().await?;
    }
    Ok(())
}

/// Measured from the agent's own change of scope to the end of its query.
async fn cut(stage: &Stage, task: &str, query: &dyn Session) -> Seen {
    let (cut, changed) = tokio::join!(async { (query.work_until_cut().await, Instant::now()) }, async {
        tokio::time::sleep(HEAD_START).await;
        narrow(stage, task).await
    });
    let (told, after) = (cut.0?, cut.1.saturating_duration_since(changed?));
    Ok(format!("{told}, after {}", seconds(after)))
}

/// Takes orders.read out of the scope, and says when it began to.
async fn narrow(stage: &Stage, task: &str) -> Seen<Instant> {
    let client = stage.agent("triage").await?;
    let pair = v1::ScopePair {
        intent: "stock.read".to_owned(),
        target: "orders-db".to_owned(),
        ..v1::ScopePair::default()
    };
    let begun = Instant::now();
    let request =
        v1::ChangeScopeRequest { task: task.to_owned(), scope: vec![pair], wait: wire_duration(WAIT) };
    let changed = client.call(client.tasks().change_scope(request)).await?;
    ensure(changed.pending.is_empty(), || format!("pending: {:?}", changed.pending))?;
    Ok(begun)
}
