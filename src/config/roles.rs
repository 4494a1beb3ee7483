//! What operators may do (RULES R-19).

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One operator role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees tasks, leases and status.
    Viewer,
    /// Revokes.
    Revoker,
    /// Reads and verifies the journal.
    Auditor,
    /// Holds every other role, lifts freezes and looks after targets and the clock.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Revoker, Self::Auditor, Self::Admin];

    /// The name in config.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Revoker => "revoker",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }

    /// The roles that this one brings: itself, and for an admin all of them.
    #[must_use]
    pub fn held(self) -> BTreeSet<Self> {
        match self {
            Self::Admin => Self::ALL.into(),
            Self::Viewer | Self::Revoker | Self::Auditor => BTreeSet::from([self]),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
