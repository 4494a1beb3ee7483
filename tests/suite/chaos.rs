//! Brokers that die at random instants under load, on real servers, and what must hold of all that agents were told.
//!
//! Each run prints its seed. `LEASEHOLD_CHAOS_SEED=N` draws the same instants and acts again; what meets what is the
//! machine's to decide, so that a run is not repeated to the byte, as the simulation's are.

mod agents;
mod brokers;
#[path = "../simulation/dice.rs"]
#[expect(dead_code, reason = "the simulation throws them in more ways")]
mod dice;
mod hearts;
mod kills;
mod verdict;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use crate::child::Process;
use crate::world::eventually;

/// A seed that nobody chose, or the one that somebody did.
fn seed(test: &str) -> u64 {
    let chosen = std::env::var("LEASEHOLD_CHAOS_SEED").ok();
    let chosen = chosen.map(|text| text.parse().expect("LEASEHOLD_CHAOS_SEED is a number"));
    let seed = chosen.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    tell(&format!("{test}: LEASEHOLD_CHAOS_SEED={seed}"));
    seed
}

/// Shown where a test fails, or with `--nocapture`.
#[expect(clippy::print_stderr, reason = "what a run was like belongs to its failure")]
fn tell(line: &str) {
    eprintln!("{line}");
}

/// Lets a broker run for a while. It must not end by itself.
async fn runs_for(process: &Process, span: Duration) {
    let ended = eventually("the broker ends by itself", || async { !process.is_running() });
    let ended = tokio::time::timeout(span, ended).await;
    assert!(ended.is_err(), "the broker ended by itself: {}", process.log());
}
