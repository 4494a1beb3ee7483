//! Waiting until leases are dead: by notice, with a bound.

use std::collections::BTreeMap;

use leasehold_law::id::LeaseId;
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::time::Span;
use tokio::sync::broadcast::error::RecvError;

use super::Inner;
use super::refused::Refused;
use crate::ledger::Notice;

/// The longest that a call waits.
pub const MAX_WAIT: Span = Span::from_secs(30);

/// Leases as they stand at the end of a wait.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// All of them.
    pub leases: Vec<Lease>,
}

impl Settled {
    /// Those whose end is not proven yet.
    pub fn pending(&self) -> impl Iterator<Item = &Lease> {
        self.leases.iter().filter(|lease| !is_settled(lease))
    }
}

/// Nothing more will happen to it soon: dead, or beyond reach.
fn is_settled(lease: &Lease) -> bool {
    !lease.state.is_live() || matches!(lease.state, LeaseState::Residual { .. })
}

impl Inner {
    /// Waits until each of these is dead or beyond reach, for at most `wait`.
    pub(super) async fn wait_for(&self, ids: &[LeaseId], wait: Span) -> Result<Settled, Refused> {
        let mut notices = self.ledger.watch();
        let mut leases = self.read_leases(ids).await?;
        let until = tokio::time::Instant::now() + wait.min(MAX_WAIT).as_duration();
        while wait > Span::ZERO && !leases.values().all(is_settled) {
            match tokio::time::timeout_at(until, notices.recv()).await {
                Ok(Ok(Notice::Lease(lease))) => {
                    if let Some(known) = leases.get_mut(&lease.terms.id) {
                        *known = (*lease).clone();
                    }
                }
                Ok(Ok(Notice::Task(_))) => {}
                Ok(Err(RecvError::Lagged(_))) => leases = self.read_leases(ids).await?,
                Ok(Err(RecvError::Closed)) | Err(_) => break,
            }
        }
        Ok(Settled { leases: leases.into_values().collect() })
    }

    async fn read_leases(&self, ids: &[LeaseId]) -> Result<BTreeMap<LeaseId, Lease>, Refused> {
        let mut leases = BTreeMap::new();
        for id in ids {
            if let Some(lease) = self.ledger.store().lease(*id).await? {
                leases.insert(*id, lease);
            }
        }
        Ok(leases)
    }
}
