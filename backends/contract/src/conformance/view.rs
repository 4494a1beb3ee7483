//! What a target shows.

use leasehold_law::lease::Grade;
use leasehold_law::time::Span;

use super::bench::{TTL, about};
use super::{Bench, Failure, Outcome, ensure};
use crate::{BackendError, Claim, Findable};

/// The widest that a healthy target's clock may be from the harness's, in milliseconds.
const CLOCK_TOLERANCE: u64 = 5000;
/// Most pages that a listing may take.
const MAX_PAGES: usize = 10_000;

/// By its name: the handle, what is left of its life, and who is logged in.
pub async fn lookup_tells_the_end_and_the_sessions(bench: &Bench<'_>) -> Outcome {
    let leased = bench.issue().await?;
    let session = bench.harness.connect(&leased.issued.credential).await?;
    let found = bench.backend.lookup(leased.principal()).await?;
    let capabilities = bench.backend.capabilities();
    let Some(found) = found else {
        ensure!(capabilities.findable == Findable::No, "it was minted and cannot be found");
        return Ok(());
    };
    ensure!(found.handle == leased.issued.handle, "another handle than at the mint: {found:?}");
    ensure!(!found.disabled, "it is disabled: {found:?}");
    ensure!(found.remaining.is_some() || !capabilities.enforces_expiry, "no end: {found:?}");
    ensure!(capabilities.grade != Grade::Exact || found.sessions == 1, "not one session: {found:?}");
    ensure!(session.is_some(), "the agent cannot log in");
    found.remaining.map_or(Ok(()), |remaining| about(remaining, TTL))
}

/// Pages follow each other in order, and nothing is lost between them.
pub async fn principals_are_listed_in_order_and_by_pages(bench: &Bench<'_>) -> Outcome {
    if !bench.backend.capabilities().lists {
        ensure!(bench.backend.list_principals("lh", None, 10).await.is_err(), "it lists and says it cannot");
        return Ok(());
    }
    let minted = [bench.issue().await?, bench.issue().await?, bench.issue().await?];
    let names = all_names(bench, "lh", 2).await?;
    ensure!(names.windows(2).all(|pair| matches!(pair, [a, b] if a < b)), "not in order: {names:?}");
    for leased in &minted {
        let there = names.iter().any(|name| name == leased.principal().as_str());
        ensure!(there, "{} is not listed: {names:?}", leased.principal());
    }
    Ok(())
}

async fn all_names(bench: &Bench<'_>, prefix: &str, limit: usize) -> Result<Vec<String>, Failure> {
    let mut names: Vec<String> = Vec::new();
    for _ in 0..MAX_PAGES {
        let page = bench.backend.list_principals(prefix, names.last().map(String::as_str), limit).await?;
        ensure!(page.principals.len() <= limit, "{} on a page of {limit}", page.principals.len());
        ensure!(!(page.more && page.principals.is_empty()), "an empty page that promises more");
        names.extend(page.principals.into_iter().map(|principal| principal.name));
        if !page.more {
            return Ok(names);
        }
    }
    Err(Failure::new("the listing never ends"))
}

/// `_` and `%` stand for themselves.
pub async fn a_prefix_is_taken_literally(bench: &Bench<'_>) -> Outcome {
    if !bench.backend.capabilities().lists {
        return Ok(());
    }
    let leased = bench.issue().await?;
    let name = leased.principal().as_str();
    let tail = name.get(2..).unwrap_or_default();
    for (prefix, expect) in [
        (name.to_owned(), 1),
        (tail.to_owned(), 0),
        (format!("l_{tail}"), 0),
        (format!("%{tail}"), 0),
        (format!("l%{tail}"), 0),
        (format!("{name}%"), 0),
        (format!("{name}_"), 0),
        (format!("{name}\\"), 0),
        (format!("{name}'"), 0),
        (name.to_uppercase(), 0),
    ] {
        let found = all_names(bench, &prefix, 10).await?;
        ensure!(found.len() == expect, "`{prefix}` finds {found:?}");
    }
    Ok(())
}

/// whose a target is can be told, and an installation sees that another has it now.
pub async fn a_claim_reads_back_and_so_does_another_s(bench: &Bench<'_>) -> Outcome {
    let ours = Claim { installation: "conformance-one".to_owned(), incarnation: 1, term: 1 << 40 };
    let theirs = Claim { installation: "it's \"another\" $$ \\ one".to_owned(), incarnation: 7, term: 0 };
    let mut stands = bench.backend.owner().await?;
    for claim in [ours.clone(), theirs.clone()] {
        bench.backend.claim(&claim, stands.as_ref()).await?;
        stands = bench.backend.owner().await?;
        ensure!(stands.as_ref() == Some(&claim), "{claim:?} reads back as {stands:?}");
    }
    for read in [None, Some(&ours)] {
        let claimed = bench.backend.claim(&ours, read).await;
        ensure!(matches!(claimed, Err(BackendError::Conflict(_))), "over another: {claimed:?}");
    }
    ensure!(
        bench.backend.owner().await? == Some(theirs),
        "another claim stands than the one that was there first"
    );
    Ok(())
}

/// The target's clock is near, and the broker lacks nothing for what this suite mints.
pub async fn health_tells_the_time_and_lacks_nothing(bench: &Bench<'_>) -> Outcome {
    let recipe = bench.harness.recipe();
    let health = bench.backend.health(&[bench.grant(&recipe)]).await?;
    let now = bench.harness.entropy().now();
    let apart = health.target_now.0.abs_diff(now.0);
    ensure!(apart <= CLOCK_TOLERANCE, "the clocks are {} apart", Span(apart));
    ensure!(!health.version.is_empty(), "no version");
    ensure!(health.missing_privileges.is_empty(), "it lacks {:?}", health.missing_privileges);
    bench.backend.setup(&[bench.grant(&recipe)]).await?;
    Ok(())
}

/// Capabilities are a value, and fit together.
pub async fn capabilities_do_not_change(bench: &Bench<'_>) -> Outcome {
    let before = bench.backend.capabilities();
    bench.issue().await?;
    ensure!(before == bench.backend.capabilities(), "they changed");
    let exact = before.grade == Grade::Exact;
    ensure!(!exact || before.window == Span::ZERO, "exact, and a window of {}", before.window);
    ensure!(!exact || before.findable != Findable::No, "exact, and cannot read back");
    Ok(())
}
