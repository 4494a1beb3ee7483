//! Time and randomness of a world: the runtime's paused clock, a wall clock that may step, and bits from the dice.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use leasehold::clock::{Clock, TimeSource};
use leasehold_backend::Entropy;
use leasehold_backend::kind::EntropyError;
use leasehold_law::time::{Span, Timestamp};
use tokio::time::Instant;

use crate::dice::Dice;

/// When every world begins.
const BEGINNING: Timestamp = Timestamp(1_795_000_000_000);
/// How long the host was up by then.
const UP: Span = Span::from_mins(60);

/// The host's clocks.
pub(crate) struct SimTime {
    begun: Instant,
    stepped: AtomicI64,
}

impl SimTime {
    /// Begins now, inside a runtime whose clock is paused.
    pub(crate) fn begin() -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), stepped: AtomicI64::new(0) })
    }

    /// What has passed since the beginning.
    pub(crate) fn passed(&self) -> Span {
        Instant::now().duration_since(self.begun).into()
    }

    /// True time, which no step of the wall clock moves: what targets live by.
    pub(crate) fn truth(&self) -> Timestamp {
        BEGINNING + self.passed()
    }

    /// Steps the wall clock.
    pub(crate) fn step(&self, millis: i64) {
        self.stepped.fetch_add(millis, Ordering::Relaxed);
    }

    /// Sets the wall clock to where a broker's time is, if it is behind.
    pub(crate) fn set_right(&self, now: Timestamp) {
        self.step(i64::try_from(now.since(self.wall()).0).unwrap());
    }
}

impl TimeSource for SimTime {
    fn wall(&self) -> Timestamp {
        self.truth().shifted(self.stepped.load(Ordering::Relaxed))
    }

    fn boot(&self) -> Span {
        Span(UP.0 + self.passed().0)
    }
}

/// Bits from the dice, with the time of whoever holds it.
pub(crate) struct Bits {
    dice: Dice,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Bits {
    /// For a target, which has a clock of its own.
    pub(crate) fn of_target(seed: u64, time: Arc<SimTime>) -> Arc<Self> {
        Arc::new(Self { dice: Dice::of(seed), now: Box::new(move || time.truth()) })
    }

    /// For a broker.
    pub(crate) fn of_broker(seed: u64, clock: Arc<Clock>) -> Arc<Self> {
        Arc::new(Self { dice: Dice::of(seed), now: Box::new(move || clock.now()) })
    }
}

impl fmt::Debug for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bits")
    }
}

impl Entropy for Bits {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        self.dice.fill(buffer);
        Ok(())
    }

    fn now(&self) -> Timestamp {
        (self.now)()
    }
}
