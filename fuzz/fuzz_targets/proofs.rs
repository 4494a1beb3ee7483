//! A proof that nobody signed never counts, and none makes its reader panic.
#![no_main]

use leasehold_jose::{Demand, proof};
use leasehold_law::time::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let demand = Demand { method: "POST", url: "https://b/c", token: "t", now: Timestamp(1_795_000_000_000) };
    if let Ok(good) = proof::check(text, &demand) {
        // It would have to be signed: then at least everything that it says is in bounds.
        assert!(good.thumbprint.as_str().len() == 43 && !good.id.is_empty());
    }
});
