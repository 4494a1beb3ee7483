//! What went wrong, in one shape: what, why, next; and the exit code that says it to programs.

use std::time::{Duration, SystemTime};

use leasehold_client::{ChannelError, ClientError, FieldViolation, Refusal};
use serde_json::{Value, json};
use tonic::Code;

use super::view;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit(pub(crate) u8);

impl Exit {
    pub(crate) const DONE: Self = Self(0);
    pub(crate) const FAILED: Self = Self(1);
    pub(crate) const USAGE: Self = Self(2);
    pub(crate) const DENIED: Self = Self(3);
    pub(crate) const WAITING: Self = Self(4);
    pub(crate) const UNREACHABLE: Self = Self(5);
}

/// What went wrong, for people and programs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    pub(crate) what: String,
    /// The reason word and the decision id, where there are any.
    pub(crate) reason: Option<Box<str>>,
    pub(crate) decision: Option<Box<str>>,
    pub(crate) why: Option<Box<str>>,
    pub(crate) next: Option<Box<str>>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) exit: Exit,
}

impl Problem {
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        let (reason, decision, why, next, retry_after) = (None, None, None, None, None);
        Self { what: what.into(), reason, decision, why, next, retry_after, exit }
    }

    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::new(Exit::FAILED, what)
    }

    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::USAGE, what)
    }

    pub(crate) fn why(mut self, why: impl Into<Box<str>>) -> Self {
        self.why = Some(why.into());
        self
    }

    pub(crate) fn next(mut self, next: impl Into<Box<str>>) -> Self {
        self.next = Some(next.into());
        self
    }

    pub(crate) fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// For people. `now` turns a delay into a time of day.
    pub(crate) fn text(&self, now: SystemTime) -> String {
        let marks = [self.reason.as_deref(), self.decision.as_deref()];
        let marks: Vec<_> = marks.into_iter().flatten().collect();
        let mut text = format!("error: {}", self.what);
        if !marks.is_empty() {
            text.push_str(&format!("  ({})", marks.join(", ")));
        }
        text.push('\n');
        let retry = self.retry_after.map(|delay| retry_line(now, delay));
        let next: Vec<_> = self.next.iter().map(AsRef::as_ref).chain(retry.as_deref()).collect();
        push_part(&mut text, "  why:  ", self.why.as_deref().unwrap_or_default());
        push_part(&mut text, "  next: ", &next.join("; "));
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({"error": {
            "what": self.what, "reason": self.reason, "decision": self.decision, "why": self.why, "next": self.next,
            "retry_after_ms": self.retry_after.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
            "exit": self.exit.0,
        }})
    }
}

fn retry_line(now: SystemTime, delay: Duration) -> String {
    format!("retry at {} (in {})", view::moment(now + delay), view::length(delay))
}

/// A part of several lines stays in its column.
fn push_part(text: &mut String, label: &str, part: &str) {
    for (place, line) in part.lines().enumerate() {
        let lead = if place == 0 { label } else { "        " };
        text.push_str(format!("{lead}{line}").trim_end());
        text.push('\n');
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Connect(error) => from_channel(&error),
            ClientError::Refused(refusal) => from_refusal(*refusal),
            ClientError::Unset(variable) => unset(variable),
            ClientError::Token(error) => Self::new(Exit::UNREACHABLE, error.what).next(error.next),
            ClientError::Invalid(what) => Self::usage(what),
            error @ (ClientError::Broken(_) | ClientError::Late(_)) => {
                Self::new(Exit::FAILED, error.to_string())
                    .why("whether the broker did what was asked is not known")
                    .next("look with `leasehold task list` before asking again")
            }
            error @ (ClientError::BadAnswer(_) | ClientError::Stopped) => Self::failed(error.to_string()),
        }
    }
}

fn unset(variable: &str) -> Problem {
    Problem::new(Exit::UNREACHABLE, "no identity: where the SPIFFE Workload API is, is not said")
        .why(format!("{variable} is not set"))
        .next(format!(
            "export {variable}=unix:/run/spire/agent.sock, or `eval \"$(leasehold dev env NAME)\"` with a dev broker"
        ))
}

