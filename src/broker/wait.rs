//! Waiting until leases are dead: by notice, with a bound.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_law::id::LeaseId;
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::time::Span;

use super::Inner;
use super::refused::Refused;

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

fn unsettled<'a>(leases: impl Iterator<Item = &'a Lease>) -> impl Iterator<Item = LeaseId> {
    leases.filter(|lease| !is_settled(lease)).map(|lease| lease.terms.id)
}

impl Inner {
    /// Waits until each of these is dead or beyond reach, for at most `wait`.
    pub(super) async fn wait_for(&self, ids: &[LeaseId], wait: Span) -> Result<Settled, Refused> {
        let mut steps = self.ledger.wait(ids);
        let mut leases = self.read_leases(ids).await?;
        let until = tokio::time::Instant::now() + wait.min(MAX_WAIT).as_duration();
        let mut pending: BTreeSet<LeaseId> = unsettled(leases.values()).collect();
        while wait > Span::ZERO && !pending.is_empty() {
            let Ok(Some(step)) = tokio::time::timeout_at(until, steps.next()).await else { break };
            if is_settled(&step) {
                pending.remove(&step.terms.id);
            }
            // What was read may be newer than a step that was told before.
            if let Some(known) = leases.get_mut(&step.terms.id).filter(|known| known.version < step.version) {
                *known = Lease::clone(&step);
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
