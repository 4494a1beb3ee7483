//! Callers that come with a token instead of a certificate: behind a hop that ends TLS, from a CI job, as a person.
//!
//! A token alone proves nothing here. It counts together with a proof of the caller's own key (RFC 9449), and for the
//! first key that it came with (RULES R-20).

mod seen;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, header};
use leasehold_jose::{Demand, Peek, Proof, TokenError, proof, token};
use leasehold_law::behalf::PERSONAL_SESSION;
use leasehold_law::caller::{CallerId, ProvenBy, Vouched};
use leasehold_law::scope::is_name;
use leasehold_law::time::{Span, Timestamp};
use ring::digest;
use tokio::sync::Semaphore;

use super::share::{Each, Share, Shares};
use super::{Caller, Door, Known, Now, Open, RefusalReason, Refusals, refusal};
use seen::Seen;

/// Tokens that are verified for the first time at one time: strangers can make us do that, and wait for an issuer.
const AT_ONCE: usize = 256;
/// Verified tokens that are remembered.
const VERIFIED: usize = 16 * 1024;
/// For how long, beside which the keys of an issuer are remembered (`issuer::REFRESH`). A trust domain that is gone counts
/// no more at once.
const VERIFIED_FOR: Span = Span::from_secs(60);

/// Remembers the first key that each token came with, for all brokers of a store.
#[async_trait]
pub trait Bindings: Send + Sync {
    /// The key that a token, named by its digest, first came with: this one, if it is new. For a token that first came
    /// with an agent of its person's, the agent's name stands behind the key: it is no one else's from then on.
    ///
    /// # Errors
    /// Words for the log, where that could not be made sure of.
    async fn first_key(
        &self,
        token: &str,
        key: &str,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<String, String>;
}

/// One kind of token that is accepted: who issues it, for which audience, and whom it makes its bearer. No token is ever
/// of two kinds: each has an issuer and an audience of its own.
#[async_trait]
pub trait TokenKind: Send + Sync {
    /// Whether a token that says this of itself is for this kind to judge. Nothing of it is verified yet.
    fn is_mine(&self, peek: &Peek) -> bool;

    /// Verifies a token, and says whose it is.
    async fn verify(&self, token: &str, peek: &Peek, now: Timestamp) -> Result<Vouch, TokenRefused>;

    /// Whether whoever vouched for this caller counts still: asked each time that a token comes which was verified lately.
    /// It waits for nobody.
    fn holds(&self, _id: &CallerId) -> bool {
        true
    }
}

/// Whose a verified token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouch {
    /// The caller.
    pub id: CallerId,
    /// How that is proven.
    pub proven_by: ProvenBy,
    /// When the token was issued, where it says so.
    pub issued_at: Option<Timestamp>,
    /// The end of the token.
    pub expires_at: Timestamp,
    /// What the issuer of a person's token says beside who it is.
    pub session: Option<PersonSession>,
}

/// What an issuer says of a person's session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PersonSession {
    /// When the person signed in (`auth_time`), where it says so.
    pub signed_in_at: Option<Timestamp>,
    /// Of the groups that config names, those that the person is in.
    pub groups: BTreeSet<String>,
}

/// Why a token is not accepted: what, and what to do about it. Neither holds anything of the token that is secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct TokenRefused {
    /// What is wrong.
    pub what: String,
    /// What to do next.
    pub next: String,
    /// Whether it is not the token's fault: the keys of its issuer could not be had, or the broker could not make sure whose
    /// it is. The same token may be accepted later.
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

/// How bearers are judged.
pub struct BearerSettings {
    /// The kinds of token.
    pub kinds: Vec<Arc<dyn TokenKind>>,
    /// Who remembers first keys.
    pub bindings: Arc<dyn Bindings>,
    /// Whether the broker is called by this name of a host: a proof for another server is good for that one alone.
    pub is_ours: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// Tokens that were issued before this are refused: who first came with them was forgotten (RULES R-12).
    pub issued_since: Option<Timestamp>,
    /// What one caller may hold of the door.
    pub each: Each,
    /// Who is known at the door; others get far less of it.
    pub known: Known,
    /// The clock.
    pub now: Now,
    /// Where the refused are counted.
    pub refusals: Arc<Refusals>,
}

