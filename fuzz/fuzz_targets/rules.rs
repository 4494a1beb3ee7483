//! Rules for jobs, and jobs.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| leasehold_fuzz::any_rules(text));
