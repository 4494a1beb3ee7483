//! Steps 2 to 8, in a task that the broker owns (RULES R-3): decide, order, record, mint, record, hand over.

use std::sync::Arc;

use leasehold_backend::{BackendError, Credential, Issued};
use leasehold_law::cause::Cause;
use leasehold_law::id::{DecisionId, LeaseId};
use leasehold_law::lease::{Grade, Lease, LeaseEvent, LeaseTerms, LimitedBy, Refusal};
use leasehold_law::policy::{DecisionRecord, IssueOrder, MintTerms, Permit, Verdict};
use leasehold_law::principal::PrincipalName;
use leasehold_law::request::LeaseRequest;
use leasehold_law::task::Task;
use leasehold_law::time::{Span, Timestamp};
use tokio::sync::oneshot;

use super::decide::{Ask, Asker, TRIES, TaskFacts, fits_scope};
use super::refused::Refused;
use super::request::{Requested, Turn};
use super::{Broker, Inner};
use crate::fault::{self, Point};
use crate::ledger::{LedgerError, Recorded};
use crate::registry::Granted;
use crate::vault_door::MINT_WINDOW;

/// A lease and what it is worth: for the caller alone.
#[derive(Debug)]
pub struct Minted {
    /// The lease, active.
    pub lease: Lease,
    /// The credential, shown once.
    pub credential: Credential,
}

/// Tells the broker that an answer has left. Dropped without that, the lease is revoked as undelivered.
#[derive(Debug)]
pub struct Delivery(Option<oneshot::Sender<()>>);

impl Delivery {
    /// The answer has left.
    pub fn confirm(mut self) {
        if let Some(sender) = self.0.take() {
            let _ = sender.send(());
        }
    }
}

/// One request on the road.
struct Passage {
    asker: Asker,
    task: Task,
    request: LeaseRequest,
    supersedes: Option<LeaseId>,
    /// Held until the passage ends, so that no second attempt runs beside it.
    _turn: Turn,
}

/// What a decision leads to.
enum Step {
    Order(Box<IssueOrder>, Box<DecisionRecord>),
    Refused(Arc<LeaseTerms>, Box<DecisionRecord>, Refusal),
}

impl Broker {
    /// Runs the passage in a task of the broker's own, and waits for it. Whoever waits may go: the passage ends, and
    /// what it minted is revoked.
    pub(super) async fn issue(
        &self,
        asker: Asker,
        task: Task,
        request: LeaseRequest,
        supersedes: Option<LeaseId>,
        turn: Turn,
    ) -> Result<Requested, Refused> {
        let passage = Passage { asker, task, request, supersedes, _turn: turn };
        let (answer, answered) = oneshot::channel();
        let inner = self.inner.clone();
        self.inner.owned.spawn(async move {
            let (sent, delivered) = oneshot::channel();
            match inner.clone().mint(&passage).await {
                Ok(minted) => {
                    let lease = minted.lease.clone();
                    let delivery = Delivery(Some(sent));
                    drop(passage);
                    drop(answer.send(Ok(Requested { minted, delivery })));
                    if delivered.await.is_err() {
                        inner.condemn(lease, Cause::Undelivered, None).await;
                    }
                }
                Err(refused) => drop(answer.send(Err(refused))),
            }
        });
        answered.await.map_err(|error| Refused::internal(&error))?
    }
}

impl Inner {
    async fn mint(self: Arc<Self>, passage: &Passage) -> Result<Minted, Refused> {
        let target = &passage.request.pair.target;
        self.may_mint_in(target).await?;
        let mint_by = self.door.may_mint(target).await.map_err(|closed| Refused::closed(target, &closed))?;
        let (recorded, lease) = self.record_order(passage, mint_by).await?;
        fault::point(Point::MintRecorded);
        let answer = self.door.issue(&recorded).await;
        fault::point(Point::Minted);
        match answer {
            Ok(issued) => self.activate(&recorded, lease, issued).await,
            Err(error) => {
                tracing::warn!(lease = %lease.terms.id, target, %error, "a mint failed");
                self.condemn(lease, Cause::MintFailed, None).await;
                Err(Refused::backend(target, &error))
            }
        }
    }

