//! What the road costs: `cargo bench --bench road`. Prints a table; docs/performance.md holds one.
//!
//! Client and broker share the process and the machine. SQLite at synchronous=FULL, journal on, mutual TLS, 50
//! policies. PostgreSQL is a throwaway cluster, and the bare statements run beside the broker in the same run.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench that cannot go on should say where"
)]

#[path = "road/callers.rs"]
mod callers;
#[path = "road/churn.rs"]
mod churn;
#[path = "road/doors.rs"]
mod doors;
#[path = "road/expiry.rs"]
mod expiry;
#[path = "road/memory.rs"]
mod memory;
#[path = "road/million.rs"]
mod million;
#[path = "road/postgres.rs"]
mod postgres;
#[path = "../tests/suite/raw.rs"]
#[expect(dead_code, reason = "the suite uses more of it")]
mod raw;
#[path = "road/start.rs"]
mod start;
#[path = "road/table.rs"]
mod table;
#[path = "../tests/suite/web.rs"]
mod web;
#[path = "../tests/suite/world/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the suite uses more of it")]
mod world;

use table::Table;

fn main() {
    // cargo bench hands over flags of its own; names of sections may follow.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|one| one == name);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut table = Table::default();
    if wants("start") {
        runtime.block_on(start::run(&mut table));
    }
    if wants("memory") {
        runtime.block_on(memory::run(&mut table));
    }
    if wants("million") {
        runtime.block_on(million::run(&mut table));
    }
    if wants("churn") {
        runtime.block_on(churn::run(&mut table));
    }
    if wants("expiry") {
        runtime.block_on(expiry::run(&mut table));
    }
    if wants("doors") {
        runtime.block_on(doors::run(&mut table));
    }
    if wants("postgres") {
        runtime.block_on(postgres::run(&mut table));
    }
    println!("{table}");
}
