//! `exec`: run a command with leases, keep them alive under it, and end them with it.

mod child;
mod folder;
mod runfile;
mod vars;

use std::{ffi::OsString, time::Duration};

use clap::{Args, ValueEnum};
use leasehold_client::{Client, Ending, Lease, Task};

use super::{
    manifest::ManifestArgs,
    parse::{self, NamedPair},
    problem::{Exit, Problem},
    session::Session,
    task::PersonArgs,
};
use folder::Folder;
use runfile::RunFile;

/// Refused before the start, as `env(1)` has it.
pub(crate) const REFUSED: Exit = Exit(125);
const WAIT: Duration = Duration::from_secs(10);

/// What is told below the options.
const HELP: &str = "\
Example: leasehold exec --lease orders.read@orders-db,ttl=10m -- psql -c 'select now()'
         leasehold exec --lease IN=orders.read@orders-db --lease OUT=stock.write@stock-db -- ./copy
         leasehold exec --agent coding --lease orders.read@orders-db -- make test
         leasehold exec --on-behalf-of /run/ana.token --lease orders.read@orders-db -- ./answer

What the command sees, beside its own environment, of a lease in PostgreSQL:
  PGHOST, PGPORT, PGDATABASE, PGUSER, PGSSLMODE
                       what libpq, and so psql and most drivers, connect with
  PGPASSFILE           the path of a file with the password, in libpq's form
  PGPASSWORD           with --as env: the password
  PGEXPIRES            when it ends unless it is renewed, as it was at the start; RFC 3339
  DATABASE_URL         postgresql://USER@HOST:PORT/DATABASE, without the password
of a lease elsewhere, by the kind of target and the parts of its credential:
  KIND_PART            each public part, as MEMORY_URL; with --as env each secret part too
  KIND_PART_FILE       the path of a file with each secret part, byte for byte
and in any case:
  LEASEHOLD_TASK       the id of the task: a leasehold exec inside works in the same one

NAME of a lease goes before each with an underscore: IN_PGHOST. The files lie in memory, in a
folder of mode 0700 under $XDG_RUNTIME_DIR or /dev/shm, and go with the command. Leases are renewed
at two thirds of their lifetime; what is new then is in the files, not in the variables.

Without --lease, leasehold.run.toml here or above, up to the root of the repository, names them:
leases = [\"orders.read@orders-db,ttl=10m\"]. --agent needs a leasehold login before.

Exits with the command's code; 124 if its leases ended under it (it gets SIGTERM, and SIGKILL 5 s
later), 125 if refused before the start, 126 and 127 as env(1).";

/// `exec`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct ExecArgs {
    /// A lease for the command, for `ttl` or the grant's default, renewed while it runs. NAME prefixes its variables, and is
    /// needed where two would set the same one. May be given again.
    #[arg(long = "lease", value_name = "[NAME=]INTENT@TARGET[,ttl=DURATION][,param.KEY=VALUE]", value_parser = parse::named_pair)]
    leases: Vec<NamedPair>,
    /// The agent to act as, in the session of `leasehold login`, by its name under `personal_agents` in the config.
    #[arg(long, value_name = "NAME", conflicts_with = "on_behalf_of")]
    agent: Option<String>,
    /// What it is for, for people to read; at most 512 bytes.
    #[arg(long)]
    purpose: Option<String>,
    /// A label to find and revoke the task by. May be given again, up to 8 times.
    #[arg(long = "ref", value_name = "KEY=VALUE", value_parser = parse::key_value)]
    refs: Vec<(String, String)>,
    /// How secrets reach the command: in private files; or also in its environment, for clients that read no file.
    #[arg(long = "as", value_enum, default_value_t, value_name = "HOW")]
    how: How,
    #[command(flatten)]
    manifest: ManifestArgs,
    #[command(flatten)]
    person: PersonArgs,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// How secrets reach the command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum How {
    /// In files.
    #[default]
    Files,
    /// In files, and in the environment.
    Env,
}

/// What is to be run, once all is read and checked.
struct Plan {
    leases: Vec<NamedPair>,
    purpose: String,
    refs: Vec<(String, String)>,
    how: How,
    command: Vec<OsString>,
    /// The task to join, where this runs inside one.
    inside: Option<String>,
    /// The digest of what the command runs.
    manifest: Option<String>,
    /// Whom the command acts for.
    person: PersonArgs,
    /// Something was said of the task, which is another's.
    passed_over: bool,
}

