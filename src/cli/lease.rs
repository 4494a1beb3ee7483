//! `lease`: ask for, read, prolong and give back one credential.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use leasehold_client::{Client, Credential, Pair, request_id, v1, wire_duration};
use serde_json::json;

use super::{
    console::{Format, Report},
    deliver::{DeliverArgs, Sink, render},
    grants::grade_words,
    json, parse,
    problem::{Exit, Problem},
    propose::AskArgs,
    session::{DoorArgs, LimitArgs, Session, for_operators, more_line, pages},
    task::{WaitArgs, ended, join},
    view::{self, Word, stamp},
};

/// `lease`.
#[derive(Debug, Subcommand)]
pub enum LeaseCommand {
    /// Mint a credential for a task. `exec` is the better way: it also renews and ends it.
    #[command(
        after_help = "Example: leasehold lease request orders.read@orders-db --task task_06ds... --as pgpass \\\n             \
                      --to file:/run/user/1000/pgpass"
    )]
    Request(RequestArgs),
    /// Show a lease.
    #[command(after_help = "Example: leasehold lease show lease_06ds0q3f8g2k1n4p7r9t")]
    Show(OneArgs),
    /// List leases, newest first.
    #[command(after_help = "Example: leasehold lease list --live --target orders-db")]
    List(ListArgs),
    /// Prolong a lease from now on, up to the end of its life, which holds all renewals together.
    #[command(after_help = "Example: leasehold lease renew lease_06ds... --ttl 10m")]
    Renew(RenewArgs),
    /// Give a lease back, as its agent: it is revoked. An operator uses `revoke --lease`.
    #[command(after_help = "Example: leasehold lease release lease_06ds...")]
    Release(ReleaseArgs),
    /// List leases that are being revoked and have failed at least once; exit 1 if there are any.
    #[command(after_help = "Example: leasehold lease stuck")]
    Stuck(StuckArgs),
}

/// `lease request`.
#[derive(Debug, Args)]
pub struct RequestArgs {
    /// What, and where.
    #[arg(value_name = "INTENT@TARGET", value_parser = parse::pair)]
    pair: Pair,
    /// The task that it hangs on, `task_...`.
    #[arg(long, value_name = "TASK", env = "LEASEHOLD_TASK")]
    task: String,
    #[command(flatten)]
    ask: AskArgs,
    #[command(flatten)]
    deliver: DeliverArgs,
}

/// `lease show`.
#[derive(Debug, Args)]
pub struct OneArgs {
    /// Its id, `lease_...`.
    #[arg(value_name = "LEASE")]
    lease: String,
    #[command(flatten)]
    door: DoorArgs,
}

/// `lease list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only what may still exist in its target.
    #[arg(long)]
    live: bool,
    /// Only what may have existed in its target at this time, as 2026-01-31T02:13:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse::moment)]
    at: Option<prost_types::Timestamp>,
    /// Only what was asked for within this time until now, as 2h.
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    since: Option<Duration>,
    /// Only on this target.
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Only for this intent.
    #[arg(long, value_name = "INTENT")]
    intent: Option<String>,
    /// Only of this task.
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// Only this agent's, by its name as `agents list` prints it.
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    door: DoorArgs,
}

/// `lease renew`.
#[derive(Debug, Args)]
pub struct RenewArgs {
    /// Its id, `lease_...`.
    #[arg(value_name = "LEASE")]
    lease: String,
    /// The lifetime from now on, as 10m, at most 1d; the grant's default otherwise.
    #[arg(long, value_name = "DURATION", value_parser = parse::ttl)]
    ttl: Option<Duration>,
    #[command(flatten)]
    deliver: DeliverArgs,
}

/// `lease release`.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// Its id, `lease_...`.
    #[arg(value_name = "LEASE")]
    lease: String,
    #[command(flatten)]
    wait: WaitArgs,
}

/// `lease stuck`.
#[derive(Debug, Args)]
pub struct StuckArgs {
    #[command(flatten)]
    limit: LimitArgs,
}

pub(crate) async fn run(command: LeaseCommand, session: &mut Session) -> Result<Exit, Problem> {
    match command {
        LeaseCommand::Request(args) => request(args, session).await,
        LeaseCommand::Show(args) => show(args, session).await,
        LeaseCommand::List(args) => list(args, session).await,
        LeaseCommand::Renew(args) => renew(args, session).await,
        LeaseCommand::Release(args) => release(args, session).await,
        LeaseCommand::Stuck(args) => stuck(args, session).await,
    }
}

