//! What operators do: revoke by selector behind a barrier (RULES R-2), see it through, lift the barrier.

use std::collections::BTreeSet;
use std::sync::Arc;

use leasehold_law::caller::CallerId;
use leasehold_law::cause::Cause;
use leasehold_law::id::{LeaseId, RevocationId};
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::revocation::{Lifted, Revocation, Selector};

use tokio::sync::oneshot;

use super::refused::Refused;
use super::wait::Settled;
use super::{Broker, Inner};
use crate::fault::{self, Point};
use leasehold_law::time::Span;

/// How many revocations are looked at after a start: no more can have been under way when the last run ended.
const UNDER_WAY: usize = 512;

/// An order to revoke.
#[derive(Clone, Debug)]
pub struct RevokeCommand {
    /// What to take.
    pub selector: Selector,
    /// Whether nothing new is issued to the selected; the selector's own default where it is left out.
    pub freeze: Option<bool>,
    /// Why: recorded, never an input to a decision.
    pub reason: String,
    /// Who says so.
    pub by: CallerId,
}

/// What a revocation would take.
#[derive(Clone, Debug)]
pub struct RevokePlan {
    /// The leases that are live now.
    pub leases: Vec<Lease>,
    /// Whether nothing new would be issued.
    pub freeze: bool,
}

impl Broker {
    /// The blast radius: what would be taken now.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn plan_revocation(&self, command: &RevokeCommand) -> Result<RevokePlan, Refused> {
        let leases = self.inner.ledger.store().live_leases(&command.selector).await?;
        let freeze = command.freeze.unwrap_or_else(|| command.selector.freezes_by_default());
        Ok(RevokePlan { leases, freeze })
    }

    /// Revokes: the barrier first, then the list, then each lease, in a task of the broker's own (RULES R-3): an
    /// operator whose call is cut off has revoked nevertheless. Returns once every lease is condemned.
    ///
    /// # Errors
    /// Where there is no such lease or task. A failing journal does not stop it (RULES R-24); where it kept the freeze
    /// from being in force, that is the answer.
    pub async fn revoke(&self, command: RevokeCommand) -> Result<Revocation, Refused> {
        self.require_selected(&command.selector).await?;
        let (answer, answered) = oneshot::channel();
        let broker = self.clone();
        self.inner.owned.spawn(async move { drop(answer.send(broker.revoke_selected(command).await)) });
        answered.await.map_err(|error| Refused::internal(&error))?
    }

    async fn revoke_selected(&self, command: RevokeCommand) -> Result<Revocation, Refused> {
        let freeze = command.freeze.unwrap_or_else(|| command.selector.freezes_by_default());
        let now = self.now();
        let mut revocation = Revocation {
            id: RevocationId::derive(now, self.inner.random_bits()?),
            selector: command.selector,
            by: command.by,
            reason: command.reason,
            at: now,
            freeze,
            lifted: None,
            leases: Vec::new(),
        };
        let recorded = self.inner.ledger.record_revocation(&revocation).await;
        if let Err(error) = &recorded {
            tracing::error!(revocation = %revocation.id, %error, "revoking without a record");
        }
        fault::point(Point::BarrierRaised);
        let live = self.inner.ledger.store().live_leases(&revocation.selector).await?;
        revocation.leases = live.iter().map(|lease| lease.terms.id).collect();
        let remembered = match &recorded {
            Ok(()) => self.inner.ledger.remember_taken(&revocation).await,
            // Whole, with its barrier: a freeze that nobody compares with would be a freeze by name only.
            Err(_) => self.inner.ledger.record_revocation(&revocation).await,
        };
        if let Err(error) = &remembered {
            tracing::error!(revocation = %revocation.id, %error, "what was taken is not on record");
        }
        fault::point(Point::TakenListed);
        let condemned =
            live.into_iter().map(|lease| self.inner.clone().condemn(lease, Cause::Operator, None));
        futures::future::join_all(condemned).await;
        match (recorded, remembered) {
            (Err(_), Err(error)) if revocation.freeze => Err(Refused::unrecorded(&revocation, &error)),
            (Ok(()) | Err(_), Ok(()) | Err(_)) => Ok(revocation),
        }
    }

    async fn require_selected(&self, selector: &Selector) -> Result<(), Refused> {
        let store = self.inner.ledger.store();
        let known = match selector {
            Selector::Lease(id) => store.lease(*id).await?.is_some(),
            Selector::Task(id) => store.task(*id).await?.is_some(),
            // Nobody need be registered to be frozen: the barrier may come before the agent.
            Selector::Agent(_) => true,
        };
        if known { Ok(()) } else { Err(Refused::not_found("match for", selector)) }
    }

    /// One revocation.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn revocation(&self, id: RevocationId) -> Result<Revocation, Refused> {
        let found = self.inner.ledger.store().revocation(id).await?;
        found.ok_or_else(|| Refused::not_found("revocation", id))
    }

    /// Revocations, newest first.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn revocations(
        &self,
        freezing: bool,
        before: Option<RevocationId>,
        limit: usize,
    ) -> Result<Vec<Revocation>, Refused> {
        Ok(self.inner.ledger.store().revocations(freezing, before, limit).await?)
    }

    /// The barrier over an agent, if one stands.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn barrier_over(&self, agent: &CallerId) -> Result<Option<Revocation>, Refused> {
        let standing = self.inner.ledger.store().barriers(&[Selector::Agent(agent.clone())]).await?;
        Ok(standing.into_iter().next())
    }

    /// How the leases of a revocation stand, after at most `wait`.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn settled(&self, leases: &[LeaseId], wait: Span) -> Result<Settled, Refused> {
        self.inner.wait_for(leases, wait).await
    }

    /// Lifts a barrier. Lifting it twice is no error.
    ///
    /// # Errors
    /// Where there is no such revocation, or it cannot be written.
    pub async fn lift(&self, id: RevocationId, by: CallerId, reason: String) -> Result<Revocation, Refused> {
        let revocation = self.revocation(id).await?;
        if !revocation.is_freezing() {
            return Ok(revocation);
        }
        let lifted = Lifted { by, reason, at: self.now() };
        Ok(self.inner.ledger.record_lift(&revocation, lifted).await?)
    }
}

