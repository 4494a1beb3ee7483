//! The binary: parses, and dispatches. What asks a broker goes to the CLI, what is a broker to the server.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use leasehold::cli::{
    self, BackupArgs, CheckArgs, Cli, Command, DemoArgs, DevArgs, DevCommand, Format, IdentityArgs,
    IdentityCommand, InitArgs, RestoreArgs, ServeArgs, SpireEntriesArgs,
};
use leasehold::config::Trust;
use leasehold::dev::{demo, run};
use leasehold::init::{TargetSpec, database, init};
use leasehold::server::{self, Checked};
use leasehold::telemetry;

/// How long `dev env` waits for a dev that is starting: longer than a throwaway database takes.
const STARTING: Duration = Duration::from_secs(20);
/// Bad config (sysexits.h).
const BAD_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let Cli { output, command } = match cli::parse(std::env::args_os()) {
        Ok(asked) => asked,
        Err(code) => return code,
    };
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(dispatch(command, output)),
        Err(error) => fail(output, 1, &error),
    }
}

async fn dispatch(command: Command, output: Format) -> ExitCode {
    match command {
        Command::Serve(args) => serve(args, output).await,
        Command::Check(args) => check(args, output).await,
        Command::Backup(args) => backup(args, output).await,
        Command::Restore(args) => restore(args, output).await,
        Command::Init(args) => make(args, output),
        Command::Identity(IdentityArgs { command: IdentityCommand::SpireEntries(args) }) => {
            spire_entries(&args, output)
        }
        Command::Dev(args) => develop(args, output).await,
        Command::Demo(DemoArgs { keep, only, pg_bin }) => {
            let options = demo::Options { keep, only, pg_bin, ..demo::Options::default() };
            demo::run(&options, &mut std::io::stdout()).await
        }
        Command::Ask(ask) => cli::run(ask, output).await,
    }
}

const fn trust(dev_trust: bool) -> Trust {
    if dev_trust { Trust::Dev } else { Trust::Production }
}

async fn serve(args: ServeArgs, output: Format) -> ExitCode {
    telemetry::init();
    match server::serve_until_signal(args.config, trust(args.dev_trust), args.force).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(output, error.exit_code(), &error),
    }
}

async fn backup(args: BackupArgs, output: Format) -> ExitCode {
    match server::backup(args.config, trust(args.dev_trust), args.to.clone(), server::host_time()).await {
        Ok(copied) => {
            let (chain, seq) = (copied.head.chain.as_str(), copied.head.seq);
            match output {
                Format::Json => say(&serde_json::json!({
                    "file": args.to, "bytes": copied.bytes, "chain": chain, "seq": seq,
                    "head": copied.head.hash.to_string(),
                })),
                Format::Text => say(&format!(
                    "{}: {} bytes, chain {chain} verified up to entry {seq}, {}",
                    args.to.display(),
                    copied.bytes,
                    copied.head.hash
                )),
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(output, error.exit_code(), &error),
    }
}

async fn restore(args: RestoreArgs, output: Format) -> ExitCode {
    let how = server::Restore { from: args.from, replace: args.replace, incarnation: args.incarnation };
    match server::restore(args.config, trust(args.dev_trust), how, server::host_time()).await {
        Ok(back) => {
            let (old, chain) = (&back.copy.head, back.chain.as_str());
            match output {
                Format::Json => say(&serde_json::json!({
                    "chain": chain, "old_chain": old.chain.as_str(), "old_seq": old.seq,
                    "old_head": old.hash.to_string(), "taken_at": back.copy.taken_at.to_string(),
                    "replaced": back.aside,
                })),
                Format::Text => say(&restored(&back)),
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(output, error.exit_code(), &error),
    }
}

fn restored(back: &server::PutBack) -> String {
    let old = &back.copy.head;
    let mut text = format!(
        "restored: chain {} goes on from {} at entry {}, a backup of {}",
        back.chain.as_str(),
        old.chain.as_str(),
        old.seq,
        back.copy.taken_at
    );
    if let Some(aside) = &back.aside {
        text.push_str(&format!("\nthe store that was there is {}", aside.display()));
    }
    text + "\nnext: start the broker, and look at leasehold status: each target is compared with the backup, what was \
            minted since is revoked, and nothing is minted in a target before that\n\
            what came of it: leasehold targets check NAME, and for good in the journal: leasehold audit export | grep \
            'reconciled a target'"
}

async fn check(args: CheckArgs, output: Format) -> ExitCode {
    let checked = server::check(&args.config, trust(args.dev_trust), args.online).await;
    match output {
        Format::Json => say(&serde_json::json!({
            "problems": checked.problems, "warnings": checked.warnings, "good": checked.good,
        })),
        Format::Text => tell(&checked),
    }
    match (checked.problems.is_empty(), checked.config_is_good) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::from(BAD_CONFIG),
    }
}

fn tell(checked: &Checked) {
    checked.good.iter().for_each(|line| say(&format!("ok: {line}")));
    checked.warnings.iter().for_each(|line| complain(&format!("warning: {line}")));
    checked.problems.iter().for_each(|line| complain(&format!("error: {line}")));
}

fn spire_entries(args: &SpireEntriesArgs, output: Format) -> ExitCode {
    match server::spire_entries(&args.config, trust(args.dev_trust), args.parent_id.as_deref()) {
        Ok(entries) => {
            match output {
                Format::Json => say(&entries.json()),
                Format::Text => say(&entries.text().trim_end()),
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(output, error.exit_code(), &error),
    }
}

async fn develop(args: DevArgs, output: Format) -> ExitCode {
    if let Some(DevCommand::Env { name, dir }) = args.command {
        let exports = run::env(&name, dir.as_deref(), STARTING, &mut std::io::stderr()).await;
        return match exports {
            Ok(exports) => {
                say(&exports.trim_end());
                ExitCode::SUCCESS
            }
            Err(error) => fail(output, 1, &error),
        };
    }
    telemetry::init();
    let options = run::Options { postgres: args.postgres, dir: args.dir, yes: args.yes };
    match run::dev(&options, &mut std::io::stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(output, error.exit_code(), &error),
    }
}

fn make(args: InitArgs, output: Format) -> ExitCode {
    let target = args.target.map(|(name, url)| format!("{name}={url}").parse::<TargetSpec>()).transpose();
    let target = match target {
        Ok(target) => target,
        Err(error) => return fail(output, 2, &error),
    };
    match init(&args.dir, target.as_ref(), &database::statements(), server::entropy().as_ref()) {
        Ok(made) => {
            say(&made);
            ExitCode::SUCCESS
        }
        Err(error) => fail(output, 1, &error),
    }
}

fn fail(output: Format, code: u8, error: &dyn Display) -> ExitCode {
    cli::fail(output, code, &error.to_string())
}

/// Nobody is left to hear of a stream that is gone.
fn say(line: &dyn Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
