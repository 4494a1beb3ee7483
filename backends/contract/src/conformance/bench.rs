//! Orders, made as the broker makes them: a question, an answer, a permit that is spent (DESIGN, evidence).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use leasehold_law::caller::{CallerId, ProvenBy, SpiffeId};
use leasehold_law::catalog::{
    Agent, Autonomy, Catalog, Class, Grant, Intent, Owner, Recipe, Target, TtlRule,
};
use leasehold_law::id::{DecisionId, LeaseId, TaskId};
use leasehold_law::lease::{LeaseTerms, LimitedBy, Reached, Sessions};
use leasehold_law::param::Params;
use leasehold_law::policy::{
    Engine, IssueOrder, MintTerms, Permit, Question, RenewOrder, RenewTerms, Verdict,
};
use leasehold_law::principal::{InstallationKey, PrincipalName};
use leasehold_law::registry::Standing;
use leasehold_law::request::RequestDigest;
use leasehold_law::scope::Pair;
use leasehold_law::time::{Span, Timestamp};
use zeroize::Zeroizing;

use super::{Failure, Harness, Outcome, ensure};
use crate::{Backend, GrantView, Issued, RevokeOrder, RevokeReport};

const GROUP: &str = "conformance";
/// How long a mint or a renewal may take.
const WINDOW: Span = Span::from_secs(10);
/// The lifetime of what is minted, unless a case says otherwise.
pub(super) const TTL: Span = Span::from_mins(10);
/// How often a revocation or a reaping is tried, and how far apart.
pub(super) const TRIES: u32 = 40;
/// Time between two tries.
pub(super) const PAUSE: Span = Span(250);

/// A case's bench: the target, and a broker's way of making orders for it.
pub struct Bench<'a> {
    /// The target.
    pub harness: &'a dyn Harness,
    /// Its backend.
    pub backend: Arc<dyn Backend>,
    pair: Pair,
    agent: Agent,
    engine: Engine,
    key: InstallationKey,
    minted: Mutex<Vec<RevokeOrder>>,
}

/// Something that was minted.
#[derive(Debug)]
pub struct Leased {
    /// On which terms.
    pub terms: Arc<LeaseTerms>,
    /// What came of it.
    pub issued: Issued,
}

impl Leased {
    /// Its name in the target.
    #[must_use]
    pub fn principal(&self) -> &PrincipalName {
        &self.terms.principal
    }

    /// The order to kill it.
    #[must_use]
    pub fn revocation(&self) -> RevokeOrder {
        RevokeOrder {
            principal: self.terms.principal.clone(),
            handle: self.issued.handle.clone(),
            recipe: self.terms.recipe.clone(),
        }
    }
}

impl<'a> Bench<'a> {
    pub(super) fn of(harness: &'a dyn Harness) -> Result<Self, Failure> {
        let pair: Pair = "conformance.use@conformance".parse()?;
        let agent = agent()?;
        let engine = Engine::load(&catalog(&pair, &agent, harness.recipe()), &[])
            .map_err(|problems| Failure::new(format!("{problems:?}")))?;
        let mut key = Zeroizing::new([0; InstallationKey::BYTES]);
        harness.entropy().fill(key.as_mut_slice())?;
        let key = InstallationKey::new(key);
        Ok(Self { backend: harness.backend(), harness, pair, agent, engine, key, minted: Mutex::default() })
    }

