//! Watches the broker's own identity, and says once when it is in trouble and once when it is well again.

use std::time::Duration;

use crate::identity::{Now, Standing, listener::Entrance, spiffe::SpiffeIdentity};

/// How often the identity is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Watches, and keeps what the doors live on.
pub(super) async fn hold(identity: SpiffeIdentity, now: Now, _doors: [Entrance; 2]) {
    let mut before = identity.standing();
    let mut look = tokio::time::interval(EVERY);
    loop {
        look.tick().await;
        let after = identity.look(now()).await;
        tell(&before, &after);
        before = after;
    }
}

fn tell(before: &Standing, after: &Standing) {
    let trouble = |standing: &Standing| standing.trouble.map(|(trouble, _)| trouble);
    if trouble(before) != trouble(after) {
        let until = after.not_after.map(|end| end.to_string()).unwrap_or_default();
        match trouble(after) {
            Some(trouble) if trouble.refuses() => tracing::error!(id = after.id, until, "{trouble}"),
            Some(trouble) => tracing::warn!(id = after.id, until, "{trouble}"),
            None => tracing::info!(id = after.id, until, "the broker's identity is well again"),
        }
    }
    if before.trust_domains != after.trust_domains && !before.trust_domains.is_empty() {
        tracing::info!(
            bundles = after.trust_domains.join(", "),
            "the trust domains with a bundle have changed"
        );
    }
}
