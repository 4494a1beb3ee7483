//! Waiting until leases are dead: by notice, with a bound.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_law::id::LeaseId;
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::time::Span;

use super::Inner;
use super::aside::lease_of;
use super::refused::Refused;
use crate::store::{AsideFilter, StoreError};

/// The longest that a call waits.
pub const MAX_WAIT: Span = Span::from_secs(30);
/// How often is looked again for what nobody tells.
const LOOK: Span = Span::from_secs(1);

/// Leases as they stand at the end of a wait.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// Those whose rows can be read.
    pub leases: Vec<Lease>,
    /// Those whose rows cannot be read, or were set aside for that, and whose principals are not proven gone.
    pub unread: Vec<Unread>,
    /// How many were set aside and are proven gone.
    pub gone: usize,
}

/// A lease that is being killed by its plain columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Which.
    pub id: LeaseId,
    /// Whether it could not be killed at the first try.
    pub stuck: bool,
}

impl Settled {
    /// Those whose end is not proven yet, and whose rows can be read.
    pub fn pending(&self) -> impl Iterator<Item = &Lease> {
        self.leases.iter().filter(|lease| !is_settled(lease))
    }

    /// All whose end is not proven yet.
    pub fn pending_ids(&self) -> impl Iterator<Item = LeaseId> {
        self.pending().map(|lease| lease.terms.id).chain(self.unread.iter().map(|one| one.id))
    }
}

/// What is known of leases while they are waited for.
#[derive(Default)]
struct Known {
    leases: BTreeMap<LeaseId, Lease>,
    unread: Vec<Unread>,
    gone: usize,
}

impl Known {
    /// What was read may be newer than a step that was told before.
    fn learn(&mut self, step: &Lease) {
        if let Some(known) = self.leases.get_mut(&step.terms.id).filter(|known| known.version < step.version)
        {
            *known = step.clone();
        }
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
        let mut known = self.read_leases(ids).await?;
        let until = tokio::time::Instant::now() + wait.min(MAX_WAIT).as_duration();
        let mut pending: BTreeSet<LeaseId> = unsettled(known.leases.values()).collect();
        while wait > Span::ZERO && !(pending.is_empty() && known.unread.is_empty()) {
            let look = tokio::time::Instant::now() + LOOK.as_duration();
            let look = if known.unread.is_empty() { until } else { look.min(until) };
            match tokio::time::timeout_at(look, steps.next()).await {
                Ok(Some(step)) => {
                    if is_settled(&step) {
                        pending.remove(&step.terms.id);
                    }
                    known.learn(&step);
                }
                // Nobody tells when what was set aside is gone.
                Err(_) if look < until => {
                    known = self.read_leases(ids).await?;
                    pending = unsettled(known.leases.values()).collect();
                }
                Ok(None) | Err(_) => break,
            }
        }
        Ok(Settled { leases: known.leases.into_values().collect(), unread: known.unread, gone: known.gone })
    }

    async fn read_leases(&self, ids: &[LeaseId]) -> Result<Known, Refused> {
        let mut known = Known::default();
        let mut missing = BTreeSet::new();
        for id in ids {
            match self.ledger.store().lease(*id).await {
                Ok(Some(lease)) => drop(known.leases.insert(*id, lease)),
                Ok(None) => drop(missing.insert(*id)),
                Err(StoreError::Unreadable(_)) => known.unread.push(Unread { id: *id, stuck: false }),
                Err(error) => return Err(error.into()),
            }
        }
        if !missing.is_empty() {
            self.look_aside(missing, &mut known).await?;
        }
        Ok(known)
    }

    /// Of leases that have no row any more: those that were set aside, until their targets read back that they are gone.
    async fn look_aside(&self, mut missing: BTreeSet<LeaseId>, known: &mut Known) -> Result<(), Refused> {
        let alive = AsideFilter { alive: true, ..AsideFilter::default() };
        let asides = self.ledger.store().asides(&alive, usize::MAX).await?;
        for aside in asides {
            if let Some(id) = lease_of(&aside.row).filter(|id| missing.remove(id)) {
                known.unread.push(Unread { id, stuck: aside.last_error.is_some() });
            }
        }
        known.gone += missing.len();
        Ok(())
    }
}
