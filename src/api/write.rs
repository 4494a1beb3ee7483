//! From law's types to the wire.

use std::collections::BTreeMap;

use leasehold_law::caller::{CallerId, Vouched};
use leasehold_law::catalog::Class;
use leasehold_law::cause::Cause;
use leasehold_law::lease::{
    Grade, Lease, LeaseState, LimitedBy, Progress, Proof, Reached, Refusal, Sessions,
};
use leasehold_law::param::{ParamKind, ParamSpec, ParamValue, Params, TextRule};
use leasehold_law::policy::{Answer, DecisionRecord};
use leasehold_law::request::Liveness;
use leasehold_law::revocation::{Revocation, Selector};
use leasehold_law::scope::{Scope, ScopeEntry};
use leasehold_law::task::{Outcome, Task, TaskState};
use leasehold_law::time::{Span, Timestamp};
use leasehold_proto::v1;

use crate::broker::{Credential, Refused, Settled};

pub(super) fn moment(at: Timestamp) -> prost_types::Timestamp {
    let nanos = i32::try_from(at.0.rem_euclid(1000) * 1_000_000).unwrap_or(0);
    prost_types::Timestamp { seconds: at.0.div_euclid(1000), nanos }
}

pub(super) fn span(span: Span) -> prost_types::Duration {
    millis(i64::try_from(span.0).unwrap_or(i64::MAX))
}

pub(super) fn millis(millis: i64) -> prost_types::Duration {
    let nanos = i32::try_from(millis % 1000 * 1_000_000).unwrap_or(0);
    prost_types::Duration { seconds: millis / 1000, nanos }
}

pub(super) fn params(params: &Params) -> BTreeMap<String, v1::ParamValue> {
    params.iter().map(|(name, value)| (name.clone(), param(value))).collect()
}

fn param(value: &ParamValue) -> v1::ParamValue {
    use v1::param_value::Kind;
    let kind = match value {
        ParamValue::Bool(value) => Kind::BoolValue(*value),
        ParamValue::Int(value) => Kind::IntValue(*value),
        ParamValue::String(value) => Kind::StringValue(value.clone()),
        ParamValue::List(values) => Kind::ListValue(v1::StringList { values: values.clone() }),
    };
    v1::ParamValue { kind: Some(kind) }
}

pub(super) fn scope(scope: &Scope) -> Vec<v1::ScopePair> {
    scope.entries().iter().map(scope_entry).collect()
}

fn scope_entry(entry: &ScopeEntry) -> v1::ScopePair {
    v1::ScopePair {
        intent: entry.pair.intent.clone(),
        target: entry.pair.target.clone(),
        max_ttl: entry.max_ttl.map(span),
        params: params(&entry.params),
    }
}

fn liveness(liveness: Liveness) -> v1::Liveness {
    use v1::liveness::{Deadline, Heartbeat, Kind};
    let kind = match liveness {
        Liveness::Heartbeat { grace } => Kind::Heartbeat(Heartbeat { grace: Some(span(grace)) }),
        Liveness::Deadline => Kind::Deadline(Deadline {}),
    };
    v1::Liveness { kind: Some(kind) }
}

/// A task; `silent` is a view in memory, not a state.
pub(super) fn task(task: &Task, silent: bool, drift: bool) -> v1::Task {
    let (outcome, ended_at) = match task.state {
        TaskState::Ended { outcome, at, .. } => (Some(task_outcome(outcome)), Some(moment(at))),
        TaskState::New | TaskState::Refused | TaskState::Open | TaskState::Ending { .. } => (None, None),
    };
    v1::Task {
        id: task.terms.id.to_string(),
        agent: task.terms.agent.to_string(),
        purpose: task.terms.purpose.clone(),
        scope: scope(&task.scope),
        liveness: Some(liveness(task.terms.liveness)),
        deadline: Some(moment(task.terms.deadline)),
        state: task_state(&task.state).into(),
        cause: task.state.cause().map(cause).unwrap_or_default().into(),
        outcome: outcome.unwrap_or_default().into(),
        refs: task.terms.refs.clone(),
        opened_at: Some(moment(task.terms.opened_at)),
        ended_at,
        silent,
        version: task.version,
        manifest: task.terms.manifest.map(|digest| digest.to_string()).unwrap_or_default(),
        drift,
        on_behalf_of: task.person().map(person_text).unwrap_or_default(),
        session_until: task.session_until.map(moment),
    }
}

