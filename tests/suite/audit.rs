//! The journal from outside: told, searched, exported, verified, replayed.

use std::collections::BTreeMap;

use leasehold_law::id::{LeaseId, TaskId};
use leasehold_law::journal::{Body, ChainError, Event, Line, verify};
use leasehold_law::lease::Lease;
use leasehold_law::task::Task;
use leasehold_proto::v1;
use leasehold_proto::v1::trace_request::Subject;
use leasehold_proto::v1::{FindKind, TraceRequest};

use crate::world::{Client, World, open_request, refused, scope, seconds};

/// A life with a bit of everything, all leases dead at its end but one.
async fn live(world: &World) -> (v1::Task, v1::Lease, v1::Revocation) {
    let (mut agent, mut nobody) = (world.agent("triage").await, world.agent("nobody").await);
    let (mut revoker, mut admin) = (world.operator("revoker").await, world.admin().await);
    let mut open = open_request(&["orders.read@orders", "orders.purge@orders"]);
    open.refs.insert("run".into(), "4711".into());
    let task = agent.open_as(open).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    agent.renew(&lease.id, 700).await.unwrap();
    refused(agent.lease(&task, "orders.purge@orders").await);
    refused(agent.open(&["orders.write@orders"]).await);
    refused(nobody.open(&["orders.read@orders"]).await);
    let propose =
        v1::ProposeRequest { intent: "stock.read".into(), target: "stock".into(), ..Default::default() };
    agent.leases.propose(propose).await.unwrap();
    agent.change(&task, scope(&["orders.read@orders", "stock.read@stock"])).await.unwrap();
    let second = agent.lease(&task, "stock.read@stock").await.unwrap().lease.unwrap();
    agent.release(&second.id).await.unwrap();
    let revoke = v1::RevokeRequest {
        selector: Some(v1::Selector { kind: Some(v1::selector::Kind::Agent(task.agent.clone())) }),
        reason: "a drill".into(),
        wait: seconds(20),
        ..v1::RevokeRequest::default()
    };
    let mut told = revoker.revocations.revoke(revoke).await.unwrap().into_inner();
    let mut last = None;
    while let Some(progress) = told.message().await.unwrap() {
        last = progress.revocation;
    }
    let revocation = last.unwrap();
    let lift = v1::LiftRevocationRequest { revocation: revocation.id.clone(), reason: "over".into() };
    admin.revocations.lift_revocation(lift).await.unwrap();
    agent.complete(&task).await.unwrap();
    agent.until_task(&task, v1::TaskState::Ended).await;
    let task_of_other = world.agent("other").await.open(&["stock.read@stock"]).await.unwrap();
    world.agent("other").await.lease(&task_of_other, "stock.read@stock").await.unwrap();
    (task, lease, revocation)
}

async fn export(auditor: &mut Client, first_seq: u64, last_seq: u64) -> Vec<u8> {
    let request = v1::ExportRequest { first_seq, last_seq, ..v1::ExportRequest::default() };
    let mut stream = auditor.audit.export(request).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.message().await.unwrap() {
        bytes.extend(piece.lines);
    }
    bytes
}

fn bodies(export: &str) -> Vec<Body> {
    let lines = export.lines().skip(1).map(|line| serde_json::from_str(line).unwrap());
    let body = |line: Line| match line {
        Line::Entry { body, .. } => Body::parse(body.as_bytes()).unwrap(),
        Line::Begin { .. } => panic!("a second beginning"),
    };
    lines.map(body).collect()
}

#[tokio::test]
async fn the_export_verifies_offline_and_one_flipped_bit_is_found() {
    let world = World::new().await;
    live(&world).await;
    let mut auditor = world.operator("auditor").await;
    let bytes = export(&mut auditor, 0, 0).await;
    let text = String::from_utf8(bytes.clone()).unwrap();
    let head = verify(text.lines()).unwrap();
    assert_eq!(head.seq, u64::try_from(text.lines().count() - 1).unwrap());
    let said =
        auditor.audit.verify(v1::VerifyRequest { last_seq: head.seq, ..Default::default() }).await.unwrap();
    let said = said.into_inner();
    assert!(said.whole && said.entries == head.seq);
    assert_eq!(said.last_hash, head.hash.0);
    let part = String::from_utf8(export(&mut auditor, 3, 7).await).unwrap();
    assert_eq!((verify(part.lines()).unwrap().seq, part.lines().count()), (7, 6));
    let second = text.find('\n').unwrap() + 1;
    for at in (second..bytes.len()).step_by(97) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        let told = String::from_utf8_lossy(&flipped).into_owned();
        assert!(verify(told.lines()).is_err(), "byte {at} was changed and nobody sees it");
    }
}

