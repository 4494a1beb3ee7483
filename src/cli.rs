//! People's commands. They speak gRPC through the SDK only, like any client.
//!
//! `main` runs the commands of the broker itself (`serve`, `check`, `init`, `dev`, `demo`); [`run`] runs the rest.

mod agents;
mod audit;
mod clock;
mod console;
mod deliver;
mod doctor;
mod drill;
mod exec;
mod find;
mod grants;
mod json;
mod lease;
mod login;
mod manifest;
mod own;
mod parse;
mod problem;
mod propose;
mod revocations;
mod revoke;
mod session;
mod status;
mod targets;
mod task;
mod usage;
mod view;
mod whoami;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use leasehold_client::Options;

pub use console::Format;
use console::{Console, Report};
pub use own::{
    BackupArgs, CheckArgs, DemoArgs, DevArgs, DevCommand, IdentityArgs, IdentityCommand, InitArgs,
    RestoreArgs, ServeArgs, SpireEntriesArgs,
};
use problem::{Exit, Problem};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use session::Session;

/// Options of every command come after its own.
const LAST: usize = 1000;

/// What is told below the commands. Defaults are those of the SDK's options.
const HELP: &str = "\
Example: leasehold demo                    the whole of it on throwaway parts, in a minute
         leasehold dev                     a broker to try things on; says what to type next
         leasehold init /etc/leasehold     where a broker of your own begins
         leasehold exec --lease orders.read@orders-db,ttl=10m -- psql -c 'select now()'

Environment of the commands that ask a broker, as an agent:
  SPIFFE_ENDPOINT_SOCKET   the SPIFFE Workload API, unix:/path
  LEASEHOLD_ADDR           the broker's door, HOST:PORT, or https://HOST:PORT with a token
                           [default: 127.0.0.1:8443]
  LEASEHOLD_SERVER_ID      the SPIFFE ID that the broker must prove
                           [default: spiffe://OWN-TRUST-DOMAIN/leasehold]
  LEASEHOLD_TOKEN_FILE, LEASEHOLD_KEY_FILE, LEASEHOLD_AUDIENCE, LEASEHOLD_CA_FILE
                           at a door for tokens: docs/identity.md
  LEASEHOLD_TASK           the task to work in; exec sets it for its command
and as an operator:
  LEASEHOLD_ADMIN_ADDR     the admin door, unix:/path, HOST:PORT, or after leasehold login
                           https://HOST:PORT [default: unix:/run/leasehold/admin.sock]

What is written how:
  INTENT@TARGET            what, and where: orders.read@orders-db
  DURATION                 whole numbers with units of ms, s, m, h, d: 45s, 10m, 1h30m
  TIME                     RFC 3339: 2026-01-31T02:13:00Z
  AGENT                    a name as leasehold agents list prints it: spiffe://...

Exit codes: 0 done, 1 failed, 2 usage, 3 denied, 4 waiting for approval, 5 broker not reachable,
78 bad config; exec has its own.";

/// A just-in-time credential broker for AI agents and pipelines.
#[derive(Debug, Parser)]
#[command(
    name = "leasehold",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = HELP)]
pub struct Cli {
    /// The shape of reports and errors: `text` for people, `json` for programs, one value, or one a line where a command
    /// goes on reporting. A report never holds a secret.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "text|json",
        hide_possible_values = true,
        display_order = LAST
    )]
    pub output: Format,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker, until SIGTERM or Ctrl-C.
    Serve(ServeArgs),
    /// Check a config, and tell all its problems at once.
    Check(CheckArgs),
    /// Copy the store to a file, while the broker runs.
    Backup(BackupArgs),
    /// Put a backup back, while the broker is stopped. The broker then compares every target before it mints in it.
    Restore(RestoreArgs),
    /// Write a commented config that passes `check`, with its key; overwrites nothing.
    Init(InitArgs),
    /// What the identities of a config need elsewhere: registration entries in SPIRE.
    Identity(IdentityArgs),
    /// Run a broker with a trust domain of its own, for developing; until Ctrl-C.
    Dev(DevArgs),
    /// Show the whole of it on throwaway parts, with proofs, in about a minute.
    Demo(DemoArgs),
    /// The commands that ask a running broker.
    #[command(flatten)]
    Ask(Ask),
}

