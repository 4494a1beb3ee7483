//! From an event to the bytes of its journal entry, with the columns that must equal them.

use leasehold_law::drill::Drill;
use leasehold_law::id::TaskId;
use leasehold_law::journal::{Body, Event, record};
use leasehold_law::lease::Lease;
use leasehold_law::task::Task;
use leasehold_law::time::Timestamp;

use super::aims::{of_event, of_lease, of_task};
use crate::store::{Draft, StoreError};

/// An entry about a lease.
pub(super) fn about_lease(lease: &Lease, event: Event, now: Timestamp) -> Result<Draft, StoreError> {
    draft(&Body {
        v: record::VERSION,
        kind: kind(&event).to_owned(),
        at: now,
        subject: lease.terms.id.to_string(),
        subject_version: lease.version,
        task: Some(lease.terms.task),
        lease: Some(lease.terms.id),
        aims: of_lease(lease, &event, now),
        event,
    })
}

/// An entry about a task.
pub(super) fn about_task(task: &Task, event: Event, now: Timestamp) -> Result<Draft, StoreError> {
    draft(&Body {
        v: record::VERSION,
        kind: kind(&event).to_owned(),
        at: now,
        subject: task.terms.id.to_string(),
        subject_version: task.version,
        task: Some(task.terms.id),
        lease: None,
        aims: of_task(task, &event, now),
        event,
    })
}

/// An entry about a drill: found by its task and its lease, whose story it ends.
pub(super) fn about_drill(drill: &Drill, now: Timestamp) -> Result<Draft, StoreError> {
    let event = Event::Drilled { drill: Box::new(drill.clone()) };
    draft(&Body {
        v: record::VERSION,
        kind: kind(&event).to_owned(),
        at: now,
        subject: drill.pair.target.clone(),
        subject_version: 0,
        task: Some(drill.task),
        lease: drill.lease,
        aims: of_event(&drill.task.to_string(), &event, now),
        event,
    })
}

/// An entry about anything else.
pub(super) fn about_nothing(
    subject: &str,
    task: Option<TaskId>,
    event: Event,
    now: Timestamp,
) -> Result<Draft, StoreError> {
    draft(&Body {
        v: record::VERSION,
        kind: kind(&event).to_owned(),
        at: now,
        subject: subject.to_owned(),
        subject_version: 0,
        task,
        lease: None,
        aims: of_event(subject, &event, now),
        event,
    })
}

fn draft(body: &Body) -> Result<Draft, StoreError> {
    let bytes = body.to_bytes().map_err(|error| StoreError::Unreadable(error.to_string()))?;
    Ok(Draft { at: body.at, task: body.task, lease: body.lease, body: bytes })
}

fn kind(event: &Event) -> &'static str {
    match event {
        Event::Lease { step, .. } => step.kind(),
        Event::Task { step, .. } => step.kind(),
        Event::Decided { .. } => "decision.made",
        Event::Refused { .. } => "caller.refused",
        Event::RefusedAgain { .. } => "caller.refused_again",
        Event::Strangers { .. } => "strangers.refused",
        Event::Revocation { .. } => "revocation.begun",
        Event::Lifted { .. } => "revocation.lifted",
        Event::Reaped { .. } => "target.reaped",
        Event::Drilled { drill } => drill.kind(),
        Event::Registry { act, .. } => act.kind(),
        Event::Broker { .. } => "broker.noted",
    }
}
