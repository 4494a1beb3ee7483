//! The sweep for orphans: what a target holds under this installation's names is compared with the rows, and what no
//! live lease explains is revoked, within a bound (RULES R-11, REV-5).
//!
//! The target is listed first and the rows are read after, so that a lease minted between the two is seen as a row;
//! and whatever looks wrong is looked up once more by name before anything is done about it.

mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use leasehold_backend::Principal;
use leasehold_law::cause::Cause;
use leasehold_law::id::LeaseId;
use leasehold_law::lease::{Lease, LeaseEvent, LeaseState};
use leasehold_law::principal::PrincipalName;
use leasehold_law::time::{Span, Timestamp};

use super::keep::Restored;
use super::refused::Refused;
use super::{Broker, Inner};
use crate::ledger::LedgerError;
use crate::store::{Aside, AsideFilter, AsideKind, BadRow, LeaseFilter, StoreError};
pub use report::{Orphan, OrphanWhy, SweepOrder, SweepReport, SweepVerdict};
use report::{Weighed, count};

/// How many principals are listed, and rows are read, at a time.
const PAGE: usize = 500;
/// How long a principal must be there before it may be called an orphan: six times the window of a mint.
const GRACE: Span = Span::from_secs(60);
/// So many are worked on by one sweep; the next goes on.
const MOST: usize = 10_000;
/// So many are named in a report.
const NAMED: usize = 100;
/// How many look-ups a target gets at a time.
const LOOKUPS: usize = 8;
/// How much earlier than the backup a lease may have been begun that is not in it.
const SLACK: Span = Span::from_secs(60);

/// What comparing a target with the rows has found so far.
#[derive(Default)]
struct Compared {
    ours: u64,
    strangers: u64,
    orphans: Vec<Orphan>,
    missing: Vec<Lease>,
    more: bool,
}

impl Broker {
    /// Sweeps a target for orphans now.
    ///
    /// # Errors
    /// Where there is no such target, it cannot list, or it or the store does not answer.
    pub async fn sweep_target(&self, target: &str, order: &SweepOrder) -> Result<SweepReport, Refused> {
        self.inner.sweep_on_demand(target, order).await
    }
}

impl Inner {
    pub(super) async fn sweep_for_orphans(
        self: &Arc<Self>,
        target: &str,
        order: &SweepOrder,
    ) -> Result<SweepReport, Refused> {
        let at = self.clock.now();
        let compared = self.compare(target).await?;
        let compared = self.confirm(target, compared, at).await?;
        let (orphans, young) = self.old_enough(target, compared.orphans, order, at);
        // Whose it is now, after everything was read, and before anything is done about it.
        let owner = self.owner_of(target).await?;
        let weighed = Weighed::new(compared.ours, count(compared.missing.len()), &orphans, order);
        let verdict = weighed.verdict(&owner, order.dry_run);
        let report = SweepReport {
            target: target.to_owned(),
            at,
            ours: compared.ours,
            strangers: compared.strangers,
            found: count(orphans.len()),
            orphans: orphans.iter().take(NAMED).cloned().collect(),
            young,
            missing: compared.missing.iter().map(|lease| lease.terms.id).collect(),
            bound: weighed.bound,
            missing_bound: weighed.missing_bound,
            more: compared.more,
            verdict,
        };
        self.note_sweep(&report).await?;
        if report.verdict == SweepVerdict::Swept {
            self.remove(target, orphans).await;
        }
        if report.may_close(&owner) {
            let cause = order.restored.map_or(Cause::PrincipalMissing, |_| Cause::Restored);
            self.close(compared.missing, cause).await;
        }
        Ok(report)
    }

    /// Lists the whole target, page by page, and reads the rows of each page after it.
    async fn compare(&self, target: &str) -> Result<Compared, Refused> {
        let known = self.known_asides(target).await?;
        let mut compared = Compared::default();
        let (mut name, mut reached): (Option<String>, Option<LeaseId>) = (None, None);
        loop {
            let page = self.door.list_principals(target, name.as_deref(), PAGE).await;
            let page = page.map_err(|error| Refused::backend(target, &error))?;
            let last = page.principals.last().map(|principal| principal.name.clone());
            let more = page.more && last.is_some() && last != name;
            let (ours, strangers) = self.sorted(page.principals);
            compared.strangers += strangers;
            compared.ours += count(ours.len());
            reached = self.compare_page(&mut compared, target, &ours, &known, (reached, more)).await?;
            if !more || compared.orphans.len() >= MOST {
                compared.more |= more;
                return Ok(compared);
            }
            name = last;
        }
    }

    /// What of a target was set aside already, by name.
    async fn known_asides(&self, target: &str) -> Result<BTreeSet<String>, Refused> {
        let filter = AsideFilter { alive: true, target: Some(target.to_owned()), ..AsideFilter::default() };
        let asides = self.ledger.store().asides(&filter, MOST).await?;
        Ok(asides.into_iter().map(|aside| aside.row.principal).collect())
    }

