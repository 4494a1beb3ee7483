//! What the types forbid outside this crate: evidence cannot be made up, and a secret has no way out (laws 3, 4).

#[test]
fn evidence_and_secrets_hold_at_compile_time() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
