//! How things are shown to programs. Only what is named here is shown: no message with a secret passes.

use std::collections::BTreeMap;

use leasehold_client::v1;
use serde_json::{Map, Value, json};
use v1::param_value::Kind;

use super::view::{self, Word, stamp, wire_length};

/// A value that is left null when it says nothing.
fn text(value: String) -> Value {
    if value.is_empty() { Value::Null } else { Value::String(value) }
}

/// An enum as a word.
pub(crate) fn word(value: impl Word) -> Value {
    text(value.word())
}

/// A moment.
pub(crate) fn time(value: Option<prost_types::Timestamp>) -> Value {
    text(stamp(value))
}

/// A duration as it is written on the command line.
pub(crate) fn span(value: Option<prost_types::Duration>) -> Value {
    text(wire_length(value))
}

fn params(params: &BTreeMap<String, v1::ParamValue>) -> Value {
    let typed = |value: &v1::ParamValue| match &value.kind {
        Some(Kind::StringValue(text)) => json!(text),
        Some(Kind::IntValue(number)) => json!(number),
        Some(Kind::BoolValue(flag)) => json!(flag),
        Some(Kind::ListValue(list)) => json!(list.values),
        None => Value::Null,
    };
    Value::Object(params.iter().map(|(name, value)| (name.clone(), typed(value))).collect::<Map<_, _>>())
}

/// A task.
pub(crate) fn task(task: &v1::Task) -> Value {
    let scope: Vec<_> = task.scope.iter().map(scope_pair).collect();
    let stops: Vec<_> = task.stops.iter().map(stop).collect();
    json!({
        "id": task.id, "agent": task.agent, "purpose": text(task.purpose.clone()), "scope": scope,
        "state": word(task.state()), "cause": word(task.cause()), "outcome": word(task.outcome()),
        "refs": task.refs, "opened_at": time(task.opened_at), "deadline": time(task.deadline),
        "ended_at": time(task.ended_at), "silent": task.silent, "version": task.version,
        "manifest": task.manifest, "drift": task.drift, "on_behalf_of": text(task.on_behalf_of.clone()),
        "session_until": time(task.session_until), "stops": stops,
    })
}

/// What of a task was stopped.
fn stop(stop: &v1::TaskStop) -> Value {
    json!({"cause": word(stop.cause()), "leases": stop.leases, "revocation": text(stop.revocation.clone())})
}

/// A pair of a scope.
pub(crate) fn scope_pair(pair: &v1::ScopePair) -> Value {
    json!({
        "intent": pair.intent, "target": pair.target, "max_ttl": span(pair.max_ttl), "params": params(&pair.params),
    })
}

/// A lease.
pub(crate) fn lease(lease: &v1::Lease) -> Value {
    json!({
        "id": lease.id, "task": lease.task, "agent": lease.agent, "intent": lease.intent, "target": lease.target,
        "params": params(&lease.params), "principal": text(lease.principal.clone()), "state": word(lease.state()),
        "expires_at": time(lease.expires_at), "life_ends_at": time(lease.life_ends_at),
        "created_at": time(lease.created_at), "ended_at": time(lease.ended_at), "cause": word(lease.cause()),
        "reached": word(lease.reached()), "sessions": word(lease.sessions()), "proof": word(lease.proof()),
        "attempts": lease.attempts, "last_error": text(lease.last_error.clone()), "next_try": time(lease.next_try),
        "decision": text(lease.decision.clone()), "grade": word(lease.grade()), "window": span(lease.window),
        "limited_by": word(lease.limited_by()), "supersedes": text(lease.supersedes.clone()),
        "refusal": word(lease.refusal()), "residual_until": time(lease.residual_until),
        "revoking_since": time(lease.revoking_since),
    })
}

/// A decision.
pub(crate) fn decision(decision: &v1::Decision) -> Value {
    let reason =
        |one: &v1::Reason| json!({"code": one.code, "text": one.text, "next": text(one.next.clone())});
    let reasons: Vec<_> = decision.reasons.iter().map(reason).collect();
    json!({
        "id": decision.id, "outcome": word(decision.outcome()), "policies": decision.policies, "reasons": reasons,
        "would_mint": text(decision.would_mint.clone()), "would_ask": text(decision.would_ask.clone()),
        "limited_by": word(decision.limited_by()), "ttl": span(decision.ttl),
    })
}

