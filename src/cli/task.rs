//! `task`: open, read, narrow, watch and end the unit of work that leases hang on.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use clap::{Args, Subcommand, ValueEnum};
use leasehold_client::{
    ClientError, FileTokens, Pair, Task, TaskBuilder, TokenSource as _, v1, wire_duration,
};
use leasehold_jose::token;
use leasehold_law::words::count;
use serde_json::{Value, json};

mod watch;

use super::{
    console::Report,
    json,
    manifest::ManifestArgs,
    parse,
    problem::{Exit, Problem},
    session::{DoorArgs, LimitArgs, Session, for_operators, more_line, pages},
    view::{self, Word, stamp},
};

/// `task`.
#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// Open a task that its deadline holds, at most 1 h; `exec` and the SDK hold theirs by heartbeats.
    #[command(
        after_help = "Example: leasehold task open orders.read@orders-db,ttl=10m --purpose 'triage 8812' --ref ticket=8812"
    )]
    Open(OpenArgs),
    /// Show a task.
    #[command(after_help = "Example: leasehold task show task_06ds0q3f8g2k1n4p7r9t")]
    Show(OneArgs),
    /// List tasks, newest first.
    #[command(after_help = "Example: leasehold task list --ref ticket=8812")]
    List(ListArgs),
    /// Replace the scope, or add to it and take from it; leases that no longer fit are revoked, and only those.
    #[command(after_help = "Example: leasehold task scope task_06ds... --add stock.read@stock-db")]
    Scope(ScopeArgs),
    /// Tell what happens to a task, as it happens, until it has ended.
    #[command(after_help = "Example: leasehold task watch task_06ds... --output json")]
    Watch(NameArgs),
    /// End a task as done, and revoke its leases.
    #[command(after_help = "Example: leasehold task complete task_06ds...")]
    Complete(EndArgs),
    /// End a task as given up, and revoke its leases.
    #[command(after_help = "Example: leasehold task abort task_06ds... --reason 'wrong database'")]
    Abort(AbortArgs),
}

/// `task open`.
#[derive(Debug, Args)]
pub struct OpenArgs {
    /// What leases of the task may be for, `ttl` the longest that each may be asked for.
    #[arg(required = true, value_name = "INTENT@TARGET[,ttl=DURATION][,param.KEY=VALUE]", value_parser = parse::narrowed_pair)]
    scope: Vec<Pair>,
    /// What it is for, for people to read; at most 512 bytes.
    #[arg(long, default_value = "", hide_default_value = true)]
    purpose: String,
    /// A label to find and revoke it by. May be given again, up to 8 times.
    #[arg(long = "ref", value_name = "KEY=VALUE", value_parser = parse::key_value)]
    refs: Vec<(String, String)>,
    /// How long until it ends by itself, at most 1h.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = parse::duration)]
    deadline: Duration,
    #[command(flatten)]
    manifest: ManifestArgs,
    #[command(flatten)]
    person: PersonArgs,
}

/// The person that a task acts for.
#[derive(Debug, Default, Args)]
pub(crate) struct PersonArgs {
    /// A file with a token of the person that this is done for, which names this agent: docs/identity.md. The task ends a
    /// minute after the token does. `exec` brings each newer one that the file holds by then; `task open` cannot.
    #[arg(long, value_name = "FILE", env = "LEASEHOLD_ON_BEHALF_OF_FILE")]
    on_behalf_of: Option<PathBuf>,
}

impl PersonArgs {
    /// That a task which is joined, and so has whom it acts for already, acts for this person.
    pub(crate) async fn fits(&self, task: &v1::Task) -> Result<(), Problem> {
        let Some(file) = &self.on_behalf_of else { return Ok(()) };
        let read = FileTokens::new(file, "--on-behalf-of").fetch().await.map_err(ClientError::Token)?;
        let said = token::peek(&read).ok().and_then(|said| Some((said.issuer?, said.subject?)));
        let is_theirs =
            said.is_some_and(|(issuer, subject)| task.on_behalf_of == format!("oidc:{issuer}|{subject}"));
        if is_theirs {
            return Ok(());
        }
        let whom = if task.on_behalf_of.is_empty() { "nobody" } else { &task.on_behalf_of };
        Err(Problem::usage("this runs inside a task, which acts for whom it was opened for")
            .why(format!("{} acts for {whom}", task.id))
            .next("unset LEASEHOLD_TASK, to open one for the person of --on-behalf-of"))
    }

