//! What is set aside: rows that cannot be read, and principals that no row explains. Each is moved out of the way with
//! its bytes, killed by its plain columns until its target reads back that it is gone, and stops nothing else (law 9).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use leasehold_backend::{RevokeOrder, RevokeReport};
use leasehold_law::catalog::Recipe;
use leasehold_law::cause::Cause;
use leasehold_law::id::{LeaseId, RevocationId, TaskId};
use leasehold_law::journal::{Body, Event};
use leasehold_law::lease::{Reached, Sessions};
use leasehold_law::principal::{PREFIX, PrincipalName};
use leasehold_law::revocation::Revocation;
use leasehold_law::time::{Span, Timestamp};

use super::Inner;
use super::sweep::BAD_ROW_AGAIN;
use crate::store::{Aside, AsideFilter, AsideKind, BadRow};
use crate::vault_door::{MAX_OFFSET, MINT_WINDOW};

/// How many are taken in, or killed in one target, at a time.
const SLICE: usize = 64;
/// How long after the moment in a revocation's id its entry may have been made.
const NEAR: Span = Span::from_secs(60);
/// The first of those that name a revocation is its own; clocks may disagree about the first few.
const AMONG: usize = 64;

/// The targets that are being asked to kill what was set aside: one call a target at a time.
#[derive(Default)]
pub(super) struct Busy(Mutex<BTreeSet<String>>);

impl Busy {
    fn take(&self, target: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(target.to_owned())
    }

    fn give_back(&self, target: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(target);
    }
}

impl Inner {
    /// Takes in what reads could not read, and goes on killing what was set aside. Waits for no target.
    pub(super) async fn tend_asides(self: &Arc<Self>) {
        match self.ledger.store().unreadable(SLICE).await {
            Ok(rows) => {
                for row in rows {
                    self.hold_bad_row(row);
                }
            }
            Err(error) => tracing::error!(%error, "the store does not say what it cannot read"),
        }
        let filter = AsideFilter { alive: true, due: Some(self.clock.now()), ..AsideFilter::default() };
        match self.ledger.store().asides(&filter, 1).await {
            Ok(due) if due.is_empty() => {}
            Ok(_) => self.door.targets().for_each(|target| self.spawn_kills(target)),
            Err(error) => tracing::error!(%error, "the store does not say what was set aside"),
        }
    }

    fn spawn_kills(self: &Arc<Self>, target: &str) {
        let (inner, target) = (self.clone(), target.to_owned());
        self.owned.spawn(async move { inner.kill_asides(&target).await });
    }

    /// Takes a row in, beside the sweep. While that fails it is left alone for a while, and hides nobody.
    pub(super) fn hold_bad_row(self: &Arc<Self>, row: BadRow) {
        let key = row.id.clone();
        if self.held.is_held(&key) {
            return;
        }
        self.held.put(key, self.clock.now() + BAD_ROW_AGAIN);
        let inner = self.clone();
        self.owned.spawn(async move { inner.take_in(row).await });
    }

    async fn take_in(self: &Arc<Self>, row: BadRow) {
        let now = self.clock.now();
        let instead = match row.kind {
            AsideKind::Task => {
                self.condemn_all_of(&row).await;
                None
            }
            AsideKind::Revocation if !row.target.is_empty() => match self.revocation_of(&row).await {
                Some(revocation) => Some(revocation),
                // Its row stays, and what it froze stays frozen.
                None => {
                    return tracing::error!(row = row.id, "a barrier cannot be read, and goes on standing");
                }
            },
            AsideKind::Lease | AsideKind::Revocation | AsideKind::Orphan => None,
        };
        let due = matches!(row.kind, AsideKind::Lease | AsideKind::Orphan).then_some(now);
        let aside = Aside { row, at: now, due, tries: 0, last_error: None, gone_at: None };
        let again = instead.as_ref().map(|revocation| revocation.id);
        match self.ledger.set_aside(&aside, instead).await {
            Ok(()) => {
                // Its first entry does not say what it took.
                again.into_iter().for_each(|id| self.taking.reopen(id));
                self.kill_asides(&aside.row.target).await;
            }
            Err(error) => {
                tracing::warn!(row = aside.row.id, %error, "a row is not set aside yet");
                self.kill_unlisted(&aside).await;
            }
        }
    }

    /// No record may ever stop a revoke.
    async fn kill_unlisted(&self, aside: &Aside) {
        if let (Some(_), Some(order)) = (aside.due, order_of(aside)) {
            self.kill_ours(&aside.row.target, vec![order]).await;
        }
    }

    /// Nobody can say whether a task whose row cannot be read is still open: what hangs on it dies.
    async fn condemn_all_of(self: &Arc<Self>, row: &BadRow) {
        let Ok(task) = row.id.parse::<TaskId>() else { return };
        match self.live_of_task(task).await {
            Ok(live) => self.condemn_all(live, Cause::Unreadable).await,
            Err(error) => tracing::error!(%task, %error, "the leases of a task cannot be listed"),
        }
    }

