//! How a lease dies: condemned on record, killed in its target by a worker that never gives up, called dead only
//! with proof (laws 7 and 8).

mod verdict;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use leasehold_backend::{RevokeOrder, RevokeReport};
use leasehold_law::cause::Cause;
use leasehold_law::id::{LeaseId, TaskId};
use leasehold_law::lease::{Lease, LeaseEvent, LeaseState};
use leasehold_law::time::Span;
use tokio::sync::Semaphore;

use super::Inner;
use super::sweep::RECORD_AGAIN;
use crate::fault::{self, Point};
use crate::ledger::LedgerError;

/// How many leases go to a target in one call.
const BATCH: usize = 64;
/// How many calls a target gets at a time.
const CALLS: usize = 4;
/// How many leases wait for one target; what does not fit is found again by the sweep, since its row is due.
const QUEUE: usize = 10_000;
/// How often a step is tried again when the lease changed under it.
const RACES: usize = 16;

/// The queues of the condemned, one a target.
pub(super) struct Revoker {
    lanes: Mutex<BTreeMap<String, Arc<Lane>>>,
    /// Condemned while the journal takes nothing: killed all the same, recorded later (RULES R-24).
    unrecorded: Mutex<Vec<(LeaseId, Cause, Option<String>)>>,
}

struct Lane {
    waiting: Mutex<Waiting>,
    calls: Arc<Semaphore>,
}

#[derive(Default)]
struct Waiting {
    queue: VecDeque<Lease>,
    /// In the queue or in a call.
    known: HashSet<LeaseId>,
}

impl Lane {
    fn new() -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), calls: Arc::new(Semaphore::new(CALLS)) })
    }

    fn put(&self, lease: Lease) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.queue.len() < QUEUE && waiting.known.insert(lease.terms.id) {
            waiting.queue.push_back(lease);
        }
    }

    fn take(&self) -> Vec<Lease> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.queue.len().min(BATCH);
        waiting.queue.drain(..count).collect()
    }

    fn forget(&self, leases: &[Lease]) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        leases.iter().for_each(|lease| {
            waiting.known.remove(&lease.terms.id);
        });
    }
}

impl Revoker {
    pub(super) fn new(targets: &[String]) -> Self {
        let lanes = targets.iter().map(|target| (target.clone(), Lane::new())).collect();
        Self { lanes: Mutex::new(lanes), unrecorded: Mutex::default() }
    }