/// Judges those that come with a token.
pub struct Bearers {
    settings: BearerSettings,
    turns: Semaphore,
    seen: Mutex<Seen>,
    verified: Mutex<HashMap<String, Verified>>,
    shares: Shares,
}

impl fmt::Debug for Bearers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearers").finish_non_exhaustive()
    }
}

/// A token that was verified lately, and its key.
#[derive(Clone)]
struct Verified {
    vouch: Vouch,
    by: Arc<dyn TokenKind>,
    key: String,
    until: Timestamp,
}

/// Why a bearer is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BearerRefused {
    /// There is no token, or no proof.
    Missing(&'static str),
    /// The token or the proof does not count.
    Token(TokenRefused),
    /// Too many are being judged.
    Busy,
}

impl BearerRefused {
    fn reason(&self) -> RefusalReason {
        match self {
            Self::Missing(_) => RefusalReason::NoToken,
            Self::Token(_) => RefusalReason::BadToken,
            Self::Busy => RefusalReason::TooManyConnections,
        }
    }
}

impl From<TokenRefused> for BearerRefused {
    fn from(refused: TokenRefused) -> Self {
        Self::Token(refused)
    }
}

impl Bearers {
    /// A judge with nothing seen yet.
    #[must_use]
    pub fn new(settings: BearerSettings) -> Self {
        Self {
            settings,
            turns: Semaphore::new(AT_ONCE),
            seen: Mutex::default(),
            verified: Mutex::default(),
            shares: Shares::default(),
        }
    }

    /// Who makes this request, and what it may hold of the door. A connection over which somebody comes who is known may
    /// stay.
    ///
    /// # Errors
    /// Why nobody is proven. It is counted.
    pub async fn prove(&self, request: &Parts, open: &Open) -> Result<(Caller, Arc<Share>), BearerRefused> {
        let (door, peer, now) = (open.door, open.peer, (self.settings.now)());
        let vouch = self.judge(request, door, now).await.inspect_err(|why| self.count(why, peer, now))?;
        let in_a_group = vouch.session.as_ref().is_some_and(|session| !session.groups.is_empty());
        let is_known = in_a_group || (self.settings.known)(&vouch.id);
        let share = self.shares.of(&vouch.id, if is_known { self.settings.each } else { Each::OF_A_VISITOR });
        if is_known {
            open.welcome.give(&share);
        }
        let (proof, not_after) = (vouch.proven_by, Some(vouch.expires_at));
        let groups = vouch.session.map(|session| session.groups).unwrap_or_default();
        Ok((
            Caller { id: vouch.id, proof, not_after, door, login_uid: None, peer: Some(peer), groups },
            share,
        ))
    }

    fn count(&self, why: &BearerRefused, peer: SocketAddr, now: Timestamp) {
        let detail = match why {
            BearerRefused::Missing(what) => (*what).to_owned(),
            BearerRefused::Token(refused) => refused.what.clone(),
            BearerRefused::Busy => "too many tokens are being judged".to_owned(),
        };
        self.settings.refusals.note(&refusal::Refused::new(why.reason(), detail), peer, now);
    }

