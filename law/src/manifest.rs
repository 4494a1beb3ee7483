//! What an agent says it runs, as a digest over model, prompt and tools. The agent asserts it, so that it may only lower
//! what the agent is allowed (RULES R-18).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::hex::Hex;

/// `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

const SCHEME: &str = "sha256:";

/// Why a text is no digest of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a manifest's digest is `sha256:` and 64 lower-case hexadecimal digits; print it with: leasehold agents digest FILE"
)]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digits = text.strip_prefix(SCHEME).ok_or(DigestError)?.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return Err(DigestError);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair
                .iter()
                .try_fold(0, |byte, digit| Some(byte << 4 | nibble(*digit)?))
                .ok_or(DigestError)?;
        }
        Ok(Self(bytes))
    }
}

/// Upper case is another spelling of the same, and one thing has one form here.
const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_has_one_form() {
        let good = format!("sha256:{}", "0af9".repeat(16));
        assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
        for bad in [
            String::new(),
            "sha256:".into(),
            good.to_uppercase(),
            good.replace("sha256", "sha512"),
            good.replacen("0af9", "0AF9", 1),
            good.replacen("0af9", "0agg", 1),
            good.replacen("0af9", "0a\u{e9}", 1),
            format!("{good}0"),
            format!(" {good}"),
        ] {
            assert_eq!(bad.parse::<Digest>(), Err(DigestError), "{bad}");
        }
    }
}