async fn request(args: RequestArgs, session: &mut Session) -> Result<Exit, Problem> {
    let Some(mut sink) = args.deliver.open()? else { return Err(no_place()) };
    let client = session.agents().await?;
    let task = join(&client, &args.task).await?;
    let pair = Pair { params: args.ask.params(), ..args.pair };
    let lease = task.lease_pair(pair, args.ask.ttl).await?;
    let delivered = deliver(session, &mut sink, &args.deliver, &lease.credential());
    if let Err(problem) = delivered {
        // Nobody can use what was minted: give it back, as well as that goes.
        drop(lease.release_within(Duration::ZERO).await);
        return Err(problem.next("the lease was given back; mend the place and ask again"));
    }
    tell(session, &args.deliver, &lease.lease())
}

fn no_place() -> Problem {
    Problem::usage("where should the secret go?")
        .why("it is shown once, and never without being asked for")
        .next("--to file:PATH, --to fd:N, or --reveal; or let `leasehold exec` handle it")
}

fn deliver(
    session: &mut Session,
    sink: &mut Sink,
    args: &DeliverArgs,
    credential: &Credential,
) -> Result<(), Problem> {
    let secret = render(credential, args.shape)?;
    if matches!(sink, Sink::Reveal) {
        return session.console.raw(&secret);
    }
    sink.fill(&secret)
        .map_err(|error| Problem::failed("the secret could not be handed over").why(error.to_string()))
}

/// Describes the lease; beside a revealed secret on the error stream, so that the output is the secret alone.
fn tell(session: &mut Session, args: &DeliverArgs, lease: &v1::Lease) -> Result<Exit, Problem> {
    if !args.reveal {
        return session
            .console
            .report(&Report::new(describe(lease), json::lease(lease)))
            .map(|()| Exit::DONE);
    }
    match session.console.format {
        Format::Text => {
            session.console.note(&format!(
                "{} until {}, as {}",
                lease.id,
                stamp(lease.expires_at),
                lease.principal
            ));
        }
        Format::Json => session.console.note(&json::lease(lease).to_string()),
    }
    Ok(Exit::DONE)
}

async fn show(args: OneArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.either(args.door).await?;
    let request = v1::GetLeaseRequest { lease: args.lease };
    let lease = client.persist(|| async { client.leases().get_lease(request.clone()).await }).await;
    let lease = lease.map_err(for_operators)?;
    session.console.report(&Report::new(describe(&lease), json::lease(&lease))).map(|()| Exit::DONE)
}

async fn list(args: ListArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.either(args.door).await?;
    let filter = v1::ListLeasesRequest {
        task: args.task.unwrap_or_default(),
        agent: args.agent.unwrap_or_default(),
        target: args.target.unwrap_or_default(),
        intent: args.intent.unwrap_or_default(),
        live: args.live,
        created_after: args.since.and_then(|since| SystemTime::now().checked_sub(since)).map(Into::into),
        alive_at: args.at,
        ..v1::ListLeasesRequest::default()
    };
    let (leases, more) = read(&client, args.limit, filter).await.map_err(for_operators)?;
    session.console.report(&listed(&leases, more, "no leases")).map(|()| Exit::DONE)
}

async fn stuck(args: StuckArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let filter = v1::ListLeasesRequest { stuck: true, ..v1::ListLeasesRequest::default() };
    let (leases, more) = read(&client, args.limit, filter).await?;
    session.console.report(&stuck_report(&leases, more))?;
    Ok(if leases.is_empty() { Exit::DONE } else { Exit::FAILED })
}

async fn read(
    client: &Client,
    limit: LimitArgs,
    filter: v1::ListLeasesRequest,
) -> Result<(Vec<v1::Lease>, bool), Problem> {
    let read = pages(limit, |page_size, page_token| {
        let request = v1::ListLeasesRequest { page_size, page_token, ..filter.clone() };
        async move {
            let answer =
                client.persist(|| async { client.leases().list_leases(request.clone()).await }).await?;
            Ok((answer.leases, answer.next_page_token))
        }
    });
    Ok(read.await?)
}

