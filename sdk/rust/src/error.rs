//! What can go wrong, in types: no connection, a refusal with its reason, an answer that was lost.

use std::{collections::BTreeMap, error::Error as StdError, fmt, io, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{ChannelError, PairError, TokenSourceError};

/// `google.rpc.ErrorInfo.domain` of this broker's refusals.
const DOMAIN: &str = "leasehold.dev";

/// Why a call did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no connection; nothing was asked.
    #[error(transparent)]
    Connect(#[from] ChannelError),
    /// There is no token to come with.
    #[error(transparent)]
    Token(TokenSourceError),
    /// A variable of the environment is needed.
    #[error("`{0}` is not set")]
    Unset(&'static str),
    /// What the caller passed cannot be sent.
    #[error("{0}")]
    Invalid(String),
    /// The broker refused.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The connection broke: whether the call was carried out is not known.
    #[error("the connection to the broker broke: {0}")]
    Broken(String),
    /// No answer in time: whether the call was carried out is not known.
    #[error("the broker did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The broker answered with something that cannot be used.
    #[error("the broker's answer cannot be used: {0}")]
    BadAnswer(&'static str),
    /// The client's own thread has ended.
    #[error("the client has stopped")]
    Stopped,
}

/// A refusal, as the broker words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC status code.
    pub code: Code,
    /// The append-only reason: `FORBIDDEN`, `TASK_LOST`. Empty when the server gave none.
    pub reason: String,
    /// What was refused, in one line.
    pub message: String,
    /// Id of the decision, `dec_...`.
    pub decision: Option<String>,
    /// Why, where the broker tells.
    pub why: Option<String>,
    /// What to do about it, where the broker knows.
    pub next: Option<String>,
    /// When asking again makes sense.
    pub retry_after: Option<Duration>,
    /// The fields of the request that are not valid.
    pub violations: Vec<FieldViolation>,
    /// Where to read more.
    pub help: Vec<HelpLink>,
    /// Everything that came with the reason.
    pub metadata: BTreeMap<String, String>,
}

/// One field that is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// Its path in the request: `scope[1].intent`.
    pub field: String,
    /// What is wrong with it.
    pub what: String,
}

/// Where to read more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelpLink {
    /// What is found there.
    pub description: String,
    /// The address.
    pub url: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let marks =
            [Some(self.reason.as_str()).filter(|reason| !reason.is_empty()), self.decision.as_deref()];
        let marks: Vec<_> = marks.into_iter().flatten().collect();
        if marks.is_empty() { Ok(()) } else { write!(f, " ({})", marks.join(", ")) }
    }
}

impl ClientError {
    /// The refusal, where the broker refused.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        if let Self::Refused(refusal) = self { Some(refusal) } else { None }
    }

    /// Whether the broker refused for this reason.
    #[must_use]
    pub fn is(&self, reason: &str) -> bool {
        self.refusal().is_some_and(|refusal| refusal.reason == reason)
    }

    /// Whether nobody knows what became of the call.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Late(_))
    }

    /// Whether the broker cannot be reached now, and may be later.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.is_unknown()
            || matches!(
                self,
                Self::Connect(
                    ChannelError::Unreachable { .. }
                        | ChannelError::Timeout { .. }
                        | ChannelError::NoSocket { .. }
                )
            )
    }
}

impl From<PairError> for ClientError {
    fn from(error: PairError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<Status> for ClientError {
    /// A status with a source was made on this side, by the transport; one without was sent by the server.
    fn from(status: Status) -> Self {
        let Some(source) = status.source() else { return Self::Refused(Box::new(Refusal::read(&status))) };
        let mut cause = Some(source);
        while let Some(error) = cause {
            if let Some(channel) = error.downcast_ref::<ChannelError>() {
                return Self::Connect(channel.clone());
            }
            if let Some(token) = error.downcast_ref::<TokenSourceError>() {
                return Self::Token(token.clone());
            }
            if let Some(reason) = error.downcast_ref::<io::Error>().and_then(no_dial) {
                return Self::Connect(ChannelError::Unreachable { addr: "the broker".to_owned(), reason });
            }
            cause = error.source();
        }
        Self::Broken(deepest(source))
    }
}

/// Only a dial fails in these ways: nothing was sent.
fn no_dial(error: &io::Error) -> Option<String> {
    let dial = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
    dial.then(|| error.to_string())
}

/// The innermost cause: the outer ones of a transport error only say "transport error".
fn deepest(error: &dyn StdError) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

impl Refusal {
    fn read(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let metadata: BTreeMap<_, _> =
            info.map(|info| info.metadata.clone().into_iter().collect()).unwrap_or_default();
        let said = |key: &str| metadata.get(key).filter(|text| !text.is_empty()).cloned();
        let violation = |found: &tonic_types::FieldViolation| FieldViolation {
            field: found.field.clone(),
            what: found.description.clone(),
        };
        let link = |found: &tonic_types::HelpLink| HelpLink {
            description: found.description.clone(),
            url: found.url.clone(),
        };
        Self {
            code: status.code(),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            decision: said("decision"),
            why: said("why"),
            next: said("next"),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            violations: details
                .bad_request()
                .iter()
                .flat_map(|bad| &bad.field_violations)
                .map(violation)
                .collect(),
            help: details.help().iter().flat_map(|help| &help.links).map(link).collect(),
            metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_refusal_is_read_whole() {
        let told = [("decision", "dec_1"), ("why", "a"), ("next", "b"), ("pair", "x@y")];
        let told: HashMap<_, _> = told.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let mut details = ErrorDetails::with_error_info("FORBIDDEN", DOMAIN, told);
        details.set_retry_info(Some(Duration::from_secs(3)));
        details
            .add_bad_request_violation("ttl", "too long")
            .add_help_link("policies", "https://example.test");
        let status = Status::with_error_details(Code::PermissionDenied, "denied x@y", details);
        let error = ClientError::from(status);
        let refusal = error.refusal().unwrap();
        assert_eq!(error.to_string(), "denied x@y (FORBIDDEN, dec_1)");
        assert_eq!((refusal.why.as_deref(), refusal.next.as_deref()), (Some("a"), Some("b")));
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(3)));
        assert_eq!(refusal.violations, [FieldViolation { field: "ttl".into(), what: "too long".into() }]);
        assert_eq!(refusal.help.len(), 1);
        assert_eq!(refusal.metadata["pair"], "x@y");
    }

    #[test]
    fn another_domain_s_reason_is_not_ours() {
        let details = ErrorDetails::with_error_info("FROZEN", "elsewhere.example", HashMap::new());
        let status = Status::with_error_details(Code::Unavailable, "no", details);
        assert!(!ClientError::from(status).is("FROZEN"));
    }

    #[test]
    fn a_failed_dial_keeps_its_type() {
        let refused = ChannelError::Unreachable { addr: "h:1".into(), reason: "refused".into() };
        let error = ClientError::from(Status::from_error(Box::new(refused.clone())));
        assert!(matches!(&error, ClientError::Connect(found) if *found == refused), "{error:?}");
        assert!(error.is_away());
    }

    #[test]
    fn nobody_at_the_socket_is_no_unknown_outcome() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = ClientError::from(Status::from_error(Box::new(refused)));
        assert!(error.is_away() && !error.is_unknown(), "{error:?}");
    }

    #[test]
    fn a_broken_connection_is_an_unknown_outcome() {
        let error = ClientError::from(Status::from_error(Box::new(io::Error::other("reset"))));
        assert!(error.is_unknown(), "{error:?}");
    }
}
