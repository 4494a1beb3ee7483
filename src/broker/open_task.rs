//! Opening a task: every pair of its scope is decided as a dry run; any denial refuses all.

use std::sync::Arc;

use leasehold_law::behalf::{OnBehalfOf, PERSONAL_SESSION};
use leasehold_law::caller::CallerId;
use leasehold_law::id::TaskId;
use leasehold_law::journal::Event;
use leasehold_law::policy::{Answer, DecisionRecord};
use leasehold_law::reason::Reason;
use leasehold_law::registry::Claim;
use leasehold_law::request::{Liveness, OpenRequest};
use leasehold_law::revocation::Reach;
use leasehold_law::scope::{Scope, ScopeEntry};
use leasehold_law::subject::Guard;
use leasehold_law::task::{Task, TaskEvent, TaskTerms};
use leasehold_law::time::{Span, Timestamp};

use super::decide::{Ask, Asker, TRIES, TaskFacts, check_scope_params, scope_guards};
use super::refused::Refused;
use super::request::TurnKey;
use super::session::behalf;
use super::{Broker, Inner};
use crate::ledger::LedgerError;
use crate::registry::Registry;

/// A task that was opened, or had been by the same request.
#[derive(Debug)]
pub struct Opened {
    /// The task.
    pub task: Task,
    /// The decision on each pair; empty where the request was answered before.
    pub decisions: Vec<DecisionRecord>,
}

impl Broker {
    /// Opens a task. The same request id gives the same task. Whom it acts for is proven only for those who may ask.
    ///
    /// # Errors
    /// Where a pair is denied, the caller is frozen or unknown, or nothing can be issued now; as proving the person says.
    pub async fn open_task(
        &self,
        asker: &Asker,
        request: OpenRequest,
        person: impl Future<Output = Result<Option<OnBehalfOf>, Refused>>,
    ) -> Result<Opened, Refused> {
        let opened = self.open(asker, request, person).await;
        self.on_record(asker, "open task", opened).await
    }

    async fn open(
        &self,
        asker: &Asker,
        request: OpenRequest,
        person: impl Future<Output = Result<Option<OnBehalfOf>, Refused>>,
    ) -> Result<Opened, Refused> {
        self.inner.count_call(asker)?;
        self.inner.may_open().await?;
        self.registry().require_agent(asker)?;
        let request = OpenRequest { on_behalf_of: behalf(asker, person.await?)?, ..request };
        let _turn = self.take_turn(TurnKey::Open(asker.id.clone(), request.request_id.clone()))?;
        if let Some(task) = self.inner.opened_before(&asker.id, &request).await? {
            return Ok(Opened { task, decisions: Vec::new() });
        }
        for _ in 0..TRIES {
            match self.inner.try_open(asker, &request).await? {
                Some(opened) => {
                    self.inner.liveness.heard(&opened.task, self.now());
                    return Ok(opened);
                }
                None => {
                    if let Some(task) = self.inner.opened_before(&asker.id, &request).await? {
                        return Ok(Opened { task, decisions: Vec::new() });
                    }
                }
            }
        }
        Err(Refused::contended("what this task rests on keeps changing"))
    }
}

impl Inner {
    async fn opened_before(&self, agent: &CallerId, request: &OpenRequest) -> Result<Option<Task>, Refused> {
        let known = self.ledger.store().task_by_request(agent, &request.request_id).await?;
        match known {
            Some(task) if task.terms.request_digest == request.digest() => Ok(Some(task)),
            Some(_) => Err(Refused::request_id_reused(&request.request_id)),
            None => Ok(None),
        }
    }

