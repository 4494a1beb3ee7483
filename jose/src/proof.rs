//! Proofs of possession (RFC 9449): a token alone is worth nothing to whoever finds it.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use leasehold_law::time::{Span, Timestamp};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::signing::{COORDINATE, SigningError, SigningKey};
use crate::strict::Object;
use crate::token::{Header, Parts, TokenError, moment, object};

/// How old a proof may be, and how far the clock of its maker may be ahead.
pub const FRESH: Span = Span::from_secs(60);
/// The media type of a proof (RFC 9449 section 4.2).
const TYPE: &str = "dpop+jwt";
/// The claim that names an agent: ours alone.
const AGENT: &str = "leasehold_agent";
/// The longest name that a proof may have, in bytes.
const MAX_ID: usize = 128;

/// The name of a public key (RFC 7638, SHA-256, base64url).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Thumbprint(String);

impl Thumbprint {
    /// The name as text: 43 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Of a point on P-256. The members stand in the order of RFC 7638 section 3.2.
    fn of(x: &str, y: &str) -> Self {
        let jwk = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        Self(BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, jwk.as_bytes())))
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a proof does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It is no signed token.
    #[error("the proof is refused: {0}")]
    Token(#[from] TokenError),
    /// The key in it is not a public key on P-256.
    #[error("the proof is refused: `jwk` is not a public key on P-256 (ES256)")]
    Key,
    /// A claim is not that of this request.
    #[error("the proof is refused: `{0}` is not that of this request")]
    Other(&'static str),
    /// It was made too long ago, or will be made.
    #[error("the proof is refused: it was made at {made}, and now is {now}; check the clock of this machine")]
    Stale {
        /// When it was made.
        made: Timestamp,
        /// The time.
        now: Timestamp,
    },
}

/// A client's own key: made by it and never sent. A workload's is never written down; a person's lies where the person's
/// session does.
#[derive(Debug)]
pub struct ProofKey {
    key: SigningKey,
    thumbprint: Thumbprint,
    random: SystemRandom,
}

#[derive(Serialize)]
struct ProofClaims<'a> {
    jti: String,
    htm: &'a str,
    htu: &'a str,
    iat: i64,
    ath: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    leasehold_agent: Option<&'a str>,
}

impl ProofKey {
    /// A new key on P-256.
    ///
    /// # Errors
    /// Where the system gives no random bits.
    pub fn generate() -> Result<Self, SigningError> {
        SigningKey::generate().map(Self::of)
    }

    /// The key of a document that [`SigningKey::new_pkcs8`] made.
    ///
    /// # Errors
    /// Where it is no key on P-256.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, SigningError> {
        SigningKey::from_pkcs8(pkcs8).map(Self::of)
    }

    fn of(key: SigningKey) -> Self {
        let (x, y) = key.coordinates();
        Self { thumbprint: Thumbprint::of(x, y), key, random: SystemRandom::new() }
    }

    /// The name of its public half.
    #[must_use]
    pub fn thumbprint(&self) -> &Thumbprint {
        &self.thumbprint
    }

    /// A proof for one request with one token. `url` has neither query nor fragment.
    ///
    /// # Errors
    /// Where the system gives no random bits.
    pub fn prove(
        &self,
        method: &str,
        url: &str,
        token: &str,
        now: Timestamp,
    ) -> Result<String, SigningError> {
        self.prove_as(None, method, url, token, now)
    }

    /// As [`ProofKey::prove`], for an agent that acts in the session of the token's person. RFC 9449 section 4.2 lets a
    /// proof hold more claims; whoever cannot sign with the key cannot change who acts.
    ///
    /// # Errors
    /// As [`ProofKey::prove`].
    pub fn prove_as(
        &self,
        agent: Option<&str>,
        method: &str,
        url: &str,
        token: &str,
        now: Timestamp,
    ) -> Result<String, SigningError> {
        let mut id = [0_u8; 16];
        self.random.fill(&mut id).map_err(|_| SigningError)?;
        let mut header = jsonwebtoken::Header::new(Algorithm::ES256);
        header.typ = Some(TYPE.to_owned());
        header.jwk = Some(self.key.jwk());
        let jti = BASE64_URL_SAFE_NO_PAD.encode(id);
        let iat = now.0.div_euclid(1000);
        let ath = hash_of(token);
        let claims = ProofClaims { jti, htm: method, htu: url, iat, ath, leasehold_agent: agent };
        self.key.sign(&header, &claims)
    }
}

