//! Bad input: each has its own clear refusal, and nothing is lost by it.

use leasehold::server::StartError;
use leasehold_memory::Call;
use leasehold_proto::v1;
use leasehold_proto::v1::param_value::Kind;
use prost_types::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::world::{
    Setup, World, by_heartbeat, fresh_id, lease_request, open_request, reason, refused, scope, seconds,
};

type Spoil<T> = fn(&mut T);

fn text(value: &str) -> v1::ParamValue {
    v1::ParamValue { kind: Some(Kind::StringValue(value.into())) }
}

fn param(name: &str, kind: Option<Kind>) -> (String, v1::ParamValue) {
    (name.to_owned(), v1::ParamValue { kind })
}

fn many<T>(count: usize, one: impl Fn(usize) -> T) -> Vec<T> {
    (0..count).map(one).collect()
}

fn pair(intent: &str, target: &str) -> v1::ScopePair {
    v1::ScopePair { intent: intent.into(), target: target.into(), ..v1::ScopePair::default() }
}

/// What is wrong with a request to open a task, and what is said of it.
const OPENINGS: &[(&str, Spoil<v1::OpenTaskRequest>, &str)] = &[
    ("no request id", |r| r.request_id.clear(), "BAD_REQUEST"),
    ("a long request id", |r| r.request_id = "r".repeat(65), "BAD_REQUEST"),
    ("an odd request id", |r| r.request_id = "r/1".into(), "BAD_REQUEST"),
    ("a Unicode request id", |r| r.request_id = "größe".into(), "BAD_REQUEST"),
    ("a long purpose", |r| r.purpose = "p".repeat(513), "BAD_REQUEST"),
    ("a purpose that steers a terminal", |r| r.purpose = "\u{1b}[2Jgone".into(), "BAD_REQUEST"),
    ("a purpose that reads backwards", |r| r.purpose = "a\u{202e}b".into(), "BAD_REQUEST"),
    ("no scope", |r| r.scope.clear(), "BAD_REQUEST"),
    ("a pair twice", |r| r.scope = scope(&["orders.read@orders", "orders.read@orders"]), "BAD_REQUEST"),
    ("65 pairs", |r| r.scope = many(65, |n| pair(&format!("i{n}"), "orders")), "BAD_REQUEST"),
    ("a wildcard", |r| r.scope = vec![pair("*", "orders")], "BAD_REQUEST"),
    ("no target", |r| r.scope = vec![pair("orders.read", "")], "BAD_REQUEST"),
    ("an odd target", |r| r.scope = vec![pair("orders.read", "or\u{0301}ders")], "BAD_REQUEST"),
    ("an unknown intent", |r| r.scope = vec![pair("orders.eat", "orders")], "NO_PERMIT"),
    ("an unknown target", |r| r.scope = vec![pair("orders.read", "nowhere")], "NO_PERMIT"),
    ("a pair that nobody granted", |r| r.scope = vec![pair("orders.read", "stock")], "NO_PERMIT"),
    ("max_ttl of nothing", |r| r.scope[0].max_ttl = seconds(0), "BAD_REQUEST"),
    (
        "a fixed parameter that is unknown",
        |r| r.scope[0].params.extend([("nope".into(), text("a"))]),
        "BAD_REQUEST",
    ),
    (
        "a fixed parameter of no allowed value",
        |r| r.scope[0].params.extend([("reason".into(), text("fun"))]),
        "BAD_REQUEST",
    ),
    ("no liveness", |r| r.liveness = None, "BAD_REQUEST"),
    ("a short grace", |r| r.liveness = by_heartbeat(29), "BAD_REQUEST"),
    ("a long grace", |r| r.liveness = by_heartbeat(601), "BAD_REQUEST"),
    ("a deadline of nothing", |r| r.deadline = seconds(0), "BAD_REQUEST"),
    ("a negative deadline", |r| r.deadline = seconds(-5), "BAD_REQUEST"),
    ("a deadline beyond an hour alone", |r| r.deadline = seconds(3601), "BAD_REQUEST"),
    (
        "a deadline beyond the broker's",
        |r| (r.liveness, r.deadline) = (by_heartbeat(60), seconds(50_000)),
        "BAD_REQUEST",
    ),
    ("9 refs", |r| r.refs = many(9, |n| (format!("k{n}"), "v".into())).into_iter().collect(), "BAD_REQUEST"),
    ("a long ref key", |r| r.refs.extend([("k".repeat(33), "v".into())]), "BAD_REQUEST"),
    ("a long ref value", |r| r.refs.extend([("k".into(), "v".repeat(129))]), "BAD_REQUEST"),
    ("a parent", |r| r.parent = "task_00000000000000000000".into(), "NOT_SERVED"),
    ("a person", |r| r.on_behalf_of = Some(v1::OnBehalfOf { token: "t".into() }), "BAD_REQUEST"),
    ("an incident", |r| r.incident = "inc_1".into(), "NOT_SERVED"),
    ("a manifest", |r| r.manifest = Some(v1::Manifest { fingerprint: "f".into() }), "BAD_REQUEST"),
];

