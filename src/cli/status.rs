//! `status`: the operator's one screen.

use clap::Args;
use leasehold_client::v1;
use serde_json::json;

use super::{
    console::Report,
    json,
    problem::{Exit, Problem},
    session::Session,
    targets,
    view::{self, stamp, wire_length},
};

/// `status`.
#[derive(Debug, Args)]
#[command(after_help = "Example: leasehold status || page-somebody")]
pub struct StatusArgs {}

pub(crate) async fn run(_args: StatusArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let answer = client.persist(|| async { client.admin().status(v1::StatusRequest {}).await }).await?;
    session.console.report(&report(&answer))?;
    Ok(if answer.needs_person.is_empty() { Exit::DONE } else { Exit::FAILED })
}

fn report(answer: &v1::StatusResponse) -> Report {
    let journal = answer.journal.clone().unwrap_or_default();
    let clock = answer.clock.clone().unwrap_or_default();
    let identity = answer.identity.clone().unwrap_or_default();
    let mut text = view::fields(&[
        ("broker", format!("{} {}, up {}", answer.broker, answer.version, wire_length(answer.uptime))),
        ("leases", format!("{} live, {} due, {} stuck", answer.live, answer.due, answer.stuck)),
        ("tasks", format!("{} open", answer.open_tasks)),
        ("frozen", answer.frozen.to_string()),
        ("agents", agents(answer.lowered_agents)),
        ("drift", answer.drifting.join("; ")),
        (
            "journal",
            format!("{} at {}: {}", journal.chain, journal.seq, health(journal.healthy, &journal.error)),
        ),
        (
            "clock",
            format!(
                "{} ({}): {}",
                stamp(clock.now),
                wire_length(clock.offset),
                health(clock.ok, &clock.reason)
            ),
        ),
        ("identity", identity_line(&identity)),
    ]);
    text.push('\n');
    text.push_str(&targets::table(&answer.targets));
    if !answer.set_aside.is_empty() {
        text.push('\n');
        text.push_str(&set_aside(&answer.set_aside));
    }
    for line in &answer.needs_person {
        text.push_str(&format!("\nneeds a person: {line}"));
    }
    Report::new(text, json(answer, &journal, &clock))
}

fn set_aside(asides: &[v1::SetAside]) -> String {
    let row = |one: &v1::SetAside| {
        let state = if one.alive { "ALIVE" } else { "gone" };
        let why = if one.last_error.is_empty() { one.why.clone() } else { one.last_error.clone() };
        vec![
            one.kind.clone(),
            one.id.clone(),
            one.target.clone(),
            state.to_owned(),
            one.tries.to_string(),
            why,
        ]
    };
    let rows: Vec<_> = asides.iter().map(row).collect();
    view::table(&["SET ASIDE", "ID", "TARGET", "STATE", "TRIES", "WHY"], &rows, "nothing is set aside")
}

fn identity_line(identity: &v1::IdentityStatus) -> String {
    let state = match identity.error.as_str() {
        "" => "good".to_owned(),
        error => format!("NOT GOOD since {}: {error}", stamp(identity.since)),
    };
    let bundles = identity.trust_domains.join(", ");
    format!("{}, until {}, bundles of {bundles}: {state}", identity.id, stamp(identity.not_after))
}

fn identity_json(identity: &v1::IdentityStatus) -> serde_json::Value {
    json!({
        "id": identity.id, "not_after": json::time(identity.not_after), "error": identity.error,
        "since": json::time(identity.since), "trust_domains": identity.trust_domains,
    })
}

fn agents(lowered: u64) -> String {
    if lowered == 0 { String::new() } else { format!("{lowered} stopped or lowered: leasehold agents list") }
}

fn health(good: bool, error: &str) -> String {
    if good { "good".to_owned() } else { format!("NOT GOOD: {error}; nothing is issued, revoking goes on") }
}

fn json(
    answer: &v1::StatusResponse,
    journal: &v1::JournalStatus,
    clock: &v1::ClockStatus,
) -> serde_json::Value {
    json!({
        "broker": answer.broker, "version": answer.version, "uptime": json::span(answer.uptime),
        "live": answer.live, "due": answer.due, "stuck": answer.stuck, "frozen": answer.frozen,
        "open_tasks": answer.open_tasks, "targets": answer.targets.iter().map(json::target).collect::<Vec<_>>(),
        "journal": {
            "chain": journal.chain, "seq": journal.seq, "healthy": journal.healthy, "error": journal.error,
        },
        "clock": {
            "ok": clock.ok, "offset": json::span(clock.offset), "reason": clock.reason, "now": json::time(clock.now),
        },
        "identity": answer.identity.as_ref().map(identity_json),
        "needs_person": answer.needs_person, "drifting": answer.drifting,
        "lowered_agents": answer.lowered_agents,
        "set_aside": answer.set_aside.iter().map(json::set_aside).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_screen_says_what_needs_a_person() {
        let answer = v1::StatusResponse {
            live: 12,
            due: 2,
            stuck: 1,
            frozen: 1,
            open_tasks: 7,
            broker: "broker-1".into(),
            drifting: vec!["spiffe://prod.example/a says that it runs sha256:02 since 2027".into()],
            lowered_agents: 2,
            version: "0.1.0".into(),
            uptime: Some(prost_types::Duration { seconds: 93_784, nanos: 0 }),
            journal: Some(v1::JournalStatus {
                chain: "broker-1/1".into(),
                seq: 61,
                healthy: true,
                error: String::new(),
            }),
            clock: Some(v1::ClockStatus {
                ok: false,
                offset: Some(prost_types::Duration { seconds: -9, nanos: 0 }),
                reason: "the wall clock went back".into(),
                now: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            }),
            targets: vec![v1::Target {
                name: "orders-db".into(),
                backend: "postgres".into(),
                owner: "group:data-platform".into(),
                state: v1::TargetState::Down.into(),
                last_error: "connection refused".into(),
                live: 12,
                due: 2,
                stuck: 1,
                grade: v1::Grade::Exact.into(),
                ..v1::Target::default()
            }],
            identity: Some(v1::IdentityStatus {
                id: "spiffe://prod.example/leasehold".into(),
                not_after: Some(prost_types::Timestamp { seconds: 1_800_000_600, nanos: 0 }),
                error: "the Workload API does not answer".into(),
                since: Some(prost_types::Timestamp { seconds: 1_799_999_700, nanos: 0 }),
                trust_domains: vec!["prod.example".into()],
            }),
            needs_person: vec!["lease_1 on orders-db has failed to be revoked 9 times".into()],
            set_aside: vec![v1::SetAside {
                kind: "orphan".into(),
                id: "lh06jr1k4t0b0000000000aaaaaaaaaa".into(),
                target: "orders-db".into(),
                why: "no lease explains it".into(),
                alive: true,
                tries: 3,
                last_error: "connection refused".into(),
                ..v1::SetAside::default()
            }],
        };
        insta::assert_snapshot!(report(&answer).text);
    }
}
