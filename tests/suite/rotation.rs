//! Identities rotate as SPIRE rotates them: SVIDs, authorities, and Workload APIs that are away for a while.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use leasehold::dev::ca::DevCa;
use leasehold::identity::listener::Limits;
use leasehold_client::{Client as Sdk, Options};
use leasehold_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::metrics::{get, listening};
use crate::raw;
use crate::world::{Client, PATIENCE, Setup, World, eventually};

/// SVIDs of different ends that the calls must have come under: notAfter is told in whole seconds.
const ENDS: usize = 4;
/// Calls between two rotations.
const CALLS: usize = 25;

/// A peer is asked to leave long before its connection ends, and often.
fn short_stay() -> Setup {
    let limits = Limits { stay: Duration::from_millis(200), ..Setup::default().limits };
    Setup { limits, ..Setup::default() }
}

async fn status(world: &World) -> v1::StatusResponse {
    world.admin().await.admin.status(v1::StatusRequest {}).await.unwrap().into_inner()
}

async fn identity_of(world: &World) -> v1::IdentityStatus {
    status(world).await.identity.unwrap()
}

async fn until_told(world: &World, what: &str) -> v1::IdentityStatus {
    eventually(&format!("status says {what:?}"), || async { identity_of(world).await.error.contains(what) })
        .await;
    identity_of(world).await
}

/// An agent on the SDK, which asks again where the connection and not the broker failed.
async fn agent(world: &World) -> Sdk {
    let mut options = Options::from_lookup(|_| None);
    options.addr = world.running().agents.to_string();
    options.workload_api = Some(world.endpoint("triage"));
    Sdk::connect(options).await.unwrap()
}

/// Neither rotations on both sides nor GOAWAY in the middle of it all cost an agent a call.
#[tokio::test]
async fn an_agent_that_never_pauses_loses_no_call_to_rotations() {
    let mut world = World::with(short_stay()).await;
    let agent = agent(&world).await;
    let mut ends = BTreeSet::new();
    let until = Instant::now() + PATIENCE;
    for call in 0.. {
        let me = agent.whoami().await.unwrap_or_else(|error| panic!("call {call}: {error}"));
        ends.insert(me.svid_expires_at.unwrap().seconds);
        if ends.len() == ENDS {
            break;
        }
        if call % CALLS == 0 {
            world.identity("triage").rotate().unwrap();
            world.identity("leasehold").rotate().unwrap();
        }
        assert!(Instant::now() < until, "no connection was ever made anew: {ends:?}");
    }
    world.stop().await;
}

