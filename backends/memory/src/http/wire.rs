//! What broker and service say to each other: one question, as JSON, and its answer or error.

use leasehold_backend::{Claim, Health};
use leasehold_law::lease::Grade;
use leasehold_law::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

use crate::target::Mint;

/// Where questions are asked.
pub(super) const ADMIN: &str = "/admin";
/// Where an agent reads.
pub(super) const READ: &str = "/read";

/// A question of the broker.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ask {
    Mint(Mint),
    Renew { name: String, ttl: Span, by: Timestamp },
    Find { name: String },
    Revoke { name: String, handle: Option<String> },
    LateSessions,
    Reap { handles: Vec<String> },
    Owner,
    Claim { claim: Claim, instead_of: Option<Claim> },
    List { prefix: String, after: Option<String>, limit: usize },
    Health,
}

/// What was minted, with the secret in the clear: the way is loopback.
#[derive(Serialize, Deserialize)]
pub(super) struct Minted {
    pub(super) handle: String,
    pub(super) secret: String,
}

/// How the service is, and what it plays.
#[derive(Serialize, Deserialize)]
pub(super) struct Pulse {
    pub(super) health: Health,
    pub(super) grade: Grade,
}

/// A principal, for proof from outside.
#[derive(Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) role: String,
    pub(super) ends: Timestamp,
    pub(super) disabled: bool,
    pub(super) sessions: u32,
}
