//! Step 2: the facts, with the versions that they were read at, and the answer of policy.

use leasehold_law::caller::{CallerId, ProvenBy, Vouched};
use leasehold_law::catalog::{Agent, Grant};
use leasehold_law::id::DecisionId;
use leasehold_law::lifetime::Limits;
use leasehold_law::param::{Params, check_fixed, check_params};
use leasehold_law::policy::{Decision, Question};
use leasehold_law::reason::Reason;
use leasehold_law::registry::Claim;
use leasehold_law::request::LeaseRequest;
use leasehold_law::scope::{Pair, Scope};
use leasehold_law::subject::{Guard, Subject};
use leasehold_law::task::{Task, TaskState};
use leasehold_law::time::{Span, Timestamp};

use super::refused::{FieldFault, Refused};
use super::{Broker, Inner};
use crate::registry::{Granted, Registry};

/// How often a decision is made again when what it rests on changed before it was recorded (RULES R-1).
pub(super) const TRIES: usize = 3;

/// Who asks, as the door proved it.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The proven identity.
    pub id: CallerId,
    /// How it was proven, in the word that policy sees.
    pub proof: ProvenBy,
}

/// What is asked about one pair.
pub(super) struct Ask<'a> {
    pub(super) pair: &'a Pair,
    pub(super) params: Option<&'a Params>,
    pub(super) ttl: Span,
    pub(super) renewal: bool,
    /// Whether nothing will be held by the answer.
    pub(super) dry_run: bool,
}

/// The task that a question belongs to, as far as policy sees it.
#[derive(Clone, Copy)]
pub(super) struct TaskFacts<'a> {
    pub(super) liveness: &'static str,
    pub(super) age: Span,
    pub(super) claim: Claim,
    pub(super) person: Option<&'a Vouched>,
}

impl<'a> TaskFacts<'a> {
    pub(super) fn of(task: &'a Task, now: Timestamp) -> Self {
        Self {
            liveness: task.terms.liveness.name(),
            age: now.since(task.terms.opened_at),
            claim: Claim::Of(task.terms.manifest),
            person: task.person(),
        }
    }
}

impl Registry {
    /// Refuses whom nobody registered.
    pub(super) fn require_agent(&self, asker: &Asker) -> Result<(), Refused> {
        if self.knows(&asker.id) { Ok(()) } else { Err(Refused::unknown_agent(&asker.id)) }
    }

    /// The registered agent behind a caller, as it stands now in a task.
    fn agent_in(&self, asker: &Asker, task: TaskFacts<'_>, now: Timestamp) -> Result<Agent, Refused> {
        self.agent(&asker.id, now, task.claim).ok_or_else(|| Refused::unknown_agent(&asker.id))
    }

    /// What a pair names. A pair that nobody granted is no more than a denied one: names are not to be probed.
    pub(super) fn require_grant(&self, pair: &Pair) -> Result<Granted<'_>, Refused> {
        self.granted(pair).ok_or_else(|| {
            Refused::new(Reason::NoPermit, format!("denied {pair}"))
                .why("there is no such grant, or none that you may ask for")
                .next("see what you may ask for with: leasehold grants")
                .detail("pair", pair)
        })
    }
}

/// The parameters of a request against what its intent declares.
pub(super) fn check_request_params(granted: &Granted<'_>, params: &Params) -> Result<(), Refused> {
    faults(check_params(&granted.intent.params, params).iter())
}

/// The parameters that a scope fixes.
pub(super) fn check_scope_params(granted: &Granted<'_>, params: &Params) -> Result<(), Refused> {
    faults(check_fixed(&granted.intent.params, params).iter())
}

/// Whether a request steps out of its task's scope. Asked again with every decision: the scope may have changed since
/// the request came in (RULES R-1).
pub(super) fn fits_scope(task: &Task, request: &LeaseRequest) -> Result<(), Refused> {
    task.scope
        .check(&request.pair, &request.params, request.ttl.unwrap_or(Span::ZERO))
        .map_err(|error| Refused::out_of_scope(&error, &request.pair, task.terms.id))
}

