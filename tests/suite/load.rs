//! Too much of anything at the doors: streams, calls, connections, slow and silent clients.

mod frames;

use std::time::Duration;

use leasehold::identity::listener::Limits;
use leasehold_memory::{Call, Fault, Gate, Rule};
use leasehold_proto::v1;
use prost::Message;
use tokio::time::timeout;

use crate::quotas::{PAIR, over_quota};
use crate::raw;
use crate::world::{PATIENCE, Setup, World, eventually};

/// Within this a client that answers no ping is let go: a ping after 20 s, and 20 s for its answer.
const LET_GO: Duration = Duration::from_secs(20 + 20 + 30);

/// 10,000 calls begun on one connection and never finished: the server refuses what is too many, or hangs up.
#[tokio::test]
async fn ten_thousand_streams_of_one_client_are_refused_and_trouble_nobody() {
    const STREAMS: u32 = 10_000;
    let world = World::new().await;
    let connection = raw::connection(&world.domain.ca(), world.running().agents).await;
    let (mut from, mut to) = tokio::io::split(connection);
    let sending = tokio::spawn(async move {
        frames::send(&mut to, &frames::hello(65_535)).await;
        for n in 0..STREAMS {
            frames::send(&mut to, &frames::head(1 + 2 * n, "/leasehold.v1.TaskService/OpenTask")).await;
        }
        to
    });
    let mut refused = 0;
    let cut = loop {
        match timeout(PATIENCE, frames::next(&mut from)).await.expect("the server stopped answering") {
            None => break true,
            Some(frame) if frame.kind == frames::GOAWAY => break true,
            Some(frame) if frame.kind == frames::RST_STREAM => {
                assert_eq!(frame.body, 7_u32.to_be_bytes(), "REFUSED_STREAM");
                refused += 1;
                if refused == STREAMS - 256 {
                    break false;
                }
            }
            Some(_) => {}
        }
    };
    assert!(cut || refused > 0);
    let mut other = world.agent("other").await;
    other.open(&[PAIR]).await.unwrap();
    drop(sending.await.unwrap());
}

/// Watches over as many connections as it may have, more than a caller's share: others are served, and so is an
/// operator.
#[tokio::test]
async fn one_caller_s_streams_are_its_share_and_no_more() {
    let bound = "per_caller = { streams = 8, calls = 4 }\n[operators]";
    let world = World::with(Setup::default().replace("[operators]", bound)).await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[PAIR]).await.unwrap();
    let watch = || v1::WatchTaskRequest { task: task.id.clone() };
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(agent.tasks.watch_task(watch()).await.unwrap().into_inner());
    }
    let mut elsewhere = world.agent("triage").await;
    let status = over_quota(elsewhere.tasks.watch_task(watch()).await);
    assert_eq!(status.message(), "you have too many streams open");
    elsewhere.lease(&task, PAIR).await.unwrap();
    let mut other = world.agent("other").await;
    let theirs = other.open(&[PAIR]).await.unwrap();
    let request = v1::WatchTaskRequest { task: theirs.id.clone() };
    other.tasks.watch_task(request).await.unwrap().into_inner().message().await.unwrap().unwrap();
    world.admin().await.admin.status(v1::StatusRequest::default()).await.unwrap();
    drop(held);
    eventually("its streams are given back", || {
        let (mut agent, request) = (elsewhere.clone(), watch());
        async move { agent.tasks.watch_task(request).await.is_ok() }
    })
    .await;
}