#[tokio::test]
async fn an_entry_that_was_changed_in_the_store_is_named() {
    let world = World::new().await;
    live(&world).await;
    let mut auditor = world.operator("auditor").await;
    world.on_store(
        "UPDATE journal SET body = CAST(replace(CAST(body AS TEXT), 'a', 'b') AS BLOB) WHERE seq = 5",
    );
    let said = auditor.audit.verify(v1::VerifyRequest::default()).await.unwrap().into_inner();
    assert_eq!((said.whole, said.first_broken), (false, 5), "{}", said.problem);
    let text = String::from_utf8(export(&mut auditor, 0, 0).await).unwrap();
    assert_eq!(verify(text.lines()), Err(ChainError::Broken(5)));
}

#[tokio::test]
async fn every_entry_has_the_seven_fields() {
    let world = World::new().await;
    live(&world).await;
    let mut auditor = world.operator("auditor").await;
    let bodies = bodies(&String::from_utf8(export(&mut auditor, 0, 0).await).unwrap());
    let kinds: std::collections::BTreeSet<_> = bodies.iter().map(|body| body.kind.as_str()).collect();
    assert!(kinds.len() >= 12, "the life had a bit of everything: {kinds:?}");
    for body in &bodies {
        let aims = serde_json::to_value(&body.aims).unwrap();
        let fields = aims.as_object().unwrap();
        assert_eq!(fields.len(), 7);
        let empty = |value: &serde_json::Value| value.as_str().is_none_or(|text| text.trim().is_empty());
        assert!(!fields.values().any(empty), "{}: {aims}", body.kind);
    }
}

#[tokio::test]
async fn the_journal_alone_tells_every_row() {
    let world = World::new().await;
    live(&world).await;
    let mut auditor = world.operator("auditor").await;
    let (mut leases, mut tasks) = (BTreeMap::<LeaseId, Lease>::new(), BTreeMap::<TaskId, Task>::new());
    for body in bodies(&String::from_utf8(export(&mut auditor, 0, 0).await).unwrap()) {
        match body.event {
            Event::Lease { terms, step, .. } => {
                let id = body.lease.unwrap();
                let next = match terms {
                    Some(terms) => Lease::first(terms, &step).unwrap(),
                    None => leases[&id].apply(&step).unwrap(),
                };
                assert_eq!(next.version, body.subject_version);
                leases.insert(id, next);
            }
            Event::Task { terms: Some(terms), scope: Some(scope), step, .. } => {
                tasks.insert(terms.id, Task::first(*terms, scope, &step).unwrap());
            }
            Event::Task { step, .. } => {
                let id = body.task.unwrap();
                let next = tasks[&id].apply(&step).unwrap();
                assert_eq!(next.version, body.subject_version);
                tasks.insert(id, next);
            }
            Event::Decided { .. }
            | Event::Refused { .. }
            | Event::RefusedAgain { .. }
            | Event::Strangers { .. }
            | Event::Revocation { .. }
            | Event::Lifted { .. }
            | Event::Reaped { .. }
            | Event::Registry { .. }
            | Event::Drilled { .. }
            | Event::Broker { .. } => {}
        }
    }
    let store = world.running().broker.ledger().store();
    let rows = store.leases(&leasehold::store::LeaseFilter::default(), usize::MAX).await.unwrap();
    assert_eq!(rows.into_iter().map(|lease| (lease.terms.id, lease)).collect::<BTreeMap<_, _>>(), leases);
    let rows = store.tasks(&leasehold::store::TaskFilter::default(), usize::MAX).await.unwrap();
    assert_eq!(rows.into_iter().map(|task| (task.terms.id, task)).collect::<BTreeMap<_, _>>(), tasks);
    assert_eq!((leases.len(), tasks.len()), (4, 3));
}

