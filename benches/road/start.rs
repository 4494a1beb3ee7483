//! The binary by itself: how soon it is ready, and what it holds when it has nothing to do.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::table::{Table, millis};
use crate::world::{Setup, World};

pub(crate) async fn run(table: &mut Table) {
    let setup = Setup::default();
    let (ready, resident) = measure(&World::prepare(&setup).await, &setup).await;
    table.row("start to ready", millis(ready), "under 1 s", ready < Duration::from_secs(1));
    table.row("resident memory, idle", format!("{resident:.1} MiB"), "under 40 MiB", resident < 40.0);
}

/// How soon the binary is ready on what lies in this world, and how many MiB it holds five seconds later.
pub(crate) async fn measure(world: &World, setup: &Setup) -> (Duration, f64) {
    let config = world.write_config(setup);
    let began = Instant::now();
    let mut broker = serve(&config);
    while tokio::net::UnixStream::connect(world.path("admin/admin.sock")).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "the broker does not start");
        tokio::task::yield_now().await;
    }
    let ready = began.elapsed();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let resident = resident_mib(broker.id());
    broker.kill().unwrap();
    broker.wait().unwrap();
    (ready, resident)
}

fn serve(config: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args(["serve", "--dev-trust", "--config"])
        .arg(config)
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}
