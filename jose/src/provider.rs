//! ring behind `jsonwebtoken`: one provider of cryptography in the whole binary, and no algorithm but those that count.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::rand::SystemRandom;
use ring::signature::{self as ring_signature, EcdsaKeyPair, RsaPublicKeyComponents, UnparsedPublicKey};
use signature::{Signer, Verifier};

/// Installs the provider; once for a process, whoever asks first.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Where another part of the process was first, that one stays, and checks no less.
        let _ = PROVIDER.install_default();
    });
}

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    // They make keys into JWKs, which nobody here asks for.
    key_utils: KeyUtils::new_unimplemented(),
};

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    if *algorithm != Algorithm::ES256 {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let random = SystemRandom::new();
    let pair =
        EcdsaKeyPair::from_pkcs8(&ring_signature::ECDSA_P256_SHA256_FIXED_SIGNING, key.as_bytes(), &random)
            .map_err(|_| ErrorKind::InvalidEcdsaKey)?;
    Ok(Box::new(Es256(pair, random)))
}

/// What clients sign their proofs with.
struct Es256(EcdsaKeyPair, SystemRandom);

impl Signer<Vec<u8>> for Es256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        let signed = self.0.sign(&self.1, message).map_err(|_| signature::Error::new())?;
        Ok(signed.as_ref().to_vec())
    }
}

impl JwtSigner for Es256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let fits = algorithm.family() == key.family();
    let check = check_of(*algorithm).filter(|_| fits).ok_or(ErrorKind::InvalidAlgorithm)?;
    Ok(Box::new(RingVerifier { algorithm: *algorithm, check, key: key.kind().clone() }))
}

/// How a signature is checked.
#[derive(Clone, Copy)]
enum Check {
    Point(&'static dyn ring_signature::VerificationAlgorithm),
    Rsa(&'static ring_signature::RsaParameters),
}

/// None for what nobody may use: `none` is no algorithm at all, and a shared secret proves nothing of who signed.
fn check_of(algorithm: Algorithm) -> Option<Check> {
    match algorithm {
        Algorithm::ES256 => Some(Check::Point(&ring_signature::ECDSA_P256_SHA256_FIXED)),
        Algorithm::ES384 => Some(Check::Point(&ring_signature::ECDSA_P384_SHA384_FIXED)),
        Algorithm::EdDSA => Some(Check::Point(&ring_signature::ED25519)),
        Algorithm::RS256 => Some(Check::Rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA256)),
        Algorithm::RS384 => Some(Check::Rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA384)),
        Algorithm::RS512 => Some(Check::Rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA512)),
        Algorithm::PS256 => Some(Check::Rsa(&ring_signature::RSA_PSS_2048_8192_SHA256)),
        Algorithm::PS384 => Some(Check::Rsa(&ring_signature::RSA_PSS_2048_8192_SHA384)),
        Algorithm::PS512 => Some(Check::Rsa(&ring_signature::RSA_PSS_2048_8192_SHA512)),
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 | _ => None,
    }
}

struct RingVerifier {
    algorithm: Algorithm,
    check: Check,
    key: DecodingKeyKind,
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match (&self.check, &self.key) {
            (Check::Point(check), DecodingKeyKind::SecretOrDer(point)) => {
                UnparsedPublicKey::new(*check, point).verify(message, signature)
            }
            (Check::Rsa(parameters), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            (Check::Point(_), DecodingKeyKind::RsaModulusExponent { .. })
            | (Check::Rsa(_), DecodingKeyKind::SecretOrDer(_)) => return Err(signature::Error::new()),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