pub(crate) async fn run(args: ExecArgs, session: &mut Session) -> Result<Exit, Problem> {
    let ready = prepare(args, session).await.map_err(|problem| problem.exit(REFUSED))?;
    let Ready { plan, held, folder, variables } = ready;
    let exit = child::run(&plan.command, &variables, &held.leases, &folder, session).await;
    drop(folder);
    held.finish(session).await;
    exit
}

/// Everything that the command needs: one refusal starts nothing.
struct Ready {
    plan: Plan,
    held: Held,
    folder: Folder,
    variables: Vec<vars::Variable>,
}

async fn prepare(args: ExecArgs, session: &mut Session) -> Result<Ready, Problem> {
    let found = RunFile::find(&std::env::current_dir().unwrap_or_default())?;
    let agent = args.agent.clone();
    let mut plan = plan(args, found.unwrap_or_default(), std::env::var("LEASEHOLD_TASK").ok())?;
    let folder = Folder::make()?;
    let client = match &agent {
        Some(agent) => session.as_agent(agent).await?,
        None => session.agents().await?,
    };
    let mut held =
        Held { task: open(&client, &mut plan).await?, joined: plan.inside.is_some(), leases: Vec::new() };
    let variables = match held.lease_all(&plan, &folder).await {
        Ok(variables) => variables,
        Err(problem) => {
            held.give_up(session).await;
            return Err(problem);
        }
    };
    if plan.passed_over {
        session.console.note("this runs inside a task: its purpose and refs stay as they are (unset LEASEHOLD_TASK for one of its own)");
    }
    if plan.how == How::Env {
        session.console.note("warning: --as env shows the secrets to all that runs as this user, in /proc");
    }
    Ok(Ready { plan, held, folder, variables })
}

/// What was opened and leased for the command, and must be ended with it.
struct Held {
    task: Task,
    /// The task is another's: only the leases are ended here.
    joined: bool,
    leases: Vec<(NamedPair, Lease)>,
}

impl Held {
    async fn lease_all(&mut self, plan: &Plan, folder: &Folder) -> Result<Vec<vars::Variable>, Problem> {
        for named in &plan.leases {
            let lease = self.task.lease_pair(named.pair.clone(), named.pair.max_ttl).await?;
            self.leases.push((named.clone(), lease));
        }
        let mut variables = vars::all(&self.leases, folder, plan.how)?;
        variables.push(vars::Variable::shown("LEASEHOLD_TASK", self.task.id()));
        Ok(variables)
    }

    /// One refusal starts nothing: what was leased before it is given back, without waiting for the proof. Said
    /// aloud, since this process ends before a dropped task could say it.
    async fn give_up(self, session: &mut Session) {
        if self.joined {
            return release(self.leases, Duration::ZERO, session).await;
        }
        drop(self.leases);
        if let Err(error) = self.task.abort("refused before the start", Duration::ZERO).await {
            session
                .console
                .note(&format!("warning: could not end the task: {error}; it is lost after its grace"));
        }
    }

    /// Ends the task, or only the leases where the task is another's.
    async fn finish(self, session: &mut Session) {
        if self.joined {
            return release(self.leases, WAIT, session).await;
        }
        drop(self.leases);
        told(self.task.complete_within(WAIT).await, session);
    }
}

async fn release(leases: Vec<(NamedPair, Lease)>, wait: Duration, session: &mut Session) {
    for (_, lease) in leases {
        told(lease.release_within(wait).await, session);
    }
}

/// The command line goes before the file.
fn plan(args: ExecArgs, file: RunFile, inside: Option<String>) -> Result<Plan, Problem> {
    let leases = if args.leases.is_empty() { file.leases()? } else { args.leases };
    if leases.is_empty() {
        return Err(Problem::usage("no lease is named")
            .next("--lease INTENT@TARGET, or `leases` in leasehold.run.toml; `leasehold grants` lists what there is"));
    }
    distinct(&leases)?;
    let said = args.purpose.is_some();
    let purpose = args.purpose.or(file.purpose).unwrap_or_default();
    let inside = inside.filter(|task| !task.is_empty());
    let manifest = args.manifest.digest()?;
    let ExecArgs { refs, how, command, person, .. } = args;
    let passed_over = inside.is_some() && (said || !refs.is_empty());
    Ok(Plan { leases, purpose, refs, how, command, inside, manifest, person, passed_over })
}

