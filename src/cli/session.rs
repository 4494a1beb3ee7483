//! What every command has: a console, and the doors of the broker.

use std::{
    future::Future,
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use leasehold_client::{ChannelError, Client, ClientError, Options, Platform};

use super::{console::Console, login, problem::Problem, view::length};

/// What a command works with.
pub(crate) struct Session {
    pub(crate) console: Console,
    pub(crate) options: Options,
}

/// Which door a command that both doors serve takes.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct DoorArgs {
    /// Ask at the admin door, as an operator. Done by itself where nothing here proves an agent: no
    /// SPIFFE_ENDPOINT_SOCKET, and where LEASEHOLD_ADDR is a door for tokens, no LEASEHOLD_TOKEN_FILE and no job or pod.
    #[arg(long)]
    pub admin: bool,
}

/// How much a list shows.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct LimitArgs {
    /// The most to show, 1 to 100000.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
}

impl Session {
    pub(crate) fn new(console: Console, options: Options) -> Self {
        Self { console, options }
    }

    /// The agents' door.
    pub(crate) async fn agents(&self) -> Result<Client, Problem> {
        let connected = Client::connect(self.options.clone()).await;
        connected.map(talking).map_err(|error| {
            let signed_in = matches!(error, ClientError::Token(_)) && matches!(login::session(), Ok(Some(_)));
            let problem = Problem::from(error);
            match signed_in {
                true => problem.next("as an agent in your session: leasehold exec --agent NAME -- COMMAND"),
                false => problem,
            }
        })
    }

    /// The admin door.
    pub(crate) async fn admin(&self) -> Result<Client, Problem> {
        if !self.options.admin_addr.starts_with("https://") {
            let client = Client::connect_admin(self.options.clone()).await;
            return Ok(talking(client.map_err(|error| self.admin_door(error))?));
        }
        let tokens = login::person()?;
        Ok(talking(Client::connect_admin_with(self.options.clone(), Arc::new(tokens)).await?))
    }

    /// What stood in the way at the operators' door, which is the broker's own.
    fn admin_door(&self, error: ClientError) -> Problem {
        let is_away = matches!(&error, ClientError::Connect(ChannelError::NoSocket { .. }));
        let problem = Problem::from(error);
        if !is_away || !self.options.admin_addr.starts_with("unix:") {
            return problem;
        }
        problem.next(
            "is `leasehold serve` running on this host? `listen.admin` in its config names the socket: export \
             LEASEHOLD_ADMIN_ADDR=unix:/path; of `leasehold dev`: eval \"$(leasehold dev env operator)\"",
        )
    }

    /// The door for tokens, as an agent in this person's session.
    pub(crate) async fn as_agent(&self, agent: &str) -> Result<Client, Problem> {
        if !self.options.takes_tokens() {
            return Err(Problem::usage("an agent in your session comes with a token, to a door for tokens")
                .why(format!("LEASEHOLD_ADDR is `{}`", self.options.addr))
                .next("export LEASEHOLD_ADDR=https://host:port, where the broker's `listen.bearer` is"));
        }
        let tokens = login::agent(agent)?;
        Ok(talking(Client::connect_with(self.options.clone(), Arc::new(tokens)).await?))
    }

    /// The agents' door for those who have an agent's identity, else the admin door.
    pub(crate) async fn either(&self, door: DoorArgs) -> Result<Client, Problem> {
        let on_a_platform = Platform::detect().is_some();
        match door.admin || !proves_an_agent(&self.options, on_a_platform) {
            true => self.admin().await,
            false => self.agents().await,
        }
    }
}

/// Whether something here proves an agent. At a door for tokens of which there is none here, whoever asks is taken for a
/// person where the admin door takes people, and else is told what is missing.
fn proves_an_agent(options: &Options, on_a_platform: bool) -> bool {
    let has_token = options.token_file.is_some() || on_a_platform;
    let takes_people = options.admin_addr.starts_with("https://");
    options.workload_api.is_some() || (options.takes_tokens() && (has_token || !takes_people))
}