    async fn judge(&self, request: &Parts, door: Door, now: Timestamp) -> Result<Vouch, BearerRefused> {
        let token = token_of(&request.headers)?;
        let proof = one(&request.headers, "dpop").ok_or(BearerRefused::Missing(NO_PROOF))?;
        let url = self.url_of(request)?;
        let demand = Demand { method: request.method.as_str(), url: &url, token, now };
        let proof = proof::check(proof, &demand).map_err(refused_proof)?;
        let vouch = self.vouch(token, &bound_to(&proof), now).await?;
        let vouch = acting(vouch, proof.agent.as_deref(), now)?;
        // Workloads come to this door by mutual TLS alone (RULES R-19).
        if door == Door::Admin && !matches!(vouch.id, CallerId::Person(_)) {
            return Err(not_a_person().into());
        }
        if !self.seen().is_first(&proof, now) {
            return Err(refused_proof("the proof is refused: it came before").into());
        }
        Ok(vouch)
    }

    /// What the proof must name: the URL as the client wrote it, without the query (RFC 9449 section 4.3). A request for
    /// another server, whoever passes it on, was not made for this one.
    fn url_of(&self, request: &Parts) -> Result<String, BearerRefused> {
        let authority =
            authority_of(request).ok_or(BearerRefused::Missing("the request has no authority"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if !(self.settings.is_ours)(host) {
            let what = format!("the request is for `{host}`, and this broker is not called so");
            let next = "call it by a name of its certificate, or have an operator write yours into `hosts` of [listen]";
            return Err(TokenRefused::new(what, next).into());
        }
        Ok(format!("https://{authority}{}", request.uri.path()))
    }

    /// Whose a token is, if it is this key's.
    async fn vouch(&self, token: &str, key: &str, now: Timestamp) -> Result<Vouch, BearerRefused> {
        let digest = digest_of(token);
        let verified = self.verified().get(&digest).filter(|known| known.until > now).cloned();
        if let Some(known) = verified.filter(|known| known.by.holds(&known.vouch.id)) {
            return if known.key == key { Ok(known.vouch) } else { Err(another_s().into()) };
        }
        // Only here may somebody else be waited for: whoever came within the last minute does not meet this bound.
        let _turn = self.turns.try_acquire().map_err(|_| BearerRefused::Busy)?;
        let (vouch, by) = self.verify(token, now).await?;
        let first = self.settings.bindings.first_key(&digest, key, vouch.expires_at, now).await;
        let first = first.map_err(|error| {
            tracing::error!(error, "the key of a token could not be made sure of");
            TokenRefused::later("the broker cannot make sure whose the token is", "call again in a while")
        })?;
        if first != key {
            return Err(another_s().into());
        }
        let until = vouch.expires_at.min(now + VERIFIED_FOR);
        self.learn(digest, Verified { vouch: vouch.clone(), by, key: key.to_owned(), until }, now);
        Ok(vouch)
    }

    async fn verify(&self, token: &str, now: Timestamp) -> Result<(Vouch, Arc<dyn TokenKind>), TokenRefused> {
        let peek = token::peek(token)?;
        let kind = self.settings.kinds.iter().find(|kind| kind.is_mine(&peek)).ok_or_else(nobody_s)?;
        let vouch = kind.verify(token, &peek, now).await?;
        if self.settings.issued_since.is_some_and(|since| vouch.issued_at.is_none_or(|at| at < since)) {
            let what = "the token was issued before this broker was restored from a backup";
            return Err(TokenRefused::new(what, "get a fresh token and call again"));
        }
        Ok((vouch, kind.clone()))
    }

    fn learn(&self, digest: String, token: Verified, now: Timestamp) {
        let mut verified = self.verified();
        if verified.len() >= VERIFIED {
            verified.retain(|_, one| one.until > now);
        }
        if verified.len() < VERIFIED {
            verified.insert(digest, token);
        }
    }

    fn verified(&self) -> std::sync::MutexGuard<'_, HashMap<String, Verified>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NO_TOKEN: &str = "no token was presented";
const NO_PROOF: &str = "a token was presented without a proof of its bearer's key";

/// The token (RFC 9449 section 7.1). One that is sent as `Bearer` could be anybody's who read it on the way.
fn token_of(headers: &HeaderMap) -> Result<&str, BearerRefused> {
    let value = one(headers, header::AUTHORIZATION.as_str()).ok_or(BearerRefused::Missing(NO_TOKEN))?;
    let (scheme, token) = value.split_once(' ').ok_or(BearerRefused::Missing(NO_TOKEN))?;
    match scheme.to_ascii_lowercase().as_str() {
        "dpop" => Ok(token.trim_start()),
        "bearer" => Err(BearerRefused::Missing(NO_PROOF)),
        _ => Err(BearerRefused::Missing(NO_TOKEN)),
    }
}

/// A header that stands there once, as text.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_none() { value.to_str().ok() } else { None }
}

/// Whom a request asks, as the client wrote it.
fn authority_of(request: &Parts) -> Option<Authority> {
    let named = || one(&request.headers, header::HOST.as_str())?.parse().ok();
    request.uri.authority().cloned().or_else(named)
}

/// What a token is bound to: the key, and the agent that it acts as. A person's token is never an agent's, nor the other
/// way round: one identity is not both.
fn bound_to(proof: &Proof) -> String {
    match &proof.agent {
        None => proof.thumbprint.to_string(),
        Some(agent) => format!("{}/{agent}", proof.thumbprint),
    }
}

/// Whom a token makes its bearer where an agent acts in its person's session (REQUIREMENTS, docs/identity.md "An agent on
/// your own machine"): never the person.
fn acting(vouch: Vouch, agent: Option<&str>, now: Timestamp) -> Result<Vouch, TokenRefused> {
    let Some(agent) = agent else { return Ok(vouch) };
    let CallerId::Person(person) = &vouch.id else {
        let what = "the proof names an agent of a person's, and the token is no person's";
        return Err(TokenRefused::new(what, "leave the agent out: a workload is who its token says"));
    };
    let began = vouch.session.as_ref().and_then(|session| session.signed_in_at);
    if began.is_some_and(|began| now.since(began) >= PERSONAL_SESSION) {
        let what =
            format!("the session began more than {PERSONAL_SESSION} ago: too long for an agent to act in it");
        return Err(TokenRefused::new(what, "sign in anew: leasehold login"));
    }
    let unfit = || TokenRefused::new("the proof names no agent that could be", "leasehold exec --agent NAME");
    if !is_name(agent) {
        return Err(unfit());
    }
    let name = format!("{}/{agent}", person.name());
    let id = Vouched::new(person.issuer(), &name).map_err(|_| unfit())?;
    Ok(Vouch { id: CallerId::PersonalAgent(id), proven_by: ProvenBy::PersonSession, session: None, ..vouch })
}

fn not_a_person() -> TokenRefused {
    let next = "agents use listen.bearer; operators with an SVID connect with it";
    TokenRefused::new("only a person's own token is taken at the admin door", next)
}

/// The name of a token where it is remembered: of what is signed, and of the first half of the signature. An ECDSA signature
/// (r, s) has a second spelling (r, n - s) that anybody can make of the first, and a token that is spelt anew must not be
/// taken for a new one; two that an issuer made of the same claims in the same second are two.
fn digest_of(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap_or((token, ""));
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(signed.as_bytes());
    context.update(b".");
    context.update(signature.get(..signature.len() / 2).unwrap_or_default());
    BASE64_URL_SAFE_NO_PAD.encode(context.finish())
}

fn refused_proof(why: impl fmt::Display) -> TokenRefused {
    TokenRefused::new(why.to_string(), "make a proof for each request (RFC 9449); Leasehold's clients do so")
}

fn another_s() -> TokenRefused {
    let next = "get a token of your own: this one belongs to whoever came with it first. Where that was another process of \
                yours, let both name one key: LEASEHOLD_KEY_FILE";
    TokenRefused::new("the token is bound to another key", next)
}

fn nobody_s() -> TokenRefused {
    let next = "leasehold check shows the issuers and audiences that the config names; nothing else is accepted here";
    TokenRefused::new("no configured issuer and audience are those of the token", next)
}