/// A person, as an operator may name them again.
pub(super) fn person_text(person: &Vouched) -> String {
    CallerId::Person(person.clone()).to_string()
}

pub(super) fn task_state(state: &TaskState) -> v1::TaskState {
    match state {
        TaskState::New => v1::TaskState::Unspecified,
        TaskState::Refused => v1::TaskState::Refused,
        TaskState::Open => v1::TaskState::Open,
        TaskState::Ending { .. } => v1::TaskState::Ending,
        TaskState::Ended { .. } => v1::TaskState::Ended,
    }
}

pub(super) fn task_outcome(outcome: Outcome) -> v1::TaskOutcome {
    match outcome {
        Outcome::Clean => v1::TaskOutcome::Clean,
        Outcome::WithResidue => v1::TaskOutcome::WithResidue,
    }
}

/// What a state says beyond its name.
#[derive(Default)]
struct StateView {
    cause: Option<Cause>,
    reached: Option<Reached>,
    sessions: Option<Sessions>,
    proof: Option<Proof>,
    refusal: Option<Refusal>,
    attempts: u32,
    last_error: String,
    next_try: Option<Timestamp>,
    since: Option<Timestamp>,
    residual_until: Option<Timestamp>,
    ended_at: Option<Timestamp>,
}

impl StateView {
    fn of(state: &LeaseState) -> Self {
        match state {
            LeaseState::New
            | LeaseState::Minting { .. }
            | LeaseState::Active { .. }
            | LeaseState::Renewing { .. } => Self::default(),
            LeaseState::Refused { refusal } => Self { refusal: Some(*refusal), ..Self::default() },
            LeaseState::Revoking { progress, .. } => Self::of_progress(progress),
            LeaseState::Residual { until, cause, reached, .. } => Self {
                cause: Some(*cause),
                reached: Some(*reached),
                residual_until: Some(*until),
                ..Self::default()
            },
            LeaseState::Revoked { cause, proof, at, .. } => Self {
                cause: Some(*cause),
                reached: Some(Reached::Removed),
                sessions: Some(Sessions::None),
                proof: Some(*proof),
                ended_at: Some(*at),
                ..Self::default()
            },
            LeaseState::Lapsed { cause, at } => {
                Self { cause: Some(*cause), ended_at: Some(*at), ..Self::default() }
            }
        }
    }

    fn of_progress(progress: &Progress) -> Self {
        Self {
            cause: Some(progress.cause),
            reached: Some(progress.reached),
            sessions: Some(progress.sessions),
            attempts: progress.attempts,
            last_error: progress.last_error.clone().unwrap_or_default(),
            next_try: Some(progress.next_try),
            since: Some(progress.since),
            ..Self::default()
        }
    }
}

pub(super) fn lease(lease: &Lease) -> v1::Lease {
    let terms = &lease.terms;
    let view = StateView::of(&lease.state);
    v1::Lease {
        id: terms.id.to_string(),
        task: terms.task.to_string(),
        agent: terms.agent.to_string(),
        intent: terms.pair.intent.clone(),
        target: terms.pair.target.clone(),
        params: params(&terms.params),
        principal: terms.principal.to_string(),
        state: lease_state(&lease.state).into(),
        expires_at: lease.state.expires_at().map(moment),
        life_ends_at: Some(moment(terms.life_ends_at)),
        created_at: Some(moment(terms.created_at)),
        cause: view.cause.map(cause).unwrap_or_default().into(),
        reached: view.reached.map(reached).unwrap_or_default().into(),
        sessions: view.sessions.map(sessions).unwrap_or_default().into(),
        proof: view.proof.map(proof).unwrap_or_default().into(),
        attempts: view.attempts,
        last_error: view.last_error,
        next_try: view.next_try.map(moment),
        decision: terms.decision.to_string(),
        grade: grade(terms.grade).into(),
        window: Some(span(terms.window)),
        limited_by: limit(terms.limited_by).into(),
        supersedes: terms.supersedes.map(|id| id.to_string()).unwrap_or_default(),
        refusal: view.refusal.map(refusal).unwrap_or_default().into(),
        residual_until: view.residual_until.map(moment),
        ended_at: view.ended_at.map(moment),
        revoking_since: view.since.map(moment),
    }
}