    /// A revocation as its first entry has it.
    async fn revocation_of(&self, row: &BadRow) -> Option<Revocation> {
        let id: RevocationId = row.id.parse().ok()?;
        let made = id.made_at();
        let entries = self.ledger.store().entries_with(&row.id, made, made + NEAR, AMONG).await.ok()?;
        let mut begun = entries.iter().filter_map(|entry| Body::parse(&entry.body).ok());
        begun.find_map(|body| {
            let Event::Revocation { revocation } = body.event else { return None };
            (revocation.id == id).then_some(*revocation)
        })
    }

    /// Whether something of a task was set aside and may be alive.
    pub(super) async fn has_aside(&self, task: TaskId) -> bool {
        let filter = AsideFilter { alive: true, task: Some(task), ..AsideFilter::default() };
        self.ledger.store().asides(&filter, 1).await.is_ok_and(|found| !found.is_empty())
    }

    /// Kills what is due in one target, one call at a time.
    pub(super) async fn kill_asides(&self, target: &str) {
        if !self.busy.take(target) {
            return;
        }
        while self.kill_slice(target).await {}
        self.busy.give_back(target);
    }

    /// Gives whether there may be more that can move now.
    async fn kill_slice(&self, target: &str) -> bool {
        let filter = AsideFilter {
            alive: true,
            due: Some(self.clock.now()),
            target: Some(target.to_owned()),
            task: None,
        };
        let due = match self.ledger.store().asides(&filter, SLICE).await {
            Ok(due) => due,
            Err(error) => {
                tracing::error!(%error, "the store does not say what was set aside");
                return false;
            }
        };
        let full = due.len() == SLICE;
        let (named, nameless): (Vec<_>, Vec<_>) = due.into_iter().partition(|one| order_of(one).is_some());
        let orders: Vec<_> = named.iter().filter_map(order_of).collect();
        let killed = self.kill_ours(target, orders).await;
        let mut noted = true;
        for (aside, report) in named.into_iter().zip(killed.reports) {
            noted &= self.note_kill(aside, &report).await;
        }
        for aside in nameless {
            let report =
                RevokeReport::failed("its columns hold no name of this broker's; find it in the target");
            noted &= self.note_kill(aside, &report).await;
        }
        full && noted
    }

    /// Gives whether it is on record, and so not due at once any more.
    async fn note_kill(&self, aside: Aside, report: &RevokeReport) -> bool {
        let now = self.clock.now();
        let task = aside.row.task.parse::<TaskId>();
        let aside = judged(aside, report, now);
        if let Err(error) = self.ledger.note_aside(&aside).await {
            tracing::warn!(row = aside.row.id, %error, "a death is not on record yet");
            return false;
        }
        if let (Some(_), Ok(task)) = (aside.gone_at, task) {
            self.finish_task(task).await;
        }
        true
    }
}

fn order_of(aside: &Aside) -> Option<RevokeOrder> {
    let principal = PrincipalName::stored(&aside.row.principal)?;
    Some(RevokeOrder { principal, handle: aside.row.handle.clone(), recipe: Recipe::default() })
}

/// What a report proves of something whose row does not say when it was minted (law 7).
fn judged(aside: Aside, report: &RevokeReport, now: Timestamp) -> Aside {
    let handle = report.handle.clone().or(aside.row.handle);
    let row = BadRow { handle, ..aside.row };
    let gone =
        report.reached == Reached::Removed && report.sessions == Sessions::None && report.error.is_none();
    if gone && (!report.absent || nothing_lands(&row, report)) {
        return Aside { row, due: None, gone_at: Some(now), last_error: None, ..aside };
    }
    let tries = aside.tries.saturating_add(1);
    let wait = Span(1000_u64.saturating_mul(1 << tries.min(6)).min(Aside::LONGEST_WAIT.0));
    Aside { row, tries, due: Some(now + wait), last_error: report.error.clone(), ..aside }
}

/// The lease whose name in its target this is.
fn lease_in(principal: &str) -> Option<LeaseId> {
    let suffix = principal.strip_prefix(PREFIX).and_then(|rest| rest.get(..leasehold_law::id::ID_CHARS));
    suffix.and_then(LeaseId::from_suffix)
}

/// The lease that a row is, or was minted for.
pub(super) fn lease_of(row: &BadRow) -> Option<LeaseId> {
    row.id.parse().ok().or_else(|| lease_in(&row.principal))
}

/// No mint under a name lands later than its window after the moment in it, whatever the clocks.
fn nothing_lands(row: &BadRow, report: &RevokeReport) -> bool {
    let made = lease_in(&row.principal).map(LeaseId::made_at);
    match (made, report.target_now) {
        (Some(made), Some(target_now)) => target_now > made + MINT_WINDOW + MAX_OFFSET,
        (None, _) | (_, None) => false,
    }
}