/// The commands that ask a running broker.
#[derive(Debug, Subcommand)]
pub enum Ask {
    /// Sign in as a person, at an OpenID issuer.
    Login(login::LoginArgs),
    /// End your session here and at its issuer.
    Logout(login::LogoutArgs),
    /// Who the broker says you are.
    Whoami(whoami::WhoamiArgs),
    /// What you may ask for now.
    Grants(grants::GrantsArgs),
    /// The operator's one screen; exit 1 if something needs a person.
    Status(status::StatusArgs),
    /// Look at each step between here and a lease, and say what mends it.
    Doctor(doctor::DoctorArgs),
    /// Run a command with leases, and end them with it.
    Exec(exec::ExecArgs),
    /// Ask what would be decided; nothing is minted.
    Propose(propose::ProposeArgs),
    /// Tasks: the unit of work that leases hang on.
    #[command(
        subcommand,
        after_help = "Example: leasehold task list --state open\n         leasehold task watch task_06ds..."
    )]
    Task(task::TaskCommand),
    /// Leases: one minted credential each.
    #[command(
        subcommand,
        after_help = "Example: leasehold lease list --live --target orders-db\n         leasehold lease stuck"
    )]
    Lease(lease::LeaseCommand),
    /// Stop leases now, by lease, task, agent and wider; follow until each is confirmed dead.
    Revoke(revoke::RevokeArgs),
    /// Acts of stopping, on record: what `revoke` did, how far it came, and what it keeps frozen.
    #[command(
        subcommand,
        after_help = "Example: leasehold revocations list --frozen\n         \
                      leasehold revocations lift rev_06ds... --reason 'INC-114 is closed'"
    )]
    Revocations(revocations::RevocationsCommand),
    /// What a name belongs to, from a role in a database's log up to a person, and the commands that stop it.
    Find(find::FindArgs),
    /// The registry of agents: whose each is, and how it stands.
    #[command(
        subcommand,
        after_help = "Example: leasehold agents list --owner person:ana\n         \
                      leasehold agents apply agents.toml --dry-run"
    )]
    Agents(agents::AgentsCommand),
    /// The targets: how they are, and what they need.
    #[command(
        subcommand,
        after_help = "Example: leasehold targets list\n         leasehold targets check orders-db"
    )]
    Targets(targets::TargetsCommand),
    /// Prove that what is revoked is dead.
    #[command(
        subcommand,
        after_help = "Example: leasehold drill run --target orders-db\n         leasehold drill list"
    )]
    Drill(drill::DrillCommand),
    /// The journal: read it, check it, take it away.
    #[command(
        subcommand,
        after_help = "Example: leasehold audit trace --last\n         \
                      leasehold audit export --to export.jsonl && leasehold audit verify export.jsonl"
    )]
    Audit(audit::AuditCommand),
    /// The broker's clock, where it is not trusted: nothing is issued while it has gone back.
    #[command(subcommand, after_help = "Example: leasehold clock confirm --reason 'NTP was off, is mended'")]
    Clock(clock::ClockCommand),
    /// The version of this program.
    #[command(after_help = "Example: leasehold version --output json")]
    Version,
    /// What a shell needs to complete commands.
    #[command(
        after_help = "Example: leasehold completion bash > ~/.local/share/bash-completion/completions/leasehold"
    )]
    Completion {
        /// The shell.
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
}