    /// A task that acts for them.
    pub(crate) fn stands_behind(self, task: TaskBuilder) -> TaskBuilder {
        match self.on_behalf_of {
            Some(file) => task.on_behalf_of(Arc::new(FileTokens::new(file, "--on-behalf-of"))),
            None => task,
        }
    }
}

/// A task, named or from the environment.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// Its id, `task_...`.
    #[arg(value_name = "TASK", env = "LEASEHOLD_TASK")]
    task: String,
}

/// `task show`.
#[derive(Debug, Args)]
pub struct OneArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    door: DoorArgs,
}

/// `task list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those with this label. May be given again.
    #[arg(long = "ref", value_name = "KEY=VALUE", value_parser = parse::key_value)]
    refs: Vec<(String, String)>,
    /// Only this agent's, by its name as `agents list` prints it.
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// Only those that act for this person, by the name in the config or as their issuer names them.
    #[arg(long, value_name = "NAME|oidc:ISSUER|SUBJECT")]
    person: Option<String>,
    /// Only those in this state. May be given again.
    #[arg(long, value_enum)]
    state: Vec<State>,
    /// Only those opened within this time until now, as 2h.
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    since: Option<Duration>,
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    door: DoorArgs,
}

/// A state of a task, as it is asked for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Open,
    Ending,
    Ended,
    Refused,
}

/// `task scope`.
#[derive(Debug, Args)]
pub struct ScopeArgs {
    /// Its id, `task_...`.
    #[arg(value_name = "TASK")]
    task: String,
    /// The whole new scope.
    #[arg(
        required_unless_present_any = ["add", "remove"],
        conflicts_with_all = ["add", "remove"],
        value_name = "INTENT@TARGET[,ttl=DURATION][,param.KEY=VALUE]",
        value_parser = parse::narrowed_pair
    )]
    scope: Vec<Pair>,
    /// Add this to the scope, or change how it is narrowed. May be given again.
    #[arg(long, value_name = "INTENT@TARGET[,ttl=DURATION][,param.KEY=VALUE]", value_parser = parse::narrowed_pair)]
    add: Vec<Pair>,
    /// Take this out of the scope. May be given again.
    #[arg(long, value_name = "INTENT@TARGET", value_parser = parse::pair)]
    remove: Vec<Pair>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// How long to wait for proof.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct WaitArgs {
    /// How long to wait until leases are confirmed dead, 0 to 30s. The broker goes on afterwards in any case.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse::wait)]
    pub(crate) wait: Duration,
}

/// `task complete`.
#[derive(Debug, Args)]
pub struct EndArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// `task abort`.
#[derive(Debug, Args)]
pub struct AbortArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Why, for the record.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(crate) async fn run(command: TaskCommand, session: &mut Session) -> Result<Exit, Problem> {
    match command {
        TaskCommand::Open(args) => open(args, session).await,
        TaskCommand::Show(args) => show(args, session).await,
        TaskCommand::List(args) => list(args, session).await,
        TaskCommand::Scope(args) => scope(args, session).await,
        TaskCommand::Watch(args) => watch::run(&args.task, session).await,
        TaskCommand::Complete(args) => complete(args, session).await,
        TaskCommand::Abort(args) => abort(args, session).await,
    }
}

async fn open(args: OpenArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.agents().await?;
    let task = client.task().held_by_deadline().deadline(args.deadline).purpose(args.purpose).refs(args.refs);
    let task = match args.manifest.digest()? {
        Some(digest) => task.fingerprint(digest),
        None => task,
    };
    let task = args.person.stands_behind(task);
    let task = args.scope.into_iter().fold(task, TaskBuilder::pair);
    let task = task.open().await?.leave();
    let text = format!("{}\nexport LEASEHOLD_TASK={}\n", describe(&task), task.id);
    session.console.report(&Report::new(text, json::task(&task))).map(|()| Exit::DONE)
}

