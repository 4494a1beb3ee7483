//! A wall clock that an operator confirms after it went back (RULES R-23): what was promised before ends no later for it.
//!
//! The clock goes back by as much as the wall clock is behind, and the end of each live lease with it, so that what is left
//! of it is what was left before, and so does what waits for a moment to be revoked again. The leases come first: where that fails, or the broker falls, the clock is still what
//! it was, and a lease whose end was brought forward ends early, never late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use leasehold_law::cause::Cause;
use leasehold_law::lease::{Lease, LeaseEvent, LeaseState, Progress};
use leasehold_law::revocation::Selector;
use leasehold_law::time::{Span, Timestamp};

use super::refused::Refused;
use super::{Broker, Inner};
use crate::clock::Reading;
use crate::ledger::LedgerError;

/// How many ends are brought forward in one transaction.
const TOGETHER: usize = 64;
/// How often one is tried again that changed meanwhile.
const RACES: usize = 16;
/// How soon a broker that falls in between is asked what the target has.
const SETTLED_WITHIN: Span = Span::from_secs(60);

/// Whether the clock is being set back: no lease expires meanwhile, since by the old clock the new ends may be past.
#[derive(Default)]
pub(super) struct SettingBack(AtomicBool);

/// It is, until this is gone.
struct Turn<'a>(&'a SettingBack);

