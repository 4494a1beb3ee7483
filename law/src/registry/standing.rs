//! How a registered agent stands: its status, whether it was reviewed, and what lowers its autonomy.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::catalog::Autonomy;
use crate::manifest::Digest;
use crate::time::{Span, Timestamp};

/// Whether a registered agent works, mildest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It works, within its autonomy.
    #[default]
    Active,
    /// It is no longer meant to work: it may only observe.
    Retired,
    /// It gets nothing, and what it holds ends; it may read, and give back.
    Suspended,
    /// As suspended, for suspicion: it works again only after a review that is newer.
    Quarantined,
}

impl Status {
    /// Every status, mildest first.
    pub const ALL: [Self; 4] = [Self::Active, Self::Retired, Self::Suspended, Self::Quarantined];

    /// The name in config and on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Suspended => "suspended",
            Self::Quarantined => "quarantined",
        }
    }

    /// Whether an agent of this status may be given nothing at all.
    #[must_use]
    pub const fn stops(self) -> bool {
        match self {
            Self::Active | Self::Retired => false,
            Self::Suspended | Self::Quarantined => true,
        }
    }

    fn is_active(&self) -> bool {
        *self == Self::Active
    }
}

/// A status that an operator gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruling {
    /// The status.
    pub status: Status,
    /// Who said so.
    pub by: String,
    /// The reason given: recorded, never an input to a decision.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// What the registry says of an agent beside who it is. The default is what an agent has of which nothing was said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Whether it works.
    #[serde(default, skip_serializing_if = "Status::is_active")]
    pub status: Status,
    /// Who gave it that status; nobody, where its registration says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ruling: Option<Ruling>,
    /// When somebody last looked whether it is still right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reviewed: Option<Timestamp>,
    /// What it ran when it was reviewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// What lowers its autonomy at this moment; each holds beside the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lowered: Vec<Lowered>,
}

impl Standing {
    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Takes a ruling on, where it is stricter than what holds already.
    pub(super) fn impose(&mut self, ruling: &Ruling) {
        if ruling.status > self.status {
            self.status = ruling.status;
            self.ruling = Some(ruling.clone());
        }
    }

    /// The same with what lowers it at this moment, whatever it runs.
    #[must_use]
    pub fn lowered_by(mut self, rules: &Rules, now: Timestamp) -> Self {
        self.lower(rules, now, Claim::Unasked);
        self
    }

    /// Finds out what lowers the autonomy now.
    pub(super) fn lower(&mut self, rules: &Rules, now: Timestamp, claim: Claim) {
        let to = |to, by| Lowered { to, by };
        if self.status == Status::Retired {
            self.lowered.push(to(Autonomy::Observe, LoweredBy::Retired));
        }
        let since = self.overdue(rules, now);
        self.lowered.extend(since.map(|since| to(Autonomy::Observe, LoweredBy::Unreviewed { since })));
        let drift = claim.differs_from(self.manifest);
        self.lowered.extend(drift.map(|by| to(rules.on_drift, by)));
    }

    /// Since when a review is overdue, if one is; an agent that was never reviewed is overdue since 1970.
    #[must_use]
    pub fn overdue(&self, rules: &Rules, now: Timestamp) -> Option<Timestamp> {
        let due = match self.reviewed {
            Some(reviewed) => reviewed + rules.review_every?,
            None => rules.review_every.map(|_| Timestamp(0))?,
        };
        (now >= due).then_some(due)
    }
}

/// That an agent may do less by itself than its registration says, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lowered {
    /// The level that holds beside the registered one.
    pub to: Autonomy,
    /// Why.
    pub by: LoweredBy,
}

/// What lowers an agent's autonomy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum LoweredBy {
    /// It is retired.
    Retired,
    /// Nobody has reviewed it for longer than the config allows.
    Unreviewed {
        /// When the review was due.
        since: Timestamp,
    },
    /// It does not say that it runs what was reviewed.
    Drift {
        /// What it says that it runs, if anything.
        claimed: Option<Digest>,
        /// What was reviewed.
        reviewed: Digest,
    },
}

/// As the end of a sentence about the agent.
impl fmt::Display for LoweredBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retired => f.write_str("is retired"),
            Self::Unreviewed { since: Timestamp(0) } => f.write_str("was never reviewed"),
            Self::Unreviewed { since } => write!(f, "was to be reviewed by {since}"),
            Self::Drift { claimed: Some(claimed), reviewed } => {
                write!(f, "says that it runs {claimed}, and {reviewed} was reviewed")
            }
            Self::Drift { claimed: None, reviewed } => {
                write!(f, "does not say what it runs, and {reviewed} was reviewed")
            }
        }
    }
}

/// What an agent says that it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It was not asked: nothing has been opened.
    Unasked,
    /// It was asked when its task was opened.
    Of(Option<Digest>),
}

impl Claim {
    fn differs_from(self, manifest: Option<Digest>) -> Option<LoweredBy> {
        let (Self::Of(claimed), Some(reviewed)) = (self, manifest) else { return None };
        (claimed != Some(reviewed)).then_some(LoweredBy::Drift { claimed, reviewed })
    }
}

/// What config says of all registered agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// How long a review holds. Nothing: for ever.
    pub review_every: Option<Span>,
    /// The level to which an agent drops that does not run what was reviewed.
    pub on_drift: Autonomy,
    /// Groups that agents may be put into while the broker runs, beside those that the config's own agents are in.
    pub groups: BTreeSet<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { review_every: None, on_drift: Autonomy::Observe, groups: BTreeSet::new() }
    }
}
