//! The name that is minted in a target, with a code that only this installation can make (RULES R-11).

use std::fmt;

use ring::hmac;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::id::{Base32Hex, ID_CHARS, LeaseId};

/// The key that marks principals as this installation's. It lies outside the store and its backups.
#[derive(Clone)]
pub struct InstallationKey(hmac::Key);

impl InstallationKey {
    /// Bytes in a key.
    pub const BYTES: usize = 32;

    /// The key made of these bytes.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "the caller's copy is wiped here")]
    pub fn new(bytes: Zeroizing<[u8; Self::BYTES]>) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes.as_slice()))
    }

    /// The public name of the installation: what targets are claimed under. It tells nothing of the key.
    #[must_use]
    pub fn installation(&self) -> String {
        Base32Hex::<MAC_CHARS>(head_bits(&self.0, INSTALLATION_CONTEXT, b"")).to_string()
    }
}

impl fmt::Debug for InstallationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InstallationKey([redacted])")
    }
}

/// `lh`, the 20 characters of the lease id, and 10 of an HMAC over them: 32 characters, which every target takes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrincipalName(String);

/// What every minted name begins with.
pub const PREFIX: &str = "lh";
const MAC_CHARS: usize = 10;
const MAC_CONTEXT: &[u8] = b"leasehold.principal.v1\0";
const INSTALLATION_CONTEXT: &[u8] = b"leasehold.installation.v1\0";

impl PrincipalName {
    /// The name for a lease.
    #[must_use]
    pub fn derive(lease: LeaseId, key: &InstallationKey) -> Self {
        let suffix = lease.suffix();
        let mac = mac_chars(&suffix, key);
        Self(format!("{PREFIX}{suffix}{mac}"))
    }

    /// The lease behind a name found in a target; `None` unless this installation made the name.
    #[must_use]
    pub fn verify(name: &str, key: &InstallationKey) -> Option<LeaseId> {
        let rest = name.strip_prefix(PREFIX)?;
        let (suffix, mac) = rest.split_at_checked(ID_CHARS)?;
        let lease = LeaseId::from_suffix(suffix)?;
        (mac == mac_chars(suffix, key)).then_some(lease)
    }

    /// A name from a row that cannot be read otherwise, if it has the form of one.
    #[must_use]
    pub fn stored(name: &str) -> Option<Self> {
        let chars = PREFIX.len() + ID_CHARS + MAC_CHARS;
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        (name.starts_with(PREFIX) && name.len() == chars && plain).then(|| Self(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The names are public, so comparing them takes no care of time.
fn mac_chars(suffix: &str, key: &InstallationKey) -> String {
    Base32Hex::<MAC_CHARS>(head_bits(&key.0, MAC_CONTEXT, suffix.as_bytes())).to_string()
}

/// The first 50 bits of a code over a context and a text.
fn head_bits(key: &hmac::Key, context: &[u8], text: &[u8]) -> u128 {
    let mut signing = hmac::Context::with_key(key);
    signing.update(context);
    signing.update(text);
    let head =
        signing.sign().as_ref().iter().take(8).fold(0_u128, |bits, byte| (bits << 8) | u128::from(*byte));
    head >> 14
}

impl fmt::Display for PrincipalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PrincipalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn key(byte: u8) -> InstallationKey {
        InstallationKey::new(Zeroizing::new([byte; InstallationKey::BYTES]))
    }

    #[test]
    fn a_name_leads_back_to_its_lease() {
        let lease = LeaseId::derive(Timestamp(1_795_000_000_000), 7);
        let name = PrincipalName::derive(lease, &key(1));
        assert_eq!(name.as_str().len(), 32);
        assert_eq!(PrincipalName::verify(name.as_str(), &key(1)), Some(lease));
    }

    #[test]
    fn a_name_of_another_installation_is_nobody_s() {
        let lease = LeaseId::derive(Timestamp(1_795_000_000_000), 7);
        let name = PrincipalName::derive(lease, &key(1)).0;
        assert_eq!(PrincipalName::verify(&name, &key(2)), None);
        for bad in ["", "lh", "lhé", &name[..31], &format!("{name}0"), &name.replace("lh", "xx")] {
            assert_eq!(PrincipalName::verify(bad, &key(1)), None, "{bad}");
        }
    }
}
