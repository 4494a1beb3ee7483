//! What cannot be written down or read, and what that means for what was asked.

use leasehold_law::reason::Reason;
use leasehold_law::revocation::Revocation;
use leasehold_law::time::Span;
use leasehold_law::words::count_are;

use super::Refused;
use crate::ledger::LedgerError;
use crate::store::StoreError;

impl Refused {
    /// The journal takes nothing: no record, no credential.
    #[must_use]
    pub fn journal(error: &StoreError) -> Self {
        Self::new(Reason::Journal, "the journal cannot be written, so nothing is issued")
            .why(error.to_string())
            .next("revoking goes on; an operator looks with: leasehold status")
            .retry_after(Span::from_secs(5))
    }

    /// Leases are being revoked, but a crash would forget it, and no freeze is in force.
    #[must_use]
    pub fn unrecorded(revocation: &Revocation, error: &LedgerError) -> Self {
        let count = revocation.leases.len();
        Self::new(
            Reason::Journal,
            format!("{} being revoked, and nothing of it is on record", count_are(count, "lease")),
        )
        .why(format!(
            "they are being killed, but a crash would forget them, and no freeze is in force: {error}"
        ))
        .next("mend the journal, then revoke again")
        .detail("leases", count)
    }

    /// A revocation is on record, and its list cannot be read to its end yet.
    #[must_use]
    pub fn unfinished(revocation: &Revocation, error: &StoreError) -> Self {
        let (id, count) = (revocation.id, revocation.leases.len());
        Self::new(
            Reason::Journal,
            format!("{} being revoked, and not all are listed yet", count_are(count, "lease")),
        )
        .why(format!("the store cannot be read to the end; the broker goes on by itself: {error}"))
        .next(format!("see it through: leasehold revocations watch {id}"))
        .detail("revocation", id)
    }

    /// Too much at once: nothing was begun.
    #[must_use]
    pub fn overloaded(what: impl Into<String>) -> Self {
        Self::new(Reason::Quota, what)
            .why("the broker bounds what it does at one time, so that stopping is never kept waiting")
            .next("try again")
            .retry_after(Span::from_secs(1))
    }
}

impl From<LedgerError> for Refused {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Stale(subject) => Self::contended(format!("{subject} changed meanwhile")),
            LedgerError::Full(ceiling) => ceiling.as_ref().into(),
            LedgerError::Store(error) => error.into(),
            LedgerError::Unknown(error) => Self::journal(&error),
            LedgerError::Illegal(error) => Self::internal(&error),
            LedgerError::IllegalTask(error) => Self::internal(&error),
        }
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Busy => Self::overloaded("too much is waiting to be written"),
            StoreError::Unusable(_) | StoreError::Fenced | StoreError::Held(_) => Self::journal(&error),
            StoreError::Unreadable(_) | StoreError::Newer { .. } | StoreError::Foreign(_) => {
                Self::internal(&error)
            }
        }
    }
}
