//! A person behind an agent: proven by their token, seen by policy, on every record, and the end of the task when gone.

use std::sync::Arc;
use std::time::Duration;

use leasehold::clock::TimeSource as _;
use leasehold::dev::issuer::{Answer, DevIssuer};
use leasehold_client::{Client as Sdk, FileTokens, Options};
use leasehold_law::time::Timestamp;
use leasehold_proto::v1;
use leasehold_proto::v1::selector::Kind;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::stopping::{lift, revoke, run};
use crate::world::{Client, Setup, World, detail, open_request, reason, refused};

const READ: &str = "orders.read@orders";
const TRIAGE: &str = "spiffe://suite.leasehold.test/agent/triage";
const AUDIENCE: &str = "leasehold-on-behalf-of";

/// An issuer of people, and a broker that takes its tokens from agents: `triage-app` is the client of `triage`.
struct Rig {
    issuer: DevIssuer,
    world: World,
    setup: Setup,
}

impl Rig {
    async fn new() -> Self {
        Self::with("").await
    }

    async fn with(policy: &str) -> Self {
        let issuer = DevIssuer::start().await.unwrap();
        let people = format!(
            "[identity.people]\nissuer = \"{}\"\nclient_id = \"leasehold\"\nca_file = \"{}\"\n\
             on_behalf_of = {{ audience = \"{AUDIENCE}\", clients = {{ triage-app = [\"{TRIAGE}\"] }} }}\n[store]",
            issuer.url(),
            issuer.ca_file().display()
        );
        let setup = Setup::default()
            .replace("[store]", &people)
            .replace("https://idp.example", issuer.url())
            .policy(policy);
        let mut world = World::prepare(&setup).await;
        world.start(&setup).await.unwrap();
        Self { issuer, world, setup }
    }

    fn now(&self) -> i64 {
        self.world.time.wall().0 / 1000
    }

    /// A token of a person for so many seconds, with these claims too, and without `azp` where that is null.
    fn token(&self, person: &str, seconds: i64, more: &Value) -> String {
        let now = self.now();
        let mut claims =
            json!({ "sub": person, "aud": AUDIENCE, "azp": "triage-app", "iat": now, "exp": now + seconds });
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        if claims["azp"].is_null() {
            claims.as_object_mut().unwrap().remove("azp");
        }
        self.issuer.token(claims).unwrap()
    }

    async fn open(&self, agent: &mut Client, token: String) -> Result<v1::Task, Status> {
        agent.open_as(for_person(&[READ], token)).await
    }

    fn person(&self, name: &str) -> String {
        format!("oidc:{}|{name}", self.issuer.url())
    }

    /// For whom each entry of a kind says that it was done.
    async fn subjects_of(&self, kind: &str) -> Vec<String> {
        let store = self.world.running().broker.ledger().store();
        let found = store.entries_with(kind, Timestamp(0), Timestamp(i64::MAX), 99).await.unwrap();
        let bodies = found.iter().map(|entry| serde_json::from_slice::<Value>(&entry.body).unwrap());
        let of_kind = bodies.filter(|body| body["kind"] == kind);
        of_kind.map(|body| body["aims"]["delegated_subject"].as_str().unwrap().to_owned()).collect()
    }

    async fn journal(&self, text: &str) -> usize {
        let store = self.world.running().broker.ledger().store();
        store.entries_with(text, Timestamp(0), Timestamp(i64::MAX), 99).await.unwrap().len()
    }
}

fn for_person(pairs: &[&str], token: String) -> v1::OpenTaskRequest {
    let on_behalf_of = Some(v1::OnBehalfOf { token });
    v1::OpenTaskRequest { on_behalf_of, ..open_request(pairs) }
}

async fn beat(agent: &mut Client, task: &v1::Task, token: String) -> Result<v1::HeartbeatResponse, Status> {
    let on_behalf_of = Some(v1::OnBehalfOf { token });
    let request = v1::HeartbeatRequest { task: task.id.clone(), on_behalf_of };
    Ok(agent.tasks.heartbeat(request).await?.into_inner())
}

fn seconds(at: Option<prost_types::Timestamp>) -> i64 {
    at.unwrap().seconds
}