async fn show(args: OneArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.either(args.door).await?;
    let request = v1::GetTaskRequest { task: args.name.task };
    let task = client.persist(|| async { client.tasks().get_task(request.clone()).await }).await;
    let task = task.map_err(for_operators)?;
    session.console.report(&Report::new(describe(&task), json::task(&task))).map(|()| Exit::DONE)
}

async fn list(args: ListArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.either(args.door).await?;
    let filter = v1::ListTasksRequest {
        agent: args.agent.unwrap_or_default(),
        person: args.person.unwrap_or_default(),
        states: args.state.iter().map(|state| wire_state(*state).into()).collect(),
        refs: args.refs.into_iter().collect(),
        opened_after: args.since.and_then(|since| SystemTime::now().checked_sub(since)).map(Into::into),
        ..v1::ListTasksRequest::default()
    };
    let (tasks, more) = pages(args.limit, |page_size, page_token| {
        let request = v1::ListTasksRequest { page_size, page_token, ..filter.clone() };
        let client = &client;
        async move {
            let answer =
                client.persist(|| async { client.tasks().list_tasks(request.clone()).await }).await?;
            Ok((answer.tasks, answer.next_page_token))
        }
    })
    .await
    .map_err(for_operators)?;
    let table = view::table(&["TASK", "STATE", "AGENT", "OPENED", "PURPOSE"], &rows(&tasks), "no tasks");
    let json = json!({"tasks": tasks.iter().map(json::task).collect::<Vec<_>>(), "more": more});
    session.console.report(&Report::new(table + more_line(more), json)).map(|()| Exit::DONE)
}

fn wire_state(state: State) -> v1::TaskState {
    match state {
        State::Open => v1::TaskState::Open,
        State::Ending => v1::TaskState::Ending,
        State::Ended => v1::TaskState::Ended,
        State::Refused => v1::TaskState::Refused,
    }
}

fn rows(tasks: &[v1::Task]) -> Vec<Vec<String>> {
    let row = |task: &v1::Task| {
        vec![
            task.id.clone(),
            state_words(task),
            task.agent.clone(),
            stamp(task.opened_at),
            task.purpose.clone(),
        ]
    };
    tasks.iter().map(row).collect()
}

/// State with its cause and outcome: `ended: task-lost, clean`.
fn state_words(task: &v1::Task) -> String {
    let rest: Vec<_> =
        [task.cause().word(), task.outcome().word()].into_iter().filter(|word| !word.is_empty()).collect();
    let silent = if task.silent { " (silent)" } else { "" };
    match rest.is_empty() {
        true => format!("{}{silent}", task.state().word()),
        false => format!("{}: {}", task.state().word(), rest.join(", ")),
    }
}

fn describe(task: &v1::Task) -> String {
    let refs: Vec<_> = task.refs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    view::fields(&[
        ("task", task.id.clone()),
        ("state", state_words(task)),
        ("agent", task.agent.clone()),
        ("on behalf of", task.on_behalf_of.clone()),
        ("session", session_words(task)),
        ("purpose", task.purpose.clone()),
        ("scope", task.scope.iter().map(view::pair).collect::<Vec<_>>().join(" ")),
        ("refs", refs.join(" ")),
        ("opened", stamp(task.opened_at)),
        ("deadline", stamp(task.deadline)),
        ("ended", stamp(task.ended_at)),
        ("stopped", stops_words(&task.stops)),
        ("manifest", task.manifest.clone()),
        ("drift", if task.drift { "not what was reviewed".to_owned() } else { String::new() }),
    ])
}

