//! Chapter 1: who are you.

use leasehold_client::{ChannelError, Client, ClientError, Options};

use super::search;
use super::stage::{DOMAIN, Stage};
use super::story::{Failure, Seen, Story};

pub(super) async fn tell(stage: &mut Stage, story: &mut Story<'_>) -> Seen<()> {
    story.claim(1, "stranger, SVID of another trust domain", stranger(stage).await)?;
    story.claim(2, "agent/nobody, right domain, unregistered", nobody(stage).await)?;
    Ok(())
}

/// The alert is what the stranger's own TLS library read from the wire.
async fn stranger(stage: &Stage) -> Seen {
    let mut table = stage.place.environment(&stage.stranger()).to_vec();
    table.push(("LEASEHOLD_SERVER_ID", format!("spiffe://{DOMAIN}/leasehold")));
    let look = |key: &str| table.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone());
    match Client::connect(Options::from_lookup(look)).await {
        Ok(_) => Err(Failure::new("the stranger was let in")),
        Err(ClientError::Connect(ChannelError::Refused { alert, .. })) => {
            Ok(format!("refused in the handshake: {alert}"))
        }
        Err(other) => Err(other.into()),
    }
}

/// Whether it is on record is read from the store's own files.
async fn nobody(stage: &Stage) -> Seen {
    let client = stage.agent("nobody").await?;
    let answer = client.task().scope("orders.read@orders-db").purpose("to try").open().await;
    let error = answer.err().ok_or_else(|| Failure::new("nobody opened a task"))?;
    let decision =
        error.refusal().filter(|_| error.is("UNKNOWN_AGENT")).and_then(|refusal| refusal.decision.clone());
    let Some(decision) = decision else { return Err(error.into()) };
    match search::count(&stage.files()?, &decision)? {
        0 => Err(Failure::new(format!("denied, but {decision} is not on record"))),
        _ => Ok(format!("denied UNKNOWN_AGENT, on record as {decision}")),
    }
}
