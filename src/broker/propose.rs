//! Dry runs: what would happen, and what may be asked at all. Nothing is minted.

use leasehold_law::catalog::{Class, TtlRule};
use leasehold_law::id::TaskId;
use leasehold_law::lease::{Grade, LimitedBy};
use leasehold_law::param::{ParamSpec, Params};
use leasehold_law::policy::{Answer, DecisionRecord};
use leasehold_law::registry::Claim;
use leasehold_law::scope::Pair;
use leasehold_law::time::Span;

use super::Broker;
use super::decide::{Ask, Asker, TaskFacts, check_request_params};
use super::refused::Refused;

/// What would happen.
#[derive(Debug)]
pub struct Proposal {
    /// The decision, on record.
    pub record: DecisionRecord,
    /// The lifetime that a lease would get.
    pub ttl: Span,
    /// What would limit it.
    pub limited_by: LimitedBy,
    /// How dead "revoked" would be.
    pub grade: Grade,
    /// What would stay open at worst.
    pub window: Span,
    /// What would be minted, in a word: the kind of the target's backend.
    pub kind: String,
}

impl Proposal {
    /// What would be minted, in words; nothing, where the answer is no.
    #[must_use]
    pub fn would_mint(&self) -> String {
        match self.record.answer {
            Answer::Deny => String::new(),
            Answer::Allow | Answer::Ask => {
                format!("one {} principal on {} for {}", self.kind, self.record.pair.target, self.ttl)
            }
        }
    }
}

/// One pair that may be asked for now.
#[derive(Clone, Debug)]
pub struct GrantOffer {
    /// The pair.
    pub pair: Pair,
    /// Its class.
    pub class: Class,
    /// What a request may carry.
    pub params: Vec<(String, ParamSpec)>,
    /// Its lifetimes.
    pub ttl: TtlRule,
    /// Allow or ask.
    pub answer: Answer,
    /// How dead "revoked" is.
    pub grade: Grade,
    /// What stays open at worst.
    pub window: Span,
}

impl Broker {
    /// Decides as a request would be decided, and mints nothing.
    ///
    /// # Errors
    /// Where the caller is unknown, there is no such grant, or the parameters do not fit; a denial is an answer.
    pub async fn propose(
        &self,
        asker: &Asker,
        pair: &Pair,
        params: &Params,
        ttl: Option<Span>,
        task: Option<TaskId>,
    ) -> Result<Proposal, Refused> {
        let proposed = self.dry_run(asker, pair, params, ttl, task).await;
        self.on_record(asker, &format!("propose {pair}"), proposed).await
    }

    async fn dry_run(
        &self,
        asker: &Asker,
        pair: &Pair,
        params: &Params,
        ttl: Option<Span>,
        task: Option<TaskId>,
    ) -> Result<Proposal, Refused> {
        let inner = &self.inner;
        inner.count_call(asker)?;
        inner.ledger.check_writable().await.map_err(|error| Refused::journal(&error))?;
        let registry = self.registry();
        registry.require_agent(asker)?;
        let granted = registry.require_grant(pair)?;
        let unfit = check_request_params(&granted, params).err();
        let now = self.now();
        let task = match task {
            Some(id) => Some(self.own_task(asker, id).await?),
            None => None,
        };
        inner.barrier_guard(&registry.reach(&asker.id, task.as_ref(), Some(pair))).await?;
        let facts = task.as_ref().map_or(PROPOSED, |task| TaskFacts::of(task, now));
        let asked = ttl.unwrap_or(granted.grant.ttl.default);
        // What an intent declares is told to those whom policy does not deny it, and to nobody else.
        let judged = unfit.is_none().then_some(params);
        let ask = Ask { pair, params: judged, ttl: asked, renewal: false, dry_run: true };
        let decision = inner.ask(&registry, self.make_decision_id()?, asker, &ask, facts, &[])?;
        if let Some(unfit) = unfit.filter(|_| decision.record.answer != Answer::Deny) {
            return Err(unfit);
        }
        inner.record_decision(&decision.record).await?;
        let can = inner.door.capabilities(&pair.target);
        let limits = inner.limits(granted.grant, task.as_ref(), asked, granted.grant.ttl.life);
        let (ttl, limited_by) = limits.least();
        Ok(Proposal {
            record: decision.record,
            ttl,
            limited_by,
            grade: can.map_or(Grade::None, |can| can.grade),
            window: can.map_or(Span::ZERO, |can| can.window),
            kind: inner.door.kind(&pair.target).unwrap_or_default().to_owned(),
        })
    }

    /// What a caller may ask for now: denied pairs are not listed. Not on record: it reveals nothing that asking would
    /// not, and changes nothing.
    ///
    /// # Errors
    /// Where the caller is unknown, or asks too often.
    pub async fn offers(&self, asker: &Asker) -> Result<Vec<GrantOffer>, Refused> {
        let offers = self.inner.count_call(asker).and_then(|()| self.list_offers(asker));
        self.on_record(asker, "list grants", offers).await
    }

    fn list_offers(&self, asker: &Asker) -> Result<Vec<GrantOffer>, Refused> {
        let registry = self.registry();
        registry.require_agent(asker)?;
        let mut offers = Vec::new();
        for (pair, grant) in &registry.catalog().grants {
            let Some(granted) = registry.granted(pair) else { continue };
            let open = granted.intent.params.values().all(|spec| spec.optional);
            let none = Params::new();
            let ask = Ask {
                pair,
                params: open.then_some(&none),
                ttl: grant.ttl.default,
                renewal: false,
                dry_run: true,
            };
            let id = self.make_decision_id()?;
            let answer = self.inner.ask(&registry, id, asker, &ask, PROPOSED, &[])?.record.answer;
            if answer == Answer::Deny {
                continue;
            }
            let can = self.inner.door.capabilities(&pair.target);
            offers.push(GrantOffer {
                pair: pair.clone(),
                class: granted.intent.class,
                params: granted.intent.params.clone().into_iter().collect(),
                ttl: grant.ttl,
                answer,
                grade: can.map_or(Grade::None, |can| can.grade),
                window: can.map_or(Span::ZERO, |can| can.window),
            });
        }
        Ok(offers)
    }
}

/// A dry run outside a task is decided as in a new task that heartbeats hold.
const PROPOSED: TaskFacts<'_> =
    TaskFacts { liveness: "heartbeat", age: Span::ZERO, claim: Claim::Unasked, person: None };
