//! Renewal: decided again, on record before the target is touched, within the full life of the lease (RULES R-6).

use std::sync::Arc;

use leasehold_backend::{BackendError, Renewed};
use leasehold_law::catalog::Grant;
use leasehold_law::cause::Cause;
use leasehold_law::id::LeaseId;
use leasehold_law::lease::{Lease, LeaseEvent, LeaseState, LimitedBy};
use leasehold_law::policy::{DecisionRecord, RenewOrder, RenewTerms, Verdict};
use leasehold_law::reason::Reason;
use leasehold_law::request::RequestId;
use leasehold_law::time::{Span, Timestamp};
use tokio::sync::oneshot;

use super::decide::{Ask, Asker, TRIES, TaskFacts};
use super::issue::cause_of;
use super::refused::Refused;
use super::request::TurnKey;
use super::{Broker, Inner};
use crate::fault::{self, Point};
use crate::ledger::{LedgerError, Recorded};
use crate::vault_door::MINT_WINDOW;

/// A lease with a later end.
#[derive(Debug)]
pub struct Renewal {
    /// The lease.
    pub lease: Lease,
    /// What limited its lifetime.
    pub limited_by: LimitedBy,
}

/// A renewal that is on record.
struct Begun {
    recorded: Recorded<RenewOrder>,
    lease: Lease,
    limited_by: LimitedBy,
}

impl Broker {
    /// Renews a caller's own lease, in a task of the broker's own (RULES R-3).
    ///
    /// # Errors
    /// Where it is no longer live, has reached its full life, is denied by now, or the target does not answer.
    pub async fn renew(
        &self,
        asker: &Asker,
        id: LeaseId,
        ttl: Option<Span>,
        request: &RequestId,
    ) -> Result<Renewal, Refused> {
        let renewed = self.renew_own(asker, id, ttl, request).await;
        self.on_record(asker, &format!("renew {id}"), renewed).await
    }

    /// The end is counted from now, so that asking again after a lost answer does no harm; what must not happen is two
    /// at once.
    async fn renew_own(
        &self,
        asker: &Asker,
        id: LeaseId,
        ttl: Option<Span>,
        request: &RequestId,
    ) -> Result<Renewal, Refused> {
        self.inner.count_call(asker)?;
        self.inner.may_issue().await?;
        let lease = self.own_lease(asker, id).await?;
        self.inner.count_use(&lease.terms.pair.target)?;
        let turn = self.take_turn(TurnKey::Renew(id, request.clone()))?;
        let inner = self.inner.clone();
        let asker = asker.clone();
        let (answer, answered) = oneshot::channel();
        self.inner.owned.spawn(async move {
            let renewed = inner.renew_lease(&asker, lease, ttl).await;
            drop(turn);
            drop(answer.send(renewed));
        });
        answered.await.map_err(|error| Refused::internal(&error))?
    }
}

/// RULES R-6: where a target gives only a new credential, that is a new lease.
fn not_renewed_there(lease: &Lease) -> Refused {
    let (id, pair, task) = (lease.terms.id, &lease.terms.pair, lease.terms.task);
    Refused::new(Reason::NotServed, format!("{id} cannot be renewed"))
        .why(format!("`{}` cannot move the end of what was minted in it", pair.target))
        .next(format!(
            "before this one ends ask for a new lease, under a new request id: leasehold lease request {pair} \
             --task {task}"
        ))
        .detail("target", &pair.target)
}

impl Inner {
    async fn renew_lease(
        self: Arc<Self>,
        asker: &Asker,
        lease: Lease,
        ttl: Option<Span>,
    ) -> Result<Renewal, Refused> {
        let target = lease.terms.pair.target.clone();
        self.can_renew(&lease)?;
        self.may_mint_in(&target).await?;
        let renew_by =
            self.door.may_mint(&target).await.map_err(|closed| Refused::closed(&target, &closed))?;
        let begun = self.begin_renewal(asker, lease, ttl, renew_by).await?;
        fault::point(Point::RenewalRecorded);
        let answer = self.door.renew(&target, &begun.recorded).await;
        fault::point(Point::Renewed);
        self.finish_renewal(begun, &target, answer).await
    }

    fn can_renew(&self, lease: &Lease) -> Result<(), Refused> {
        match lease.state {
            LeaseState::Active { .. } => {}
            LeaseState::Renewing { .. } => {
                return Err(Refused::contended(format!("{} is being renewed", lease.terms.id)));
            }
            LeaseState::New
            | LeaseState::Refused { .. }
            | LeaseState::Minting { .. }
            | LeaseState::Revoking { .. }
            | LeaseState::Residual { .. }
            | LeaseState::Revoked { .. }
            | LeaseState::Lapsed { .. } => return Err(Refused::lease_ended(lease)),
        }
        // A target that has left the config is refused as such, behind this.
        match self.door.capabilities(&lease.terms.pair.target) {
            Some(can) if !can.renewal => Err(not_renewed_there(lease)),
            Some(_) | None => Ok(()),
        }
    }

