//! Rows that have left their tables, told again from the journal: the journal is the state, and a row its projection.

use leasehold_law::id::LeaseId;
use leasehold_law::journal::{Body, Event};
use leasehold_law::lease::Lease;
use leasehold_law::task::{Task, TaskState};
use leasehold_law::time::{Span, Timestamp};

/// How much earlier and later than the moment in its id the first entry of a lease may lie.
const EARLY: Span = Span::from_secs(1);
const LATE: Span = Span::from_secs(30);

/// Between when and when the first entry of a lease lies.
pub(super) fn first_entry(id: LeaseId) -> (Timestamp, Timestamp) {
    (id.made_at() - EARLY, id.made_at() + LATE)
}

/// The lease that these entries make, where nothing of it can be alive; entries about anything else are passed over.
///
/// A lease that the journal calls alive and that has no row was not archived: it is none.
pub(super) fn lease<'a>(entries: impl Iterator<Item = &'a [u8]>) -> Option<Lease> {
    let mut lease: Option<Lease> = None;
    for body in in_order(entries) {
        let Event::Lease { terms, step, .. } = body.event else { continue };
        lease = match (lease, terms) {
            (Some(before), _) => before.apply(&step).ok(),
            (None, Some(terms)) => Lease::first(terms, &step).ok(),
            (None, None) => None,
        };
    }
    lease.filter(|lease| !lease.state.is_live())
}

/// The task that these entries make, where it is over.
pub(super) fn task<'a>(entries: impl Iterator<Item = &'a [u8]>) -> Option<Task> {
    let mut task: Option<Task> = None;
    for body in in_order(entries) {
        let Event::Task { terms, scope, step, .. } = body.event else { continue };
        task = match (task, terms, scope) {
            (Some(before), _, _) => before.apply(&step).ok(),
            (None, Some(terms), Some(scope)) => Task::first(*terms, scope, &step).ok(),
            (None, _, _) => None,
        };
    }
    task.filter(|task| matches!(task.state, TaskState::Ended { .. } | TaskState::Refused))
}

/// By the subject's version: entries are written in the order of commits, which is nearly that.
fn in_order<'a>(entries: impl Iterator<Item = &'a [u8]>) -> Vec<Body> {
    let mut bodies: Vec<_> = entries.filter_map(|body| Body::parse(body).ok()).collect();
    bodies.sort_by_key(|body| body.subject_version);
    bodies
}
