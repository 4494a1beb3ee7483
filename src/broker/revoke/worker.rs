//! The calls that kill: each takes a batch to its target and writes down how far it came.

use std::collections::BTreeSet;
use std::sync::Arc;

use leasehold_backend::{RevokeOrder, RevokeReport};
use leasehold_law::cause::Rank;
use leasehold_law::id::TaskId;
use leasehold_law::lease::{Lease, LeaseEvent, LeaseState};
use leasehold_law::time::Timestamp;

use super::lane::{Call, Lane};
use super::ours::Killed;
use super::unrecorded::RECORD_AGAIN;
use super::{RACES, verdict};
use crate::broker::{Breaker, Inner};
use crate::fault::{self, Point};
use crate::ledger::LedgerError;

impl Inner {
    /// Hands a condemned lease to the lane of its target.
    pub(in crate::broker) fn kill(self: &Arc<Self>, lease: Lease) {
        let rank = lease.state.lane();
        self.kill_as(lease, rank);
    }

    /// As [`Inner::kill`], where what condemns it is not on record.
    pub(super) fn kill_as(self: &Arc<Self>, lease: Lease, rank: Rank) {
        let target = lease.terms.pair.target.clone();
        let lane = self.revoker.lane(&target);
        lane.put(lease, rank);
        self.drive(&target, &lane);
    }

    /// Makes every call that may be made to every target now: also the probes that are due by the clock.
    pub(in crate::broker) fn drive_all(self: &Arc<Self>) {
        for (target, lane) in self.revoker.all() {
            self.drive(&target, &lane);
        }
    }

    fn drive(self: &Arc<Self>, target: &str, lane: &Arc<Lane>) {
        while let Some(call) = lane.begin(self.clock.now()) {
            let (inner, target, lane) = (self.clone(), target.to_owned(), lane.clone());
            self.owned.spawn(async move {
                inner.make(call, &target, &lane).await;
                inner.drive(&target, &lane);
            });
        }
    }

    async fn make(self: &Arc<Self>, call: Call, target: &str, lane: &Arc<Lane>) {
        let orders: Vec<_> = call.leases().iter().map(|one| order_of(&one.lease)).collect();
        let Killed { reports, answered } = self.kill_ours(target, orders).await;
        fault::point(Point::Killed);
        if reports.iter().all(|report| report.unasked) {
            // They wait again; the target is not taken for one that is away.
            return tracing::warn!(target, "the broker is short of connections to it: revocations wait");
        }
        let spread = self.random_bits().unwrap_or_default();
        let again = answered.and_then(|answered| call.judge(answered, self.clock.now(), spread));
        // A target that is back is given all that waits at once, before this call is on record.
        self.drive(target, lane);
        self.note_reports(&call, &reports, again).await;
        fault::point(Point::DeathsRecorded);
        if again.is_some() {
            return self.let_go(target).await;
        }
        let tasks: BTreeSet<TaskId> = call.leases().iter().map(|one| one.lease.terms.task).collect();
        call.finish();
        for task in tasks {
            self.finish_task(task).await;
        }
    }

    /// Another broker of the store may reach a target that does not answer this one.
    async fn let_go(&self, target: &str) {
        if let Err(error) = self.ledger.store().let_go(target, self.clock.now()).await {
            tracing::warn!(target, %error, "other brokers wait for the claims of this one to end");
        }
    }

    /// What was condemned here since a target stopped answering this broker is left to the others too.
    pub(in crate::broker) async fn let_go_of_unreached(&self) {
        for (target, _) in self.revoker.all() {
            if self.revoker.breaker(&target) != Breaker::Closed {
                self.let_go(&target).await;
            }
        }
    }

    /// Writes down how far each lease of a call came: all in one transaction, and where one of them is not as it was
    /// read, each by itself.
    async fn note_reports(self: &Arc<Self>, call: &Call, reports: &[RevokeReport], again: Option<Timestamp>) {
        let now = self.clock.now();
        let notes = || call.leases().iter().map(|one| &one.lease).zip(reports);
        let steps: Option<Vec<_>> =
            notes().map(|(lease, report)| step_of(lease, report, now, again)).collect();
        if let Some(steps) = steps.filter(|_| self.ledger.is_well())
            && self.ledger.step_all(&steps).await.is_ok()
        {
            return;
        }
        let each = notes().map(|(lease, report)| self.note_report(lease, report, again));
        futures::future::join_all(each).await;
    }

    /// Writes down how far a try came. A lease that changed meanwhile (its cause rose) is read again. A journal that
    /// takes nothing is not waited for: the row stays due, and the lease is killed once more.
    async fn note_report(self: &Arc<Self>, lease: &Lease, report: &RevokeReport, again: Option<Timestamp>) {
        if !self.ledger.is_well() {
            return self.note_again(lease);
        }
        let mut lease = lease.clone();
        for _ in 0..RACES {
            let Some((_, step)) = step_of(&lease, report, self.clock.now(), again) else { return };
            match self.ledger.step(&lease, step, &[]).await {
                Ok(_) => return,
                Err(LedgerError::Stale(_)) => {}
                Err(error) => {
                    tracing::warn!(lease = %lease.terms.id, %error, "a revocation is not on record yet");
                    return self.note_again(&lease);
                }
            }
            match self.ledger.store().lease(lease.terms.id).await {
                Ok(Some(fresh)) => lease = fresh,
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn note_again(&self, lease: &Lease) {
        self.held.put(lease.terms.id.to_string(), self.clock.now() + RECORD_AGAIN);
    }
}

/// The step that a report leads to, if the lease is still being revoked.
fn step_of(
    lease: &Lease,
    report: &RevokeReport,
    now: Timestamp,
    again: Option<Timestamp>,
) -> Option<(Lease, LeaseEvent)> {
    let LeaseState::Revoking { progress, .. } = &lease.state else { return None };
    Some((lease.clone(), verdict::of(lease, progress, report, now, again)))
}

fn order_of(lease: &Lease) -> RevokeOrder {
    RevokeOrder {
        principal: lease.terms.principal.clone(),
        handle: lease.state.handle().map(ToOwned::to_owned),
        recipe: lease.terms.recipe.clone(),
    }
}
