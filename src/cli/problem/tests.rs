//! Refusals as people see them, each built from the status that the server sends.

use std::collections::HashMap;

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use super::*;

fn refused(code: Code, reason: &str, what: &str, told: &[(&str, &str)], retry: Option<u64>) -> Problem {
    let told: HashMap<_, _> =
        told.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut details = ErrorDetails::with_error_info(reason, "leasehold.dev", told);
    if let Some(seconds) = retry {
        details.set_retry_info(Some(Duration::from_secs(seconds)));
    }
    ClientError::from(Status::with_error_details(code, what, details)).into()
}

/// The text at a fixed time, and the exit code.
fn shown(problem: &Problem) -> String {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    format!("{}[exit {}]", problem.text(now), problem.exit.0)
}

macro_rules! snapshots {
    ($($name:ident: $problem:expr;)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(stringify!($name), shown(&$problem));
        }
    )*};
}

const DECISION: (&str, &str) = ("decision", "dec_4k2m1r8vq0ds7g3f9b5h");
const PAIR: (&str, &str) = ("pair", "orders.read@orders-db");

snapshots! {
    socket_not_named: Problem::from(ClientError::Unset("SPIFFE_ENDPOINT_SOCKET"));
    socket_missing: Problem::from(ClientError::Connect(ChannelError::NoSocket {
        socket: "unix:/run/spire/agent.sock".into(),
        reason: "No such file or directory (os error 2)".into(),
    }));
    socket_closed_to_this_user: Problem::from(ClientError::Connect(ChannelError::NotAllowed {
        socket: "/run/leasehold/admin.sock".into(),
    }));
    no_identity_issued: Problem::from(ClientError::Connect(ChannelError::NoIdentityIssued {
        endpoint: "unix:/run/spire/agent.sock".into(),
    }));
    wrong_server_id: Problem::from(ClientError::Connect(ChannelError::WrongServerId {
        expected: "spiffe://prod.example/leasehold".into(),
        found: "spiffe://prod.example/agent/other".into(),
    }));
    broker_not_reachable: Problem::from(ClientError::Connect(ChannelError::Unreachable {
        addr: "127.0.0.1:8443".into(),
        reason: "Connection refused (os error 111)".into(),
    }));
    answer_lost: Problem::from(ClientError::Broken("connection reset".into()));
    unknown_agent: refused(Code::PermissionDenied, "UNKNOWN_AGENT",
        "denied: spiffe://prod.example/agent/nobody is not registered",
        &[DECISION, ("agent", "spiffe://prod.example/agent/nobody"), ("why", "no agent of this id in the config")], None);
    no_permit: refused(Code::PermissionDenied, "NO_PERMIT", "denied orders.read@orders-db", &[DECISION, PAIR,
        ("why", "no policy permits it; the nearest, \"grant:orders.read@orders-db\", needs group soc"),
        ("next", "ask to join soc, or give dec_4k2m1r8vq0ds7g3f9b5h to your platform team")], None);
    forbidden: refused(Code::PermissionDenied, "FORBIDDEN", "denied orders.read@orders-db", &[DECISION, PAIR,
        ("why", "policy \"triage-reads-orders-briefly\" forbids ttl > 15m; you asked for 1h"),
        ("next", "--ttl 15m, or give dec_4k2m1r8vq0ds7g3f9b5h to your platform team")], None);
    forbidden_without_words: refused(Code::PermissionDenied, "FORBIDDEN", "denied orders.read@orders-db",
        &[DECISION, PAIR], None);
    quota: refused(Code::ResourceExhausted, "QUOTA", "agent spiffe://prod.example/agent/triage may have no more live leases",
        &[DECISION, ("quota", "agent spiffe://prod.example/agent/triage"), ("why", "its quota is 100 at one time"),
        ("next", "give back what is no longer needed (leasehold lease list --live), or ask an operator for a higher quota")],
        Some(5));
    needs_approval: refused(Code::FailedPrecondition, "NEEDS_APPROVAL", "orders.purge@orders-db needs approval",
        &[DECISION, ("why", "its class is irreversible; 1 of target-owner would be asked"),
        ("next", "this broker asks nobody yet: have a permit with @unattended written")], None);
    out_of_scope: refused(Code::PermissionDenied, "OUT_OF_SCOPE", "denied stock.read@stock-db",
        &[DECISION, ("why", "the task's scope is orders.read@orders-db"),
        ("next", "leasehold task scope task_1 orders.read@orders-db stock.read@stock-db")], None);
    frozen: refused(Code::PermissionDenied, "FROZEN", "denied orders.read@orders-db", &[DECISION,
        ("why", "FROZEN by rev_2b7c, reason \"INC-114\""), ("next", "an admin may lift it")], None);
    task_lost: refused(Code::FailedPrecondition, "TASK_LOST", "task_1 is lost",
        &[("why", "the last heartbeat came at 2027-01-15T07:58:50Z; the grace is 60s"),
        ("next", "open a new task with the same refs")], None);
    target_down: refused(Code::Unavailable, "TARGET_DOWN", "orders-db does not answer",
        &[DECISION, ("why", "connection refused"), ("next", "try again")], Some(12));
    privilege_missing: refused(Code::FailedPrecondition, "PRIVILEGE_MISSING", "orders-db cannot be leased on",
        &[DECISION, ("why", "the admin role may not grant orders_reader"),
        ("next", "GRANT orders_reader TO leasehold WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;")], None);
    clock: refused(Code::Unavailable, "CLOCK", "nothing is issued: the broker does not trust its clock",
        &[("why", "the wall clock is 9s behind"), ("next", "leasehold clock confirm --reason R, once it is right")], None);
    life_reached: refused(Code::FailedPrecondition, "LIFE_REACHED", "lease_1 cannot be renewed",
        &[DECISION, ("why", "its life ended at 2027-01-15T08:00:00Z, 1h after it began"),
        ("next", "ask for a new lease")], None);
    not_served: refused(Code::Unimplemented, "NOT_SERVED", "revoking by owner is not served", &[], None);
    a_proxy_s_words: Problem::from(ClientError::from(Status::unavailable("upstream connect error")));
    bad_fields: {
        let mut details = ErrorDetails::with_error_info("BAD_REQUEST", "leasehold.dev", HashMap::new());
        details.add_bad_request_violation("ttl", "more than 0").add_bad_request_violation("scope[1]", "a duplicate");
        Problem::from(ClientError::from(Status::with_error_details(Code::InvalidArgument, "not valid", details)))
    };
}

#[test]
fn programs_get_the_same_in_json() {
    let problem = refused(Code::PermissionDenied, "FROZEN", "denied", &[DECISION], Some(3));
    insta::assert_snapshot!(format!("{:#}", problem.json()));
}
