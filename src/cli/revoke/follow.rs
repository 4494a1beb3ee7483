//! Follows a revocation until each lease is confirmed or named stuck. Ctrl-C leaves it running.

use std::time::Duration;

use leasehold_client::{Client, ClientError, v1};
use tonic::Streaming;

use super::super::{
    console::Report,
    json,
    problem::{Exit, Problem},
    session::Session,
    task::outcome_row,
};

/// Watches that may break in a row before it is given up; the broker goes on all the same.
const BREAKS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(2);

/// Where following begins.
pub(crate) enum Follow {
    /// An answer that is streaming already.
    Stream(Box<Streaming<v1::RevocationProgress>>),
    /// A revocation, by its id.
    Id(String),
}

type Progress = Result<Option<v1::RevocationProgress>, ClientError>;

/// Reports progress until there is no more, and says how it went.
pub(crate) async fn follow(client: &Client, from: Follow, session: &mut Session) -> Result<Exit, Problem> {
    let (mut stream, mut id) = match from {
        Follow::Stream(stream) => (Some(*stream), String::new()),
        Follow::Id(id) => (None, id),
    };
    let mut breaks = 0;
    loop {
        let progress: Progress = tokio::select! {
            progress = next(client, &mut stream, &id) => progress,
            _ = tokio::signal::ctrl_c() => return left(session, &id),
        };
        match progress {
            Ok(Some(progress)) => {
                breaks = 0;
                if let Some(exit) = told(session, &progress, &mut id)? {
                    return Ok(exit);
                }
            }
            // The stream ended before all was confirmed: watch on.
            Ok(None) => stream = None,
            Err(error) if breaks < BREAKS && !id.is_empty() && error.is_away() => {
                (stream, breaks) = (None, breaks + 1);
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(cut_off(error, &id)),
        }
    }
}

/// The next message, of a new watch where there is no stream.
async fn next(client: &Client, stream: &mut Option<Streaming<v1::RevocationProgress>>, id: &str) -> Progress {
    let open = match stream {
        Some(open) => open,
        None => {
            let request = v1::WatchRevocationRequest { revocation: id.to_owned() };
            stream.insert(client.call(client.revocations().watch_revocation(request)).await?)
        }
    };
    Ok(open.message().await?)
}

fn left(session: &mut Session, id: &str) -> Result<Exit, Problem> {
    session.console.note(&format!("it goes on without you; leasehold revocations watch {id}"));
    Ok(Exit::FAILED)
}

fn cut_off(error: ClientError, id: &str) -> Problem {
    let problem = Problem::from(error);
    match id.is_empty() {
        true => problem,
        false => problem.why("the broker goes on revoking").next(format!("leasehold revocations watch {id}")),
    }
}

/// Reports one message; the exit once nothing more is to be expected.
fn told(
    session: &mut Session,
    progress: &v1::RevocationProgress,
    id: &mut String,
) -> Result<Option<Exit>, Problem> {
    let Some(revocation) = &progress.revocation else { return Ok(None) };
    id.clone_from(&revocation.id);
    session.console.report(&Report::new(text(revocation), json::revocation(revocation)))?;
    Ok(verdict(revocation, progress.done))
}

fn verdict(revocation: &v1::Revocation, done: bool) -> Option<Exit> {
    let counts = revocation.counts.unwrap_or_default();
    match (done, counts.pending > 0 && counts.stuck == counts.pending) {
        (true, _) => Some(Exit::DONE),
        (false, true) => Some(Exit::FAILED),
        (false, false) => None,
    }
}

fn text(revocation: &v1::Revocation) -> String {
    let counts = revocation.counts.unwrap_or_default();
    let freeze = if revocation.frozen { ", frozen" } else { "" };
    let mut text = format!(
        "{}: {} of {} confirmed, {} pending, {} stuck, {} residual{freeze}\n",
        revocation.id, counts.confirmed, counts.total, counts.pending, counts.stuck, counts.residual
    );
    for outcome in &revocation.outcomes {
        let row = outcome_row(outcome);
        text.push_str(&format!("  {}\n", row.join("  ").trim_end()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pending: u32, stuck: u32, done: bool, expect: Option<Exit>) {
        let counts =
            Some(v1::RevocationCounts { total: 3, pending, stuck, ..v1::RevocationCounts::default() });
        let revocation = v1::Revocation { counts, ..v1::Revocation::default() };
        assert_eq!(verdict(&revocation, done), expect, "{pending} pending, {stuck} stuck");
    }

    #[test]
    fn it_ends_confirmed_or_stuck() {
        check(0, 0, true, Some(Exit::DONE));
        check(2, 0, false, None);
        check(2, 1, false, None);
        check(2, 2, false, Some(Exit::FAILED));
        check(0, 0, false, None);
    }
}