/// What security took of it: `2 leases: operator (rev_...)`.
fn stops_words(stops: &[v1::TaskStop]) -> String {
    let words = |stop: &v1::TaskStop| {
        let leases = count(stop.leases, "lease");
        let by = if stop.revocation.is_empty() { String::new() } else { format!(" ({})", stop.revocation) };
        format!("{leases}: {}{by}", stop.cause().word())
    };
    stops.iter().map(words).collect::<Vec<_>>().join(", ")
}

/// Until when the person's newest token is good.
fn session_words(task: &v1::Task) -> String {
    if task.session_until.is_none() { String::new() } else { format!("until {}", stamp(task.session_until)) }
}

async fn scope(args: ScopeArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.agents().await?;
    let scope = match args.scope.is_empty() {
        false => args.scope.into_iter().map(wire_pair).collect(),
        true => {
            let request = v1::GetTaskRequest { task: args.task.clone() };
            let task = client.persist(|| async { client.tasks().get_task(request.clone()).await }).await?;
            edited(task.scope, args.add, &args.remove)?
        }
    };
    let request = v1::ChangeScopeRequest { task: args.task, scope, wait: wire_duration(args.wait.wait) };
    // The same scope again changes nothing: safe to repeat.
    let answer = client.persist(|| async { client.tasks().change_scope(request.clone()).await }).await?;
    let task = answer.task.unwrap_or_default();
    ended(session, &describe(&task), &json::task(&task), &answer.leases, &answer.pending)
}

fn wire_pair(pair: Pair) -> v1::ScopePair {
    let max_ttl = pair.max_ttl.and_then(wire_duration);
    v1::ScopePair { intent: pair.intent, target: pair.target, max_ttl, params: pair.params }
}

/// A scope with pairs added and taken out. What is not in it cannot be taken out: that would be a slip.
fn edited(
    mut scope: Vec<v1::ScopePair>,
    add: Vec<Pair>,
    remove: &[Pair],
) -> Result<Vec<v1::ScopePair>, Problem> {
    for pair in remove {
        let before = scope.len();
        scope.retain(|known| !is_same(known, pair));
        if scope.len() == before {
            return Err(Problem::usage(format!("`{pair}` is not in the scope of this task")));
        }
    }
    for pair in add {
        scope.retain(|known| !is_same(known, &pair));
        scope.push(wire_pair(pair));
    }
    Ok(scope)
}

fn is_same(known: &v1::ScopePair, pair: &Pair) -> bool {
    known.intent == pair.intent && known.target == pair.target
}

async fn complete(args: EndArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.agents().await?;
    let request = v1::CompleteTaskRequest { task: args.name.task, wait: wire_duration(args.wait.wait) };
    let answer = client.persist(|| async { client.tasks().complete_task(request.clone()).await }).await?;
    let task = answer.task.unwrap_or_default();
    ended(session, &describe(&task), &json::task(&task), &answer.leases, &answer.pending)
}

async fn abort(args: AbortArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.agents().await?;
    let wait = wire_duration(args.wait.wait);
    let request = v1::AbortTaskRequest { task: args.name.task, reason: args.reason, wait };
    let answer = client.persist(|| async { client.tasks().abort_task(request.clone()).await }).await?;
    let task = answer.task.unwrap_or_default();
    ended(session, &describe(&task), &json::task(&task), &answer.leases, &answer.pending)
}

/// Reports what was stopped. Something pending is no failure: the broker goes on.
pub(crate) fn ended(
    session: &mut Session,
    head: &str,
    task: &Value,
    leases: &[v1::LeaseOutcome],
    pending: &[String],
) -> Result<Exit, Problem> {
    let rows = leases.iter().map(outcome_row).collect::<Vec<_>>();
    let table = view::table(&OUTCOME_HEADING, &rows, "no lease had to be revoked");
    let confirmed = leases.len().saturating_sub(pending.len());
    let text = format!("{head}\n{table}{confirmed} confirmed dead, {} pending\n", pending.len());
    let json = json!({"task": task, "leases": leases.iter().map(json::outcome).collect::<Vec<_>>(), "pending": pending});
    session.console.report(&Report::new(text, json))?;
    if !pending.is_empty() {
        session
            .console
            .note(&format!("warning: not confirmed yet, the broker goes on: {}", pending.join(", ")));
    }
    Ok(Exit::DONE)
}

