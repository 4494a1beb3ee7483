//! Whose a connection is that proves nobody by being made: a stranger's, who has little time, until a known caller comes
//! over it with a token.

use std::fmt;
use std::future::pending;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::share::Share;

/// A connection's leave to stay, once it has it.
#[derive(Clone)]
pub(super) struct Welcome(Arc<Inner>);

struct Inner {
    until: Instant,
    said: CancellationToken,
    by: OnceLock<(Arc<Share>, OwnedSemaphorePermit)>,
}

impl fmt::Debug for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Welcome").field("said", &self.0.said.is_cancelled()).finish_non_exhaustive()
    }
}

impl Welcome {
    /// For a connection that begins now and may be a stranger's for so long.
    pub(super) fn within(patience: Duration) -> Self {
        let (until, said) = (Instant::now() + patience, CancellationToken::new());
        Self(Arc::new(Inner { until, said, by: OnceLock::new() }))
    }

    /// The connection counts as one of a known caller's from now on, where its share has a place for one more. Behind a
    /// hop several callers share a connection; the first of them is enough.
    pub(super) fn give(&self, share: &Arc<Share>) {
        if self.0.by.get().is_some() {
            return;
        }
        let Some(place) = share.connection() else { return };
        // Where two come at once one place is given back.
        if self.0.by.set((share.clone(), place)).is_ok() {
            self.0.said.cancel();
        }
    }

    /// Waits until a stranger has had its time; for ever, on a known caller's connection.
    pub(super) async fn outstayed(self) {
        if timeout_at(self.0.until, self.0.said.cancelled()).await.is_ok() {
            pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::identity::share::{Each, Shares};

    #[tokio::test(start_paused = true)]
    async fn a_connection_stays_once_a_known_caller_has_a_place_for_it() {
        let shares = Shares::default();
        let caller = "spiffe://prod.example/agent/a".parse().unwrap();
        let share = shares.of(&caller, Each { connections: 1, ..Each::default() });
        let new = || Welcome::within(Duration::from_secs(20));
        let stays =
            async |one: &Welcome| timeout(Duration::from_secs(3600), one.clone().outstayed()).await.is_err();
        let (stranger, own, beyond) = (new(), new(), new());
        own.give(&share);
        own.give(&share);
        beyond.give(&share);
        assert!(!stays(&stranger).await, "nobody came");
        assert!(stays(&own).await);
        assert!(!stays(&beyond).await, "the caller has its share of connections and no more");
        drop((share, own));
        let again = new();
        again.give(&shares.of(&caller, Each { connections: 1, ..Each::default() }));
        assert!(stays(&again).await, "the place was given back with its connection");
    }
}
