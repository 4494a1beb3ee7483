//! Whether a peer's trust domain is still vouched for, as long as its connection is open: bundles come and go while a
//! broker runs (REQUIREMENTS ID-2).

use std::{fmt, future::pending, sync::Arc};

use ::spiffe::{TrustDomain, X509Bundle, X509BundleSet, X509Source};

/// What the Workload API vouched for when a handshake began.
pub(super) struct Bundles {
    source: X509Source,
    then: Option<Arc<X509BundleSet>>,
}

impl Bundles {
    /// Taken before the handshake, so that what is withdrawn while it runs counts as withdrawn.
    pub(super) fn now(source: &X509Source) -> Self {
        Self { source: source.clone(), then: bundles(source) }
    }

    /// The part that is about this peer.
    pub(super) fn of(self, peer: &::spiffe::SpiffeId) -> Vouched {
        let trust_domain = peer.trust_domain().clone();
        let then = self.then.and_then(|bundles| bundles.get(&trust_domain));
        Vouched { source: self.source, trust_domain, then }
    }
}

fn bundles(source: &X509Source) -> Option<Arc<X509BundleSet>> {
    source.state().context().ok().map(|context| Arc::clone(context.bundle_set()))
}

/// What vouched for a peer, and whether it does so still.
#[derive(Clone)]
pub(super) struct Vouched {
    source: X509Source,
    trust_domain: TrustDomain,
    then: Option<Arc<X509Bundle>>,
}

impl fmt::Debug for Vouched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vouched").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

/// What was withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The whole trust domain: a federation has ended.
    TrustDomain,
    /// One of its authorities: a CA was rolled, or revoked.
    Authority,
}

impl Vouched {
    /// What is lost by now. Where the broker itself is told nothing at the moment, nothing is known to be lost.
    pub(super) fn lost(&self) -> Option<Lost> {
        let bundles = bundles(&self.source)?;
        let Some(bundle) = bundles.get_ref(&self.trust_domain) else { return Some(Lost::TrustDomain) };
        let mut then = self.then.iter().flat_map(|then| then.authorities());
        (!then.all(|authority| bundle.authorities().contains(authority))).then_some(Lost::Authority)
    }

    /// Whether the trust domain counts now.
    pub(super) fn holds(&self) -> bool {
        bundles(&self.source).is_none_or(|bundles| bundles.get_ref(&self.trust_domain).is_some())
    }

    /// Waits until something is lost.
    pub(super) async fn until_lost(&self) -> Lost {
        let mut updates = self.source.updated();
        loop {
            if let Some(lost) = self.lost() {
                return lost;
            }
            if updates.changed().await.is_err() {
                return pending().await;
            }
        }
    }
}
