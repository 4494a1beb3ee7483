//! `agents`: who is registered, and what operators do about it.

use std::{fs, io::Read as _, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use leasehold_client::{ClientError, v1};
use leasehold_law::words::count;
use serde_json::{Value, json};

use super::{
    console::Report,
    json, manifest,
    problem::{Exit, Problem},
    session::{LimitArgs, Session, more_line, pages},
    view::{self, Word, stamp},
};

/// `agents`.
#[derive(Debug, Subcommand)]
pub enum AgentsCommand {
    /// List registered agents and patterns, with how they stand.
    #[command(after_help = "Example: leasehold agents list --status suspended --owner person:ana")]
    List(ListArgs),
    /// Show one agent: whose it is, how it stands, what lowers it.
    #[command(after_help = "Example: leasehold agents show spiffe://prod.example/agent/triage\n         \
                      leasehold agents show 'ci:github|65/74/prod'")]
    Show(NameArgs),
    /// Register the agents of a file: tables `[agents."spiffe://..."]` as in the config, in TOML or JSON.
    ///
    /// All of the file is applied, or nothing; where something in it is wrong, all that is wrong is told. What is
    /// registered so already is left alone; what the config defines cannot be redefined.
    #[command(after_help = "Example: leasehold agents apply agents.toml --dry-run")]
    Apply(ApplyArgs),
    /// Stop an agent: nothing new, and what it holds ends. It may read, and give back.
    #[command(
        after_help = "Example: leasehold agents suspend spiffe://prod.example/agent/triage --reason INC-114"
    )]
    Suspend(StatusArgs),
    /// As `suspend`, for suspicion: the agent is resumed only after a review that is newer.
    #[command(
        after_help = "Example: leasehold agents quarantine spiffe://prod.example/agent/triage --reason INC-114"
    )]
    Quarantine(StatusArgs),
    /// Let an agent work again.
    #[command(
        after_help = "Example: leasehold agents resume spiffe://prod.example/agent/triage --reason 'INC-114 is over'"
    )]
    Resume(StatusArgs),
    /// Say that an agent is no longer meant to work: it may only observe.
    #[command(
        after_help = "Example: leasehold agents retire 'spiffe://prod.example/agent/ci-*' --reason 'moved away'"
    )]
    Retire(StatusArgs),
    /// Say that somebody looked at an agent and found it right; with a manifest, that it may run that. Its owner may too.
    #[command(
        after_help = "Example: leasehold agents review spiffe://prod.example/agent/triage --manifest agent.toml"
    )]
    Review(ReviewArgs),
    /// Suspend every agent of an owner who leaves, and end their leases.
    #[command(
        after_help = "Example: leasehold agents offboard --owner person:ana --reason 'left the company'"
    )]
    Offboard(OffboardArgs),
    /// Print the digest of a manifest file: model = "NAME", prompt = "FILE", and under tools.NAME = "FILE".
    #[command(after_help = "Example: leasehold agents digest agent.toml")]
    Digest(DigestArgs),
}

/// `agents list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those of this status.
    #[arg(long, value_enum)]
    status: Option<Status>,
    /// Only those that answer to this person or group of the config.
    #[arg(long, value_name = "person:NAME|group:NAME")]
    owner: Option<String>,
    #[command(flatten)]
    limit: LimitArgs,
}

/// A status, as it is asked for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Status {
    Active,
    Retired,
    Suspended,
    Quarantined,
}

impl From<Status> for v1::AgentStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Active => Self::Active,
            Status::Retired => Self::Retired,
            Status::Suspended => Self::Suspended,
            Status::Quarantined => Self::Quarantined,
        }
    }
}