#[tokio::test]
async fn policy_decides_by_the_person_behind_an_agent_and_the_record_names_them() {
    const POLICY: &str = r#"
        @id("data-people-write") permit (principal, action == Action::"orders.write", resource == Target::"orders")
        when { context has on_behalf_of && context.on_behalf_of in PersonGroup::"data" };
        @id("never-for-ben") forbid (principal, action, resource)
        when { context has on_behalf_of && context.on_behalf_of == Person::"ben" };
    "#;
    const WRITE: &str = "orders.write@orders";
    let rig = Rig::with(POLICY).await;
    let mut agent = rig.world.agent("triage").await;
    assert_eq!(refused(agent.open(&[WRITE]).await).1, "NO_PERMIT", "nobody stands behind it");
    let for_ben = agent.open_as(for_person(&[WRITE], rig.token("ben", 300, &json!({})))).await;
    assert_eq!(refused(for_ben).1, "FORBIDDEN");
    let for_eve = agent.open_as(for_person(&[WRITE], rig.token("eve", 300, &json!({})))).await;
    assert_eq!(refused(for_eve).1, "NO_PERMIT", "she is in no group of the config");

    let token = rig.token("ana", 300, &json!({}));
    let task = agent.open_as(for_person(&[WRITE], token.clone())).await.unwrap();
    let ana = rig.person("ana");
    assert_eq!((&task.on_behalf_of, seconds(task.session_until)), (&ana, rig.now() + 300));
    let lease = agent.lease(&task, WRITE).await.unwrap().lease.unwrap().id;
    for kind in ["task.opened", "lease.mint_started", "lease.minted"] {
        assert_eq!(rig.subjects_of(kind).await, std::slice::from_ref(&ana), "{kind}");
    }
    assert_eq!(rig.journal(&token).await, 0, "the token is nowhere");
    let mut auditor = rig.world.operator("auditor").await;
    let find = v1::FindRequest { text: lease, ..v1::FindRequest::default() };
    let found = auditor.audit.find(find).await.unwrap().into_inner();
    assert_eq!(found.hits[0].person, ana);
    let of = |person: &str| v1::ListTasksRequest { person: person.into(), ..v1::ListTasksRequest::default() };
    let mut viewer = rig.world.operator("viewer").await;
    for (person, expect) in [("ana", 1), (ana.as_str(), 1), ("ben", 1), ("oidc:https://idp.example|x", 0)] {
        let tasks = viewer.tasks.list_tasks(of(person)).await.unwrap().into_inner().tasks;
        assert_eq!(tasks.len(), expect, "{person}");
    }
    assert_eq!(refused(viewer.tasks.list_tasks(of("nobody")).await).1, "NOT_FOUND");
    assert_eq!(
        refused(agent.tasks.list_tasks(of("ana")).await).1,
        "BAD_REQUEST",
        "names are not to be probed"
    );
}

#[tokio::test]
async fn a_token_counts_only_for_the_agent_that_it_names() {
    let rig = Rig::new().await;
    let mut agent = rig.world.agent("triage").await;
    let with = async |agent: &mut Client, more: Value| rig.open(agent, rig.token("ana", 300, &more)).await;
    let url = rig.issuer.url();
    let triage_may = |issuer: Value| json!({ "may_act": { "sub": TRIAGE, "iss": issuer } });
    for good in [
        json!({}),
        json!({ "azp": TRIAGE }),
        json!({ "azp": null, "client_id": "triage-app" }),
        json!({ "client_id": "triage-app" }),
        json!({ "may_act": { "sub": TRIAGE }, "azp": "portal" }),
        triage_may(json!(url)),
    ] {
        with(&mut agent, good.clone()).await.unwrap_or_else(|status| panic!("{good}: {status:?}"));
    }
    let to_another = "the person's token was given to another than this agent: see its `azp` or `client_id`";
    let by_another = "the person's token was given to another than this agent: see its `may_act`";
    for (bad, expect) in [
        (json!({ "azp": "portal" }), to_another),
        (json!({ "azp": ["triage-app"] }), to_another),
        (json!({ "azp": "triage-app", "client_id": "portal" }), to_another),
        (json!({ "may_act": { "sub": "triage-app" } }), by_another),
        (json!({ "may_act": TRIAGE }), by_another),
        (json!({ "may_act": null }), by_another),
        (triage_may(json!("https://other.example")), by_another),
        (triage_may(json!(7)), by_another),
        (json!({ "aud": "leasehold" }), "no issuer of [identity.people] takes this token as one to act on"),
        (
            json!({ "aud": [AUDIENCE, "leasehold"] }),
            "the token's audience is not exactly `leasehold-on-behalf-of`",
        ),
        (
            json!({ "iss": "https://other.example" }),
            "no issuer of [identity.people] takes this token as one to act on",
        ),
        (json!({ "sub": "a b" }), "the token's `sub` is not up to 255 visible ASCII characters"),
        (json!({ "exp": rig.now() - 1 }), "the token expired"),
        (json!({ "exp": rig.now() + 7200 }), "the token lives for 2h; at most 1h are accepted"),
    ] {
        let status = with(&mut agent, bad.clone()).await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, "BAD_REQUEST"),
            "{bad}"
        );
        assert!(status.message().contains(expect), "{bad}: {}", status.message());
        assert!(!detail(&status, "next").is_empty(), "{bad}");
    }
    // The same token in the hands of another agent.
    let mut other = rig.world.agent("other").await;
    assert!(with(&mut other, json!({})).await.unwrap_err().message().contains(to_another));
    let nobody_s = rig.token("ana", 300, &json!({ "azp": null }));
    assert!(rig.open(&mut agent, nobody_s).await.unwrap_err().message().contains("names no agent"));
    assert_eq!(refused(rig.open(&mut agent, "x.y.z".to_owned()).await).1, "BAD_REQUEST");
    rig.issuer.rotate().unwrap();
    rig.issuer.set("/keys", Some(Answer::Broken));
    rig.world.pass(60);
    let away = rig.open(&mut agent, rig.token("ana", 300, &json!({}))).await.unwrap_err();
    assert_eq!((away.code(), reason(&away).as_str()), (Code::Unavailable, "ISSUER_DOWN"));
}