/// Reads the command line. Help goes to the standard output, and what is wrong to the error stream, in the shape asked
/// for.
///
/// # Errors
/// The code to exit with, where there is nothing to run.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    let args: Vec<_> = args.into_iter().collect();
    Cli::try_parse_from(&args).map_err(|error| {
        if error.use_stderr() && usage::asks_for_json(&args) {
            Console::process(Format::Json).problem(&usage::problem(&error));
        } else {
            // Nobody is left to hear of a stream that is gone.
            drop(error.print());
        }
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::USAGE.0))
    })
}

/// Tells what went wrong outside a running broker, in the shape asked for.
pub fn fail(output: Format, code: u8, told: &str) -> ExitCode {
    Console::process(output).problem(&parts(code, told));
    ExitCode::from(code)
}

/// An error of the broker's own rooms, which are written as they are read: what, why, next.
fn parts(code: u8, told: &str) -> Problem {
    let (rest, next) = told.split_once("\n  next: ").map_or((told, None), |(rest, next)| (rest, Some(next)));
    let (what, why) = rest.split_once("\n  why: ").map_or((rest, None), |(what, why)| (what, Some(why)));
    Problem { why: why.map(Into::into), next: next.map(Into::into), ..Problem::new(Exit(code), what) }
}

/// Runs a command that asks a running broker; problems are told on the error stream.
pub async fn run(command: Ask, output: Format) -> ExitCode {
    let mut session = Session::new(Console::process(output), Options::from_env());
    // Secrets pass through: no core dump and no debugger of the same user (RULES R-25). An exec'd command is not
    // bound by it.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        session.console.note(&format!("warning: this process can be dumped: {error}"));
    }
    let exit = match dispatch(command, &mut session).await {
        Ok(exit) => exit,
        Err(problem) => {
            session.console.problem(&problem);
            problem.exit
        }
    };
    ExitCode::from(exit.0)
}

async fn dispatch(command: Ask, session: &mut Session) -> Result<Exit, Problem> {
    match command {
        Ask::Login(args) => login::run(args, session).await,
        Ask::Logout(args) => login::end(args, session).await,
        Ask::Whoami(args) => whoami::run(args, session).await,
        Ask::Grants(args) => grants::run(args, session).await,
        Ask::Status(args) => status::run(args, session).await,
        Ask::Doctor(args) => doctor::run(args, session).await,
        Ask::Exec(args) => exec::run(args, session).await,
        Ask::Propose(args) => propose::run(args, session).await,
        Ask::Task(command) => task::run(command, session).await,
        Ask::Lease(command) => lease::run(command, session).await,
        Ask::Revoke(args) => revoke::run(args, session).await,
        Ask::Revocations(command) => revocations::run(command, session).await,
        Ask::Find(args) => find::run(args, session).await,
        Ask::Agents(command) => agents::run(command, session).await,
        Ask::Targets(command) => targets::run(command, session).await,
        Ask::Drill(command) => drill::run(command, session).await,
        Ask::Audit(command) => audit::run(command, session).await,
        Ask::Clock(command) => clock::run(command, session).await,
        Ask::Version => version(session),
        Ask::Completion { shell } => completion(shell, session),
    }
}

/// The commit that this was built from, where whoever built it said so. It is not looked for: the same source and the
/// same environment make the same program.
const COMMIT: Option<&str> = option_env!("LEASEHOLD_COMMIT");

fn version(session: &mut Session) -> Result<Exit, Problem> {
    let version = env!("CARGO_PKG_VERSION");
    let commit = COMMIT.map(|commit| format!(", commit {commit}")).unwrap_or_default();
    let json = serde_json::json!({"version": version, "commit": COMMIT});
    session.console.report(&Report::new(format!("leasehold {version}{commit}"), json)).map(|()| Exit::DONE)
}

fn completion(shell: clap_complete::Shell, session: &mut Session) -> Result<Exit, Problem> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "leasehold", &mut script);
    session.console.raw(&script).map(|()| Exit::DONE)
}

#[cfg(test)]
mod tests;
