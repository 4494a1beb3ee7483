//! `targets`: how they are, and what they need.

use clap::{Args, Subcommand};
use leasehold_client::v1;
use serde_json::json;

use super::{
    console::Report,
    drill,
    grants::grade_words,
    json,
    problem::{Exit, Problem},
    session::{LimitArgs, Session, more_line, pages},
    view::{self, Word, stamp, wire_length},
};

/// `targets`.
#[derive(Debug, Subcommand)]
pub enum TargetsCommand {
    /// List the targets with what is known of them; dials none.
    #[command(after_help = "Example: leasehold targets list")]
    List(ListArgs),
    /// Dial a target and test clock, owner and each privilege; exit 1 if something stands in the way, with the statement
    /// that mends it.
    #[command(after_help = "Example: leasehold targets check orders-db")]
    Check(NameArgs),
    /// Print the least-privilege SQL for this server's version. Runs nothing; holds no password.
    #[command(after_help = "Example: leasehold targets setup orders-db | psql -h db1.internal orders")]
    Setup(NameArgs),
    /// Search a target for principals of this installation that no live lease explains, and revoke them.
    ///
    /// The broker does the same by itself, every 10m unless `[sweep] every` says otherwise. Exit 1 if nothing was touched though something was
    /// found: above the bound, or where somebody else has claimed the target.
    #[command(after_help = "Example: leasehold targets sweep orders-db --dry-run")]
    Sweep(SweepArgs),
}

/// `targets list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    limit: LimitArgs,
}

/// One target.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// Its name in the config.
    #[arg(value_name = "TARGET")]
    target: String,
}

/// `targets sweep`.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Its name in the config.
    #[arg(value_name = "TARGET")]
    target: String,
    /// Only say what would be revoked.
    #[arg(long)]
    dry_run: bool,
    /// Revoke up to N, after a sweep was halted; otherwise 10, or 5 % of what is ours where that is more.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    at_most: Option<u64>,
    /// Close up to N leases whose principal is gone, instead of 10 or 5 % of what is ours.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    missing_at_most: Option<u64>,
    /// Claim the target anew first: this is the right server, and no other store of this installation serves it.
    #[arg(long, conflicts_with = "dry_run")]
    claim: bool,
}

pub(crate) async fn run(command: TargetsCommand, session: &mut Session) -> Result<Exit, Problem> {
    match command {
        TargetsCommand::List(args) => list(args, session).await,
        TargetsCommand::Check(args) => check(args, session).await,
        TargetsCommand::Setup(args) => setup(args, session).await,
        TargetsCommand::Sweep(args) => sweep(args, session).await,
    }
}

async fn list(args: ListArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let (targets, more) = pages(args.limit, |page_size, page_token| {
        let request = v1::ListTargetsRequest { page_size, page_token };
        let client = &client;
        async move {
            let answer =
                client.persist(|| async { client.targets().list_targets(request.clone()).await }).await?;
            Ok((answer.targets, answer.next_page_token))
        }
    })
    .await?;
    let json = json!({"targets": targets.iter().map(json::target).collect::<Vec<_>>(), "more": more});
    session.console.report(&Report::new(table(&targets) + more_line(more), json)).map(|()| Exit::DONE)
}

/// The drills of a target, for programs.
pub(crate) fn drill_json(one: &v1::Target) -> serde_json::Value {
    json!({
        "target": one.name, "intent": one.drill_intent, "last": one.last_drill.as_ref().map(drill::as_json),
        "next": json::time(one.next_drill), "not_drilled": one.not_drilled,
    })
}

/// Targets, one a row.
pub(crate) fn table(targets: &[v1::Target]) -> String {
    let is_any_claimed = targets.iter().any(|one| !one.claimed_by.is_empty());
    let row = |one: &v1::Target| {
        let mut row = vec![
            one.name.clone(),
            one.backend.clone(),
            one.state().word(),
            one.live.to_string(),
            due_words(one),
            one.stuck.to_string(),
            grade_words(one.grade(), one.window),
            breaker_words(&one.breaker.unwrap_or_default()),
            one.owner.clone(),
        ];
        row.extend(is_any_claimed.then(|| one.claimed_by.clone()));
        row.push(one.last_error.clone());
        row
    };
    let rows: Vec<_> = targets.iter().map(row).collect();
    let mut heading =
        vec!["TARGET", "BACKEND", "STATE", "LIVE", "DUE", "STUCK", "REVOCABLE", "BREAKER", "OWNER"];
    heading.extend(is_any_claimed.then_some("CLAIMED BY"));
    heading.push("ERROR");
    view::table(&heading, &rows, "no targets")
}

