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

pub(super) struct Known {
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
            owner: self.owner(agent),
            person: task.and_then(Task::person),
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

    /// The barriers that stand, newest first, and the registrations of agents as another broker may have changed them:
    /// read again only where something changed. The version is read first: what rises after it makes it stale.
    pub(super) async fn standing(&self) -> Result<Arc<Known>, Refused> {
        let versions = self.ledger.store().versions(&[Subject::Freezes, Subject::Agents]).await?;
        let version = versions.first().copied().unwrap_or_default();
        // In the same question, since whoever asks for the one decides by the other next.
        let agents = versions.get(1).copied().unwrap_or_default();
        if self.registry.load().book_version() != agents {
            self.reload_agents(Some(agents)).await?;
        }
        if let Some(known) = self.standing.0.load_full().filter(|known| known.version == version) {
            return Ok(known);
        }
        let mut barriers = self.ledger.store().revocations(true, None, usize::MAX).await?;
        barriers.iter_mut().for_each(|barrier| barrier.leases = Vec::new());
        let known = Arc::new(Known { version, barriers });
        self.standing.0.store(Some(known.clone()));
        Ok(known)
    }

    /// The step that makes a lease usable, behind every barrier. Where barriers or registrations moved since it was
    /// decided, it is held against them again: one that is not in its way does not cost it its life.
    pub(super) async fn step_behind_barriers(
        &self,
        lease: &Lease,
        step: &LeaseEvent,
        guards: &[Guard],
    ) -> Result<Lease, LedgerError> {
        let mut guards = guards.to_vec();
        let mut outcome = self.ledger.step(lease, step.clone(), &guards).await;
        for _ in 0..TRIES {
            let Err(LedgerError::Stale(Subject::Freezes | Subject::Agents)) = outcome else { break };
            let Ok(fresh) = self.fresh_guards(lease).await else { break };
            guards.retain(|guard| !matches!(guard.subject, Subject::Freezes | Subject::Agents));
            guards.extend(fresh);
            outcome = self.ledger.step(lease, step.clone(), &guards).await;
        }
        outcome
    }

    /// The versions of barriers and registrations by which a lease may still become usable.
    async fn fresh_guards(&self, lease: &Lease) -> Result<[Guard; 2], Refused> {
        let terms = &lease.terms;
        let task = self.ledger.store().task(terms.task).await?;
        let task = task.ok_or_else(|| Refused::not_found("task", terms.task))?;
        self.standing().await?;
        let registry = self.registry.load_full();
        let barriers =
            self.barrier_guard(&registry.reach(&terms.agent, Some(&task), Some(&terms.pair))).await?;
        if self.still_allowed(&registry, lease, &task)? {
            Ok([barriers, registry.book_guard()])
        } else {
            Err(Refused::contended("its agent changed"))
        }
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
