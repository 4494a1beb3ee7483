//! What operators do: revoke by selector behind a barrier (RULES R-2), see it through, lift the barrier.

use std::collections::BTreeSet;
use std::sync::Arc;

use leasehold_law::caller::CallerId;
use leasehold_law::cause::Cause;
use leasehold_law::id::{LeaseId, RevocationId};
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::revocation::{Lifted, Revocation, Selector};
use leasehold_law::time::Span;
use tokio::sync::oneshot;

use super::refused::Refused;
use super::wait::Settled;
use super::{Broker, Inner};
use crate::fault::{self, Point};

/// How many revocations are looked at after a start: no more can have been under way when the last run ended.
const UNDER_WAY: usize = 512;
/// How long a revocation may have taken from its beginning until it was on record.
const RECORDED_WITHIN: Span = Span::from_secs(10);
/// How many leases a dry run names; it counts all.
const SHOWN: usize = 1000;

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
    /// The leases that are live now, newest first: no more of them than a person reads.
    pub leases: Vec<Lease>,
    /// How many there are in all.
    pub total: usize,
    /// Whether nothing new would be issued.
    pub freeze: bool,
}

impl RevokeCommand {
    fn freezes(&self) -> bool {
        self.freeze.unwrap_or_else(|| self.selector.freezes_by_default())
    }
}

impl Broker {
    /// The blast radius: what would be taken now.
    ///
    /// # Errors
    /// Where there is nothing that it could take, or the store cannot be read.
    pub async fn plan_revocation(&self, command: &RevokeCommand) -> Result<RevokePlan, Refused> {
        self.inner.require_selected(&command.selector).await?;
        let mut plan = RevokePlan { leases: Vec::new(), total: 0, freeze: command.freezes() };
        let mut walk = self.inner.walk(&command.selector);
        loop {
            let page = walk.next(self.inner.ledger.store()).await?;
            if page.is_empty() {
                return Ok(plan);
            }
            plan.total += page.len();
            let room = SHOWN.saturating_sub(plan.leases.len());
            plan.leases.extend(page.into_iter().take(room));
        }
    }

    /// Revokes: the barrier first, then the list, then each lease, in a task of the broker's own (RULES R-3): an
    /// operator whose call is cut off has revoked nevertheless. Returns once every lease is condemned.
    ///
    /// # Errors
    /// Where there is nothing that it could take. A failing journal does not stop it (RULES R-24), and is
    /// the answer: what is not on record is not promised, since a crash would forget what could not be killed yet.
    pub async fn revoke(&self, command: RevokeCommand) -> Result<Revocation, Refused> {
        self.inner.require_selected(&command.selector).await?;
        let (answer, answered) = oneshot::channel();
        let broker = self.clone();
        self.inner.owned.spawn(async move { drop(answer.send(broker.revoke_selected(command).await)) });
        answered.await.map_err(|error| Refused::internal(&error))?
    }

    async fn revoke_selected(&self, command: RevokeCommand) -> Result<Revocation, Refused> {
        let inner = &self.inner;
        let mut revocation = self.begin(command)?;
        // A journal that is known to take nothing is not waited for.
        let recorded = inner.ledger.is_well() && inner.ledger.record_revocation(&revocation).await.is_ok();
        fault::point(Point::BarrierRaised);
        inner.take(&mut revocation).await?;
        if !recorded {
            // Whole, with its barrier: a freeze that nobody compares with would be a freeze by name only. What came
            // between the list and the barrier is listed now.
            if let Err(error) = inner.ledger.record_revocation(&revocation).await {
                tracing::error!(revocation = %revocation.id, %error, "what was taken is not on record");
                return Err(Refused::unrecorded(&revocation, &error));
            }
            inner.take(&mut revocation).await?;
        }
        revocation.complete = true;
        inner.remember(&revocation).await;
        Ok(revocation)
    }

    fn begin(&self, command: RevokeCommand) -> Result<Revocation, Refused> {
        let (at, freeze) = (self.now(), command.freezes());
        Ok(Revocation {
            id: RevocationId::derive(at, self.inner.random_bits()?),
            selector: command.selector,
            by: command.by,
            reason: command.reason,
            at,
            freeze,
            lifted: None,
            leases: Vec::new(),
            complete: false,
        })
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
    /// Lists and condemns what is live, a page at a time. The list is on record before its leases are touched; since it
    /// is written whole, it is written whenever it has doubled.
    async fn take(self: &Arc<Self>, revocation: &mut Revocation) -> Result<(), Refused> {
        let mut walk = self.walk(&revocation.selector);
        let mut listed: BTreeSet<_> = revocation.leases.iter().copied().collect();
        for page_number in 1_usize.. {
            let page = walk.next(self.ledger.store()).await?;
            if page.is_empty() {
                break;
            }
            revocation.leases.extend(page.iter().map(|lease| lease.terms.id).filter(|id| listed.insert(*id)));
            if page_number.is_power_of_two() {
                self.remember(revocation).await;
            }
            fault::point(Point::TakenListed);
            self.condemn_all(page, Cause::Operator).await;
        }
        Ok(())
    }

    /// Writes down what a revocation took so far. A journal that takes nothing is not waited for, and a barrier that
    /// was lifted meanwhile stays so.
    async fn remember(&self, revocation: &Revocation) {
        if !self.ledger.is_well() {
            return;
        }
        let stored = self.ledger.store().revocation(revocation.id).await.ok().flatten();
        let lifted = stored.and_then(|stored| stored.lifted);
        if let Err(error) = self.ledger.remember_taken(&Revocation { lifted, ..revocation.clone() }).await {
            tracing::error!(revocation = %revocation.id, %error, "what was taken is not on record");
        }
    }

    /// Goes on with revocations that the end of the last run cut short: what was live when they were made, and still
    /// is, is taken now. Gives how many leases that were.
    pub(super) async fn resume_revocations(self: &Arc<Self>) -> Result<usize, Refused> {
        let mut taken = 0;
        let recent = self.ledger.store().revocations(false, None, UNDER_WAY).await?;
        for revocation in recent.into_iter().filter(|revocation| !revocation.complete) {
            taken += self.resume(revocation).await?;
        }
        Ok(taken)
    }

    async fn resume(self: &Arc<Self>, mut revocation: Revocation) -> Result<usize, Refused> {
        let mut listed: BTreeSet<_> = revocation.leases.iter().copied().collect();
        let mut walk = self.walk(&revocation.selector);
        let mut taken = 0;
        loop {
            let mut page = walk.next(self.ledger.store()).await?;
            if page.is_empty() {
                break;
            }
            page.retain(|lease| is_meant(&revocation, lease) && is_untouched(lease));
            taken += page.len();
            revocation.leases.extend(page.iter().map(|lease| lease.terms.id).filter(|id| listed.insert(*id)));
            self.remember(&revocation).await;
            self.condemn_all(page, Cause::Operator).await;
        }
        tracing::warn!(revocation = %revocation.id, leases = taken, "a revocation was cut short: it is complete now");
        revocation.complete = true;
        self.remember(&revocation).await;
        Ok(taken)
    }
}

/// Whether a revocation that was cut short was to take this lease. Behind a barrier that stands nothing younger is legal;
/// without one, what was minted until the revocation was on record, by a clock that may be a little ahead, is taken too.
fn is_meant(revocation: &Revocation, lease: &Lease) -> bool {
    revocation.is_freezing() || lease.terms.created_at <= revocation.at + RECORDED_WITHIN
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
