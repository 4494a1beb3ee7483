//! What is done for each target by itself: it is claimed when it first answers, brought into agreement with a restored
//! store before anything is minted in it, and swept for orphans on a schedule (RULES ).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leasehold_backend::Claim;
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::reason::Reason;
use leasehold_law::time::{Span, Timestamp};

use super::Inner;
use super::orphans::{SweepOrder, SweepReport, SweepVerdict};
use super::refused::Refused;

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

/// Whose a target is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// It has not said yet.
    #[default]
    Unknown,
    /// This installation's, in this incarnation.
    Ours,
    /// Another installation's: nothing is ever swept in it from here.
    Other(Claim),
    /// A later incarnation of this installation's: this store is a clone, or was set back by hand.
    Later(Claim),
}

/// What is known of each target.
pub(super) struct Keep {
    keeping: Keeping,
    targets: BTreeMap<String, Arc<Kept>>,
}

/// One target.
#[derive(Default)]
struct Kept {
    /// Held while it is greeted or swept.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    owner: Owner,
    reconciled: bool,
    next: Timestamp,
    swept: Option<SweepReport>,
    first_seen: BTreeMap<String, Timestamp>,
}

impl Kept {
    fn state(&self) -> MutexGuard<'_, State> {
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

    /// Whose a target is, as far as it has said.
    pub(super) fn owner(&self, target: &str) -> Owner {
        self.targets.get(target).map(|kept| kept.state().owner.clone()).unwrap_or_default()
    }

    /// How the last sweep went.
    pub(super) fn swept(&self, target: &str) -> Option<SweepReport> {
        self.targets.get(target).and_then(|kept| kept.state().swept.clone())
    }

    pub(super) fn is_reconciled(&self, target: &str) -> bool {
        self.keeping.restored.is_none()
            || self.targets.get(target).is_some_and(|kept| kept.state().reconciled)
    }

    /// Whether anything may be minted in a target: not before it agrees with a restored store, and never beside a
    /// later incarnation.
    pub(super) fn may_mint(&self, target: &str) -> Result<(), Refused> {
        if !self.is_reconciled(target) {
            return Err(Refused::new(Reason::TargetDown, format!("cannot use `{target}` yet"))
                .why("the store was restored, and the target has not been compared with it")
                .next("ask again: it is done by itself as soon as the target answers")
                .retry_after(GREET_AGAIN)
                .detail("target", target));
        }
        match self.owner(target) {
            Owner::Later(claim) => {
                Err(Refused::new(Reason::TargetRefused, format!("nothing is minted in `{target}`"))
                    .why(format!("incarnation {} of this installation has claimed it", claim.incarnation))
                    .next("stop this broker, or restore its store anew: leasehold restore")
                    .detail("target", target))
            }
            Owner::Unknown | Owner::Ours | Owner::Other(_) => Ok(()),
        }
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
        let known = kept.state().owner != Owner::Unknown && self.keep.is_reconciled(name);
        if !known {
            return match self.greet(name, kept).await {
                Ok(()) => FIRST_SWEEP.min(self.keep.keeping.sweep_every),
                Err(error) => {
                    tracing::warn!(target = name, %error, "a target does not answer yet");
                    GREET_AGAIN
                }
            };
        }
        if !self.door.capabilities(name).is_some_and(|can| can.lists) {
            return self.keep.keeping.sweep_every;
        }
        match self.sweep_target_now(name, kept, &SweepOrder::default()).await {
            Ok(_) => self.keep.keeping.sweep_every,
            Err(error) => {
                tracing::warn!(target = name, %error, "a sweep for orphans failed");
                SWEEP_AGAIN.min(self.keep.keeping.sweep_every)
            }
        }
    }

