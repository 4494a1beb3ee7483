//! Chapter 5: the attacker's turn.

use std::time::Duration;

use super::ground::Attacker;
use super::stage::Stage;
use super::story::{Failure, Seen, Story, ensure, until};

const SAME: &str = "the same client on a Leasehold lease";
const WAIT: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_secs(2);

pub(super) async fn tell(stage: &mut Stage, story: &mut Story<'_>) -> Seen<()> {
    let ground = stage.ground.clone();
    let Some(attacker) = ground.attacker() else {
        story.not_here(10, SAME)?;
        return Ok(());
    };
    let rows = attacker.control().await?;
    ensure(rows > 0, || "the control read nothing: the attack does not work here".to_owned())?;
    story.line(
        "control: NOLOGIN, terminate, DROP ROLE",
        &format!("attacker reads {rows} rows after the drop"),
    )?;
    story.claim(10, SAME, on_a_lease(stage, attacker).await)?;
    Ok(())
}

async fn on_a_lease(stage: &Stage, attacker: &dyn Attacker) -> Seen {
    let task = stage
        .agent("triage")
        .await?
        .task()
        .scope("orders.read@orders-db")
        .purpose("the attack")
        .open()
        .await?;
    let lease = task.lease("orders.read@orders-db").await?;
    let role = lease.lease().principal;
    let late = attacker.begin(&lease.credential()).await?;
    let ended = lease.release_within(WAIT).await?;
    ensure(ended.pending.is_empty(), || ended.to_string())?;
    let told = match late.outcome().await? {
        Ok(rows) => return Err(Failure::new(format!("the attacker read {rows} rows"))),
        Err(told) => told,
    };
    // Somebody's honest login may be half-way for a moment.
    until("no login is half-way", MOMENT, async || Ok((attacker.half_way().await? == 0).then_some(())))
        .await?;
    ensure(stage.ground.leased().await?.iter().all(|found| found.name != role), || {
        format!("{role} is there")
    })?;
    task.complete().await?;
    Ok(format!("0 rows, {told}; limbo empty, role gone"))
}