#[tokio::test]
async fn a_task_ends_a_minute_after_its_person_s_session_unless_a_heartbeat_renews_it() {
    let rig = Rig::new().await;
    let mut agent = rig.world.agent("triage").await;
    let task = rig.open(&mut agent, rig.token("ana", 120, &json!({}))).await.unwrap();
    let granted = agent.lease(&task, READ).await.unwrap().lease.unwrap();
    assert!(seconds(granted.expires_at) <= rig.now() + 180, "no lease outlives the session");
    let first = seconds(task.session_until);

    // Another person's, and one that is no newer, move nothing; the heartbeat counts all the same.
    let of_ben = beat(&mut agent, &task, rig.token("ben", 300, &json!({}))).await.unwrap_err();
    assert!(of_ben.message().contains("not a token of the person"), "{}", of_ben.message());
    let older = beat(&mut agent, &task, rig.token("ana", 60, &json!({}))).await.unwrap();
    assert_eq!((seconds(older.session_until), older.version), (first, task.version));

    rig.world.pass(100);
    let newer = beat(&mut agent, &task, rig.token("ana", 300, &json!({}))).await.unwrap();
    assert_eq!(seconds(newer.session_until), rig.now() + 300);
    agent.renew(&granted.id, 600).await.unwrap();
    // Past the end of the first token and its minute: the newer one holds it, and stays through a restart.
    rig.world.pass(100);
    rig.world.running().broker.sweep_once(0).await;
    assert_eq!(agent.task(&task).await.state(), v1::TaskState::Open);
    let mut rig = rig;
    rig.world.restart(&rig.setup).await;
    let mut agent = rig.world.agent("triage").await;
    assert_eq!(agent.task(&task).await.session_until, newer.session_until);

    rig.world.pass(200 + 61);
    rig.world.running().broker.sweep_once(0).await;
    let ended = agent.until_task(&task, v1::TaskState::Ended).await;
    assert_eq!(ended.cause(), v1::Cause::PersonEnded);
    // It expired in the same moment: which of the two came first is nobody's promise.
    assert_eq!(agent.look(&granted.id).await.state(), v1::LeaseState::Revoked);
    assert_eq!(World::principals(&rig.world.orders), 0);
    let late = beat(&mut agent, &task, rig.token("ana", 300, &json!({}))).await.unwrap_err();
    assert_eq!(reason(&late), "TASK_ENDED");
    assert!(detail(&late, "why").contains("the session of the person"), "{late:?}");
}