    /// A target that has left the config has a lane too: what it holds is not forgotten.
    fn lane(&self, target: &str) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.entry(target.to_owned()).or_insert_with(Lane::new).clone()
    }

    /// How many leases wait for their target or are with it.
    pub(super) fn in_hand(&self) -> usize {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes
            .values()
            .map(|lane| lane.waiting.lock().unwrap_or_else(PoisonError::into_inner).known.len())
            .sum()
    }

    /// How many were condemned without a record.
    pub(super) fn unrecorded(&self) -> usize {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Inner {
    /// Condemns a lease and has it killed. Where it changed meanwhile, it is condemned as it stands; where the journal
    /// takes nothing, it is killed first and recorded later.
    pub(super) async fn condemn(self: Arc<Self>, lease: Lease, cause: Cause, handle: Option<String>) {
        let mut lease = lease;
        for _ in 0..RACES {
            let step = LeaseEvent::RevokeStarted { cause, at: self.clock.now(), handle: handle.clone() };
            match self.ledger.step(&lease, step, &[]).await {
                Ok(condemned) => {
                    fault::point(Point::Condemned);
                    return self.kill(condemned);
                }
                Err(LedgerError::Illegal(_)) => return self.kill_if_revoking(lease),
                Err(LedgerError::Stale(_)) => {}
                Err(
                    LedgerError::Full(_)
                    | LedgerError::Store(_)
                    | LedgerError::Unknown(_)
                    | LedgerError::IllegalTask(_),
                ) => {
                    return self.kill_unrecorded(lease, cause, handle);
                }
            }
            match self.ledger.store().lease(lease.terms.id).await {
                Ok(Some(fresh)) => lease = fresh,
                Ok(None) | Err(_) => return self.kill_unrecorded(lease, cause, handle),
            }
        }
        self.kill_unrecorded(lease, cause, handle);
    }

    /// Nothing to condemn: it is being revoked already, or is dead.
    fn kill_if_revoking(self: Arc<Self>, lease: Lease) {
        if matches!(lease.state, LeaseState::Revoking { .. }) {
            self.kill(lease);
        }
    }

    fn kill_unrecorded(self: Arc<Self>, lease: Lease, cause: Cause, handle: Option<String>) {
        let entry = (lease.terms.id, cause, handle);
        let mut unrecorded = self.revoker.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
        if !unrecorded.iter().any(|(id, _, _)| *id == lease.terms.id) {
            unrecorded.push(entry);
        }
        drop(unrecorded);
        self.held.put(lease.terms.id.to_string(), self.clock.now() + RECORD_AGAIN);
        self.kill(lease);
    }

    /// Hands a condemned lease to the worker of its target.
    pub(super) fn kill(self: Arc<Self>, lease: Lease) {
        let target = lease.terms.pair.target.clone();
        let lane = self.revoker.lane(&target);
        lane.put(lease);
        let calls = lane.calls.clone();
        let Ok(call) = calls.try_acquire_owned() else { return };
        let inner = self.clone();
        self.owned.spawn(async move {
            inner.work(&target, &lane).await;
            drop(call);
            inner.work_again(&lane);
        });
    }

    /// A lease may have come between the last look and the end of the call.
    fn work_again(self: &Arc<Self>, lane: &Arc<Lane>) {
        let next = lane.take();
        lane.forget(&next);
        next.into_iter().for_each(|lease| self.clone().kill(lease));
    }

    async fn work(self: &Arc<Self>, target: &str, lane: &Lane) {
        loop {
            let batch = lane.take();
            if batch.is_empty() {
                return;
            }
            self.revoke_batch(target, &batch).await;
            lane.forget(&batch);
        }
    }

    async fn revoke_batch(self: &Arc<Self>, target: &str, batch: &[Lease]) {
        let orders: Vec<_> = batch.iter().map(order_of).collect();
        let reports = self.door.revoke(target, &orders).await;
        fault::point(Point::Killed);
        let settled = batch.iter().zip(reports).map(|(lease, report)| self.note_report(lease, report));
        futures::future::join_all(settled).await;
        fault::point(Point::DeathsRecorded);
        let tasks: BTreeSet<TaskId> = batch.iter().map(|lease| lease.terms.task).collect();
        for task in tasks {
            self.finish_task(task).await;
        }
    }

    /// Writes down how far a try came. A lease that changed meanwhile (its cause rose) is read again.
    async fn note_report(self: &Arc<Self>, lease: &Lease, report: RevokeReport) {
        let mut lease = lease.clone();
        for _ in 0..RACES {
            let LeaseState::Revoking { progress, .. } = &lease.state else { return };
            let step = verdict::of(&lease, progress, &report, self.clock.now());
            match self.ledger.step(&lease, step, &[]).await {
                Ok(_) => return,
                Err(LedgerError::Stale(_)) => {}
                Err(error) => {
                    tracing::warn!(lease = %lease.terms.id, %error, "a revocation is not on record yet");
                    return;
                }
            }
            match self.ledger.store().lease(lease.terms.id).await {
                Ok(Some(fresh)) => lease = fresh,
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Records what was condemned while the journal took nothing, as soon as it takes entries again.
    pub(super) async fn record_late(self: &Arc<Self>) {
        let late =
            std::mem::take(&mut *self.revoker.unrecorded.lock().unwrap_or_else(PoisonError::into_inner));
        for (id, cause, handle) in late {
            match self.ledger.store().lease(id).await {
                Ok(Some(lease)) if lease.state.is_live() => self.clone().condemn(lease, cause, handle).await,
                Ok(Some(_) | None) => {}
                Err(_) => {
                    let mut again = self.revoker.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
                    again.push((id, cause, handle));
                }
            }
        }
    }
}

fn order_of(lease: &Lease) -> RevokeOrder {
    RevokeOrder {
        principal: lease.terms.principal.clone(),
        handle: lease.state.handle().map(ToOwned::to_owned),
        recipe: lease.terms.recipe.clone(),
    }
}

/// The wait before the next try: doubled each time, at most a minute, and spread by the lease's own id so that what
/// failed together is not tried again together.
fn backoff(attempts: u32, id: LeaseId) -> Span {
    let base = 1000_u64.saturating_mul(1_u64 << attempts.min(6)).min(60_000);
    let spread =
        id.suffix().bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    Span(base * 3 / 4 + spread % (base / 4).max(1))
}

#[cfg(test)]
mod tests {
    use leasehold_law::time::Timestamp;

    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_minute() {
        let id = LeaseId::derive(Timestamp(5), 5);
        let waits: Vec<_> = (0..9).map(|attempts| backoff(attempts, id).0).collect();
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
        assert!((750..1000).contains(&waits[0]) && (45_000..60_000).contains(&waits[8]), "{waits:?}");
    }
}