#[tokio::test]
async fn a_task_is_not_opened_by_bad_input() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    for (what, spoil, word) in OPENINGS {
        let mut request = open_request(&["orders.read@orders"]);
        spoil(&mut request);
        let status = agent.open_as(request).await.expect_err(what);
        assert_eq!(reason(&status), *word, "{what}");
        let named = status.get_details_bad_request().is_some_and(|bad| !bad.field_violations.is_empty());
        assert_eq!(named, *word == "BAD_REQUEST", "{what}: the field is named");
    }
    let listed = agent.tasks.list_tasks(v1::ListTasksRequest::default()).await.unwrap().into_inner().tasks;
    assert!(listed.iter().all(|task| task.state() == v1::TaskState::Refused), "{listed:?}");
    agent.open(&["orders.read@orders"]).await.unwrap();
}

#[tokio::test]
async fn odd_but_honest_text_is_kept_as_it_is() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    for purpose in ["", "Größe prüfen ✓", "対応 🔧", "e\u{0301}", &"p".repeat(512)] {
        let request =
            v1::OpenTaskRequest { purpose: purpose.into(), ..open_request(&["orders.read@orders"]) };
        let task = agent.open_as(request).await.unwrap();
        assert_eq!(agent.task(&task).await.purpose, purpose);
    }
}

/// What is wrong with a request for a lease, and what is said of it.
const REQUESTS: &[(&str, Spoil<v1::RequestLeaseRequest>, &str)] = &[
    ("no task", |r| r.task.clear(), "BAD_REQUEST"),
    ("an odd task", |r| r.task = "task_1".into(), "BAD_REQUEST"),
    ("a lease as the task", |r| r.task = "lease_00000000000000000000".into(), "BAD_REQUEST"),
    ("an absent task", |r| r.task = "task_00000000000000000000".into(), "NOT_FOUND"),
    ("no request id", |r| r.request_id.clear(), "BAD_REQUEST"),
    ("an odd intent", |r| r.intent = "orders read".into(), "BAD_REQUEST"),
    ("a long intent", |r| r.intent = "i".repeat(65), "BAD_REQUEST"),
    ("an unknown intent", |r| r.intent = "orders.eat".into(), "OUT_OF_SCOPE"),
    ("an unknown target", |r| r.target = "nowhere".into(), "OUT_OF_SCOPE"),
    (
        "a pair outside the scope",
        |r| (r.intent, r.target) = ("stock.read".into(), "stock".into()),
        "OUT_OF_SCOPE",
    ),
    ("a ttl of nothing", |r| r.ttl = seconds(0), "BAD_REQUEST"),
    ("a ttl of a moment", |r| r.ttl = Some(Duration { seconds: 0, nanos: 999_999 }), "BAD_REQUEST"),
    ("a negative ttl", |r| r.ttl = seconds(-1), "BAD_REQUEST"),
    ("a ttl beyond a day", |r| r.ttl = seconds(86_401), "BAD_REQUEST"),
    ("a huge ttl", |r| r.ttl = seconds(i64::MAX), "BAD_REQUEST"),
    ("the least ttl", |r| r.ttl = seconds(i64::MIN), "BAD_REQUEST"),
    ("a ttl that policy forbids", |r| r.ttl = seconds(86_400), "FORBIDDEN"),
    ("an unknown parameter", |r| r.params.extend([("nope".into(), text("a"))]), "BAD_REQUEST"),
    (
        "a parameter of another type",
        |r| r.params.extend([param("reason", Some(Kind::IntValue(3)))]),
        "BAD_REQUEST",
    ),
    ("a parameter of no allowed value", |r| r.params.extend([("reason".into(), text("fun"))]), "BAD_REQUEST"),
    ("a parameter without a value", |r| r.params.extend([param("reason", None)]), "BAD_REQUEST"),
    ("a long parameter", |r| r.params.extend([("reason".into(), text(&"v".repeat(257)))]), "BAD_REQUEST"),
    ("17 parameters", |r| r.params.extend(many(17, |n| (format!("p{n}"), text("v")))), "BAD_REQUEST"),
    (
        "a long list",
        |r| {
            let values = many(65, |n| n.to_string());
            r.params.extend([param("reason", Some(Kind::ListValue(v1::StringList { values })))]);
        },
        "BAD_REQUEST",
    ),
];