/// The request that a proof must be for.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its URL, without query and fragment.
    pub url: &'a str,
    /// The token that comes with it.
    pub token: &'a str,
    /// The time.
    pub now: Timestamp,
}

/// A proof that holds. Whether it came before is for the caller to know, who keeps [`Proof::id`] until
/// [`FRESH`] after [`Proof::made_at`]: it may be dated as far ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Whose it is.
    pub thumbprint: Thumbprint,
    /// Its own name.
    pub id: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// The agent that acts in the session of the token's person, where one does.
    pub agent: Option<String>,
}

/// Checks a proof (RFC 9449 section 4.3).
///
/// # Errors
/// As [`ProofError`] says.
pub fn check(proof: &str, demand: &Demand<'_>) -> Result<Proof, ProofError> {
    let parts = Parts::of(proof)?;
    let header = Header::read(parts.header, &[TYPE])?;
    if !header.all.contains_key("typ") || header.algorithm != Algorithm::ES256 {
        return Err(TokenError::Header("a proof is `dpop+jwt` by ES256").into());
    }
    let (thumbprint, key) = public_key(header.all.get("jwk")).ok_or(ProofError::Key)?;
    if !parts.is_signed_by(&key, Algorithm::ES256) {
        return Err(TokenError::Signature.into());
    }
    let Object(claims) = object(parts.claims, "its claims are not a JSON object")?;
    let (id, made_at) = is_for(&claims, demand)?;
    let agent = match claims.get(AGENT).map(Value::as_str) {
        None => None,
        Some(Some(name)) if !name.is_empty() && name.len() <= MAX_ID => Some(name.to_owned()),
        Some(_) => return Err(ProofError::Other(AGENT)),
    };
    Ok(Proof { thumbprint, id, made_at, agent })
}

fn is_for(claims: &Map<String, Value>, demand: &Demand<'_>) -> Result<(String, Timestamp), ProofError> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let hash = hash_of(demand.token);
    for (name, expected) in [("htm", demand.method), ("htu", demand.url), ("ath", hash.as_str())] {
        if text(name) != Some(expected) {
            return Err(ProofError::Other(name));
        }
    }
    let id = text("jti").filter(|id| !id.is_empty() && id.len() <= MAX_ID).ok_or(ProofError::Other("jti"))?;
    let made = moment(claims, "iat")?.ok_or(TokenError::Missing("iat"))?;
    if made.since(demand.now) > FRESH || demand.now.since(made) > FRESH {
        return Err(ProofError::Stale { made, now: demand.now });
    }
    Ok((id.to_owned(), made))
}

/// The key in a proof, and its name, made of the point itself: however it is spelt, one key has one name.
fn public_key(jwk: Option<&Value>) -> Option<(Thumbprint, DecodingKey)> {
    let jwk = jwk?.as_object()?;
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    if text("kty") != Some("EC") || text("crv") != Some("P-256") || jwk.contains_key("d") {
        return None;
    }
    let coordinate = |name: &str| {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text(name)?).ok()?;
        (bytes.len() == COORDINATE).then(|| BASE64_URL_SAFE_NO_PAD.encode(bytes))
    };
    let (x, y) = (coordinate("x")?, coordinate("y")?);
    Some((Thumbprint::of(&x, &y), DecodingKey::from_ec_components(&x, &y).ok()?))
}

/// `ath`: what binds a proof to one token (RFC 9449 section 4.2).
fn hash_of(token: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, token.as_bytes()))
}
