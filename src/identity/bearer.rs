//! Callers that come with a token instead of a certificate: behind a hop that ends TLS, from a CI job, as a person.
//!
//! A token alone proves nothing here. It counts together with a proof of the caller's own key (RFC 9449), and for the
//! first key that it came with (RULES R-20).

use async_trait::async_trait;
use leasehold_jose::{Peek, TokenError};
use leasehold_law::caller::{CallerId, ProvenBy};
use leasehold_law::time::Timestamp;

/// One kind of token that is accepted: who issues it, for which audience, and whom it makes its bearer. No token is ever
/// of two kinds: each has an issuer and an audience of its own.
#[async_trait]
pub trait TokenKind: Send + Sync {
    /// Whether a token that says this of itself is for this kind to judge. Nothing of it is verified yet.
    fn is_mine(&self, peek: &Peek) -> bool;

    /// Verifies a token, and says whose it is.
    async fn verify(&self, token: &str, peek: &Peek, now: Timestamp) -> Result<Vouch, TokenRefused>;
}

/// Whose a verified token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouch {
    /// The caller.
    pub id: CallerId,
    /// How that is proven.
    pub proven_by: ProvenBy,
    /// The end of the token.
    pub expires_at: Timestamp,
}

/// Why a token is not accepted: what, and what to do about it. Neither holds anything of the token that is secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct TokenRefused {
    /// What is wrong.
    pub what: String,
    /// What to do next.
    pub next: String,
    /// Whether the keys of the issuer could not be had, so that the same token may be accepted later.
    pub is_ours: bool,
}

impl TokenRefused {
    /// A token that is not accepted.
    #[must_use]
    pub fn new(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { what: what.into(), next: next.into(), is_ours: false }
    }

    /// A token that cannot be judged now.
    #[must_use]
    pub fn later(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { is_ours: true, ..Self::new(what, next) }
    }
}

impl From<TokenError> for TokenRefused {
    fn from(error: TokenError) -> Self {
        let next = match &error {
            TokenError::Expired(_) => "get a fresh token and call again",
            TokenError::NotYet(_) => "check the clocks of this machine and of the issuer",
            TokenError::Audience { .. } => "ask your issuer for a token with that audience and no other",
            TokenError::TooLongLived { .. } => "have your issuer make shorter ones",
            TokenError::TooLong(_)
            | TokenError::Malformed(_)
            | TokenError::Header(_)
            | TokenError::UnknownKey
            | TokenError::Signature
            | TokenError::Missing(_)
            | TokenError::Shape(_)
            | TokenError::Issuer => {
                "give it to whoever runs your issuer; it is not one that this broker takes"
            }
        };
        Self::new(error.to_string(), next)
    }
}
