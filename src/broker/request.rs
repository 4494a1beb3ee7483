//! A request for a lease: whose turn it is (RULES R-5), and whether it fits its task.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use leasehold_law::caller::CallerId;
use leasehold_law::cause::Cause;
use leasehold_law::id::{LeaseId, TaskId};
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::request::{LeaseRequest, RequestId};
use leasehold_law::task::Task;
use leasehold_law::time::Span;

use super::decide::{Asker, check_request_params, fits_scope};
use super::issue::{Delivery, Minted};
use super::refused::Refused;
use super::{Broker, Inner};

/// How long an attempt waits for the death of the one whose place it takes.
const SUPERSEDE_WAIT: Span = Span::from_secs(10);

/// Requests that are worked on at one time. They go on when their callers have gone (RULES R-3), so that the bound on
/// calls does not bound them.
const MOST_TURNS: usize = 2048;

/// A lease with its credential, for the caller alone.
#[derive(Debug)]
pub struct Requested {
    /// The lease and its secret.
    pub minted: Minted,
    /// To be told when the answer has left; dropped, the credential is revoked (RULES R-3).
    pub delivery: Delivery,
}

/// Requests that are being worked on: one attempt at a time.
#[derive(Default)]
pub(super) struct Attempts(Mutex<HashSet<TurnKey>>);

/// What one attempt at a time may work on: a request within its task, an opening by its caller, a renewal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum TurnKey {
    /// Opening a task.
    Open(CallerId, RequestId),
    /// Requesting a lease.
    Lease(TaskId, RequestId),
    /// Renewing one.
    Renew(LeaseId, RequestId),
}

/// The turn of one request, until it is dropped.
pub(super) struct Turn {
    inner: Arc<Inner>,
    key: TurnKey,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.inner.attempts.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl Broker {
    /// Requests a lease.
    ///
    /// # Errors
    /// Where it is denied, out of scope, frozen or spent, or the target or the journal cannot take it now.
    pub async fn request(&self, asker: &Asker, request: LeaseRequest) -> Result<Requested, Refused> {
        let call = format!("request {}", request.pair);
        let requested = self.take_road(asker, request).await;
        self.on_record(asker, &call, requested).await
    }

    async fn take_road(&self, asker: &Asker, request: LeaseRequest) -> Result<Requested, Refused> {
        self.inner.count_call(asker)?;
        self.inner.may_issue().await?;
        let task = self.own_task(asker, request.task).await?;
        self.inner.fits_task(asker, &task, &request)?;
        self.inner.count_use(&request.pair.target)?;
        let turn = self.take_turn(TurnKey::Lease(request.task, request.request_id.clone()))?;
        let supersedes = self.inner.settle_attempts(&request).await?;
        self.issue(asker.clone(), task, request, supersedes.map(|lease| lease.terms.id), turn).await
    }

    /// The turn of a request, if nobody has it.
    pub(super) fn take_turn(&self, key: TurnKey) -> Result<Turn, Refused> {
        let mut running = self.inner.attempts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.len() >= MOST_TURNS {
            return Err(Refused::overloaded("too many requests are being worked on"));
        }
        if !running.insert(key.clone()) {
            let (TurnKey::Open(_, request) | TurnKey::Lease(_, request) | TurnKey::Renew(_, request)) = &key;
            return Err(Refused::contended(format!("request `{request}` is being worked on")));
        }
        Ok(Turn { inner: self.inner.clone(), key })
    }
}

impl Inner {
    /// What can be refused before policy is asked.
    fn fits_task(&self, asker: &Asker, task: &Task, request: &LeaseRequest) -> Result<(), Refused> {
        let registry = self.registry.load_full();
        registry.require_agent(asker)?;
        if task.state != leasehold_law::task::TaskState::Open {
            return Err(Refused::task_ended(task));
        }
        // First the scope: what is granted, and what an intent declares, is told to those whom policy let put it into
        // their scope, and to nobody else.
        fits_scope(task, request)?;
        let granted = registry.require_grant(&request.pair)?;
        check_request_params(&granted, &request.params)
    }

    /// Whether this attempt may go on; where it takes another's place, that one is dead when this returns.
    async fn settle_attempts(self: &Arc<Self>, request: &LeaseRequest) -> Result<Option<Lease>, Refused> {
        let known = self.ledger.store().lease_by_request(request.task, &request.request_id).await?;
        let Some(lease) = known else { return Ok(None) };
        if lease.terms.request_digest != request.digest() {
            return Err(Refused::request_id_reused(&request.request_id));
        }
        if request.attempt > lease.terms.attempt {
            return self.supersede(lease).await.map(Some);
        }
        match lease.state {
            LeaseState::Minting { .. } => {
                Err(Refused::contended(format!("{} is being minted", lease.terms.id)))
            }
            LeaseState::New
            | LeaseState::Refused { .. }
            | LeaseState::Active { .. }
            | LeaseState::Renewing { .. }
            | LeaseState::Revoking { .. }
            | LeaseState::Residual { .. }
            | LeaseState::Revoked { .. }
            | LeaseState::Lapsed { .. } => Err(Refused::attempt_spent(&lease)),
        }
    }

    /// Kills the credential of an earlier attempt, and waits for the proof.
    async fn supersede(self: &Arc<Self>, lease: Lease) -> Result<Lease, Refused> {
        if !lease.state.is_live() {
            return Ok(lease);
        }
        let id = lease.terms.id;
        let until = lease.state.expires_at().unwrap_or(lease.terms.life_ends_at);
        self.condemn(lease.clone(), Cause::Superseded, None).await;
        let settled = self.wait_for(&[id], SUPERSEDE_WAIT).await?;
        match settled.leases.into_iter().next() {
            Some(dead) if !dead.state.is_live() => Ok(dead),
            Some(_) | None => Err(Refused::still_alive(id, &lease.terms.pair.target, until)),
        }
    }
}
