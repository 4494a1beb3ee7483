//! What a target's report proves, and what it does not.

use leasehold_backend::RevokeReport;
use leasehold_law::lease::{Grade, Lease, LeaseEvent, LeaseState, Progress, Proof, Reached, Sessions};
use leasehold_law::time::{Span, Timestamp};

use super::backoff;

/// How soon a target is asked again whose sessions are still arriving.
const REAPING: Span = Span::from_secs(1);
/// How soon a lease is tried again that could not be killed, at first.
const FIRST: Span = Span::from_secs(1);
/// The longest wait between two tries (REV-2).
pub(in crate::broker) const LONGEST_WAIT: Span = Span::from_mins(1);

/// The step that a report leads to. Where its target did not answer at all, `again` is when it is asked again.
pub(super) fn of(
    lease: &Lease,
    progress: &Progress,
    report: &RevokeReport,
    now: Timestamp,
    again: Option<Timestamp>,
) -> LeaseEvent {
    if is_dead(lease, progress, report) {
        let proof = if never_minted(lease, progress, report) { Proof::NeverMinted } else { Proof::ReadBack };
        return LeaseEvent::Revoked { proof, at: now, handle: report.handle.clone() };
    }
    if let Some(until) = beyond_reach(lease, progress, report) {
        return LeaseEvent::LeftResidual { until, reached: report.reached };
    }
    tried(lease, progress, report, now, again)
}

/// Gone, no session left, or never there; and nothing under that name can land any more (law 7).
fn is_dead(lease: &Lease, progress: &Progress, report: &RevokeReport) -> bool {
    let gone = report.reached == Reached::Removed && report.sessions == Sessions::None;
    let dead = gone || never_minted(lease, progress, report);
    dead && nothing_lands(progress, report) && report.error.is_none()
}

fn nothing_lands(progress: &Progress, report: &RevokeReport) -> bool {
    match (progress.not_before, report.target_now) {
        (None, _) => true,
        (Some(_), _) if !report.absent => true,
        (Some(mint_by), Some(target_now)) => target_now > mint_by,
        (Some(_), None) => false,
    }
}

fn never_minted(lease: &Lease, progress: &Progress, report: &RevokeReport) -> bool {
    report.absent && progress.not_before.is_some() && lease.state.handle().is_none()
}

/// The natural end of what its target cannot kill, once the broker did what can be done.
fn beyond_reach(lease: &Lease, progress: &Progress, report: &RevokeReport) -> Option<Timestamp> {
    let done = match lease.terms.grade {
        Grade::Exact => false,
        Grade::Coarse => report.reached >= Reached::Disabled || report.absent,
        Grade::None => true,
    };
    let LeaseState::Revoking { expires_at, .. } = &lease.state else { return None };
    (done && nothing_lands(progress, report) && report.error.is_none()).then_some(*expires_at)
}

fn tried(
    lease: &Lease,
    progress: &Progress,
    report: &RevokeReport,
    now: Timestamp,
    again: Option<Timestamp>,
) -> LeaseEvent {
    let waits_for_mint = report.absent && report.error.is_none();
    let error = report.error.clone().or_else(|| remains(report));
    let wait = match (&error, report.sessions) {
        (None, _) if waits_for_mint => REAPING,
        (None, Sessions::Reaping) => REAPING,
        (None, Sessions::Unknown | Sessions::None) | (Some(_), _) => {
            backoff::wait(FIRST, LONGEST_WAIT, progress.attempts, spread(lease))
        }
    };
    LeaseEvent::RevokeTried {
        reached: report.reached,
        sessions: report.sessions,
        error,
        next_try: again.unwrap_or(now + wait),
        handle: report.handle.clone(),
    }
}

/// By the lease's own id, so that what failed together is not tried again together.
fn spread(lease: &Lease) -> u64 {
    let id = lease.terms.id.suffix();
    id.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

fn remains(report: &RevokeReport) -> Option<String> {
    (!report.remains.is_empty())
        .then(|| format!("disabled, but it cannot be removed: {}", report.remains.join("; ")))
}