#[tokio::test]
async fn whatever_a_name_belongs_to_is_found_with_what_stops_it() {
    let world = World::new().await;
    let (task, lease, revocation) = live(&world).await;
    let mut auditor = world.operator("auditor").await;
    let stop_lease = format!("leasehold revoke --lease {} --reason R", lease.id);
    let stop_task = format!("leasehold revoke --task {} --reason R", task.id);
    let stop_agent = format!("leasehold revoke --agent {} --reason R", task.agent);
    let show = format!("leasehold revocations show {}", revocation.id);
    for (text, kind, stop) in [
        (lease.principal.as_str(), FindKind::Principal, &stop_lease),
        (&lease.id, FindKind::Lease, &stop_lease),
        (&task.id, FindKind::Task, &stop_task),
        (&lease.decision, FindKind::Decision, &stop_lease),
        (&task.agent, FindKind::Agent, &stop_agent),
        ("person:ana", FindKind::Person, &stop_agent),
        ("ana", FindKind::Person, &stop_agent),
        ("run=4711", FindKind::Ref, &stop_task),
        (&revocation.id, FindKind::Revocation, &show),
    ] {
        let request = v1::FindRequest { text: text.into(), ..v1::FindRequest::default() };
        let hits = auditor.audit.find(request).await.unwrap().into_inner().hits;
        assert_eq!(hits.len(), 1, "{text}");
        assert_eq!((hits[0].kind(), &hits[0].stop_commands[0]), (kind, stop), "{text}");
        if kind != FindKind::Revocation {
            assert_eq!((hits[0].owner.as_str(), hits[0].person.as_str()), ("person:ana", "ana"), "{text}");
        }
    }
    for nothing in ["lease_00000000000000000000", "dec_00000000000000000000", "run=1", "carl", "lhnone"] {
        let request = v1::FindRequest { text: nothing.into(), ..v1::FindRequest::default() };
        assert_eq!(auditor.audit.find(request).await.unwrap().into_inner().hits, [], "{nothing}");
    }
}

#[tokio::test]
async fn a_story_is_told_in_order_and_in_pages() {
    let world = World::new().await;
    let (task, lease, _) = live(&world).await;
    let mut auditor = world.operator("auditor").await;
    let mut kinds = Vec::new();
    let mut seqs = Vec::new();
    let mut page_token = String::new();
    loop {
        let subject = Some(Subject::Task(task.id.clone()));
        let request = TraceRequest { subject, page_size: 4, page_token };
        let page = auditor.audit.trace(request).await.unwrap().into_inner();
        kinds.extend(page.entries.iter().map(|entry| entry.kind.clone()));
        seqs.extend(page.entries.iter().map(|entry| entry.seq));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(seqs.is_sorted(), "{seqs:?}");
    assert_eq!(kinds.first().map(String::as_str), Some("task.opened"));
    assert_eq!(kinds.last().map(String::as_str), Some("task.ended"));
    let steps: Vec<_> = kinds.iter().filter(|kind| kind.starts_with("lease.renew")).collect();
    assert_eq!(steps, ["lease.renew_started", "lease.renewed"]);
    for subject in [Subject::Lease(lease.id), Subject::Decision(lease.decision)] {
        let request =
            TraceRequest { subject: Some(subject.clone()), page_size: 100, ..TraceRequest::default() };
        let told = auditor.audit.trace(request).await.unwrap().into_inner().entries;
        assert_eq!(told.len(), kinds.len(), "{subject:?}");
    }
    let absent = Subject::Task("task_00000000000000000000".into());
    for (subject, word) in [(Some(absent), "NOT_FOUND"), (None, "BAD_REQUEST")] {
        let request = TraceRequest { subject, ..TraceRequest::default() };
        assert_eq!(refused(auditor.audit.trace(request).await).1, word);
    }
}

#[tokio::test]
async fn a_refusal_before_policy_is_on_record_under_its_id() {
    let world = World::new().await;
    let (mut nobody, mut auditor) = (world.agent("nobody").await, world.operator("auditor").await);
    let status = nobody.open(&["orders.read@orders"]).await.unwrap_err();
    let decision = crate::world::detail(&status, "decision");
    let request =
        TraceRequest { subject: Some(Subject::Decision(decision.clone())), ..TraceRequest::default() };
    let told = auditor.audit.trace(request).await.unwrap().into_inner().entries;
    assert_eq!(told.len(), 1);
    for word in [decision.as_str(), "agent/nobody", "UNKNOWN_AGENT", "TaskService/OpenTask"] {
        assert!(told[0].body.contains(word), "{}", told[0].body);
    }
}

/// Puts so many more entries of a task into the journal, a moment before the one that names this.
fn crowd(world: &World, count: u32, named: &str) {
    let one = format!("SELECT * FROM journal WHERE instr(body, CAST('{named}' AS BLOB)) > 0 LIMIT 1");
    world.on_store(&format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
         INSERT INTO journal (chain, seq, at, task, body, prev, hash) \
         SELECT 'another/1', i, at - 1, task, CAST('{{}}' AS BLOB), prev, hash FROM n, ({one})"
    ));
}