fn listed(leases: &[v1::Lease], more: bool, empty: &str) -> Report {
    let row = |lease: &v1::Lease| {
        let pair = format!("{}@{}", lease.intent, lease.target);
        vec![
            lease.id.clone(),
            state_words(lease),
            pair,
            lease.agent.clone(),
            lease.principal.clone(),
            stamp(lease.expires_at),
            lease.last_error.clone(),
        ]
    };
    let rows: Vec<_> = leases.iter().map(row).collect();
    let heading = ["LEASE", "STATE", "PAIR", "AGENT", "PRINCIPAL", "UNTIL", "ERROR"];
    let table = view::table(&heading, &rows, empty);
    Report::new(
        table + more_line(more),
        json!({"leases": leases.iter().map(json::lease).collect::<Vec<_>>(), "more": more}),
    )
}

/// What cannot be killed yet: where, how far it came, since when, why not, and when it is tried again.
fn stuck_report(leases: &[v1::Lease], more: bool) -> Report {
    let row = |lease: &v1::Lease| {
        vec![
            lease.id.clone(),
            lease.target.clone(),
            lease.principal.clone(),
            lease.cause().word(),
            lease.reached().word(),
            stamp(lease.revoking_since),
            lease.attempts.to_string(),
            stamp(lease.next_try),
            lease.last_error.clone(),
        ]
    };
    let rows: Vec<_> = leases.iter().map(row).collect();
    let heading =
        ["LEASE", "TARGET", "PRINCIPAL", "CAUSE", "REACHED", "SINCE", "TRIES", "NEXT TRY", "LAST ERROR"];
    let table = view::table(&heading, &rows, "nothing is stuck");
    Report::new(
        table + more_line(more),
        json!({"leases": leases.iter().map(json::lease).collect::<Vec<_>>(), "more": more}),
    )
}

fn state_words(lease: &v1::Lease) -> String {
    let cause = lease.cause().word();
    if cause.is_empty() { lease.state().word() } else { format!("{}: {cause}", lease.state().word()) }
}

fn describe(lease: &v1::Lease) -> String {
    let params: Vec<_> =
        lease.params.iter().map(|(name, value)| format!("{name}={}", view::param(value))).collect();
    let tries = if lease.attempts == 0 { String::new() } else { lease.attempts.to_string() };
    view::fields(&[
        ("lease", lease.id.clone()),
        ("state", state_words(lease)),
        ("pair", format!("{}@{}", lease.intent, lease.target)),
        ("params", params.join(" ")),
        ("principal", lease.principal.clone()),
        ("agent", lease.agent.clone()),
        ("task", lease.task.clone()),
        ("until", stamp(lease.expires_at)),
        ("limited by", lease.limited_by().word()),
        ("life until", stamp(lease.life_ends_at)),
        ("revocable", grade_words(lease.grade(), lease.window)),
        ("reached", lease.reached().word()),
        ("sessions", lease.sessions().word()),
        ("proof", lease.proof().word()),
        ("dying since", stamp(lease.revoking_since)),
        ("tries", tries),
        ("last error", lease.last_error.clone()),
        ("next try", stamp(lease.next_try)),
        ("may live until", stamp(lease.residual_until)),
        ("refused", lease.refusal().word()),
        ("decision", lease.decision.clone()),
        ("supersedes", lease.supersedes.clone()),
        ("ended", stamp(lease.ended_at)),
    ])
}

async fn renew(args: RenewArgs, session: &mut Session) -> Result<Exit, Problem> {
    let mut sink = args.deliver.open()?;
    let client = session.agents().await?;
    let request = v1::RenewLeaseRequest {
        lease: args.lease,
        ttl: args.ttl.and_then(wire_duration),
        request_id: request_id(),
    };
    let answer = client.persist(|| async { client.leases().renew_lease(request.clone()).await }).await?;
    let lease = answer.lease.unwrap_or_default();
    if let Some(credential) = answer.credential.map(Credential::from) {
        let Some(sink) = sink.as_mut() else { return Err(lost_credential(&lease)) };
        deliver(session, sink, &args.deliver, &credential)?;
    }
    tell(session, &args.deliver, &lease)
}

/// The target could only give a new credential, and there was no place for it.
fn lost_credential(lease: &v1::Lease) -> Problem {
    Problem::failed(format!(
        "{} took the place of the old lease, and its new secret had no place to go",
        lease.id
    ))
    .why("this target gives a new credential with each renewal")
    .next(format!("leasehold lease release {}; ask again with --to or --reveal", lease.id))
}

async fn release(args: ReleaseArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.agents().await?;
    let request = v1::ReleaseLeaseRequest { lease: args.lease, wait: wire_duration(args.wait.wait) };
    let answer = client.persist(|| async { client.leases().release_lease(request.clone()).await }).await?;
    ended(session, "", &serde_json::Value::Null, &answer.leases, &answer.pending)
}
