//! Request and release against the memory target: everything but a target's own time.

use std::time::{Duration, Instant};

use leasehold_proto::v1;

use crate::table::{Latencies, Table, millis};
use crate::world::{Client, Setup, World, lease_request};

const RUN: Duration = Duration::from_secs(8);
const CONNECTIONS: usize = 8;
const PAIR: &str = "orders.read@orders";

pub(crate) async fn run(table: &mut Table) {
    let mut world = World::with(Setup { policy: policies(50), ..Setup::default() }).await;
    let one = drive(&world, 1).await;
    let p50 = one.percentile(50);
    table.row(
        "request, one caller, memory",
        format!("p50 {}", millis(p50)),
        "p50 under 3 ms",
        p50 < Duration::from_millis(3),
    );
    let many = drive(&world, 64).await;
    let rate = many.len() as f64 / RUN.as_secs_f64();
    let p99 = many.percentile(99);
    table.row(
        "request + release, 64 callers, memory, durable",
        format!("{rate:.0} leases/s, request p50 {} p99 {}", millis(many.percentile(50)), millis(p99)),
        "3,000 leases/s, p99 under 60 ms",
        rate >= 3000.0 && p99 < Duration::from_millis(60),
    );
    world.stop().await;
}

/// Policies of the kinds that people write, the one that the grant makes beside them.
fn policies(count: usize) -> String {
    let one = |n: usize| match n % 3 {
        0 => format!(
            "@id(\"brief-{n}\") forbid (principal in AgentGroup::\"soc\", action == Action::\"orders.read\", \
             resource == Target::\"orders\") when {{ context.ttl > duration(\"{}m\") }};\n",
            30 + n
        ),
        1 => format!(
            "@id(\"prod-{n}\") forbid (principal, action, resource) when {{ resource.labels has env && \
             resource.labels.env == \"sealed-{n}\" }};\n"
        ),
        _ => format!(
            "@id(\"stock-{n}\") permit (principal in AgentGroup::\"soc\", action == Action::\"stock.read\", \
             resource == Target::\"stock\") when {{ context.ttl <= duration(\"{n}m\") }};\n"
        ),
    };
    (0..count).map(one).collect()
}

async fn drive(world: &World, callers: usize) -> Latencies {
    // A handful of connections, as agents on a few hosts would have.
    let mut clients = Vec::new();
    for connection in 0..callers.min(CONNECTIONS) {
        clients.push(world.agent(if connection % 2 == 0 { "triage" } else { "other" }).await);
    }
    let callers = clients.iter().cycle().take(callers);
    let running: Vec<_> = callers.map(|client| tokio::spawn(one_caller(client.clone()))).collect();
    let mut all = Vec::new();
    for caller in running {
        all.extend(caller.await.unwrap());
    }
    Latencies::of(all)
}

async fn one_caller(mut client: Client) -> Vec<Duration> {
    let task = client.open(&[PAIR]).await.unwrap();
    let (began, mut all) = (Instant::now(), Vec::new());
    while began.elapsed() < RUN {
        let asked = Instant::now();
        let granted = client.leases.request_lease(lease_request(&task, PAIR)).await.unwrap().into_inner();
        all.push(asked.elapsed());
        let lease = granted.lease.unwrap().id;
        client.leases.release_lease(v1::ReleaseLeaseRequest { lease, wait: None }).await.unwrap();
    }
    client.complete(&task).await.unwrap();
    all
}
