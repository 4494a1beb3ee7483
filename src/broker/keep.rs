//! What is done for each target by itself: it is claimed when it first answers, brought into agreement with a restored
//! store before anything is minted in it, and swept for orphans on a schedule (RULES ).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leasehold_backend::Claim;
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::reason::Reason;
use leasehold_law::time::{Span, Timestamp};

use super::Inner;
use super::claims::{Owner, Said};
use super::orphans::{SweepOrder, SweepReport, SweepVerdict};
use super::refused::Refused;
use super::restore::{Agreement, Reconciled};

/// How soon a target that did not answer is greeted again.
const GREET_AGAIN: Span = Span::from_secs(5);
/// How soon after it was greeted a target is swept for the first time.
const FIRST_SWEEP: Span = Span::from_mins(1);
/// How soon a sweep that failed is tried again, at most.
const SWEEP_AGAIN: Span = Span::from_mins(1);

/// How targets are kept.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// The name under which they are claimed.
    pub claim: Claim,
    /// The restore that made this incarnation; none for the first.
    pub restored: Option<Restored>,
    /// How often each is swept for orphans.
    pub sweep_every: Span,
    /// How often each is drilled; not by itself, where nothing is said.
    pub drill_every: Option<Span>,
    /// How long leases and tasks stay in their tables after they are over.
    pub retention: Span,
}

/// A restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Up to when the backup knows everything.
    pub taken_at: Timestamp,
    /// When it was restored.
    pub at: Timestamp,
}

/// What is known of each target.
pub(super) struct Keep {
    keeping: Keeping,
    targets: BTreeMap<String, Arc<Kept>>,
}

/// One target.
#[derive(Default)]
pub(super) struct Kept {
    /// Held while it is greeted or swept.
    turn: tokio::sync::Mutex<()>,
    /// Held while it is asked whose it is, and its next term taken.
    pub(super) asking: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) said: Said,
    /// Whether it was looked at since the start.
    greeted: bool,
    /// What became of the leases of a restored store in it, once they are compared.
    pub(super) compared: Option<Reconciled>,
    reconciled: bool,
    next: Timestamp,
    pub(super) swept: Option<SweepReport>,
    first_seen: BTreeMap<String, Timestamp>,
}

impl Kept {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_due(&self, now: Timestamp, keep: &Keep) -> bool {
        self.state().next.has_come(now, keep.keeping.sweep_every.max(GREET_AGAIN))
    }
}

impl Keep {
    pub(super) fn new(keeping: Keeping, targets: &[String]) -> Self {
        let targets = targets.iter().map(|name| (name.clone(), Arc::default())).collect();
        Self { keeping, targets }
    }

    pub(super) fn claim(&self) -> &Claim {
        &self.keeping.claim
    }

    pub(super) fn restored(&self) -> Option<Restored> {
        self.keeping.restored
    }

    pub(super) fn retention(&self) -> Span {
        self.keeping.retention
    }

    pub(super) fn drill_every(&self) -> Option<Span> {
        self.keeping.drill_every
    }

    pub(super) fn kept(&self, target: &str) -> Option<&Arc<Kept>> {
        self.targets.get(target)
    }

    pub(super) const fn all(&self) -> &BTreeMap<String, Arc<Kept>> {
        &self.targets
    }

    /// Whose a target is, as far as it has said.
    pub(super) fn owner(&self, target: &str) -> Owner {
        self.targets.get(target).map(|kept| kept.state().said.owner.clone()).unwrap_or_default()
    }

    /// What became of the leases of a restored store in a target, if they were compared since the start.
    pub(super) fn compared(&self, target: &str) -> Option<Reconciled> {
        self.targets.get(target).and_then(|kept| kept.state().compared.clone())
    }

    /// How the last sweep went.
    pub(super) fn swept(&self, target: &str) -> Option<SweepReport> {
        self.targets.get(target).and_then(|kept| kept.state().swept.clone())
    }

    pub(super) fn is_reconciled(&self, target: &str) -> bool {
        self.keeping.restored.is_none()
            || self.targets.get(target).is_some_and(|kept| kept.state().reconciled)
    }

    /// Whether it is known how the leases of a restored store stand in a target.
    fn is_compared(&self, target: &str) -> bool {
        let compared = |kept: &Arc<Kept>| kept.state().compared.is_some();
        self.is_reconciled(target) || self.targets.get(target).is_some_and(compared)
    }

    /// Whether a target agrees with a restored store: nothing is minted in it before.
    pub(super) fn is_ready(&self, target: &str) -> Result<(), Refused> {
        if self.is_reconciled(target) {
            return Ok(());
        }
        Err(Refused::new(Reason::TargetDown, format!("cannot use `{target}` yet"))
            .why("the store was restored, and the target has not been compared with it")
            .next("ask again: it is done by itself as soon as the target answers, unless leasehold status says more")
            .retry_after(GREET_AGAIN)
            .detail("target", target))
    }

    /// Since when a name has been seen in a target: from now on where it was not. The others are forgotten.
    pub(super) fn seen_since(
        &self,
        target: &str,
        names: impl Iterator<Item = String>,
        now: Timestamp,
    ) -> BTreeMap<String, Timestamp> {
        let Some(kept) = self.targets.get(target) else { return BTreeMap::new() };
        let mut state = kept.state();
        let old = std::mem::take(&mut state.first_seen);
        state.first_seen = names
            .map(|name| {
                let since = old.get(&name).map_or(now, |since| now.min(*since));
                (name, since)
            })
            .collect();
        state.first_seen.clone()
    }
}

