//! Killing.

use leasehold_law::lease::{Grade, Reached, Sessions};
use leasehold_law::time::Span;

use super::bench::{PAUSE, TRIES, revocation_of};
use super::{Bench, Failure, Leased, Outcome, Session, ensure};
use crate::{Alive, Findable, RevokeOrder};

/// Exact: gone, and read back. Coarse: the next login is refused. None: nothing changed, and nothing is claimed.
pub async fn a_revoked_credential_is_as_dead_as_the_grade_says(bench: &Bench<'_>) -> Outcome {
    let leased = bench.issue().await?;
    match bench.backend.capabilities().grade {
        Grade::Exact => gone(bench, &leased).await,
        Grade::Coarse => disabled(bench, &leased).await,
        Grade::None => untouched(bench, &leased).await,
    }
}

async fn gone(bench: &Bench<'_>, leased: &Leased) -> Outcome {
    let report = bench.kill(leased.revocation()).await?;
    ensure!(report.error.is_none(), "dead with an error: {report:?}");
    ensure!(bench.backend.probe(&leased.issued).await? == Alive::Refused, "the credential works");
    ensure!(bench.backend.lookup(leased.principal()).await?.is_none(), "the principal is there");
    Ok(())
}

async fn disabled(bench: &Bench<'_>, leased: &Leased) -> Outcome {
    let report = bench.revoke(leased.revocation()).await?;
    ensure!(report.reached >= Reached::Disabled, "not disabled: {report:?}");
    ensure!(bench.backend.probe(&leased.issued).await? == Alive::Refused, "the credential works");
    Ok(())
}

async fn untouched(bench: &Bench<'_>, leased: &Leased) -> Outcome {
    let report = bench.revoke(leased.revocation()).await?;
    ensure!(report.reached == Reached::None, "grade none, and yet {report:?}");
    ensure!(report.sessions != Sessions::None, "sessions cannot be known to be gone: {report:?}");
    ensure!(bench.backend.probe(&leased.issued).await? == Alive::Alive, "grade none, and yet dead");
    Ok(())
}

/// A session that was open is cut by an exact target, and never called gone by another while it goes on.
pub async fn an_open_session_is_cut(bench: &Bench<'_>) -> Outcome {
    let leased = bench.issue().await?;
    let session = open(bench, &leased).await?;
    if bench.backend.capabilities().grade == Grade::Exact {
        bench.kill(leased.revocation()).await?;
        ensure!(!session.works().await, "the session goes on");
        return Ok(());
    }
    let report = bench.revoke(leased.revocation()).await?;
    let honest = report.sessions != Sessions::None || !session.works().await;
    ensure!(honest, "a session goes on that is said to be gone: {report:?}");
    Ok(())
}

/// A second revocation finds nothing, and that is no error.
pub async fn revoking_twice_is_no_error(bench: &Bench<'_>) -> Outcome {
    if bench.backend.capabilities().grade != Grade::Exact {
        return Ok(());
    }
    let leased = bench.issue().await?;
    bench.kill(leased.revocation()).await?;
    let report = bench.kill(leased.revocation()).await?;
    ensure!(report.absent && report.error.is_none(), "the second one: {report:?}");
    Ok(())
}

/// Law 7: absence is told with the target's time, so that the broker can tell whether it proves anything.
pub async fn revoking_what_is_not_there_gives_the_target_s_time(bench: &Bench<'_>) -> Outcome {
    let terms = bench.terms()?;
    let before = bench.target_now().await?;
    let report = bench.revoke(revocation_of(&terms)).await?;
    let after = bench.target_now().await?;
    let findable = bench.backend.capabilities().findable != Findable::No;
    ensure!(
        report.absent == findable && report.error.is_none(),
        "findable is {findable}, and yet: {report:?}"
    );
    let fresh = report.target_now.is_some_and(|now| before <= now && now <= after);
    ensure!(fresh, "the target's time is not between {before} and {after}: {report:?}");
    Ok(())
}

