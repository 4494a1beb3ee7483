//! After a start: drills that were cut short end, revocations that were cut short go on, what changed in config is
//! decided again, open tasks get their grace, and whatever else the last run left in the middle is found by the sweep,
//! since its row is due.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold_law::cause::Cause;
use leasehold_law::lease::{Lease, LeaseEvent, LeaseState};
use leasehold_law::subject::Subject;
use leasehold_law::task::{Task, TaskState};
use leasehold_law::time::{Span, Timestamp};

use super::refused::Refused;
use super::{Broker, Inner};
use crate::store::TaskFilter;

/// How many tasks are read at a time.
const PAGE: usize = 512;

impl Broker {
    /// Notes the start, ends the drills of the last run, goes on with revocations, re-decides the live leases that
    /// changed config touches, and gives every open task its grace.
    ///
    /// # Errors
    /// Where the store cannot be used.
    pub async fn recover(&self, changed: &[Subject]) -> Result<(), Refused> {
        self.inner.reload_agents(None).await?;
        self.inner.count_brokers().await;
        self.inner.hear_open_tasks().await?;
        self.inner.recover_drills().await?;
        let resumed = self.inner.resume_revocations(Span::ZERO).await?;
        let revoked = self.inner.reassess(changed).await?;
        self.inner.reassess_kept();
        let details = BTreeMap::from([
            ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("config subjects changed".to_owned(), changed.len().to_string()),
            ("leases revoked by that".to_owned(), revoked.to_string()),
            ("leases that a revocation had still to take".to_owned(), resumed.to_string()),
        ]);
        Ok(self.inner.ledger.note_broker("started", details).await?)
    }
}

impl Inner {
    async fn hear_open_tasks(self: &Arc<Self>) -> Result<(), Refused> {
        let mut filter = TaskFilter { live: true, ..TaskFilter::default() };
        loop {
            let page = self.ledger.store().tasks(&filter, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            filter.before = Some(last.terms.id);
            let (over, open): (Vec<_>, Vec<_>) = page.into_iter().partition(|task| self.is_unproven(task));
            self.hear_all(&open);
            for task in over {
                self.end_task(task, Cause::PersonEnded).await?;
            }
        }
    }

    /// Whether a person's token from before a restore holds a task: it counts no more (RULES R-12), and whether that person
    /// was revoked since the backup is forgotten.
    fn is_unproven(&self, task: &Task) -> bool {
        let restored = self.keep.restored().is_some_and(|restored| task.terms.opened_at <= restored.at);
        restored && task.session_until.is_some() && task.state == TaskState::Open
    }

    /// A renewal whose answer never came: the target is read back, and what it says stands.
    pub(super) async fn recover_renewal(self: &Arc<Self>, lease: Lease) {
        let LeaseState::Renewing { expires_at, until, .. } = lease.state else { return };
        let target = &lease.terms.pair.target;
        match self.look_up(target, &lease.terms.principal).await {
            Ok(Some(found)) if !found.disabled => {
                let expires_at = read_back(self.clock.now(), found.remaining, expires_at, until);
                let step = LeaseEvent::Renewed { expires_at };
                match self.ledger.step(&lease, step, &[]).await {
                    // Its end may have passed meanwhile.
                    Ok(lease) => self.held.let_go(&lease.terms.id.to_string()),
                    Err(error) => {
                        tracing::warn!(lease = %lease.terms.id, %error, "a renewal is not settled yet");
                    }
                }
            }
            Ok(Some(_)) => self.condemn(lease, Cause::CrashRecovery, None).await,
            Ok(None) => self.condemn(lease, Cause::PrincipalMissing, None).await,
            Err(error) => tracing::warn!(target, %error, "a renewal cannot be read back yet"),
        }
    }
}

/// The old or the new end, whichever is nearer to what the target says; never later than the target's own.
fn read_back(now: Timestamp, remaining: Option<Span>, old: Timestamp, new: Timestamp) -> Timestamp {
    let Some(remaining) = remaining else { return old };
    let ends = now + remaining;
    let to_new = ends.since(new).max(new.since(ends));
    let to_old = ends.since(old).max(old.since(ends));
    if to_new <= to_old { new } else { old }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_that_the_target_has_stands() {
        let check = |remaining: Option<u64>, expect: i64| {
            assert_eq!(
                read_back(Timestamp(0), remaining.map(Span), Timestamp(100), Timestamp(900)).0,
                expect
            );
        };
        check(None, 100);
        check(Some(95), 100);
        check(Some(110), 100);
        check(Some(890), 900);
    }
}
