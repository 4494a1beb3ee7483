//! Keys that sign: a client's own for its proofs, and the one of a small issuer, such as the dev trust domain.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, EllipticCurveKeyParameters, EllipticCurveKeyType,
    Jwk,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::provider;

/// The bytes of a coordinate on P-256.
pub(crate) const COORDINATE: usize = 32;

/// The system gives no random bits, or the key cannot sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no key could be made, or it could not sign")]
pub struct SigningError;

/// A key on P-256, for ES256.
pub struct SigningKey {
    key: EncodingKey,
    point: EllipticCurveKeyParameters,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("x", &self.point.x).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// Where the system gives no random bits.
    pub fn generate() -> Result<Self, SigningError> {
        Self::from_pkcs8(&Self::new_pkcs8()?)
    }

    /// A new key as a document (RFC 5208), for whoever must find it again: as secret as the key itself.
    ///
    /// # Errors
    /// Where the system gives no random bits.
    pub fn new_pkcs8() -> Result<Zeroizing<Vec<u8>>, SigningError> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document =
            EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).map_err(|_| SigningError)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// The key of a document that [`SigningKey::new_pkcs8`] made.
    ///
    /// # Errors
    /// Where it is no key on P-256.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, SigningError> {
        provider::install();
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &random).map_err(|_| SigningError)?;
        let (x, y) = pair.public_key().as_ref().get(1..).ok_or(SigningError)?.split_at(COORDINATE);
        let [x, y] = [x, y].map(|bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes));
        let (key_type, curve) = (EllipticCurveKeyType::EC, EllipticCurve::P256);
        let point = EllipticCurveKeyParameters { key_type, curve, x, y };
        Ok(Self { key: EncodingKey::from_ec_der(pkcs8), point })
    }

    /// Its public half, for a JWK set, under this id.
    #[must_use]
    pub fn public(&self, id: &str) -> Value {
        let EllipticCurveKeyParameters { x, y, .. } = &self.point;
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": id, "x": x, "y": y })
    }

    /// A token with these claims, that names its key by this id.
    ///
    /// # Errors
    /// Where the claims are no JSON, or there are no random bits.
    pub fn token(&self, id: &str, claims: &impl Serialize) -> Result<String, SigningError> {
        let header = Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::ES256) };
        self.sign(&header, claims)
    }

    pub(crate) fn sign(&self, header: &Header, claims: &impl Serialize) -> Result<String, SigningError> {
        jsonwebtoken::encode(header, claims, &self.key).map_err(|_| SigningError)
    }

    /// The coordinates of its public half.
    pub(crate) fn coordinates(&self) -> (&str, &str) {
        (&self.point.x, &self.point.y)
    }

    pub(crate) fn jwk(&self) -> Jwk {
        let algorithm = AlgorithmParameters::EllipticCurve(self.point.clone());
        Jwk { common: CommonParameters::default(), algorithm }
    }
}
