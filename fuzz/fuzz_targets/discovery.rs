//! What issuers call themselves and publish.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| leasehold_fuzz::any_discovery(text));