/// What an operator is told who came to the agents' door, with a command that both doors serve.
pub(crate) fn for_operators(problem: impl Into<Problem>) -> Problem {
    let problem = problem.into();
    match problem.reason.as_deref() {
        Some("UNKNOWN_AGENT") => problem
            .next("an operator asks with --admin; an agent is registered first: leasehold agents apply FILE"),
        Some(_) | None => problem,
    }
}

/// A pause that is no longer than this is not worth a word.
const UNSAID: Duration = Duration::from_millis(900);

/// A client that says what it waits for, so that nobody sits before a silent screen.
fn talking(client: Client) -> Client {
    client.on_wait(|error, pause| {
        if pause > UNSAID {
            let line = wait_line(error, pause);
            drop(writeln!(io::stderr(), "leasehold: {line}"));
        }
    });
    client
}

fn wait_line(error: &ClientError, pause: Duration) -> String {
    let pause = length(Duration::from_secs(pause.as_secs().max(1)));
    let Some(refusal) = error.refusal() else { return format!("waiting {pause} to ask again: {error}") };
    let why = refusal.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("waiting {pause} to ask again: {} ({}){why}", refusal.message, refusal.reason)
}

/// Reads pages until there are `limit` things or no more; says whether more were left.
pub(crate) async fn pages<T, F>(
    limit: LimitArgs,
    mut page: impl FnMut(i32, String) -> F,
) -> Result<(Vec<T>, bool), ClientError>
where
    F: Future<Output = Result<(Vec<T>, String), ClientError>>,
{
    let limit = limit.limit;
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let room = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        let (more, next) = page(i32::try_from(room.min(1000)).unwrap_or(1000), token).await?;
        found.extend(more);
        let full = found.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
        if next.is_empty() || full {
            return Ok((found, !next.is_empty()));
        }
        token = next;
    }
}

/// The last line of a list that was cut.
pub(crate) fn more_line(more: bool) -> &'static str {
    if more { "there are more: --limit N shows them\n" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(limit: u32, expect: (usize, bool)) {
        // 25 things, at most 10 a page.
        let answer = pages(LimitArgs { limit }, |size, token: String| async move {
            let start = token.parse::<usize>().unwrap_or(0);
            let end = (start + usize::try_from(size.min(10)).unwrap()).min(25);
            let next = if end < 25 { end.to_string() } else { String::new() };
            Ok(((start..end).collect::<Vec<_>>(), next))
        });
        let (found, more) = answer.await.unwrap();
        assert_eq!((found.len(), more), expect);
        assert!(found.iter().enumerate().all(|(place, number)| place == *number));
    }

    #[test]
    fn whoever_has_nothing_of_an_agent_asks_at_the_admin_door() {
        let check = |set: &[(&str, &str)], on_a_platform, expect| {
            let lookup =
                |key: &str| set.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned());
            let options = Options::from_lookup(lookup);
            assert_eq!(proves_an_agent(&options, on_a_platform), expect, "{set:?} {on_a_platform}");
        };
        let spiffe = ("SPIFFE_ENDPOINT_SOCKET", "unix:/run/spire/agent.sock");
        let tokens = ("LEASEHOLD_ADDR", "https://leasehold.example:8445");
        let people = ("LEASEHOLD_ADMIN_ADDR", "https://leasehold.example:8444");
        let file = ("LEASEHOLD_TOKEN_FILE", "/run/token");
        check(&[], false, false);
        check(&[people], false, false);
        check(&[spiffe], false, true);
        check(&[spiffe, tokens, people], false, true);
        check(&[tokens, people], false, false);
        check(&[tokens, people, file], false, true);
        check(&[tokens, people], true, true);
        check(&[tokens], false, true);
    }

    #[tokio::test]
    async fn pages_are_read_to_the_limit() {
        check(5, (5, true)).await;
        check(15, (15, true)).await;
        check(25, (25, false)).await;
        check(100, (25, false)).await;
    }
}
