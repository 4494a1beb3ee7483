//! Moving the end, and the negative: a target that cannot move it refuses.

use leasehold_law::lease::Grade;
use leasehold_law::time::Span;

use super::bench::about;
use super::{Bench, Outcome, ensure};
use crate::BackendError;

const SHORT: Span = Span::from_mins(5);
const LONG: Span = Span::from_mins(30);

/// The new end is there, as the target reads it back; without the capability nothing moves.
pub async fn a_renewal_moves_the_end(bench: &Bench<'_>) -> Outcome {
    let leased = bench.issue_for(SHORT).await?;
    let outcome = bench.backend.renew(&bench.renewal(&leased, LONG).await?).await;
    if !bench.backend.capabilities().renewal {
        ensure!(
            matches!(outcome, Err(BackendError::Refused { .. })),
            "it cannot renew, and yet: {outcome:?}"
        );
        return Ok(());
    }
    about(outcome?.ttl, LONG)?;
    match bench.backend.lookup(leased.principal()).await?.and_then(|found| found.remaining) {
        Some(remaining) => about(remaining, LONG),
        None => Ok(()),
    }
}

/// Past `renew_by` the end stays where it was.
pub async fn a_renewal_after_its_time_moves_nothing(bench: &Bench<'_>) -> Outcome {
    if !bench.backend.capabilities().renewal {
        return Ok(());
    }
    let leased = bench.issue_for(SHORT).await?;
    let past = bench.target_now().await? - Span::from_secs(1);
    let order = bench.renewal_by(leased.terms.clone(), leased.issued.handle.clone(), LONG, past)?;
    let outcome = bench.backend.renew(&order).await;
    ensure!(matches!(outcome, Err(BackendError::TooLate)), "not too late: {outcome:?}");
    let remaining = bench.backend.lookup(leased.principal()).await?.and_then(|found| found.remaining);
    ensure!(remaining.is_none_or(|span| span <= SHORT), "the end moved: {remaining:?}");
    Ok(())
}

/// What never was is absent.
pub async fn what_is_absent_is_not_renewed(bench: &Bench<'_>) -> Outcome {
    if !bench.backend.capabilities().renewal {
        return Ok(());
    }
    let renew_by = bench.target_now().await? + Span::from_secs(10);
    let order = bench.renewal_by(bench.terms()?, None, LONG, renew_by)?;
    let outcome = bench.backend.renew(&order).await;
    ensure!(matches!(outcome, Err(BackendError::Absent)), "not absent: {outcome:?}");
    ensure!(bench.backend.lookup(order.principal()).await?.is_none(), "a renewal minted");
    Ok(())
}

/// a renewal does not bring back what was revoked.
pub async fn what_is_revoked_is_not_renewed(bench: &Bench<'_>) -> Outcome {
    let capabilities = bench.backend.capabilities();
    if !capabilities.renewal || capabilities.grade == Grade::None {
        return Ok(());
    }
    let leased = bench.issue_for(SHORT).await?;
    bench.revoke(leased.revocation()).await?;
    let outcome = bench.backend.renew(&bench.renewal(&leased, LONG).await?).await;
    let refused = matches!(outcome, Err(BackendError::Absent | BackendError::Conflict(_)));
    ensure!(refused, "renewed after it was revoked: {outcome:?}");
    Ok(())
}

/// what is disabled stays as it is.
pub async fn what_is_disabled_is_not_renewed(bench: &Bench<'_>) -> Outcome {
    let leased = bench.issue_for(SHORT).await?;
    if !bench.backend.capabilities().renewal || !bench.harness.disable(leased.principal()).await {
        return Ok(());
    }
    let outcome = bench.backend.renew(&bench.renewal(&leased, LONG).await?).await;
    ensure!(matches!(outcome, Err(BackendError::Conflict(_))), "not a conflict: {outcome:?}");
    let found = bench.backend.lookup(leased.principal()).await?;
    let kept =
        found.as_ref().is_some_and(|found| found.disabled && found.remaining.is_none_or(|r| r <= SHORT));
    ensure!(kept, "it is not as it was: {found:?}");
    Ok(())
}