/// What is due, and of that what goes before the rest.
fn due_words(one: &v1::Target) -> String {
    let lanes = [(one.due_security, "security"), (one.due_task_end, "task end"), (one.due_expiry, "expiry")];
    let lanes: Vec<_> =
        lanes.iter().filter(|(due, _)| *due > 0).map(|(due, lane)| format!("{due} {lane}")).collect();
    if lanes.is_empty() { one.due.to_string() } else { lanes.join(", ") }
}

fn breaker_words(breaker: &v1::Breaker) -> String {
    let since = stamp(breaker.since);
    match breaker.next_probe {
        Some(next) => format!("{} since {since}, next probe {}", breaker.state().word(), stamp(Some(next))),
        None if since.is_empty() => breaker.state().word(),
        None => format!("{} since {since}", breaker.state().word()),
    }
}

async fn check(args: NameArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let request = v1::CheckTargetRequest { target: args.target };
    let answer = client.persist(|| async { client.targets().check_target(request.clone()).await }).await?;
    session.console.report(&checked(&answer))?;
    let barred = answer.target.as_ref().is_some_and(|target| !target.barred.is_empty());
    Ok(if answer.problems.is_empty() && !barred { Exit::DONE } else { Exit::FAILED })
}

fn checked(answer: &v1::CheckTargetResponse) -> Report {
    let target = answer.target.clone().unwrap_or_default();
    let mut text = view::fields(&[
        ("target", target.name.clone()),
        ("state", target.state().word()),
        ("clock", wire_length(target.clock_offset)),
        ("last answer", stamp(target.last_answer_at)),
        ("last error", target.last_error.clone()),
        ("claimed by", claim(&target)),
        ("barred", target.barred.clone()),
        ("since the restore", target.reconciliation.as_ref().map(reconciled).unwrap_or_default()),
    ]);
    for problem in &answer.problems {
        text.push_str(&format!("problem: {}\n", problem.what));
        if !problem.fix.is_empty() {
            text.push_str(&format!("  fix: {}\n", problem.fix));
        }
    }
    answer.warnings.iter().for_each(|warning| text.push_str(&format!("warning: {warning}\n")));
    let problems: Vec<_> =
        answer.problems.iter().map(|one| json!({"what": one.what, "fix": one.fix})).collect();
    Report::new(
        text,
        json!({"target": json::target(&target), "problems": problems, "warnings": answer.warnings}),
    )
}

/// What became of a backup's leases.
fn reconciled(one: &v1::Reconciliation) -> String {
    format!(
        "{}, compared {}: {} stand, {} renewed, {} ended; minted since or unexplained: {}",
        if one.complete { "complete" } else { "NOT COMPLETE, nothing is minted" },
        stamp(one.at),
        one.kept,
        one.renewed,
        one.ended,
        one.since
    )
}

/// A claim of somebody else, and what it means.
fn claim(target: &v1::Target) -> String {
    match target.claimed_by.as_str() {
        "" => String::new(),
        other if !target.barred.is_empty() => format!("installation {other}"),
        other => format!("installation {other}: orphans are reported here, and not removed"),
    }
}

async fn setup(args: NameArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let request = v1::SetupTargetRequest { target: args.target };
    let answer = client.persist(|| async { client.targets().setup_target(request.clone()).await }).await?;
    session.console.report(&setup_report(&answer)).map(|()| Exit::DONE)
}

/// A script: what people should know, and how to undo it, are comments.
fn setup_report(answer: &v1::SetupTargetResponse) -> Report {
    let comment = |text: &str| text.lines().map(|line| format!("-- {line}\n")).collect::<String>();
    let mut text: String = answer.notes.iter().map(|note| comment(note)).collect();
    answer.statements.iter().for_each(|statement| text.push_str(&ended(statement)));
    if !answer.undo.is_empty() {
        text.push_str("-- to undo:\n");
        answer.undo.iter().for_each(|statement| text.push_str(&comment(&ended(statement))));
    }
    Report::new(text, json!({"statements": answer.statements, "notes": answer.notes, "undo": answer.undo}))
}

fn ended(statement: &str) -> String {
    let statement = statement.trim_end();
    if statement.ends_with(';') { format!("{statement}\n") } else { format!("{statement};\n") }
}

