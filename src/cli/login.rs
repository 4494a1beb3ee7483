//! `login` and `logout`: a person's session at an OpenID issuer, and what commands take of it.

mod browser;
mod device;
mod hidden;
mod http;
mod issuer;
pub(crate) mod kept;
mod provider;
mod tokens;

use std::time::{Duration, SystemTime};

use clap::Args;
use leasehold_law::time::Timestamp;
use serde_json::{Value, json};

use super::console::Report;
use super::problem::{Exit, Problem};
use super::session::Session;
use super::view;
use issuer::Issuer;
use kept::{Kept, Sessions};
use provider::ProviderArgs;
pub(crate) use tokens::Tokens;

/// `login`.
#[derive(Debug, Args)]
#[command(after_help = "Example: leasehold login --issuer https://idp.example --client-id leasehold-cli\n\n\
    Without a display, and over SSH, you enter a code on another device; otherwise a browser here is\n\
    answered. The session lies in $XDG_STATE_HOME/leasehold (~/.local/state/leasehold), for you alone.\n\
    client.toml in $XDG_CONFIG_HOME/leasehold (~/.config/leasehold) may hold issuer, client_id, ca_file\n\
    and scopes.")]
pub struct LoginArgs {
    #[command(flatten)]
    provider: ProviderArgs,
    /// Enter a code on another device.
    #[arg(long, conflicts_with = "browser")]
    device: bool,
    /// Answer a browser on this machine; $BROWSER is started where it is set.
    #[arg(long)]
    browser: bool,
}

/// `logout`.
#[derive(Debug, Args)]
#[command(after_help = "Example: leasehold logout")]
pub struct LogoutArgs {
    /// Of which issuer; needed only where there is more than one session.
    #[arg(long, value_name = "URL", env = "LEASEHOLD_ISSUER")]
    issuer: Option<String>,
}

pub(crate) async fn run(args: LoginArgs, session: &mut Session) -> Result<Exit, Problem> {
    let sessions = Sessions::own()?;
    let issuer = Issuer::discover(args.provider.provider()?).await?;
    let by_code = args.device || !(args.browser || has_display(|name| std::env::var_os(name).is_some()));
    let by_code = by_code && (args.device || issuer.has_device_flow());
    let granted = match by_code {
        true => device::sign_in(&issuer, &mut session.console).await?,
        false => browser::sign_in(&issuer, &mut session.console).await?,
    };
    let kept = Kept::begin(issuer.provider, granted)?;
    sessions.put(&kept).await?;
    let text = format!("signed in: {}\n", line(&kept));
    session.console.report(&Report::new(text, told(&kept))).map(|()| Exit::DONE)
}

/// Whether a browser can be looked at here.
fn has_display(is_set: impl Fn(&str) -> bool) -> bool {
    !is_set("SSH_CONNECTION") && (is_set("DISPLAY") || is_set("WAYLAND_DISPLAY"))
}

pub(crate) async fn end(args: LogoutArgs, session: &mut Session) -> Result<Exit, Problem> {
    let sessions = Sessions::own()?;
    let Some(kept) = sessions.find(args.issuer.as_deref())? else {
        let report = Report::new("you are not signed in", json!({ "issuer": null, "revoked": false }));
        return session.console.report(&report).map(|()| Exit::DONE);
    };
    let issuer = kept.provider.issuer.clone();
    let left = sessions.end(&kept).await?;
    let text = format!("signed out of {issuer}; nothing of the session is left on this machine");
    session.console.report(&Report::new(text, json!({ "issuer": issuer, "revoked": left.is_none() })))?;
    match left {
        None => Ok(Exit::DONE),
        Some(problem) => {
            session.console.note("warning: the issuer did not confirm that it forgot the session:");
            session.console.problem(&problem);
            Ok(Exit::FAILED)
        }
    }
}

/// A session in one line.
pub(crate) fn line(kept: &Kept) -> String {
    let (subject, issuer) = (issuer::printable(&kept.subject), &kept.provider.issuer);
    let until = stamp(kept.expires_at);
    match kept.renews() {
        true => format!("`{subject}` at {issuer}, token until {until}, renewed by itself"),
        false => format!("`{subject}` at {issuer}, until {until}"),
    }
}

/// A session for programs. It holds no token.
pub(crate) fn told(kept: &Kept) -> Value {
    json!({
        "issuer": kept.provider.issuer, "client_id": kept.provider.client_id, "subject": kept.subject,
        "signed_in_at": stamp(kept.signed_in_at), "token_expires_at": stamp(kept.expires_at), "renews": kept.renews(),
    })
}

/// The tokens of this person's session, for the person's own commands.
pub(crate) fn person() -> Result<Tokens, Problem> {
    let kept = session()?.ok_or_else(|| {
        Problem::new(Exit::DENIED, "you are not signed in")
            .why("LEASEHOLD_ADMIN_ADDR is `https://...`: that door takes a person's token")
            .next("leasehold login")
    })?;
    Ok(Tokens::of_the_person(Sessions::own()?, kept))
}

/// Tokens of an agent in this person's session: each its own, good with a key in this process's memory.
pub(crate) fn agent(name: &str) -> Result<Tokens, Problem> {
    let kept = session()?.ok_or_else(|| {
        Problem::new(Exit::DENIED, "you are not signed in")
            .why(format!("`{name}` acts in a person's session, and there is none"))
            .next("leasehold login")
    })?;
    Ok(Tokens::of_an_agent(Sessions::own()?, kept, name))
}

/// The session that commands use: that of `LEASEHOLD_ISSUER`, or the only one.
pub(crate) fn session() -> Result<Option<Kept>, Problem> {
    let issuer = std::env::var("LEASEHOLD_ISSUER").ok().filter(|issuer| !issuer.is_empty());
    // Whoever has no home, as jobs and services may, has signed in nowhere.
    let Ok(sessions) = Sessions::own() else { return Ok(None) };
    sessions.find(issuer.as_deref())
}

fn stamp(at: Timestamp) -> String {
    let since = Duration::from_millis(u64::try_from(at.0).unwrap_or_default());
    view::moment(SystemTime::UNIX_EPOCH + since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_ssh_no_browser_is_looked_at() {
        let check =
            |set: &[&str], expect| assert_eq!(has_display(|name| set.contains(&name)), expect, "{set:?}");
        check(&[], false);
        check(&["DISPLAY"], true);
        check(&["WAYLAND_DISPLAY"], true);
        check(&["DISPLAY", "SSH_CONNECTION"], false);
    }
}