/// It gets GOAWAY (RFC 9113 section 6.8) while its connection has most of an hour left.
#[tokio::test]
async fn a_peer_is_asked_to_leave_before_its_connection_ends() {
    const GOAWAY: u8 = 7;
    let mut world = World::with(short_stay()).await;
    let mut peer = raw::connection(&world.domain.ca(), world.running().agents).await;
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let asked = async {
        loop {
            let mut head = [0; 9];
            peer.read_exact(&mut head).await.expect("it was cut off without a word");
            if head[3] == GOAWAY {
                break;
            }
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            peer.read_exact(&mut vec![0; length]).await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("nobody asked it to leave");
    world.stop().await;
}

/// An agent on the SDK through a whole roll; then whoever has only the old authority's word is out.
#[tokio::test]
async fn a_roll_of_the_authority_loses_no_call_and_ends_the_old_one() {
    let mut world = World::with(short_stay()).await;
    let agent = agent(&world).await;
    let whoami = || async { agent.whoami().await.unwrap() };
    let (old, address) = (world.domain.ca(), world.running().agents);
    let taken = |ca: &Arc<DevCa>| {
        let ca = ca.clone();
        async move { raw::is_taken(&ca, address).await }
    };
    whoami().await;
    world.domain.publish_next_keys().unwrap();
    let next = world.domain.published().pop().unwrap();
    eventually("the next authority counts", || async {
        whoami().await;
        taken(&next).await
    })
    .await;
    world.domain.activate_next_keys().unwrap();
    assert!(taken(&old).await, "the old one counts until it is withdrawn");
    whoami().await;
    world.domain.withdraw_old_keys().unwrap();
    eventually("the old authority counts no more", || async {
        whoami().await;
        !taken(&old).await
    })
    .await;
    whoami().await;
    world.stop().await;
}

/// SPIRE's agent is stopped: who is connected goes on, who comes is taken, and it is told until when.
#[tokio::test]
async fn a_workload_api_that_is_away_is_told_and_ends_nothing() {
    let mut world = World::with(listening()).await;
    let mut agent = world.agent("triage").await;
    eventually("the identity is looked at", || async { identity_of(&world).await.not_after.is_some() }).await;
    assert_eq!(identity_of(&world).await.error, "");
    let at = world.identities.iter().position(|(name, _)| name == "leasehold").unwrap();
    drop(world.identities.swap_remove(at));

    let told = until_told(&world, "does not answer").await;
    assert!(told.since.is_some() && told.not_after.is_some(), "{told:?}");
    assert_eq!((told.id.as_str(), told.trust_domains.len()), ("spiffe://suite.leasehold.test/leasehold", 1));
    let metrics = get(world.running().metrics.unwrap(), "/metrics").await;
    let good = |line: &str| line.starts_with("leasehold_identity_not_after_timestamp_seconds 1");
    assert!(metrics.lines().any(good), "{metrics}");
    assert!(metrics.contains("leasehold_identity_trouble_seconds{what=\"withdrawn\"} 0"), "{metrics}");
    agent.open(&["orders.read@orders"]).await.unwrap();
    world.agent("other").await.open(&["orders.read@orders"]).await.unwrap();

    let back = world.domain.serve("leasehold", "/leasehold").await.unwrap();
    eventually("it is well again", || async { identity_of(&world).await.error.is_empty() }).await;
    drop(back);
    world.stop().await;
}

/// SPIRE says so for a moment when an authority is tainted.
#[tokio::test]
async fn no_identity_for_a_moment_is_no_reason_to_exit() {
    let mut world = World::new().await;
    let mut agent = world.agent("triage").await;
    let mut task = agent.open(&["orders.read@orders"]).await.unwrap();
    world.identity("leasehold").withdraw();
    until_told(&world, "issues no identity").await;
    task = agent.task(&task).await;
    agent.complete(&task).await.unwrap();
    assert!(!raw::is_taken(&world.domain.ca(), world.running().agents).await);

    world.identity("leasehold").restore().unwrap();
    eventually("it is well again", || async { identity_of(&world).await.error.is_empty() }).await;
    world.agent("other").await.open(&["orders.read@orders"]).await.unwrap();
    world.stop().await;
}

/// A broker that may be several things on one socket is the one that it was told to be, or says what it found.
#[tokio::test]
async fn of_several_svids_the_configured_one_counts() {
    let mut world = World::prepare(&Setup::default()).await;
    world.identity("leasehold").also("/a-first").unwrap();
    world.start(&Setup::default()).await.unwrap();
    // The client takes no other broker than `spiffe://suite.leasehold.test/leasehold` for its own.
    world.agent("triage").await.open(&["orders.read@orders"]).await.unwrap();
    world.stop().await;
}

/// Strangers are counted where monitoring sees them, by the reasons that the journal has too.
#[tokio::test]
async fn refused_handshakes_are_counted_by_reason() {
    let mut world = World::with(listening()).await;
    let stranger = Client::new(raw::stranger(world.running().agents));
    stranger.clone().identity.who_am_i(v1::WhoAmIRequest {}).await.unwrap_err();
    let address = world.running().metrics.unwrap();
    eventually("the stranger is counted", || async {
        get(address, "/metrics")
            .await
            .contains("leasehold_strangers_refused_total{reason=\"unknown_issuer\"}")
    })
    .await;
    world.stop().await;
}