pub(super) fn outcome(lease: &Lease) -> v1::LeaseOutcome {
    let terms = &lease.terms;
    let view = StateView::of(&lease.state);
    v1::LeaseOutcome {
        lease: terms.id.to_string(),
        task: terms.task.to_string(),
        agent: terms.agent.to_string(),
        intent: terms.pair.intent.clone(),
        target: terms.pair.target.clone(),
        principal: terms.principal.to_string(),
        grade: grade(terms.grade).into(),
        state: lease_state(&lease.state).into(),
        reached: view.reached.map(reached).unwrap_or_default().into(),
        sessions: view.sessions.map(sessions).unwrap_or_default().into(),
        proof: view.proof.map(proof).unwrap_or_default().into(),
        attempts: view.attempts,
        error: view.last_error,
        next_try: view.next_try.map(moment),
    }
}

/// Leases at the end of a wait, and the ids of those whose end is not proven yet.
pub(super) fn settled(settled: &Settled) -> (Vec<v1::LeaseOutcome>, Vec<String>) {
    let pending = settled.pending_ids().map(|id| id.to_string()).collect();
    (settled.leases.iter().map(outcome).collect(), pending)
}

pub(super) fn lease_state(state: &LeaseState) -> v1::LeaseState {
    match state {
        LeaseState::New => v1::LeaseState::Unspecified,
        LeaseState::Refused { .. } => v1::LeaseState::Refused,
        LeaseState::Minting { .. } => v1::LeaseState::Minting,
        LeaseState::Active { .. } => v1::LeaseState::Active,
        LeaseState::Renewing { .. } => v1::LeaseState::Renewing,
        LeaseState::Revoking { .. } => v1::LeaseState::Revoking,
        LeaseState::Residual { .. } => v1::LeaseState::Residual,
        LeaseState::Revoked { .. } => v1::LeaseState::Revoked,
        LeaseState::Lapsed { .. } => v1::LeaseState::Lapsed,
    }
}

fn reached(reached: Reached) -> v1::Reached {
    match reached {
        Reached::None => v1::Reached::None,
        Reached::Disabled => v1::Reached::Disabled,
        Reached::Cut => v1::Reached::Cut,
        Reached::Removed => v1::Reached::Removed,
    }
}

fn sessions(sessions: Sessions) -> v1::Sessions {
    match sessions {
        Sessions::Unknown => v1::Sessions::Unknown,
        Sessions::Reaping => v1::Sessions::Reaping,
        Sessions::None => v1::Sessions::None,
    }
}

fn proof(proof: Proof) -> v1::Proof {
    match proof {
        Proof::ReadBack => v1::Proof::ReadBack,
        Proof::NeverMinted => v1::Proof::NeverMinted,
        Proof::DenyReadBack => v1::Proof::DenyReadBack,
    }
}

fn refusal(refusal: Refusal) -> v1::Refusal {
    match refusal {
        Refusal::Denied => v1::Refusal::Denied,
        Refusal::Unasked => v1::Refusal::Unasked,
    }
}

pub(super) fn grade(grade: Grade) -> v1::Grade {
    match grade {
        Grade::Exact => v1::Grade::Exact,
        Grade::Coarse => v1::Grade::Coarse,
        Grade::None => v1::Grade::None,
    }
}

pub(super) fn limit(limit: LimitedBy) -> v1::Limit {
    match limit {
        LimitedBy::Asked => v1::Limit::Asked,
        LimitedBy::Grant => v1::Limit::Grant,
        LimitedBy::Life => v1::Limit::Life,
        LimitedBy::Scope => v1::Limit::Scope,
        LimitedBy::TaskDeadline => v1::Limit::TaskDeadline,
        LimitedBy::Backend => v1::Limit::Backend,
    }
}