    /// Looks at a target for the first time: whose it is, whether it agrees with a restored store, and from then on
    /// claimed where nobody else has it.
    async fn greet(self: &Arc<Self>, name: &str, kept: &Kept) -> Result<(), Refused> {
        let refused = |error| Refused::backend(name, &error);
        self.door.look(name).await.map_err(refused)?;
        let owner = self.owner_of(name).await?;
        if matches!(owner, Owner::Later(_)) {
            kept.state().owner = owner;
            return Ok(());
        }
        if let Some(restored) = self.keep.restored() {
            self.reconcile(name, restored).await?;
        }
        let owner = if let Owner::Other(_) = owner { owner } else { self.claim(name).await? };
        match &owner {
            Owner::Other(claim) => tracing::warn!(
                target = name,
                owner = claim.installation,
                "another installation has claimed this target; nothing of it is ever swept here"
            ),
            Owner::Unknown | Owner::Ours | Owner::Later(_) => {}
        }
        let mut state = kept.state();
        state.reconciled = true;
        state.owner = owner;
        Ok(())
    }

    /// Whose a target is now. Unclaimed, or claimed by an earlier incarnation of this installation, it is ours to
    /// claim.
    pub(super) async fn owner_of(&self, name: &str) -> Result<Owner, Refused> {
        let standing = self.door.owner(name).await.map_err(|error| Refused::backend(name, &error))?;
        let mine = self.keep.claim();
        Ok(match standing {
            None => Owner::Unknown,
            Some(claim) if claim == *mine => Owner::Ours,
            Some(claim) if claim.installation != mine.installation => Owner::Other(claim),
            Some(claim) if claim.incarnation > mine.incarnation => Owner::Later(claim),
            Some(_) => Owner::Unknown,
        })
    }

    /// Claims a target, and reads back who has it: of two brokers that claim at once, one has it.
    async fn claim(&self, name: &str) -> Result<Owner, Refused> {
        match self.owner_of(name).await? {
            Owner::Unknown => {
                let claimed = self.door.claim(name, self.keep.claim()).await;
                claimed.map_err(|error| Refused::backend(name, &error))?;
                self.owner_of(name).await
            }
            owner @ (Owner::Ours | Owner::Other(_) | Owner::Later(_)) => Ok(owner),
        }
    }

    /// One sweep, on record in memory for the operator's screen.
    async fn sweep_target_now(
        self: &Arc<Self>,
        name: &str,
        kept: &Kept,
        order: &SweepOrder,
    ) -> Result<SweepReport, Refused> {
        let owner = self.owner_of(name).await?;
        let owner = if owner == Owner::Unknown { self.claim(name).await? } else { owner };
        kept.state().owner = owner.clone();
        let report = self.sweep_for_orphans(name, &owner, order).await?;
        if report.verdict != SweepVerdict::DryRun {
            kept.state().swept = Some(report.clone());
        }
        Ok(report)
    }

    /// A sweep that an operator asked for, after one that is under way.
    pub(super) async fn sweep_on_demand(
        self: &Arc<Self>,
        name: &str,
        order: &SweepOrder,
    ) -> Result<SweepReport, Refused> {
        let kept = self.keep.targets.get(name);
        let kept = kept.ok_or_else(|| self.no_target(name))?;
        if !self.door.capabilities(name).is_some_and(|can| can.lists) {
            return Err(Refused::new(Reason::NotServed, format!("`{name}` cannot list its principals")));
        }
        let _turn = kept.turn.lock().await;
        if !self.keep.is_reconciled(name) {
            self.greet(name, kept).await?;
        }
        self.sweep_target_now(name, kept, order).await
    }

    /// An active lease of a restored store whose target has not said yet how it stands: perhaps it was renewed since.
    pub(super) fn awaits_reconciliation(&self, lease: &Lease) -> bool {
        matches!(lease.state, LeaseState::Active { .. } | LeaseState::Renewing { .. })
            && self.keep.targets.contains_key(&lease.terms.pair.target)
            && !self.keep.is_reconciled(&lease.terms.pair.target)
    }
}
