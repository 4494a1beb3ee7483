//! What stands in the way at a target.

use leasehold_backend::BackendError;
use leasehold_law::id::LeaseId;
use leasehold_law::reason::Reason;
use leasehold_law::time::{Span, Timestamp};

use super::Refused;
use crate::vault_door::Closed;

impl Refused {
    /// The target may not be minted in now. Agents get a plain sentence: what the target says may name its address and
    /// the broker's login, and operators have that in `leasehold status` and in the log.
    #[must_use]
    pub fn closed(target: &str, closed: &Closed) -> Self {
        let down = |why: &str| {
            Self::new(Reason::TargetDown, format!("`{target}` does not answer"))
                .why(why)
                .next("try again; the broker keeps trying, and tells when it answers")
                .retry_after(Span::from_secs(5))
        };
        match closed {
            Closed::Unknown => down("it is not configured"),
            Closed::Down(_) => down("the broker cannot reach it, or it is too slow"),
            Closed::Unfit(missing) => {
                Self::new(Reason::PrivilegeMissing, format!("the broker may not mint in `{target}`"))
                    .why(format!("it lacks {}", missing.what))
                    .next(missing.fix.clone())
            }
            Closed::Clock(offset) => {
                Self::new(Reason::Clock, format!("the clock of `{target}` differs by {offset} ms"))
                    .why("a credential could outlive its lease")
                    .next("set the clocks right; the broker looks again every 30 s")
                    .retry_after(Span::from_secs(30))
            }
        }
        .detail("target", target)
    }

    /// The target did not do what it was asked.
    #[must_use]
    pub fn backend(target: &str, error: &BackendError) -> Self {
        match error {
            BackendError::Transient { .. } | BackendError::TooLate => {
                Self::closed(target, &Closed::Down(error.to_string()))
            }
            BackendError::Refused { what, fix: Some(fix) } => {
                Self::new(Reason::PrivilegeMissing, format!("`{target}` refused"))
                    .why(what.clone())
                    .next(fix.clone())
                    .detail("target", target)
            }
            BackendError::Refused { fix: None, .. }
            | BackendError::BadRecipe(_)
            | BackendError::Conflict(_)
            | BackendError::Absent => Self::new(Reason::TargetRefused, format!("`{target}` refused"))
                .why(error.to_string())
                .next(format!("an operator looks with: leasehold targets check {target}"))
                .detail("target", target),
        }
    }

    /// The old credential of a request cannot be proven dead yet.
    #[must_use]
    pub fn still_alive(lease: LeaseId, target: &str, until: Timestamp) -> Self {
        Self::new(Reason::TargetDown, format!("{lease} is not proven dead yet"))
            .why(format!("`{target}` has not confirmed its end; it may live until {until}"))
            .next("try again; the broker goes on revoking it")
            .retry_after(Span::from_secs(5))
            .detail("lease", lease)
            .detail("alive_until", until)
    }
}
