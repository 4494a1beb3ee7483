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
#[error(
    "`{0}` is not a workload or operator; write `spiffe://trust-domain/path`, `uid:N`, \
     `ci:ISSUER|JOB`, `kube:CLUSTER|NAMESPACE/ACCOUNT`, `personal:ISSUER|SUBJECT/AGENT` or `oidc:ISSUER|SUBJECT`"
)]
pub struct CallerIdError(String);

/// An identity that somebody outside the trust domain vouches for, as `issuer|name`. It is never a path in the trust
/// domain, so that no token can be taken for an SVID (RULES R-20).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Vouched {
    issuer: String,
    name: String,
}

impl Vouched {
    /// The longest one, in bytes.
    pub const MAX_BYTES: usize = 1024;

    /// An identity, case and all. Both parts are visible ASCII, as OpenID Connect Core 1.0 section 2 has it for `sub`,
    /// and the issuer holds no `|`.
    ///
    /// # Errors
    /// Where a part is empty, too long, or holds anything else.
    pub fn new(issuer: &str, name: &str) -> Result<Self, CallerIdError> {
        let visible = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let fits = issuer.len() + name.len() < Self::MAX_BYTES;
        if fits && visible(issuer) && visible(name) && !issuer.contains('|') {
            Ok(Self { issuer: issuer.to_owned(), name: name.to_owned() })
        } else {
            Err(CallerIdError(format!("{issuer}|{name}").chars().take(128).collect()))
        }
    }

    /// Who vouches for it.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What it is called there.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for Vouched {
    type Err = CallerIdError;
    fn from_str(text: &str) -> Result<Self, CallerIdError> {
        let (issuer, name) = text.split_once('|').unwrap_or((text, ""));
        Self::new(issuer, name)
    }
}

impl fmt::Display for Vouched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}", self.issuer, self.name)
    }
}

impl FromStr for SpiffeId {
    type Err = CallerIdError;
    /// Accepts the characters and segments that SPIFFE-ID, sections 2.1 and 2.2, allow, with a path. The trust domain may
    /// have no empty label, which the letter of section 2.1 allows: no part of an ID reads as a path that climbs.
    fn from_str(text: &str) -> Result<Self, CallerIdError> {
        let wrong = || CallerIdError(text.chars().take(128).collect());
        let rest = text.strip_prefix(SCHEME).ok_or_else(wrong)?;
        let (domain, path) = rest.split_once('/').ok_or_else(wrong)?;
        let domain_ok =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        let label_ok = |label: &str| !label.is_empty() && label.bytes().all(domain_ok);
        let path_ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let segment_ok = |s: &str| !matches!(s, "" | "." | "..") && s.bytes().all(path_ok);
        let fits = text.len() <= Self::MAX_BYTES && domain.len() <= 255;
        if fits && domain.split('.').all(label_ok) && path.split('/').all(segment_ok) {
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

impl TryFrom<String> for Vouched {
    type Error = CallerIdError;
    fn try_from(text: String) -> Result<Self, CallerIdError> {
        text.parse()
    }
}

impl From<Vouched> for String {
    fn from(id: Vouched) -> Self {
        id.to_string()
    }
}

/// How an identity was proven: what policy reads as `context.proof`, and what is on record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProvenBy {
    /// A SPIFFE X.509-SVID in a mutual TLS 1.3 handshake.
    #[default]
    X509Svid,
    /// The kernel's word for the other end of a unix socket.
    PeerCredentials,
    /// A SPIFFE JWT-SVID, bound to the caller's key (RFC 9449).
    JwtSvid,
    /// The token of a CI job, bound to the caller's key.
    CiToken,
    /// The projected token of a Kubernetes service account, bound to the caller's key.
    KubeToken,
    /// A person's own sign-in.
    Person,
    /// A person's session, under which an agent acts on the person's machine: whatever runs there as that person may have
    /// it too.
    PersonSession,
    /// Nothing: the broker itself asks.
    Broker,
}

impl ProvenBy {
    /// The name that policy and records know it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X509Svid => "x509-svid",
            Self::PeerCredentials => "peer-credentials",
            Self::JwtSvid => "jwt-svid",
            Self::CiToken => "ci-token",
            Self::KubeToken => "kube-token",
            Self::Person => "person",
            Self::PersonSession => "person-session",
            Self::Broker => "broker",
        }
    }

