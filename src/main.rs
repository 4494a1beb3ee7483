//! The binary: parses, and dispatches. What asks a broker goes to the CLI, what is a broker to the server.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use leasehold::cli::{self, CheckArgs, Cli, Command, Format, InitArgs, ServeArgs};
use leasehold::config::Trust;
use leasehold::init::{TargetSpec, database, init};
use leasehold::server::{self, Checked};
use leasehold::telemetry;

/// Bad config (sysexits.h).
const BAD_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let Cli { output, command } = Cli::parse();
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(dispatch(command, output)),
        Err(error) => fail(1, &error),
    }
}

async fn dispatch(command: Command, output: Format) -> ExitCode {
    match command {
        Command::Serve(args) => serve(args).await,
        Command::Check(args) => check(args, output).await,
        Command::Init(args) => make(args),
        Command::Dev(_) | Command::Demo(_) => fail(1, &"not in this build"),
        Command::Ask(ask) => cli::run(ask, output).await,
    }
}

const fn trust(dev_trust: bool) -> Trust {
    if dev_trust { Trust::Dev } else { Trust::Production }
}

async fn serve(args: ServeArgs) -> ExitCode {
    telemetry::init();
    match server::serve_until_signal(args.config, trust(args.dev_trust)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.exit_code(), &error),
    }
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

fn make(args: InitArgs) -> ExitCode {
    let target = args.target.map(|(name, url)| format!("{name}={url}").parse::<TargetSpec>()).transpose();
    let target = match target {
        Ok(target) => target,
        Err(error) => return fail(2, &error),
    };
    match init(&args.dir, target.as_ref(), &database::statements(), server::entropy().as_ref()) {
        Ok(made) => {
            say(&made);
            ExitCode::SUCCESS
        }
        Err(error) => fail(1, &error),
    }
}

fn fail(code: u8, error: &dyn Display) -> ExitCode {
    complain(&format!("error: {error}"));
    ExitCode::from(code)
}

/// Nobody is left to hear of a stream that is gone.
fn say(line: &dyn Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