pub(super) fn class(class: Class) -> v1::ReversibilityClass {
    match class {
        Class::ReadOnly => v1::ReversibilityClass::ReadOnly,
        Class::Reversible => v1::ReversibilityClass::Reversible,
        Class::ExternalReversible => v1::ReversibilityClass::ExternalReversible,
        Class::Irreversible => v1::ReversibilityClass::Irreversible,
    }
}

pub(super) fn cause(cause: Cause) -> v1::Cause {
    match cause {
        Cause::Expired => v1::Cause::Expired,
        Cause::TaskCompleted => v1::Cause::TaskCompleted,
        Cause::TaskAborted => v1::Cause::TaskAborted,
        Cause::TaskLost => v1::Cause::TaskLost,
        Cause::TaskExpired => v1::Cause::TaskExpired,
        Cause::ScopeChanged => v1::Cause::ScopeChanged,
        Cause::PolicyChanged => v1::Cause::PolicyChanged,
        Cause::AgentChanged => v1::Cause::AgentChanged,
        Cause::PersonEnded => v1::Cause::PersonEnded,
        Cause::ParentEnded => v1::Cause::ParentEnded,
        Cause::Released => v1::Cause::Released,
        Cause::Operator => v1::Cause::Operator,
        Cause::Incident => v1::Cause::Incident,
        Cause::Superseded => v1::Cause::Superseded,
        Cause::Undelivered => v1::Cause::Undelivered,
        Cause::MintFailed => v1::Cause::MintFailed,
        Cause::CrashRecovery => v1::Cause::CrashRecovery,
        Cause::Restored => v1::Cause::Restored,
        Cause::PrincipalMissing => v1::Cause::PrincipalMissing,
        Cause::Resurrected => v1::Cause::Resurrected,
        Cause::Unreadable => v1::Cause::Unreadable,
        Cause::Signal => v1::Cause::Signal,
        Cause::BreakGlassEnded => v1::Cause::BreakGlassEnded,
        Cause::Drill => v1::Cause::Drill,
    }
}

pub(super) fn answer(answer: Answer) -> v1::decision::Outcome {
    match answer {
        Answer::Allow => v1::decision::Outcome::Allow,
        Answer::Ask => v1::decision::Outcome::Ask,
        Answer::Deny => v1::decision::Outcome::Deny,
    }
}

/// A decision, with what its caller may be told of the reasons.
pub(super) fn decision(record: &DecisionRecord) -> v1::Decision {
    let reasons = match record.answer {
        Answer::Allow => Vec::new(),
        Answer::Ask | Answer::Deny => vec![reason(&Refused::policy(record))],
    };
    v1::Decision {
        id: record.id.to_string(),
        outcome: answer(record.answer).into(),
        policies: record.policies.clone(),
        reasons,
        would_mint: String::new(),
        would_ask: record.need.as_ref().map(|need| need.approvers.clone()).unwrap_or_default(),
        limited_by: v1::Limit::Unspecified.into(),
        ttl: Some(span(record.ttl)),
    }
}

fn reason(refused: &Refused) -> v1::Reason {
    v1::Reason {
        code: refused.reason.text().to_owned(),
        text: refused.why.clone().unwrap_or_else(|| refused.what.clone()),
        next: refused.next.clone().unwrap_or_default(),
    }
}

pub(super) fn pair_decision(record: &DecisionRecord) -> v1::PairDecision {
    v1::PairDecision {
        intent: record.pair.intent.clone(),
        target: record.pair.target.clone(),
        decision: Some(decision(record)),
    }
}

pub(super) fn param_spec(name: &str, spec: &ParamSpec) -> v1::ParamSpec {
    use v1::param_spec::Type;
    let (kind, min, max, rule) = match &spec.kind {
        ParamKind::Bool => (Type::Bool, None, None, None),
        ParamKind::Int { min, max } => (Type::Int, *min, *max, None),
        ParamKind::String(rule) => (Type::String, None, None, Some(rule)),
        ParamKind::List(rule) => (Type::List, None, None, Some(rule)),
    };
    let (one_of, pattern) = match rule {
        Some(TextRule::Enum(values)) => (values.clone(), String::new()),
        Some(TextRule::Pattern(pattern)) => (Vec::new(), pattern.clone()),
        Some(TextRule::Free) | None => (Vec::new(), String::new()),
    };
    v1::ParamSpec {
        name: name.to_owned(),
        r#type: kind.into(),
        one_of,
        pattern,
        min,
        max,
        optional: spec.optional,
    }
}