/// One agent.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// Its name, as `agents list` prints it: a SPIFFE ID; `ci:ISSUER|JOB` of a job, as `ci:github|65/74/prod`;
    /// `kube:CLUSTER|NAMESPACE/ACCOUNT` of a pod; `personal:ISSUER|SUBJECT/NAME` of an agent in a person's
    /// session; or a pattern that is registered, such as `spiffe://prod.example/agent/ci-*`, for all that fit it.
    #[arg(value_name = "AGENT")]
    agent: String,
}

/// `agents apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The file, of at most 192 KiB; `-` is the standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
    /// Why, for the record.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// An agent, and why.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Why, for the record and for the agent.
    #[arg(long)]
    reason: String,
}

/// `agents review`.
#[derive(Debug, Args)]
pub struct ReviewArgs {
    #[command(flatten)]
    name: NameArgs,
    /// What it may run: a manifest file, or its digest as `agents digest` prints it. As before where it is left out.
    #[arg(long, value_name = "FILE|DIGEST")]
    manifest: Option<String>,
    /// Why, for the record.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// `agents offboard`.
#[derive(Debug, Args)]
pub struct OffboardArgs {
    /// Who leaves.
    #[arg(long, value_name = "person:NAME|group:NAME")]
    owner: String,
    /// Why, for the record and for the agents.
    #[arg(long)]
    reason: String,
}

/// `agents digest`.
#[derive(Debug, Args)]
pub struct DigestArgs {
    /// The manifest file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) async fn run(command: AgentsCommand, session: &mut Session) -> Result<Exit, Problem> {
    use v1::AgentStatus as S;
    match command {
        AgentsCommand::List(args) => list(args, session).await,
        AgentsCommand::Show(args) => show(args, session).await,
        AgentsCommand::Apply(args) => apply(args, session).await,
        AgentsCommand::Suspend(args) => set(args, S::Suspended, session).await,
        AgentsCommand::Quarantine(args) => set(args, S::Quarantined, session).await,
        AgentsCommand::Resume(args) => set(args, S::Active, session).await,
        AgentsCommand::Retire(args) => set(args, S::Retired, session).await,
        AgentsCommand::Review(args) => review(args, session).await,
        AgentsCommand::Offboard(args) => offboard(args, session).await,
        AgentsCommand::Digest(args) => digest(&args, session),
    }
}

async fn list(args: ListArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let ListArgs { status, owner, limit } = args;
    let status = status.map(v1::AgentStatus::from).unwrap_or_default();
    let owner = owner.unwrap_or_default();
    let (agents, more) = pages(limit, |page_size, page_token| {
        let request =
            v1::ListAgentsRequest { status: status.into(), owner: owner.clone(), page_size, page_token };
        let client = &client;
        async move {
            let answer =
                client.persist(|| async { client.agents().list_agents(request.clone()).await }).await?;
            Ok((answer.agents, answer.next_page_token))
        }
    })
    .await?;
    let json = json!({"agents": agents.iter().map(as_json).collect::<Vec<_>>(), "more": more});
    session.console.report(&Report::new(table(&agents) + more_line(more), json)).map(|()| Exit::DONE)
}

fn table(agents: &[v1::RegisteredAgent]) -> String {
    let row = |one: &v1::RegisteredAgent| {
        vec![
            one.id.clone(),
            one.status().word(),
            one.autonomy.clone(),
            one.owner.clone(),
            one.groups.join(" "),
            stamp(one.reviewed_at),
            one.drift.len().to_string(),
            one.lowered.join("; "),
        ]
    };
    let rows: Vec<_> = agents.iter().map(row).collect();
    view::table(
        &["AGENT", "STATUS", "AUTONOMY", "OWNER", "GROUPS", "REVIEWED", "DRIFT", "LOWERED"],
        &rows,
        "no agents",
    )
}

async fn show(args: NameArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let request = v1::GetAgentRequest { agent: args.agent };
    let agent = client.persist(|| async { client.agents().get_agent(request.clone()).await }).await?;
    session.console.report(&Report::new(describe(&agent), as_json(&agent))).map(|()| Exit::DONE)
}

fn describe(one: &v1::RegisteredAgent) -> String {
    let status = match (one.status_by.as_str(), one.status()) {
        ("", v1::AgentStatus::Active) => one.status().word(),
        ("", _) => format!("{}, by its registration", one.status().word()),
        (by, status) => {
            format!("{} since {} by {by}: \"{}\"", status.word(), stamp(one.status_at), one.status_reason)
        }
    };
    let from = match one.source() {
        v1::AgentSource::Pattern => format!("pattern {}", one.pattern),
        v1::AgentSource::Config | v1::AgentSource::Applied | v1::AgentSource::Unspecified => {
            one.source().word()
        }
    };
    let mut text = view::fields(&[
        ("agent", one.id.clone()),
        ("registered by", from),
        ("owner", one.owner.clone()),
        ("groups", one.groups.join(", ")),
        ("purpose", one.purpose.clone()),
        ("status", status),
        ("autonomy", one.autonomy.clone()),
        ("lowered", one.lowered.join("; ")),
        ("reviewed", stamp(one.reviewed_at)),
        ("review due", stamp(one.review_due)),
        ("manifest", one.manifest.clone()),
    ]);
    one.drift.iter().for_each(|drift| text.push_str(&format!("drift: {}\n", drift_words(drift))));
    text
}

/// One drift in words.
pub(crate) fn drift_words(drift: &v1::AgentDrift) -> String {
    let claimed = if drift.claimed.is_empty() { "nothing" } else { drift.claimed.as_str() };
    format!("it says that it runs {claimed}, since {} in {}", stamp(drift.at), drift.task)
}

fn as_json(one: &v1::RegisteredAgent) -> Value {
    json!({
        "id": one.id, "source": json::word(one.source()), "pattern": one.pattern, "owner": one.owner,
        "groups": one.groups, "autonomy": one.autonomy, "purpose": one.purpose, "status": json::word(one.status()),
        "status_by": one.status_by, "status_reason": one.status_reason, "status_at": json::time(one.status_at),
        "reviewed_at": json::time(one.reviewed_at), "review_due": json::time(one.review_due),
        "manifest": one.manifest, "drift": one.drift.iter().map(drift_json).collect::<Vec<_>>(),
        "lowered": one.lowered,
    })
}

/// One drift for programs.
pub(crate) fn drift_json(drift: &v1::AgentDrift) -> Value {
    json!({"claimed": drift.claimed, "task": drift.task, "at": json::time(drift.at)})
}

async fn apply(args: ApplyArgs, session: &mut Session) -> Result<Exit, Problem> {
    let ApplyArgs { file, dry_run, reason } = args;
    let name = file.display().to_string();
    let text = read(&file)
        .map_err(|error| Problem::usage(format!("cannot read `{name}`")).why(error.to_string()))?;
    let client = session.admin().await?;
    let request = v1::ApplyAgentsRequest { file: name, text, dry_run, reason };
    let answer = client.persist(|| async { client.agents().apply_agents(request.clone()).await }).await;
    told(&answer.map_err(unfit)?, dry_run, session)
}

/// Each problem of a file has its own line, and its place in the file.
fn unfit(error: ClientError) -> Problem {
    let found = error.refusal().map(|refusal| refusal.violations.clone()).unwrap_or_default();
    let lines: Vec<_> = found.into_iter().map(|one| one.what).collect();
    let problem = Problem::from(error);
    match lines.as_slice() {
        [] | [_] => problem,
        many => problem.why(many.join("\n")),
    }
}

fn read(file: &PathBuf) -> std::io::Result<String> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        return std::io::stdin().read_to_string(&mut text).map(|_| text);
    }
    fs::read_to_string(file)
}

