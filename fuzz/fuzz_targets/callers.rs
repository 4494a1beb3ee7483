//! What reads as a caller prints as it was written: no two texts are one caller.
#![no_main]

use leasehold_law::caller::{CallerId, SpiffeId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse::<CallerId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert!(text.len() <= SpiffeId::MAX_BYTES && !id.trust_domain().is_empty());
        assert!(!text.split('/').any(|segment| matches!(segment, "." | "..")), "{text:?}");
    }
});
