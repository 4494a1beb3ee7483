//! The public keys of an issuer: a JWK set (RFC 7517), of which only what can verify a signature is kept.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use crate::strict::Object;

/// Keys that signatures are checked with.
#[derive(Clone, Default)]
pub struct Keys(Vec<Key>);

/// One of them.
#[derive(Clone)]
pub(crate) struct Key {
    id: String,
    algorithms: Vec<Algorithm>,
    pub(crate) key: DecodingKey,
}

/// Why a JWK set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// It is larger than any issuer's is.
    #[error("the key set has {0} bytes; at most {most} are read", most = Keys::MAX_BYTES)]
    TooLarge(usize),
    /// It is not a JWK set.
    #[error("it is not a JWK set: {0}")]
    Malformed(String),
    /// It holds more keys than any issuer has.
    #[error("the key set holds {0} keys; at most {most} are read", most = Keys::MAX_KEYS)]
    TooMany(usize),
}

impl Keys {
    /// The largest set that is read, in bytes.
    pub const MAX_BYTES: usize = 256 * 1024;
    /// The most keys that a set may hold.
    pub const MAX_KEYS: usize = 64;

    /// Reads a JWK set. A key of a kind or for a use that is not ours is left out (RFC 7517 section 5), and so is one
    /// without an id: a token names its key.
    ///
    /// # Errors
    /// As [`KeysError`] says.
    pub fn parse(json: &[u8]) -> Result<Self, KeysError> {
        if json.len() > Self::MAX_BYTES {
            return Err(KeysError::TooLarge(json.len()));
        }
        let malformed = |error: &dyn fmt::Display| KeysError::Malformed(error.to_string());
        let Object(set) = serde_json::from_slice(json).map_err(|error| malformed(&error))?;
        let list = set.get("keys").and_then(Value::as_array).ok_or_else(|| malformed(&"no `keys`"))?;
        if list.len() > Self::MAX_KEYS {
            return Err(KeysError::TooMany(list.len()));
        }
        Ok(Self(list.iter().filter_map(|jwk| Key::read(jwk.as_object()?)).collect()))
    }

    /// Both together. Where both have a key of one id, either may verify.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        self.0.extend(other.0.iter().cloned());
        self
    }

    /// Whether there is a key of this id.
    #[must_use]
    pub fn holds(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id == id)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys of this id that may be used with this algorithm.
    pub(crate) fn of(&self, id: &str, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| key.id == id && key.algorithms.contains(&algorithm))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

impl Key {
    fn read(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        if !matches!(text("use"), None | Some("sig" | "jwt-svid")) || jwk.contains_key("d") {
            return None;
        }
        let (mut algorithms, key) = match text("kty")? {
            "EC" => (vec![curve(text("crv")?)?], point(jwk)?),
            "RSA" => (RSA.to_vec(), DecodingKey::from_rsa_components(text("n")?, text("e")?).ok()?),
            "OKP" if text("crv") == Some("Ed25519") => {
                (vec![Algorithm::EdDSA], DecodingKey::from_ed_components(text("x")?).ok()?)
            }
            _ => return None,
        };
        if let Some(only) = text("alg") {
            algorithms.retain(|algorithm| name_of(*algorithm) == only);
        }
        Some(Self { id: text("kid").filter(|id| !id.is_empty())?.to_owned(), algorithms, key })
    }
}

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// The algorithm that goes with a curve: there is one for each (RFC 7518 section 3.4).
fn curve(name: &str) -> Option<Algorithm> {
    match name {
        "P-256" => Some(Algorithm::ES256),
        "P-384" => Some(Algorithm::ES384),
        _ => None,
    }
}

/// The point of an elliptic key, its coordinates as long as the curve has them.
fn point(jwk: &Map<String, Value>) -> Option<DecodingKey> {
    let bytes = if jwk.get("crv")?.as_str()? == "P-256" { 32 } else { 48 };
    let (x, y) = (jwk.get("x")?.as_str()?, jwk.get("y")?.as_str()?);
    let fits = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).is_ok_and(|found| found.len() == bytes);
    (fits(x) && fits(y)).then(|| DecodingKey::from_ec_components(x, y).ok())?
}

/// The name of an algorithm (RFC 7518 section 3.1).
fn name_of(algorithm: Algorithm) -> String {
    format!("{algorithm:?}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn count(keys: &Value) -> usize {
        Keys::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap().len()
    }

    #[test]
    fn only_keys_that_verify_signatures_are_kept() {
        let x = BASE64_URL_SAFE_NO_PAD.encode([1; 32]);
        let ec = json!({ "kty": "EC", "crv": "P-256", "kid": "a", "x": x, "y": x });
        let with = |name: &str, value: Value| {
            let mut jwk = ec.clone();
            jwk[name] = value;
            json!([jwk])
        };
        assert_eq!(count(&json!([ec.clone()])), 1);
        assert_eq!(count(&with("use", json!("enc"))), 0);
        assert_eq!(count(&with("use", json!("jwt-svid"))), 1);
        assert_eq!(count(&with("crv", json!("P-521"))), 0);
        assert_eq!(count(&with("x", json!("AQ"))), 0, "a short coordinate");
        assert_eq!(count(&with("kid", json!(""))), 0);
        assert_eq!(count(&with("d", json!(x))), 0, "a private key is nobody's public one");
        assert_eq!(count(&with("kty", json!("oct"))), 0);
    }

    #[test]
    fn a_set_is_bounded() {
        let many = json!({ "keys": vec![json!({}); Keys::MAX_KEYS + 1] }).to_string();
        assert_eq!(Keys::parse(many.as_bytes()).unwrap_err(), KeysError::TooMany(Keys::MAX_KEYS + 1));
        let large = vec![b' '; 10 * 1024 * 1024];
        assert_eq!(Keys::parse(&large).unwrap_err(), KeysError::TooLarge(large.len()));
        assert!(matches!(Keys::parse(b"[]"), Err(KeysError::Malformed(_))));
        assert!(matches!(Keys::parse(br#"{"keys":[],"keys":[]}"#), Err(KeysError::Malformed(_))));
    }
}
