//! Minting.

use leasehold_law::time::Span;

use super::bench::revocation_of;
use super::{Bench, Failure, Outcome, ensure};
use crate::{Alive, BackendError, Findable};

/// What was minted logs in.
pub async fn an_issued_credential_works(bench: &Bench<'_>) -> Outcome {
    let leased = bench.issue().await?;
    ensure!(bench.backend.probe(&leased.issued).await? == Alive::Alive, "the credential is refused");
    let session = bench.harness.connect(&leased.issued.credential).await?;
    let session = session.ok_or_else(|| Failure::new("the agent cannot log in"))?;
    ensure!(session.works().await, "the agent's session does not work");
    Ok(())
}

/// An existing name is a conflict; the one that has it lives on with its own secret.
pub async fn a_taken_name_is_a_conflict_and_leaves_the_first_alone(bench: &Bench<'_>) -> Outcome {
    let first = bench.issue().await?;
    let mint_by = bench.target_now().await? + Span::from_secs(10);
    let again = bench.order_of(first.terms.clone(), Span::from_mins(5), mint_by)?;
    let outcome = bench.backend.issue(&again).await;
    ensure!(matches!(outcome, Err(BackendError::Conflict(_))), "not a conflict: {outcome:?}");
    ensure!(bench.backend.probe(&first.issued).await? == Alive::Alive, "the first is dead");
    Ok(())
}

/// past `mint_by` nothing lands.
pub async fn a_mint_after_its_time_lands_nothing(bench: &Bench<'_>) -> Outcome {
    let past = bench.target_now().await? - Span::from_secs(1);
    let order = bench.order_by(Span::from_mins(5), past)?;
    let outcome = bench.backend.issue(&order).await;
    ensure!(matches!(outcome, Err(BackendError::TooLate)), "not too late: {outcome:?}");
    ensure!(bench.backend.lookup(order.principal()).await?.is_none(), "it landed nevertheless");
    Ok(())
}

/// once the target has been read back after `mint_by`, no mint that was under way lands any more.
pub async fn a_late_mint_cannot_land_after_its_revocation(bench: &Bench<'_>) -> Outcome {
    let mint_by = bench.target_now().await? + Span::from_secs(2);
    let order = bench.order_by(Span::from_mins(5), mint_by)?;
    let terms = order.terms().clone();
    let Some(late) = bench.harness.late_mint(order).await else { return Ok(()) };
    bench.harness.pass(Span::from_secs(3)).await;
    let report = bench.revoke(revocation_of(&terms)).await?;
    let findable = bench.backend.capabilities().findable != Findable::No;
    ensure!(report.absent == findable, "the mint was not held up: {report:?}");
    ensure!(report.target_now.is_some_and(|now| now > mint_by), "no time that proves it: {report:?}");
    let outcome = late.arrive().await;
    ensure!(outcome.is_err(), "the late mint says that it landed");
    ensure!(bench.backend.lookup(&terms.principal).await?.is_none(), "the late mint landed");
    Ok(())
}

/// A target that enforces the end refuses logins after it, whether or not a broker lives; one that does not, does
/// not claim to.
pub async fn the_target_enforces_the_end_where_it_says_so(bench: &Bench<'_>) -> Outcome {
    let leased = bench.issue_for(Span::from_secs(2)).await?;
    bench.harness.pass(Span::from_secs(4)).await;
    let enforced = bench.backend.capabilities().enforces_expiry;
    let expect = if enforced { Alive::Refused } else { Alive::Alive };
    let found = bench.backend.probe(&leased.issued).await?;
    ensure!(found == expect, "enforces_expiry is {enforced}, and after the end the credential is {found:?}");
    Ok(())
}

/// What is wrong with a recipe is told where it is wrong; what is right has no problems.
pub async fn a_bad_recipe_is_told_by_pointer(bench: &Bench<'_>) -> Outcome {
    let problems = bench.backend.check_recipe(&bench.harness.recipe());
    ensure!(problems.is_empty(), "the good recipe has problems: {problems:?}");
    for (recipe, pointer) in bench.harness.bad_recipes() {
        let problems = bench.backend.check_recipe(&recipe);
        let told = problems.iter().any(|problem| problem.pointer == pointer && !problem.what.is_empty());
        ensure!(told, "no problem at `{pointer}`: {problems:?}");
    }
    Ok(())
}

/// Law 3: the secret is in the secret part, and nowhere else.
pub async fn no_secret_shows_in_debug_or_in_what_is_public(bench: &Bench<'_>) -> Outcome {
    let leased = bench.issue().await?;
    let credential = &leased.issued.credential;
    let shown = format!("{:?} {:?} {:?}", leased, credential, credential.public);
    ensure!(!credential.secret.is_empty(), "a credential without a secret");
    for (name, secret) in &credential.secret {
        let text = String::from_utf8_lossy(secret.expose());
        ensure!(text.len() >= 16, "`{name}` can be guessed");
        ensure!(!shown.contains(&*text), "`{name}` shows");
    }
    Ok(())
}
