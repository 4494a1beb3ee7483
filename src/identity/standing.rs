//! How the broker's own identity stands: until when it is good, and since when something is wrong with its source.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::spiffe::{SpiffeId, X509Source};
use leasehold_law::time::{Span, Timestamp};
use tokio::{net::UnixStream, time::timeout};

use super::spiffe::Life;

/// How long the Workload API's socket may take to be opened.
const LOOK: Duration = Duration::from_secs(2);

/// What is wrong with an identity, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// The Workload API answers and has not rotated the SVID, though three quarters of its life are over.
    NotRotated,
    /// Nobody answers at the Workload API. The identity is good until its end.
    Unreached,
    /// The Workload API issues no identity to this process: no handshake succeeds.
    Withdrawn,
    /// The SVID has passed its end: no handshake succeeds.
    Expired,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::NotRotated, Self::Unreached, Self::Withdrawn, Self::Expired];

    /// In one word, for monitoring.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotRotated => "not_rotated",
            Self::Unreached => "unreached",
            Self::Withdrawn => "withdrawn",
            Self::Expired => "expired",
        }
    }

    /// Whether handshakes are refused meanwhile.
    #[must_use]
    pub const fn refuses(self) -> bool {
        match self {
            Self::NotRotated | Self::Unreached => false,
            Self::Withdrawn | Self::Expired => true,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotRotated => "the Workload API does not rotate the broker's SVID",
            Self::Unreached => "the Workload API does not answer",
            Self::Withdrawn => "the Workload API issues no identity to the broker; handshakes are refused",
            Self::Expired => "the broker's SVID has expired; handshakes are refused",
        })
    }
}

/// How an identity stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The broker's SPIFFE ID.
    pub id: String,
    /// The end of the SVID that it was given last.
    pub not_after: Option<Timestamp>,
    /// What is wrong, and since when it has been.
    pub trouble: Option<(Trouble, Timestamp)>,
    /// The trust domains whose bundles it was given.
    pub trust_domains: Vec<String>,
}

/// How long trouble may last that passes by itself: a taint of a CA, an agent that is restarted.
const PASSES: Span = Span::from_secs(60);

impl Standing {
    /// What a person should see to, if anything.
    #[must_use]
    pub fn need(&self, now: Timestamp) -> Option<String> {
        let (trouble, since) = self.trouble?;
        if trouble != Trouble::Expired && now.since(since) < PASSES {
            return None;
        }
        let end = self.not_after.map(|end| format!(", it is good until {end}")).unwrap_or_default();
        let end = if trouble.refuses() { String::new() } else { end };
        Some(format!(
            "identity {}: {trouble} since {since}{end}: look at the SPIRE agent of this host",
            self.id
        ))
    }
}

/// Follows the source of an identity.
pub(super) struct Watch {
    endpoint: String,
    last: Mutex<Standing>,
}

impl Watch {
    pub(super) fn new(endpoint: String, id: &SpiffeId) -> Self {
        let last = Standing { id: id.to_string(), not_after: None, trouble: None, trust_domains: vec![] };
        Self { endpoint, last: Mutex::new(last) }
    }

    pub(super) fn standing(&self) -> Standing {
        self.last().clone()
    }

    pub(super) async fn look(&self, source: &X509Source, now: Timestamp) -> Standing {
        let answers = self.answers().await;
        let state = source.state();
        let mut last = self.last();
        let mut life = None;
        if let Ok(context) = state.context() {
            last.trust_domains = context.bundle_set().iter().map(|(name, _)| name.to_string()).collect();
            let own = context.svids().iter().find(|svid| svid.spiffe_id().to_string() == last.id);
            life = own.and_then(|svid| Life::of(svid.leaf().as_bytes()).ok());
        }
        let issued = life.is_some();
        last.not_after = life.map(|life| Timestamp(life.not_after.saturating_mul(1000))).or(last.not_after);
        let trouble = trouble(answers, issued, life, last.not_after, now);
        last.trouble = trouble.map(|trouble| match last.trouble {
            Some((before, since)) if before == trouble => (trouble, since),
            Some(_) | None => (trouble, now),
        });
        last.clone()
    }

    /// Whether somebody takes connections at the Workload API.
    async fn answers(&self) -> bool {
        let path = self.endpoint.strip_prefix("unix:").unwrap_or(&self.endpoint);
        matches!(timeout(LOOK, UnixStream::connect(path)).await, Ok(Ok(_)))
    }

    fn last(&self) -> MutexGuard<'_, Standing> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn trouble(
    answers: bool,
    issued: bool,
    life: Option<Life>,
    not_after: Option<Timestamp>,
    now: Timestamp,
) -> Option<Trouble> {
    let late = |life: Life| {
        let quarter = life.not_after.saturating_sub(life.not_before) / 4;
        now.0.div_euclid(1000) >= life.not_after.saturating_sub(quarter)
    };
    if not_after.is_some_and(|end| now >= end) {
        Some(Trouble::Expired)
    } else if !issued {
        Some(Trouble::Withdrawn)
    } else if !answers {
        Some(Trouble::Unreached)
    } else {
        life.is_some_and(late).then_some(Trouble::NotRotated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_told() {
        let life = Some(Life { not_before: 0, not_after: 400 });
        let end = Some(Timestamp(400_000));
        let check = |answers, issued, at, expect: Option<Trouble>| {
            let found = trouble(answers, issued, life.filter(|_| issued), end, Timestamp(at));
            assert_eq!(found, expect, "answers {answers}, issued {issued}, at {at}");
        };
        check(true, true, 0, None);
        check(true, true, 299_999, None);
        check(true, true, 300_000, Some(Trouble::NotRotated));
        check(false, true, 0, Some(Trouble::Unreached));
        check(false, true, 399_999, Some(Trouble::Unreached));
        check(true, false, 0, Some(Trouble::Withdrawn));
        check(false, true, 400_000, Some(Trouble::Expired));
        check(true, false, 400_000, Some(Trouble::Expired));
    }
}
