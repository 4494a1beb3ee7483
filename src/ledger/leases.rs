//! Records of leases: each step, its entry, and what is told of it.

use std::sync::Arc;

use leasehold_law::id::LeaseId;
use leasehold_law::journal::Event;
use leasehold_law::lease::{Lease, LeaseEvent, LeaseTerms, Refusal};
use leasehold_law::policy::{DecisionRecord, IssueOrder, RenewOrder};
use leasehold_law::subject::Guard;
use leasehold_law::time::Timestamp;

use super::entry::about_lease;
use super::{Ledger, LedgerError, Recorded};
use crate::meter;
use crate::store::{Ceiling, Change};

impl Ledger {
    /// Commit one of a mint: the lease exists by name before it exists in the target (law 2).
    ///
    /// # Errors
    /// [`LedgerError::Stale`] where what it was decided on has changed, [`LedgerError::Full`] where a quota is used up.
    pub async fn record_mint(
        &self,
        order: IssueOrder,
        decision: DecisionRecord,
        ceilings: Vec<Ceiling>,
        due: Timestamp,
    ) -> Result<(Recorded<IssueOrder>, Lease), LedgerError> {
        let step = LeaseEvent::MintStarted { mint_by: order.mint_by(), due, expires_at: order.expires_at() };
        let guards = order.guards().to_vec();
        let lease = self.begin_lease(order.terms().clone(), step, decision, guards, ceilings).await?;
        Ok((Recorded(order), lease))
    }

    /// A request that never became a lease.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn record_refusal(
        &self,
        terms: Arc<LeaseTerms>,
        decision: DecisionRecord,
        refusal: Refusal,
    ) -> Result<Lease, LedgerError> {
        let step = LeaseEvent::Refused { refusal };
        self.begin_lease(terms, step, decision, Vec::new(), Vec::new()).await
    }

    async fn begin_lease(
        &self,
        terms: Arc<LeaseTerms>,
        step: LeaseEvent,
        decision: DecisionRecord,
        guards: Vec<Guard>,
        ceilings: Vec<Ceiling>,
    ) -> Result<Lease, LedgerError> {
        let lease = Lease::first(terms.clone(), &step)?;
        let event = Event::Lease { terms: Some(terms), decision: Some(Box::new(decision)), step };
        let lease = self.put_lease(lease, event, guards, ceilings).await?;
        meter::moved(None, &lease);
        Ok(lease)
    }

    /// Commit one of a renewal.
    ///
    /// # Errors
    /// As for [`Ledger::record_mint`].
    pub async fn record_renewal(
        &self,
        lease: &Lease,
        order: RenewOrder,
        decision: DecisionRecord,
        due: Timestamp,
    ) -> Result<(Recorded<RenewOrder>, Lease), LedgerError> {
        let step = LeaseEvent::RenewStarted { until: order.until(), due };
        let next = lease.apply(&step)?;
        let guards = order.guards().to_vec();
        let event = Event::Lease { terms: None, decision: Some(Box::new(decision)), step };
        let renewing = self.put_lease(next, event, guards, Vec::new()).await?;
        meter::moved(Some(&lease.state), &renewing);
        Ok((Recorded(order), renewing))
    }

    /// A step of a lease.
    ///
    /// # Errors
    /// Where the law or the store refuses, or a guard no longer holds.
    pub async fn step(
        &self,
        lease: &Lease,
        step: LeaseEvent,
        guards: &[Guard],
    ) -> Result<Lease, LedgerError> {
        let next = lease.apply(&step)?;
        let event = Event::Lease { terms: None, decision: None, step };
        let next = self.put_lease(next, event, guards.to_vec(), Vec::new()).await?;
        meter::moved(Some(&lease.state), &next);
        Ok(next)
    }

    /// Steps of several leases in one transaction: all of them, or none.
    ///
    /// # Errors
    /// Where the law or the store refuses any of them.
    pub async fn step_all(&self, steps: &[(Lease, LeaseEvent)]) -> Result<Vec<Lease>, LedgerError> {
        let (moved, changes) = self.moved(steps)?;
        self.commit(changes, Vec::new()).await?;
        self.tell_moved(steps, &moved);
        Ok(moved)
    }

    async fn put_lease(
        &self,
        lease: Lease,
        event: Event,
        guards: Vec<Guard>,
        ceilings: Vec<Ceiling>,
    ) -> Result<Lease, LedgerError> {
        let changes = self.lease_changes(&lease, event)?;
        self.commit_below(changes.into(), guards, ceilings).await?;
        self.tell_lease(&lease);
        Ok(lease)
    }

    /// Leases after a step of each, and what that changes.
    pub(super) fn moved(
        &self,
        steps: &[(Lease, LeaseEvent)],
    ) -> Result<(Vec<Lease>, Vec<Change>), LedgerError> {
        let mut moved = Vec::with_capacity(steps.len());
        let mut changes = Vec::with_capacity(2 * steps.len());
        for (lease, step) in steps {
            let lease = lease.apply(step)?;
            let event = Event::Lease { terms: None, decision: None, step: step.clone() };
            changes.extend(self.lease_changes(&lease, event)?);
            moved.push(lease);
        }
        Ok((moved, changes))
    }

    /// The row of a lease, and its entry.
    fn lease_changes(&self, lease: &Lease, event: Event) -> Result<[Change; 2], LedgerError> {
        let draft = about_lease(lease, event, self.clock.now())?;
        Ok([Change::Lease(Box::new(lease.clone())), Change::Append(draft)])
    }

    pub(super) fn tell_moved(&self, steps: &[(Lease, LeaseEvent)], moved: &[Lease]) {
        for ((before, _), after) in steps.iter().zip(moved) {
            meter::moved(Some(&before.state), after);
            self.tell_lease(after);
        }
    }

    /// Whether anybody would hear of this lease.
    #[must_use]
    pub fn reaches(&self, id: LeaseId) -> bool {
        self.notices.reach(id)
    }

    /// Tells what another broker has made durable.
    pub fn retell_lease(&self, lease: Lease) {
        self.notices.tell_lease(&Arc::new(lease));
    }

    fn tell_lease(&self, lease: &Lease) {
        if self.notices.reach(lease.terms.id) {
            self.notices.tell_lease(&Arc::new(lease.clone()));
        }
    }
}
