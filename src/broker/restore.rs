//! After a restore: each target is asked how what the backup knew stands, before anything new is minted in it.
//!
//! What was revoked since stays dead, what was renewed since keeps its later end, and what was minted since is found by
//! the sweep and revoked.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use leasehold_backend::Found;
use leasehold_law::cause::Cause;
use leasehold_law::lease::{Lease, LeaseEvent, LeaseState};
use leasehold_law::time::{Span, Timestamp};

use super::Inner;
use super::keep::Restored;
use super::orphans::SweepOrder;
use super::refused::Refused;
use crate::store::LeaseFilter;

/// How many leases are read at a time.
const PAGE: usize = 256;
/// How many look-ups a target gets at a time.
const LOOKUPS: usize = 8;
/// An end that differs by less was not moved.
const SLACK: Span = Span::from_secs(1);

/// What became of the leases of the backup.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    kept: u64,
    renewed: u64,
    ended: u64,
}

/// What became of one.
enum Fate {
    Kept,
    Renewed,
    Ended,
}

impl Inner {
    /// Brings the rows of a restored store into agreement with a target, once for each incarnation.
    pub(super) async fn reconcile(self: &Arc<Self>, target: &str, restored: Restored) -> Result<(), Refused> {
        let incarnation = self.keep.claim().incarnation;
        if self.ledger.reconciled(target).await? == Some(i64::from(incarnation)) {
            return Ok(());
        }
        let tally = self.reconcile_rows(target, restored).await?;
        let found = self.revoke_what_came_since(target, restored).await?;
        let details = BTreeMap::from([
            ("target".to_owned(), target.to_owned()),
            ("incarnation".to_owned(), incarnation.to_string()),
            ("leases that stand".to_owned(), tally.kept.to_string()),
            ("leases that were renewed since".to_owned(), tally.renewed.to_string()),
            ("leases that were ended since".to_owned(), tally.ended.to_string()),
            ("principals that were minted since".to_owned(), found.to_string()),
        ]);
        tracing::warn!(target, ?details, "a target was reconciled with the restored store");
        Ok(self.ledger.record_reconciled(target, incarnation, details).await?)
    }

    async fn reconcile_rows(self: &Arc<Self>, target: &str, restored: Restored) -> Result<Tally, Refused> {
        let target = Some(target.to_owned());
        let mut filter = LeaseFilter { target, live: true, ..LeaseFilter::default() };
        let mut tally = Tally::default();
        loop {
            let page = self.ledger.store().leases(&filter, PAGE).await?;
            let Some(last) = page.last() else { return Ok(tally) };
            filter.before = Some(last.terms.id);
            let old = page
                .into_iter()
                .filter(|lease| lease.terms.created_at <= restored.at && lease.state.is_usable());
            let fates = old.map(|lease| self.reconcile_row(lease));
            let fates: Vec<_> = futures::stream::iter(fates).buffer_unordered(LOOKUPS).collect().await;
            for fate in fates {
                match fate? {
                    Fate::Kept => tally.kept += 1,
                    Fate::Renewed => tally.renewed += 1,
                    Fate::Ended => tally.ended += 1,
                }
            }
        }
    }

    async fn reconcile_row(self: &Arc<Self>, lease: Lease) -> Result<Fate, Refused> {
        let target = &lease.terms.pair.target;
        let found = self.door.lookup(target, &lease.terms.principal).await;
        match found.map_err(|error| Refused::backend(target, &error))? {
            None | Some(Found { disabled: true, .. }) => {
                self.condemn(lease, Cause::Restored, None).await;
                Ok(Fate::Ended)
            }
            Some(Found { remaining, .. }) => self.take_later_end(lease, remaining).await,
        }
    }

    /// The end that the target has stands, within the life of the lease.
    async fn take_later_end(&self, lease: Lease, remaining: Option<Span>) -> Result<Fate, Refused> {
        let LeaseState::Active { expires_at, .. } = lease.state else { return Ok(Fate::Kept) };
        let Some(ends) = later_end(&lease, self.clock.now(), remaining, expires_at) else {
            return Ok(Fate::Kept);
        };
        let begun = LeaseEvent::RenewStarted { until: ends, due: self.clock.now() };
        let lease = self.ledger.step(&lease, begun, &[]).await?;
        self.ledger.step(&lease, LeaseEvent::Renewed { expires_at: ends }, &[]).await?;
        Ok(Fate::Renewed)
    }

    /// Gives how many were found. A target that cannot list says nothing of them; it is on record that nobody looked.
    async fn revoke_what_came_since(
        self: &Arc<Self>,
        target: &str,
        restored: Restored,
    ) -> Result<String, Refused> {
        if !self.door.capabilities(target).is_some_and(|can| can.lists) {
            return Ok("not known: the target cannot list".to_owned());
        }
        let owner = self.owner_of(target).await?;
        let order = SweepOrder { restored: Some(restored), ..SweepOrder::default() };
        let report = self.sweep_for_orphans(target, &owner, &order).await?;
        Ok(format!("{} ({})", report.found, report.verdict.text()))
    }
}

fn later_end(
    lease: &Lease,
    now: Timestamp,
    remaining: Option<Span>,
    expires_at: Timestamp,
) -> Option<Timestamp> {
    let ends = (now + remaining?).min(lease.terms.life_ends_at);
    (ends.since(expires_at) > SLACK).then_some(ends)
}