#[tokio::test]
async fn revoking_a_person_ends_what_is_done_for_them_and_nothing_else() {
    let rig = Rig::new().await;
    let (mut agent, mut revoker) = (rig.world.agent("triage").await, rig.world.operator("revoker").await);
    let mut held = Vec::new();
    for person in ["ana", "ana", "ben"] {
        let task = rig.open(&mut agent, rig.token(person, 300, &json!({}))).await.unwrap();
        held.push((agent.lease(&task, READ).await.unwrap().lease.unwrap().id, task));
    }
    let own = agent.open(&[READ]).await.unwrap();
    let idle = rig.open(&mut agent, rig.token("ana", 300, &json!({}))).await.unwrap();

    let dry = v1::RevokeRequest { dry_run: true, ..revoke(Kind::Person("ana".into())) };
    let radius = run(&mut revoker, dry).await.unwrap().remove(0).revocation.unwrap();
    assert_eq!((radius.outcomes.len(), radius.tasks.len()), (2, 3), "the one without a lease is named too");
    let told = run(&mut revoker, revoke(Kind::Person("ana".into()))).await.unwrap();
    let last = told.last().unwrap();
    let revocation = last.revocation.clone().unwrap();
    assert!(last.done && revocation.frozen);
    assert_eq!(revocation.tasks, radius.tasks);
    assert_eq!(revocation.selector.unwrap().kind, Some(Kind::Person(rig.person("ana"))));
    assert_eq!((revocation.counts.unwrap().total, revocation.counts.unwrap().confirmed), (2, 2));
    for (task, ended) in
        [(&held[0].1, true), (&held[1].1, true), (&idle, true), (&held[2].1, false), (&own, false)]
    {
        let now = agent.task(task).await;
        let expect = if ended { v1::Cause::PersonEnded } else { v1::Cause::Unspecified };
        assert_eq!((now.state() != v1::TaskState::Open, now.cause()), (ended, expect), "{now:?}");
    }
    assert_eq!(agent.look(&held[2].0).await.state(), v1::LeaseState::Active);
    let again = rig.open(&mut agent, rig.token("ana", 300, &json!({}))).await.unwrap_err();
    assert_eq!(reason(&again), "FROZEN");
    rig.open(&mut agent, rig.token("ben", 300, &json!({}))).await.unwrap();

    lift(&mut rig.world.admin().await, &revocation.id).await.unwrap();
    let open = rig.open(&mut agent, rig.token("ana", 300, &json!({}))).await.unwrap();
    assert_eq!(agent.task(&open).await.state(), v1::TaskState::Open);
    // Without a barrier what is open ends too, and the next may begin at once.
    let soft = v1::RevokeRequest { freeze: Some(false), ..revoke(Kind::Person(rig.person("ana"))) };
    run(&mut revoker, soft).await.unwrap();
    assert_eq!(agent.task(&open).await.cause(), v1::Cause::PersonEnded);
    rig.open(&mut agent, rig.token("ana", 300, &json!({}))).await.unwrap();
}

#[tokio::test]
async fn a_task_that_is_asked_for_again_with_a_newer_token_is_the_same_task() {
    let rig = Rig::new().await;
    let mut agent = rig.world.agent("triage").await;
    let first = for_person(&[READ], rig.token("ana", 300, &json!({})));
    let task = agent.open_as(first.clone()).await.unwrap();
    let with = |token| v1::OpenTaskRequest { on_behalf_of: Some(v1::OnBehalfOf { token }), ..first.clone() };
    let again = agent.open_as(with(rig.token("ana", 400, &json!({})))).await.unwrap();
    assert_eq!(again.id, task.id);
    let for_ben = agent.open_as(with(rig.token("ben", 300, &json!({})))).await;
    assert_eq!(refused(for_ben).1, "REQUEST_ID_REUSED");
    let for_nobody = agent.open_as(v1::OpenTaskRequest { on_behalf_of: None, ..first }).await;
    assert_eq!(refused(for_nobody).1, "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn the_sdk_brings_each_newer_token_that_its_file_holds() {
    let rig = Rig::new().await;
    let file = rig.world.path("person.token");
    std::fs::write(&file, rig.token("ana", 45, &json!({}))).unwrap();
    let mut options = Options::default();
    options.addr = rig.world.running().agents.to_string();
    options.workload_api = Some(rig.world.endpoint("triage"));
    let client = Sdk::connect(options).await.unwrap();
    let tokens = Arc::new(FileTokens::new(&file, "the test"));
    let task = client
        .task()
        .scope(READ)
        .grace(Duration::from_secs(30))
        .on_behalf_of(tokens.clone())
        .open()
        .await
        .unwrap();
    assert_eq!(task.opened().on_behalf_of, rig.person("ana"));
    std::fs::write(&file, rig.token("ana", 300, &json!({}))).unwrap();
    let expect = rig.now() + 300;
    let viewer = rig.world.operator("viewer").await;
    viewer.until_session(task.opened(), expect).await;
    std::fs::remove_file(&file).unwrap();
    let gone = client.task().scope(READ).on_behalf_of(tokens).open().await.err().unwrap();
    assert!(gone.to_string().contains("person.token"), "{gone}");
    task.complete().await.unwrap();
}
