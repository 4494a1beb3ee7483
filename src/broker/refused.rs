//! One error for everything that is refused: what, why, and what to do next.

mod journal;
mod policy;
mod target;

use std::collections::BTreeMap;
use std::fmt;

use leasehold_law::id::{DecisionId, TaskId};
use leasehold_law::lease::Lease;
use leasehold_law::reason::Reason;
use leasehold_law::revocation::Revocation;
use leasehold_law::scope::{OutOfScope, Pair};
use leasehold_law::time::Span;
use leasehold_law::words::count_are;

/// A call that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason's word.
    pub reason: Reason,
    /// What was refused, in one line.
    pub what: String,
    /// Why, in one line.
    pub why: Option<String>,
    /// What to do next, in one line.
    pub next: Option<String>,
    /// The decision behind it.
    pub decision: Option<DecisionId>,
    /// When to try again.
    pub retry_after: Option<Span>,
    /// Fields that are not valid.
    pub fields: Vec<FieldFault>,
    /// More, for programs.
    pub details: BTreeMap<&'static str, String>,
}

/// A field that is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFault {
    /// The field, as the wire names it.
    pub field: String,
    /// What is wrong with it.
    pub what: String,
}

impl Refused {
    /// A refusal in one line.
    #[must_use]
    pub fn new(reason: Reason, what: impl Into<String>) -> Self {
        Self {
            reason,
            what: what.into(),
            why: None,
            next: None,
            decision: None,
            retry_after: None,
            fields: Vec::new(),
            details: BTreeMap::new(),
        }
    }

    /// Whether it is an answer about what the caller may, and so goes on record (law 12), unlike a bad field or a
    /// target that is down.
    #[must_use]
    pub const fn is_denial(&self) -> bool {
        match self.reason {
            Reason::UnknownAgent
            | Reason::NoPermit
            | Reason::Forbidden
            | Reason::OutOfScope
            | Reason::Frozen
            | Reason::AgentStopped
            | Reason::BeyondAutonomy
            | Reason::RoleMissing
            | Reason::NotFound
            | Reason::NeedsApproval => true,
            Reason::NoIdentity
            | Reason::TaskEnded
            | Reason::TaskLost
            | Reason::LifeReached
            | Reason::LeaseEnded
            | Reason::AttemptSpent
            | Reason::PrivilegeMissing
            | Reason::RegistrationStands
            | Reason::TargetRefused
            | Reason::TargetDown
            | Reason::Clock
            | Reason::Journal
            | Reason::Quota
            | Reason::RequestIdReused
            | Reason::Contended
            | Reason::BadRequest
            | Reason::NotServed
            | Reason::Draining
            | Reason::IssuerDown
            | Reason::Internal => false,
        }
    }

    /// With the reason why.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// With what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// With a detail for programs.
    #[must_use]
    pub fn detail(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.details.insert(key, value.to_string());
        self
    }

    /// With the decision behind it.
    #[must_use]
    pub fn decided(mut self, decision: DecisionId) -> Self {
        self.decision = Some(decision);
        self
    }

    /// With the time after which to try again.
    #[must_use]
    pub fn retry_after(mut self, span: Span) -> Self {
        self.retry_after = Some(span);
        self
    }

    /// Fields that are not valid.
    #[must_use]
    pub fn fields(fields: Vec<FieldFault>) -> Self {
        let what = match fields.as_slice() {
            [one] => format!("field {}: {}", one.field, one.what),
            many => format!("{} not valid", count_are(many.len(), "field")),
        };
        Self { fields, ..Self::new(Reason::BadRequest, what) }
    }

    /// One field that is not valid.
    #[must_use]
    pub fn field(field: &str, what: impl fmt::Display) -> Self {
        Self::fields(vec![FieldFault { field: field.to_owned(), what: what.to_string() }])
    }

    /// There is no such thing.
    #[must_use]
    pub fn not_found(noun: &str, id: impl fmt::Display) -> Self {
        Self::new(Reason::NotFound, format!("no {noun} `{id}`"))
    }

    /// No registration names it.
    #[must_use]
    pub fn not_registered(who: &impl fmt::Display) -> Self {
        Self::new(Reason::NotFound, format!("no agent `{who}` is registered"))
            .next("see who is with: leasehold agents list")
    }

    /// There is no such thing, or it is not the caller's: the same words for both (law 6).
    #[must_use]
    pub fn not_yours(noun: &str, id: impl fmt::Display) -> Self {
        Self::new(Reason::NotFound, format!("no {noun} `{id}` of yours"))
    }

