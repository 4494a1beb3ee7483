//! The binary.

use std::process::ExitCode;

use clap::Parser;
use leasehold::cli::{self, Cli, Command};
use leasehold::config::Trust;
use leasehold::dev::demo;
use leasehold::server;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    runtime.block_on(run(cli))
}

async fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Serve(args) => serve(args).await,
        Command::Ask(ask) => cli::run(ask, cli.output).await,
        Command::Demo(args) => {
            let options =
                demo::Options { keep: args.keep, only: args.only, pg_bin: args.pg_bin, program: None };
            demo::run(&options, &mut std::io::stdout()).await
        }
        Command::Check(_) | Command::Init(_) | Command::Dev(_) => ExitCode::from(2),
    }
}

async fn serve(args: cli::ServeArgs) -> ExitCode {
    let filter = EnvFilter::try_from_env("LEASEHOLD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    let trust = if args.dev_trust { Trust::Dev } else { Trust::Production };
    match server::serve_until_signal(args.config, trust).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}
