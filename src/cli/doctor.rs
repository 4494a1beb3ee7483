//! `doctor`: each step between here and a lease, and what mends the first that fails.

use std::time::{Duration, SystemTime};

use clap::Args;
use leasehold_client::{ChannelError, Client, ClientError, Credential, Pair, system_time, v1};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use super::{
    console::Report,
    parse,
    problem::{Exit, Problem},
    session::Session,
    view::length,
    whoami::freeze_line,
};

/// Beyond this, leases begin to look longer or shorter than they are.
const CLOCK_BOUND: Duration = Duration::from_secs(60);
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// In the order in which a connection meets them.
const STEPS: [&str; 6] =
    ["workload api socket", "identity (SVID)", "address", "trust bundle", "server id", "handshake"];
/// The same for a caller that comes with a token.
const TOKEN_STEPS: [&str; 3] = ["address", "certificate", "token"];

/// `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Example: leasehold doctor --try orders.read@orders-db")]
pub struct DoctorArgs {
    /// Also lease this pair in a task of its own, dial its target from here, and give it back.
    #[arg(long = "try", value_name = "INTENT@TARGET", value_parser = parse::pair)]
    pair: Option<Pair>,
}

/// What was found at one step.
struct Step {
    name: String,
    state: State,
    told: String,
    fix: String,
}

/// How a step is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Bad,
    NotReached,
}

impl Step {
    fn good(name: &str, told: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state: State::Good, told: told.into(), fix: String::new() }
    }

    fn bad(name: &str, problem: Problem) -> Self {
        let told = problem.why.map_or(problem.what.clone(), |why| format!("{}: {why}", problem.what));
        Self {
            name: name.to_owned(),
            state: State::Bad,
            told,
            fix: problem.next.map(Into::into).unwrap_or_default(),
        }
    }

    fn not_reached(name: &str) -> Self {
        let (told, fix) = (String::new(), String::new());
        Self { name: name.to_owned(), state: State::NotReached, told, fix }
    }
}

pub(crate) async fn run(args: DoctorArgs, session: &mut Session) -> Result<Exit, Problem> {
    let takes_tokens = session.options.takes_tokens();
    let steps = match Client::connect(session.options.clone()).await {
        Err(error) => until(error, takes_tokens),
        Ok(client) => {
            let mut steps: Vec<_> = names(takes_tokens).iter().map(|name| Step::good(name, "")).collect();
            steps.extend(beyond(&client).await);
            if let Some(pair) = args.pair {
                steps.push(attempt(&client, pair).await);
            }
            steps
        }
    };
    session.console.report(&report(&steps))?;
    let healthy = steps.iter().all(|step| step.state == State::Good);
    Ok(if healthy { Exit::DONE } else { Exit::FAILED })
}

/// The steps of a connection that did not come about: those before the failing one were passed.
fn until(error: ClientError, takes_tokens: bool) -> Vec<Step> {
    let failed = match &error {
        ClientError::Connect(ChannelError::UntrustedServer { .. }) if takes_tokens => 1,
        ClientError::Connect(_) if takes_tokens => 0,
        ClientError::Connect(channel) => failing_step(channel),
        ClientError::Token(_) => 2,
        ClientError::Unset(_)
        | ClientError::Invalid(_)
        | ClientError::Refused(_)
        | ClientError::Broken(_)
        | ClientError::Late(_)
        | ClientError::BadAnswer(_)
        | ClientError::Stopped => 0,
    };
    let mut error = Some(error);
    let step = |(place, name): (usize, &&str)| match place.cmp(&failed) {
        std::cmp::Ordering::Less => Step::good(name, ""),
        std::cmp::Ordering::Equal => match error.take() {
            Some(error) => Step::bad(name, error.into()),
            None => Step::not_reached(name),
        },
        std::cmp::Ordering::Greater => Step::not_reached(name),
    };
    names(takes_tokens).iter().enumerate().map(step).collect()
}

const fn names(takes_tokens: bool) -> &'static [&'static str] {
    if takes_tokens { &TOKEN_STEPS } else { &STEPS }
}

fn failing_step(error: &ChannelError) -> usize {
    match error {
        ChannelError::NoIdentityIssued { .. } | ChannelError::BadIdentity { .. } => 1,
        ChannelError::Unreachable { .. } | ChannelError::Timeout { .. } => 2,
        ChannelError::UntrustedServer { .. } => 3,
        ChannelError::WrongServerId { .. } => 4,
        ChannelError::Refused { .. } => 5,
        // Whatever is not known yet comes first: nothing was passed for sure.
        ChannelError::NoSocket { .. }
        | ChannelError::NotAllowed { .. }
        | ChannelError::BadEndpoint { .. }
        | _ => 0,
    }
}

