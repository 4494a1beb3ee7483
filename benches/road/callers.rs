//! Callers that request and release against the memory target, as fast as they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use leasehold_proto::v1;
use tokio::task::JoinHandle;

use crate::table::Latencies;
use crate::world::{Client, World, lease_request};

/// A handful of connections, as agents on a few hosts would have.
const CONNECTIONS: usize = 8;
pub(crate) const PAIR: &str = "orders.read@orders";

/// Callers at work.
pub(crate) struct Callers {
    began: Instant,
    spent: Duration,
    enough: Arc<AtomicBool>,
    running: Vec<JoinHandle<Vec<Duration>>>,
}

/// What they did.
pub(crate) struct Done {
    /// Leases that were requested and released, a second.
    pub(crate) rate: f64,
    /// How long each request took.
    pub(crate) requests: Latencies,
    /// What one lease cost of a processor, for client and broker together.
    pub(crate) processor: Duration,
}

impl Callers {
    /// Sets so many to work.
    pub(crate) async fn start(world: &World, count: usize) -> Self {
        let clients = clients(world, count).await;
        let (began, enough) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let work = |client: &Client| tokio::spawn(work(client.clone(), enough.clone()));
        let running = clients.iter().cycle().take(count).map(work).collect();
        Self { began, spent: processor_time(), enough, running }
    }

    /// Lets them end.
    pub(crate) async fn end(self) -> Done {
        let worked = self.began.elapsed();
        self.enough.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for caller in self.running {
            all.extend(caller.await.unwrap());
        }
        let processor = (processor_time() - self.spent).div_f64(all.len() as f64);
        Done { rate: all.len() as f64 / worked.as_secs_f64(), requests: Latencies::of(all), processor }
    }
}

/// What this process has used of all processors: the kernel counts in hundredths of a second (proc(5), utime and stime).
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}

/// Lets so many work for a while.
pub(crate) async fn drive(world: &World, count: usize, length: Duration) -> Done {
    let callers = Callers::start(world, count).await;
    tokio::time::sleep(length).await;
    callers.end().await
}

/// A client for each of a few connections.
pub(crate) async fn clients(world: &World, callers: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for connection in 0..callers.min(CONNECTIONS) {
        clients.push(world.agent(if connection % 2 == 0 { "triage" } else { "other" }).await);
    }
    clients
}

async fn work(mut client: Client, enough: Arc<AtomicBool>) -> Vec<Duration> {
    let task = client.open(&[PAIR]).await.unwrap();
    let mut all = Vec::new();
    while !enough.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let granted = client.leases.request_lease(lease_request(&task, PAIR)).await.unwrap().into_inner();
        all.push(asked.elapsed());
        let lease = granted.lease.unwrap().id;
        client.leases.release_lease(v1::ReleaseLeaseRequest { lease, wait: None }).await.unwrap();
    }
    client.complete(&task).await.unwrap();
    all
}
