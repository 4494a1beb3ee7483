//! What monitoring reads.

use std::net::SocketAddr;

use leasehold_law::time::Span;
use leasehold_memory::{Call, Fault, Rule};
use leasehold_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::drills;
use crate::stopping::{revoke, run};
use crate::world::{Setup, World, eventually, millis};

const PAIR: &str = "orders.read@orders";

pub(crate) fn listening() -> Setup {
    Setup::default().replace("[operators]", "metrics = \"127.0.0.1:0\"\n[operators]")
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: broker\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn monitoring_reads_what_happened_and_what_stands() {
    let mut world = World::with(listening()).await;
    let address = world.running().metrics.unwrap();
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[PAIR]).await.unwrap();
    let lease = agent.lease(&task, PAIR).await.unwrap().lease.unwrap().id;
    agent.lease(&task, "stock.read@stock").await.unwrap_err();

    let text = get(address, "/metrics").await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    for line in [
        "leasehold_leases_live{target=\"orders\"} 1",
        "leasehold_leases_stuck{target=\"orders\"} 0",
        "leasehold_target_unreached_seconds{target=\"orders\"} 0",
        "leasehold_leases_due{target=\"orders\",lane=\"security\"} 0",
        "leasehold_tasks_open 1",
        "leasehold_journal_up 1",
    ] {
        assert!(text.lines().any(|told| told == line), "no line {line} in\n{text}");
    }
    // Counters are the process's, in which other tests count too.
    for line in [
        "leasehold_rpcs_total{method=\"leasehold.v1.LeaseService/RequestLease\",code=\"OK\"} ",
        "leasehold_refusals_total{reason=\"OUT_OF_SCOPE\"} ",
        "leasehold_leases_total{target=\"orders\",state=\"active\"} ",
    ] {
        assert!(text.lines().any(|told| told.starts_with(line)), "no line {line}in\n{text}");
    }
    agent.release(&lease).await.unwrap();
    let text = get(address, "/metrics").await;
    assert!(text.contains("leasehold_leases_live{target=\"orders\"} 0"), "{text}");
    assert!(text.contains("leasehold_revocation_seconds_count{target=\"orders\"}"), "{text}");
    for told in ["triage", &lease, &task.id, "suite.leasehold.test"] {
        assert!(!text.contains(told), "{told} is told to whoever asks:\n{text}");
    }
    world.stop().await;
    TcpStream::connect(address).await.unwrap_err();
}

/// What an operator has alarms on is not always nothing.
#[tokio::test]
async fn monitoring_reads_what_is_due_stuck_and_out_of_reach() {
    let world = World::with(listening()).await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[PAIR]).await.unwrap();
    let lease = agent.lease(&task, PAIR).await.unwrap().lease.unwrap().id;
    agent.lease(&task, PAIR).await.unwrap();
    for call in [Call::Revoke, Call::Health] {
        world.orders.faults.add(Rule::always(call, Fault::down()));
    }
    let stop = revoke(v1::selector::Kind::Lease(lease));
    run(&mut world.operator("revoker").await, v1::RevokeRequest { wait: None, ..stop }).await.unwrap();
    let request = v1::CompleteTaskRequest { task: task.id.clone(), wait: None };
    agent.tasks.complete_task(request).await.unwrap();
    let address = world.running().metrics.unwrap();
    eventually("all of it is told", || {
        // Each look is a while later: the breaker opens at the third failure.
        world.pass(4);
        async move {
            let text = get(address, "/metrics").await;
            let told = |name: &str, more: &str| {
                let series = format!("{name}{{target=\"orders\"{more}}} ");
                let line = text.lines().find_map(|line| line.strip_prefix(&series));
                line.unwrap_or_else(|| panic!("no {series}in\n{text}")).parse::<f64>().unwrap()
            };
            told("leasehold_leases_due", ",lane=\"security\"") >= 1.0
                && told("leasehold_leases_due", ",lane=\"task_end\"") >= 1.0
                && told("leasehold_leases_stuck", "") >= 1.0
                && told("leasehold_target_unreached_seconds", "") > 0.0
        }
    })
    .await;
}

#[tokio::test]
async fn monitoring_reads_how_the_last_drills_went() {
    let mut world = World::with(listening()).await;
    let told = get(world.running().metrics.unwrap(), "/metrics").await;
    assert!(!told.contains("leasehold_drill_passed{"), "none came to its end:\n{told}");
    let passed = drills::drill(&mut world.admin().await, "orders").await.unwrap();
    let seconds = Span(millis(passed.at).try_into().unwrap()).as_duration().as_secs_f64();
    world.orders.faults.add(Rule::once(Call::Revoke, Fault::Lie));
    drills::drill(&mut world.admin().await, "orders").await.unwrap();
    for _ in 0..2 {
        let told = get(world.running().metrics.unwrap(), "/metrics").await;
        for line in [
            "leasehold_drill_passed{target=\"orders\"} 0".to_owned(),
            format!("leasehold_drill_passed_timestamp_seconds{{target=\"orders\"}} {seconds}"),
        ] {
            assert!(told.lines().any(|told| told == line), "no line {line} in\n{told}");
        }
        assert!(told.contains("leasehold_drill_step_seconds{target=\"orders\",step=\"mint\"} "), "{told}");
        assert!(!told.contains("step=\"refuse\""), "a step that was not taken took no time:\n{told}");
        // A start forgets neither.
        world.restart(&listening()).await;
    }
}

#[tokio::test]
async fn a_caller_makes_no_series_and_nothing_else_is_served() {
    let mut world = World::with(listening()).await;
    let address = world.running().metrics.unwrap();
    let mut client = tonic::client::Grpc::new(world.agent("triage").await.channel);
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/made.up.Service/OfTheCaller");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    client.unary(tonic::Request::new(()), path, codec).await.unwrap_err();
    assert!(!get(address, "/metrics").await.contains("made.up"));
    assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
    world.stop().await;
}

#[tokio::test]
async fn where_nobody_asked_for_it_no_port_is_open() {
    let mut world = World::new().await;
    assert_eq!(world.running().metrics, None);
    world.stop().await;
}
