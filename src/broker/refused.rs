//! One error for everything that is refused: what, why, and what to do next.

use std::collections::BTreeMap;
use std::fmt;

use leasehold_backend::BackendError;
use leasehold_law::catalog::{Agent, Autonomy};
use leasehold_law::id::{DecisionId, LeaseId, TaskId};
use leasehold_law::lease::Lease;
use leasehold_law::policy::{Answer, DecisionRecord, Denial, Near};
use leasehold_law::reason::Reason;
use leasehold_law::registry::{LoweredBy, Ruling, Status};
use leasehold_law::revocation::Revocation;
use leasehold_law::scope::{OutOfScope, Pair};
use leasehold_law::time::{Span, Timestamp};
use leasehold_law::words::count_are;

use crate::ledger::LedgerError;
use crate::store::StoreError;
use crate::vault_door::Closed;

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
            .next(format!("an admin lifts it with: leasehold revocations lift {}", revocation.id))
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

    /// Policy said no, or that people must be asked.
    #[must_use]
    pub fn policy(record: &DecisionRecord) -> Self {
        let what = format!("denied {}", record.pair);
        let refused = match (record.answer, &record.denial) {
            (Answer::Ask, _) => Self::needs_approval(record),
            (_, Some(Denial::Forbidden { by })) => {
                Self::new(Reason::Forbidden, what).why(conditions("forbids", by))
            }
            (_, Some(Denial::PolicyError { policies })) => Self::new(Reason::Forbidden, what)
                .why(format!("policy {} failed on this request, and an error denies", policies.join(", "))),
            (_, Some(Denial::Stopped { status, ruling })) => {
                Self::new(Reason::AgentStopped, what).stopped(&record.agent, *status, ruling.as_ref())
            }
            (_, Some(Denial::BeyondAutonomy { level, lowered })) => {
                Self::new(Reason::BeyondAutonomy, what).beyond(&record.agent, *level, lowered.as_ref())
            }
            (_, Some(Denial::NoPermit { nearest: Some(near) })) => {
                Self::new(Reason::NoPermit, what).why(format!(
                    "no policy permits it; nearest is {}",
                    conditions("needs", std::slice::from_ref(near))
                ))
            }
            (_, Some(Denial::NoPermit { nearest: None }) | None) => {
                Self::new(Reason::NoPermit, what).why("no policy permits it")
            }
        };
        let refused = match refused.next {
            Some(_) => refused,
            None => refused.next(format!("give {} to your platform team", record.id)),
        };
        refused.decided(record.id).detail("pair", &record.pair)
    }

    /// By whom, and what next.
    fn stopped(self, agent: &Agent, status: Status, ruling: Option<&Ruling>) -> Self {
        let (id, status) = (&agent.id, status.name());
        let refused = self.detail("status", status);
        match ruling {
            Some(Ruling { by, reason, at, .. }) => refused
                .why(format!("{id} is {status} since {at} by {by}: \"{reason}\""))
                .next(format!("an admin lets it work again with: leasehold agents resume {id} --reason R")),
            None => refused
                .why(format!("{id} is registered as {status}"))
                .next(format!("{} registered it, and can say why", agent.owner)),
        }
    }

    fn beyond(self, agent: &Agent, level: Autonomy, lowered: Option<&LoweredBy>) -> Self {
        let (id, owner) = (&agent.id, &agent.owner);
        let may = match level {
            Autonomy::Observe => "may only do what is read-only",
            Autonomy::Propose => "may propose, and holds nothing",
            Autonomy::Act => "may act",
        };
        let refused = self.detail("autonomy", level.name());
        let Some(by) = lowered else {
            return refused
                .why(format!("{id} is registered with autonomy {}: it {may}", level.name()))
                .next(format!("{owner} answers for it; what it may do is in its registration"));
        };
        let refused = refused.why(format!("{id} {by}: it {may}"));
        match by {
            LoweredBy::Retired => refused
                .next(format!("an admin lets it work again with: leasehold agents resume {id} --reason R")),
            LoweredBy::Unreviewed { .. } => {
                refused.next(format!("{owner} has it reviewed: leasehold agents review {id}"))
            }
            LoweredBy::Drift { claimed, .. } => {
                let digest = claimed.map_or("DIGEST".to_owned(), |digest| digest.to_string());
                refused.next(format!(
                    "{owner} has it reviewed: leasehold agents review {id} --manifest {digest}"
                ))
            }
        }
    }

    fn needs_approval(record: &DecisionRecord) -> Self {
        let who = record.need.as_ref().map_or("people", |need| need.approvers.as_str());
        Self::new(Reason::NeedsApproval, format!("{} needs approval", record.pair))
            .why(format!("policy asks {who}; this server cannot ask people yet"))
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

    /// The old credential of a request cannot be proven dead yet.
    #[must_use]
    pub fn still_alive(lease: LeaseId, target: &str, until: Timestamp) -> Self {
        Self::new(Reason::TargetDown, format!("{lease} is not proven dead yet"))
            .why(format!("`{target}` has not confirmed its end; it may live until {until}"))
            .next("try again; the broker goes on revoking it")
            .retry_after(Span::from_secs(5))
            .detail("lease", lease)
            .detail("alive_until", until)
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

    /// The target may not be minted in now. Agents get a plain sentence: what the target says may name its address and
    /// the broker's login, and operators have that in `leasehold status` and in the log.
    #[must_use]
    pub fn closed(target: &str, closed: &Closed) -> Self {
        let down = |why: &str| {
            Self::new(Reason::TargetDown, format!("`{target}` does not answer"))
                .why(why)
                .next("try again; the broker keeps trying, and tells when it answers")
                .retry_after(Span::from_secs(5))
        };
        match closed {
            Closed::Unknown => down("it is not configured"),
            Closed::Down(_) => down("the broker cannot reach it, or it is too slow"),
            Closed::Unfit(missing) => {
                Self::new(Reason::PrivilegeMissing, format!("the broker may not mint in `{target}`"))
                    .why(format!("it lacks {}", missing.what))
                    .next(missing.fix.clone())
            }
            Closed::Clock(offset) => {
                Self::new(Reason::Clock, format!("the clock of `{target}` differs by {offset} ms"))
                    .why("a credential could outlive its lease")
                    .next("set the clocks right; the broker looks again every 30 s")
                    .retry_after(Span::from_secs(30))
            }
        }
        .detail("target", target)
    }

    /// The target did not do what it was asked.
    #[must_use]
    pub fn backend(target: &str, error: &BackendError) -> Self {
        match error {
            BackendError::Transient { .. } | BackendError::TooLate => {
                Self::closed(target, &Closed::Down(error.to_string()))
            }
            BackendError::Refused { what, fix: Some(fix) } => {
                Self::new(Reason::PrivilegeMissing, format!("`{target}` refused"))
                    .why(what.clone())
                    .next(fix.clone())
                    .detail("target", target)
            }
            BackendError::Refused { fix: None, .. }
            | BackendError::BadRecipe(_)
            | BackendError::Conflict(_)
            | BackendError::Absent => Self::new(Reason::TargetRefused, format!("`{target}` refused"))
                .why(error.to_string())
                .next(format!("an operator looks with: leasehold targets check {target}"))
                .detail("target", target),
        }
    }

    /// The journal takes nothing: no record, no credential.
    #[must_use]
    pub fn journal(error: &StoreError) -> Self {
        Self::new(Reason::Journal, "the journal cannot be written, so nothing is issued")
            .why(error.to_string())
            .next("revoking goes on; an operator looks with: leasehold status")
            .retry_after(Span::from_secs(5))
    }

    /// Leases are being revoked, but a crash would forget it, and no freeze is in force.
    #[must_use]
    pub fn unrecorded(revocation: &Revocation, error: &LedgerError) -> Self {
        let count = revocation.leases.len();
        Self::new(
            Reason::Journal,
            format!("{} being revoked, and nothing of it is on record", count_are(count, "lease")),
        )
        .why(format!(
            "they are being killed, but a crash would forget them, and no freeze is in force: {error}"
        ))
        .next("mend the journal, then revoke again")
        .detail("leases", count)
    }

    /// A revocation is on record, and its list cannot be read to its end yet.
    #[must_use]
    pub fn unfinished(revocation: &Revocation, error: &StoreError) -> Self {
        let (id, count) = (revocation.id, revocation.leases.len());
        Self::new(
            Reason::Journal,
            format!("{} being revoked, and not all are listed yet", count_are(count, "lease")),
        )
        .why(format!("the store cannot be read to the end; the broker goes on by itself: {error}"))
        .next(format!("see it through: leasehold revocations watch {id}"))
        .detail("revocation", id)
    }

    /// Too much at once: nothing was begun.
    #[must_use]
    pub fn overloaded(what: impl Into<String>) -> Self {
        Self::new(Reason::Quota, what)
            .why("the broker bounds what it does at one time, so that stopping is never kept waiting")
            .next("try again")
            .retry_after(Span::from_secs(1))
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

fn conditions(verb: &str, policies: &[Near]) -> String {
    let each = |near: &Near| {
        let what = if near.conditions.is_empty() { "it".to_owned() } else { near.conditions.join(" and ") };
        format!("policy \"{}\" {verb} {what}", near.policy)
    };
    policies.iter().map(each).collect::<Vec<_>>().join("; ")
}

impl From<LedgerError> for Refused {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Stale(subject) => Self::contended(format!("{subject} changed meanwhile")),
            LedgerError::Full(ceiling) => ceiling.as_ref().into(),
            LedgerError::Store(error) => error.into(),
            LedgerError::Unknown(error) => Self::journal(&error),
            LedgerError::Illegal(error) => Self::internal(&error),
            LedgerError::IllegalTask(error) => Self::internal(&error),
        }
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Busy => Self::overloaded("too much is waiting to be written"),
            StoreError::Unusable(_) | StoreError::Fenced | StoreError::Held(_) => Self::journal(&error),
            StoreError::Unreadable(_) | StoreError::Newer { .. } | StoreError::Foreign(_) => {
                Self::internal(&error)
            }
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.reason.text())
    }
}

impl std::error::Error for Refused {}