async fn sweep(args: SweepArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let request = v1::SweepTargetRequest {
        target: args.target,
        dry_run: args.dry_run,
        at_most: args.at_most.unwrap_or_default(),
        missing_at_most: args.missing_at_most.unwrap_or_default(),
        claim: args.claim,
    };
    let answer = client.persist(|| async { client.targets().sweep_target(request.clone()).await }).await?;
    let sweep = answer.sweep.unwrap_or_default();
    session.console.report(&sweep_report(&sweep))?;
    let left = match sweep.verdict() {
        v1::SweepVerdict::Halted | v1::SweepVerdict::ClaimGone => true,
        v1::SweepVerdict::NotOurs => sweep.found > 0,
        v1::SweepVerdict::Unspecified | v1::SweepVerdict::Swept | v1::SweepVerdict::DryRun => false,
    };
    Ok(if left { Exit::FAILED } else { Exit::DONE })
}

fn sweep_report(sweep: &v1::Sweep) -> Report {
    let mut text = view::fields(&[
        ("verdict", sweep.note.clone()),
        ("ours", sweep.ours.to_string()),
        ("strangers", sweep.strangers.to_string()),
        ("orphans", format!("{} (at most {} are revoked)", sweep.found, sweep.bound)),
        ("too young to say", sweep.young.to_string()),
        ("principals gone", format!("{} (at most {} are closed)", sweep.missing.len(), sweep.missing_bound)),
    ]);
    for one in &sweep.orphans {
        text.push_str(&format!("orphan: {} ({}): {}\n", one.principal, one.lease, one.why));
    }
    for lease in &sweep.missing {
        text.push_str(&format!("principal gone: {lease}\n"));
    }
    text.push_str(&sweep_next(sweep));
    Report::new(text, json::sweep(sweep))
}

/// What an operator does about a sweep that was halted.
fn sweep_next(sweep: &v1::Sweep) -> String {
    let missing = u64::try_from(sweep.missing.len()).unwrap_or(u64::MAX);
    let more = if sweep.more { "there is more than one sweep works on: the next goes on\n" } else { "" };
    match sweep.verdict() {
        v1::SweepVerdict::Halted if missing > sweep.missing_bound => format!(
            "next: see whether this is the right server; if it is, and they were removed by hand, leasehold targets sweep \
             NAME --missing-at-most {missing}\n"
        ),
        v1::SweepVerdict::Halted => {
            format!("next: if they are to go, leasehold targets sweep NAME --at-most {}\n", sweep.found)
        }
        v1::SweepVerdict::ClaimGone => {
            "next: see where its address leads; if this is the right server, leasehold targets sweep NAME --claim\n".to_owned()
        }
        v1::SweepVerdict::Unspecified
        | v1::SweepVerdict::Swept
        | v1::SweepVerdict::DryRun
        | v1::SweepVerdict::NotOurs => more.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_that_was_halted_says_what_to_do() {
        let orphan = v1::Orphan {
            principal: "lh06jr1k4t0b0000000000aaaaaaaaaa".into(),
            lease: "lease_06jr1k4t0b0000000000".into(),
            why: "no lease explains it".into(),
        };
        let sweep = v1::Sweep {
            verdict: v1::SweepVerdict::Halted.into(),
            note: "halted: it would have removed more than the bound".into(),
            ours: 40,
            strangers: 1,
            found: 12,
            orphans: vec![orphan],
            young: 2,
            missing: vec!["lease_06jr1k4t0b0000000001".into()],
            bound: 10,
            missing_bound: 10,
            ..v1::Sweep::default()
        };
        insta::assert_snapshot!(sweep_report(&sweep).text);
    }

    #[test]
    fn a_claim_of_another_installation_is_shown() {
        let free = v1::Target { name: "stock-db".into(), ..v1::Target::default() };
        let claimed =
            v1::Target { name: "orders-db".into(), claimed_by: "9fk2m1".into(), ..v1::Target::default() };
        let check =
            v1::CheckTargetResponse { target: Some(claimed.clone()), ..v1::CheckTargetResponse::default() };
        assert!(!table(std::slice::from_ref(&free)).contains("CLAIMED"), "a column for nobody");
        insta::assert_snapshot!(table(&[free, claimed]) + &checked(&check).text);
    }

    #[test]
    fn a_setup_is_a_script_that_can_be_piped() {
        let answer = v1::SetupTargetResponse {
            statements: vec!["CREATE ROLE leasehold LOGIN".into(), "GRANT a TO leasehold;".into()],
            notes: vec!["set a password\nyourself".into()],
            undo: vec!["DROP ROLE leasehold".into()],
        };
        insta::assert_snapshot!(setup_report(&answer).text);
    }
}
