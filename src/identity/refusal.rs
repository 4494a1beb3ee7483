//! Refused handshakes: named, logged sparingly, and counted per reason and minute (RULES R-24).

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use leasehold_law::time::Timestamp;
use rustls::{CertificateError, PeerIncompatible};

const MINUTE_MS: i64 = 60_000;
/// Lines logged per reason and minute; the count goes on.
const LOGGED_PER_MINUTE: u64 = 5;
/// Rows kept when nobody drains: eleven reasons for an hour and a half.
const KEPT_ROWS: usize = 1024;

/// Why a stranger did not become a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalReason {
    /// No bundle of ours vouches for the chain, or the trust domain is not accepted.
    UnknownIssuer,
    /// The certificate is past its notAfter.
    Expired,
    /// The certificate is before its notBefore.
    NotYetValid,
    /// The client sent no certificate.
    NoCertificate,
    /// The certificate is no X.509-SVID: not exactly one URI SAN, no path, a CA, a missing key usage.
    NotASvid,
    /// The client spoke less than TLS 1.3.
    OldTls,
    /// The handshake was not done in time.
    Timeout,
    /// A bound is reached: on open connections, or on those of one address in handshake.
    TooManyConnections,
    /// A request without a token, or without a proof of its bearer's key, where one is needed.
    NoToken,
    /// A token or a proof that does not count.
    BadToken,
    /// Anything else: not TLS at all, a reset, an alert from the client.
    Other,
}

impl RefusalReason {
    /// The name in logs and journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownIssuer => "unknown_issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::NoCertificate => "no_certificate",
            Self::NotASvid => "not_a_svid",
            Self::OldTls => "old_tls",
            Self::Timeout => "timeout",
            Self::TooManyConnections => "too_many_connections",
            Self::NoToken => "no_token",
            Self::BadToken => "bad_token",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One row for the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalCount {
    /// Why.
    pub reason: RefusalReason,
    /// The start of the minute.
    pub minute: Timestamp,
    /// How often.
    pub count: u64,
}

/// Refusals that are not yet in the journal. Memory is bounded whatever strangers do.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: Mutex<BTreeMap<(i64, RefusalReason), u64>>,
}

impl Refusals {
    /// Counts one refusal and returns how many of its kind this minute has seen.
    pub fn record(&self, reason: RefusalReason, now: Timestamp) -> u64 {
        let mut counts = self.lock();
        let minute = minute_of(now);
        let row = match counts.keys().rev().find(|(_, r)| *r == reason) {
            Some(latest) if counts.len() >= KEPT_ROWS => *latest,
            Some(_) | None => (minute, reason),
        };
        let count = counts.entry(row).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// Takes the rows of all minutes that are over at `now`, oldest first. At shut-down pass the end of time.
    pub fn drain(&self, now: Timestamp) -> Vec<RefusalCount> {
        let mut counts = self.lock();
        let open = counts.split_off(&(minute_of(now), RefusalReason::UnknownIssuer));
        let done = std::mem::replace(&mut *counts, open);
        let row = |((minute, reason), count)| RefusalCount { reason, minute: Timestamp(minute), count };
        done.into_iter().map(row).collect()
    }

    pub(super) fn note(&self, refused: &Refused, peer: impl fmt::Display, now: Timestamp) {
        let Refused { reason, detail } = refused;
        match self.record(*reason, now) {
            seen if seen < LOGGED_PER_MINUTE => tracing::warn!(%reason, %peer, detail, "a caller is refused"),
            LOGGED_PER_MINUTE => {
                tracing::warn!(%reason, %peer, detail, "a caller is refused; more this minute are only counted");
            }
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(i64, RefusalReason), u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn minute_of(now: Timestamp) -> i64 {
    now.0.div_euclid(MINUTE_MS).saturating_mul(MINUTE_MS)
}

/// A refusal on its way to the count: the reason, and words for the log.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) reason: RefusalReason,
    pub(super) detail: String,
}

impl Refused {
    pub(super) fn new(reason: RefusalReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// Names what ended a server handshake.
    pub(super) fn from_handshake(error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        Self::new(tls.map_or(RefusalReason::Other, reason_of), error.to_string())
    }
}

fn reason_of(error: &rustls::Error) -> RefusalReason {
    if let rustls::Error::InvalidCertificate(certificate) = error {
        return reason_of_certificate(certificate);
    }
    if let rustls::Error::Other(other) = error {
        return other.0.downcast_ref().map_or(RefusalReason::Other, reason_of_svid);
    }
    if matches!(error, rustls::Error::NoCertificatesPresented) {
        return RefusalReason::NoCertificate;
    }
    let versions = [PeerIncompatible::Tls12NotOffered, PeerIncompatible::Tls12NotOfferedOrEnabled];
    if matches!(error, rustls::Error::PeerIncompatible(why) if versions.contains(why)) {
        return RefusalReason::OldTls;
    }
    RefusalReason::Other
}

fn reason_of_certificate(error: &CertificateError) -> RefusalReason {
    use CertificateError as E;
    if matches!(error, E::Expired | E::ExpiredContext { .. }) {
        RefusalReason::Expired
    } else if matches!(error, E::NotValidYet | E::NotValidYetContext { .. }) {
        RefusalReason::NotYetValid
    } else if matches!(error, E::UnknownIssuer | E::BadSignature) {
        // A forged CA of the same name fails at the signature, an unknown one at the issuer.
        RefusalReason::UnknownIssuer
    } else {
        RefusalReason::NotASvid
    }
}

fn reason_of_svid(error: &spiffe_rustls::Error) -> RefusalReason {
    use spiffe_rustls::Error as E;
    if matches!(error, E::NoBundle(_) | E::TrustDomainNotAllowed(_) | E::UnauthorizedSpiffeId(_)) {
        RefusalReason::UnknownIssuer
    } else if matches!(error, E::CertParse(_) | E::MissingSpiffeId | E::MultipleSpiffeIds | E::InvalidLeaf(_))
    {
        RefusalReason::NotASvid
    } else {
        RefusalReason::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_per_reason_and_minute() {
        let refusals = Refusals::default();
        for at in [0, 59_999, 60_000] {
            refusals.record(RefusalReason::Expired, Timestamp(at));
        }
        refusals.record(RefusalReason::OldTls, Timestamp(1));
        let row = |reason, minute, count| RefusalCount { reason, minute: Timestamp(minute), count };
        let first = vec![row(RefusalReason::Expired, 0, 2), row(RefusalReason::OldTls, 0, 1)];
        assert_eq!(refusals.drain(Timestamp(60_001)), first, "the open minute stays");
        assert_eq!(refusals.drain(Timestamp(i64::MAX)), [row(RefusalReason::Expired, 60_000, 1)]);
        assert_eq!(refusals.drain(Timestamp(i64::MAX)), []);
    }

    #[test]
    fn memory_is_bounded_and_no_refusal_is_lost() {
        let refusals = Refusals::default();
        let minutes = 3 * i64::try_from(KEPT_ROWS).unwrap();
        for minute in 0..minutes {
            refusals.record(RefusalReason::Timeout, Timestamp(minute * MINUTE_MS));
        }
        let rows = refusals.drain(Timestamp(i64::MAX));
        assert_eq!(rows.len(), KEPT_ROWS);
        assert_eq!(rows.iter().map(|r| r.count).sum::<u64>(), u64::try_from(minutes).unwrap());
    }
}
