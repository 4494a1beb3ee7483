//! Why a lease or a task ends, and which causes come first.

use serde::{Deserialize, Serialize};

/// Why a lease is revoked or a task ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its time was up.
    Expired,
    /// The agent said that its task is done.
    TaskCompleted,
    /// The agent gave its task up.
    TaskAborted,
    /// The agent fell silent for longer than its grace.
    TaskLost,
    /// The task's deadline passed.
    TaskExpired,
    /// The lease no longer fits its task's scope.
    ScopeChanged,
    /// Policy no longer allows it.
    PolicyChanged,
    /// The agent's registration changed.
    AgentChanged,
    /// The session of the person it acted for ended.
    PersonEnded,
    /// The task above it ended.
    ParentEnded,
    /// The agent gave it back.
    Released,
    /// An operator revoked it.
    Operator,
    /// An incident revoked it.
    Incident,
    /// A later attempt of the same request took its place.
    Superseded,
    /// Its secret never reached the agent.
    Undelivered,
    /// Minting failed, or its outcome is unknown.
    MintFailed,
    /// The broker stopped in the middle.
    CrashRecovery,
    /// The store was restored from a backup.
    Restored,
    /// Its principal is gone from the target.
    PrincipalMissing,
    /// Its principal came back after it was revoked.
    Resurrected,
    /// Its row cannot be read.
    Unreadable,
    /// A signal from outside asked for it.
    Signal,
    /// A break-glass window closed.
    BreakGlassEnded,
    /// A drill.
    Drill,
}

/// The revocation lanes: a cause may rise in rank, never fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rank {
    /// It would have ended by itself.
    Routine,
    /// The end of a task, or policy.
    TaskEnd,
    /// Security: first in every queue.
    Security,
}

impl Rank {
    /// Every lane, the first to be served first.
    pub const ALL: [Self; 3] = [Self::Security, Self::TaskEnd, Self::Routine];

    /// Its name, as monitoring shows it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Routine => "expiry",
            Self::TaskEnd => "task_end",
            Self::Security => "security",
        }
    }
}

impl Cause {
    /// Every cause, in the order of the wire.
    pub const ALL: [Self; 24] = [
        Self::Expired,
        Self::TaskCompleted,
        Self::TaskAborted,
        Self::TaskLost,
        Self::TaskExpired,
        Self::ScopeChanged,
        Self::PolicyChanged,
        Self::AgentChanged,
        Self::PersonEnded,
        Self::ParentEnded,
        Self::Released,
        Self::Operator,
        Self::Incident,
        Self::Superseded,
        Self::Undelivered,
        Self::MintFailed,
        Self::CrashRecovery,
        Self::Restored,
        Self::PrincipalMissing,
        Self::Resurrected,
        Self::Unreadable,
        Self::Signal,
        Self::BreakGlassEnded,
        Self::Drill,
    ];

    /// Its lane.
    #[must_use]
    pub const fn rank(self) -> Rank {
        match self {
            Self::Operator
            | Self::Incident
            | Self::Signal
            | Self::AgentChanged
            | Self::PersonEnded
            | Self::Restored
            | Self::Resurrected
            | Self::Unreadable => Rank::Security,
            Self::Expired | Self::Released => Rank::Routine,
            Self::TaskCompleted
            | Self::TaskAborted
            | Self::TaskLost
            | Self::TaskExpired
            | Self::ScopeChanged
            | Self::PolicyChanged
            | Self::ParentEnded
            | Self::Superseded
            | Self::Undelivered
            | Self::MintFailed
            | Self::CrashRecovery
            | Self::PrincipalMissing
            | Self::BreakGlassEnded
            | Self::Drill => Rank::TaskEnd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_outranks_the_end_of_a_task_and_that_outranks_expiry() {
        assert!(Cause::Operator.rank() > Cause::TaskCompleted.rank());
        assert!(Cause::TaskCompleted.rank() > Cause::Expired.rank());
    }
}
