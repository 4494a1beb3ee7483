//! Room 9: the only holder of backends.
//!
//! A mint takes [`Recorded<IssueOrder>`] and a renewal [`Recorded<RenewOrder>`]; revoking, reaping and looking up take
//! plain orders, since no record may ever stop a revoke. Every call has a deadline (law 9).

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use leasehold_backend::{
    Alive, Backend, BackendError, Capabilities, Claim, Found, GrantView, Health, Issued, Missing, Page,
    Reaped, Renewed, RevokeOrder, RevokeReport, Statement,
};
use leasehold_law::catalog::Recipe;
use leasehold_law::policy::{IssueOrder, RenewOrder};
use leasehold_law::principal::{PREFIX, PrincipalName};
use leasehold_law::scope::Pair;
use leasehold_law::time::{Span, Timestamp};

use crate::clock::Clock;
use crate::ledger::Recorded;

/// How long a target may take to mint or renew: no mint lands after this (RULES R-4).
pub const MINT_WINDOW: Span = Span::from_secs(10);
/// How long a target may take over a batch of revocations.
const REVOKE_DEADLINE: Span = Span::from_secs(30);
/// How long a target may take to answer a question.
const ASK_DEADLINE: Span = Span::from_secs(5);
/// A clock that differs by more stops issuing.
pub const MAX_OFFSET: Span = Span::from_secs(60);
/// How old an answer about a target's health may be before it is asked again.
const HEALTH_AGE: Span = Span::from_secs(30);

/// A configured target: its backend and the grants that mint in it.
pub struct TargetPart {
    /// The kind of its backend.
    pub kind: String,
    /// Its backend.
    pub backend: Arc<dyn Backend>,
    /// The pairs that are minted in it, with their recipes.
    pub grants: Vec<(Pair, Recipe)>,
}

/// What is known of a target.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// When it last answered; never, if it has not.
    pub answered_at: Option<Timestamp>,
    /// How far its clock is ahead of the broker's, in milliseconds.
    pub offset: i64,
    /// What it is.
    pub version: String,
    /// What the broker lacks in it.
    pub missing: Vec<Missing>,
    /// What is wider than it should be.
    pub warnings: Vec<String>,
    /// Why it did not answer last.
    pub error: Option<String>,
}

struct Gate {
    part: TargetPart,
    capabilities: Capabilities,
    seen: Mutex<Seen>,
}

/// Why nothing may be minted in a target now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// There is no such target.
    Unknown,
    /// It does not answer.
    Down(String),
    /// The broker lacks a privilege in it.
    Unfit(Missing),
    /// Its clock differs too much.
    Clock(i64),
}

/// The holder of backends.
pub struct VaultDoor {
    gates: BTreeMap<String, Gate>,
    clock: Arc<Clock>,
}

impl VaultDoor {
    /// A door to these targets.
    #[must_use]
    pub fn new(targets: BTreeMap<String, TargetPart>, clock: Arc<Clock>) -> Self {
        let gate = |part: TargetPart| Gate {
            capabilities: part.backend.capabilities(),
            part,
            seen: Mutex::new(Seen::default()),
        };
        Self { gates: targets.into_iter().map(|(name, part)| (name, gate(part))).collect(), clock }
    }

