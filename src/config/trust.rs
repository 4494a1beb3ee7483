//! Whether dev identities, keys and targets are accepted (RULES R-19), and what a trust domain may be called.

use super::table::Value;

/// What dev trust domains end in. `.test` is reserved (RFC 2606), so none can be real.
pub const DEV_SUFFIX: &str = ".leasehold.test";

/// Which world a broker is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Dev trust domains, dev keys and the memory target are refused.
    Production,
    /// They are accepted, and TCP doors open on loopback only: what `--dev-trust` means.
    Dev,
}

/// A trust domain, as SPIFFE-ID section 2.1 spells one.
pub(super) fn trust_domain(value: &Value<'_>, trust: Trust) -> Option<String> {
    let text = value.text()?;
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if text.is_empty() || text.len() > 255 || !text.bytes().all(ok) {
        value.problem(format!("`{text}` is not a trust domain: write it like `prod.example`, in lower case"));
        return None;
    }
    if text.ends_with(DEV_SUFFIX) && trust == Trust::Production {
        value.problem(format!("`{text}` is a dev trust domain: it needs `--dev-trust`"));
    }
    Some(text.to_owned())
}
