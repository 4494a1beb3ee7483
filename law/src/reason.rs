//! The error reasons of the wire (`google.rpc.ErrorInfo.reason`): append-only.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Why a call was refused, in a word that programs may rely on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason {$(
            $(#[$doc])*
            #[serde(rename = $text)]
            $name,
        )*}

        impl Reason {
            /// Every reason, in the order in which they were added.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word on the wire.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

/// `google.rpc.ErrorInfo.domain`.
pub const DOMAIN: &str = "leasehold.dev";

reasons! {
    /// No identity was presented, or it has expired.
    NoIdentity = "NO_IDENTITY";
    /// The identity is proven, but nobody registered it.
    UnknownAgent = "UNKNOWN_AGENT";
    /// No policy permits it.
    NoPermit = "NO_PERMIT";
    /// A policy forbids it.
    Forbidden = "FORBIDDEN";
    /// The task's scope does not hold it.
    OutOfScope = "OUT_OF_SCOPE";
    /// An operator has frozen the agent or the task.
    Frozen = "FROZEN";
    /// The caller does not hold the operator role, or this door does not serve the call.
    RoleMissing = "ROLE_MISSING";
    /// There is no such task, lease or other thing, or it is not the caller's.
    NotFound = "NOT_FOUND";
    /// People must be asked first.
    NeedsApproval = "NEEDS_APPROVAL";
    /// The task has ended.
    TaskEnded = "TASK_ENDED";
    /// The task was lost: its agent was silent for longer than its grace.
    TaskLost = "TASK_LOST";
    /// The lease has reached its full life; no renewal goes beyond it.
    LifeReached = "LIFE_REACHED";
    /// The lease is no longer live.
    LeaseEnded = "LEASE_ENDED";
    /// This attempt of the request has ended; a secret is never shown twice.
    AttemptSpent = "ATTEMPT_SPENT";
    /// The broker lacks a privilege in the target.
    PrivilegeMissing = "PRIVILEGE_MISSING";
    /// The target refused.
    TargetRefused = "TARGET_REFUSED";
    /// The target does not answer.
    TargetDown = "TARGET_DOWN";
    /// The clocks do not agree.
    Clock = "CLOCK";
    /// The journal cannot be written: no record, no credential.
    Journal = "JOURNAL";
    /// Too much at once, or a quota is used up.
    Quota = "QUOTA";
    /// The same request id was used with other parameters.
    RequestIdReused = "REQUEST_ID_REUSED";
    /// Somebody changed the same thing at the same time; try again.
    Contended = "CONTENDED";
    /// A field of the request is not valid.
    BadRequest = "BAD_REQUEST";
    /// The server does not do this yet.
    NotServed = "NOT_SERVED";
    /// The server is stopping.
    Draining = "DRAINING";
    /// A fault of the broker.
    Internal = "INTERNAL";
    /// Whoever issued the token cannot be asked for its keys now, or the broker cannot make sure whose the token is.
    IssuerDown = "ISSUER_DOWN";
    /// The agent is suspended, or in quarantine.
    AgentStopped = "AGENT_STOPPED";
    /// It is beyond the agent's autonomy.
    BeyondAutonomy = "BEYOND_AUTONOMY";
    /// The registration of the agent does not let this be done to it.
    RegistrationStands = "REGISTRATION_STANDS";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_the_wire_s_and_only_grow() {
        let words: Vec<_> = Reason::ALL.iter().map(|reason| reason.text()).collect();
        insta::assert_snapshot!(words.join(" "));
    }
}
