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
use super::keep::{Kept, Restored};
use super::orphans::{SweepOrder, SweepReport, SweepVerdict};
use super::refused::Refused;
use crate::store::LeaseFilter;

/// How many leases are read at a time.
const PAGE: usize = 256;
/// How many look-ups a target gets at a time.
const LOOKUPS: usize = 8;
/// An end that differs by less was not moved.
const SLACK: Span = Span::from_secs(1);

/// What became of the leases of the backup in a target, and of what came since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// When it was compared.
    pub at: Timestamp,
    /// Leases that stand as the backup has them.
    pub kept: u64,
    /// Leases that were renewed since, and keep their later end.
    pub renewed: u64,
    /// Leases that were ended since, and stay dead.
    pub ended: u64,
    /// Principals that were minted since or that nothing explains, and what was done about them, in words.
    pub since: String,
}

/// How far a target agrees with a restored store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreement {
    /// It does.
    Reached,
    /// There was more than one sweep works on: the next goes on.
    MoreToCome,
    /// Nothing more is done before a person has looked.
    Halted,
}

/// What became of one.
enum Fate {
    Kept,
    Renewed,
    Ended,
}

impl Inner {
    /// Brings the rows of a restored store into agreement with a target, once for each incarnation. A sweep that was
    /// halted is no agreement: an operator's, with a bound of its own, is.
    pub(super) async fn reconcile(
        self: &Arc<Self>,
        target: &str,
        kept: &Kept,
        restored: Restored,
        order: &SweepOrder,
    ) -> Result<Agreement, Refused> {
        let incarnation = self.keep.claim().incarnation;
        if self.ledger.reconciled(target).await? == Some(i64::from(incarnation)) {
            return Ok(Agreement::Reached);
        }
        let compared = kept.state().compared.clone();
        let compared = match compared {
            Some(compared) => compared,
            None => self.reconcile_rows(target, restored).await?,
        };
        kept.state().compared = Some(compared.clone());
        let (agreement, since) = self.revoke_what_came_since(target, kept, restored, order).await?;
        let compared = Reconciled { since, ..compared };
        kept.state().compared = Some(compared.clone());
        if agreement == Agreement::Reached {
            let details = details(target, incarnation, &compared);
            tracing::warn!(target, ?details, "a target was reconciled with the restored store");
            self.ledger.record_reconciled(target, incarnation, details).await?;
        }
        Ok(agreement)
    }

    async fn reconcile_rows(
        self: &Arc<Self>,
        target: &str,
        restored: Restored,
    ) -> Result<Reconciled, Refused> {
        let target = Some(target.to_owned());
        let mut filter = LeaseFilter { target, live: true, ..LeaseFilter::default() };
        let mut tally = Reconciled { at: self.clock.now(), ..Reconciled::default() };
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
        let found = self.look_up(target, &lease.terms.principal).await;
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

    /// What came of it, in words too. A target that cannot list says nothing of them; it is on record that nobody looked.
    async fn revoke_what_came_since(
        self: &Arc<Self>,
        target: &str,
        kept: &Kept,
        restored: Restored,
        order: &SweepOrder,
    ) -> Result<(Agreement, String), Refused> {
        if !self.door.capabilities(target).is_some_and(|can| can.lists) {
            return Ok((Agreement::Reached, "not known: the target cannot list".to_owned()));
        }
        let order = SweepOrder { restored: Some(restored), ..order.clone() };
        let report = self.sweep_for_orphans(target, &order).await?;
        let agreement = agreement(&report, &self.keep.claim().installation);
        let since = format!("{} ({})", report.found, report.verdict.text());
        if agreement == Agreement::Halted {
            tracing::error!(
                target,
                since,
                "a target does not agree with the restored store, and nothing is minted there"
            );
        }
        kept.state().swept = Some(report);
        Ok((agreement, since))
    }
}

/// What another store of this installation has claimed meanwhile is not ours to agree with.
fn agreement(report: &SweepReport, mine: &str) -> Agreement {
    match &report.verdict {
        SweepVerdict::NotOurs(claim) if claim.installation == mine => Agreement::Halted,
        SweepVerdict::Halted | SweepVerdict::ClaimGone | SweepVerdict::DryRun => Agreement::Halted,
        SweepVerdict::Swept | SweepVerdict::NotOurs(_) if report.more => Agreement::MoreToCome,
        SweepVerdict::Swept | SweepVerdict::NotOurs(_) => Agreement::Reached,
    }
}

fn details(target: &str, incarnation: u32, compared: &Reconciled) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("target".to_owned(), target.to_owned()),
        ("incarnation".to_owned(), incarnation.to_string()),
        ("leases that stand".to_owned(), compared.kept.to_string()),
        ("leases that were renewed since".to_owned(), compared.renewed.to_string()),
        ("leases that were ended since".to_owned(), compared.ended.to_string()),
        ("principals that were minted since".to_owned(), compared.since.clone()),
    ])
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

#[cfg(test)]
mod tests {
    use leasehold_backend::Claim;

    use super::*;

    /// A target with more orphans than one sweep works on is compared until there are no more.
    #[test]
    fn only_a_sweep_that_saw_all_and_did_all_is_an_agreement() {
        let report = |verdict, more| SweepReport {
            target: "t".to_owned(),
            at: Timestamp(0),
            verdict,
            ours: 0,
            strangers: 0,
            found: 0,
            orphans: Vec::new(),
            young: 0,
            missing: Vec::new(),
            bound: 10,
            missing_bound: 10,
            more,
        };
        assert_eq!(agreement(&report(SweepVerdict::Swept, false), "i"), Agreement::Reached);
        assert_eq!(agreement(&report(SweepVerdict::Swept, true), "i"), Agreement::MoreToCome);
        assert_eq!(agreement(&report(SweepVerdict::Halted, false), "i"), Agreement::Halted);
        assert_eq!(agreement(&report(SweepVerdict::ClaimGone, false), "i"), Agreement::Halted);
        let claim = Claim { installation: "i".into(), incarnation: 3, place: "t".into(), term: 1 };
        assert_eq!(agreement(&report(SweepVerdict::NotOurs(claim.clone()), false), "i"), Agreement::Halted);
        assert_eq!(agreement(&report(SweepVerdict::NotOurs(claim), false), "j"), Agreement::Reached);
    }
}
