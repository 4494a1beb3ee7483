//! What both runs of the suite share: a clock and random bits that repeat.

use std::sync::Mutex;

use leasehold_backend::Entropy;
use leasehold_backend::kind::EntropyError;
use leasehold_law::catalog::Recipe;
use leasehold_law::time::{Span, Timestamp};
use serde_json::json;

/// A clock that only a test moves, and a generator (splitmix64) that starts the same each time.
#[derive(Debug)]
pub(crate) struct Fixed(Mutex<(u64, Timestamp)>);

impl Default for Fixed {
    fn default() -> Self {
        Self(Mutex::new((7, Timestamp(1_795_000_000_000))))
    }
}

impl Fixed {
    pub(crate) fn advance(&self, span: Span) {
        let mut state = self.0.lock().unwrap();
        state.1 = state.1 + span;
    }
}

impl Entropy for Fixed {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        let mut state = self.0.lock().unwrap();
        for byte in buffer {
            state.0 = state.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state.0;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (word ^ (word >> 31)).to_be_bytes()[0];
        }
        Ok(())
    }

    fn now(&self) -> Timestamp {
        self.0.lock().unwrap().1
    }
}

pub(crate) fn recipe(value: serde_json::Value) -> Recipe {
    Recipe(serde_json::from_value(value).unwrap())
}

pub(crate) fn good_recipe() -> Recipe {
    recipe(json!({ "role": "reader" }))
}

pub(crate) fn bad_recipes() -> Vec<(Recipe, &'static str)> {
    vec![(recipe(json!({})), "/role"), (recipe(json!({ "role": "reader", "rôle/x": 1 })), "/rôle~1x")]
}
