//! Who asks: an enum over the kinds of proven identity, never a bare string.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A SPIFFE ID that the identity room has parsed and proven (SPIFFE-ID, section 2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId(String);

impl SpiffeId {
    /// The longest SPIFFE ID, in bytes (SPIFFE-ID, section 2.4).
    pub const MAX_BYTES: usize = 2048;

    /// The ID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain: what stands between the scheme and the path.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        let rest = self.0.strip_prefix(SCHEME).unwrap_or_default();
        rest.split_once('/').map_or(rest, |(domain, _)| domain)
    }
}

const SCHEME: &str = "spiffe://";

/// The text of [`CallerId::Drill`]. It is no SPIFFE ID and no uid, so that no handshake and no socket can ever prove it.
pub const DRILL: &str = "leasehold/drill";

/// Why a text is no caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a workload or operator; write `spiffe://trust-domain/path` or `uid:N`")]
pub struct CallerIdError(String);

impl FromStr for SpiffeId {
    type Err = CallerIdError;
    /// Accepts the characters and segments that SPIFFE-ID, sections 2.1 and 2.2, allow, with a path.
    fn from_str(text: &str) -> Result<Self, CallerIdError> {
        let wrong = || CallerIdError(text.chars().take(128).collect());
        let rest = text.strip_prefix(SCHEME).ok_or_else(wrong)?;
        let (domain, path) = rest.split_once('/').ok_or_else(wrong)?;
        let domain_ok =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        let path_ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let segment_ok = |s: &str| !matches!(s, "" | "." | "..") && s.bytes().all(path_ok);
        let fits = text.len() <= Self::MAX_BYTES && !domain.is_empty() && domain.len() <= 255;
        if fits && domain.bytes().all(domain_ok) && path.split('/').all(segment_ok) {
            Ok(Self(text.to_owned()))
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A proven identity, whoever it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CallerId {
    /// A workload with an X.509-SVID.
    Agent(SpiffeId),
    /// A process on the broker's host, by the uid that the kernel reports for its socket.
    LocalUser(u32),
    /// The broker itself, which drills its targets. Reserved: nobody from outside is ever this.
    Drill,
}

impl fmt::Display for CallerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(id) => id.fmt(f),
            Self::LocalUser(uid) => write!(f, "uid:{uid}"),
            Self::Drill => f.write_str(DRILL),
        }
    }
}

impl FromStr for CallerId {
    type Err = CallerIdError;
    fn from_str(text: &str) -> Result<Self, CallerIdError> {
        if text == DRILL {
            return Ok(Self::Drill);
        }
        match text.strip_prefix("uid:") {
            Some(uid) => uid.parse().map(Self::LocalUser).map_err(|_| CallerIdError(text.to_owned())),
            None => text.parse().map(Self::Agent),
        }
    }
}

impl TryFrom<String> for CallerId {
    type Error = CallerIdError;
    fn try_from(text: String) -> Result<Self, CallerIdError> {
        text.parse()
    }
}

impl From<CallerId> for String {
    fn from(id: CallerId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_read_as_they_print() {
        let check = |text: &str, good: bool| {
            let parsed = text.parse::<CallerId>();
            assert_eq!(parsed.is_ok(), good, "{text}");
            if let Ok(id) = parsed {
                assert_eq!(id.to_string(), text);
            }
        };
        check("spiffe://prod.example/agent/triage", true);
        check("spiffe://prod.example/Agent_1/a.b-c", true);
        check("uid:0", true);
        check(DRILL, true);
        for bad in [
            "spiffe://prod.example",
            "spiffe://prod.example/",
            "spiffe://prod.example/a//b",
            "spiffe://prod.example/a/../b",
            "spiffe://prod.example/a%2fb",
            "spiffe://Prod.example/a",
            "spiffe://prod.example:443/a",
            "https://prod.example/a",
            "uid:-1",
            "uid:",
            "leasehold/other",
            "",
        ] {
            check(bad, false);
        }
    }

    #[test]
    fn the_reserved_agent_is_no_workload() {
        assert_eq!(DRILL.parse::<CallerId>(), Ok(CallerId::Drill));
        assert!(DRILL.parse::<SpiffeId>().is_err(), "no SVID holds it");
        let near = "spiffe://prod.example/leasehold/drill".parse::<CallerId>().unwrap();
        assert_ne!(near, CallerId::Drill, "a path that looks like it is somebody else");
    }
}