    /// The names of the targets.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        self.gates.keys().map(String::as_str)
    }

    /// What a target can do.
    #[must_use]
    pub fn capabilities(&self, target: &str) -> Option<&Capabilities> {
        self.gates.get(target).map(|gate| &gate.capabilities)
    }

    /// The kind of a target's backend.
    #[must_use]
    pub fn kind(&self, target: &str) -> Option<&str> {
        self.gates.get(target).map(|gate| gate.part.kind.as_str())
    }

    /// What is known of a target.
    #[must_use]
    pub fn seen(&self, target: &str) -> Option<Seen> {
        self.gates.get(target).map(Gate::seen)
    }

    /// Whether a credential may be minted now: the target answers, lets the broker see what it must, and its clock
    /// agrees. Gives the moment before which a mint must land, by the target's clock.
    ///
    /// # Errors
    /// Why not.
    pub async fn may_mint(&self, target: &str) -> Result<Timestamp, Closed> {
        let gate = self.gates.get(target).ok_or(Closed::Unknown)?;
        let now = self.clock.now();
        let fresh = |seen: &Seen| {
            seen.error.is_none() && seen.answered_at.is_some_and(|at| now.since(at) < HEALTH_AGE)
        };
        let mut seen = gate.seen();
        if !fresh(&seen) {
            seen = self.look(target).await.map_err(|error| Closed::Down(error.to_string()))?;
        }
        match seen.missing.into_iter().next() {
            Some(missing) => Err(Closed::Unfit(missing)),
            None if seen.offset.unsigned_abs() > MAX_OFFSET.0 => Err(Closed::Clock(seen.offset)),
            None => Ok((now + MINT_WINDOW).shifted(seen.offset)),
        }
    }

    /// Asks a target how it is, and remembers the answer.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn look(&self, target: &str) -> Result<Seen, BackendError> {
        let gate = self.gate(target)?;
        let grants = gate.grant_views();
        let asked_at = self.clock.now();
        let answer = within(ASK_DEADLINE, target, gate.part.backend.health(&grants)).await;
        let mut seen = gate.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match &answer {
            Ok(health) => *seen = Seen::of(health, asked_at, self.clock.now()),
            Err(error) => seen.error = Some(error.to_string()),
        }
        answer.map(|_| seen.clone())
    }

    /// Mints what is on record.
    ///
    /// # Errors
    /// As [`Backend::issue`]; after a deadline the outcome is unknown.
    pub async fn issue(&self, order: &Recorded<IssueOrder>) -> Result<Issued, BackendError> {
        let target = &order.inner().terms().pair.target;
        let gate = self.gate(target)?;
        let answer = within(MINT_WINDOW, target, gate.part.backend.issue(order.inner())).await;
        gate.note(&answer);
        answer
    }

    /// Renews what is on record.
    ///
    /// # Errors
    /// As [`Backend::renew`]; after a deadline the outcome is unknown.
    pub async fn renew(&self, target: &str, order: &Recorded<RenewOrder>) -> Result<Renewed, BackendError> {
        let gate = self.gate(target)?;
        let answer = within(MINT_WINDOW, target, gate.part.backend.renew(order.inner())).await;
        gate.note(&answer);
        answer
    }

    /// Kills. One report an order, in their order, whatever happens.
    pub async fn revoke(&self, target: &str, orders: &[RevokeOrder]) -> Vec<RevokeReport> {
        let all_failed = |error: BackendError| orders.iter().map(|_| RevokeReport::failed(&error)).collect();
        let gate = match self.gate(target) {
            Ok(gate) => gate,
            Err(error) => return all_failed(error),
        };
        let call = async { Ok(gate.part.backend.revoke(orders).await) };
        match within(REVOKE_DEADLINE, target, call).await {
            Ok(reports) => reports,
            Err(error) => all_failed(error),
        }
    }

    /// What a target holds by a name.
    ///
    /// # Errors
    /// As [`Backend::lookup`].
    pub async fn lookup(&self, target: &str, name: &PrincipalName) -> Result<Option<Found>, BackendError> {
        let gate = self.gate(target)?;
        within(ASK_DEADLINE, target, gate.part.backend.lookup(name)).await
    }

    /// The handles of sessions whose principal is gone.
    ///
    /// # Errors
    /// As [`Backend::late_sessions`].
    pub async fn late_sessions(&self, target: &str) -> Result<Vec<String>, BackendError> {
        let gate = self.gate(target)?;
        within(ASK_DEADLINE, target, gate.part.backend.late_sessions()).await
    }

    /// Ends sessions that arrived after their principal was removed.
    ///
    /// # Errors
    /// As [`Backend::reap`].
    pub async fn reap(&self, target: &str, handles: &[String]) -> Result<Vec<Reaped>, BackendError> {
        let gate = self.gate(target)?;
        within(ASK_DEADLINE, target, gate.part.backend.reap(handles)).await
    }

    /// Whether what was issued still works: for drills.
    ///
    /// # Errors
    /// As [`Backend::probe`].
    pub async fn probe(&self, target: &str, issued: &Issued) -> Result<Alive, BackendError> {
        let gate = self.gate(target)?;
        within(ASK_DEADLINE, target, gate.part.backend.probe(issued)).await
    }

    /// The statements that give the broker the least that it needs in a target.
    ///
    /// # Errors
    /// As [`Backend::setup`].
    pub async fn setup(&self, target: &str) -> Result<Vec<Statement>, BackendError> {
        let gate = self.gate(target)?;
        let grants = gate.grant_views();
        within(ASK_DEADLINE, target, gate.part.backend.setup(&grants)).await
    }

    /// Which installation has claimed a target (RULES R-11).
    ///
    /// # Errors
    /// As [`Backend::owner`].
    pub async fn owner(&self, target: &str) -> Result<Option<Claim>, BackendError> {
        let gate = self.gate(target)?;
        within(ASK_DEADLINE, target, gate.part.backend.owner()).await
    }

    /// Claims a target, in the place of the claim that was read there.
    ///
    /// # Errors
    /// As [`Backend::claim`].
    pub async fn claim(
        &self,
        target: &str,
        claim: &Claim,
        instead_of: Option<&Claim>,
    ) -> Result<(), BackendError> {
        let gate = self.gate(target)?;
        within(ASK_DEADLINE, target, gate.part.backend.claim(claim, instead_of)).await
    }

    /// Whose a target is from now on; as [`Backend::expect`].
    pub fn expect(&self, target: &str, claim: &Claim) {
        if let Some(gate) = self.gates.get(target) {
            gate.part.backend.expect(claim);
        }
    }

    /// Principals whose names begin as ours do, in order, after `after`, at most `limit`.
    ///
    /// # Errors
    /// As [`Backend::list_principals`].
    pub async fn list_principals(
        &self,
        target: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, BackendError> {
        let gate = self.gate(target)?;
        within(ASK_DEADLINE, target, gate.part.backend.list_principals(PREFIX, after, limit)).await
    }

    fn gate(&self, target: &str) -> Result<&Gate, BackendError> {
        self.gates.get(target).ok_or_else(|| BackendError::Refused {
            what: format!("target `{target}` is not in the config any more"),
            fix: Some(format!("put [targets.{target}] back, so that its leases can be revoked")),
        })
    }
}

