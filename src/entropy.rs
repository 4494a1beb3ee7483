//! Random bits from the operating system, injected wherever they are needed (law 10).

use std::sync::Arc;

use leasehold_backend::{Entropy, kind::EntropyError};
use leasehold_law::time::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};

use crate::clock::Clock;

/// The operating system's randomness, with the broker's clock.
#[derive(Debug)]
pub struct SystemEntropy {
    random: SystemRandom,
    clock: Arc<Clock>,
}

impl SystemEntropy {
    /// Bits that nobody can guess, and the time of this clock.
    #[must_use]
    pub fn new(clock: Arc<Clock>) -> Arc<Self> {
        Arc::new(Self { random: SystemRandom::new(), clock })
    }
}

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        self.random.fill(buffer).map_err(|_| EntropyError)
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
