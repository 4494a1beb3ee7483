//! `revocations`: acts of stopping, on record; their freezes, and lifting them.

use clap::{Args, Subcommand};
use leasehold_client::v1;
use serde_json::json;

use super::{
    console::Report,
    json,
    problem::{Exit, Problem},
    revoke::{Follow, follow},
    session::{LimitArgs, Session, more_line, pages},
    task::{OUTCOME_HEADING, outcome_row},
    view::{self, Word, stamp},
};

/// `revocations`.
#[derive(Debug, Subcommand)]
pub enum RevocationsCommand {
    /// List them, newest first.
    #[command(after_help = "Example: leasehold revocations list --frozen")]
    List(ListArgs),
    /// Show one, with the outcome of each lease.
    #[command(after_help = "Example: leasehold revocations show rev_06ds0q3f8g2k1n4p7r9t")]
    Show(OneArgs),
    /// Follow one until each lease is confirmed dead or named stuck. Ctrl-C ends only the watching.
    #[command(after_help = "Example: leasehold revocations watch rev_06ds...")]
    Watch(OneArgs),
    /// Lift its freeze, as an admin. What was revoked stays revoked.
    #[command(after_help = "Example: leasehold revocations lift rev_06ds... --reason 'INC-114 is closed'")]
    Lift(LiftArgs),
}

/// `revocations list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those whose freeze holds now.
    #[arg(long)]
    frozen: bool,
    /// Only those with leases not confirmed yet.
    #[arg(long)]
    pending: bool,
    #[command(flatten)]
    limit: LimitArgs,
}

/// One revocation.
#[derive(Debug, Args)]
pub struct OneArgs {
    /// Its id, `rev_...`.
    #[arg(value_name = "REVOCATION")]
    revocation: String,
}

/// `revocations lift`.
#[derive(Debug, Args)]
pub struct LiftArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Why, for the record.
    #[arg(long)]
    reason: String,
}

pub(crate) async fn run(command: RevocationsCommand, session: &mut Session) -> Result<Exit, Problem> {
    match command {
        RevocationsCommand::List(args) => list(args, session).await,
        RevocationsCommand::Show(args) => show(args, session).await,
        RevocationsCommand::Watch(args) => {
            let client = session.admin().await?;
            follow(&client, Follow::Id(args.revocation), session).await
        }
        RevocationsCommand::Lift(args) => lift(args, session).await,
    }
}

async fn list(args: ListArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let (found, more) = pages(args.limit, |page_size, page_token| {
        let request =
            v1::ListRevocationsRequest { page_size, page_token, frozen: args.frozen, pending: args.pending };
        let client = &client;
        async move {
            let ask = || async { client.revocations().list_revocations(request.clone()).await };
            let answer = client.persist(ask).await?;
            Ok((answer.revocations, answer.next_page_token))
        }
    })
    .await?;
    let rows: Vec<_> = found.iter().map(row).collect();
    let heading = ["REVOCATION", "AT", "WHAT", "FROZEN", "CONFIRMED", "BY", "REASON"];
    let table = view::table(&heading, &rows, "no revocations");
    let json = json!({"revocations": found.iter().map(json::revocation).collect::<Vec<_>>(), "more": more});
    session.console.report(&Report::new(table + more_line(more), json)).map(|()| Exit::DONE)
}

fn row(one: &v1::Revocation) -> Vec<String> {
    let counts = one.counts.unwrap_or_default();
    vec![
        one.id.clone(),
        stamp(one.at),
        view::selector(one.selector.as_ref()),
        if one.frozen { "yes".to_owned() } else { String::new() },
        format!("{} of {}", counts.confirmed, counts.total),
        one.by.clone(),
        one.reason.clone(),
    ]
}

async fn show(args: OneArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let request = v1::GetRevocationRequest { revocation: args.revocation };
    let ask = || async { client.revocations().get_revocation(request.clone()).await };
    let found = client.persist(ask).await?;
    session.console.report(&Report::new(describe(&found), json::revocation(&found))).map(|()| Exit::DONE)
}

async fn lift(args: LiftArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let request = v1::LiftRevocationRequest { revocation: args.one.revocation, reason: args.reason };
    let found = client.call(client.revocations().lift_revocation(request)).await?;
    session.console.report(&Report::new(describe(&found), json::revocation(&found))).map(|()| Exit::DONE)
}

fn describe(one: &v1::Revocation) -> String {
    let counts = one.counts.unwrap_or_default();
    let rows: Vec<_> = one.outcomes.iter().map(outcome_row).collect();
    let lifted = match one.lifted_by.is_empty() {
        true => String::new(),
        false => format!("by {} at {}", one.lifted_by, stamp(one.lifted_at)),
    };
    let fields = view::fields(&[
        ("revocation", one.id.clone()),
        ("what", view::selector(one.selector.as_ref())),
        ("cause", one.cause().word()),
        ("by", one.by.clone()),
        ("reason", one.reason.clone()),
        ("at", stamp(one.at)),
        ("frozen", if one.frozen { "yes, until lifted".to_owned() } else { "no".to_owned() }),
        ("lifted", lifted),
        ("tasks", one.tasks.join(" ")),
        (
            "leases",
            format!(
                "{} of {} confirmed, {} pending, {} stuck, {} residual",
                counts.confirmed, counts.total, counts.pending, counts.stuck, counts.residual
            ),
        ),
    ]);
    format!("{fields}\n{}", view::table(&OUTCOME_HEADING, &rows, "no leases"))
}