/// The columns of [`outcome_row`].
pub(crate) const OUTCOME_HEADING: [&str; 6] = ["LEASE", "PAIR", "PRINCIPAL", "STATE", "PROOF", "ERROR"];

/// Where one lease stands, in a row.
pub(crate) fn outcome_row(one: &v1::LeaseOutcome) -> Vec<String> {
    let state = if one.state() == v1::LeaseState::Revoking {
        let reached = one.reached().word();
        let sessions = if one.sessions() == v1::Sessions::Reaping { ", reaping" } else { "" };
        format!("revoking: {reached}{sessions}, try {}", one.attempts)
    } else {
        one.state().word()
    };
    let pair = format!("{}@{}", one.intent, one.target);
    vec![one.lease.clone(), pair, one.principal.clone(), state, one.proof().word(), one.error.clone()]
}

/// A task by its id, joined: neither held nor ended from here.
pub(crate) async fn join(client: &leasehold_client::Client, id: &str) -> Result<Task, Problem> {
    Ok(Task::join(client, id).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_says_how_far_it_is() {
        let outcome = v1::LeaseOutcome {
            lease: "lease_1".into(),
            intent: "orders.read".into(),
            target: "orders-db".into(),
            principal: "lh1".into(),
            state: v1::LeaseState::Revoking.into(),
            reached: v1::Reached::Disabled.into(),
            sessions: v1::Sessions::Reaping.into(),
            attempts: 3,
            error: "connection refused".into(),
            ..v1::LeaseOutcome::default()
        };
        let row = outcome_row(&outcome);
        assert_eq!(row[3], "revoking: disabled, reaping, try 3");
        assert_eq!(row[5], "connection refused");
    }

    #[test]
    fn a_goodbye_after_a_stop_is_shown_with_the_stop() {
        let stop = |leases, cause: v1::Cause, revocation: &str| v1::TaskStop {
            leases,
            cause: cause.into(),
            revocation: revocation.into(),
        };
        let task = v1::Task {
            state: v1::TaskState::Ended.into(),
            cause: v1::Cause::TaskCompleted.into(),
            stops: vec![stop(1, v1::Cause::Operator, "rev_1"), stop(2, v1::Cause::AgentChanged, "")],
            ..v1::Task::default()
        };
        let shown = describe(&task);
        assert!(shown.contains("ended: task-completed\n"), "{shown}");
        assert!(shown.contains("stopped  1 lease: operator (rev_1), 2 leases: agent-changed\n"), "{shown}");
        let json = json::task(&task)["stops"].clone();
        assert_eq!(json[0], json!({"cause": "operator", "leases": 1, "revocation": "rev_1"}));
        assert_eq!(json[1], json!({"cause": "agent-changed", "leases": 2, "revocation": null}));
    }

    fn check_edit(add: &[&str], remove: &[&str], expect: Option<&[&str]>) {
        let pairs =
            |texts: &[&str]| texts.iter().map(|text| parse::narrowed_pair(text).unwrap()).collect::<Vec<_>>();
        let scope = pairs(&["a@db", "b@db"]).into_iter().map(wire_pair).collect();
        let found = edited(scope, pairs(add), &pairs(remove)).ok();
        let found = found.map(|scope| scope.iter().map(view::pair).collect::<Vec<_>>());
        assert_eq!(found, expect.map(|pairs| pairs.iter().map(|pair| (*pair).to_owned()).collect()));
    }

    #[test]
    fn a_scope_is_edited_pair_by_pair() {
        check_edit(&["c@db"], &[], Some(&["a@db", "b@db", "c@db"]));
        check_edit(&[], &["a@db"], Some(&["b@db"]));
        check_edit(&["a@db,ttl=5m"], &[], Some(&["b@db", "a@db,ttl=5m"]));
        check_edit(&["c@db"], &["b@db"], Some(&["a@db", "c@db"]));
        check_edit(&[], &["c@db"], None);
    }
}
