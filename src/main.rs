//! The binary.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use leasehold::config::Trust;
use leasehold::server::{StartError, serve_until_signal};

#[derive(Parser)]
enum Command {
    /// Serves until a signal says to stop.
    Serve {
        /// The config.
        #[arg(long)]
        config: PathBuf,
        /// Accepts dev trust domains, dev keys and the memory target.
        #[arg(long)]
        dev_trust: bool,
    },
}

fn main() -> ExitCode {
    leasehold::telemetry::init();
    let Command::Serve { config, dev_trust } = Command::parse();
    let trust = if dev_trust { Trust::Dev } else { Trust::Production };
    match run(config, trust) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to hear of a stderr that is gone.
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(config: PathBuf, trust: Trust) -> Result<(), StartError> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| StartError::Host(error.to_string()))?;
    runtime.block_on(serve_until_signal(config, trust))
}
