//! `drill`: prove on each target that what is revoked there is dead.

use clap::{Args, Subcommand};
use leasehold_client::{Client, ClientError, v1};
use leasehold_law::words::count;
use serde_json::{Value, json};

use super::{
    console::{Console, Format, Report},
    json,
    problem::{Exit, Problem},
    session::{LimitArgs, Session, more_line, pages},
    targets,
    view::{self, Word, stamp, wire_length},
};

/// `drill`.
#[derive(Debug, Subcommand)]
pub enum DrillCommand {
    /// Mint, use, revoke and be refused, on each target that can be drilled; exit 1 if one has not passed.
    ///
    /// The broker leases a credential for itself, as the agent `leasehold/drill`: nobody else ever sees it. Exit 3 if
    /// the one target that was named is frozen or policy is against it.
    #[command(after_help = "Example: leasehold drill run --target orders-db")]
    Run(RunArgs),
    /// How the last drill of each target went, and when the next is due.
    #[command(after_help = "Example: leasehold drill list")]
    List(ListArgs),
}

/// `drill run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Only this target; all that can be drilled otherwise. May be given again.
    #[arg(long = "target", value_name = "TARGET")]
    targets: Vec<String>,
}

/// `drill list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    limit: LimitArgs,
}

/// How many targets are drilled where none is named.
const ALL: LimitArgs = LimitArgs { limit: 100_000 };

pub(crate) async fn run(command: DrillCommand, session: &mut Session) -> Result<Exit, Problem> {
    match command {
        DrillCommand::Run(args) => drill(args, session).await,
        DrillCommand::List(args) => list(args, session).await,
    }
}

async fn drill(args: RunArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    if let [only] = args.targets.as_slice() {
        return drill_one(&client, only, session).await;
    }
    let targets = if args.targets.is_empty() { drillable(&client).await? } else { args.targets };
    let mut passed = 0;
    for target in &targets {
        match drill_one(&client, target, session).await {
            Ok(exit) => passed += usize::from(exit == Exit::DONE),
            // One that cannot be drilled keeps no other from it.
            Err(problem) => session.console.problem(&problem),
        }
    }
    let all = targets.len();
    session.console.note(&format!("{passed} of {} passed", count(all, "drill")));
    Ok(if passed == all { Exit::DONE } else { Exit::FAILED })
}

async fn drillable(client: &Client) -> Result<Vec<String>, Problem> {
    let (targets, _) = listed(client, ALL).await?;
    let (drilled, others): (Vec<_>, Vec<_>) =
        targets.into_iter().partition(|target| !target.drill_intent.is_empty());
    if drilled.is_empty() {
        return Err(Problem::failed("there is no target to drill")
            .why(format!("none of {} has a grant to drill with", count(others.len(), "target")))
            .next("name one: [targets.NAME] drill = \"INTENT\""));
    }
    Ok(drilled.into_iter().map(|target| target.name).collect())
}

async fn listed(client: &Client, limit: LimitArgs) -> Result<(Vec<v1::Target>, bool), ClientError> {
    pages(limit, |page_size, page_token| {
        let request = v1::ListTargetsRequest { page_size, page_token };
        async move {
            let answer =
                client.persist(|| async { client.targets().list_targets(request.clone()).await }).await?;
            Ok((answer.targets, answer.next_page_token))
        }
    })
    .await
}

/// Not safe to repeat blindly: each call is a drill.
async fn drill_one(client: &Client, target: &str, session: &mut Session) -> Result<Exit, Problem> {
    let request = v1::DrillTargetRequest { target: target.to_owned() };
    let mut stream = client.call(client.targets().drill_target(request)).await?;
    let mut shown = 0;
    while let Some(told) = stream.message().await.map_err(ClientError::from)? {
        let drill = told.drill.unwrap_or_default();
        shown = show(&mut session.console, &drill, shown)?;
        match drill.state() {
            v1::DrillState::Passed => return Ok(Exit::DONE),
            v1::DrillState::Failed => return Ok(Exit::FAILED),
            v1::DrillState::Running | v1::DrillState::Unspecified => {}
        }
    }
    Err(Problem::failed(format!("the drill of `{target}` did not come to its end"))
        .why("the broker stopped in the middle; the lease is revoked when it is back")
        .next(format!("leasehold find drill={target}")))
}

/// Shows what is new: for people the steps since the last time, for programs the drill as it stands.
fn show(console: &mut Console, drill: &v1::Drill, shown: usize) -> Result<usize, Problem> {
    let text = match console.format {
        Format::Json => String::new(),
        Format::Text if shown == 0 && drill.steps.is_empty() && drill.state() != v1::DrillState::Failed => {
            format!("{}  {}@{}\n", drill.target, drill.intent, drill.target)
        }
        Format::Text => {
            let new = drill.steps.iter().skip(shown).map(step_line).collect::<String>();
            new + &end_line(drill)
        }
    };
    console.report(&Report::new(text, as_json(drill)))?;
    Ok(drill.steps.len())
}

fn step_line(taken: &v1::DrillStepTime) -> String {
    let what = match taken.step() {
        v1::DrillStep::Mint => "on record, and then in the target",
        v1::DrillStep::Use => "the target takes the credential",
        v1::DrillStep::Revoke => "disabled, cut, removed and read back",
        v1::DrillStep::Refuse => "the target refuses the credential",
        v1::DrillStep::Unspecified => "",
    };
    format!("  {:<7} {:>8}  {what}\n", taken.step().word(), wire_length(taken.took))
}

