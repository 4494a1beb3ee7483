//! `task watch`: one line an event, until the task has ended.

use leasehold_client::{TaskEvent, v1};
use serde_json::json;

use super::super::{
    console::Report,
    json,
    problem::{Exit, Problem},
    session::Session,
    view::{Word, pair, stamp},
};

pub(super) async fn run(id: &str, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.agents().await?;
    let task = super::join(&client, id).await?;
    let mut events = task.events();
    while let Some(event) = events.next().await {
        session.console.report(&report(&event))?;
        if matches!(event, TaskEvent::Refused(_)) {
            return Ok(Exit::FAILED);
        }
    }
    Ok(Exit::DONE)
}

fn report(event: &TaskEvent) -> Report {
    match event {
        TaskEvent::LeaseRevoked(lease) => changed("lease-revoked", "stop using", lease),
        TaskEvent::LeaseChanged(lease) => changed("lease-changed", "now", lease),
        TaskEvent::ScopeChanged(scope) => Report::new(
            format!("scope is now {}", scope.iter().map(pair).collect::<Vec<_>>().join(" ")),
            json!({"event": "scope-changed", "scope": scope.iter().map(json::scope_pair).collect::<Vec<_>>()}),
        ),
        TaskEvent::Ending(cause) => Report::new(
            format!("ending: {}", cause.word()),
            json!({"event": "ending", "cause": json::word(*cause)}),
        ),
        TaskEvent::Ended(cause, outcome) => Report::new(
            format!("ended: {}, {}", cause.word(), outcome.word()),
            json!({"event": "ended", "cause": json::word(*cause), "outcome": json::word(*outcome)}),
        ),
        TaskEvent::DeadlineNear(deadline) => Report::new(
            format!("the deadline is near: {}", stamp(*deadline)),
            json!({"event": "deadline-near", "deadline": json::time(*deadline)}),
        ),
        TaskEvent::Silent { lost_at } => Report::new(
            format!("no heartbeat: lost at {} unless one comes", stamp(*lost_at)),
            json!({"event": "silent", "lost_at": json::time(*lost_at)}),
        ),
        TaskEvent::ApprovalDecided { lease, approved } => Report::new(
            format!("{lease} was {}", if *approved { "approved" } else { "not approved" }),
            json!({"event": "approval-decided", "lease": lease, "approved": approved}),
        ),
        TaskEvent::Resync { task, gap } => Report::new(
            format!(
                "{} is {}{}",
                task.id,
                task.state().word(),
                if *gap { " (events were lost)" } else { "" }
            ),
            json!({"event": "resync", "gap": gap, "task": json::task(task)}),
        ),
        TaskEvent::Refused(reason) => {
            Report::new(reason.clone(), json!({"event": "refused", "reason": reason}))
        }
    }
}

fn changed(event: &str, word: &str, lease: &v1::Lease) -> Report {
    let cause = lease.cause().word();
    let cause = if cause.is_empty() { cause } else { format!(": {cause}") };
    let text = format!(
        "{word} {} {}@{} {} until {}{cause}",
        lease.id,
        lease.intent,
        lease.target,
        lease.state().word(),
        stamp(lease.expires_at)
    );
    Report::new(text, json!({"event": event, "lease": json::lease(lease)}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revoked_lease_names_its_cause() {
        let lease = v1::Lease {
            id: "lease_1".into(),
            intent: "orders.read".into(),
            target: "orders-db".into(),
            state: v1::LeaseState::Revoking.into(),
            cause: v1::Cause::ScopeChanged.into(),
            expires_at: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            ..v1::Lease::default()
        };
        assert_eq!(
            report(&TaskEvent::LeaseRevoked(Box::new(lease))).text,
            "stop using lease_1 orders.read@orders-db revoking until 2027-01-15T08:00:00Z: scope-changed"
        );
    }
}
