//! What the commands take that are a broker's own, or make one: `main` runs them, without asking anybody.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::parse;

/// `serve`.
#[derive(Debug, Args)]
#[command(after_help = "Example: leasehold serve --config /etc/leasehold/leasehold.toml")]
pub struct ServeArgs {
    /// The config.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Accept a dev trust domain (`*.leasehold.test`), dev keys and targets in memory; binds loopback only and marks the
    /// store as one for developing.
    #[arg(long)]
    pub dev_trust: bool,
    /// Start although leases live in a target that the config has no more. Nobody revokes those until it is back.
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
    /// Also dial the targets, the Workload API and the issuers of tokens, and look into the store; at most 5s each. Run it
    /// as the broker's user.
    #[arg(long)]
    pub online: bool,
    /// Accept what `serve --dev-trust` accepts.
    #[arg(long)]
    pub dev_trust: bool,
}

/// `identity`.
#[derive(Debug, Args)]
#[command(after_help = "Example: leasehold identity spire-entries --config /etc/leasehold/leasehold.toml")]
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
    /// The SPIFFE ID of the SPIRE agent that attests the workloads, as `spire-server agent list` prints it. Without it
    /// `PARENT` stands there, to be filled in.
    #[arg(long, value_name = "SPIFFE_ID")]
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
    /// Accept what `serve --dev-trust` accepts.
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
    /// The backup, as `leasehold backup` wrote it.
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// Where there is a store already: keep it beside the new one as `STORE.before-N`, instead of refusing.
    #[arg(long)]
    pub replace: bool,
    /// The number of the chain that begins now; one more than the highest of the backup and the replaced store otherwise.
    /// Needed only where a store that was restored before is lost.
    #[arg(long, value_name = "N")]
    pub incarnation: Option<u32>,
    /// Accept what `serve --dev-trust` accepts.
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
    /// A first target, a PostgreSQL database by its URL without a password; the SQL that sets it up is written beside the
    /// config, and not run. Without it the config has one named `example-db`, to be replaced.
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
    /// A PostgreSQL database to lease on, as one who may make roles in it; throwaway parts otherwise.
    #[arg(long, value_name = "URL", env = "LEASEHOLD_DEV_POSTGRES", hide_env_values = true)]
    pub postgres: Option<String>,
    /// Where to keep sockets, keys and the store [default: $XDG_STATE_HOME/leasehold/dev, or
    /// ~/.local/state/leasehold/dev].
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
        /// The identity: `triage` is an agent, `operator` an operator.
        #[arg(value_name = "NAME")]
        name: String,
        /// The folder of that `dev`, where it was given one.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example: leasehold demo --only 4")]
pub struct DemoArgs {
    /// Leave the folder with config, store, log and export at the end, and say where it is.
    #[arg(long)]
    pub keep: bool,
    /// Tell only this chapter, 1 to 8.
    #[arg(long, value_name = "N")]
    pub only: Option<u32>,
    /// Where PostgreSQL's `initdb` and `postgres` are; looked for in /usr/lib/postgresql and on the PATH otherwise.
    #[arg(long, value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,
}