fn end_line(drill: &v1::Drill) -> String {
    match drill.state() {
        v1::DrillState::Passed => {
            format!("  passed            dead, and on record: leasehold audit trace {}\n", drill.task)
        }
        v1::DrillState::Failed => {
            let alive = if drill.alive { "A REVOKED CREDENTIAL IS ALIVE: " } else { "" };
            format!(
                "  FAILED to {}: {alive}{}\n  next: leasehold audit trace {}\n",
                drill.failed_step().word(),
                drill.why,
                drill.task
            )
        }
        v1::DrillState::Running | v1::DrillState::Unspecified => String::new(),
    }
}

/// A drill, for programs.
pub(crate) fn as_json(drill: &v1::Drill) -> Value {
    let millis = |taken: &v1::DrillStepTime| {
        let took = taken.took.unwrap_or_default();
        took.seconds * 1000 + i64::from(took.nanos) / 1_000_000
    };
    let steps: serde_json::Map<_, _> =
        drill.steps.iter().map(|taken| (taken.step().word(), json!(millis(taken)))).collect();
    json!({
        "at": json::time(drill.at), "target": drill.target, "intent": drill.intent, "by": drill.by,
        "task": drill.task, "lease": drill.lease, "state": json::word(drill.state()), "steps_ms": steps,
        "failed_step": json::word(drill.failed_step()), "why": drill.why, "alive": drill.alive,
    })
}

async fn list(args: ListArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let (targets, more) = listed(&client, args.limit).await?;
    let json = json!({"targets": targets.iter().map(targets::drill_json).collect::<Vec<_>>(), "more": more});
    session.console.report(&Report::new(table(&targets) + more_line(more), json)).map(|()| Exit::DONE)
}

fn table(targets: &[v1::Target]) -> String {
    let row = |one: &v1::Target| {
        let last = one.last_drill.clone().unwrap_or_default();
        let took = |step: v1::DrillStep| {
            let taken = last.steps.iter().find(|taken| taken.step() == step);
            taken.map(|taken| wire_length(taken.took)).unwrap_or_default()
        };
        let why = if one.not_drilled.is_empty() { last.why.clone() } else { one.not_drilled.clone() };
        vec![
            one.name.clone(),
            one.drill_intent.clone(),
            last.state().word(),
            stamp(last.at),
            took(v1::DrillStep::Mint),
            took(v1::DrillStep::Use),
            took(v1::DrillStep::Revoke),
            took(v1::DrillStep::Refuse),
            stamp(one.next_drill),
            why,
        ]
    };
    let rows: Vec<_> = targets.iter().map(row).collect();
    view::table(
        &["TARGET", "INTENT", "LAST", "AT", "MINT", "USE", "REVOKE", "REFUSE", "NEXT", "WHY"],
        &rows,
        "no targets",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::console::tests::captured;

    fn drill(steps: usize, failed: Option<v1::DrillStep>) -> v1::Drill {
        use v1::DrillStep::{Mint, Refuse, Revoke, Use};
        let taken = |(place, step): (usize, v1::DrillStep)| v1::DrillStepTime {
            step: step.into(),
            took: Some(prost_types::Duration {
                seconds: 0,
                nanos: 7_000_000 * (i32::try_from(place).unwrap() + 1),
            }),
        };
        let state = match (failed, steps) {
            (Some(_), _) => v1::DrillState::Failed,
            (None, 4) => v1::DrillState::Passed,
            (None, _) => v1::DrillState::Running,
        };
        v1::Drill {
            at: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            target: "orders-db".into(),
            intent: "orders.read".into(),
            task: "task_06jr1k4t0b0000000001".into(),
            lease: "lease_06jr1k4t0b0000000002".into(),
            steps: [Mint, Use, Revoke, Refuse].into_iter().enumerate().map(taken).take(steps).collect(),
            state: state.into(),
            failed_step: failed.unwrap_or_default().into(),
            why: failed.map(|_| "the credential still works".to_owned()).unwrap_or_default(),
            alive: failed == Some(Refuse),
            ..v1::Drill::default()
        }
    }

    fn shown(drills: &[v1::Drill], format: Format) -> String {
        let (mut console, out, _) = captured(format, "");
        drills.iter().fold(0, |shown, drill| show(&mut console, drill, shown).unwrap());
        out.text()
    }

    #[test]
    fn a_drill_is_told_step_by_step() {
        let passed: Vec<_> = (0..=4).map(|steps| drill(steps, None)).collect();
        let failed = [drill(0, None), drill(3, None), drill(3, Some(v1::DrillStep::Refuse))];
        insta::assert_snapshot!(shown(&passed, Format::Text) + &shown(&failed, Format::Text));
    }

    #[test]
    fn a_program_gets_a_line_for_each_step() {
        let text = shown(&[drill(0, None), drill(4, None)], Format::Json);
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!((text.lines().count(), &last["state"]), (2, &json!("passed")));
        assert_eq!(last["steps_ms"], json!({"mint": 7, "use": 14, "revoke": 21, "refuse": 28}));
    }

    #[test]
    fn the_last_drills_are_a_table() {
        let target = |name: &str, last: Option<v1::Drill>, not_drilled: &str| v1::Target {
            name: name.into(),
            drill_intent: "orders.read".into(),
            last_drill: last,
            next_drill: Some(prost_types::Timestamp { seconds: 1_800_021_600, nanos: 0 }),
            not_drilled: not_drilled.into(),
            ..v1::Target::default()
        };
        insta::assert_snapshot!(table(&[
            target("orders-db", Some(drill(4, None)), ""),
            target("stock-db", Some(drill(3, Some(v1::DrillStep::Refuse))), ""),
            target("new-db", None, "frozen by rev_1"),
        ]));
    }
}