    /// Ours by their code, in the order of their ids, and how many only look like it.
    fn sorted(&self, principals: Vec<Principal>) -> (BTreeMap<LeaseId, Principal>, u64) {
        let all = principals.len();
        let verified = |one: Principal| Some((PrincipalName::verify(&one.name, &self.key)?, one));
        let ours: BTreeMap<_, _> = principals.into_iter().filter_map(verified).collect();
        let strangers = count(all - ours.len());
        (ours, strangers)
    }

    /// Names sort as their ids do, so that a page stands for a range of rows: those after `reached`, up to the last
    /// of the page, or to the end where there is no `more`. Gives how far it came.
    async fn compare_page(
        &self,
        compared: &mut Compared,
        target: &str,
        ours: &BTreeMap<LeaseId, Principal>,
        known: &BTreeSet<String>,
        (reached, more): (Option<LeaseId>, bool),
    ) -> Result<Option<LeaseId>, Refused> {
        let last = ours.keys().next_back().copied();
        if more && last.is_none() {
            return Ok(reached);
        }
        let rows = self.rows_between(target, reached, last.filter(|_| more)).await?;
        let explained: BTreeSet<_> = rows.iter().map(|lease| lease.terms.id).collect();
        for (id, principal) in ours.iter().filter(|(id, _)| !explained.contains(id)) {
            if !known.contains(&principal.name)
                && let Some(why) = self.unexplained(*id).await?
            {
                let (principal, handle) = (principal.name.clone(), principal.handle.clone());
                compared.orphans.push(Orphan { principal, lease: *id, handle, why });
            }
        }
        let room = MOST.saturating_sub(compared.missing.len());
        let gone = rows.into_iter().filter(|lease| !ours.contains_key(&lease.terms.id));
        let gone: Vec<_> = gone.filter(is_active).take(room + 1).collect();
        compared.more |= gone.len() > room;
        compared.missing.extend(gone.into_iter().take(room));
        Ok(last.or(reached))
    }

    /// The live leases of a target with ids between these two, neither included.
    async fn rows_between(
        &self,
        target: &str,
        after: Option<LeaseId>,
        before: Option<LeaseId>,
    ) -> Result<Vec<Lease>, Refused> {
        let target = Some(target.to_owned());
        let mut filter = LeaseFilter { target, live: true, after, before, ..LeaseFilter::default() };
        let mut rows = Vec::new();
        loop {
            let page = self.ledger.store().leases(&filter, PAGE).await?;
            let full = page.len() == PAGE;
            filter.before = page.last().map(|lease| lease.terms.id);
            rows.extend(page);
            if !full {
                return Ok(rows);
            }
        }
    }

