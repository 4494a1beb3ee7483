//! What PostgreSQL said, sorted by who acts next. Only the message goes on: context and query text may hold a verifier.

use deadpool_postgres::{PoolError, TimeoutType};
use leasehold_backend::BackendError;
use tokio_postgres::error::SqlState;

/// Raised by our own functions: the moment before which it had to land has passed.
pub(crate) const TOO_LATE: &str = "LH001";
/// Raised by our own functions: a group reaches too much power.
pub(crate) const TOO_POWERFUL: &str = "LH002";
/// Raised by our own functions: there is no such role.
pub(crate) const ABSENT: &str = "LH003";
/// Raised by our own functions: the role is disabled.
pub(crate) const DISABLED: &str = "LH004";
/// Raised by our own statements: another claim stands.
pub(crate) const CLAIMED: &str = "LH006";
/// Raised by our own statements: the server is not the one that was claimed.
pub(crate) const STRANGER: &str = "LH007";
/// Ours: the call's time was over before it was asked. The next call has it again.
const NO_TURN: &str = "LH005";

/// Why a statement or a connection failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// SQLSTATE; `None` where the server did not answer.
    pub(crate) code: Option<String>,
    /// What happened, without any secret.
    pub(crate) what: String,
}

impl Failure {
    /// The server did not answer.
    pub(crate) fn silent(what: impl Into<String>) -> Self {
        Self { code: None, what: what.into() }
    }

    /// It was never asked, since others took the time that the call had.
    pub(crate) fn no_turn() -> Self {
        let what = "it had no turn in this call, and has one in the next".to_owned();
        Self { code: Some(NO_TURN.to_owned()), what }
    }

    /// Whether the server gave this code.
    pub(crate) fn is(&self, state: &SqlState) -> bool {
        self.code.as_deref() == Some(state.code())
    }

    /// Whether the connection is of no more use.
    pub(crate) fn is_silent(&self) -> bool {
        self.code.as_deref().is_none_or(|code| code.starts_with("08") || code.starts_with("57P"))
    }

    /// The error for the broker.
    pub(crate) fn sorted(self, target: &str) -> BackendError {
        let Some(code) = self.code.as_deref() else {
            return BackendError::Transient { target: target.to_owned(), what: self.what };
        };
        match code {
            TOO_LATE => BackendError::TooLate,
            ABSENT => BackendError::Absent,
            TOO_POWERFUL => BackendError::Refused { what: self.what, fix: None },
            STRANGER => BackendError::Refused {
                what: format!("{target} answers, and {}", self.what),
                fix: Some(
                    "see where its address leads, and what leasehold status says of the target".to_owned(),
                ),
            },
            "55P03" => BackendError::Refused {
                what: format!("a lock is held by another session: {}", self.text()),
                fix: None,
            },
            "42710" | "23505" | DISABLED | CLAIMED => BackendError::Conflict(self.what),
            _ if comes_back(code) => BackendError::Transient { target: target.to_owned(), what: self.text() },
            _ => BackendError::Refused { what: self.text(), fix: None },
        }
    }

    /// The message with its code.
    pub(crate) fn text(&self) -> String {
        match &self.code {
            Some(code) if code != NO_TURN => format!("{} (SQLSTATE {code})", self.what),
            Some(_) | None => self.what.clone(),
        }
    }
}

/// Connection trouble, conflicts of transactions, want of resources, waits cut short, a server that stops or starts,
/// and catalog rows that two touched at once (XX000) come right by themselves.
fn comes_back(code: &str) -> bool {
    ["08", "40", "53", "55", "57", "58", "XX"].iter().any(|class| code.starts_with(class))
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(told) => Self { code: Some(told.code().code().to_owned()), what: told.message().to_owned() },
            None => Self::silent(chain(&error)),
        }
    }
}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Timeout(TimeoutType::Wait) => Self::silent("every connection of the pool is in use"),
            PoolError::Timeout(TimeoutType::Create) => Self::silent("no connection within the deadline"),
            PoolError::Timeout(TimeoutType::Recycle) => Self::silent("a connection went stale"),
            PoolError::Backend(error) => error.into(),
            PoolError::Closed => Self::silent("the pool is closed"),
            PoolError::NoRuntimeSpecified => Self::silent("no runtime for timers"),
            PoolError::PostCreateHook(_) => Self::silent("a connection could not be set up"),
        }
    }
}

/// An error with what caused it: `error connecting to server: connection refused`.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_sorted_by_who_acts_next() {
        let check = |code: Option<&str>, expect: &str| {
            let failure = Failure { code: code.map(str::to_owned), what: "it failed".to_owned() };
            let sorted = format!("{:?}", failure.sorted("orders-db"));
            assert!(sorted.starts_with(expect), "{code:?} {sorted}");
        };
        check(None, "Transient");
        check(Some("08006"), "Transient");
        check(Some("40P01"), "Transient");
        check(Some("53300"), "Transient");
        check(Some("55P03"), "Refused");
        check(Some("57014"), "Transient");
        check(Some("57P01"), "Transient");
        check(Some("XX000"), "Transient");
        check(Some("42501"), "Refused");
        check(Some("28P01"), "Refused");
        check(Some("42704"), "Refused");
        check(Some("42710"), "Conflict");
        check(Some("23505"), "Conflict");
        check(Some(TOO_LATE), "TooLate");
        check(Some(TOO_POWERFUL), "Refused");
        check(Some(ABSENT), "Absent");
        check(Some(DISABLED), "Conflict");
        check(Some(CLAIMED), "Conflict");
        check(Some(STRANGER), "Refused");
    }
}
