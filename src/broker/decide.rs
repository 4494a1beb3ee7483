//! Step 2: the facts, with the versions that they were read at, and the answer of policy.

use leasehold_law::caller::CallerId;
use leasehold_law::catalog::Agent;
use leasehold_law::id::DecisionId;
use leasehold_law::param::{Params, check_fixed, check_params};
use leasehold_law::policy::{Decision, Question};
use leasehold_law::reason::Reason;
use leasehold_law::revocation::Selector;
use leasehold_law::scope::Pair;
use leasehold_law::subject::{Guard, Subject};
use leasehold_law::task::{Task, TaskState};
use leasehold_law::time::{Span, Timestamp};

use super::refused::{FieldFault, Refused};
use super::{Broker, Inner};
use crate::registry::{Granted, Registry};

/// Who asks, as the door proved it.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The proven identity.
    pub id: CallerId,
    /// How it was proven, in the word that policy sees.
    pub proof: &'static str,
}

/// What is asked about one pair.
pub(super) struct Ask<'a> {
    pub(super) pair: &'a Pair,
    pub(super) params: Option<&'a Params>,
    pub(super) ttl: Span,
    pub(super) renewal: bool,
}

/// The task that a question belongs to, as far as policy sees it.
#[derive(Clone, Copy)]
pub(super) struct TaskFacts {
    pub(super) liveness: &'static str,
    pub(super) age: Span,
}

impl TaskFacts {
    pub(super) fn of(task: &Task, now: Timestamp) -> Self {
        Self { liveness: task.terms.liveness.name(), age: now.since(task.terms.opened_at) }
    }
}

impl Registry {
    /// The registered agent behind a caller.
    pub(super) fn require_agent(&self, asker: &Asker) -> Result<&Agent, Refused> {
        self.agent(&asker.id).ok_or_else(|| Refused::unknown_agent(&asker.id))
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
        task: TaskFacts,
        guards: &[Guard],
    ) -> Result<Decision, Refused> {
        let agent = registry.require_agent(asker)?;
        let mut all = registry.guards(&asker.id, &ask.pair.target);
        all.extend_from_slice(guards);
        Ok(registry.engine().decide(&Question {
            id,
            agent,
            pair: ask.pair,
            params: ask.params,
            ttl: ask.ttl,
            now: self.clock.now(),
            liveness: task.liveness,
            task_age: task.age,
            proof: asker.proof,
            depth: 0,
            renewal: ask.renewal,
            guards: &all,
        }))
    }

    /// The versions of the barriers over a caller and its task, or the barrier that stands (RULES R-2). The versions
    /// are read first: a barrier that rises after them makes them stale.
    pub(super) async fn barrier_guards(&self, selectors: Vec<Selector>) -> Result<Vec<Guard>, Refused> {
        let subjects: Vec<_> = selectors.iter().cloned().map(Subject::Freeze).collect();
        let versions = self.ledger.store().versions(&subjects).await?;
        if versions.iter().any(|version| *version > 0) {
            let standing = self.ledger.store().barriers(&selectors).await?;
            if let Some(revocation) = standing.first() {
                return Err(Refused::frozen(revocation));
            }
        }
        Ok(subjects.into_iter().zip(versions).map(|(subject, version)| Guard { subject, version }).collect())
    }

    /// An open task of this caller, with the versions that a decision in it rests on.
    pub(super) async fn open_task_guards(&self, asker: &Asker, task: &Task) -> Result<Vec<Guard>, Refused> {
        if task.state != TaskState::Open {
            return Err(Refused::task_ended(task));
        }
        let selectors = vec![Selector::Agent(asker.id.clone()), Selector::Task(task.terms.id)];
        let mut guards = self.barrier_guards(selectors).await?;
        guards.push(Guard { subject: Subject::Task(task.terms.id), version: task.version });
        Ok(guards)
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
