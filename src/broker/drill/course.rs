//! The course of one drill: mint, use, revoke, be refused; and whatever comes of it, the lease is revoked and what
//! happened is on record.

use leasehold_backend::{Alive, Issued};
use leasehold_law::caller::CallerId;
use leasehold_law::cause::Cause;
use leasehold_law::drill::{Drill, Failure, Plan, Step, Taken};
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::request::{LeaseRequest, RequestId};
use leasehold_law::task::Task;
use leasehold_law::time::{Span, Timestamp};
use tokio::sync::mpsc;

use super::driller;
use super::schedule::Turn;
use crate::broker::orphans::{Orphan, OrphanWhy};
use crate::broker::refused::Refused;
use crate::broker::wait::MAX_WAIT;
use crate::broker::{Broker, Requested};

/// The name of the one request in the task of a drill.
const REQUEST: &str = "drill";

/// A refusal this short before the credential's own end, or later, proves nothing: it may have ended by itself, by a clock
/// that differs.
const NEAR_ITS_END: Span = Span::from_secs(5);

/// A drill on its way.
pub(super) struct Course {
    broker: Broker,
    plan: Plan,
    task: Task,
    drill: Drill,
    /// When the step that is being taken began.
    since: Timestamp,
    /// When the credential ends by itself.
    expires_at: Timestamp,
    _turn: Turn,
}

/// Who is told of each step.
type Out = mpsc::Sender<Result<Drill, Refused>>;

/// Why a drill goes no further.
enum Stop {
    /// It was refused before anything was minted, or stopped by somebody: that proves nothing either way.
    Refused(Refused),
    /// Something that was to be proven is not so.
    Failed(Failure),
}

fn failed(step: Step, why: impl Into<String>) -> Stop {
    Stop::Failed(Failure { step, why: why.into(), alive: false })
}

impl Course {
    pub(super) fn new(broker: Broker, plan: Plan, task: Task, by: Option<CallerId>, turn: Turn) -> Self {
        let at = broker.now();
        let drill = Drill {
            pair: plan.pair.clone(),
            by,
            task: task.terms.id,
            lease: None,
            at,
            steps: Vec::new(),
            failure: None,
        };
        Self { broker, plan, task, drill, since: at, expires_at: at, _turn: turn }
    }

    /// Takes every step that can be taken. Nothing stops the revocation.
    pub(super) async fn run(mut self, out: Out) {
        let stopped = self.take_steps(&out).await.err();
        self.clean_up().await;
        let told = match stopped {
            Some(Stop::Refused(refused)) => Err(self.give_up(refused)),
            Some(Stop::Failed(failure)) => {
                self.drill.failure = Some(failure);
                Ok(self.end().await)
            }
            None => Ok(self.end().await),
        };
        // The next drill may begin before anybody hears that this one is over.
        drop(self);
        say(&out, told);
    }

    async fn take_steps(&mut self, out: &Out) -> Result<(), Stop> {
        say(out, Ok(self.drill.clone()));
        let issued = self.mint().await?;
        say(out, Ok(self.taken(Step::Mint)));
        self.use_it(&issued).await?;
        say(out, Ok(self.taken(Step::Use)));
        self.revoke().await?;
        say(out, Ok(self.taken(Step::Revoke)));
        self.be_refused(&issued).await?;
        // That is told when it is on record.
        self.taken(Step::Refuse);
        Ok(())
    }

    /// Notes the time of a step.
    fn taken(&mut self, step: Step) -> Drill {
        let now = self.broker.now();
        self.drill.steps.push(Taken { step, took: now.since(self.since) });
        self.since = now;
        self.drill.clone()
    }

    async fn mint(&mut self) -> Result<Issued, Stop> {
        let request_id: RequestId =
            REQUEST.parse().map_err(|error| Stop::Refused(Refused::internal(&error)))?;
        let request = LeaseRequest {
            task: self.task.terms.id,
            pair: self.plan.pair.clone(),
            params: self.plan.params.clone(),
            ttl: self.task.scope.max_ttl(&self.plan.pair),
            request_id: request_id.clone(),
            attempt: 1,
        };
        match self.broker.request(&driller(), request).await {
            Ok(Requested { minted, delivery }) => {
                // It was delivered where it stays: in this process.
                delivery.confirm();
                self.drill.lease = Some(minted.lease.terms.id);
                let lease = &minted.lease;
                self.expires_at = lease.state.expires_at().unwrap_or(lease.terms.life_ends_at);
                let handle = minted.lease.state.handle().map(ToOwned::to_owned);
                Ok(Issued { credential: minted.credential, handle })
            }
            Err(refused) => Err(self.why_not_minted(refused, &request_id).await),
        }
    }

    /// A mint that was begun and did not end well is a failure; what was refused before is none.
    async fn why_not_minted(&mut self, refused: Refused, request: &RequestId) -> Stop {
        let store = self.broker.ledger().store();
        match store.lease_by_request(self.task.terms.id, request).await {
            Ok(Some(lease)) if !matches!(lease.state, LeaseState::Refused { .. }) => {
                self.drill.lease = Some(lease.terms.id);
                let why = refused.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
                failed(Step::Mint, format!("{}{why}", refused.what))
            }
            Ok(_) | Err(_) => Stop::Refused(refused),
        }
    }

