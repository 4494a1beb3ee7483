//! A password of 256 random bits, and the SCRAM-SHA-256 verifier that the server keeps of it (RFC 5802, RFC 5803).
//!
//! The verifier is made here, so that the password never travels in a statement, which a server may log.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use leasehold_backend::Entropy;
use leasehold_backend::kind::EntropyError;
use leasehold_law::secret::Secret;
use ring::{digest, hmac, pbkdf2};
use zeroize::Zeroizing;

const PASSWORD_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
const KEY_BYTES: usize = digest::SHA256_OUTPUT_LEN;

/// A password that nobody can guess.
pub(crate) fn make_password(entropy: &dyn Entropy) -> Result<Secret, EntropyError> {
    let mut bits = Zeroizing::new([0_u8; PASSWORD_BYTES]);
    entropy.fill(bits.as_mut_slice())?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bits.as_slice()).into_bytes()))
}

/// What the server keeps. One iteration is enough for random bits: stretching protects passwords that can be guessed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Verifier(String);

impl Verifier {
    /// The verifier of a password, under a fresh salt.
    pub(crate) fn make(
        password: &Secret,
        iterations: NonZeroU32,
        entropy: &dyn Entropy,
    ) -> Result<Self, EntropyError> {
        let mut salt = [0_u8; SALT_BYTES];
        entropy.fill(&mut salt)?;
        Ok(Self::derive(password.expose(), &salt, iterations))
    }

    fn derive(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted = Zeroizing::new([0_u8; KEY_BYTES]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, salted.as_mut_slice());
        let key = hmac::Key::new(hmac::HMAC_SHA256, salted.as_slice());
        let client_key = hmac::sign(&key, b"Client Key");
        let server_key = hmac::sign(&key, b"Server Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let base64 = |bytes: &[u8]| STANDARD.encode(bytes);
        Self(format!(
            "SCRAM-SHA-256${iterations}:{}${}:{}",
            base64(salt),
            base64(stored_key.as_ref()),
            base64(server_key.as_ref())
        ))
    }

    /// The text for `PASSWORD`, once its shape is right: PostgreSQL takes a malformed verifier for a password.
    pub(crate) fn checked(&self) -> Option<&str> {
        is_verifier(&self.0).then_some(&self.0)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier([redacted])")
    }
}

/// Whether PostgreSQL will take the text for a verifier and not for a password.
fn is_verifier(text: &str) -> bool {
    let parse = || {
        let (iterations, rest) = text.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored, server) = keys.split_once(':')?;
        let bytes = |text: &str| STANDARD.decode(text).ok().map(|bytes| bytes.len());
        let shape = (bytes(salt)?, bytes(stored)?, bytes(server)?);
        (iterations.parse::<NonZeroU32>().is_ok() && shape == (SALT_BYTES, KEY_BYTES, KEY_BYTES))
            .then_some(())
    };
    parse().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_is_the_one_of_rfc_7677() {
        // The salt and password of the example exchange in RFC 7677; the proof there rests on these keys.
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let made = Verifier::derive(b"pencil", &salt, NonZeroU32::new(4096).unwrap());
        let expect = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                      WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        assert_eq!(made.checked(), Some(expect));
    }

    #[test]
    fn a_malformed_verifier_is_caught() {
        let salt = "W22ZaJ0SNY7soEsUEjb6gQ==";
        let key = "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=";
        let check = |text: String, expect: bool| assert_eq!(is_verifier(&text), expect, "{text}");
        check(format!("SCRAM-SHA-256$1:{salt}${key}:{key}"), true);
        check(format!("SCRAM-SHA-256$0:{salt}${key}:{key}"), false);
        check(format!("SCRAM-SHA-256$:{salt}${key}:{key}"), false);
        check(format!("SCRAM-SHA-256$1:{salt}${key}"), false);
        check(format!("SCRAM-SHA-256$1:{salt}${key}:{salt}"), false);
        check(format!("SCRAM-SHA-1$1:{salt}${key}:{key}"), false);
        check("hunter2".to_owned(), false);
    }
}