    /// `None` where what it rests on changed before it was recorded.
    async fn try_open(
        self: &Arc<Self>,
        asker: &Asker,
        request: &OpenRequest,
    ) -> Result<Option<Opened>, Refused> {
        self.standing().await?;
        let registry = self.registry.load_full();
        let now = self.clock.now();
        let person = request.on_behalf_of.as_ref().map(|behalf| &behalf.person);
        let reach = Reach { refs: Some(&request.refs), person, ..registry.reach(&asker.id, None, None) };
        let barrier = vec![self.barrier_guard(&reach).await?];
        let claim = Claim::Of(request.manifest);
        let facts = TaskFacts { liveness: request.liveness.name(), age: Span::ZERO, claim, person };
        let decisions = self.decide_scope(&registry, asker, &request.scope, facts, &barrier)?;
        let terms = self.task_terms(asker, request, now)?;
        let guards = scope_guards(&registry, &asker.id, &request.scope, barrier);
        let denied = denial(&decisions);
        let step = if denied.is_some() { TaskEvent::Refused } else { TaskEvent::Opened };
        match self.ledger.begin_task(terms, request.scope.clone(), step, decisions.clone(), guards).await {
            Ok(task) => {
                self.note_drift(&task).await;
                denied.map_or(Ok(Some(Opened { task, decisions })), Err)
            }
            Err(LedgerError::Stale(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Each pair of a scope, decided as a dry run.
    pub(super) fn decide_scope(
        &self,
        registry: &Registry,
        asker: &Asker,
        scope: &Scope,
        facts: TaskFacts<'_>,
        guards: &[Guard],
    ) -> Result<Vec<DecisionRecord>, Refused> {
        scope.entries().iter().map(|entry| self.decide_entry(registry, asker, entry, facts, guards)).collect()
    }

    fn decide_entry(
        &self,
        registry: &Registry,
        asker: &Asker,
        entry: &ScopeEntry,
        facts: TaskFacts<'_>,
        guards: &[Guard],
    ) -> Result<DecisionRecord, Refused> {
        let granted = registry.require_grant(&entry.pair)?;
        // What an intent declares is told to those whom policy does not deny it, and to nobody else.
        let unfit = check_scope_params(&granted, &entry.params).err();
        let fixed = unfit.is_none()
            && granted
                .intent
                .params
                .iter()
                .all(|(name, spec)| spec.optional || entry.params.contains_key(name));
        let default = granted.grant.ttl.default;
        let ask = Ask {
            pair: &entry.pair,
            params: fixed.then_some(&entry.params),
            ttl: entry.max_ttl.map_or(default, |max| max.min(default)),
            renewal: false,
            dry_run: true,
        };
        let id = self.make_decision_id()?;
        let record = self.ask(registry, id, asker, &ask, facts, guards)?.record;
        match unfit {
            Some(unfit) if record.answer != Answer::Deny => Err(unfit),
            Some(_) | None => Ok(record),
        }
    }

    fn task_terms(&self, asker: &Asker, request: &OpenRequest, now: Timestamp) -> Result<TaskTerms, Refused> {
        Ok(TaskTerms {
            id: TaskId::derive(now, self.random_bits()?),
            agent: asker.id.clone(),
            purpose: request.purpose.clone(),
            liveness: request.liveness,
            deadline: self.deadline(asker, request, now)?,
            refs: request.refs.clone(),
            opened_at: now,
            request_id: request.request_id.clone(),
            request_digest: request.digest(),
            manifest: request.manifest,
            on_behalf_of: request.on_behalf_of.clone(),
        })
    }

    /// The deadline asked for, or the default, within what config and liveness allow.
    fn deadline(&self, asker: &Asker, request: &OpenRequest, now: Timestamp) -> Result<Timestamp, Refused> {
        let furthest = match (request.liveness, &asker.id) {
            // It ends with its person's session, which only heartbeats tell.
            (Liveness::Deadline, CallerId::PersonalAgent(_)) => {
                let what =
                    "an agent in a person's session holds its task by heartbeats: it ends with the session";
                return Err(Refused::field("liveness", what));
            }
            (Liveness::Heartbeat { .. }, CallerId::PersonalAgent(_)) => {
                self.tasks.max_deadline.min(PERSONAL_SESSION)
            }
            (Liveness::Heartbeat { .. }, _) => self.tasks.max_deadline,
            (Liveness::Deadline, _) => self.tasks.max_deadline.min(Liveness::MAX_DEADLINE),
        };
        match request.deadline {
            Some(asked) if asked > furthest => {
                let held = request.liveness.name();
                Err(Refused::field("deadline", format!("a task held by {held} lasts at most {furthest}")))
            }
            Some(asked) => Ok(now + asked),
            None => Ok(now + self.tasks.default_deadline.min(furthest)),
        }
    }

    /// A refusal that is on record by itself.
    pub(super) async fn record_decision(&self, record: &DecisionRecord) -> Result<(), Refused> {
        let event = Event::Decided { decision: Box::new(record.clone()) };
        Ok(self.ledger.note(&record.id.to_string(), event).await?)
    }
}

/// The refusal of a scope, if a pair of it is denied: all denied pairs are named.
pub(super) fn denial(decisions: &[DecisionRecord]) -> Option<Refused> {
    let denied: Vec<_> = decisions.iter().filter(|record| record.answer == Answer::Deny).collect();
    let first = denied.first()?;
    let refused = Refused::policy(first);
    if denied.len() == 1 {
        return Some(refused);
    }
    let pairs: Vec<_> = denied.iter().map(|record| record.pair.to_string()).collect();
    let reason = if refused.reason == Reason::NeedsApproval { Reason::NoPermit } else { refused.reason };
    Some(Refused { reason, what: format!("denied {}", pairs.join(", ")), ..refused })
}