async fn set(args: StatusArgs, status: v1::AgentStatus, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let request =
        v1::SetAgentStatusRequest { agent: args.name.agent, status: status.into(), reason: args.reason };
    let answer = client.persist(|| async { client.agents().set_agent_status(request.clone()).await }).await?;
    told(&answer, false, session)
}

async fn review(args: ReviewArgs, session: &mut Session) -> Result<Exit, Problem> {
    let manifest = manifest::digest(args.manifest.as_deref())?.unwrap_or_default();
    let client = session.admin().await?;
    let request = v1::ReviewAgentRequest { agent: args.name.agent, manifest, reason: args.reason };
    let answer = client.persist(|| async { client.agents().review_agent(request.clone()).await }).await?;
    told(&answer, false, session)
}

async fn offboard(args: OffboardArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let request = v1::OffboardOwnerRequest { owner: args.owner, reason: args.reason };
    let answer = client.persist(|| async { client.agents().offboard_owner(request.clone()).await }).await?;
    told(&answer, false, session)
}

fn told(answer: &v1::ChangeAgentsResponse, dry_run: bool, session: &mut Session) -> Result<Exit, Problem> {
    session.console.report(&changes(answer, dry_run)).map(|()| Exit::DONE)
}

fn changes(answer: &v1::ChangeAgentsResponse, dry_run: bool) -> Report {
    let word = |one: &v1::AgentChange| match (one.change.as_str(), dry_run) {
        ("", _) => "unchanged".to_owned(),
        (change, true) => format!("would be {change}"),
        (change, false) => change.to_owned(),
    };
    let mut text: String =
        answer.changes.iter().map(|one| format!("{}: {}\n", one.agent, word(one))).collect();
    if answer.changes.is_empty() {
        text.push_str("no agents\n");
    }
    if answer.leases_ended > 0 {
        text.push_str(&format!("{} no longer stood, and end\n", count(answer.leases_ended, "lease")));
    }
    let changes: Vec<_> =
        answer.changes.iter().map(|one| json!({"agent": one.agent, "change": one.change})).collect();
    Report::new(text, json!({"changes": changes, "leases_ended": answer.leases_ended, "dry_run": dry_run}))
}

