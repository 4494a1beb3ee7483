//! How a lease dies: condemned on record, killed in its target by calls that never give up, called dead only with
//! proof (laws 7 and 8).

mod backoff;
mod breaker;
mod lane;
mod ours;
mod queue;
mod unrecorded;
mod verdict;
mod worker;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use leasehold_law::cause::{Cause, Rank};
use leasehold_law::lease::{Lease, LeaseEvent, LeaseState};
use leasehold_law::time::Timestamp;

use super::Inner;
use crate::fault::{self, Point};
use crate::ledger::LedgerError;
pub use breaker::Breaker;
use lane::Lane;
use unrecorded::Unrecorded;
pub(super) use verdict::LONGEST_WAIT;

/// How often a step is tried again when the lease changed under it.
const RACES: usize = 16;
/// How many leases are condemned in one transaction.
const TOGETHER: usize = 64;
/// How many such transactions one sweep or revocation has before the journal.
const AT_ONCE: usize = 4;

/// The lanes of the condemned, one a target.
#[derive(Default)]
pub(super) struct Revoker {
    lanes: Mutex<BTreeMap<String, Arc<Lane>>>,
    unrecorded: Unrecorded,
}

impl Revoker {
    /// A target that has left the config has a lane too: what it holds is not forgotten.
    fn lane(&self, target: &str) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.entry(target.to_owned()).or_insert_with(Lane::new).clone()
    }

    fn all(&self) -> BTreeMap<String, Arc<Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many more leases of this rank the sweep should bring for a target.
    pub(super) fn room(&self, target: &str, rank: Rank) -> usize {
        self.lane(target).room(rank)
    }

    /// How many leases that are in hand already the sweep may meet before others; none is looked past while the target
    /// does not answer.
    pub(super) fn in_the_way(&self, target: &str) -> usize {
        let lane = self.lane(target);
        if lane.breaker().is_closed() { lane.in_hand() } else { 0 }
    }

    /// The targets that do not answer.
    pub(super) fn out_of_reach(&self) -> Vec<String> {
        let away = self.all().into_iter().filter(|(_, lane)| !lane.breaker().is_closed());
        away.map(|(target, _)| target).collect()
    }

    /// Whether this lease, as condemned as it is here, waits for its target or is with it.
    pub(super) fn has_in_hand(&self, lease: &Lease) -> bool {
        matches!(lease.state, LeaseState::Revoking { .. }) && self.lane(&lease.terms.pair.target).has(lease)
    }

    /// How a target answers.
    pub(super) fn breaker(&self, target: &str) -> Breaker {
        self.lane(target).breaker()
    }

    /// How many were condemned without a record.
    pub(super) fn unrecorded(&self) -> usize {
        self.unrecorded.len()
    }
}

impl Inner {
    /// Condemns a lease and has it killed. Where it changed meanwhile, it is condemned as it stands; where the journal
    /// takes nothing, it is killed first and recorded later.
    pub(super) async fn condemn(self: &Arc<Self>, lease: Lease, cause: Cause, handle: Option<String>) {
        let mut lease = lease;
        for _ in 0..RACES {
            if !self.ledger.is_well() {
                break;
            }
            let step = revoke_started(cause, self.clock.now(), handle.clone());
            match self.ledger.step(&lease, step, &[]).await {
                Ok(condemned) => {
                    fault::point(Point::Condemned);
                    return self.kill(condemned);
                }
                Err(LedgerError::Illegal(_)) => return self.kill_if_revoking(lease),
                Err(LedgerError::Stale(_)) => {}
                Err(
                    LedgerError::Full(_)
                    | LedgerError::Store(_)
                    | LedgerError::Unknown(_)
                    | LedgerError::IllegalTask(_),
                ) => break,
            }
            match self.ledger.store().lease(lease.terms.id).await {
                Ok(Some(fresh)) => lease = fresh,
                Ok(None) | Err(_) => break,
            }
        }
        self.kill_unrecorded(lease, cause, handle);
    }

    /// Condemns many, as [`Inner::condemn`] does each. No more of them wait for the journal at a time than leave room
    /// for whoever asks meanwhile.
    pub(super) async fn condemn_all(self: &Arc<Self>, leases: Vec<Lease>, cause: Cause) {
        let some: Vec<_> = leases.chunks(TOGETHER).map(<[Lease]>::to_vec).collect();
        let steps = some.into_iter().map(|some| self.clone().condemn_some(some, cause));
        futures::stream::iter(steps).buffer_unordered(AT_ONCE).collect::<()>().await;
    }

    /// In one transaction, and where one of them is not as it was read, each by itself. A journal that is known to take
    /// nothing is not waited for.
    async fn condemn_some(self: Arc<Self>, leases: Vec<Lease>, cause: Cause) {
        if !self.ledger.is_well() {
            return leases.into_iter().for_each(|lease| self.kill_unrecorded(lease, cause, None));
        }
        if let Err(error) = self.condemn_together(&leases, cause).await {
            tracing::debug!(%error, "several leases are condemned one by one");
            let each = leases.into_iter().map(|lease| self.condemn(lease, cause, None));
            futures::future::join_all(each).await;
        }
    }

    async fn condemn_together(self: &Arc<Self>, leases: &[Lease], cause: Cause) -> Result<(), LedgerError> {
        let at = self.clock.now();
        let steps: Vec<_> =
            leases.iter().map(|lease| (lease.clone(), revoke_started(cause, at, None))).collect();
        let condemned = self.ledger.step_all(&steps).await?;
        fault::point(Point::Condemned);
        condemned.into_iter().for_each(|lease| self.kill(lease));
        Ok(())
    }

    /// Nothing to condemn: it is being revoked already, or is dead.
    fn kill_if_revoking(self: &Arc<Self>, lease: Lease) {
        if matches!(lease.state, LeaseState::Revoking { .. }) {
            self.kill(lease);
        }
    }
}

/// The step that condemns a live lease; none for one that is being revoked for as strong a cause already.
pub(super) fn condemning(lease: Lease, cause: Cause, at: Timestamp) -> Option<(Lease, LeaseEvent)> {
    let step = revoke_started(cause, at, None);
    lease.state.next(&step).is_ok().then_some((lease, step))
}

const fn revoke_started(cause: Cause, at: Timestamp, handle: Option<String>) -> LeaseEvent {
    LeaseEvent::RevokeStarted { cause, at, handle }
}