/// Where a lease stands after an act of stopping.
pub(crate) fn outcome(one: &v1::LeaseOutcome) -> Value {
    json!({
        "lease": one.lease, "task": one.task, "agent": one.agent, "intent": one.intent, "target": one.target,
        "principal": text(one.principal.clone()), "grade": word(one.grade()), "state": word(one.state()),
        "reached": word(one.reached()), "sessions": word(one.sessions()), "proof": word(one.proof()),
        "attempts": one.attempts, "error": text(one.error.clone()), "next_try": time(one.next_try),
    })
}

/// A revocation.
pub(crate) fn revocation(one: &v1::Revocation) -> Value {
    let counts = one.counts.unwrap_or_default();
    json!({
        "id": text(one.id.clone()), "selector": view::selector(one.selector.as_ref()), "cause": word(one.cause()),
        "by": one.by, "reason": one.reason, "at": time(one.at), "frozen": one.frozen,
        "lifted_by": text(one.lifted_by.clone()), "lifted_at": time(one.lifted_at), "tasks": one.tasks,
        "outcomes": one.outcomes.iter().map(outcome).collect::<Vec<_>>(),
        "counts": {
            "total": counts.total, "confirmed": counts.confirmed, "pending": counts.pending,
            "residual": counts.residual, "stuck": counts.stuck,
        },
    })
}

/// A target.
pub(crate) fn target(one: &v1::Target) -> Value {
    json!({
        "name": one.name, "backend": one.backend, "owner": one.owner, "labels": one.labels,
        "state": word(one.state()), "last_error": text(one.last_error.clone()),
        "last_answer_at": time(one.last_answer_at), "clock_offset": span(one.clock_offset), "live": one.live,
        "due": one.due, "stuck": one.stuck, "grade": word(one.grade()), "window": span(one.window),
        "last_sweep": one.last_sweep.as_ref().map_or(Value::Null, sweep), "claimed_by": text(one.claimed_by.clone()),
        "due_by_lane": {
            "security": one.due_security, "task_end": one.due_task_end, "expiry": one.due_expiry,
        },
        "breaker": breaker(&one.breaker.unwrap_or_default()),
        "drill": super::targets::drill_json(one), "barred": text(one.barred.clone()),
        "reconciliation": one.reconciliation.as_ref().map_or(Value::Null, reconciliation),
    })
}

/// What a restore came to in a target.
fn reconciliation(one: &v1::Reconciliation) -> Value {
    json!({
        "at": time(one.at), "complete": one.complete, "kept": one.kept, "renewed": one.renewed, "ended": one.ended,
        "since": one.since,
    })
}

/// A sweep for orphans.
pub(crate) fn sweep(one: &v1::Sweep) -> Value {
    let orphan = |one: &v1::Orphan| json!({"principal": one.principal, "lease": one.lease, "why": one.why});
    json!({
        "at": time(one.at), "verdict": word(one.verdict()), "note": one.note, "ours": one.ours,
        "strangers": one.strangers, "found": one.found, "orphans": one.orphans.iter().map(orphan).collect::<Vec<_>>(),
        "young": one.young, "missing": one.missing, "bound": one.bound, "missing_bound": one.missing_bound,
        "more": one.more,
    })
}

/// Something that was set aside.
pub(crate) fn set_aside(one: &v1::SetAside) -> Value {
    json!({
        "kind": one.kind, "id": one.id, "target": one.target, "principal": one.principal, "why": one.why,
        "at": time(one.at), "alive": one.alive, "tries": one.tries, "last_error": text(one.last_error.clone()),
    })
}

fn breaker(one: &v1::Breaker) -> Value {
    json!({
        "state": word(one.state()), "since": time(one.since), "failures": one.failures,
        "next_probe": time(one.next_probe),
    })
}

/// A freeze; null when there is none.
pub(crate) fn freeze(freeze: Option<&v1::Freeze>) -> Value {
    freeze.map_or(Value::Null, |one| {
        json!({
            "revocation": one.revocation, "reason": one.reason, "lifted_by": one.lifted_by, "since": time(one.since),
        })
    })
}