#[tokio::test]
async fn a_lease_is_not_minted_by_bad_input() {
    let world = World::new().await;
    let (mut agent, mut other) = (world.agent("triage").await, world.agent("other").await);
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let theirs = other.open(&["orders.read@orders"]).await.unwrap();
    let ended = agent.open(&["orders.read@orders"]).await.unwrap();
    agent.complete(&ended).await.unwrap();
    for (what, spoil, word) in REQUESTS {
        let mut request = lease_request(&task, "orders.read@orders");
        spoil(&mut request);
        let status = agent.leases.request_lease(request).await.expect_err(what);
        assert_eq!(reason(&status), *word, "{what}");
    }
    assert_eq!(
        refused(agent.lease(&theirs, "orders.read@orders").await),
        (Code::NotFound, "NOT_FOUND".into())
    );
    assert_eq!(
        refused(agent.lease(&ended, "orders.read@orders").await),
        (Code::FailedPrecondition, "TASK_ENDED".into())
    );
    assert_eq!(world.orders.calls(Call::Issue), 0);
    agent.lease(&task, "orders.read@orders").await.unwrap();
}

#[tokio::test]
async fn every_other_call_refuses_bad_input_too() {
    let world = World::new().await;
    let (mut agent, mut nobody) = (world.agent("triage").await, world.agent("nobody").await);
    let mut admin = world.admin().await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap().id;
    let absent = "task_00000000000000000000";
    let complete = |task: &str, wait| v1::CompleteTaskRequest { task: task.into(), wait };
    let list = |page_size, page_token: &str| v1::ListTasksRequest {
        page_size,
        page_token: page_token.into(),
        ..v1::ListTasksRequest::default()
    };
    let renew = |ttl| v1::RenewLeaseRequest { lease: lease.clone(), ttl, request_id: fresh_id() };
    let find = |text: &str| v1::FindRequest { text: text.into(), ..v1::FindRequest::default() };
    let abort = v1::AbortTaskRequest { task: task.id.clone(), reason: "r".repeat(513), wait: None };
    let confirm = v1::ConfirmClockRequest { reason: "r".repeat(513) };
    let chain = v1::VerifyRequest { chain: "another/1".into(), ..v1::VerifyRequest::default() };
    let cases: Vec<(&str, Result<(), Status>, &str)> = vec![
        ("an unregistered agent", nobody.open(&["orders.read@orders"]).await.map(drop), "UNKNOWN_AGENT"),
        ("an odd task", agent.tasks.complete_task(complete("7", None)).await.map(drop), "BAD_REQUEST"),
        ("an absent task", agent.tasks.complete_task(complete(absent, None)).await.map(drop), "NOT_FOUND"),
        (
            "a long wait",
            agent.tasks.complete_task(complete(&task.id, seconds(31))).await.map(drop),
            "BAD_REQUEST",
        ),
        (
            "a negative wait",
            agent.tasks.complete_task(complete(&task.id, seconds(-1))).await.map(drop),
            "BAD_REQUEST",
        ),
        ("a long reason", agent.tasks.abort_task(abort).await.map(drop), "BAD_REQUEST"),
        ("an empty new scope", agent.change(&task, Vec::new()).await.map(drop), "BAD_REQUEST"),
        ("a negative page", agent.tasks.list_tasks(list(-1, "")).await.map(drop), "BAD_REQUEST"),
        ("a huge page", agent.tasks.list_tasks(list(1001, "")).await.map(drop), "BAD_REQUEST"),
        ("an odd page token", agent.tasks.list_tasks(list(0, "2")).await.map(drop), "BAD_REQUEST"),
        ("a renewal for nothing", agent.leases.renew_lease(renew(seconds(0))).await.map(drop), "BAD_REQUEST"),
        (
            "a renewal for ever",
            agent.leases.renew_lease(renew(seconds(i64::MAX))).await.map(drop),
            "BAD_REQUEST",
        ),
        ("an odd lease", agent.renew("lease_", 60).await.map(drop), "BAD_REQUEST"),
        ("nothing to find", admin.audit.find(find(" ")).await.map(drop), "BAD_REQUEST"),
        ("a long text to find", admin.audit.find(find(&"f".repeat(257))).await.map(drop), "BAD_REQUEST"),
        ("another's chain", admin.audit.verify(chain).await.map(drop), "BAD_REQUEST"),
        ("a long reason for the clock", admin.admin.confirm_clock(confirm).await.map(drop), "BAD_REQUEST"),
    ];
    for (what, answer, word) in cases {
        assert_eq!(refused(answer).1, word, "{what}");
    }
    assert_eq!(agent.look(&lease).await.state(), v1::LeaseState::Active);
    assert_eq!(agent.task(&task).await, task);
}