async fn beyond(client: &Client) -> Vec<Step> {
    match client.whoami().await {
        Ok(answer) => vec![registration(&answer), freeze(&answer), clock(&answer, SystemTime::now())],
        Err(error) => vec![Step::bad("answer", error.into())],
    }
}

fn registration(answer: &v1::WhoAmIResponse) -> Step {
    if answer.registered {
        return Step::good("registration", format!("{}, owner {}", answer.id, answer.owner));
    }
    let problem = Problem::failed(format!("{} is not registered with {}", answer.id, answer.broker)).next(format!(
        "have this added to the broker's config:\n[agents.\"{}\"]\nowner = \"person:NAME\"\nautonomy = \"act\"",
        answer.id
    ));
    Step::bad("registration", problem)
}

fn freeze(answer: &v1::WhoAmIResponse) -> Step {
    match &answer.frozen {
        None => Step::good("freeze", "none"),
        Some(found) => {
            let problem = Problem::failed(format!("frozen {}", freeze_line(found)));
            Step::bad(
                "freeze",
                problem.next(format!("ask for `leasehold revocations lift {}`", found.revocation)),
            )
        }
    }
}

fn clock(answer: &v1::WhoAmIResponse, now: SystemTime) -> Step {
    let Some(theirs) = system_time(answer.server_time) else { return Step::not_reached("clock") };
    let apart = now.duration_since(theirs).unwrap_or_else(|error| error.duration());
    let told = format!("{} apart from the broker's", length(apart));
    if apart <= CLOCK_BOUND {
        return Step::good("clock", told);
    }
    Step::bad("clock", Problem::failed(told).next("is NTP running on both machines?"))
}

/// A lease for real, and a dial to where it leads; the task ends in any case.
async fn attempt(client: &Client, pair: Pair) -> Step {
    let name = format!("lease and target of {pair}");
    match lease_and_dial(client, pair).await {
        Ok(told) => Step::good(&name, told),
        Err(problem) => Step::bad(&name, problem),
    }
}

async fn lease_and_dial(client: &Client, pair: Pair) -> Result<String, Problem> {
    let task = client.task().pair(pair.clone()).purpose("leasehold doctor --try").open().await?;
    let lease = match task.lease_pair(pair, None).await {
        Ok(lease) => lease,
        Err(error) => {
            // Whatever becomes of that, the refusal is what matters here.
            drop(task.abort("no lease to try", Duration::ZERO).await);
            return Err(error.into());
        }
    };
    let dialled = dial(&lease.credential()).await;
    let ending = task.complete().await?;
    dialled.map(|told| format!("{told}; given back: {ending}"))
}

async fn dial(credential: &Credential) -> Result<String, Problem> {
    let Some(host) = credential.part("host") else {
        return Ok("leased; it names no host to dial".to_owned());
    };
    if host.starts_with('/') {
        return Ok(format!("leased; the target is on the socket {host}"));
    }
    let port = credential.part("port").and_then(|port| port.parse().ok()).unwrap_or(5432);
    let mend = "check `agents` of the target in the broker's config, and the network between";
    match timeout(DIAL_LIMIT, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok(format!("leased, and {host}:{port} answers")),
        Ok(Err(error)) => {
            Err(Problem::failed(format!("cannot reach {host}:{port}")).why(error.to_string()).next(mend))
        }
        Err(_) => Err(Problem::failed(format!("{host}:{port} does not answer")).next(mend)),
    }
}

fn report(steps: &[Step]) -> Report {
    let width = steps.iter().map(|step| step.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for step in steps {
        let (mark, _) = marks(step.state);
        let line = format!("{mark:<4} {:<width$}  {}", step.name, step.told);
        text.push_str(line.trim_end());
        text.push('\n');
        step.fix.lines().for_each(|line| text.push_str(&format!("       next: {line}\n")));
    }
    let json: Vec<Value> = steps
        .iter()
        .map(|step| json!({"step": step.name, "state": marks(step.state).1, "told": step.told, "next": step.fix}))
        .collect();
    Report::new(text, json!({"steps": json}))
}

fn marks(state: State) -> (&'static str, &'static str) {
    match state {
        State::Good => ("ok", "good"),
        State::Bad => ("BAD", "bad"),
        State::NotReached => ("-", "not-reached"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failing_step_is_named_with_its_fix() {
        let error = ChannelError::WrongServerId {
            expected: "spiffe://prod.example/leasehold".into(),
            found: "spiffe://prod.example/other".into(),
        };
        insta::assert_snapshot!(report(&until(error.into(), false)).text);
    }

    #[test]
    fn a_clock_far_off_is_bad() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |seconds| v1::WhoAmIResponse {
            server_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            ..v1::WhoAmIResponse::default()
        };
        assert!(clock(&at(1_000_059), now).state == State::Good);
        assert!(clock(&at(999_941), now).state == State::Good);
        assert!(clock(&at(1_000_061), now).state == State::Bad);
    }
}
