//! Chance with a seed: the same seed rolls the same.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A small generator (SplitMix64), shared by all that happens in one world.
pub(crate) struct Dice(Mutex<u64>);

impl Dice {
    pub(crate) fn of(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = *state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `sides`.
    pub(crate) fn roll(&self, sides: u64) -> u64 {
        self.next() % sides.max(1)
    }

    /// A number from `low` to below `high`.
    pub(crate) fn between(&self, low: u64, high: u64) -> u64 {
        low + self.roll(high.saturating_sub(low))
    }

    /// Whether something of so many in a thousand happens. What never happens costs no roll.
    pub(crate) fn chance(&self, per_mille: u64) -> bool {
        per_mille > 0 && self.roll(1000) < per_mille
    }

    /// A length of time in milliseconds from `low` to below `high`.
    pub(crate) fn millis(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() {
            return None;
        }
        from.get(usize::try_from(self.roll(from.len() as u64)).unwrap())
    }

    /// Fills a buffer.
    pub(crate) fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bits = self.next().to_be_bytes();
            chunk.iter_mut().zip(bits).for_each(|(to, from)| *to = from);
        }
    }
}