/// One report an order, in their order; what is absent, has an unreadable handle or a broken recipe stops no other.
pub async fn reports_keep_their_order_and_one_bad_order_stops_no_other(bench: &Bench<'_>) -> Outcome {
    let (first, broken, last) = (bench.issue().await?, bench.issue().await?, bench.issue().await?);
    let terms = bench.terms()?;
    let absent = RevokeOrder { handle: Some("no handle".to_owned()), ..revocation_of(&terms) };
    let stripped = RevokeOrder { handle: None, recipe: Default::default(), ..broken.revocation() };
    let orders = [first.revocation(), absent, stripped, last.revocation()];
    let reports = bench.backend.revoke(&orders).await;
    let [one, two, three, four] = reports.as_slice() else {
        return Err(Failure::new(format!("{} reports for 4 orders", reports.len())));
    };
    ensure!(!one.absent && !three.absent && !four.absent, "reports out of order: {reports:?}");
    let findable = bench.backend.capabilities().findable != Findable::No;
    ensure!(two.absent || two.error.is_some() || !findable, "reports out of order: {two:?}");
    if bench.backend.capabilities().grade != Grade::None {
        for leased in [&first, &broken, &last] {
            let alive = bench.backend.probe(&leased.issued).await?;
            ensure!(alive == Alive::Refused, "{} works: {reports:?}", leased.principal());
        }
    }
    Ok(())
}

/// Two principals side by side: killing one leaves the other, and its session, alone.
pub async fn a_revoked_name_is_found_by_nobody_else(bench: &Bench<'_>) -> Outcome {
    let (victim, other) = (bench.issue().await?, bench.issue().await?);
    let session = open(bench, &other).await?;
    bench.revoke(victim.revocation()).await?;
    ensure!(session.works().await, "the other's session was cut");
    ensure!(bench.backend.probe(&other.issued).await? == Alive::Alive, "the other is dead");
    Ok(())
}

/// a login that passed the check before the revocation ends up dead, whenever it arrives.
pub async fn a_session_that_was_just_logging_in_is_reaped(bench: &Bench<'_>) -> Outcome {
    if bench.backend.capabilities().grade != Grade::Exact {
        return Ok(());
    }
    let leased = bench.issue().await?;
    let Some(late) = bench.harness.late_login(&leased.issued.credential).await else { return Ok(()) };
    let report = bench.kill(leased.revocation()).await?;
    let Some(session) = late.arrive().await else { return Ok(()) };
    let handles: Vec<_> = leased.issued.handle.or(report.handle).into_iter().collect();
    for _ in 0..TRIES {
        let mut late = bench.backend.late_sessions().await?;
        late.retain(|handle| handles.contains(handle));
        bench.backend.reap(&late).await?;
        if !session.works().await {
            return Ok(());
        }
        bench.harness.pass(PAUSE).await;
    }
    Err(Failure::new("a session outlived its principal"))
}

/// what an agent made is gone, or belongs to somebody without power.
pub async fn what_an_agent_made_falls_into_no_powerful_hands(bench: &Bench<'_>) -> Outcome {
    let leased = bench.issue().await?;
    let Some(estate) = bench.harness.own_something(&leased.issued.credential).await else { return Ok(()) };
    bench.kill(leased.revocation()).await?;
    ensure!(bench.backend.probe(&leased.issued).await? == Alive::Refused, "the credential works");
    estate.is_powerless().await
}

/// The reaper ends nothing of a principal that is alive, even under a handle that is no handle.
pub async fn reaping_leaves_strangers_alone(bench: &Bench<'_>) -> Outcome {
    let leased = bench.issue().await?;
    let session = open(bench, &leased).await?;
    let late = bench.backend.late_sessions().await?;
    ensure!(!late.iter().any(|handle| Some(handle) == leased.issued.handle.as_ref()), "it lives: {late:?}");
    bench.backend.reap(&[]).await?;
    if bench.backend.reap(&["no handle".to_owned()]).await.is_ok_and(|reaped| !reaped.is_empty()) {
        return Err(Failure::new("something was reaped under no handle"));
    }
    bench.harness.pass(Span(1)).await;
    ensure!(session.works().await, "a living session was reaped");
    Ok(())
}

async fn open(bench: &Bench<'_>, leased: &Leased) -> Result<Box<dyn Session>, Failure> {
    let session = bench.harness.connect(&leased.issued.credential).await?;
    session.ok_or_else(|| Failure::new("the agent cannot log in"))
}
