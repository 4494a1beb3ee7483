//! One total function from state and event to state, for live code and for replay.

use serde::{Deserialize, Serialize};

use super::event::{LeaseEvent, Refusal};
use crate::cause::Cause;
use crate::time::Timestamp;

/// How far a revocation came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reached {
    /// Nothing is known to have changed.
    None,
    /// New logins are refused.
    Disabled,
    /// The sessions that could be seen are cut.
    Cut,
    /// The principal is gone.
    Removed,
}

/// What is known of a principal's open sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sessions {
    /// Nothing.
    Unknown,
    /// Some may still be arriving; the reaper ends them as they do (RULES R-7).
    Reaping,
    /// None is left: read back.
    None,
}

/// Why a lease may be called revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The target was read back: no principal, no session.
    ReadBack,
    /// The target holds nothing by that name, and nothing can land any more.
    NeverMinted,
    /// The target's deny rule was read back.
    DenyReadBack,
}

/// Where a revocation stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Why it must die; may rise in rank, never fall.
    pub cause: Cause,
    /// Since when.
    pub since: Timestamp,
    /// How far it came.
    pub reached: Reached,
    /// What is known of its sessions.
    pub sessions: Sessions,
    /// "Absent" proves nothing before this, by the target's clock (law 7).
    pub not_before: Option<Timestamp>,
    /// Tries so far.
    pub attempts: u32,
    /// What stood in the way last.
    pub last_error: Option<String>,
    /// When the next try is due.
    pub next_try: Timestamp,
}

/// How a lease stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LeaseState {
    /// Before its first event; never stored.
    New,
    /// It never became a lease.
    Refused {
        /// Why.
        refusal: Refusal,
    },
    /// On record, and perhaps already in the target.
    Minting {
        /// No mint lands after this, by the target's clock.
        mint_by: Timestamp,
        /// From when on the row is due.
        due: Timestamp,
        /// When it will end.
        expires_at: Timestamp,
    },
    /// In the agent's hands.
    Active {
        /// What the target knows it by when the name is gone.
        handle: Option<String>,
        /// When it ends.
        expires_at: Timestamp,
    },
    /// A later end is on record, and perhaps already in the target.
    Renewing {
        /// As in Active.
        handle: Option<String>,
        /// The old end.
        expires_at: Timestamp,
        /// The wanted end.
        until: Timestamp,
        /// From when on the row is due.
        due: Timestamp,
    },
    /// It is to die; counted as alive.
    Revoking {
        /// As in Active.
        handle: Option<String>,
        /// When it ends by itself, where the target enforces that.
        expires_at: Timestamp,
        /// Where the revocation stands.
        progress: Progress,
    },
    /// Beyond the broker's reach until its natural end; counted as alive.
    Residual {
        /// As in Active.
        handle: Option<String>,
        /// Its natural end.
        until: Timestamp,
        /// Why it was to die.
        cause: Cause,
        /// How far the broker came.
        reached: Reached,
    },
    /// Dead, with proof.
    Revoked {
        /// As in Active: the reaper still looks for it.
        handle: Option<String>,
        /// Why it died.
        cause: Cause,
        /// The proof.
        proof: Proof,
        /// When.
        at: Timestamp,
    },
    /// Dead at its natural end.
    Lapsed {
        /// Why it was to die before.
        cause: Cause,
        /// When.
        at: Timestamp,
    },
}

/// A step that the law does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event} cannot follow {state}")]
pub struct IllegalTransition {
    state: &'static str,
    event: &'static str,
}

impl LeaseState {
    /// The state that an event leads to.
    ///
    /// # Errors
    /// Where the law knows no such step.
    pub fn next(&self, event: &LeaseEvent) -> Result<Self, IllegalTransition> {
        match event {
            LeaseEvent::Refused { refusal } => match self {
                Self::New => Ok(Self::Refused { refusal: *refusal }),
                _ => self.illegal(event),
            },
            LeaseEvent::MintStarted { mint_by, due, expires_at } => match self {
                Self::New => Ok(Self::Minting { mint_by: *mint_by, due: *due, expires_at: *expires_at }),
                _ => self.illegal(event),
            },
            LeaseEvent::Minted { handle, expires_at } => match self {
                Self::Minting { .. } => Ok(Self::Active { handle: handle.clone(), expires_at: *expires_at }),
                _ => self.illegal(event),
            },
            LeaseEvent::RenewStarted { until, due } => self.start_renewing(event, *until, *due),
            LeaseEvent::Renewed { expires_at } => self.finish_renewing(event, *expires_at),
            LeaseEvent::RevokeStarted { cause, at, handle } => {
                self.start_revoking(event, *cause, *at, handle.as_ref())
            }
            LeaseEvent::RevokeTried { .. } => self.note_try(event),
            LeaseEvent::Revoked { proof, at, handle } => {
                self.finish_revoking(event, *proof, *at, handle.as_ref())
            }
            LeaseEvent::LeftResidual { until, reached } => self.leave_residual(event, *until, *reached),
            LeaseEvent::Lapsed { at } => match self {
                Self::Residual { cause, .. } => Ok(Self::Lapsed { cause: *cause, at: *at }),
                _ => self.illegal(event),
            },
        }
    }

    fn start_renewing(&self, event: &LeaseEvent, until: Timestamp, due: Timestamp) -> Step {
        match self {
            Self::Active { handle, expires_at } => {
                Ok(Self::Renewing { handle: handle.clone(), expires_at: *expires_at, until, due })
            }
            _ => self.illegal(event),
        }
    }

    fn finish_renewing(&self, event: &LeaseEvent, expires_at: Timestamp) -> Step {
        match self {
            Self::Renewing { handle, .. } => Ok(Self::Active { handle: handle.clone(), expires_at }),
            _ => self.illegal(event),
        }
    }