    /// The target's time, by the target itself.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn target_now(&self) -> Result<Timestamp, Failure> {
        Ok(self.backend.health(&[]).await?.target_now)
    }

    /// An order to mint that lives for `ttl` and may still land.
    ///
    /// # Errors
    /// Where policy does not allow it, or the target does not tell its time.
    pub async fn order(&self, ttl: Span) -> Result<IssueOrder, Failure> {
        self.order_by(ttl, self.target_now().await? + WINDOW)
    }

    /// An order to mint that lives for `ttl` and lands before `mint_by` or not at all.
    ///
    /// # Errors
    /// Where policy does not allow it.
    pub fn order_by(&self, ttl: Span, mint_by: Timestamp) -> Result<IssueOrder, Failure> {
        self.order_of(self.terms()?, ttl, mint_by)
    }

    /// An order to mint on terms that may have been used before.
    ///
    /// # Errors
    /// Where policy does not allow it.
    pub fn order_of(
        &self,
        terms: Arc<LeaseTerms>,
        ttl: Span,
        mint_by: Timestamp,
    ) -> Result<IssueOrder, Failure> {
        self.remember(revocation_of(&terms));
        let permit = self.permit(terms.decision, ttl, false)?;
        let expires_at = self.harness.entropy().now() + ttl;
        Ok(permit.into_order(MintTerms { terms, ttl, expires_at, mint_by })?)
    }

    /// Mints for [`TTL`].
    ///
    /// # Errors
    /// Where the target does not mint.
    pub async fn issue(&self) -> Result<Leased, Failure> {
        self.issue_for(TTL).await
    }

    /// Mints for `ttl`.
    ///
    /// # Errors
    /// Where the target does not mint.
    pub async fn issue_for(&self, ttl: Span) -> Result<Leased, Failure> {
        let order = self.order(ttl).await?;
        let issued = self.backend.issue(&order).await?;
        Ok(Leased { terms: order.terms().clone(), issued })
    }

    /// An order to renew that may still land.
    ///
    /// # Errors
    /// Where policy does not allow it, or the target does not tell its time.
    pub async fn renewal(&self, leased: &Leased, ttl: Span) -> Result<RenewOrder, Failure> {
        let renew_by = self.target_now().await? + WINDOW;
        self.renewal_by(leased.terms.clone(), leased.issued.handle.clone(), ttl, renew_by)
    }

    /// An order to renew that lands before `renew_by` or not at all.
    ///
    /// # Errors
    /// Where policy does not allow it.
    pub fn renewal_by(
        &self,
        terms: Arc<LeaseTerms>,
        handle: Option<String>,
        ttl: Span,
        renew_by: Timestamp,
    ) -> Result<RenewOrder, Failure> {
        let decision = DecisionId::derive(self.harness.entropy().now(), self.random()?);
        let permit = self.permit(decision, ttl, true)?;
        let until = self.harness.entropy().now() + ttl;
        Ok(permit.into_renewal(RenewTerms { terms, handle, ttl, until, renew_by })?)
    }

    /// Revokes one, once.
    ///
    /// # Errors
    /// Where there is not exactly one report.
    pub async fn revoke(&self, order: RevokeOrder) -> Result<RevokeReport, Failure> {
        let mut reports = self.backend.revoke(&[order]).await;
        match (reports.pop(), reports.is_empty()) {
            (Some(report), true) => Ok(report),
            (_, _) => Err(Failure::new("one order must give one report")),
        }
    }

    /// Revokes until the target says that nothing is left, as the broker does.
    ///
    /// # Errors
    /// Where it never says so.
    pub async fn kill(&self, order: RevokeOrder) -> Result<RevokeReport, Failure> {
        let mut last = None;
        for _ in 0..TRIES {
            let report = self.revoke(order.clone()).await?;
            if report.reached == Reached::Removed && report.sessions == Sessions::None {
                return Ok(report);
            }
            last = Some(report);
            self.harness.pass(PAUSE).await;
        }
        Err(Failure::new(format!("still not dead after {TRIES} tries: {last:?}")))
    }

    /// The terms of a new lease.
    ///
    /// # Errors
    /// Where there are no random bits.
    pub fn terms(&self) -> Result<Arc<LeaseTerms>, Failure> {
        let now = self.harness.entropy().now();
        let id = LeaseId::derive(now, self.random()?);
        let capabilities = self.backend.capabilities();
        Ok(Arc::new(LeaseTerms {
            id,
            task: TaskId::derive(now, self.random()?),
            agent: self.agent.id.clone(),
            proven_by: ProvenBy::X509Svid,
            on_behalf_of: None,
            pair: self.pair.clone(),
            params: Params::new(),
            principal: PrincipalName::derive(id, &self.key),
            recipe: self.harness.recipe(),
            grade: capabilities.grade,
            window: capabilities.window,
            created_at: now,
            life_ends_at: now + Span::from_mins(60),
            limited_by: LimitedBy::Asked,
            request_id: "conformance".parse()?,
            attempt: 1,
            request_digest: RequestDigest::derive(&()),
            decision: DecisionId::derive(now, self.random()?),
            supersedes: None,
        }))
    }

    /// The grant that everything is minted under.
    #[must_use]
    pub fn grant<'b>(&'b self, recipe: &'b Recipe) -> GrantView<'b> {
        GrantView { pair: &self.pair, recipe }
    }

    /// Revokes whatever was minted, or may have been.
    pub(super) async fn clear(&self) {
        let orders = std::mem::take(&mut *self.minted.lock().unwrap_or_else(PoisonError::into_inner));
        self.backend.revoke(&orders).await;
    }

    fn remember(&self, order: RevokeOrder) {
        self.minted.lock().unwrap_or_else(PoisonError::into_inner).push(order);
    }

    fn random(&self) -> Result<u64, Failure> {
        let mut bytes = [0; 8];
        self.harness.entropy().fill(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn permit(&self, id: DecisionId, ttl: Span, renewal: bool) -> Result<Permit, Failure> {
        let decision = self.engine.decide(&Question {
            id,
            agent: &self.agent,
            pair: &self.pair,
            params: Some(&Params::new()),
            ttl,
            now: self.harness.entropy().now(),
            liveness: "deadline",
            task_age: Span::ZERO,
            proof: "x509-svid",
            on_behalf_of: None,
            depth: 1,
            renewal,
            dry_run: false,
            guards: &[],
        });
        match decision.verdict {
            Verdict::Allow(permit) => Ok(permit),
            Verdict::Ask(need) => Err(Failure::new(format!("policy asks people: {need:?}"))),
            Verdict::Deny(denial) => Err(Failure::new(format!("policy denies: {denial:?}"))),
        }
    }
}

/// Whether a span read back from a target is what was asked, give or take a slow minute.
pub(super) fn about(read: Span, asked: Span) -> Outcome {
    ensure!(read <= asked, "{read} is longer than the {asked} that was asked");
    ensure!(read.0 + 60_000 > asked.0, "{read} is far shorter than the {asked} that was asked");
    Ok(())
}

fn agent() -> Result<Agent, Failure> {
    let id: SpiffeId = "spiffe://conformance.leasehold.test/agent".parse()?;
    Ok(Agent {
        id: CallerId::Agent(id),
        owner: owner(),
        groups: BTreeSet::from([GROUP.to_owned()]),
        autonomy: Autonomy::Act,
        purpose: String::new(),
        standing: Standing::default(),
    })
}

fn owner() -> Owner {
    Owner::Person("ana".to_owned())
}

/// A catalog in which the one agent may have the one grant without further policy.
fn catalog(pair: &Pair, agent: &Agent, recipe: Recipe) -> Catalog {
    let hour = Span::from_mins(60);
    let target = Target {
        name: pair.target.clone(),
        owner: owner(),
        labels: BTreeMap::new(),
        groups: BTreeSet::new(),
    };
    let intent = Intent { name: pair.intent.clone(), class: Class::ReadOnly, params: BTreeMap::new() };
    let grant = Grant {
        pair: pair.clone(),
        recipe,
        ttl: TtlRule { default: TTL, max: hour, life: hour },
        allow: BTreeSet::from([GROUP.to_owned()]),
    };
    Catalog {
        people: BTreeMap::new(),
        agents: BTreeMap::from([(agent.id.clone(), agent.clone())]),
        targets: BTreeMap::from([(pair.target.clone(), target)]),
        intents: BTreeMap::from([(pair.intent.clone(), intent)]),
        grants: BTreeMap::from([(pair.clone(), grant)]),
        ..Catalog::default()
    }
}

/// An order to revoke by name alone.
pub(super) fn revocation_of(terms: &LeaseTerms) -> RevokeOrder {
    RevokeOrder { principal: terms.principal.clone(), handle: None, recipe: terms.recipe.clone() }
}