fn digest(args: &DigestArgs, session: &mut Session) -> Result<Exit, Problem> {
    let manifest = manifest::read(&args.file)?;
    let json = json!({"digest": manifest.digest(), "canonical": manifest.canonical()});
    session.console.report(&Report::new(manifest.digest(), json)).map(|()| Exit::DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> v1::RegisteredAgent {
        v1::RegisteredAgent {
            id: "spiffe://prod.example/agent/ci-7".into(),
            source: v1::AgentSource::Pattern.into(),
            pattern: "spiffe://prod.example/agent/ci-*".into(),
            owner: "person:ana".into(),
            groups: vec!["ci".into()],
            autonomy: "act".into(),
            purpose: "builds".into(),
            status: v1::AgentStatus::Quarantined.into(),
            status_by: "uid:0".into(),
            status_reason: "INC-114".into(),
            status_at: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            reviewed_at: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 0 }),
            review_due: None,
            manifest: "sha256:01".into(),
            drift: vec![v1::AgentDrift {
                claimed: "sha256:02".into(),
                task: "task_1".into(),
                at: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            }],
            lowered: vec!["observe: is retired".into()],
        }
    }

    #[test]
    fn an_agent_is_shown_with_all_that_lowers_it() {
        insta::assert_snapshot!(describe(&agent()) + &table(&[agent()]));
    }

    #[test]
    fn what_would_change_and_what_did_are_told_apart() {
        let change = |change: &str| v1::AgentChange { agent: "a".into(), change: change.into() };
        let answer = |count| v1::ChangeAgentsResponse {
            changes: vec![change("changed"), change("")],
            leases_ended: count,
        };
        assert_eq!(changes(&answer(0), true).text, "a: would be changed\na: unchanged\n");
        assert_eq!(
            changes(&answer(2), false).text,
            "a: changed\na: unchanged\n2 leases no longer stood, and end\n"
        );
    }
}
