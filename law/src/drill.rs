//! Revocation drills (REQUIREMENTS REV-8): what each target is drilled with, and how a drill went.

use serde::{Deserialize, Serialize};

use crate::caller::CallerId;
use crate::id::{LeaseId, TaskId};
use crate::param::Params;
use crate::scope::Pair;
use crate::time::{Span, Timestamp};

/// What a target is drilled with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What is minted.
    pub pair: Pair,
    /// What its intent needs.
    pub params: Params,
}

/// What a drill does, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// A credential is minted, on the road of any lease.
    Mint,
    /// It is used: the target takes it.
    Use,
    /// It is revoked: the record says so, with its proof.
    Revoke,
    /// It is used again, and the target refuses it.
    Refuse,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 4] = [Self::Mint, Self::Use, Self::Revoke, Self::Refuse];

    /// The step in a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mint => "mint",
            Self::Use => "use",
            Self::Revoke => "revoke",
            Self::Refuse => "refuse",
        }
    }
}

/// A step that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Which.
    pub step: Step,
    /// For how long.
    pub took: Span,
}

/// Why a drill failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step that was not taken.
    pub step: Step,
    /// What stood in the way.
    pub why: String,
    /// The credential worked after its target had called it dead: nothing is worse.
    pub alive: bool,
}

/// How a drill stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrillState {
    /// It is under way.
    Running,
    /// The credential is proven dead.
    Passed,
    /// Something that was to be proven is not so.
    Failed,
}

impl DrillState {
    /// The state in a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Passed => "passed",
            Self::Failed => "failed",
        }
    }
}

/// One drill, as far as it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// What was minted.
    pub pair: Pair,
    /// Who asked for it; nobody, where the schedule did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<CallerId>,
    /// Its task.
    pub task: TaskId,
    /// Its lease, once there is one.
    pub lease: Option<LeaseId>,
    /// When it began.
    pub at: Timestamp,
    /// The steps that were taken, in order.
    pub steps: Vec<Taken>,
    /// Why it failed, if it has.
    pub failure: Option<Failure>,
}

impl Drill {
    /// How it stands.
    #[must_use]
    pub fn state(&self) -> DrillState {
        let was_refused = self.steps.iter().any(|taken| taken.step == Step::Refuse);
        match (&self.failure, was_refused) {
            (Some(_), _) => DrillState::Failed,
            (None, true) => DrillState::Passed,
            (None, false) => DrillState::Running,
        }
    }

    /// Whether the credential is proven dead.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.state() == DrillState::Passed
    }

    /// The entry's kind in the journal.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        if self.failure.is_some() { "drill.failed" } else { "drill.passed" }
    }

    /// The steps with their times: `mint 12ms, use 3ms`.
    #[must_use]
    pub fn times(&self) -> String {
        let time = |taken: &Taken| format!("{} {}ms", taken.step.name(), taken.took.0);
        self.steps.iter().map(time).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_has_passed_only_when_the_target_refused_the_credential() {
        let mut drill = Drill {
            pair: "orders.read@orders-db".parse().unwrap(),
            by: None,
            task: TaskId::derive(Timestamp(1), 1),
            lease: None,
            at: Timestamp(1),
            steps: Vec::new(),
            failure: None,
        };
        for step in Step::ALL {
            assert_eq!(drill.state(), DrillState::Running, "before {step:?}");
            drill.steps.push(Taken { step, took: Span(7) });
        }
        assert!(drill.has_passed());
        assert_eq!((drill.state().name(), drill.kind()), ("passed", "drill.passed"));
        assert_eq!(drill.times(), "mint 7ms, use 7ms, revoke 7ms, refuse 7ms");
        drill.failure = Some(Failure { step: Step::Refuse, why: "it works".into(), alive: true });
        assert!(!drill.has_passed());
        assert_eq!((drill.state().name(), drill.kind()), ("failed", "drill.failed"));
    }
}
