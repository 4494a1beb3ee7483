//! `whoami`: who the broker says you are.

use clap::Args;
use leasehold_client::v1;
use serde_json::json;

use super::{
    agents::{drift_json, drift_words},
    console::Report,
    json,
    login::{self, kept::Kept},
    problem::{Exit, Problem},
    session::{DoorArgs, Session},
    view::{self, Word, stamp, wire_length},
};

/// `whoami`.
#[derive(Debug, Args)]
#[command(after_help = "Example: leasehold whoami")]
pub struct WhoamiArgs {
    #[command(flatten)]
    door: DoorArgs,
}

pub(crate) async fn run(args: WhoamiArgs, session: &mut Session) -> Result<Exit, Problem> {
    let own = login::session()?;
    let answer = match session.either(args.door).await {
        Ok(client) => client.whoami().await.map_err(Problem::from),
        Err(problem) => Err(problem),
    };
    match answer {
        Ok(answer) => {
            session.console.report(&with_session(report(&answer), own.as_ref())).map(|()| Exit::DONE)
        }
        Err(problem) => {
            // No broker is needed to say who signed in here.
            own.iter().for_each(|own| session.console.note(&format!("signed in as {}", login::line(own))));
            Err(problem)
        }
    }
}

fn with_session(mut report: Report, own: Option<&Kept>) -> Report {
    if let Some(own) = own {
        report.text.push_str(&view::fields(&[("session", login::line(own))]));
        if let Some(json) = report.json.as_object_mut() {
            json.insert("session".to_owned(), login::told(own));
        }
    }
    report
}

fn report(answer: &v1::WhoAmIResponse) -> Report {
    let roles: Vec<_> = answer.roles().map(Word::word).collect();
    use v1::CallerKind as Kind;
    let registered = match (answer.registered, answer.kind()) {
        (true, _) => "yes",
        (false, Kind::UnixUser | Kind::Person) => "",
        (
            false,
            Kind::Workload | Kind::CiJob | Kind::KubeAccount | Kind::PersonalAgent | Kind::Unspecified,
        ) => "no: leases are refused",
    };
    let fields = view::fields(&[
        ("id", answer.id.clone()),
        ("door", answer.door().word()),
        ("proof until", stamp(answer.svid_expires_at)),
        ("registered", registered.to_owned()),
        ("owner", answer.owner.clone()),
        ("groups", answer.groups.join(", ")),
        ("autonomy", answer.autonomy.clone()),
        ("status", answer.status.clone()),
        ("lowered", answer.lowered.join("; ")),
        ("drift", answer.drift.last().map(drift_words).unwrap_or_default()),
        ("roles", roles.join(", ")),
        ("frozen", answer.frozen.as_ref().map(freeze_line).unwrap_or_default()),
        ("broker", answer.broker.clone()),
        ("broker time", stamp(answer.server_time)),
        ("clock offset", wire_length(answer.clock_offset)),
    ]);
    let json = json!({
        "id": answer.id, "kind": json::word(answer.kind()), "door": json::word(answer.door()),
        "svid_expires_at": json::time(answer.svid_expires_at), "registered": answer.registered,
        "owner": answer.owner, "groups": answer.groups, "autonomy": answer.autonomy, "roles": roles,
        "status": answer.status, "lowered": answer.lowered,
        "drift": answer.drift.iter().map(drift_json).collect::<Vec<_>>(),
        "frozen": json::freeze(answer.frozen.as_ref()), "broker": answer.broker,
        "server_time": json::time(answer.server_time), "clock_offset": json::span(answer.clock_offset),
    });
    Report::new(fields, json)
}

/// A freeze in one line.
pub(crate) fn freeze_line(freeze: &v1::Freeze) -> String {
    format!("by {}, reason \"{}\"; may be lifted by {}", freeze.revocation, freeze.reason, freeze.lifted_by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_sees_itself() {
        let answer = v1::WhoAmIResponse {
            id: "spiffe://prod.example/agent/triage".into(),
            kind: v1::CallerKind::Workload.into(),
            door: v1::Door::Agents.into(),
            svid_expires_at: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 5 }),
            registered: true,
            owner: "person:ana".into(),
            groups: vec!["soc".into()],
            autonomy: "act".into(),
            frozen: Some(v1::Freeze {
                revocation: "rev_2b7c".into(),
                reason: "INC-114".into(),
                lifted_by: "an admin".into(),
                since: None,
            }),
            broker: "broker-1".into(),
            server_time: Some(prost_types::Timestamp { seconds: 1_799_990_000, nanos: 0 }),
            clock_offset: Some(prost_types::Duration { seconds: 0, nanos: 2_000_000 }),
            roles: Vec::new(),
            status: "active".into(),
            lowered: Vec::new(),
            drift: vec![v1::AgentDrift {
                claimed: "sha256:02".into(),
                task: "task_1".into(),
                at: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            }],
        };
        let report = report(&answer);
        insta::assert_snapshot!(format!("{}{:#}", report.text, report.json));
    }
}