impl SettingBack {
    pub(super) fn is_under_way(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn begin(&self) -> Option<Turn<'_>> {
        (!self.0.swap(true, Ordering::AcqRel)).then_some(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

impl Broker {
    /// An operator looked at the wall clock and takes it as right. Where it is no further behind than is trusted anyway,
    /// nothing moves. In a task of the broker's own: whoever hangs up has confirmed it nevertheless.
    ///
    /// # Errors
    /// Where it cannot be written; the clock is as it was then.
    pub async fn confirm_clock(&self, by: &str, reason: &str) -> Result<Reading, Refused> {
        let details =
            BTreeMap::from([("by".to_owned(), by.to_owned()), ("reason".to_owned(), reason.to_owned())]);
        let inner = self.inner.clone();
        let confirmed = self.inner.owned.spawn(async move { inner.confirm_clock(details).await });
        confirmed.await.map_err(|error| Refused::internal(&error))?
    }
}

impl Inner {
    async fn confirm_clock(
        self: &Arc<Self>,
        mut details: BTreeMap<String, String>,
    ) -> Result<Reading, Refused> {
        let turn = self.setting_back.begin();
        let turn = turn.ok_or_else(|| Refused::contended("the clock is being confirmed already"))?;
        let before = self.clock.read();
        details.insert("behind".to_owned(), before.behind.to_string());
        self.ledger.note_broker("clock confirmed", details).await?;
        if before.may_issue() {
            return Ok(before);
        }
        let moved = self.bring_forward(before.behind).await?;
        let reading = self.set_back(before.behind);
        drop(turn);
        if let Err(error) = self.ledger.record_time().await {
            tracing::warn!(%error, "the clock's high-water mark is not written: a restart sees the old one");
        }
        tracing::warn!(by = %before.behind, leases = moved, "the clock was set back, and the ends of leases with it");
        Ok(reading)
    }

    /// The clock, and the moments in memory that something waits for.
    fn set_back(&self, by: Span) -> Reading {
        self.liveness.go_back(by);
        let reading = self.clock.set_back(by);
        self.held.let_all_go();
        self.limiter.refill();
        self.taking.look_now();
        reading
    }

    /// Brings the end of every live lease forward, and says of how many. Nothing is issued meanwhile: the clock is behind.
    async fn bring_forward(self: &Arc<Self>, by: Span) -> Result<usize, Refused> {
        let (mut walk, mut moved) = (self.walk(&Selector::All), 0);
        loop {
            let page = walk.next(self.ledger.store()).await?;
            if page.is_empty() {
                return Ok(moved);
            }
            moved += page.len();
            for some in page.chunks(TOGETHER) {
                self.bring_some_forward(some, by).await?;
            }
        }
    }

    async fn bring_some_forward(self: &Arc<Self>, leases: &[Lease], by: Span) -> Result<(), Refused> {
        let now = self.clock.now();
        let active: Vec<_> = leases.iter().filter_map(|lease| Some((lease, new_end(lease, by)?))).collect();
        let begun = active.iter().map(|(lease, end)| ((*lease).clone(), begin(*end, now)));
        let together = match self.ledger.step_all(&begun.collect::<Vec<_>>()).await {
            Ok(begun) => {
                let ends = active.iter().map(|(_, end)| LeaseEvent::Renewed { expires_at: *end });
                self.ledger.step_all(&begun.into_iter().zip(ends).collect::<Vec<_>>()).await.map(drop)
            }
            Err(error) => Err(error),
        };
        // One that is not as it was read any more stops the others of its transaction.
        let is_alone = |lease: &&Lease| together.is_err() || new_end(lease, by).is_none();
        for lease in leases.iter().filter(is_alone) {
            self.bring_one_forward(lease.clone(), by).await?;
        }
        Ok(())
    }

    /// What is in the middle of a mint or a renewal has no end yet that could be moved, and is revoked. What is being revoked
    /// is tried again no later than it would have been.
    async fn bring_one_forward(self: &Arc<Self>, read: Lease, by: Span) -> Result<(), Refused> {
        let wanted = new_end(&read, by);
        for _ in 0..RACES {
            let Some(lease) = self.ledger.store().lease(read.terms.id).await? else { return Ok(()) };
            let moved = match &lease.state {
                LeaseState::Active { expires_at, .. } if wanted == Some(*expires_at) => return Ok(()),
                LeaseState::Active { expires_at, .. } => self.end_sooner(&lease, *expires_at - by).await,
                // Begun here, and the second step met another change.
                LeaseState::Renewing { until, .. } if wanted == Some(*until) => {
                    self.ledger.step(&lease, LeaseEvent::Renewed { expires_at: *until }, &[]).await.map(drop)
                }
                LeaseState::Revoking { progress, .. } => {
                    self.ledger.step(&lease, sooner(progress, by), &[]).await.map(drop)
                }
                LeaseState::Minting { .. } | LeaseState::Renewing { .. } => {
                    self.condemn(lease, Cause::Operator, None).await;
                    return Ok(());
                }
                LeaseState::New
                | LeaseState::Refused { .. }
                | LeaseState::Residual { .. }
                | LeaseState::Revoked { .. }
                | LeaseState::Lapsed { .. } => return Ok(()),
            };
            match moved {
                Err(LedgerError::Stale(_)) => {}
                other => return Ok(other?),
            }
        }
        Err(Refused::contended(format!("{} keeps changing", read.terms.id)))
    }

    async fn end_sooner(&self, lease: &Lease, end: Timestamp) -> Result<(), LedgerError> {
        let begun = self.ledger.step(lease, begin(end, self.clock.now()), &[]).await?;
        self.ledger.step(&begun, LeaseEvent::Renewed { expires_at: end }, &[]).await.map(drop)
    }
}

/// A try that came to nothing new: the next is due when it would have been.
fn sooner(progress: &Progress, by: Span) -> LeaseEvent {
    LeaseEvent::RevokeTried {
        reached: progress.reached,
        sessions: progress.sessions,
        error: progress.last_error.clone(),
        next_try: progress.next_try - by,
        handle: None,
    }
}

/// The end of a lease by the clock that is set back by so much.
fn new_end(lease: &Lease, by: Span) -> Option<Timestamp> {
    match lease.state {
        LeaseState::Active { expires_at, .. } => Some(expires_at - by),
        LeaseState::New
        | LeaseState::Refused { .. }
        | LeaseState::Minting { .. }
        | LeaseState::Renewing { .. }
        | LeaseState::Revoking { .. }
        | LeaseState::Residual { .. }
        | LeaseState::Revoked { .. }
        | LeaseState::Lapsed { .. } => None,
    }
}

fn begin(end: Timestamp, now: Timestamp) -> LeaseEvent {
    LeaseEvent::RenewStarted { until: end, due: now + SETTLED_WITHIN }
}
