//! One total function from state and event to state, for live code and for replay.

use serde::{Deserialize, Serialize};

use super::event::{LeaseEvent, Refusal};
use crate::cause::{Cause, Rank};
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
        let next = match event {
            LeaseEvent::Refused { refusal } => self.refuse(*refusal),
            LeaseEvent::MintStarted { mint_by, due, expires_at } => {
                self.start_minting(*mint_by, *due, *expires_at)
            }
            LeaseEvent::Minted { handle, expires_at } => self.finish_minting(handle.as_ref(), *expires_at),
            LeaseEvent::RenewStarted { until, due } => self.start_renewing(*until, *due),
            LeaseEvent::Renewed { expires_at } => self.finish_renewing(*expires_at),
            LeaseEvent::RevokeStarted { cause, at, handle } => {
                self.start_revoking(*cause, *at, handle.as_ref())
            }
            LeaseEvent::RevokeTried { reached, sessions, error, next_try, handle } => {
                let tried = Tried { reached: *reached, sessions: *sessions, error, next_try: *next_try };
                self.note_try(&tried, handle.as_ref())
            }
            LeaseEvent::Revoked { proof, at, handle } => self.finish_revoking(*proof, *at, handle.as_ref()),
            LeaseEvent::LeftResidual { until, reached } => self.leave_residual(*until, *reached),
            LeaseEvent::Lapsed { at } => self.lapse(*at),
        };
        next.ok_or(IllegalTransition { state: self.name(), event: event.kind() })
    }

    fn refuse(&self, refusal: Refusal) -> Option<Self> {
        let Self::New = self else { return None };
        Some(Self::Refused { refusal })
    }

    fn start_minting(&self, mint_by: Timestamp, due: Timestamp, expires_at: Timestamp) -> Option<Self> {
        let Self::New = self else { return None };
        Some(Self::Minting { mint_by, due, expires_at })
    }

    fn finish_minting(&self, handle: Option<&String>, expires_at: Timestamp) -> Option<Self> {
        let Self::Minting { .. } = self else { return None };
        Some(Self::Active { handle: handle.cloned(), expires_at })
    }

    fn start_renewing(&self, until: Timestamp, due: Timestamp) -> Option<Self> {
        let Self::Active { handle, expires_at } = self else { return None };
        Some(Self::Renewing { handle: handle.clone(), expires_at: *expires_at, until, due })
    }

    fn finish_renewing(&self, expires_at: Timestamp) -> Option<Self> {
        let Self::Renewing { handle, .. } = self else { return None };
        Some(Self::Active { handle: handle.clone(), expires_at })
    }

    /// Also from Revoked: a principal that came back opens a new revocation, and only for that cause.
    fn start_revoking(&self, cause: Cause, at: Timestamp, minted: Option<&String>) -> Option<Self> {
        let begin = |handle: Option<&String>, expires_at: Timestamp, not_before| {
            let progress = Progress::begin(cause, at, not_before);
            Some(Self::Revoking { handle: handle.cloned(), expires_at, progress })
        };
        match self {
            Self::Minting { mint_by, expires_at, .. } => begin(minted, *expires_at, Some(*mint_by)),
            Self::Active { handle, expires_at } => begin(handle.as_ref(), *expires_at, None),
            Self::Renewing { handle, expires_at, until, .. } => {
                begin(handle.as_ref(), (*until).max(*expires_at), None)
            }
            Self::Revoking { handle, expires_at, progress } if cause.rank() > progress.cause.rank() => {
                let progress = Progress { cause, next_try: at, ..progress.clone() };
                Some(Self::Revoking { handle: handle.clone(), expires_at: *expires_at, progress })
            }
            Self::Revoked { handle, at: died, .. } if cause == Cause::Resurrected => {
                begin(handle.as_ref(), *died, None)
            }
            Self::New
            | Self::Refused { .. }
            | Self::Revoking { .. }
            | Self::Residual { .. }
            | Self::Revoked { .. }
            | Self::Lapsed { .. } => None,
        }
    }

    fn note_try(&self, tried: &Tried<'_>, found: Option<&String>) -> Option<Self> {
        let Self::Revoking { handle, expires_at, progress } = self else { return None };
        let progress = Progress {
            reached: progress.reached.max(tried.reached),
            sessions: tried.sessions,
            attempts: progress.attempts.saturating_add(1),
            last_error: tried.error.clone(),
            next_try: tried.next_try,
            ..progress.clone()
        };
        let handle = found.or(handle.as_ref()).cloned();
        Some(Self::Revoking { handle, expires_at: *expires_at, progress })
    }

    fn finish_revoking(&self, proof: Proof, at: Timestamp, found: Option<&String>) -> Option<Self> {
        let (Self::Revoking { handle, progress: Progress { cause, .. }, .. }
        | Self::Residual { handle, cause, .. }) = self
        else {
            return None;
        };
        Some(Self::Revoked { handle: found.or(handle.as_ref()).cloned(), cause: *cause, proof, at })
    }

    fn leave_residual(&self, until: Timestamp, reached: Reached) -> Option<Self> {
        let Self::Revoking { handle, progress, .. } = self else { return None };
        Some(Self::Residual { handle: handle.clone(), until, cause: progress.cause, reached })
    }

    fn lapse(&self, at: Timestamp) -> Option<Self> {
        let Self::Residual { cause, .. } = self else { return None };
        Some(Self::Lapsed { cause: *cause, at })
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

    /// The lane in which it waits to be looked at: that of its cause while it is dying, else of what would end it.
    #[must_use]
    pub const fn lane(&self) -> Rank {
        match self {
            Self::Revoking { progress, .. } => progress.cause.rank(),
            Self::Minting { .. } | Self::Renewing { .. } => Rank::TaskEnd,
            Self::New
            | Self::Refused { .. }
            | Self::Active { .. }
            | Self::Residual { .. }
            | Self::Revoked { .. }
            | Self::Lapsed { .. } => Rank::Routine,
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

    /// Why it was to die, since when it was: the strongest cause there was.
    #[must_use]
    pub const fn cause(&self) -> Option<Cause> {
        match self {
            Self::Revoking { progress, .. } => Some(progress.cause),
            Self::Residual { cause, .. } | Self::Revoked { cause, .. } | Self::Lapsed { cause, .. } => {
                Some(*cause)
            }
            Self::New
            | Self::Refused { .. }
            | Self::Minting { .. }
            | Self::Active { .. }
            | Self::Renewing { .. } => None,
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

/// What one try came to.
struct Tried<'a> {
    reached: Reached,
    sessions: Sessions,
    error: &'a Option<String>,
    next_try: Timestamp,
}

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
