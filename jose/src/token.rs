//! Tokens of others: JWT-SVIDs, CI jobs, people, service accounts. One way of reading them, strict for all.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use leasehold_law::time::{Span, Timestamp};
use serde_json::{Map, Value};

use crate::keys::Keys;
use crate::provider;
use crate::strict::Object;

/// The longest token that is read, in bytes.
pub const MAX_BYTES: usize = 16 * 1024;
/// How far the clock of an issuer may be ahead of ours. Nothing is added to the end of a token.
pub const LEEWAY: Span = Span::from_secs(30);
/// The longest name that a token may give its subject, in bytes.
const MAX_SUBJECT: usize = 2048;
/// What `typ` may say of a token that is no access token (RFC 7519 section 5.1; SPIFFE JWT-SVID section 2); compared without
/// regard to case.
const TYPES: [&str; 2] = ["jwt", "jose"];
/// What it may say of an access token: issuers that follow RFC 9068 section 2.1 name it so, and others do not.
const ACCESS_TYPES: [&str; 4] = ["jwt", "jose", "at+jwt", "application/at+jwt"];

/// What a token must be, where it is accepted.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The issuer, to the letter; none for a JWT-SVID, whose trust domain is in its subject.
    pub issuer: Option<&'a str>,
    /// The one audience (RULES R-20).
    pub audience: &'a str,
    /// The longest that it may live from when it was issued; from now, where it does not say when that was.
    pub max_life: Span,
    /// Whether it may be an access token (RFC 9068). One that says so is no ID token, and never does for one.
    pub access_token: bool,
    /// The time.
    pub now: Timestamp,
}

/// What a token says before anything is checked: good for choosing keys, and for nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peek {
    /// The id of the key that it names.
    pub key_id: String,
    /// Its issuer.
    pub issuer: Option<String>,
    /// Its subject.
    pub subject: Option<String>,
    /// Its audiences.
    pub audiences: Vec<String>,
    /// Its end.
    pub expires_at: Option<Timestamp>,
}

/// The claims of a token that was verified.
#[derive(Clone, PartialEq)]
pub struct Claims {
    all: Map<String, Value>,
    subject: String,
    issued_at: Option<Timestamp>,
    expires_at: Timestamp,
}

/// Why a token does not count. None of it holds anything of the token that is secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is too long to be read.
    #[error("the token has {0} bytes; at most {MAX_BYTES} are read")]
    TooLong(usize),
    /// It is no signed token in compact form.
    #[error("it is not a signed token: {0}")]
    Malformed(&'static str),
    /// Its header asks for something that is not accepted.
    #[error("the token's header is not accepted: {0}")]
    Header(&'static str),
    /// Its issuer has no key of that id for that algorithm.
    #[error("the token names a key that its issuer does not have, or not for this algorithm")]
    UnknownKey,
    /// The signature is not that of its issuer.
    #[error("the token's signature is not its issuer's")]
    Signature,
    /// A claim is missing.
    #[error("the token has no `{0}`")]
    Missing(&'static str),
    /// A claim has the wrong shape.
    #[error("the token's `{0}` is not what that claim must be")]
    Shape(&'static str),
    /// It is from another issuer.
    #[error("the token is from another issuer than the one that is configured, to the letter")]
    Issuer,
    /// It is for somebody else, or for several.
    #[error("the token's audience is not exactly `{expected}`")]
    Audience {
        /// What it must be.
        expected: String,
    },
    /// It is past its end.
    #[error("the token expired at {0}")]
    Expired(Timestamp),
    /// Its time has not come.
    #[error("the token is not valid before {0}")]
    NotYet(Timestamp),
    /// It would live too long.
    #[error("the token lives for {life}; at most {most} are accepted")]
    TooLongLived {
        /// For how long.
        life: Span,
        /// The most.
        most: Span,
    },
}

/// Looks at a token without checking anything.
///
/// # Errors
/// Where it is no token, or names no key.
pub fn peek(token: &str) -> Result<Peek, TokenError> {
    let parts = Parts::of(token)?;
    let header = Header::read(parts.header, &ACCESS_TYPES)?;
    let Object(claims) = object(parts.claims, "its claims are not a JSON object")?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
    Ok(Peek {
        key_id: header.key_id()?.to_owned(),
        issuer: text("iss"),
        subject: text("sub"),
        audiences: audiences(claims.get("aud")).unwrap_or_default(),
        expires_at: moment(&claims, "exp").ok().flatten(),
    })
}

/// Verifies a token: its signature by these keys, and every rule.
///
/// # Errors
/// The first rule that does not hold, as [`TokenError`] says.
pub fn read(token: &str, keys: &Keys, rules: &Rules<'_>) -> Result<Claims, TokenError> {
    let parts = Parts::of(token)?;
    let types: &[_] = if rules.access_token { &ACCESS_TYPES } else { &TYPES };
    let header = Header::read(parts.header, types)?;
    let mut known = keys.of(header.key_id()?, header.algorithm).peekable();
    known.peek().ok_or(TokenError::UnknownKey)?;
    if !known.any(|key| parts.is_signed_by(&key.key, header.algorithm)) {
        return Err(TokenError::Signature);
    }
    let Object(all) = object(parts.claims, "its claims are not a JSON object")?;
    Claims::check(all, rules)
}

/// The three parts of a token in compact form (RFC 7515 section 7.1).
pub(crate) struct Parts<'a> {
    pub(crate) header: &'a str,
    pub(crate) claims: &'a str,
    signature: &'a str,
    message: &'a str,
}

impl<'a> Parts<'a> {
    pub(crate) fn of(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_BYTES {
            return Err(TokenError::TooLong(token.len()));
        }
        let three = || TokenError::Malformed("it does not have three parts");
        let (message, signature) = token.rsplit_once('.').ok_or_else(three)?;
        let (header, claims) = message.split_once('.').ok_or_else(three)?;
        if claims.contains('.') {
            return Err(three());
        }
        Ok(Self { header, claims, signature, message })
    }

    pub(crate) fn is_signed_by(&self, key: &jsonwebtoken::DecodingKey, algorithm: Algorithm) -> bool {
        provider::install();
        let verified = jsonwebtoken::crypto::verify(self.signature, self.message.as_bytes(), key, algorithm);
        verified.unwrap_or(false)
    }
}

/// An object of a token: base64url without padding, JSON in which no name comes twice.
pub(crate) fn object(part: &str, otherwise: &'static str) -> Result<Object, TokenError> {
    let bytes =
        BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed("it is not base64url"))?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed(otherwise))
}

