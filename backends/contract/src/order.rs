//! What goes to a target and what comes back.

use std::collections::BTreeMap;
use std::fmt;

use leasehold_law::catalog::Recipe;
use leasehold_law::lease::{Reached, Sessions};
use leasehold_law::principal::PrincipalName;
use leasehold_law::scope::Pair;
use leasehold_law::secret::Secret;
use leasehold_law::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

/// What an agent gets: how to reach the target, and what to prove itself with.
pub struct Credential {
    /// What kind it is, e.g. `postgres`.
    pub kind: String,
    /// What anybody may see: host, port, user.
    pub public: BTreeMap<String, String>,
    /// What nobody else may see.
    pub secret: BTreeMap<String, Secret>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.secret.keys().collect();
        f.debug_struct("Credential")
            .field("kind", &self.kind)
            .field("public", &self.public)
            .field("secret", &names)
            .finish()
    }
}

/// A credential that was minted.
#[derive(Debug)]
pub struct Issued {
    /// For the agent.
    pub credential: Credential,
    /// What the target knows the principal by when its name is gone.
    pub handle: Option<String>,
}

/// The end of a principal was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// How long it lives from now on, as the target read back.
    pub ttl: Span,
}

/// What a target holds by a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What the target knows it by when its name is gone.
    pub handle: Option<String>,
    /// How long it still lives by the target's clock; `None` where the target keeps no end.
    pub remaining: Option<Span>,
    /// Whether logins are refused.
    pub disabled: bool,
    /// Open sessions that can be seen.
    pub sessions: u32,
}

/// An order to kill. Anybody may write one: no record may ever stop a revoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokeOrder {
    /// The name.
    pub principal: PrincipalName,
    /// What the target knows it by, where that is known.
    pub handle: Option<String>,
    /// How it was minted.
    pub recipe: Recipe,
}

/// How far a revocation came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeReport {
    /// How far, at this try.
    pub reached: Reached,
    /// What is known of its sessions.
    pub sessions: Sessions,
    /// Whether there was no principal by that name to begin with.
    pub absent: bool,
    /// What the target knew the principal by, where this try found out.
    pub handle: Option<String>,
    /// The target's time at the read-back, from the target; absence proves nothing before `mint_by` (law 7).
    pub target_now: Option<Timestamp>,
    /// What stood in the way.
    pub error: Option<BackendErrorText>,
    /// What keeps the principal itself from going, though it can no longer be used, e.g. objects that it owns.
    pub remains: Vec<String>,
    /// Whether the target was never asked, since the broker was short of something of its own, such as a connection,
    /// for some seconds: that says nothing of the target.
    #[serde(default)]
    pub unasked: bool,
}

/// The text of an error, free of secrets.
pub type BackendErrorText = String;

impl RevokeReport {
    /// The report of a try that changed nothing.
    #[must_use]
    pub fn failed(error: impl fmt::Display) -> Self {
        Self {
            reached: Reached::None,
            sessions: Sessions::Unknown,
            absent: false,
            handle: None,
            target_now: None,
            error: Some(error.to_string()),
            remains: Vec::new(),
            unasked: false,
        }
    }

    /// The report of a try that the broker could not make.
    #[must_use]
    pub fn unasked(error: impl fmt::Display) -> Self {
        Self { unasked: true, ..Self::failed(error) }
    }
}

/// Sessions that arrived after their principal was removed, and were ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaped {
    /// Whose.
    pub handle: String,
    /// How many.
    pub sessions: u32,
}

/// Whether a credential works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alive {
    /// It logs in.
    Alive,
    /// It is refused.
    Refused,
}

/// Which installation a target belongs to (RULES R-11).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The installation: a public name derived from its key.
    pub installation: String,
    /// Its incarnation; one more after each restore.
    pub incarnation: u32,
    /// Its term: a number that only grows, by which stores of one key are told apart. 0 in claims of earlier versions.
    #[serde(default)]
    pub term: i64,
}

/// A grant as a target sees it.
#[derive(Clone, Copy, Debug)]
pub struct GrantView<'a> {
    /// What on what.
    pub pair: &'a Pair,
    /// How it is minted.
    pub recipe: &'a Recipe,
}

/// One statement of a set-up, for people to read and run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What it is for.
    pub why: String,
    /// The statement.
    pub text: String,
    /// Whether it takes back what the others gave.
    pub undo: bool,
}

/// Principals, a page at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Them.
    pub principals: Vec<Principal>,
    /// Whether there are more.
    pub more: bool,
}

/// One principal in a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Its name, as the target spells it.
    pub name: String,
    /// What the target knows it by when its name is gone.
    pub handle: Option<String>,
}

/// How a target is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What it is, e.g. `PostgreSQL 15.18`.
    pub version: String,
    /// Its time.
    pub target_now: Timestamp,
    /// What the broker lacks, each with the statement that gives it. Not empty: nothing is issued, and
    /// confirmations are unproven (RULES R-10).
    pub missing_privileges: Vec<Missing>,
    /// What works but is wider than it should be.
    pub warnings: Vec<String>,
}

/// A privilege that the broker lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// What for.
    pub what: String,
    /// The statement that gives it.
    pub fix: String,
}