async fn trace(auditor: &mut Client, task: &v1::Task, token: &str, size: i32) -> v1::TraceResponse {
    let subject = Some(Subject::Task(task.id.clone()));
    let request = TraceRequest { page_size: size, page_token: token.into(), subject };
    auditor.audit.trace(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_trace_that_is_told_no_further_says_so() {
    let world = World::new().await;
    let task = world.agent("triage").await.open(&["orders.read@orders"]).await.unwrap();
    crowd(&world, 50_000, &task.id);
    let mut auditor = world.operator("auditor").await;
    let first = trace(&mut auditor, &task, "", 2).await;
    assert_eq!((first.entries.len(), first.next_page_token.as_str(), first.cut), (2, "2", false));
    let last = trace(&mut auditor, &task, "49998", 10).await;
    assert_eq!((last.entries.len(), last.next_page_token.as_str(), last.cut), (2, "", true));
}

/// The numbers of entries begin anew in each chain: by them the second page would lose what the first did not tell.
#[tokio::test]
async fn a_trace_over_two_chains_is_told_whole_page_by_page() {
    let world = World::new().await;
    let task = world.agent("triage").await.open(&["orders.read@orders"]).await.unwrap();
    crowd(&world, 3, &task.id);
    let mut auditor = world.operator("auditor").await;
    let (mut told, mut token) = (Vec::new(), String::new());
    loop {
        let page = trace(&mut auditor, &task, &token, 1).await;
        told.extend(page.entries.iter().map(|entry| entry.seq));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(told[1..], [1, 2, 3], "{told:?}");
    assert!(told[0] > 1);
}

#[tokio::test]
async fn a_decision_is_found_among_ever_so_many_entries() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    crowd(&world, 25_000, &lease.decision);
    let request = v1::FindRequest { text: lease.decision, ..v1::FindRequest::default() };
    let hits = world.operator("auditor").await.audit.find(request).await.unwrap().into_inner().hits;
    assert_eq!(hits.iter().map(|hit| hit.lease.as_str()).collect::<Vec<_>>(), [lease.id.as_str()]);
}

#[tokio::test]
async fn what_is_found_comes_page_by_page() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let mut tasks = Vec::new();
    for _ in 0..3 {
        let mut open = open_request(&["orders.read@orders"]);
        open.refs.insert("run".into(), "8812".into());
        tasks.insert(0, agent.open_as(open).await.unwrap().id);
    }
    let mut auditor = world.operator("auditor").await;
    let mut request = v1::FindRequest { text: "run=8812".into(), page_size: 2, ..Default::default() };
    let first = auditor.audit.find(request.clone()).await.unwrap().into_inner();
    request.page_token.clone_from(&first.next_page_token);
    let second = auditor.audit.find(request.clone()).await.unwrap().into_inner();
    assert_eq!((first.hits.len(), second.next_page_token.as_str()), (2, ""));
    let found: Vec<_> = first.hits.iter().chain(&second.hits).map(|hit| hit.task.clone()).collect();
    assert_eq!(found, tasks, "newest first");
    request.page_token = "100001".into();
    assert_eq!(refused(auditor.audit.find(request).await).1, "BAD_REQUEST");
}
