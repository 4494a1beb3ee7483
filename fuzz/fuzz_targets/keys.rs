//! Any bytes are a key set within bounds, or refused.
#![no_main]

use leasehold_jose::Keys;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(keys) = Keys::parse(bytes) {
        assert!(keys.len() <= Keys::MAX_KEYS);
    }
});
