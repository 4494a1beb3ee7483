//! What goes wrong, how often: each seed has a weather of its own, from fair to foul, and calm comes at its end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::dice::Dice;

/// How often in a thousand calls each fault happens.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    /// The broker dies at this very call, before or after it is done.
    pub(crate) crash: u64,
    /// A call of store or target takes a while.
    pub(crate) slow: u64,
    /// A commit fails, and says so.
    pub(crate) commit_failed: u64,
    /// A commit's outcome is not known.
    pub(crate) commit_unknown: u64,
    /// A read fails.
    pub(crate) read_failed: u64,
    /// A target does nothing, and says so.
    pub(crate) target_failed: u64,
    /// A target does what it is asked, and its answer is an error.
    pub(crate) answer_lost: u64,
    /// A target does not answer; it may have done it.
    pub(crate) target_hung: u64,
    /// A mint or a renewal lies in its target for a while, though the broker has given it up.
    pub(crate) late: u64,
    /// One order of a revocation comes no further than some step.
    pub(crate) partial: u64,
    /// A caller goes away in the middle of its call.
    pub(crate) gone: u64,
    /// Something happens in the sky: an outage, a full disk, a step of the clock.
    pub(crate) sky: u64,
}

impl Rates {
    /// A weather: about half of the faults never happen in it.
    fn roll(dice: &Dice) -> Self {
        let rate = |most: u64| if dice.chance(500) { dice.between(1, most + 1) } else { 0 };
        Self {
            crash: rate(8),
            slow: rate(300),
            commit_failed: rate(40),
            commit_unknown: rate(40),
            read_failed: rate(15),
            target_failed: rate(150),
            answer_lost: rate(150),
            target_hung: rate(80),
            late: rate(200),
            partial: rate(300),
            gone: rate(400),
            sky: rate(1000),
        }
    }
}

/// The weather of one world.
pub(crate) struct Weather {
    rates: Rates,
    calm: AtomicBool,
    disk_full: AtomicBool,
}

impl Weather {
    pub(crate) fn roll(dice: &Dice) -> Self {
        Self { rates: Rates::roll(dice), calm: AtomicBool::new(false), disk_full: AtomicBool::new(false) }
    }

    /// How often what happens now.
    pub(crate) fn rates(&self) -> Rates {
        if self.is_calm() { Rates::default() } else { self.rates }
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// Nothing goes wrong from now on.
    pub(crate) fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
        self.fill_disk(false);
    }

    pub(crate) fn fill_disk(&self, full: bool) {
        self.disk_full.store(full, Ordering::Relaxed);
    }

    pub(crate) fn is_disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// How long a target takes on its way there or back, while there is any weather: time enough for others to act.
    pub(crate) fn distance(&self, dice: &Dice) -> Duration {
        if self.is_calm() { Duration::ZERO } else { self.delay(dice) + dice.millis(1, 60) }
    }

    /// How long a call takes longer than no time at all: a moment, or too long.
    pub(crate) fn delay(&self, dice: &Dice) -> Duration {
        if !dice.chance(self.rates().slow) {
            return Duration::ZERO;
        }
        match dice.roll(20) {
            0 => dice.millis(1000, 15_000),
            1..=4 => dice.millis(100, 1000),
            _ => dice.millis(1, 40),
        }
    }
}
