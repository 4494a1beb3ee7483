//! No text is a token that counts, and none makes its reader panic.
#![no_main]

use std::sync::LazyLock;

use leasehold_jose::{Keys, Rules, SigningKey, token};
use leasehold_law::time::{Span, Timestamp};
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let key = SigningKey::generate().expect("random bits");
    Keys::parse(format!(r#"{{"keys":[{}]}}"#, key.public("k")).as_bytes()).expect("a key set")
});

fuzz_target!(|text: &str| {
    let rules = Rules {
        issuer: None,
        audience: "leasehold",
        max_life: Span::from_mins(60),
        access_token: true,
        now: Timestamp(1_795_000_000_000),
    };
    let _ = token::peek(text);
    assert!(token::read(text, &KEYS, &rules).is_err(), "nobody here has the key");
});