    async fn begin_renewal(
        &self,
        asker: &Asker,
        lease: Lease,
        ttl: Option<Span>,
        renew_by: Timestamp,
    ) -> Result<Begun, Refused> {
        let mut lease = lease;
        for _ in 0..TRIES {
            let (order, record, limited_by) = self.decide_renewal(asker, &lease, ttl, renew_by).await?;
            let due = self.clock.now() + MINT_WINDOW;
            match self.ledger.record_renewal(&lease, order, record, due).await {
                Ok((recorded, lease)) => return Ok(Begun { recorded, lease, limited_by }),
                Err(LedgerError::Stale(_)) => {
                    let id = lease.terms.id;
                    let fresh = self.ledger.store().lease(id).await?;
                    lease = fresh.ok_or_else(|| Refused::not_found("lease", id))?;
                    self.can_renew(&lease)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Refused::contended("what this renewal rests on keeps changing"))
    }

    async fn decide_renewal(
        &self,
        asker: &Asker,
        lease: &Lease,
        ttl: Option<Span>,
        renew_by: Timestamp,
    ) -> Result<(RenewOrder, DecisionRecord, LimitedBy), Refused> {
        let now = self.clock.now();
        let task = self.ledger.store().task(lease.terms.task).await?;
        let task = task.ok_or_else(|| Refused::not_found("task", lease.terms.task))?;
        let guards = self.open_task_guards(asker, &task, Some(&lease.terms.pair)).await?;
        let registry = self.registry.load_full();
        let granted = registry.require_grant(&lease.terms.pair)?;
        let asked = ttl.unwrap_or(granted.grant.ttl.default);
        let (until, ttl, limited_by) = self.renewed_end(lease, &task, granted.grant, asked, now)?;
        task.scope
            .check(&lease.terms.pair, &lease.terms.params, ttl)
            .map_err(|error| Refused::out_of_scope(&error, &lease.terms.pair, task.terms.id))?;
        let ask = Ask {
            pair: &lease.terms.pair,
            params: Some(&lease.terms.params),
            ttl: asked,
            renewal: true,
            dry_run: false,
        };
        let id = self.make_decision_id()?;
        let decision = self.ask(&registry, id, asker, &ask, TaskFacts::of(&task, now), &guards)?;
        let Verdict::Allow(permit) = decision.verdict else {
            self.record_decision(&decision.record).await?;
            return Err(Refused::policy(&decision.record));
        };
        let handle = lease.state.handle().map(ToOwned::to_owned);
        let renew = RenewTerms { terms: lease.terms.clone(), handle, ttl, until, renew_by };
        let order = permit.into_renewal(renew).map_err(|error| Refused::internal(&error))?;
        Ok((order, decision.record, limited_by))
    }

    /// The new end: later than the old one, or the life is reached.
    fn renewed_end(
        &self,
        lease: &Lease,
        task: &leasehold_law::task::Task,
        grant: &Grant,
        asked: Span,
        now: Timestamp,
    ) -> Result<(Timestamp, Span, LimitedBy), Refused> {
        let life = lease.terms.life_ends_at.since(now);
        let (ttl, limited_by) = self.limits(grant, Some(task), asked, life).least();
        let until = now + ttl;
        let old = lease.state.expires_at().unwrap_or(now);
        match limited_by {
            LimitedBy::Life if until <= old => Err(Refused::life_reached(lease)),
            LimitedBy::TaskDeadline if until <= old => {
                Err(Refused::life_reached(lease).why(format!("its task ends at {}", task.ends_at())))
            }
            LimitedBy::Life
            | LimitedBy::TaskDeadline
            | LimitedBy::Asked
            | LimitedBy::Grant
            | LimitedBy::Scope
            | LimitedBy::Backend => Ok((until, ttl, limited_by)),
        }
    }

    /// What the target answered goes on record; where that fails, the lease is revoked.
    async fn finish_renewal(
        self: Arc<Self>,
        begun: Begun,
        target: &str,
        answer: Result<Renewed, BackendError>,
    ) -> Result<Renewal, Refused> {
        let Begun { recorded, lease, limited_by } = begun;
        let order = recorded.inner();
        match answer {
            Ok(Renewed { .. }) => {
                let step = LeaseEvent::Renewed { expires_at: order.until() };
                match self.step_behind_barriers(&lease, &step, order.guards()).await {
                    Ok(lease) => {
                        fault::point(Point::RenewalSettled);
                        Ok(Renewal { lease, limited_by })
                    }
                    Err(error) => {
                        self.condemn(lease, cause_of(&error), None).await;
                        Err(error.into())
                    }
                }
            }
            Err(error) => {
                tracing::warn!(lease = %lease.terms.id, target, %error, "a renewal failed");
                self.undo_renewal(lease, &error).await;
                Err(Refused::backend(target, &error))
            }
        }
    }

    /// The target refused: the old end stands. Where its answer is lost, `recover` reads it back when the row is due.
    async fn undo_renewal(self: Arc<Self>, lease: Lease, error: &BackendError) {
        match error {
            BackendError::Transient { .. } => {}
            BackendError::Absent => self.condemn(lease, Cause::PrincipalMissing, None).await,
            BackendError::Conflict(_) => self.condemn(lease, Cause::MintFailed, None).await,
            BackendError::Refused { .. } | BackendError::BadRecipe(_) | BackendError::TooLate => {
                let Some(expires_at) = lease.state.expires_at() else { return };
                let step = LeaseEvent::Renewed { expires_at };
                if let Err(error) = self.ledger.step(&lease, step, &[]).await {
                    tracing::warn!(lease = %lease.terms.id, %error, "the old end is not on record yet");
                }
            }
        }
    }
}
