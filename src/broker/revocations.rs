//! What operators do: revoke by selector behind a barrier (RULES R-2), see it through, lift the barrier.

use leasehold_law::caller::CallerId;
use leasehold_law::id::{LeaseId, RevocationId, TaskId};
use leasehold_law::lease::Lease;
use leasehold_law::revocation::{Lifted, Revocation, Selector};
use leasehold_law::subject::Subject;
use leasehold_law::time::Span;
use tokio::sync::oneshot;

use super::Broker;
use super::refused::Refused;
use super::taking::{RACES, TRIES};
use super::wait::Settled;
use crate::fault::{self, Point};
use crate::ledger::LedgerError;

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
    /// The open tasks that would end by themselves.
    pub tasks: Vec<TaskId>,
    /// Whether nothing new would be issued.
    pub freeze: bool,
    /// Where it is one agent's that nobody knows: the names of registered agents likest to it.
    pub unknown_agent: Option<Vec<String>>,
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
        let tasks = self.inner.tasks_of(&command.selector).await?;
        let tasks = tasks.iter().map(|task| task.terms.id).collect();
        let unknown_agent = self.inner.unknown_agent(&command.selector).await?;
        let freeze = command.freezes();
        let mut plan = RevokePlan { leases: Vec::new(), total: 0, tasks, freeze, unknown_agent };
        let mut walk = self.inner.walk(&command.selector);
        loop {
            let page = walk.next(self.inner.ledger.store()).await?;
            if page.is_empty() {
                plan.total += self.inner.unread(&command.selector).await?.len();
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
    /// the answer: what is not on record is not promised, since a crash would forget what could not be killed yet. A
    /// list that cannot be read to its end is the answer too; the broker goes on with it by itself.
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
        let _turn = inner.taking.begin(revocation.id);
        // A journal that is known to take nothing is not waited for.
        let recorded = inner.ledger.is_well() && inner.raise(&revocation, 1).await.is_ok();
        fault::point(Point::BarrierRaised);
        let mut taken = inner.take(&mut revocation).await;
        if !recorded {
            // Whole, with its barrier: a freeze that nobody compares with would be a freeze by name only. What came
            // between the list and the barrier is listed now.
            if let Err(error) = inner.raise(&revocation, TRIES).await {
                tracing::error!(revocation = %revocation.id, %error, "what was taken is not on record");
                return Err(Refused::unrecorded(&revocation, &error));
            }
            taken = inner.take(&mut revocation).await;
        }
        if let Err(error) = taken {
            inner.remember(&revocation).await;
            inner.taking.owe(revocation.id);
            return Err(Refused::unfinished(&revocation, &error));
        }
        Ok(inner.finish(revocation).await)
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
            tasks: Vec::new(),
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
        let ledger = &self.inner.ledger;
        let lifted = Lifted { by, reason, at: self.now() };
        for _ in 0..RACES {
            let found = ledger.revocation(id).await?;
            let (revocation, version) = found.ok_or_else(|| Refused::not_found("revocation", id))?;
            if !revocation.is_freezing() {
                return Ok(revocation);
            }
            // Whoever sees it through may write down what it took meanwhile.
            match ledger.record_lift((revocation, version), lifted.clone()).await {
                Err(LedgerError::Stale(_)) => {}
                other => return Ok(other?),
            }
        }
        Err(LedgerError::Stale(Subject::Revocation(id)).into())
    }
}