/// The versions that a scope was decided on, behind those that are given.
pub(super) fn scope_guards(
    registry: &Registry,
    agent: &CallerId,
    scope: &Scope,
    mut guards: Vec<Guard>,
) -> Vec<Guard> {
    for entry in scope.entries() {
        for guard in registry.guards(agent, &entry.pair.target) {
            if !guards.contains(&guard) {
                guards.push(guard);
            }
        }
    }
    guards
}

fn faults<'a>(errors: impl Iterator<Item = &'a leasehold_law::param::ParamError>) -> Result<(), Refused> {
    let fields: Vec<_> =
        errors.map(|error| FieldFault { field: "params".to_owned(), what: error.to_string() }).collect();
    if fields.is_empty() { Ok(()) } else { Err(Refused::fields(fields)) }
}

impl Inner {
    /// Asks the engine, with every version that the answer rests on.
    pub(super) fn ask(
        &self,
        registry: &Registry,
        id: DecisionId,
        asker: &Asker,
        ask: &Ask<'_>,
        task: TaskFacts<'_>,
        guards: &[Guard],
    ) -> Result<Decision, Refused> {
        let now = self.clock.now();
        let agent = registry.agent_in(asker, task, now)?;
        let mut all = registry.guards(&asker.id, &ask.pair.target);
        all.extend_from_slice(guards);
        Ok(registry.engine().decide(&Question {
            id,
            agent: &agent,
            pair: ask.pair,
            params: ask.params,
            ttl: ask.ttl,
            now,
            liveness: task.liveness,
            task_age: task.age,
            proof: asker.proof.name(),
            on_behalf_of: task.person,
            depth: 0,
            renewal: ask.renewal,
            dry_run: ask.dry_run,
            guards: &all,
        }))
    }

    /// An open task of this caller, with the versions that a decision in it, about this pair if about any, rests on.
    pub(super) async fn open_task_guards(
        &self,
        asker: &Asker,
        task: &Task,
        pair: Option<&Pair>,
    ) -> Result<Vec<Guard>, Refused> {
        if task.state != TaskState::Open {
            return Err(Refused::task_ended(task));
        }
        let registry = self.registry.load_full();
        let barriers = self.barrier_guard(&registry.reach(&asker.id, Some(task), pair)).await?;
        Ok(vec![barriers, Guard { subject: Subject::Task(task.terms.id), version: task.version }])
    }

    /// What limits the lifetime of a lease, as of now. `life` is what is left of its full life; without a task, it is
    /// as in a new one.
    pub(super) fn limits(&self, grant: &Grant, task: Option<&Task>, asked: Span, life: Span) -> Limits {
        let now = self.clock.now();
        Limits {
            asked,
            grant: grant.ttl.max,
            life,
            scope: task.and_then(|task| task.scope.max_ttl(&grant.pair)),
            deadline: task.map_or(self.tasks.default_deadline, |task| task.ends_at().since(now)),
            backend: self.door.capabilities(&grant.pair.target).and_then(|can| can.max_natural_life),
        }
    }
}

impl Broker {
    /// A task of this caller; another's is not found, in the same words as one that does not exist (law 6).
    pub(super) async fn own_task(
        &self,
        asker: &Asker,
        id: leasehold_law::id::TaskId,
    ) -> Result<Task, Refused> {
        let task = self.inner.ledger.store().task(id).await?;
        task.filter(|task| task.terms.agent == asker.id).ok_or_else(|| Refused::not_yours("task", id))
    }

    /// A lease of this caller, likewise.
    pub(super) async fn own_lease(
        &self,
        asker: &Asker,
        id: leasehold_law::id::LeaseId,
    ) -> Result<leasehold_law::lease::Lease, Refused> {
        let lease = self.inner.ledger.store().lease(id).await?;
        lease.filter(|lease| lease.terms.agent == asker.id).ok_or_else(|| Refused::not_yours("lease", id))
    }
}
