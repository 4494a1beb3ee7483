//! A hundred thousand leases that expire at once: how soon they are dead, what that costs those who ask meanwhile, and
//! whether an incident goes first.

use std::path::Path;
use std::time::{Duration, Instant};

use leasehold_proto::v1;
use leasehold_proto::v1::selector::Kind;
use rusqlite::Connection;

use crate::callers::{Callers, PAIR, clients, drive};
use crate::memory::policies;
use crate::table::{Table, millis};
use crate::world::{Client, Setup, World, lease_request, seconds};

const LEASES: usize = 100_000;
const CALLERS: usize = 64;
const INCIDENT: usize = 50;
const RUN: Duration = Duration::from_secs(8);
const LOOK: Duration = Duration::from_millis(50);
/// Longer than any lease of these lives.
const LIFE: u64 = 16 * 60;

pub(crate) async fn run(table: &mut Table) {
    let config = Setup::default().config + "\n[quotas]\nagent = { live = \"unlimited\" }\n";
    let mut world = World::with(Setup { policy: policies(50), config, ..Setup::default() }).await;
    let normal = drive(&world, CALLERS, RUN).await.rate;
    let last = issue(&world).await;
    let callers = Callers::start(&world, CALLERS).await;
    world.pass(LIFE);
    let began = Instant::now();
    let incident = incident(&world).await;
    let dead = until_dead(&world.path("store/leases.db"), &last, began).await;
    let during = callers.end().await.rate;
    table.row(
        "100,000 memory leases that expire at once: all revoked",
        format!("{:.1} s", dead.as_secs_f64()),
        "15 s",
        dead < Duration::from_secs(15),
    );
    table.row(
        "request + release meanwhile",
        format!("{during:.0} leases/s beside {normal:.0} before: {:.0} %", 100.0 * during / normal),
        "50 %",
        during >= 0.5 * normal,
    );
    table.row(
        "an incident of 50 leases in the midst of it: confirmed",
        millis(incident),
        "under 1 s",
        incident < Duration::from_secs(1),
    );
    world.stop().await;
}

/// Leases that nobody releases; the id of the last.
async fn issue(world: &World) -> String {
    let each = LEASES / CALLERS + 1;
    let clients = clients(world, CALLERS).await;
    let one = |client: &Client| tokio::spawn(request_many(client.clone(), each));
    let running: Vec<_> = clients.iter().cycle().take(CALLERS).map(one).collect();
    let mut last = String::new();
    for caller in running {
        last = last.max(caller.await.unwrap());
    }
    last
}

async fn request_many(mut client: Client, count: usize) -> String {
    let task = client.open(&[PAIR]).await.unwrap();
    let mut last = String::new();
    for _ in 0..count {
        let granted = client.leases.request_lease(lease_request(&task, PAIR)).await.unwrap().into_inner();
        last = granted.lease.unwrap().id;
    }
    last
}

/// How long it takes until all leases of a task that is revoked while the others expire are confirmed dead.
async fn incident(world: &World) -> Duration {
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[PAIR]).await.unwrap();
    for _ in 0..INCIDENT {
        agent.lease(&task, PAIR).await.unwrap();
    }
    let request = v1::RevokeRequest {
        selector: Some(v1::Selector { kind: Some(Kind::Task(task.id)) }),
        reason: "an incident".into(),
        wait: seconds(30),
        ..v1::RevokeRequest::default()
    };
    let began = Instant::now();
    let mut progress = world.admin().await.revocations.revoke(request).await.unwrap().into_inner();
    while let Some(told) = progress.message().await.unwrap() {
        if told.done {
            assert_eq!(told.revocation.unwrap().counts.unwrap().confirmed as usize, INCIDENT);
            return began.elapsed();
        }
    }
    panic!("the incident was not over within its wait")
}

/// When no lease up to this one lives any more.
async fn until_dead(store: &Path, last: &str, began: Instant) -> Duration {
    let store = Connection::open(store).unwrap();
    let live = "SELECT EXISTS (SELECT 1 FROM leases WHERE due IS NOT NULL AND id <= ?)";
    while store.query_row(live, [last], |row| row.get(0)).unwrap() {
        assert!(began.elapsed() < Duration::from_secs(600), "they do not die");
        tokio::time::sleep(LOOK).await;
    }
    began.elapsed()
}