    /// Also from Revoked: a principal that came back opens a new revocation, and only for that cause.
    fn start_revoking(
        &self,
        event: &LeaseEvent,
        cause: Cause,
        at: Timestamp,
        minted: Option<&String>,
    ) -> Step {
        let begin = |handle: &Option<String>, expires_at: Timestamp, not_before| {
            let progress = Progress::begin(cause, at, not_before);
            Ok(Self::Revoking { handle: handle.clone(), expires_at, progress })
        };
        match self {
            Self::Minting { mint_by, expires_at, .. } => begin(&minted.cloned(), *expires_at, Some(*mint_by)),
            Self::Active { handle, expires_at } => begin(handle, *expires_at, None),
            Self::Renewing { handle, expires_at, until, .. } => {
                begin(handle, (*until).max(*expires_at), None)
            }
            Self::Revoking { handle, expires_at, progress } if cause.rank() > progress.cause.rank() => {
                let progress = Progress { cause, next_try: at, ..progress.clone() };
                Ok(Self::Revoking { handle: handle.clone(), expires_at: *expires_at, progress })
            }
            Self::Revoked { handle, at: died, .. } if cause == Cause::Resurrected => {
                begin(handle, *died, None)
            }
            _ => self.illegal(event),
        }
    }

    fn note_try(&self, event: &LeaseEvent) -> Step {
        match (self, event) {
            (
                Self::Revoking { handle, expires_at, progress },
                LeaseEvent::RevokeTried { reached, sessions, error, next_try, handle: found },
            ) => {
                let handle = found.as_ref().or(handle.as_ref()).cloned();
                let progress = Progress {
                    reached: progress.reached.max(*reached),
                    sessions: *sessions,
                    attempts: progress.attempts.saturating_add(1),
                    last_error: error.clone(),
                    next_try: *next_try,
                    ..progress.clone()
                };
                Ok(Self::Revoking { handle, expires_at: *expires_at, progress })
            }
            _ => self.illegal(event),
        }
    }

    fn finish_revoking(
        &self,
        event: &LeaseEvent,
        proof: Proof,
        at: Timestamp,
        found: Option<&String>,
    ) -> Step {
        match self {
            Self::Revoking { handle, progress: Progress { cause, .. }, .. }
            | Self::Residual { handle, cause, .. } => {
                let handle = found.or(handle.as_ref()).cloned();
                Ok(Self::Revoked { handle, cause: *cause, proof, at })
            }
            _ => self.illegal(event),
        }
    }

    fn leave_residual(&self, event: &LeaseEvent, until: Timestamp, reached: Reached) -> Step {
        match self {
            Self::Revoking { handle, progress, .. } => {
                Ok(Self::Residual { handle: handle.clone(), until, cause: progress.cause, reached })
            }
            _ => self.illegal(event),
        }
    }

    fn illegal(&self, event: &LeaseEvent) -> Step {
        Err(IllegalTransition { state: self.name(), event: event.kind() })
    }

    /// The state in one word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Refused { .. } => "refused",
            Self::Minting { .. } => "minting",
            Self::Active { .. } => "active",
            Self::Renewing { .. } => "renewing",
            Self::Revoking { .. } => "revoking",
            Self::Residual { .. } => "residual",
            Self::Revoked { .. } => "revoked",
            Self::Lapsed { .. } => "lapsed",
        }
    }

    /// Whether a credential may exist in the target.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        match self {
            Self::Minting { .. }
            | Self::Active { .. }
            | Self::Renewing { .. }
            | Self::Revoking { .. }
            | Self::Residual { .. } => true,
            Self::New | Self::Refused { .. } | Self::Revoked { .. } | Self::Lapsed { .. } => false,
        }
    }

    /// Whether the agent may still use it: live, and not condemned.
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        matches!(self, Self::Active { .. } | Self::Renewing { .. })
    }

    /// When the sweep must look at it.
    #[must_use]
    pub const fn due(&self) -> Option<Timestamp> {
        match self {
            Self::Minting { due, .. } | Self::Renewing { due, .. } => Some(*due),
            Self::Active { expires_at, .. } => Some(*expires_at),
            Self::Revoking { progress, .. } => Some(progress.next_try),
            Self::Residual { until, .. } => Some(*until),
            Self::New | Self::Refused { .. } | Self::Revoked { .. } | Self::Lapsed { .. } => None,
        }
    }

    /// What the target knows it by when its name is gone.
    #[must_use]
    pub fn handle(&self) -> Option<&str> {
        match self {
            Self::Active { handle, .. }
            | Self::Renewing { handle, .. }
            | Self::Revoking { handle, .. }
            | Self::Residual { handle, .. }
            | Self::Revoked { handle, .. } => handle.as_deref(),
            Self::New | Self::Refused { .. } | Self::Minting { .. } | Self::Lapsed { .. } => None,
        }
    }

    /// When it ends by itself, while it is live.
    #[must_use]
    pub const fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Self::Minting { expires_at, .. }
            | Self::Active { expires_at, .. }
            | Self::Renewing { expires_at, .. }
            | Self::Revoking { expires_at, .. } => Some(*expires_at),
            Self::Residual { until, .. } => Some(*until),
            Self::New | Self::Refused { .. } | Self::Revoked { .. } | Self::Lapsed { .. } => None,
        }
    }
}

type Step = Result<LeaseState, IllegalTransition>;

impl Progress {
    fn begin(cause: Cause, at: Timestamp, not_before: Option<Timestamp>) -> Self {
        Self {
            cause,
            since: at,
            reached: Reached::None,
            sessions: Sessions::Unknown,
            not_before,
            attempts: 0,
            last_error: None,
            next_try: at,
        }
    }
}
