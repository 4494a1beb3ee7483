//! Chapter 7: kill -9 the broker while it mints.

use std::time::{Duration, Instant};

use leasehold_client::{Client, v1};

use super::broker::BrokerProcess;
use super::search;
use super::stage::Stage;
use super::story::{Failure, Seen, Story, ensure, seconds, until};

const WAIT: Duration = Duration::from_secs(20);

pub(super) async fn tell(stage: &mut Stage, story: &mut Story<'_>) -> Seen<()> {
    let prompt = stage.ground.prompt();
    let role = killed_while_minting(stage).await?;
    let seen = "1 role that can log in (its name was recorded before it existed)";
    story.line(&format!("{prompt} leased roles"), seen)?;
    let begun = Instant::now();
    stage.broker = Some(BrokerProcess::start(&stage.place).await?);
    let what = format!("restarted in {}; {prompt} leased roles", seconds(begun.elapsed()));
    story.claim(15, &what, recovered(stage, &role, begun).await)?;
    Ok(())
}

/// The target has made the role, and its answer never reaches the broker.
async fn killed_while_minting(stage: &mut Stage) -> Seen<String> {
    let client = stage.agent("triage").await?;
    let task = client.task().scope("orders.read@orders-db").purpose("a crash").open().await?.leave();
    let (wire, words) = stage.ground.wire();
    wire.hold_answers_to(words);
    let asking = tokio::spawn(ask(client, task.id));
    let held = tokio::time::timeout(WAIT, wire.held()).await;
    let ground = stage.ground.clone();
    let role = async || Ok(ground.leased().await?.pop().filter(|role| role.alive));
    let role = until("the role is there", WAIT, role).await;
    let broker = stage.broker.take().ok_or_else(|| Failure::new("no broker"))?;
    broker.kill().await?;
    wire.pass();
    asking.abort();
    held.map_err(|_| Failure::new("the mint never reached the target"))?;
    let role = role?;
    let recorded = search::count(&stage.files()?, &role.name)?;
    ensure(recorded > 0, || format!("{} is not in the store", role.name))?;
    Ok(role.name)
}

/// Asked once, and never answered.
async fn ask(client: Client, task: String) {
    let request = v1::RequestLeaseRequest {
        task,
        intent: "orders.read".to_owned(),
        target: "orders-db".to_owned(),
        request_id: leasehold_client::request_id(),
        attempt: 1,
        ..v1::RequestLeaseRequest::default()
    };
    // Its answer is held: there is none to read.
    let _ = client.leases().request_lease(request).await;
}

async fn recovered(stage: &Stage, role: &str, begun: Instant) -> Seen {
    until("no leased role is left", WAIT, async || Ok(stage.leased().await?.is_empty().then_some(())))
        .await?;
    let took = begun.elapsed();
    let admin = stage.admin().await?;
    let lease = until("the journal says so", WAIT, async || settled(&admin, role).await).await?;
    let good = lease.cause() == v1::Cause::CrashRecovery && lease.proof() == v1::Proof::ReadBack;
    ensure(good, || format!("the journal says {:?}, {:?}", lease.cause(), lease.proof()))?;
    Ok(format!("0 after {}; journal: CrashRecovery, read back", seconds(took)))
}

async fn settled(admin: &Client, role: &str) -> Seen<Option<v1::Lease>> {
    let leases = admin.call(admin.leases().list_leases(v1::ListLeasesRequest::default())).await?.leases;
    let lease = leases.into_iter().find(|lease| lease.principal == role);
    Ok(lease.filter(|lease| lease.state() == v1::LeaseState::Revoked))
}
