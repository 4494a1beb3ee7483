//! Digests of manifests, and what they are taken over.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| leasehold_fuzz::any_manifest(text));