/// The secret leaves here, and only here: wiping ends where the bytes enter the wire's own buffers.
pub(super) fn credential(credential: &Credential) -> v1::Credential {
    v1::Credential {
        kind: credential.kind.clone(),
        public: credential.public.clone(),
        secret: credential
            .secret
            .iter()
            .map(|(name, secret)| (name.clone(), secret.expose().to_vec()))
            .collect(),
    }
}

pub(super) fn selector(selector: &Selector) -> v1::Selector {
    use v1::selector::Kind;
    let kind = match selector {
        Selector::Lease(id) => Kind::Lease(id.to_string()),
        Selector::Task(id) => Kind::Task(id.to_string()),
        Selector::Agent(id) => Kind::Agent(id.to_string()),
        Selector::Owner(owner) => Kind::Owner(owner.to_string()),
        Selector::Person(person) => Kind::Person(person_text(person)),
        Selector::Target(name) => Kind::Target(name.clone()),
        Selector::Intent(name) => Kind::Intent(name.clone()),
        Selector::Ref { key, value } => Kind::Ref(v1::Ref { key: key.clone(), value: value.clone() }),
        Selector::All => Kind::All(v1::All {}),
    };
    v1::Selector { kind: Some(kind) }
}

pub(super) fn revocation(revocation: &Revocation, settled: &Settled) -> v1::Revocation {
    let outcomes: Vec<_> = settled.leases.iter().map(outcome).collect();
    let of_leases = settled.leases.iter().map(|lease| lease.terms.task);
    let mut tasks: Vec<_> =
        of_leases.chain(revocation.tasks.iter().copied()).map(|task| task.to_string()).collect();
    tasks.sort();
    tasks.dedup();
    v1::Revocation {
        id: revocation.id.to_string(),
        selector: Some(selector(&revocation.selector)),
        cause: v1::Cause::Operator.into(),
        by: revocation.by.to_string(),
        reason: revocation.reason.clone(),
        at: Some(moment(revocation.at)),
        frozen: revocation.is_freezing(),
        lifted_by: revocation.lifted.as_ref().map(|lifted| lifted.by.to_string()).unwrap_or_default(),
        lifted_at: revocation.lifted.as_ref().map(|lifted| moment(lifted.at)),
        outcomes,
        counts: Some(counts(settled)),
        tasks,
        unknown_agent: None,
    }
}

fn counts(settled: &Settled) -> v1::RevocationCounts {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let of = |test: &dyn Fn(&Lease) -> bool| settled.leases.iter().filter(|lease| test(lease)).count();
    v1::RevocationCounts {
        total: number(settled.leases.len() + settled.unread.len() + settled.gone),
        confirmed: number(of(&|lease| !lease.state.is_live()) + settled.gone),
        pending: number(settled.pending_ids().count()),
        residual: number(of(&|lease| matches!(lease.state, LeaseState::Residual { .. }))),
        stuck: number(stuck(settled)),
    }
}

/// How many of those that are pending could not be killed at the first try.
pub(super) fn stuck(settled: &Settled) -> usize {
    let unread = settled.unread.iter().filter(|one| one.stuck);
    settled.pending().filter(|lease| is_stuck(lease)).count() + unread.count()
}

/// Whether it could not be killed at the first try.
fn is_stuck(lease: &Lease) -> bool {
    matches!(&lease.state, LeaseState::Revoking { progress, .. } if progress.last_error.is_some())
}

pub(super) fn freeze(revocation: &Revocation) -> v1::Freeze {
    v1::Freeze {
        revocation: revocation.id.to_string(),
        reason: revocation.reason.clone(),
        lifted_by: "an operator with the role admin".to_owned(),
        since: Some(moment(revocation.at)),
    }
}