/// Names must differ, and so must unnamed targets: told before anything is minted.
fn distinct(leases: &[NamedPair]) -> Result<(), Problem> {
    for (place, one) in leases.iter().enumerate() {
        let same = |other: &&NamedPair| match (&one.name, &other.name) {
            (Some(one), Some(other)) => one == other,
            (None, None) => one.pair.target == other.pair.target,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if let Some(other) = leases.iter().skip(place + 1).find(same) {
            return Err(vars::clash(&one.pair.to_string(), &other.pair.to_string()));
        }
    }
    Ok(())
}

async fn open(client: &Client, plan: &mut Plan) -> Result<Task, Problem> {
    if let Some(task) = &plan.inside {
        let joined = Task::join(client, task).await?;
        plan.person.fits(joined.opened()).await?;
        return Ok(joined);
    }
    let mut builder = client.task().purpose(plan.purpose.clone()).refs(plan.refs.clone());
    if let Some(digest) = &plan.manifest {
        builder = builder.fingerprint(digest);
    }
    builder = std::mem::take(&mut plan.person).stands_behind(builder);
    for pair in scope(&plan.leases) {
        builder = builder.pair(pair);
    }
    Ok(builder.open().await?)
}

/// A scope has no duplicates: two leases of one pair share it, without what would narrow one of them alone.
fn scope(leases: &[NamedPair]) -> Vec<leasehold_client::Pair> {
    let mut scope: Vec<leasehold_client::Pair> = Vec::new();
    for NamedPair { pair, .. } in leases {
        match scope.iter_mut().find(|known| known.to_string() == pair.to_string()) {
            Some(known) if known != pair => {
                known.max_ttl = None;
                known.params.clear();
            }
            Some(_) => {}
            None => scope.push(pair.clone()),
        }
    }
    scope
}

/// The command's code is what counts; what is not proven dead is said beside it.
fn told(ending: Result<Ending, leasehold_client::ClientError>, session: &mut Session) {
    match ending {
        Ok(ending) if ending.pending.is_empty() => {}
        Ok(ending) => session.console.note(&format!("warning: {ending}; the broker goes on")),
        // Lost, revoked or ended by somebody else: there is nothing left to end.
        Err(error) if ["TASK_ENDED", "TASK_LOST", "LEASE_ENDED"].iter().any(|reason| error.is(reason)) => {}
        Err(error) => {
            session.console.note(&format!("warning: could not end the leases: {error}; they expire"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases(texts: &[&str]) -> Vec<NamedPair> {
        texts.iter().map(|text| parse::named_pair(text).unwrap()).collect()
    }

    fn check_distinct(texts: &[&str], good: bool) {
        assert_eq!(distinct(&leases(texts)).is_ok(), good, "{texts:?}");
    }

    #[test]
    fn names_must_tell_leases_apart() {
        check_distinct(&["a@db"], true);
        check_distinct(&["a@db", "b@db"], false);
        check_distinct(&["A=a@db", "b@db"], true);
        check_distinct(&["A=a@db", "A=b@other"], false);
        check_distinct(&["a@db", "a@cache"], true);
    }

    #[test]
    fn two_leases_of_one_pair_share_a_scope() {
        let scope = scope(&leases(&["A=a@db,ttl=5m", "B=a@db", "C=b@db,ttl=1m"]));
        let told: Vec<_> = scope.iter().map(|pair| (pair.to_string(), pair.max_ttl)).collect();
        assert_eq!(told, [("a@db".into(), None), ("b@db".into(), Some(Duration::from_secs(60)))]);
    }

    fn args(leases: &[&str], purpose: Option<&str>) -> ExecArgs {
        ExecArgs {
            leases: self::leases(leases),
            agent: None,
            purpose: purpose.map(str::to_owned),
            refs: Vec::new(),
            how: How::Files,
            manifest: ManifestArgs::default(),
            person: PersonArgs::default(),
            command: vec!["true".into()],
        }
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let file = || RunFile { leases: vec!["f@db".into()], purpose: Some("file".into()) };
        let plan =
            |args, file, inside: Option<&str>| plan(args, file, inside.map(str::to_owned)).ok().unwrap();
        let own = plan(args(&["a@db"], Some("own")), file(), None);
        assert_eq!((own.leases[0].pair.to_string().as_str(), own.purpose.as_str()), ("a@db", "own"));
        let from_file = plan(args(&[], None), file(), Some("task_1"));
        assert_eq!(
            (from_file.leases[0].pair.to_string().as_str(), from_file.purpose.as_str()),
            ("f@db", "file")
        );
        assert_eq!(from_file.inside.as_deref(), Some("task_1"));
        assert_eq!(plan(args(&["a@db"], None), RunFile::default(), Some("")).inside, None);
        assert!(super::plan(args(&[], None), RunFile::default(), None).is_err());
    }
}
