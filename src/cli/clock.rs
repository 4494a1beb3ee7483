//! `clock`: what to do when the broker does not trust its clock.

use clap::Subcommand;
use leasehold_client::v1;
use serde_json::json;

use super::{
    console::Report,
    json,
    problem::{Exit, Problem},
    session::Session,
    view::{self, stamp, wire_length},
};

/// `clock`.
#[derive(Debug, Subcommand)]
pub enum ClockCommand {
    /// Accept the wall clock after it went back, so that issuing goes on.
    #[command(after_help = "Example: leasehold clock confirm --reason 'NTP was off, is mended'")]
    Confirm {
        /// Why, for the record.
        #[arg(long)]
        reason: String,
    },
}

pub(crate) async fn run(command: ClockCommand, session: &mut Session) -> Result<Exit, Problem> {
    let ClockCommand::Confirm { reason } = command;
    let client = session.admin().await?;
    let answer = client.call(client.admin().confirm_clock(v1::ConfirmClockRequest { reason })).await?;
    let clock = answer.clock.unwrap_or_default();
    let text = view::fields(&[
        ("broker time", stamp(clock.now)),
        ("offset", wire_length(clock.offset)),
        ("trusted", if clock.ok { "yes".to_owned() } else { format!("no: {}", clock.reason) }),
    ]);
    let json = json!({
        "ok": clock.ok, "offset": json::span(clock.offset), "reason": clock.reason, "now": json::time(clock.now),
    });
    session.console.report(&Report::new(text, json))?;
    Ok(if clock.ok { Exit::DONE } else { Exit::FAILED })
}
