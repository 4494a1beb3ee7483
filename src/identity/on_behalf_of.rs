//! The tokens of people that agents bring: each names the agent that may act for the person, and is good for that alone.
//!
//! Such a token is the subject token of RFC 8693, and its bearer the actor. It is accepted in one place, for an audience of
//! its own (RULES R-20), so that neither a person's sign-in nor a token for another program does for it, nor it for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use leasehold_jose::{Claims, token};
use leasehold_law::behalf::OnBehalfOf;
use leasehold_law::caller::CallerId;
use leasehold_law::time::Timestamp;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::Now;
use super::bearer::{BearerRefused, TokenRefused};
use super::people::PeopleTokens;

/// Tokens that are verified at one time: each may make us wait for an issuer.
const AT_ONCE: usize = 64;

/// Which tokens of an issuer say that an agent acts for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// The one audience.
    pub audience: String,
    /// Agents by the client that their tokens are given to.
    pub clients: BTreeMap<String, BTreeSet<CallerId>>,
}

/// Judges tokens of people that agents bring.
pub struct SubjectTokens {
    issuers: Vec<Arc<PeopleTokens>>,
    issued_since: Option<Timestamp>,
    now: Now,
    turns: Semaphore,
}

impl fmt::Debug for SubjectTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectTokens").finish_non_exhaustive()
    }
}

impl SubjectTokens {
    /// A judge of the tokens of these issuers. What was issued before a restore counts no more (RULES R-12).
    #[must_use]
    pub fn new(issuers: Vec<Arc<PeopleTokens>>, issued_since: Option<Timestamp>, now: Now) -> Self {
        Self { issuers, issued_since, now, turns: Semaphore::new(AT_ONCE) }
    }

    /// The person that this agent acts for, by their token.
    ///
    /// # Errors
    /// Why it proves nothing, or not for this agent.
    pub async fn verify(&self, token: &str, agent: &CallerId) -> Result<OnBehalfOf, BearerRefused> {
        let _turn = self.turns.try_acquire().map_err(|_| BearerRefused::Busy)?;
        let peek = token::peek(token).map_err(TokenRefused::from)?;
        let issuer = self.issuers.iter().find(|issuer| issuer.is_subject(&peek)).ok_or_else(nobody_s)?;
        let subject = issuer.verify_subject(token, &peek, agent, (self.now)()).await?;
        if self.issued_since.is_some_and(|since| subject.issued_at.is_none_or(|at| at < since)) {
            let what = "the token was issued before this broker was restored from a backup";
            let next = "get a fresh token of that person and call again";
            return Err(TokenRefused::new(what, next).into());
        }
        Ok(subject.on_behalf_of)
    }
}

/// What a verified token proves.
pub(super) struct Subject {
    pub(super) on_behalf_of: OnBehalfOf,
    pub(super) issued_at: Option<Timestamp>,
}

impl Delegation {
    /// That a verified token was given to this agent: by `may_act` (RFC 8693 section 4.4) where it has one, or by the client
    /// that it was given to (`azp`, OpenID Connect Core 1.0 section 2; `client_id`, RFC 9068 section 2.2).
    ///
    /// # Errors
    /// Where it names nobody, or somebody else.
    pub(super) fn names(&self, claims: &Claims, issuer: &str, agent: &CallerId) -> Result<(), TokenRefused> {
        let agent = agent.to_string();
        if let Some(actor) = claims.claim("may_act") {
            let is_elsewhere = actor.get("iss").is_some_and(|iss| iss.as_str() != Some(issuer));
            let is_named = actor.get("sub").and_then(Value::as_str) == Some(&agent);
            return if is_named && !is_elsewhere { Ok(()) } else { Err(another_s("may_act")) };
        }
        let parties: Vec<_> = ["azp", "client_id"].iter().filter_map(|name| claims.claim(name)).collect();
        let [party, more @ ..] = parties.as_slice() else { return Err(names_nobody()) };
        let Some(client) = party.as_str().filter(|_| more.iter().all(|other| other == party)) else {
            return Err(another_s("azp` or `client_id"));
        };
        let mapped = || self.clients.get(client).into_iter().flatten().any(|one| one.to_string() == agent);
        if client == agent || mapped() { Ok(()) } else { Err(another_s("azp` or `client_id")) }
    }
}

fn names_nobody() -> TokenRefused {
    let next = "have the issuer name the agent in `may_act` or `azp`; docs/identity.md has how";
    TokenRefused::new("the person's token names no agent that may act for them", next)
}

fn another_s(claim: &str) -> TokenRefused {
    let next = "name the agent there, or map its client: [identity.people] on_behalf_of = { clients = { CLIENT = [AGENT] } }";
    TokenRefused::new(
        format!("the person's token was given to another than this agent: see its `{claim}`"),
        next,
    )
}

fn nobody_s() -> TokenRefused {
    let next = "docs/identity.md, \"A person behind an agent\", has the audience that such a token needs";
    TokenRefused::new("no issuer of [identity.people] takes this token as one to act on", next)
}
