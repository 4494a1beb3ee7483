//! What PostgreSQL said, or that it said nothing. Only the message goes on: details and query texts may hold values.

use tokio_postgres::error::SqlState;

use super::StoreError;

/// Why a statement or a connection failed.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The server answered, and so nothing of the transaction stays.
    Told {
        /// SQLSTATE.
        code: SqlState,
        /// Its message.
        what: String,
        /// The constraint that stood in the way.
        constraint: Option<String>,
    },
    /// The server did not answer.
    Silent(String),
}

impl Fault {
    /// Whether the connection is of no more use.
    pub(super) fn ends_connection(&self) -> bool {
        match self {
            Self::Told { code, .. } => ["08", "57P"].iter().any(|class| code.code().starts_with(class)),
            Self::Silent(_) => true,
        }
    }

    /// Whether the same may go well when it is tried again: two transactions met.
    pub(super) fn comes_right(&self) -> bool {
        const MEETINGS: [SqlState; 3] = [
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::LOCK_NOT_AVAILABLE,
        ];
        matches!(self, Self::Told { code, .. } if MEETINGS.contains(code))
    }

    /// The unique index that another row was in the way of.
    pub(super) fn taken(&self) -> Option<&str> {
        match self {
            Self::Told { code, constraint, .. } if *code == SqlState::UNIQUE_VIOLATION => {
                constraint.as_deref()
            }
            Self::Told { .. } | Self::Silent(_) => None,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Told { code, what, .. } => write!(f, "{what} (SQLSTATE {})", code.code()),
            Self::Silent(what) => f.write_str(what),
        }
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(told) => Self::Told {
                code: told.code().clone(),
                what: told.message().to_owned(),
                constraint: told.constraint().map(str::to_owned),
            },
            None => Self::Silent(chain(&error)),
        }
    }
}

/// An error with what caused it.
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

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        Self::Unusable(fault.to_string())
    }
}