    /// What a row leaves out.
    pub(crate) fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// A proven identity, whoever it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CallerId {
    /// A workload with an SVID.
    Agent(SpiffeId),
    /// A process on the broker's host, by the uid that the kernel reports for its socket.
    LocalUser(u32),
    /// A job of a CI platform: `ci:github|OWNER ID/REPOSITORY ID/ENVIRONMENT`.
    CiJob(Vouched),
    /// A service account of a Kubernetes cluster: `kube:CLUSTER|NAMESPACE/ACCOUNT`.
    KubeAccount(Vouched),
    /// An agent on a person's machine, under that person's session: `personal:ISSUER|SUBJECT/AGENT`.
    PersonalAgent(Vouched),
    /// A person who signed in: `oidc:ISSUER|SUBJECT`, never an e-mail address (RULES R-15).
    Person(Vouched),
    /// The broker itself, which drills its targets. Reserved: nobody from outside is ever this.
    Drill,
}

type Kind = fn(Vouched) -> CallerId;

/// Who is vouched for from outside, by how its text begins.
const VOUCHED: [(&str, Kind); 4] = [
    ("ci:", CallerId::CiJob),
    ("kube:", CallerId::KubeAccount),
    ("personal:", CallerId::PersonalAgent),
    ("oidc:", CallerId::Person),
];

impl CallerId {
    /// The person in whose session an agent on their machine acts; nobody, for everyone else.
    #[must_use]
    pub fn session_of(&self) -> Option<Vouched> {
        let Self::PersonalAgent(agent) = self else { return None };
        let (person, _) = agent.name().rsplit_once('/')?;
        Vouched::new(agent.issuer(), person).ok()
    }

    /// What it is called among its own kind: the text without the word that says which kind.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Agent(id) => id.to_string(),
            Self::LocalUser(uid) => uid.to_string(),
            Self::CiJob(id) | Self::KubeAccount(id) | Self::PersonalAgent(id) | Self::Person(id) => {
                id.to_string()
            }
            Self::Drill => DRILL.to_owned(),
        }
    }
}

impl fmt::Display for CallerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(id) => id.fmt(f),
            Self::LocalUser(uid) => write!(f, "uid:{uid}"),
            Self::CiJob(id) => write!(f, "ci:{id}"),
            Self::KubeAccount(id) => write!(f, "kube:{id}"),
            Self::PersonalAgent(id) => write!(f, "personal:{id}"),
            Self::Person(id) => write!(f, "oidc:{id}"),
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
        if let Some(uid) = text.strip_prefix("uid:") {
            // One caller has one spelling: no sign, no leading zero.
            let number = uid.parse::<u32>().ok().filter(|number| number.to_string() == uid);
            return number.map(Self::LocalUser).ok_or_else(|| CallerIdError(text.to_owned()));
        }
        let vouched = VOUCHED.iter().find_map(|(word, kind)| Some((text.strip_prefix(word)?, kind)));
        match vouched {
            Some((id, kind)) => id.parse().map(kind),
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
        check("ci:github|1234/5678/prod", true);
        check("kube:prod|payments/worker", true);
        check("personal:https://idp.example|auth0|00u1/coding", true);
        check("oidc:https://idp.example|auth0|00u1", true);
        check(DRILL, true);
        for bad in [
            "spiffe://prod.example",
            "spiffe://prod.example/",
            "spiffe://prod.example/a//b",
            "spiffe://prod.example/a/../b",
            "spiffe://prod.example/a%2fb",
            "spiffe://Prod.example/a",
            "spiffe://../a",
            "spiffe://prod.example:443/a",
            "https://prod.example/a",
            "uid:-1",
            "uid:",
            "uid:+5",
            "uid:007",
            "ci:github",
            "ci:|1/2",
            "kube:prod|",
            "oidc:https://idp.example|a b",
            "oidc:https://idp.example|\u{e4}",
            "OIDC:https://idp.example|a",
            "leasehold/other",
            "",
        ] {
            check(bad, false);
        }
    }

    #[test]
    fn an_issuer_ends_at_the_first_bar() {
        let id: Vouched = "https://idp.example|auth0|1".parse().unwrap();
        assert_eq!((id.issuer(), id.name()), ("https://idp.example", "auth0|1"));
        assert!(Vouched::new("https://idp.example|auth0", "1").is_err(), "or two people could read the same");
        assert!(Vouched::new("i", &"n".repeat(Vouched::MAX_BYTES)).is_err());
    }

    #[test]
    fn the_reserved_agent_is_no_workload() {
        assert_eq!(DRILL.parse::<CallerId>(), Ok(CallerId::Drill));
        assert!(DRILL.parse::<SpiffeId>().is_err(), "no SVID holds it");
        let near = "spiffe://prod.example/leasehold/drill".parse::<CallerId>().unwrap();
        assert_ne!(near, CallerId::Drill, "a path that looks like it is somebody else");
    }
}
