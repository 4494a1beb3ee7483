//! How long SVIDs live, and a word of warning about those that live long (RULES R-25).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ::spiffe::X509Source;
use x509_parser::certificate::X509Certificate;

use crate::identity::refusal::{RefusalReason, Refused};

/// SVIDs that live longer are warned about (RULES R-25); SPIRE dates them back by some seconds.
const LONG_LIFE_SECONDS: i64 = 3600 + 60;
const WARNED_PEERS: usize = 1024;

pub(super) fn warn_of_long_life(source: &X509Source) {
    let Ok(svid) = source.svid() else { return };
    if let Ok(life) = Life::of(svid.leaf().as_bytes())
        && life.is_long()
    {
        warn_of(svid.spiffe_id(), life);
    }
}

/// The validity of a certificate in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::identity) struct Life {
    pub(in crate::identity) not_before: i64,
    pub(in crate::identity) not_after: i64,
}

impl Life {
    pub(in crate::identity) fn of(der: &[u8]) -> Result<Self, Refused> {
        let not_a_svid = |error: &dyn fmt::Display| Refused::new(RefusalReason::NotASvid, error.to_string());
        let (_, certificate) =
            x509_parser::parse_x509_certificate(der).map_err(|error| not_a_svid(&error))?;
        Ok(Self::read(&certificate))
    }

    pub(super) fn read(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() }
    }

    fn seconds(self) -> i64 {
        self.not_after.saturating_sub(self.not_before)
    }

    pub(super) fn is_long(self) -> bool {
        self.seconds() > LONG_LIFE_SECONDS
    }
}

pub(super) fn warn_of(id: &::spiffe::SpiffeId, life: Life) {
    let seconds = life.seconds();
    tracing::warn!(%id, seconds, "this SVID lives over an hour: a stolen key is good as long");
}

/// Peers already warned about: each once, and no more of them than fit.
#[derive(Clone, Default)]
pub(super) struct Warned(Arc<Mutex<BTreeSet<String>>>);

impl Warned {
    pub(super) fn is_first(&self, id: &::spiffe::SpiffeId) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.len() < WARNED_PEERS && known.insert(id.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lives_are_warned_about_once_a_peer() {
        let life = |seconds| Life { not_before: -10, not_after: seconds };
        assert!(!life(3600).is_long(), "SPIRE's default hour, dated back");
        assert!(life(2 * 3600).is_long());
        let warned = Warned::default();
        let id = |n| ::spiffe::SpiffeId::new(format!("spiffe://prod.example/{n}")).unwrap();
        assert!(warned.is_first(&id(0)));
        assert!(!warned.is_first(&id(0)));
        let firsts = (0..2 * WARNED_PEERS).filter(|n| warned.is_first(&id(*n))).count();
        assert_eq!(firsts, WARNED_PEERS - 1, "memory is bounded");
    }
}
