//! Typed identifiers: 48 bits of milliseconds and 52 random bits, as 20 lower-case base32hex characters.
//!
//! base32hex (RFC 4648, section 7) keeps the order of the bits, so identifiers sort by the time they were made.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use crate::time::Timestamp;

/// How many characters an identifier has behind its prefix.
pub const ID_CHARS: usize = 20;
const RANDOM_BITS: u32 = 52;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// The lowest `N * 5` bits of a number as base32hex, most significant first.
pub(crate) struct Base32Hex<const N: usize>(pub(crate) u128);

impl<const N: usize> fmt::Display for Base32Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits: [u8; N] = std::array::from_fn(|place| digit(self.0 >> (5 * (N - 1 - place))));
        f.write_str(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

/// The 20 digits behind a prefix, in one piece: what is written in pieces finds its place piece by piece.
fn with_prefix<const N: usize>(prefix: &str, bits: u128) -> [u8; N] {
    std::array::from_fn(|place| match prefix.as_bytes().get(place) {
        Some(byte) => *byte,
        None => digit(bits >> (5 * (N - 1 - place))),
    })
}

/// The lowest five bits.
fn digit(bits: u128) -> u8 {
    usize::try_from(bits & 31).ok().and_then(|place| ALPHABET.get(place)).copied().unwrap_or(b'0')
}

/// The bits behind base32hex text of at most 25 characters; `None` for any other character.
pub(crate) fn parse_base32hex(text: &str) -> Option<u128> {
    text.bytes().try_fold(0_u128, |bits, byte| {
        let digit = ALPHABET.iter().position(|known| *known == byte)?;
        Some((bits << 5) | u128::try_from(digit).ok()?)
    })
}

fn derive_bits(now: Timestamp, random: u64) -> u128 {
    let millis = u128::from(u64::try_from(now.0).unwrap_or(0)) & ((1 << 48) - 1);
    (millis << RANDOM_BITS) | u128::from(random & ((1 << RANDOM_BITS) - 1))
}

/// Why a text is not an identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not a {noun} id; one looks like `{prefix}` and {ID_CHARS} of 0-9, a-v")]
pub struct IdError {
    noun: &'static str,
    prefix: &'static str,
    found: String,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $prefix:literal, $noun:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(u128);

        impl $name {
            /// What every identifier of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// The identifier made at `now` from 52 of the given random bits.
            #[must_use]
            pub fn derive(now: Timestamp, random: u64) -> Self {
                Self(derive_bits(now, random))
            }

            /// When it was made.
            #[must_use]
            pub fn made_at(self) -> Timestamp {
                Timestamp(i64::try_from(self.0 >> RANDOM_BITS).unwrap_or(i64::MAX))
            }

            /// The 20 characters behind the prefix.
            #[must_use]
            pub fn suffix(self) -> String {
                Base32Hex::<ID_CHARS>(self.0).to_string()
            }

            /// The identifier whose 20 characters behind the prefix are these.
            #[must_use]
            pub fn from_suffix(text: &str) -> Option<Self> {
                if text.len() != ID_CHARS {
                    return None;
                }
                parse_base32hex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text: [u8; $prefix.len() + ID_CHARS] = with_prefix($prefix, self.0);
                f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix($prefix).and_then(Self::from_suffix).ok_or_else(|| IdError {
                    noun: $noun,
                    prefix: $prefix,
                    found: text.chars().take(64).collect(),
                })
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

ids! {
    /// One minted credential.
    LeaseId, "lease_", "lease";
    /// One unit of work that an agent opened.
    TaskId, "task_", "task";
    /// One answer of policy.
    DecisionId, "dec_", "decision";
    /// One act of stopping.
    RevocationId, "rev_", "revocation";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_prints() {
        let id = LeaseId::derive(Timestamp(1_795_000_000_000), 0x000f_1234_5678_9abc);
        assert_eq!(id.to_string().len(), "lease_".len() + ID_CHARS);
        assert_eq!(id.to_string().parse::<LeaseId>().unwrap(), id);
    }

    #[test]
    fn ids_sort_by_the_time_they_were_made() {
        let early = TaskId::derive(Timestamp(1000), u64::MAX).to_string();
        let late = TaskId::derive(Timestamp(1001), 0).to_string();
        assert!(early < late);
    }

    #[test]
    fn anything_else_is_refused() {
        let good = LeaseId::derive(Timestamp(1), 1).suffix();
        for bad in [
            String::new(),
            good.clone(),
            format!("task_{good}"),
            format!("lease_{}", good.to_uppercase().replace('0', "W")),
            format!("lease_{good}0"),
            format!("lease_{}", &good[1..]),
            "lease_éééééééééé".to_owned(),
        ] {
            assert!(bad.parse::<LeaseId>().is_err(), "{bad}");
        }
    }
}
