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

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand};
use leasehold_client::Options;

pub use console::Format;
use console::{Console, Report};
use problem::{Exit, Problem};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use session::Session;

/// A just-in-time credential broker for AI agents and pipelines.
#[derive(Debug, Parser)]
#[command(
    name = "leasehold",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(
    after_help = "Environment: SPIFFE_ENDPOINT_SOCKET, LEASEHOLD_ADDR, LEASEHOLD_SERVER_ID, LEASEHOLD_ADMIN_ADDR\n\
    Exit codes: 0 done, 1 failed, 2 usage, 3 denied, 4 waiting for approval, 5 broker not reachable, 78 bad config"
)]
pub struct Cli {
    /// The shape of reports and errors. A report never holds a secret.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "SHAPE")]
    pub output: Format,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker.
    Serve(ServeArgs),
    /// Check a config, and tell all its problems at once.
    Check(CheckArgs),
    /// Copy the store to a file, while the broker runs.
    Backup(BackupArgs),
    /// Put a backup back, while the broker is stopped. The broker then compares every target before it mints in it.
    Restore(RestoreArgs),
    /// Write a commented config that passes `check`, with its key; overwrites nothing.
    Init(InitArgs),
    /// What the identities of a config need elsewhere.
    Identity(IdentityArgs),
    /// Run a broker with a trust domain of its own, for developing.
    Dev(DevArgs),
    /// Show the whole of it on throwaway parts, with proofs.
    Demo(DemoArgs),
    /// The commands that ask a running broker.
    #[command(flatten)]
    Ask(Ask),
}

/// `serve`.
#[derive(Debug, Args)]
#[command(after_help = "Example: leasehold serve --config /etc/leasehold/leasehold.toml")]
pub struct ServeArgs {
    /// The config.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Accept a dev trust domain, dev keys and targets in memory; binds loopback only and stamps the store.
    #[arg(long)]
    pub dev_trust: bool,
    /// Start although leases live in a target that the config has no more. Nobody revokes those.
    #[arg(long)]
    pub force: bool,
}

/// `check`.
#[derive(Debug, Args)]
#[command(after_help = "Example: leasehold check --config leasehold.toml --online")]
pub struct CheckArgs {
    /// The config.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Also dial the targets, the store and the Workload API.
    #[arg(long)]
    pub online: bool,
    /// Accept what `serve --dev-trust` accepts.
    #[arg(long)]
    pub dev_trust: bool,
}

/// `identity`.
#[derive(Debug, Args)]
pub struct IdentityArgs {
    /// What to tell.
    #[command(subcommand)]
    pub command: IdentityCommand,
}

/// What `identity` tells.
#[derive(Debug, Subcommand)]
pub enum IdentityCommand {
    /// Print the SPIRE registration entries of the broker and of everybody in its config, as commands to fill in.
    SpireEntries(SpireEntriesArgs),
}

/// `identity spire-entries`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: leasehold identity spire-entries --config /etc/leasehold/leasehold.toml \\\n             \
                  --parent-id spiffe://prod.example/spire/agent/x509pop/4f...\n\
                  It asks nobody and changes nothing; docs/spire.md says what to fill in."
)]
pub struct SpireEntriesArgs {
    /// The config.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The SPIFFE ID of the SPIRE agent that attests the workloads; left to be filled in without it.
    #[arg(long, value_name = "ID")]
    pub parent_id: Option<String>,
    /// Accept what `serve --dev-trust` accepts.
    #[arg(long)]
    pub dev_trust: bool,
}

/// `backup`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: leasehold backup --config /etc/leasehold/leasehold.toml --to /backup/leases-1.db"
)]
pub struct BackupArgs {
    /// The config of the broker whose store it is.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The copy, mode 0600. Nothing is overwritten.
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// The store is one of `serve --dev-trust`.
    #[arg(long)]
    pub dev_trust: bool,
}

/// `restore`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: leasehold restore --config /etc/leasehold/leasehold.toml --from /backup/leases-1.db"
)]
pub struct RestoreArgs {
    /// The config of the broker whose store it is.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The backup.
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// Keep the store that is there aside, instead of refusing.
    #[arg(long)]
    pub replace: bool,
    /// The incarnation to be; otherwise one more than the highest of the backup and the replaced store. Needed only
    /// where a store that was restored before is lost.
    #[arg(long, value_name = "N")]
    pub incarnation: Option<u32>,
    /// The store is one of `serve --dev-trust`.
    #[arg(long)]
    pub dev_trust: bool,
}

/// `init`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: leasehold init /etc/leasehold --target orders-db=postgres://db1.internal/orders"
)]
pub struct InitArgs {
    /// Where to write. Made if it is not there.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// A first target; the SQL that sets it up is written beside the config, and not run.
    #[arg(long, value_name = "NAME=URL", value_parser = parse::key_value)]
    pub target: Option<(String, String)>,
}

/// `dev`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Example: leasehold dev --postgres postgres://localhost/app\n         eval \"$(leasehold dev env triage)\"        in another terminal"
)]
pub struct DevArgs {
    /// What else to do in a dev trust domain.
    #[command(subcommand)]
    pub command: Option<DevCommand>,
    /// A database to lease on; throwaway parts otherwise.
    #[arg(long, value_name = "URL", env = "LEASEHOLD_DEV_POSTGRES", hide_env_values = true)]
    pub postgres: Option<String>,
    /// Where to keep sockets, keys and the store.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Run the set-up SQL without asking.
    #[arg(long)]
    pub yes: bool,
}

/// What else to do in a dev trust domain.
#[derive(Debug, Subcommand)]
pub enum DevCommand {
    /// Print the exports for one dev identity.
    #[command(after_help = "Example: eval \"$(leasehold dev env triage)\"")]
    Env {
        /// The identity: `triage`, `operator`.
        name: String,
        /// Where `dev` keeps its sockets.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example: leasehold demo --only 4")]
pub struct DemoArgs {
    /// Leave the throwaway parts running at the end.
    #[arg(long)]
    pub keep: bool,
    /// Show only this part.
    #[arg(long, value_name = "N")]
    pub only: Option<u32>,
    /// Where PostgreSQL's programs are.
    #[arg(long, value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,
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
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Leases: one minted credential each.
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Stop a lease, a task or an agent, and follow until it is confirmed.
    Revoke(revoke::RevokeArgs),
    /// Acts of stopping, on record.
    #[command(subcommand)]
    Revocations(revocations::RevocationsCommand),
    /// What a name belongs to, and the commands that stop it.
    Find(find::FindArgs),
    /// The registry of agents: whose each is, and how it stands.
    #[command(subcommand)]
    Agents(agents::AgentsCommand),
    /// The targets: how they are, and what they need.
    #[command(subcommand)]
    Targets(targets::TargetsCommand),
    /// Prove that what is revoked is dead.
    #[command(subcommand)]
    Drill(drill::DrillCommand),
    /// The journal: read it, check it, take it away.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// The broker's clock.
    #[command(subcommand)]
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
    let (what, next) = told.split_once("\n  next: ").unzip();
    let problem = Problem::new(Exit(code), what.unwrap_or(told));
    Console::process(output).problem(&Problem { next: next.map(Into::into), ..problem });
    ExitCode::from(code)
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