impl Gate {
    fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn grant_views(&self) -> Vec<GrantView<'_>> {
        self.part.grants.iter().map(|(pair, recipe)| GrantView { pair, recipe }).collect()
    }

    /// A target that stopped answering is asked how it is before the next mint.
    fn note<T>(&self, answer: &Result<T, BackendError>) {
        if let Err(error @ BackendError::Transient { .. }) = answer {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).error = Some(error.to_string());
        }
    }
}

impl Seen {
    /// The target's clock is read at some moment between question and answer: the middle is the best guess.
    fn of(health: &Health, asked_at: Timestamp, answered_at: Timestamp) -> Self {
        let middle = asked_at + answered_at.since(asked_at).fraction(1, 2);
        Self {
            answered_at: Some(answered_at),
            offset: health.target_now.0.saturating_sub(middle.0),
            version: health.version.clone(),
            missing: health.missing_privileges.clone(),
            warnings: health.warnings.clone(),
            error: None,
        }
    }
}

async fn within<T>(
    deadline: Span,
    target: &str,
    call: impl Future<Output = Result<T, BackendError>> + Send,
) -> Result<T, BackendError> {
    match tokio::time::timeout(deadline.as_duration(), call).await {
        Ok(answer) => answer,
        Err(_) => Err(BackendError::Transient {
            target: target.to_owned(),
            what: format!("no answer within {deadline}"),
        }),
    }
}
