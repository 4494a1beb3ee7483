//! What a sweep may do, what it found, and what it does about that: nothing above its bounds, and nothing where the
//! target is not ours to sweep (RULES R-11).

use leasehold_backend::Claim;
use leasehold_law::id::LeaseId;
use leasehold_law::time::Timestamp;

use crate::broker::{Owner, Restored};

/// So many may be removed by one sweep, and where it is more, this share of what is ours.
const LEAST_BOUND: u64 = 10;
const SHARE: u64 = 20;

/// What a sweep may do.
#[derive(Clone, Debug, Default)]
pub struct SweepOrder {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Remove up to so many, instead of the bound.
    pub at_most: Option<u64>,
    /// Close up to so many leases whose principal is gone, instead of the bound.
    pub missing_at_most: Option<u64>,
    /// First claim the target anew: an operator says that it is the right one.
    pub claim: bool,
    /// What was minted after this restore's backup is removed whatever the bound.
    pub restored: Option<Restored>,
}

/// What a sweep came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepReport {
    /// The target.
    pub target: String,
    /// When it was listed.
    pub at: Timestamp,
    /// What was done.
    pub verdict: SweepVerdict,
    /// Principals with a name of ours, by its code.
    pub ours: u64,
    /// Principals that look like ours and are not: never touched.
    pub strangers: u64,
    /// Principals that no live lease explains and that are old enough to say so.
    pub found: u64,
    /// The first of them.
    pub orphans: Vec<Orphan>,
    /// Principals that are too young to say.
    pub young: u64,
    /// Live leases whose principal is gone: closed, unless nothing was done.
    pub missing: Vec<LeaseId>,
    /// The most that this sweep could have removed.
    pub bound: u64,
    /// The most leases whose principal is gone that this sweep could have closed.
    pub missing_bound: u64,
    /// Whether there is more than one sweep works on: the next goes on.
    pub more: bool,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SweepVerdict {
    /// What was found is being revoked, if anything was.
    Swept,
    /// Nothing: it was only asked.
    DryRun,
    /// Nothing: the target is somebody else's to sweep.
    NotOurs(Claim),
    /// Nothing: it would have been more than a bound.
    Halted,
    /// Nothing: the claim that this broker made is gone, and this may be another server.
    ClaimGone,
}

/// A principal that no live lease explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Its name.
    pub principal: String,
    /// The lease in its name.
    pub lease: LeaseId,
    /// What the target knows it by.
    pub handle: Option<String>,
    /// Why it is one.
    pub why: OrphanWhy,
}

/// Why a principal is an orphan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrphanWhy {
    /// No row knows it.
    Unknown,
    /// Its lease was revoked, and it is back.
    Resurrected,
    /// It was minted after the backup that was restored.
    Restored,
}

impl OrphanWhy {
    /// In a few words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unknown => "no lease explains it",
            Self::Resurrected => "its lease was revoked, and it is back",
            Self::Restored => "it was minted after the backup that was restored",
        }
    }
}

impl SweepVerdict {
    /// In a few words.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Swept => "swept".to_owned(),
            Self::DryRun => "dry run: nothing was touched".to_owned(),
            Self::NotOurs(claim) => format!(
                "nothing was touched: another store has claimed the target, of installation {}, incarnation {}",
                claim.installation, claim.incarnation
            ),
            Self::Halted => "halted: it would have removed or closed more than the bound".to_owned(),
            Self::ClaimGone => {
                "halted: the claim that this broker made is gone, and this may be another server".to_owned()
            }
        }
    }
}

impl SweepReport {
    /// Whether leases whose principal is gone are closed. Those of a second installation are its own to close.
    pub(super) fn may_close(&self, owner: &Owner) -> bool {
        match self.verdict {
            SweepVerdict::Swept => true,
            SweepVerdict::NotOurs(_) => matches!(owner, Owner::Other(_)),
            SweepVerdict::DryRun | SweepVerdict::Halted | SweepVerdict::ClaimGone => false,
        }
    }
}

/// What bears on whether a sweep does anything.
pub(super) struct Weighed {
    /// Orphans, but for those that were minted after a restored backup.
    orphans: u64,
    pub(super) bound: u64,
    missing: u64,
    pub(super) missing_bound: u64,
}

impl Weighed {
    pub(super) fn new(ours: u64, missing: u64, orphans: &[Orphan], order: &SweepOrder) -> Self {
        let others = orphans.iter().filter(|one| one.why != OrphanWhy::Restored).count();
        Self {
            orphans: count(others),
            bound: order.at_most.unwrap_or_else(|| bound_of(ours)),
            missing,
            missing_bound: order.missing_at_most.unwrap_or_else(|| bound_of(ours + missing)),
        }
    }

    /// A server without what this broker minted is more likely another server than one on which so much was removed by
    /// hand.
    pub(super) fn verdict(&self, owner: &Owner, dry_run: bool) -> SweepVerdict {
        match owner {
            _ if dry_run => SweepVerdict::DryRun,
            Owner::Gone => SweepVerdict::ClaimGone,
            Owner::Later(claim) | Owner::Twin(claim) => SweepVerdict::NotOurs(claim.clone()),
            Owner::Other(_) | Owner::Unknown | Owner::Ours if self.missing > self.missing_bound => {
                SweepVerdict::Halted
            }
            Owner::Other(claim) => SweepVerdict::NotOurs(claim.clone()),
            Owner::Unknown | Owner::Ours if self.orphans > self.bound => SweepVerdict::Halted,
            Owner::Unknown | Owner::Ours => SweepVerdict::Swept,
        }
    }
}

fn bound_of(all: u64) -> u64 {
    LEAST_BOUND.max(all / SHARE)
}

pub(super) fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(owner: &Owner, orphans: u64, missing: u64, all: u64) -> SweepVerdict {
        let weighed = Weighed { orphans, bound: bound_of(all), missing, missing_bound: bound_of(all) };
        weighed.verdict(owner, false)
    }

    /// RULES R-11: 10, or one in twenty of what is ours where that is more.
    #[test]
    fn the_bound_is_ten_or_five_per_cent() {
        let bounds = [0, 10, 200, 219, 220, 10_000].map(bound_of);
        assert_eq!(bounds, [10, 10, 10, 10, 11, 500]);
        let swept = |orphans, all| verdict(&Owner::Ours, orphans, 0, all);
        assert_eq!([swept(10, 10), swept(11, 10)], [SweepVerdict::Swept, SweepVerdict::Halted]);
        assert_eq!([swept(11, 220), swept(12, 220)], [SweepVerdict::Swept, SweepVerdict::Halted]);
    }

    #[test]
    fn who_has_a_target_and_what_is_gone_from_it_halt_a_sweep() {
        let claim = || Claim { installation: "i".into(), incarnation: 2, place: "t".into(), term: 1 };
        let missing = |owner: &Owner, missing| verdict(owner, 0, missing, 10);
        assert_eq!([10, 11].map(|n| missing(&Owner::Ours, n)), [SweepVerdict::Swept, SweepVerdict::Halted]);
        assert_eq!(missing(&Owner::Other(claim()), 11), SweepVerdict::Halted);
        assert_eq!(missing(&Owner::Other(claim()), 1), SweepVerdict::NotOurs(claim()));
        assert_eq!(missing(&Owner::Later(claim()), 11), SweepVerdict::NotOurs(claim()));
        assert_eq!(missing(&Owner::Twin(claim()), 0), SweepVerdict::NotOurs(claim()));
        assert_eq!(missing(&Owner::Gone, 0), SweepVerdict::ClaimGone);
    }
}
