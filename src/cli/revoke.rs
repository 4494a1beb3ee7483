//! `revoke`: show the blast radius, ask, stop, and follow until it is confirmed.

mod follow;

use std::time::Duration;

use clap::Args;
use leasehold_client::{Client, v1, wire_duration};
use leasehold_law::words::count;

pub(crate) use follow::{Follow, follow};
use v1::selector::Kind;

use super::{
    console::Report,
    json, parse,
    problem::{Exit, Problem},
    session::Session,
    task::{OUTCOME_HEADING, outcome_row},
    view,
};

/// How long the broker streams progress before the client watches on.
const STREAM: Duration = Duration::from_secs(30);

/// `revoke`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: leasehold revoke --agent spiffe://prod.example/agent/triage --reason INC-114
         leasehold revoke --target orders-db --dry-run --reason 'is it safe to stop?'
         leasehold revoke --ref run=123 --reason 'the run was hijacked'
         leasehold revoke --person ana --reason 'left the company'
         leasehold revoke --all --reason 'kill switch: INC-114'"
)]
pub struct RevokeArgs {
    #[command(flatten)]
    selector: SelectorArgs,
    /// Why, for the record and for those who are stopped.
    #[arg(long)]
    reason: String,
    /// Only show what would be stopped.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask. Needed where there is no terminal: without it nothing is stopped there, and the exit code is 2.
    #[arg(long)]
    yes: bool,
    /// Refuse new leases for it until lifted (`revocations lift`). By itself for an agent and wider, not for a lease or a
    /// task.
    #[arg(long, conflicts_with = "no_freeze")]
    freeze: bool,
    /// Let what was stopped ask for new leases at once.
    #[arg(long)]
    no_freeze: bool,
}

/// What to stop.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct SelectorArgs {
    /// One lease.
    #[arg(long, value_name = "LEASE")]
    lease: Option<String>,
    /// The leases of one task, which stays open.
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// All leases of one agent, by its name as `agents list` prints it: a SPIFFE ID, or that of a job
    /// (`ci:...`), a pod (`kube:...`) or an agent in a person's session (`personal:...`).
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// All agents that answer to a person or a group of the config.
    #[arg(long, value_name = "person:NAME|group:NAME")]
    owner: Option<String>,
    /// All tasks that act for a person, which end. By the name in the config, or as their issuer names them.
    #[arg(long, value_name = "NAME|oidc:ISSUER|SUBJECT")]
    person: Option<String>,
    /// Everything on one target.
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Everything for one intent, on whatever target.
    #[arg(long, value_name = "INTENT")]
    intent: Option<String>,
    /// All tasks that carry a label, as `--ref` of exec and task open puts it there.
    #[arg(long = "ref", value_name = "KEY=VALUE", value_parser = parse::key_value)]
    reference: Option<(String, String)>,
    /// Everything: the kill switch. Nothing is issued to anybody until it is lifted.
    #[arg(long)]
    all: bool,
}

impl SelectorArgs {
    fn into_wire(self) -> v1::Selector {
        let named = [
            self.lease.map(Kind::Lease),
            self.task.map(Kind::Task),
            self.agent.map(Kind::Agent),
            self.owner.map(Kind::Owner),
            self.person.map(Kind::Person),
            self.target.map(Kind::Target),
            self.intent.map(Kind::Intent),
            self.reference.map(|(key, value)| Kind::Ref(v1::Ref { key, value })),
            self.all.then_some(Kind::All(v1::All {})),
        ];
        v1::Selector { kind: named.into_iter().flatten().next() }
    }
}

pub(crate) async fn run(args: RevokeArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let freeze = if args.freeze { Some(true) } else { args.no_freeze.then_some(false) };
    let request = v1::RevokeRequest {
        selector: Some(args.selector.into_wire()),
        freeze,
        dry_run: true,
        reason: args.reason,
        wait: None,
    };
    let radius = dry_run(&client, request.clone()).await?;
    if let Some(unknown) = radius.unknown_agent.as_ref().filter(|_| freeze != Some(true)) {
        return Err(nobody(&radius, unknown));
    }
    match agreed(session, &radius, args.dry_run, args.yes)? {
        Go::Stop => stop(&client, request, session).await,
        Go::Leave(exit) => Ok(exit),
    }
}

async fn dry_run(client: &Client, request: v1::RevokeRequest) -> Result<v1::Revocation, Problem> {
    let mut stream = client.call(client.revocations().revoke(request)).await?;
    let first = stream.message().await.map_err(leasehold_client::ClientError::from)?;
    let empty = || Problem::failed("the broker's answer holds no revocation");
    first.and_then(|progress| progress.revocation).ok_or_else(empty)
}

