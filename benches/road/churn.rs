//! Leases that come and go for days of the broker's clock: whether its file, its log and its rate stay as they were.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::callers::drive;
use crate::memory::policies;
use crate::table::Table;
use crate::world::{Setup, World};

const CALLERS: usize = 64;
const ROUNDS: usize = 8;
const RUN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);
/// In the config, and a little more than that in seconds.
const RETENTION: &str = "1d";
const PASSES: u64 = 25 * 60 * 60;
/// Longer than all rounds, so that no SVID ends in one.
const WEEKS: Duration = Duration::from_hours(24 * 28);
/// The log is moved into the file from 64 MiB on, behind the batch that brings it there.
const LOG: u64 = 80 << 20;
const MIB: f64 = 1_048_576.0;

/// What a round left behind.
struct Round {
    rate: f64,
    /// Bytes of the tables and indexes of leases and tasks, before those that are over leave them.
    tables: u64,
    log: u64,
}

pub(crate) async fn run(table: &mut Table) {
    let setup = Setup { policy: policies(50), svid_life: WEEKS, ..Setup::default() };
    let mut world =
        World::with(setup.replace("[store]", &format!("[store]\nretention = \"{RETENTION}\""))).await;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(round(&world).await);
    }
    let (early, late) = rounds.split_at(ROUNDS / 2);
    let rate = |rounds: &[Round]| rounds.iter().map(|round| round.rate).sum::<f64>() / rounds.len() as f64;
    let tables = |rounds: &[Round]| rounds.iter().map(|round| round.tables).max().unwrap() as f64 / MIB;
    let log = rounds.iter().map(|round| round.log).max().unwrap();
    table.row(
        format!("{ROUNDS} days of leases that come and go, archived after one"),
        format!(
            "tables {:.1} then {:.1} MiB, log {:.0} MiB at most, {:.0} then {:.0} leases/s",
            tables(early),
            tables(late),
            log as f64 / MIB,
            rate(early),
            rate(late)
        ),
        "tables and rate within a fifth, log under 80 MiB",
        tables(late) < 1.2 * tables(early) && rate(late) > 0.8 * rate(early) && log < LOG,
    );
    world.stop().await;
}

/// Leases for a while; then their retention passes, and they leave.
async fn round(world: &World) -> Round {
    let rate = drive(world, CALLERS, RUN).await.rate;
    let path = world.path("store/leases.db");
    let log = std::fs::metadata(path.with_extension("db-wal")).unwrap().len();
    let round = Round { rate, tables: tables(&path), log };
    world.pass(PASSES);
    until_gone(world, &path).await;
    round
}

fn tables(path: &Path) -> u64 {
    const SQL: &str = "SELECT sum(pgsize) FROM dbstat WHERE aggregate = TRUE AND (name GLOB '*leases*' OR name GLOB '*tasks*')";
    let bytes: i64 = Connection::open(path).unwrap().query_row(SQL, [], |row| row.get(0)).unwrap();
    bytes.unsigned_abs()
}

async fn until_gone(world: &World, path: &Path) {
    let (store, began) = (Connection::open(path).unwrap(), Instant::now());
    let over = "SELECT EXISTS (SELECT 1 FROM leases WHERE due IS NULL)";
    while store.query_row(over, [], |row| row.get(0)).unwrap() {
        assert!(began.elapsed() < Duration::from_secs(300), "they do not leave");
        // Where nothing was over, the next look comes in a minute.
        world.pass(61);
        tokio::time::sleep(LOOK).await;
    }
}
