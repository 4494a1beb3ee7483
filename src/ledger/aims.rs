//! The seven fields of draft-ietf-wimse-aims (AUD-5) for every kind of entry.

use leasehold_law::caller::{CallerId, Vouched};
use leasehold_law::drill::Drill;
use leasehold_law::journal::record::NOT_APPLICABLE;
use leasehold_law::journal::{Aims, Event};
use leasehold_law::lease::Lease;
use leasehold_law::policy::DecisionRecord;
use leasehold_law::task::Task;
use leasehold_law::time::Timestamp;

/// For a step of a lease.
pub(super) fn of_lease(lease: &Lease, event: &Event, now: Timestamp) -> Aims {
    let terms = &lease.terms;
    let (decision, posture) = if let Event::Lease { decision: Some(record), .. } = event {
        (record.id, posture(record))
    } else {
        (terms.decision, nothing())
    };
    Aims {
        agent: terms.agent.to_string(),
        delegated_subject: person(terms.on_behalf_of.as_ref()),
        resource: terms.pair.target.clone(),
        action_decision: format!("{} {decision}", terms.pair.intent),
        time_correlation: correlation(now, &terms.task.to_string()),
        posture,
        remediation: remediation(lease),
    }
}

fn remediation(lease: &Lease) -> String {
    use leasehold_law::lease::LeaseState as S;
    match &lease.state {
        S::Revoking { progress, .. } => format!("{} {}", lease.state.name(), word(&progress.cause)),
        S::Residual { cause, .. } | S::Revoked { cause, .. } | S::Lapsed { cause, .. } => {
            format!("{} {}", lease.state.name(), word(cause))
        }
        S::Refused { refusal } => format!("refused {}", word(refusal)),
        S::New | S::Minting { .. } | S::Active { .. } | S::Renewing { .. } => nothing(),
    }
}

/// For a step of a task.
pub(super) fn of_task(task: &Task, event: &Event, now: Timestamp) -> Aims {
    let decisions = if let Event::Task { decisions, .. } = event { decisions.as_slice() } else { &[] };
    let pairs: Vec<_> = task.scope.entries().iter().map(|entry| entry.pair.to_string()).collect();
    Aims {
        agent: task.terms.agent.to_string(),
        delegated_subject: person(task.person()),
        resource: pairs.join(" "),
        action_decision: decisions.iter().fold(format!("task {}", task.state.name()), |text, record| {
            format!("{text} {} {}", record.id, word(&record.answer))
        }),
        time_correlation: correlation(now, &task.terms.id.to_string()),
        posture: decisions.first().map_or_else(nothing, posture),
        remediation: task.state.cause().map_or_else(nothing, |cause| word(&cause)),
    }
}

/// For everything else.
pub(super) fn of_event(subject: &str, event: &Event, now: Timestamp) -> Aims {
    let mut aims = Aims {
        agent: nothing(),
        delegated_subject: nothing(),
        resource: nothing(),
        action_decision: nothing(),
        time_correlation: correlation(now, subject),
        posture: nothing(),
        remediation: nothing(),
    };
    match event {
        Event::Decided { decision } => {
            aims.agent = decision.agent.id.to_string();
            aims.delegated_subject = person(decision.on_behalf_of.as_ref());
            aims.resource.clone_from(&decision.pair.target);
            aims.action_decision =
                format!("{} {} {}", decision.pair.intent, decision.id, word(&decision.answer));
            aims.posture = posture(decision);
        }
        Event::Refused { decision, caller, call, reason } => {
            aims.agent = caller.to_string();
            aims.resource.clone_from(call);
            aims.action_decision = format!("{call} {decision} deny {reason}");
        }
        Event::RefusedAgain { first, about, reason, count, .. } => {
            aims.agent.clone_from(about);
            aims.action_decision = format!("{first} deny {reason} {count} times more");
        }
        Event::Strangers { reason, count, .. } => {
            aims.action_decision = format!("handshake deny {reason} {count} times");
        }
        Event::Revocation { revocation } => {
            aims.resource = revocation.selector.to_string();
            aims.action_decision = format!("revoke by {}", revocation.by);
            aims.remediation = format!("{} operator", revocation.id);
        }
        Event::Lifted { id, lifted } => aims.remediation = format!("{id} lifted by {}", lifted.by),
        Event::Reaped { target, sessions, .. } => {
            aims.resource.clone_from(target);
            aims.remediation = format!("{sessions} late sessions ended");
        }
        Event::Drilled { drill } => {
            aims.agent = CallerId::Drill.to_string();
            aims.resource.clone_from(&drill.pair.target);
            aims.action_decision =
                format!("{} drill {}: {}", drill.pair.intent, drill.state().name(), drill.times());
            aims.remediation = drilled(drill);
        }
        Event::Registry { who, act, by, .. } => {
            aims.agent = who.to_string();
            aims.action_decision = format!("{} by {by}", act.kind());
        }
        Event::Broker { what, .. } => aims.action_decision.clone_from(what),
        Event::Lease { .. } | Event::Task { .. } => {}
    }
    aims
}

fn drilled(drill: &Drill) -> String {
    match &drill.failure {
        Some(failure) => format!("failed to {}: {}", failure.step.name(), failure.why),
        None => "the credential is refused".to_owned(),
    }
}

fn posture(record: &DecisionRecord) -> String {
    let digest: String = record.policy_digest.chars().take(16).collect();
    format!(
        "autonomy {} proof {} liveness {} floor {} policy {digest}",
        word(&record.agent.level()),
        record.proof,
        record.liveness,
        word(&record.floor)
    )
}

fn correlation(now: Timestamp, id: &str) -> String {
    format!("{now} {id}")
}

/// For whom it was done.
fn person(person: Option<&Vouched>) -> String {
    person.map_or_else(nothing, |person| CallerId::Person(person.clone()).to_string())
}

fn nothing() -> String {
    NOT_APPLICABLE.to_owned()
}

/// The word that a plain enum has in JSON.
fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(_) | Err(_) => nothing(),
    }
}