/// What a slip of the finger names is not stopped: whoever means it says so.
fn nobody(radius: &v1::Revocation, unknown: &v1::UnknownAgent) -> Problem {
    let registered = match unknown.nearest.as_slice() {
        [] => "no agent is registered by name".to_owned(),
        near => format!("registered names like it: {}", near.join(", ")),
    };
    Problem::failed(format!("no lease matches: nobody knows {}", view::selector(radius.selector.as_ref())))
        .why(format!("it is not registered, and no task of it is kept; {registered}"))
        .next("to freeze the name before it comes: --freeze")
}

/// Whether to stop anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Go {
    Stop,
    Leave(Exit),
}

/// Shows the blast radius and asks, as far as that is needed.
fn agreed(session: &mut Session, radius: &v1::Revocation, dry_run: bool, yes: bool) -> Result<Go, Problem> {
    let report = Report::new(radius_text(radius), json::revocation(radius));
    let console = &mut session.console;
    if dry_run {
        return console.report(&report).map(|()| Go::Leave(Exit::DONE));
    }
    if yes {
        return Ok(Go::Stop);
    }
    if !console.asks {
        console.report(&report)?;
        console.note("nothing was stopped: this was a dry run, since nobody can be asked here; --yes stops");
        return Ok(Go::Leave(Exit::USAGE));
    }
    console.note(report.text.trim_end());
    if console.confirm("stop all of this?") {
        return Ok(Go::Stop);
    }
    console.note("nothing was stopped");
    Ok(Go::Leave(Exit::FAILED))
}

fn radius_text(radius: &v1::Revocation) -> String {
    let rows: Vec<_> = radius.outcomes.iter().map(outcome_row).collect();
    let table = view::table(&OUTCOME_HEADING, &rows, "no lease is alive");
    let freeze = if radius.frozen { "; nothing new until the freeze is lifted" } else { "" };
    let total = radius.counts.map_or(radius.outcomes.len(), |counts| counts.total as usize);
    let unnamed = match total.saturating_sub(radius.outcomes.len()) {
        0 => String::new(),
        more => format!("and {more} more\n"),
    };
    let tasks = if unnamed.is_empty() {
        count(radius.tasks.len(), "task")
    } else {
        format!("more than {}", count(radius.tasks.len(), "task"))
    };
    format!(
        "revoking {} would end {} of {tasks}{freeze}\n{table}{unnamed}",
        view::selector(radius.selector.as_ref()),
        count(total, "lease"),
    )
}

async fn stop(client: &Client, request: v1::RevokeRequest, session: &mut Session) -> Result<Exit, Problem> {
    let request = v1::RevokeRequest { dry_run: false, wait: wire_duration(STREAM), ..request };
    // Not safe to repeat blindly: each call is an act on record. The watch line is the way back.
    let stream = client.call(client.revocations().revoke(request)).await?;
    follow(client, Follow::Stream(Box::new(stream)), session).await
}

#[cfg(test)]
mod tests {
    use leasehold_client::Options;

    use super::*;
    use crate::cli::console::{Format, tests::captured};

    fn radius() -> v1::Revocation {
        let outcome = |lease: &str| v1::LeaseOutcome {
            lease: lease.into(),
            intent: "orders.read".into(),
            target: "orders-db".into(),
            principal: "lh9fk2".into(),
            state: v1::LeaseState::Active.into(),
            ..v1::LeaseOutcome::default()
        };
        v1::Revocation {
            selector: Some(v1::Selector {
                kind: Some(Kind::Agent("spiffe://prod.example/agent/triage".into())),
            }),
            frozen: true,
            tasks: vec!["task_1".into()],
            outcomes: vec![outcome("lease_1"), outcome("lease_2")],
            ..v1::Revocation::default()
        }
    }

    fn check(asks: bool, answer: &'static str, dry_run: bool, yes: bool, expect: Go) -> String {
        let (mut console, out, _) = captured(Format::Text, answer);
        console.asks = asks;
        let mut session = Session::new(console, Options::default());
        assert_eq!(agreed(&mut session, &radius(), dry_run, yes).unwrap(), expect);
        out.text()
    }

    #[test]
    fn nothing_stops_without_a_yes() {
        check(true, "y\n", false, false, Go::Stop);
        check(true, "n\n", false, false, Go::Leave(Exit::FAILED));
        check(true, "", false, false, Go::Leave(Exit::FAILED));
        check(false, "y\n", false, false, Go::Leave(Exit::USAGE));
        check(false, "", false, true, Go::Stop);
        check(true, "y\n", true, true, Go::Leave(Exit::DONE));
    }

    #[test]
    fn an_agent_that_nobody_knows_is_told_with_those_that_are_like_it() {
        let nearest = vec!["spiffe://prod.example/agent/triage2".to_owned()];
        let told = nobody(&radius(), &v1::UnknownAgent { nearest });
        insta::assert_snapshot!(told.text(std::time::SystemTime::UNIX_EPOCH) + &told.exit.0.to_string());
    }

    #[test]
    fn the_blast_radius_is_shown() {
        insta::assert_snapshot!(check(false, "", false, false, Go::Leave(Exit::USAGE)));
    }
}
