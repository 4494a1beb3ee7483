//! Barriers on the road (RULES R-2): what an operator froze is issued nothing until somebody lifts it.
//!
//! All barriers share one version. A request reads it, is held against the barriers that stand as of it, and carries
//! it to its commits, where it is compared: one lookup, however many selectors could match.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use leasehold_law::caller::CallerId;
use leasehold_law::lease::{Lease, LeaseEvent};
use leasehold_law::revocation::{Reach, Revocation};
use leasehold_law::scope::Pair;
use leasehold_law::subject::{Guard, Subject};
use leasehold_law::task::Task;

use super::decide::TRIES;
use super::refused::Refused;
use super::{Broker, Inner};
use crate::ledger::LedgerError;
use crate::registry::Registry;

/// The barriers that stand as of a version, without the leases that they took.
#[derive(Default)]
pub(super) struct Standing(ArcSwapOption<Known>);

struct Known {
    version: u64,
    barriers: Vec<Revocation>,
}

impl Registry {
    /// What a caller asks for, as barriers see it.
    pub(super) fn reach<'a>(
        &'a self,
        agent: &'a CallerId,
        task: Option<&'a Task>,
        pair: Option<&'a Pair>,
    ) -> Reach<'a> {
        Reach {
            agent,
            owner: self.agent(agent).map(|agent| &agent.owner),
            task: task.map(|task| task.terms.id),
            refs: task.map(|task| &task.terms.refs),
            pair,
        }
    }
}

impl Inner {
    /// The version of the barriers, or the barrier that stands in the way.
    pub(super) async fn barrier_guard(&self, reach: &Reach<'_>) -> Result<Guard, Refused> {
        let known = self.standing().await?;
        let version = known.version;
        match known.barriers.iter().find(|barrier| barrier.selector.covers(reach)) {
            Some(barrier) => Err(Refused::frozen(barrier)),
            None => Ok(Guard { subject: Subject::Freezes, version }),
        }
    }

    /// The barriers that stand, newest first: read again only where one was raised or lifted. The version is read
    /// first: what rises after it makes it stale.
    async fn standing(&self) -> Result<Arc<Known>, Refused> {
        let versions = self.ledger.store().versions(&[Subject::Freezes]).await?;
        let version = versions.first().copied().unwrap_or_default();
        if let Some(known) = self.standing.0.load_full().filter(|known| known.version == version) {
            return Ok(known);
        }
        let mut barriers = self.ledger.store().revocations(true, None, usize::MAX).await?;
        barriers.iter_mut().for_each(|barrier| barrier.leases = Vec::new());
        let known = Arc::new(Known { version, barriers });
        self.standing.0.store(Some(known.clone()));
        Ok(known)
    }

    /// The step that makes a lease usable, behind every barrier. Where barriers moved since it was decided, it is held
    /// against them again: one that is not in its way does not cost it its life.
    pub(super) async fn step_behind_barriers(
        &self,
        lease: &Lease,
        step: &LeaseEvent,
        guards: &[Guard],
    ) -> Result<Lease, LedgerError> {
        let mut guards = guards.to_vec();
        let mut outcome = self.ledger.step(lease, step.clone(), &guards).await;
        for _ in 0..TRIES {
            let Err(LedgerError::Stale(Subject::Freezes)) = outcome else { break };
            let Ok(fresh) = self.barrier_guard_of(lease).await else { break };
            guards.retain(|guard| guard.subject != Subject::Freezes);
            guards.push(fresh);
            outcome = self.ledger.step(lease, step.clone(), &guards).await;
        }
        outcome
    }

    async fn barrier_guard_of(&self, lease: &Lease) -> Result<Guard, Refused> {
        let terms = &lease.terms;
        let task = self.ledger.store().task(terms.task).await?;
        let registry = self.registry.load_full();
        self.barrier_guard(&registry.reach(&terms.agent, task.as_ref(), Some(&terms.pair))).await
    }
}

impl Broker {
    /// The barrier over an agent, whatever it asks for, if one stands.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn barrier_over(&self, agent: &CallerId) -> Result<Option<Revocation>, Refused> {
        let registry = self.registry();
        let reach = registry.reach(agent, None, None);
        let known = self.inner.standing().await?;
        Ok(known.barriers.iter().find(|barrier| barrier.selector.covers(&reach)).cloned())
    }
}