    /// Why no live lease explains a name; none where one does, on whichever target, or where its row cannot be read:
    /// that is seen to elsewhere.
    async fn unexplained(&self, id: LeaseId) -> Result<Option<OrphanWhy>, Refused> {
        match self.ledger.store().lease(id).await {
            Ok(Some(lease)) if lease.state.is_live() => Ok(None),
            Ok(Some(Lease { state: LeaseState::Revoked { .. }, .. })) => Ok(Some(OrphanWhy::Resurrected)),
            Ok(Some(_) | None) => Ok(Some(OrphanWhy::Unknown)),
            Err(StoreError::Unreadable(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks up by name whatever looks wrong: what was listed may be gone since, and what was missing may be there.
    async fn confirm(
        &self,
        target: &str,
        compared: Compared,
        listed_at: Timestamp,
    ) -> Result<Compared, Refused> {
        let is_there = |name: Option<PrincipalName>| async move {
            match name {
                Some(name) => self.door.lookup(target, &name).await.map(|found| found.is_some()),
                None => Ok(false),
            }
        };
        let Compared { ours, strangers, more, orphans, missing } = compared;
        let orphans = orphans.into_iter().map(|one| {
            let name = PrincipalName::stored(&one.principal);
            async move { (is_there(name).await, one) }
        });
        let orphans: Vec<_> = futures::stream::iter(orphans).buffer_unordered(LOOKUPS).collect().await;
        let before = |lease: &Lease| lease.terms.created_at < listed_at;
        let missing = missing.into_iter().filter(before).map(|lease| {
            let name = Some(lease.terms.principal.clone());
            async move { (is_there(name).await, lease) }
        });
        let missing: Vec<_> = futures::stream::iter(missing).buffer_unordered(LOOKUPS).collect().await;
        let refused = |error| Refused::backend(target, &error);
        let mut confirmed = Compared { ours, strangers, more, ..Compared::default() };
        for (there, orphan) in orphans {
            confirmed.orphans.extend(there.map_err(refused)?.then_some(orphan));
        }
        for (there, lease) in missing {
            confirmed.missing.extend((!there.map_err(refused)?).then_some(lease));
        }
        confirmed.orphans.sort_by_key(|one| one.lease);
        Ok(confirmed)
    }

    /// Those that were there long enough, by the moment in their name or by two looks, and how many were not. What
    /// was revoked before needs no grace.
    fn old_enough(
        &self,
        target: &str,
        orphans: Vec<Orphan>,
        order: &SweepOrder,
        now: Timestamp,
    ) -> (Vec<Orphan>, u64) {
        let names = orphans.iter().map(|one| one.principal.clone());
        let seen = self.keep.seen_since(target, names, now);
        let all = orphans.len();
        let old: Vec<_> = orphans
            .into_iter()
            .map(|one| Orphan { why: restored_why(&one, order.restored), ..one })
            .filter(|one| {
                let since = seen.get(&one.principal).copied().unwrap_or(now).min(one.lease.made_at());
                one.why != OrphanWhy::Unknown || now.since(since) >= GRACE
            })
            .collect();
        let young = count(all - old.len());
        (old, young)
    }

    async fn remove(self: &Arc<Self>, target: &str, orphans: Vec<Orphan>) {
        for orphan in orphans {
            if orphan.why != OrphanWhy::Resurrected || !self.condemn_again(&orphan).await {
                self.take_orphan(target, orphan).await;
            }
        }
        self.kill_asides(target).await;
    }

    /// A revoked lease whose principal is back is revoked anew. False where its row has left the table.
    pub(super) async fn condemn_again(self: &Arc<Self>, orphan: &Orphan) -> bool {
        let Ok(Some(lease)) = self.ledger.store().lease(orphan.lease).await else { return false };
        let handle = orphan.handle.clone();
        let step = LeaseEvent::RevokeStarted { cause: Cause::Resurrected, at: self.clock.now(), handle };
        match self.ledger.step(&lease, step, &[]).await {
            Ok(condemned) => {
                self.kill(condemned);
                true
            }
            Err(LedgerError::Illegal(_)) => true,
            Err(error) => {
                tracing::warn!(lease = %orphan.lease, %error, "a lease that is back cannot be revoked by its row");
                false
            }
        }
    }

    async fn take_orphan(&self, target: &str, orphan: Orphan) {
        let now = self.clock.now();
        let row = BadRow {
            kind: AsideKind::Orphan,
            id: orphan.principal.clone(),
            task: String::new(),
            target: target.to_owned(),
            principal: orphan.principal,
            handle: orphan.handle,
            bytes: Vec::new(),
            error: orphan.why.text().to_owned(),
        };
        let aside = Aside { row, at: now, due: Some(now), tries: 0, last_error: None, gone_at: None };
        if let Err(error) = self.ledger.set_aside(&aside, None).await {
            tracing::warn!(target, principal = aside.row.principal, %error, "an orphan is not on record yet");
        }
    }

    /// Their principals are gone; what sessions they left are cut all the same.
    async fn close(self: &Arc<Self>, missing: Vec<Lease>, cause: Cause) {
        let closed = missing.into_iter().map(|lease| self.condemn(lease, cause, None));
        futures::future::join_all(closed).await;
    }

    /// A sweep that finds nothing leaves no entry.
    async fn note_sweep(&self, report: &SweepReport) -> Result<(), Refused> {
        if report.found == 0 && report.missing.is_empty() {
            return Ok(());
        }
        let orphans: Vec<_> = report.orphans.iter().map(|one| one.principal.as_str()).collect();
        let missing: Vec<_> = report.missing.iter().take(NAMED).map(ToString::to_string).collect();
        let details = BTreeMap::from([
            ("target".to_owned(), report.target.clone()),
            ("verdict".to_owned(), report.verdict.text()),
            ("principals of ours".to_owned(), report.ours.to_string()),
            ("orphans".to_owned(), report.found.to_string()),
            ("bound".to_owned(), report.bound.to_string()),
            ("leases whose principal is gone, in all".to_owned(), report.missing.len().to_string()),
            ("bound of those".to_owned(), report.missing_bound.to_string()),
            ("names".to_owned(), orphans.join(" ")),
            ("leases whose principal is gone".to_owned(), missing.join(" ")),
        ]);
        Ok(self.ledger.note_broker("swept a target for orphans", details).await?)
    }
}

fn restored_why(orphan: &Orphan, restored: Option<Restored>) -> OrphanWhy {
    let made = orphan.lease.made_at();
    match restored {
        Some(window) if made > window.taken_at - SLACK && made <= window.at => OrphanWhy::Restored,
        Some(_) | None => orphan.why,
    }
}

fn is_active(lease: &Lease) -> bool {
    matches!(lease.state, LeaseState::Active { .. })
}
