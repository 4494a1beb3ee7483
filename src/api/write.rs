//! From law's types to the wire.

mod lease;
mod revocation;
mod task;

use std::collections::BTreeMap;

use leasehold_law::catalog::Class;
use leasehold_law::cause::Cause;
use leasehold_law::lease::{Grade, LimitedBy};
use leasehold_law::param::{ParamKind, ParamSpec, ParamValue, Params, TextRule};
use leasehold_law::policy::{Answer, DecisionRecord};
use leasehold_law::scope::{Scope, ScopeEntry};
use leasehold_law::time::{Span, Timestamp};
use leasehold_proto::v1;

use crate::broker::{Credential, Refused};
pub(super) use lease::{lease, lease_state, outcome, settled};
pub(super) use revocation::{freeze, revocation, stuck};
pub(super) use task::{person, stop, task, task_outcome, task_state};

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
