//! What a caller may ask for, within bounds, and the key under which it may ask again (RULES R-5).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ring::digest;
use serde::{Deserialize, Serialize, Serializer};

use crate::behalf::OnBehalfOf;
use crate::hex::Hex;
use crate::id::TaskId;
use crate::manifest::Digest;
use crate::param::Params;
use crate::scope::{Pair, Scope};
use crate::time::Span;

/// Longest purpose, in bytes.
pub const MAX_PURPOSE_BYTES: usize = 512;
/// Longest reason for a revocation, in bytes.
pub const MAX_REASON_BYTES: usize = 512;
/// Most references of a task.
pub const MAX_REFS: usize = 8;
/// Longest key of a reference, in bytes.
pub const MAX_REF_KEY_BYTES: usize = 32;
/// Longest value of a reference, in bytes.
pub const MAX_REF_VALUE_BYTES: usize = 128;
/// The longest lifetime that may be asked for.
pub const MAX_TTL: Span = Span::from_mins(60 * 24);

/// A caller's own name for a request: 1 to 64 of letters, digits, `.`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(String);

/// Why a text is no request id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a request id is 1 to 64 of letters, digits, `.`, `_` and `-`")]
pub struct RequestIdError;

impl FromStr for RequestId {
    type Err = RequestIdError;
    fn from_str(text: &str) -> Result<Self, RequestIdError> {
        let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(ok);
        if fits { Ok(Self(text.to_owned())) } else { Err(RequestIdError) }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RequestId {
    type Error = RequestIdError;
    fn try_from(text: String) -> Result<Self, RequestIdError> {
        text.parse()
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.0
    }
}

/// A digest of the parameters of a request, so that one request id means one request.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct RequestDigest([u8; 16]);

impl RequestDigest {
    /// The digest of anything that serialises the same way every time.
    #[must_use]
    pub fn derive<T: Serialize>(parameters: &T) -> Self {
        let bytes = serde_json::to_vec(parameters).unwrap_or_default();
        let digest = digest::digest(&digest::SHA256, &bytes);
        let mut head = [0; 16];
        head.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self(head)
    }
}

impl fmt::Debug for RequestDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Hex(&self.0), f)
    }
}

impl Serialize for RequestDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Hex(&self.0))
    }
}

/// A stored digest that is not 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a request digest")]
pub struct RequestDigestError;

impl TryFrom<String> for RequestDigest {
    type Error = RequestDigestError;
    fn try_from(text: String) -> Result<Self, RequestDigestError> {
        let mut bytes = [0; 16];
        if text.len() != 32 || !text.is_ascii() {
            return Err(RequestDigestError);
        }
        for (place, byte) in bytes.iter_mut().enumerate() {
            let pair = text.get(place * 2..place * 2 + 2).ok_or(RequestDigestError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| RequestDigestError)?;
        }
        Ok(Self(bytes))
    }
}

/// References that an agent asserts: searchable, never an input to policy.
pub type Refs = BTreeMap<String, String>;

/// What keeps a task alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// Heartbeats: silence for longer than the grace loses the task.
    Heartbeat {
        /// 30 s to 10 min.
        grace: Span,
    },
    /// Nothing but its deadline, at most one hour away.
    Deadline,
}

impl Liveness {
    /// The shortest grace.
    pub const MIN_GRACE: Span = Span::from_secs(30);
    /// The longest grace.
    pub const MAX_GRACE: Span = Span::from_mins(10);
    /// The furthest deadline of a task that nothing else holds.
    pub const MAX_DEADLINE: Span = Span::from_mins(60);

    /// The word that policy sees.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Heartbeat { .. } => "heartbeat",
            Self::Deadline => "deadline",
        }
    }
}

/// A request to open a task, within bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRequest {
    /// The caller's own name for this request.
    pub request_id: RequestId,
    /// What for: recorded, never an input to a decision.
    pub purpose: String,
    /// What may be asked.
    pub scope: Scope,
    /// What keeps the task alive.
    pub liveness: Liveness,
    /// How long it lasts at most, if the caller says.
    pub deadline: Option<Span>,
    /// References.
    pub refs: Refs,
    /// What the caller says that it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// Whom the caller acts for, as that person's token proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<OnBehalfOf>,
}

/// A request for a lease, within bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// Under which task.
    pub task: TaskId,
    /// What on what.
    pub pair: Pair,
    /// Parameters.
    pub params: Params,
    /// The lifetime asked for; the grant's default where it is left out.
    pub ttl: Option<Span>,
    /// The caller's own name for this request.
    pub request_id: RequestId,
    /// 1, or one more than an attempt that was spent.
    pub attempt: u32,
}

impl LeaseRequest {
    /// The digest of what is asked: everything but the attempt.
    #[must_use]
    pub fn digest(&self) -> RequestDigest {
        RequestDigest::derive(&(&self.task, &self.pair, &self.params, &self.ttl))
    }
}

impl OpenRequest {
    /// The digest of what is asked. Whoever asks again may come with a newer token of the same person.
    #[must_use]
    pub fn digest(&self) -> RequestDigest {
        let Some(behalf) = &self.on_behalf_of else { return RequestDigest::derive(self) };
        let on_behalf_of = Some(OnBehalfOf { until: None, ..behalf.clone() });
        RequestDigest::derive(&Self { on_behalf_of, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_short_and_plain() {
        let long = "x".repeat(65);
        let check = |text: &str, good: bool| assert_eq!(text.parse::<RequestId>().is_ok(), good, "{text}");
        check("a", true);
        check("run-8812.step_2", true);
        for bad in ["", "a b", "é", "a/b", long.as_str()] {
            check(bad, false);
        }
    }

    #[test]
    fn a_newer_token_of_the_same_person_asks_for_the_same_task() {
        let request = |person: &str, until: i64| OpenRequest {
            request_id: "one".parse().unwrap(),
            purpose: String::new(),
            scope: Scope::new(vec![crate::scope::ScopeEntry::of("a.read@b".parse().unwrap())]).unwrap(),
            liveness: Liveness::Deadline,
            deadline: None,
            refs: Refs::new(),
            manifest: None,
            on_behalf_of: Some(OnBehalfOf {
                person: format!("https://idp.example|{person}").parse().unwrap(),
                until: Some(crate::time::Timestamp(until)),
            }),
        };
        assert_eq!(request("ana", 1).digest(), request("ana", 2).digest());
        assert_ne!(request("ana", 1).digest(), request("ben", 1).digest());
        assert_ne!(
            request("ana", 1).digest(),
            OpenRequest { on_behalf_of: None, ..request("ana", 1) }.digest()
        );
    }

    #[test]
    fn a_digest_reads_back_and_tells_requests_apart() {
        let one = RequestDigest::derive(&("a", 1));
        assert_eq!(RequestDigest::try_from(format!("{one:?}")), Ok(one));
        assert_ne!(one, RequestDigest::derive(&("a", 2)));
        assert!(RequestDigest::try_from("zz".repeat(16)).is_err());
    }
}
