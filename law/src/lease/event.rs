//! What happens to a lease. These events are the journal's entries; the rows are made of them.

use serde::{Deserialize, Serialize};

use super::state::{Proof, Reached, Sessions};
use crate::cause::Cause;
use crate::time::Timestamp;

/// Why a request never became a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Policy denied it.
    Denied,
    /// People would have to be asked, and nobody was.
    Unasked,
}

/// One step in the life of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LeaseEvent {
    /// It was refused.
    Refused {
        /// Why.
        refusal: Refusal,
    },
    /// The name is on record; the target is touched next.
    MintStarted {
        /// No mint lands after this, by the target's clock (RULES R-4).
        mint_by: Timestamp,
        /// The same moment by the broker's clock: from then on the row is due.
        due: Timestamp,
        /// When the credential will end.
        expires_at: Timestamp,
    },
    /// The target minted it.
    Minted {
        /// What the target knows it by when the name is gone, such as a role's OID.
        handle: Option<String>,
        /// When it ends.
        expires_at: Timestamp,
    },
    /// A later end is on record; the target is touched next.
    RenewStarted {
        /// The end that is wanted.
        until: Timestamp,
        /// From when on an answer is no longer expected.
        due: Timestamp,
    },
    /// The target has this end now.
    Renewed {
        /// When it ends.
        expires_at: Timestamp,
    },
    /// It is to die.
    RevokeStarted {
        /// Why.
        cause: Cause,
        /// When.
        at: Timestamp,
        /// What the target knows it by, where minting had just ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        handle: Option<String>,
    },
    /// One try to kill it, which did not finish.
    RevokeTried {
        /// How far it came.
        reached: Reached,
        /// What is known of its open sessions.
        sessions: Sessions,
        /// What stood in the way.
        error: Option<String>,
        /// When the next try is due.
        next_try: Timestamp,
        /// What the target knows it by, where this try found out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        handle: Option<String>,
    },
    /// It is dead, with proof.
    Revoked {
        /// The proof.
        proof: Proof,
        /// When.
        at: Timestamp,
        /// What the target knew it by, where this try found out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        handle: Option<String>,
    },
    /// The target cannot kill it before its natural end (grades coarse and none).
    LeftResidual {
        /// Its natural end.
        until: Timestamp,
        /// How far the broker came.
        reached: Reached,
    },
    /// Its natural end has passed.
    Lapsed {
        /// When.
        at: Timestamp,
    },
}

impl LeaseEvent {
    /// The entry's kind in the journal.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "lease.refused",
            Self::MintStarted { .. } => "lease.mint_started",
            Self::Minted { .. } => "lease.minted",
            Self::RenewStarted { .. } => "lease.renew_started",
            Self::Renewed { .. } => "lease.renewed",
            Self::RevokeStarted { .. } => "lease.revoke_started",
            Self::RevokeTried { .. } => "lease.revoke_tried",
            Self::Revoked { .. } => "lease.revoked",
            Self::LeftResidual { .. } => "lease.left_residual",
            Self::Lapsed { .. } => "lease.lapsed",
        }
    }
}
