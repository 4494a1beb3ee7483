//! The one status map: every reason has its gRPC code, without a wildcard (law 11).

use std::collections::HashMap;

use leasehold_law::reason::{DOMAIN, Reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::broker::Refused;
use crate::meter;

/// The code of a reason.
#[must_use]
pub const fn code(reason: Reason) -> Code {
    match reason {
        Reason::NoIdentity => Code::Unauthenticated,
        Reason::UnknownAgent
        | Reason::NoPermit
        | Reason::Forbidden
        | Reason::OutOfScope
        | Reason::Frozen
        | Reason::AgentStopped
        | Reason::BeyondAutonomy
        | Reason::RoleMissing => Code::PermissionDenied,
        Reason::NotFound => Code::NotFound,
        Reason::NeedsApproval
        | Reason::TaskEnded
        | Reason::TaskLost
        | Reason::LifeReached
        | Reason::LeaseEnded
        | Reason::AttemptSpent
        | Reason::PrivilegeMissing
        | Reason::RegistrationStands
        | Reason::TargetRefused => Code::FailedPrecondition,
        Reason::TargetDown | Reason::Clock | Reason::Journal | Reason::Draining | Reason::IssuerDown => {
            Code::Unavailable
        }
        Reason::Quota => Code::ResourceExhausted,
        Reason::RequestIdReused => Code::AlreadyExists,
        Reason::Contended => Code::Aborted,
        Reason::BadRequest => Code::InvalidArgument,
        Reason::NotServed => Code::Unimplemented,
        Reason::Internal => Code::Internal,
    }
}

/// A refusal as gRPC carries it, with google.rpc details.
#[must_use]
pub fn of(refused: &Refused) -> Status {
    meter::refused(refused.reason);
    let mut details = ErrorDetails::new();
    details.set_error_info(refused.reason.text(), DOMAIN, metadata(refused));
    if let Some(wait) = refused.retry_after {
        details.set_retry_info(Some(wait.as_duration()));
    }
    for fault in &refused.fields {
        details.add_bad_request_violation(&fault.field, &fault.what);
    }
    Status::with_error_details(code(refused.reason), &refused.what, details)
}

fn metadata(refused: &Refused) -> HashMap<String, String> {
    let lines = [("why", &refused.why), ("next", &refused.next)];
    let lines = lines.into_iter().filter_map(|(key, line)| Some((key.to_owned(), line.clone()?)));
    let decision = refused.decision.map(|id| ("decision".to_owned(), id.to_string()));
    let details = refused.details.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
    lines.chain(decision).chain(details).collect()
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        of(&refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_code_that_says_who_acts_next() {
        let table: Vec<_> =
            Reason::ALL.iter().map(|reason| format!("{:<18} {:?}", reason.text(), code(*reason))).collect();
        insta::assert_snapshot!(table.join("\n"));
    }

    #[test]
    fn a_refusal_carries_why_and_next() {
        let refused = Refused::new(Reason::NoPermit, "denied a@b").why("nobody permits it").next("ask");
        let status = of(&refused);
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("NO_PERMIT", DOMAIN));
        assert_eq!(info.metadata["why"], "nobody permits it");
        assert_eq!(info.metadata["next"], "ask");
    }
}
