//! The simulation: a broker with its store, its targets and its clients in one task system on a paused clock, in a
//! weather of seeded faults, and what must hold of it in any weather.
//!
//! `LEASEHOLD_SIM_SEEDS=N` lives through the first N seeds; `LEASEHOLD_SIM_SEED=S` through one, and tells its history.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot go on should say where"
)]

mod agents;
mod dice;
mod disk;
mod ground;
mod history;
mod host;
mod life;
mod operators;
mod punctual;
mod quiet;
mod record;
mod runner;
mod target;
mod time;
mod weather;
mod world;

use runner::{one, run};
use world::Skip;

/// How many seeds CI lives through, unless it is told otherwise.
const SEEDS: u64 = 1000;

#[test]
fn nothing_leaks_in_any_weather() {
    if let Some(seed) = runner::number("LEASEHOLD_SIM_SEED") {
        let told = one(seed, None);
        eprintln!("{}", told.lines.join("\n"));
        assert!(told.wrongs.is_empty(), "seed {seed}: {}", told.wrongs.join("\n"));
        return;
    }
    let failed = run(runner::number("LEASEHOLD_SIM_SEEDS").unwrap_or(SEEDS));
    assert!(failed.is_empty(), "{} seeds fail:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in [3, 14, 159] {
        let (first, second) = (one(seed, None), one(seed, None));
        let apart = first.lines.iter().zip(&second.lines).find(|(one, other)| one != other);
        assert_eq!(apart, None, "seed {seed}");
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert!(first.lines.len() > 100, "a world in which little happens shows little");
    }
}

#[test]
fn the_simulation_notices_a_skipped_intent_row() {
    notices(Skip::Intent, 8, 10);
}

#[test]
fn the_simulation_notices_a_skipped_read_back() {
    notices(Skip::ReadBack, 8, 10);
}

/// In many worlds too little comes to its end before the calm, or something stands in its way all the while: a quarter of
/// them tell.
#[test]
fn the_simulation_notices_in_weather_that_nothing_ends_in_time() {
    notices(Skip::Sweep, 3, 30);
}

#[test]
fn the_simulation_notices_heartbeats_that_count_for_nothing() {
    notices(Skip::Heartbeats, 7, 10);
}

/// A broker that leaves this out is caught in so many of these worlds at least.
fn notices(skip: Skip, least: usize, worlds: u64) {
    let caught = (0..worlds).filter(|seed| !one(*seed, Some(skip)).wrongs.is_empty()).count();
    assert!(caught >= least, "only {caught} of {worlds} worlds notice that {skip:?} is left out");
}