    async fn use_it(&self, issued: &Issued) -> Result<(), Stop> {
        let why = match self.probe(issued).await {
            Ok(Alive::Alive) => return Ok(()),
            Ok(Alive::Refused) => "the target refuses what it has just minted".to_owned(),
            Err(why) => why,
        };
        match self.lease().await {
            Ok(lease) if !lease.state.is_usable() => Err(Stop::Refused(interrupted(&lease))),
            Ok(_) | Err(_) => Err(failed(Step::Use, why)),
        }
    }

    async fn revoke(&self) -> Result<(), Stop> {
        let begun = self.broker.inner.end_task(self.task.clone(), Cause::Drill).await;
        begun.map_err(|refused| failed(Step::Revoke, refused.to_string()))?;
        let settled = self.broker.inner.wait_for(self.drill.lease.as_slice(), MAX_WAIT).await;
        let settled = settled.map_err(|refused| failed(Step::Revoke, refused.to_string()))?;
        match settled.leases.first() {
            Some(Lease { state: LeaseState::Revoked { .. }, .. }) => Ok(()),
            Some(lease) => Err(failed(Step::Revoke, not_revoked(lease))),
            None => Err(failed(Step::Revoke, "its lease is not in the store any more")),
        }
    }

    async fn be_refused(&self, issued: &Issued) -> Result<(), Stop> {
        match self.probe(issued).await {
            Ok(Alive::Refused) if self.broker.now() + NEAR_ITS_END >= self.expires_at => {
                Err(failed(Step::Refuse, ENDED_BY_ITSELF))
            }
            Ok(Alive::Refused) => Ok(()),
            Ok(Alive::Alive) => {
                self.kill_again().await;
                let why =
                    "the credential still works, though its target was read back and the record says revoked";
                Err(Stop::Failed(Failure { step: Step::Refuse, why: why.to_owned(), alive: true }))
            }
            Err(why) => Err(failed(Step::Refuse, format!("whether it is dead cannot be said: {why}"))),
        }
    }

    /// What is called dead and lives is revoked anew, as whatever comes back.
    async fn kill_again(&self) {
        let Ok(lease) = self.lease().await else { return };
        let orphan = Orphan {
            principal: lease.terms.principal.to_string(),
            lease: lease.terms.id,
            handle: None,
            why: OrphanWhy::Resurrected,
        };
        self.broker.inner.condemn_again(&orphan).await;
    }

    async fn probe(&self, issued: &Issued) -> Result<Alive, String> {
        let answer = self.broker.inner.door.probe(&self.plan.pair.target, issued).await;
        answer.map_err(|error| error.to_string())
    }

    async fn lease(&self) -> Result<Lease, Refused> {
        let id = self.drill.lease.ok_or_else(|| Refused::internal(&"a drill without a lease"))?;
        self.broker.lease(None, id).await
    }

    /// Whatever happened: the task ends, and its lease with it.
    async fn clean_up(&self) {
        if let Err(error) = self.broker.inner.end_task(self.task.clone(), Cause::Drill).await {
            tracing::warn!(task = %self.drill.task, %error, "the task of a drill could not be ended yet");
        }
        self.broker.inner.finish_task(self.task.terms.id).await;
    }

    fn give_up(&self, refused: Refused) -> Refused {
        let target = &self.plan.pair.target;
        tracing::warn!(target, task = %self.drill.task, %refused, "a drill was refused");
        refused
    }

    async fn end(&self) -> Drill {
        if let Err(error) = self.broker.inner.ledger.record_drill(&self.drill).await {
            tracing::error!(target = self.plan.pair.target, %error, "how a drill went is not on record");
        }
        self.shout();
        self.broker.inner.drills.ended(&self.drill, self.broker.inner.keep.drill_every());
        self.drill.clone()
    }

    fn shout(&self) {
        let (target, times) = (&self.plan.pair.target, self.drill.times());
        match &self.drill.failure {
            None => tracing::info!(target, task = %self.drill.task, times, "a drill has passed"),
            Some(Failure { step, why, alive: true }) => tracing::error!(
                target, task = %self.drill.task, times, step = step.name(), why,
                "A REVOKED CREDENTIAL IS ALIVE: a drill has failed"
            ),
            Some(Failure { step, why, alive: false }) => tracing::error!(
                target, task = %self.drill.task, times, step = step.name(), why, "a drill has failed"
            ),
        }
    }
}

const ENDED_BY_ITSELF: &str = "the target refuses the credential, which proves nothing: by then it had ended by itself, \
    or was about to; find out why the steps took so long, or let drills have a longer ttl";

fn interrupted(lease: &Lease) -> Refused {
    Refused::contended(format!("the drill of `{}` was stopped", lease.terms.pair.target))
        .why(format!("somebody revoked its lease {} before it was used", lease.terms.id))
        .next(format!("leasehold audit trace {}", lease.terms.id))
}

/// How far it came.
fn not_revoked(lease: &Lease) -> String {
    let how = if let LeaseState::Revoking { progress, .. } = &lease.state {
        let error = progress.last_error.as_deref().unwrap_or("no error yet");
        format!("reached {:?}, sessions {:?}, {error}", progress.reached, progress.sessions)
    } else {
        lease.state.name().to_owned()
    };
    format!("not dead within {MAX_WAIT} ({how}); it is still tried")
}

/// Whoever listened may be gone; the drill goes on.
fn say(out: &Out, what: Result<Drill, Refused>) {
    let _ = out.try_send(what);
}