    /// Nobody registered the caller.
    #[must_use]
    pub fn unknown_agent(caller: &impl fmt::Display) -> Self {
        Self::new(Reason::UnknownAgent, format!("denied {caller}"))
            .why("this identity is proven, but it is not in the registry of agents")
            .next(format!(
                "put a table [agents.\"{caller}\"] with owner, groups and autonomy into the config, or into a file for: leasehold agents apply FILE"
            ))
            .detail("agent", caller)
    }

    /// What was asked steps out of the task's scope.
    #[must_use]
    pub fn out_of_scope(error: &OutOfScope, pair: &Pair, task: TaskId) -> Self {
        Self::new(Reason::OutOfScope, format!("denied {pair}"))
            .why(error.to_string())
            .next(format!("leasehold task scope {task} --add {pair}"))
            .detail("pair", pair)
    }

    /// An operator has frozen the caller or its task.
    #[must_use]
    pub fn frozen(revocation: &Revocation) -> Self {
        Self::new(Reason::Frozen, format!("denied: frozen by {}", revocation.id))
            .why(format!(
                "{} was stopped at {}: \"{}\"",
                revocation.selector, revocation.at, revocation.reason
            ))
            .next(format!("an admin lifts it with: leasehold revocations lift {} --reason R", revocation.id))
            .detail("revocation", revocation.id)
    }

    /// The task takes nothing more.
    #[must_use]
    pub fn task_ended(task: &leasehold_law::task::Task) -> Self {
        use leasehold_law::cause::Cause;
        let lost = task.state.cause() == Some(Cause::TaskLost);
        let reason = if lost { Reason::TaskLost } else { Reason::TaskEnded };
        let refused = Self::new(reason, format!("{} is {}", task.terms.id, task.state.name()))
            .next("open a new task; put the same refs on it to keep them together")
            .detail("task", task.terms.id);
        match (lost, task.terms.liveness) {
            (true, leasehold_law::request::Liveness::Heartbeat { grace }) => {
                refused.why(format!("no heartbeat came for longer than its grace of {grace}"))
            }
            _ if task.state.cause() == Some(Cause::PersonEnded) => {
                refused.why("the session of the person that it acted for ended, or an operator ended it")
            }
            _ => refused,
        }
    }

    /// An attempt of a request that has ended.
    #[must_use]
    pub fn attempt_spent(lease: &Lease) -> Self {
        let next = lease.terms.attempt.saturating_add(1);
        Self::new(Reason::AttemptSpent, format!("attempt {} is spent", lease.terms.attempt))
            .why(format!("{} is {}; a secret is never shown twice", lease.terms.id, lease.state.name()))
            .next(format!("ask again with attempt {next}; the old credential is revoked first"))
            .detail("lease", lease.terms.id)
            .detail("state", lease.state.name())
            .detail("next_attempt", next)
    }

    /// The same request id with other parameters.
    #[must_use]
    pub fn request_id_reused(request: &impl fmt::Display) -> Self {
        Self::new(Reason::RequestIdReused, format!("request id `{request}` was used for something else"))
            .next("use a new request id for a new request")
    }

    /// Somebody is at it already.
    #[must_use]
    pub fn contended(what: impl Into<String>) -> Self {
        Self::new(Reason::Contended, what).retry_after(Span(250)).next("try again")
    }

    /// No more renewals.
    #[must_use]
    pub fn life_reached(lease: &Lease) -> Self {
        Self::new(Reason::LifeReached, format!("{} has reached its full life", lease.terms.id))
            .why(format!("all renewals together end at {}", lease.terms.life_ends_at))
            .next("ask for a new lease")
            .detail("lease", lease.terms.id)
    }

    /// The lease is no longer live.
    #[must_use]
    pub fn lease_ended(lease: &Lease) -> Self {
        Self::new(Reason::LeaseEnded, format!("{} is {}", lease.terms.id, lease.state.name()))
            .next("ask for a new lease")
            .detail("lease", lease.terms.id)
            .detail("state", lease.state.name())
    }

    /// The clock cannot be trusted.
    #[must_use]
    pub fn clock(behind: Span) -> Self {
        Self::new(Reason::Clock, "the clock stepped back, so nothing is issued")
            .why(format!("the wall clock is {behind} behind what has passed"))
            .next("set the clock right, or an admin confirms it with: leasehold clock confirm --reason R")
            .retry_after(Span::from_secs(30))
    }

    /// The broker is stopping.
    #[must_use]
    pub fn draining() -> Self {
        Self::new(Reason::Draining, "the broker is stopping")
            .retry_after(Span::from_secs(5))
            .next("try again")
    }

    /// A fault of the broker.
    #[must_use]
    pub fn internal(error: &impl fmt::Display) -> Self {
        Self::new(Reason::Internal, "the broker failed").why(error.to_string())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.reason.text())
    }
}

impl std::error::Error for Refused {}