impl Inner {
    /// Sees to each target whose time has come, beside the beat: one that is down delays nobody.
    pub(super) fn tend_targets(self: &Arc<Self>) {
        let now = self.clock.now();
        for (name, kept) in &self.keep.targets {
            if !kept.is_due(now, &self.keep) || kept.turn.try_lock().is_err() {
                continue;
            }
            let (inner, name, kept) = (self.clone(), name.clone(), kept.clone());
            self.owned.spawn(async move {
                let _turn = kept.turn.lock().await;
                if kept.is_due(inner.clock.now(), &inner.keep) {
                    let wait = inner.tend_target(&name, &kept).await;
                    kept.state().next = inner.clock.now() + wait;
                }
            });
        }
    }

    /// Gives how long to wait until the next look.
    async fn tend_target(self: &Arc<Self>, name: &str, kept: &Kept) -> Span {
        let every = self.keep.keeping.sweep_every;
        let greeted = kept.state().greeted;
        if !greeted || !self.keep.is_reconciled(name) {
            return match self.greet(name, kept, &SweepOrder::default()).await {
                // A halted sweep waits for a person; a target that is somebody else's may be ours again any moment.
                Ok(Agreement::Halted) if self.keep.owner(name).forbids_mints().is_none() => every,
                Ok(Agreement::Halted | Agreement::Reached | Agreement::MoreToCome) => FIRST_SWEEP.min(every),
                Err(error) => {
                    tracing::warn!(target = name, %error, "a target does not answer yet");
                    GREET_AGAIN
                }
            };
        }
        if !self.door.capabilities(name).is_some_and(|can| can.lists) {
            return every;
        }
        match self.sweep_target_now(name, kept, &SweepOrder::default()).await {
            Ok(_) => every,
            Err(error) => {
                tracing::warn!(target = name, %error, "a sweep for orphans failed");
                SWEEP_AGAIN.min(every)
            }
        }
    }

    /// Looks at a target for the first time: whose it is, whether it agrees with a restored store, and from then on
    /// claimed where nobody else has it.
    async fn greet(
        self: &Arc<Self>,
        name: &str,
        kept: &Kept,
        order: &SweepOrder,
    ) -> Result<Agreement, Refused> {
        self.door.look(name).await.map_err(|error| Refused::backend(name, &error))?;
        if self.owner_of(name).await?.forbids_mints().is_some() {
            kept.state().greeted = true;
            return Ok(Agreement::Halted);
        }
        if let Some(restored) = self.keep.restored() {
            let agreement = self.reconcile(name, kept, restored, order).await?;
            if agreement != Agreement::Reached {
                return Ok(agreement);
            }
        }
        self.claim(name).await?;
        let mut state = kept.state();
        (state.reconciled, state.greeted) = (true, true);
        Ok(Agreement::Reached)
    }

    /// One sweep, on record in memory for the operator's screen.
    async fn sweep_target_now(
        self: &Arc<Self>,
        name: &str,
        kept: &Kept,
        order: &SweepOrder,
    ) -> Result<SweepReport, Refused> {
        self.claim(name).await?;
        let report = self.sweep_for_orphans(name, order).await?;
        if report.verdict != SweepVerdict::DryRun {
            kept.state().swept = Some(report.clone());
        }
        Ok(report)
    }

    /// A sweep that an operator asked for, after one that is under way. Where the target does not agree with a restored
    /// store yet, it is the sweep that makes it agree.
    pub(super) async fn sweep_on_demand(
        self: &Arc<Self>,
        name: &str,
        order: &SweepOrder,
    ) -> Result<SweepReport, Refused> {
        let kept = self.keep.targets.get(name);
        let kept = kept.ok_or_else(|| self.no_target(name))?;
        let _turn = kept.turn.lock().await;
        if order.claim && !order.dry_run {
            self.claim_anew(name).await?;
        }
        if !self.door.capabilities(name).is_some_and(|can| can.lists) {
            return Err(Refused::new(Reason::NotServed, format!("`{name}` cannot list its principals")));
        }
        if self.keep.is_reconciled(name) {
            return self.sweep_target_now(name, kept, order).await;
        }
        if order.dry_run {
            let order = SweepOrder { restored: self.keep.restored(), ..order.clone() };
            return self.sweep_for_orphans(name, &order).await;
        }
        kept.state().swept = None;
        self.greet(name, kept, order).await?;
        let swept = kept.state().swept.clone();
        match swept {
            Some(report) => Ok(report),
            None => self.sweep_target_now(name, kept, order).await,
        }
    }

    /// An active lease of a restored store whose target has not said yet how it stands: perhaps it was renewed since.
    pub(super) fn awaits_reconciliation(&self, lease: &Lease) -> bool {
        matches!(lease.state, LeaseState::Active { .. } | LeaseState::Renewing { .. })
            && self.keep.targets.contains_key(&lease.terms.pair.target)
            && !self.keep.is_compared(&lease.terms.pair.target)
    }
}