#[tokio::test]
async fn a_message_over_the_limit_is_not_read() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let request =
        v1::OpenTaskRequest { purpose: "p".repeat(300 * 1024), ..open_request(&["orders.read@orders"]) };
    let status = agent.open_as(request).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    agent.open(&["orders.read@orders"]).await.unwrap();
}

#[tokio::test]
async fn every_mistake_in_the_config_is_told_at_once_and_nothing_starts() {
    let setup = Setup::default()
        .replace("agents = \"127.0.0.1:0\"", "agents = \"nowhere\"")
        .replace("autonomy = \"act\"", "autonomy = \"reign\"")
        .replace("class = \"read-only\"", "class = \"read-mostly\"")
        .replace("owner = \"group:data\"", "ownr = \"group:data\"")
        .replace("backend = \"memory\"", "backend = \"mermory\"");
    let mut world = World::prepare(&setup).await;
    let error = world.start(&setup).await.unwrap_err();
    assert!(matches!(error, StartError::Config(_)) && error.exit_code() == 78, "{error}");
    let told = error.to_string();
    for word in ["nowhere", "reign", "read-mostly", "owner` is missing", "mermory"] {
        assert!(
            told.lines().any(|line| line.contains("leasehold.toml:") && line.contains(word)),
            "{word}: {told}"
        );
    }
    assert!(!world.path("store").exists(), "no file was made");
    world.start(&Setup::default()).await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn a_policy_that_cannot_be_trusted_starts_nothing() {
    for (policy, word) in [
        ("@id(\"a\")\n@aprovers(\"1 of target-owner\")\npermit (principal, action, resource);\n", "aprovers"),
        ("@id(\"a\")\npermit (principal, action, resource)\n", "policy.cedar"),
        ("permit (principal, action, resource);\n", "id"),
        ("@id(\"a\")\npermit (principal, action == Action::\"orders.eat\", resource);\n", "orders.eat"),
    ] {
        let setup = Setup::default().policy(policy);
        let mut world = World::prepare(&setup).await;
        let error = world.start(&setup).await.unwrap_err();
        assert!(matches!(error, StartError::Config(_)), "{error}");
        let told = error.to_string();
        assert!(told.contains("policy.cedar:") && told.contains(word), "{word}: {told}");
    }
}