    /// Steps 2 to 5, again where what the decision rests on changed before it was recorded.
    async fn record_order(
        &self,
        passage: &Passage,
        mint_by: Timestamp,
    ) -> Result<(Recorded<IssueOrder>, Lease), Refused> {
        for _ in 0..TRIES {
            match self.decide_passage(passage, mint_by).await? {
                Step::Refused(terms, record, refusal) => {
                    let refused = Refused::policy(&record);
                    let lease = self.ledger.record_refusal(terms, *record, refusal).await?;
                    return Err(refused.detail("lease", lease.terms.id));
                }
                Step::Order(order, record) => {
                    let due = self.clock.now() + MINT_WINDOW;
                    let (agent, target) = (&passage.asker.id, &passage.request.pair.target);
                    let ceilings = self.ceilings(&self.registry.load(), agent, target);
                    match self.ledger.record_mint(*order, *record, ceilings, due).await {
                        Ok(recorded) => return Ok(recorded),
                        Err(LedgerError::Stale(_)) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        Err(Refused::contended("what this request rests on keeps changing"))
    }

    /// The present facts, the answer, and the order that it allows.
    async fn decide_passage(&self, passage: &Passage, mint_by: Timestamp) -> Result<Step, Refused> {
        let Passage { asker, request, .. } = passage;
        let task = self.fresh_task(&passage.task).await?;
        let guards = self.open_task_guards(asker, &task, Some(&request.pair)).await?;
        let registry = self.registry.load_full();
        let granted = registry.require_grant(&request.pair)?;
        fits_scope(&task, request)?;
        let asked = request.ttl.unwrap_or(granted.grant.ttl.default);
        let ask = Ask {
            pair: &request.pair,
            params: Some(&request.params),
            ttl: asked,
            renewal: false,
            dry_run: false,
        };
        let now = self.clock.now();
        let id = self.make_decision_id()?;
        let decision = self.ask(&registry, id, asker, &ask, TaskFacts::of(&task, now), &guards)?;
        let (ttl, limited_by) =
            self.limits(granted.grant, Some(&task), asked, granted.grant.ttl.life).least();
        if ttl == Span::ZERO {
            return Err(Refused::task_ended(&task));
        }
        let terms = self.lease_terms(passage, &granted, id, limited_by, now)?;
        step(decision.verdict, decision.record, terms, ttl, now, mint_by)
    }

    /// A task may have changed since the request came in.
    async fn fresh_task(&self, task: &Task) -> Result<Task, Refused> {
        let fresh = self.ledger.store().task(task.terms.id).await?;
        fresh.ok_or_else(|| Refused::not_found("task", task.terms.id))
    }

    fn lease_terms(
        &self,
        passage: &Passage,
        granted: &Granted<'_>,
        decision: DecisionId,
        limited_by: LimitedBy,
        now: Timestamp,
    ) -> Result<Arc<LeaseTerms>, Refused> {
        let id = LeaseId::derive(now, self.random_bits()?);
        let can = self.door.capabilities(&granted.target.name);
        Ok(Arc::new(LeaseTerms {
            id,
            task: passage.task.terms.id,
            agent: passage.asker.id.clone(),
            proven_by: passage.asker.proof,
            on_behalf_of: passage.task.person().cloned(),
            pair: passage.request.pair.clone(),
            params: passage.request.params.clone(),
            principal: PrincipalName::derive(id, &self.key),
            recipe: granted.grant.recipe.clone(),
            grade: can.map_or(Grade::None, |can| can.grade),
            window: can.map_or(Span::ZERO, |can| can.window),
            created_at: now,
            life_ends_at: now + granted.grant.ttl.life,
            limited_by,
            request_id: passage.request.request_id.clone(),
            attempt: passage.request.attempt,
            request_digest: passage.request.digest(),
            decision,
            supersedes: passage.supersedes,
        }))
    }

    /// Step 7: commit two compares the versions again; where it fails, the undo stands beside the do.
    async fn activate(
        self: Arc<Self>,
        recorded: &Recorded<IssueOrder>,
        lease: Lease,
        issued: Issued,
    ) -> Result<Minted, Refused> {
        let order = recorded.inner();
        let handle = issued.handle.clone();
        let late = lease.state.due().is_some_and(|due| self.clock.now() >= due);
        if late {
            self.condemn(lease, Cause::MintFailed, handle).await;
            return Err(Refused::backend(&order.terms().pair.target, &BackendError::TooLate));
        }
        let step = LeaseEvent::Minted { handle: handle.clone(), expires_at: order.expires_at() };
        match self.step_behind_barriers(&lease, &step, order.guards()).await {
            Ok(lease) => {
                fault::point(Point::Activated);
                Ok(Minted { lease, credential: issued.credential })
            }
            Err(error) => {
                self.condemn(lease, cause_of(&error), handle).await;
                Err(error.into())
            }
        }
    }
}

fn step(
    verdict: Verdict,
    record: DecisionRecord,
    terms: Arc<LeaseTerms>,
    ttl: Span,
    now: Timestamp,
    mint_by: Timestamp,
) -> Result<Step, Refused> {
    match verdict {
        Verdict::Allow(permit) => {
            let order = order(permit, terms, ttl, now, mint_by)?;
            Ok(Step::Order(Box::new(order), Box::new(record)))
        }
        Verdict::Ask(_) => Ok(Step::Refused(terms, Box::new(record), Refusal::Unasked)),
        Verdict::Deny(_) => Ok(Step::Refused(terms, Box::new(record), Refusal::Denied)),
    }
}

fn order(
    permit: Permit,
    terms: Arc<LeaseTerms>,
    ttl: Span,
    now: Timestamp,
    mint_by: Timestamp,
) -> Result<IssueOrder, Refused> {
    let mint = MintTerms { terms, ttl, expires_at: now + ttl, mint_by };
    permit.into_order(mint).map_err(|error| Refused::internal(&error))
}

/// What made a mint or renewal that had been allowed a thing to revoke.
pub(super) fn cause_of(error: &LedgerError) -> Cause {
    use leasehold_law::subject::Subject as S;
    match error {
        LedgerError::Stale(S::Task(_)) => Cause::ScopeChanged,
        LedgerError::Stale(S::Agent(_) | S::Agents) => Cause::AgentChanged,
        LedgerError::Stale(S::Freezes | S::Revocation(_) | S::Lease(_) | S::Term(_)) => Cause::Operator,
        LedgerError::Stale(S::Policy | S::Target(_)) => Cause::PolicyChanged,
        LedgerError::Illegal(_) | LedgerError::IllegalTask(_) => Cause::Operator,
        LedgerError::Full(_) | LedgerError::Store(_) | LedgerError::Unknown(_) => Cause::MintFailed,
    }
}