impl Inner {
    /// Goes on with revocations that the end of the last run cut short: what was live when they were made, and still
    /// is, is taken now. Gives how many leases that were.
    pub(super) async fn resume_revocations(self: &Arc<Self>) -> Result<usize, Refused> {
        let mut taken = 0;
        for revocation in self.ledger.store().revocations(false, None, UNDER_WAY).await? {
            let mut left = self.ledger.store().live_leases(&revocation.selector).await?;
            left.retain(|lease| lease.terms.created_at <= revocation.at && is_untouched(lease));
            taken += left.len();
            if !left.is_empty() {
                self.resume(revocation, left).await?;
            }
        }
        Ok(taken)
    }

    async fn resume(self: &Arc<Self>, mut revocation: Revocation, left: Vec<Lease>) -> Result<(), Refused> {
        tracing::warn!(revocation = %revocation.id, leases = left.len(), "a revocation was cut short: going on");
        let listed: BTreeSet<_> = revocation.leases.iter().copied().collect();
        revocation.leases.extend(left.iter().map(|lease| lease.terms.id).filter(|id| !listed.contains(id)));
        self.ledger.remember_taken(&revocation).await?;
        let condemned = left.into_iter().map(|lease| self.clone().condemn(lease, Cause::Operator, None));
        futures::future::join_all(condemned).await;
        Ok(())
    }
}

/// Live, and nobody has begun to kill it.
fn is_untouched(lease: &Lease) -> bool {
    match lease.state {
        LeaseState::Minting { .. } | LeaseState::Active { .. } | LeaseState::Renewing { .. } => true,
        LeaseState::New
        | LeaseState::Refused { .. }
        | LeaseState::Revoking { .. }
        | LeaseState::Residual { .. }
        | LeaseState::Revoked { .. }
        | LeaseState::Lapsed { .. } => false,
    }
}