/// As many calls of one agent as it may have, each held by the target: what is more is refused at once, and neither
/// another agent nor a revocation waits.
#[tokio::test]
async fn overload_is_refused_at_the_door_and_stops_no_revocation() {
    let bound = "per_caller = { calls = 4 }\n[operators]";
    let world = World::with(Setup::default().replace("[operators]", bound)).await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[PAIR]).await.unwrap();
    let lease = agent.lease(&task, PAIR).await.unwrap().lease.unwrap();
    let gate = Gate::default();
    world.orders.faults.add(Rule::times(Call::Issue, 4, Fault::Hold(gate.clone())));
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let (mut agent, task) = (agent.clone(), task.clone());
            tokio::spawn(async move { agent.lease(&task, PAIR).await })
        })
        .collect();
    for _ in 0..4 {
        gate.arrival().await;
    }
    let before = world.running().broker.journal_head().await.unwrap().seq;
    for _ in 0..20 {
        let status = over_quota(agent.lease(&task, PAIR).await);
        assert_eq!(status.message(), "you have too many calls open");
    }
    assert_eq!(world.running().broker.journal_head().await.unwrap().seq, before, "it costs no commit");
    agent
        .tasks
        .heartbeat(v1::HeartbeatRequest { task: task.id.clone(), ..Default::default() })
        .await
        .unwrap();
    let mut other = world.agent("other").await;
    other.open(&[PAIR]).await.unwrap();
    let mut admin = world.admin().await;
    let selector = Some(v1::Selector { kind: Some(v1::selector::Kind::Lease(lease.id.clone())) });
    let request = v1::RevokeRequest { selector, reason: "a test".into(), ..v1::RevokeRequest::default() };
    let mut told = admin.revocations.revoke(request).await.unwrap().into_inner();
    while told.message().await.unwrap().is_some_and(|progress| !progress.done) {}
    (0..4).for_each(|_| gate.open());
    for granted in waiting {
        granted.await.unwrap().unwrap();
    }
}

/// A client that lets nothing through and answers no ping, on a stream of its own: nobody waits for it, and it is let go
/// when it has owed an answer to a ping for 20 s.
#[tokio::test]
async fn a_client_that_never_reads_its_watch_holds_up_nothing_and_is_let_go() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[PAIR]).await.unwrap();
    let mut deaf = raw::connection(&world.domain.ca(), world.running().agents).await;
    let request = v1::WatchTaskRequest { task: task.id.clone() }.encode_to_vec();
    let path = "/leasehold.v1.TaskService/WatchTask";
    let bytes = [frames::hello(0), frames::head(1, path), frames::message(1, &request)].concat();
    frames::send(&mut deaf, &bytes).await;
    for _ in 0..100 {
        let lease = agent.lease(&task, PAIR).await.unwrap().lease.unwrap();
        agent.release(&lease.id).await.unwrap();
    }
    let mut reads =
        agent.tasks.watch_task(v1::WatchTaskRequest { task: task.id.clone() }).await.unwrap().into_inner();
    reads.message().await.unwrap().unwrap();
    agent.complete(&task).await.unwrap();
    let gone = async {
        while let Some(frame) = frames::next(&mut deaf).await {
            assert_ne!(frame.kind, frames::DATA, "its window lets nothing through");
        }
    };
    timeout(LET_GO, gone).await.expect("it goes on holding a connection and a stream");
}

/// Handshakes that never end, as many as are begun at one time.
#[tokio::test]
async fn slow_handshakes_keep_nobody_out() {
    let limits = Limits { handshakes: 8, handshake_time: Duration::from_millis(100), ..Limits::default() };
    let world = World::with(Setup { limits, ..Setup::default() }).await;
    let mut slow = Vec::new();
    for _ in 0..64 {
        let mut stream = tokio::net::TcpStream::connect(world.running().agents).await.unwrap();
        // The first bytes of a ClientHello that goes no further.
        frames::send(&mut stream, &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await;
        slow.push(stream);
    }
    world.agent("triage").await.open(&[PAIR]).await.unwrap();
}

/// An SVID proves who it is; only a role opens the admin door, and only a registration the agents' door.
#[tokio::test]
async fn an_svid_without_a_role_is_cut_at_the_admin_door() {
    let limits = Limits { visitor_life: Duration::from_millis(300), visitors: 1, ..Limits::default() };
    let world = World::with(Setup { limits, ..Setup::default() }).await;
    let mut at_home = raw::connection(&world.domain.ca(), world.running().agents).await;
    let mut visitor = raw::connection(&world.domain.ca(), world.running().admin_tcp[0]).await;
    frames::send(&mut visitor, &frames::hello(65_535)).await;
    frames::send(&mut at_home, &frames::hello(65_535)).await;
    let over = async { while frames::next(&mut visitor).await.is_some() {} };
    timeout(PATIENCE, over).await.expect("it goes on holding a connection of the admin door");
    world.operator("viewer").await.admin.status(v1::StatusRequest::default()).await.unwrap();
    let served = async { while frames::next(&mut at_home).await.is_some() {} };
    assert!(timeout(Duration::from_millis(200), served).await.is_err(), "a registered agent stays");
}
