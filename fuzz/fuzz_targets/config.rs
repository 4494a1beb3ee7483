//! Config files, and what `agents apply` sends.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| leasehold_fuzz::any_text(text));
