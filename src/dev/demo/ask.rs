//! Chapter 2: ask first.

use leasehold_client::v1;
use v1::decision::Outcome;

use super::stage::Stage;
use super::story::{Failure, Seen, Story, ensure};

pub(super) async fn tell(stage: &mut Stage, story: &mut Story<'_>) -> Seen<()> {
    let proposed = propose(stage).await?;
    story.line("propose orders.read@orders-db", &proposed)?;
    let what = format!("{} leased roles", stage.ground.prompt());
    story.claim(3, &what, nothing_minted(stage).await)?;
    Ok(())
}

async fn propose(stage: &Stage) -> Seen {
    let client = stage.agent("triage").await?;
    let request = v1::ProposeRequest {
        intent: "orders.read".to_owned(),
        target: "orders-db".to_owned(),
        ..v1::ProposeRequest::default()
    };
    let decision = client.call(client.leases().propose(request)).await?.decision;
    let decision = decision.ok_or_else(|| Failure::new("no decision came back"))?;
    ensure(decision.outcome() == Outcome::Allow, || format!("not allowed: {decision:?}"))?;
    Ok(format!("allow by \"{}\"; would mint {}", decision.policies.join(", "), decision.would_mint))
}

async fn nothing_minted(stage: &Stage) -> Seen {
    let roles = stage.leased().await?;
    ensure(roles.is_empty(), || format!("{} roles are there", roles.len()))?;
    Ok(match stage.vanishing {
        Some(_) => "0 besides the killed agent's: nothing was minted".to_owned(),
        None => "0: nothing was minted".to_owned(),
    })
}