/// The header of a token.
pub(crate) struct Header {
    pub(crate) algorithm: Algorithm,
    pub(crate) all: Map<String, Value>,
}

impl Header {
    /// `types` is what `typ` may say. Where a key might be fetched from is never read from here, and what must be
    /// understood (`crit`, RFC 7515 section 4.1.11) is not.
    pub(crate) fn read(part: &str, types: &[&str]) -> Result<Self, TokenError> {
        let Object(all) = object(part, "its header is not a JSON object")?;
        let text = |name: &str| all.get(name).and_then(Value::as_str);
        let refused = |what| Err(TokenError::Header(what));
        if all.contains_key("crit") {
            return refused("`crit` is not understood");
        }
        match all.get("typ").map(|typ| typ.as_str().map(str::to_ascii_lowercase)) {
            None => {}
            Some(Some(typ)) if types.contains(&typ.as_str()) => {}
            Some(_) => return refused("`typ` is not that of such a token"),
        }
        match text("alg").and_then(|name| name.parse().ok()) {
            Some(algorithm) => Ok(Self { algorithm, all }),
            None => refused("`alg` is missing, `none`, or nothing that is accepted"),
        }
    }

    fn key_id(&self) -> Result<&str, TokenError> {
        let id = self.all.get("kid").and_then(Value::as_str);
        id.filter(|id| !id.is_empty()).ok_or(TokenError::Header("`kid` is missing: a token names its key"))
    }
}

impl Claims {
    fn check(all: Map<String, Value>, rules: &Rules<'_>) -> Result<Self, TokenError> {
        if rules.issuer.is_some_and(|issuer| all.get("iss").and_then(Value::as_str) != Some(issuer)) {
            return Err(TokenError::Issuer);
        }
        if audiences(all.get("aud")).as_deref() != Some(&[rules.audience.to_owned()]) {
            return Err(TokenError::Audience { expected: rules.audience.to_owned() });
        }
        let expires_at = moment(&all, "exp")?.ok_or(TokenError::Missing("exp"))?;
        let issued_at = moment(&all, "iat")?;
        let not_before = moment(&all, "nbf")?;
        let subject = all.get("sub").ok_or(TokenError::Missing("sub"))?.as_str();
        let subject = subject.filter(|sub| !sub.is_empty() && sub.len() <= MAX_SUBJECT);
        let subject = subject.ok_or(TokenError::Shape("sub"))?.to_owned();
        if expires_at <= rules.now {
            return Err(TokenError::Expired(expires_at));
        }
        if let Some(early) = issued_at.max(not_before).filter(|at| *at > rules.now + LEEWAY) {
            return Err(TokenError::NotYet(early));
        }
        let life = expires_at.since(issued_at.unwrap_or(rules.now).min(rules.now));
        if life > rules.max_life {
            return Err(TokenError::TooLongLived { life, most: rules.max_life });
        }
        Ok(Self { all, subject, issued_at, expires_at })
    }

    /// Whom it is about (`sub`).
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// When it was issued, where it says so.
    #[must_use]
    pub fn issued_at(&self) -> Option<Timestamp> {
        self.issued_at
    }

    /// When it ends.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// A claim, by its name.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<&Value> {
        self.all.get(name)
    }

    /// A claim that is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.claim(name).and_then(Value::as_str)
    }
}

impl std::fmt::Debug for Claims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claims").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// One audience or a list of them (RFC 7519 section 4.1.3); none where it is anything else.
fn audiences(claim: Option<&Value>) -> Option<Vec<String>> {
    match claim? {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(list) => list.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// A `NumericDate` (RFC 7519 section 2), cut to whole seconds, of this age of the world.
pub(crate) fn moment(
    claims: &Map<String, Value>,
    name: &'static str,
) -> Result<Option<Timestamp>, TokenError> {
    const LAST: i64 = 253_402_300_799;
    let Some(claim) = claims.get(name) else { return Ok(None) };
    let whole = claim.as_i64().or_else(|| claim.as_f64().and_then(whole_seconds));
    let seconds = whole.filter(|seconds| (0..=LAST).contains(seconds)).ok_or(TokenError::Shape(name))?;
    Ok(Some(Timestamp(seconds * 1000)))
}

fn whole_seconds(seconds: f64) -> Option<i64> {
    format!("{:.0}", seconds.floor()).parse().ok()
}