/// What stood in the way of a connection; the broker was asked nothing.
fn from_channel(error: &ChannelError) -> Problem {
    let problem = Problem::new(Exit::UNREACHABLE, error.to_string());
    match error {
        ChannelError::NoSocket { socket, reason } => {
            Problem::new(Exit::UNREACHABLE, format!("no socket at `{socket}`")).why(reason.clone()).next(
                "is the SPIRE agent running there? `leasehold doctor` looks step by step",
            )
        }
        ChannelError::NotAllowed { socket } => {
            Problem::new(Exit::UNREACHABLE, format!("this user may not open `{socket}`"))
                .why("the socket's permissions keep this user out")
                .next("run it as a member of the socket's group (`admin_group` in the broker's config)")
        }
        ChannelError::BadEndpoint { .. } => problem.next("write it as unix:/path/to/agent.sock"),
        ChannelError::NoIdentityIssued { endpoint } => {
            Problem::new(Exit::UNREACHABLE, "no identity was issued to this process")
                .why(format!(
                    "the Workload API at `{endpoint}` answers, but no registration entry matches this process"
                ))
                .next("have an entry made for this workload (`spire-server entry create`), then try again")
        }
        ChannelError::BadIdentity { .. } => problem.next("`leasehold doctor` looks step by step"),
        ChannelError::WrongServerId { expected, found } => Problem::new(
            Exit::UNREACHABLE,
            format!("the server is `{found}`, not `{expected}`"),
        )
        .why("the server proved another identity than the broker's; nothing was sent to it")
        .next(format!(
            "check LEASEHOLD_ADDR; only if `{found}` is your broker: export LEASEHOLD_SERVER_ID={found}"
        )),
        ChannelError::UntrustedServer { .. } => {
            problem.next(
                "check LEASEHOLD_ADDR, and that the broker's SVID is from this trust domain; of a door for tokens, that \
                 LEASEHOLD_CA_FILE has its root",
            )
        }
        ChannelError::Refused { .. } => problem.next(
            "check that the broker trusts this process's trust domain, and that the SVID is not expired",
        ),
        ChannelError::Unreachable { .. } | ChannelError::Timeout { .. } => problem
            .next("check LEASEHOLD_ADDR (or LEASEHOLD_ADMIN_ADDR), and that `leasehold serve` is running"),
        _ => problem,
    }
}

fn from_refusal(refusal: Refusal) -> Problem {
    let exit = exit_of(&refusal);
    // One field is named in the message already.
    let is_told = refusal.violations.iter().all(|one| refusal.message.ends_with(&one.what));
    let fields = violations(&refusal.violations).filter(|_| !is_told);
    let why = refusal.why.clone().or(fields);
    let next = toml_to_add(&refusal).or_else(|| refusal.next.clone()).or_else(|| local_next(&refusal));
    Problem {
        what: if refusal.message.is_empty() {
            format!("refused: {:?}", refusal.code)
        } else {
            refusal.message
        },
        reason: Some(refusal.reason).filter(|reason| !reason.is_empty()).map(Into::into),
        decision: refusal.decision.map(Into::into),
        why: why.map(Into::into),
        next: next.map(Into::into),
        retry_after: refusal.retry_after,
        exit,
    }
}

fn exit_of(refusal: &Refusal) -> Exit {
    match (refusal.code, refusal.reason.as_str()) {
        (_, "NEEDS_APPROVAL") => Exit::WAITING,
        (Code::PermissionDenied | Code::Unauthenticated, _) => Exit::DENIED,
        (Code::InvalidArgument, _) => Exit::USAGE,
        // Not the broker's words, but a proxy's or nobody's.
        (Code::Unavailable, "") => Exit::UNREACHABLE,
        _ => Exit::FAILED,
    }
}

fn violations(found: &[FieldViolation]) -> Option<String> {
    let lines: Vec<_> = found.iter().map(|one| format!("{}: {}", one.field, one.what)).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// What registers an unknown agent, in lines that can be pasted.
fn toml_to_add(refusal: &Refusal) -> Option<String> {
    let agent = refusal.metadata.get("agent").filter(|_| refusal.reason == "UNKNOWN_AGENT")?;
    Some(format!(
        "have this added to the broker's config:\n[agents.\"{agent}\"]\nowner = \"person:NAME\"\nautonomy = \"act\""
    ))
}

/// What can be said from here, where the broker said nothing.
fn local_next(refusal: &Refusal) -> Option<String> {
    let decision = refusal.decision.as_deref();
    match refusal.reason.as_str() {
        "NO_PERMIT" | "FORBIDDEN" => decision.map(|id| format!("give {id} to your platform team")),
        "NOT_FOUND" => Some(
            "check the id; another agent's tasks and leases are not shown to an agent, and an operator asks with --admin"
                .to_owned(),
        ),
        _ if refusal.code == Code::Unimplemented => {
            Some("a later version of the broker does this".to_owned())
        }
        _ => refusal.help.first().map(|link| format!("{}: {}", link.description, link.url)),
    }
}

#[cfg(test)]
mod tests;
