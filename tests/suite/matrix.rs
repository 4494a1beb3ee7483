//! Every call by every kind of caller, over the wire: the committed picture of who may do what (law 13).

mod callers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use leasehold::authority::{Lane, TABLE};
use leasehold::dev::ca::Shape;
use leasehold_proto::v1;
use prost::Message;

use callers::{Everybody, answer};

use crate::raw;
use crate::world::{Client, World, by_heartbeat, lease_request, open_request, scope, seconds};

/// What the calls are about: things of the agent `triage`.
struct Things {
    task: v1::Task,
    ended: String,
    lease: String,
    dead: String,
    lifted: String,
}

impl Things {
    async fn of(world: &World) -> Self {
        let (mut agent, mut admin) = (world.agent("triage").await, world.admin().await);
        let ended = agent.open(&["orders.read@orders"]).await.unwrap();
        let dead = agent.lease(&ended, "orders.read@orders").await.unwrap().lease.unwrap().id;
        agent.complete(&ended).await.unwrap();
        let task = agent.open(&["orders.read@orders"]).await.unwrap();
        let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap().id;
        let mut told = admin.revocations.revoke(revoke(&ended.id, false)).await.unwrap().into_inner();
        let lifted = told.message().await.unwrap().unwrap().revocation.unwrap().id;
        Self { task, ended: ended.id, lease, dead, lifted }
    }

    /// A request that a caller with the right to it may make again and again.
    fn request(&self, call: &str) -> Vec<u8> {
        let (service, method) = call.split_once('/').unwrap();
        let service = service.rsplit('.').next().unwrap();
        match service {
            "TaskService" | "LeaseService" => self.request_of_agent(service, method),
            "RevocationService" | "AuditService" | "TargetService" | "AgentService" | "AdminService" => {
                self.request_of_operator(service, method)
            }
            "IdentityService" | "Health" | "ServerReflection" => Vec::new(),
            _ => panic!("{service} is new: say here how it is asked"),
        }
    }

    fn request_of_agent(&self, service: &str, method: &str) -> Vec<u8> {
        let (task, lease, wait) = (self.task.id.clone(), self.lease.clone(), None);
        match (service, method) {
            ("TaskService", "OpenTask") => {
                // What an agent in a person's session may hold too.
                let liveness = by_heartbeat(600);
                v1::OpenTaskRequest { liveness, ..open_request(&["orders.read@orders"]) }.encode_to_vec()
            }
            ("TaskService", "GetTask") => v1::GetTaskRequest { task }.encode_to_vec(),
            ("TaskService", "ListTasks") => Vec::new(),
            ("TaskService", "ChangeScope") => {
                v1::ChangeScopeRequest { task, scope: scope(&["orders.read@orders"]), wait }.encode_to_vec()
            }
            ("TaskService", "WatchTask") => v1::WatchTaskRequest { task }.encode_to_vec(),
            ("TaskService", "Heartbeat") => {
                v1::HeartbeatRequest { task, ..Default::default() }.encode_to_vec()
            }
            ("TaskService", "CompleteTask") => {
                v1::CompleteTaskRequest { task: self.ended.clone(), wait }.encode_to_vec()
            }
            ("TaskService", "AbortTask") => {
                v1::AbortTaskRequest { task: self.ended.clone(), reason: "a test".into(), wait }
                    .encode_to_vec()
            }
            ("LeaseService", "ListGrants" | "ListLeases") => Vec::new(),
            ("LeaseService", "Propose") => {
                let (intent, target) = ("orders.read".into(), "orders".into());
                v1::ProposeRequest { intent, target, ..v1::ProposeRequest::default() }.encode_to_vec()
            }
            ("LeaseService", "RequestLease") => {
                lease_request(&self.task, "orders.read@orders").encode_to_vec()
            }
            ("LeaseService", "RenewLease") => {
                v1::RenewLeaseRequest { lease, ttl: seconds(600), request_id: "r".into() }.encode_to_vec()
            }
            ("LeaseService", "ReleaseLease") => {
                v1::ReleaseLeaseRequest { lease: self.dead.clone(), wait }.encode_to_vec()
            }
            ("LeaseService", "GetLease") => v1::GetLeaseRequest { lease }.encode_to_vec(),
            _ => panic!("{service}/{method} is new: say here how it is asked"),
        }
    }

    fn request_of_operator(&self, service: &str, method: &str) -> Vec<u8> {
        let (task, lease) = (self.task.id.clone(), self.lease.clone());
        let (reason, revocation) = ("a test".to_owned(), self.lifted.clone());
        match (service, method) {
            ("RevocationService", "Revoke") => revoke(&task, true).encode_to_vec(),
            ("RevocationService", "GetRevocation") => v1::GetRevocationRequest { revocation }.encode_to_vec(),
            ("RevocationService", "ListRevocations") => Vec::new(),
            ("RevocationService", "WatchRevocation") => {
                v1::WatchRevocationRequest { revocation }.encode_to_vec()
            }
            ("RevocationService", "LiftRevocation") => {
                v1::LiftRevocationRequest { revocation, reason }.encode_to_vec()
            }
            ("AuditService", "Trace") => {
                let subject = Some(v1::trace_request::Subject::Task(task));
                v1::TraceRequest { subject, ..v1::TraceRequest::default() }.encode_to_vec()
            }
            ("AuditService", "Find") => {
                v1::FindRequest { text: lease, ..v1::FindRequest::default() }.encode_to_vec()
            }
            ("AuditService", "Export" | "Verify") => Vec::new(),
            ("TargetService", "ListTargets") => Vec::new(),
            ("TargetService", "CheckTarget") => {
                v1::CheckTargetRequest { target: "orders".into() }.encode_to_vec()
            }
            ("TargetService", "SetupTarget") => {
                v1::SetupTargetRequest { target: "orders".into() }.encode_to_vec()
            }
            ("TargetService", "SweepTarget") => {
                let target = "orders".to_owned();
                v1::SweepTargetRequest { target, dry_run: true, ..Default::default() }.encode_to_vec()
            }
            ("TargetService", "DrillTarget") => {
                // One that is there would be drilled by the first who may, and be busy for the next.
                v1::DrillTargetRequest { target: "nowhere".into() }.encode_to_vec()
            }
            ("AgentService", "ListAgents") => Vec::new(),
            ("AgentService", "GetAgent") => {
                v1::GetAgentRequest { agent: self.task.agent.clone() }.encode_to_vec()
            }
            ("AgentService", "ApplyAgents") => {
                v1::ApplyAgentsRequest { text: "[agents]".into(), dry_run: true, ..Default::default() }
                    .encode_to_vec()
            }
            ("AgentService", "SetAgentStatus") => {
                let (agent, status) = (self.task.agent.clone(), v1::AgentStatus::Active.into());
                v1::SetAgentStatusRequest { agent, status, reason }.encode_to_vec()
            }
            ("AgentService", "ReviewAgent") => {
                v1::ReviewAgentRequest { agent: self.task.agent.clone(), reason, ..Default::default() }
                    .encode_to_vec()
            }
            ("AgentService", "OffboardOwner") => {
                // One who owns something would leave with the first who may.
                v1::OffboardOwnerRequest { owner: "person:nobody".into(), reason }.encode_to_vec()
            }
            ("AdminService", "Status") => Vec::new(),
            ("AdminService", "ConfirmClock") => v1::ConfirmClockRequest { reason }.encode_to_vec(),
            _ => panic!("{service}/{method} is new: say here how it is asked"),
        }
    }
}

fn revoke(task: &str, dry_run: bool) -> v1::RevokeRequest {
    let kind = v1::selector::Kind::Task(task.to_owned());
    let selector = Some(v1::Selector { kind: Some(kind) });
    v1::RevokeRequest { selector, dry_run, reason: "a test".into(), ..v1::RevokeRequest::default() }
}

#[tokio::test]
async fn who_may_do_what() {
    let everybody = Everybody::new().await;
    let world = &everybody.world;
    let things = Things::of(world).await;
    let callers = everybody.callers().await;
    let mut picture = String::new();
    for row in TABLE {
        writeln!(picture, "{}", row.call).unwrap();
        for door in ["agents", "bearer", "admin"] {
            let mut answers = BTreeMap::<String, BTreeSet<&str>>::new();
            for caller in callers.iter().filter(|caller| caller.door == door) {
                let word = caller.how.ask(world, row.call, &things.request(row.call)).await;
                answers.entry(word).or_default().insert(caller.name);
            }
            for (word, names) in answers {
                let names: Vec<_> = names.into_iter().collect();
                writeln!(picture, "  {door:<6} {word:<13} {}", names.join(" ")).unwrap();
            }
        }
    }
    insta::assert_snapshot!(picture);
    let mut agent = world.agent("triage").await;
    assert_eq!(agent.look(&things.lease).await.state(), v1::LeaseState::Active, "nobody could harm it");
}

#[tokio::test]
async fn an_identity_that_is_not_sound_is_turned_away_at_both_doors() {
    let world = World::new().await;
    for (shape, word) in [
        (Shape::Good, "ok"),
        (Shape::Expired, "no handshake"),
        (Shape::NotYetValid, "no handshake"),
        (Shape::TwoUris, "no handshake"),
        (Shape::SpiffeAndHttps, "no handshake"),
        (Shape::NoUri, "no handshake"),
        (Shape::NoPath, "no handshake"),
    ] {
        for door in [world.running().agents, world.running().admin_tcp[0]] {
            let channel = raw::shaped(&world.domain.ca(), shape, door);
            let said = answer(&channel, "leasehold.v1.IdentityService/WhoAmI", Vec::new()).await;
            assert_eq!(said, word, "{shape:?} at {door}");
        }
    }
}

#[test]
fn every_call_of_the_protos_has_its_row() {
    let set = prost_types::FileDescriptorSet::decode(leasehold_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut calls = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            for method in &service.method {
                let call = format!("{name}/{}", method.name());
                assert_eq!(Lane::of(&call) == Lane::StaysOpen, method.server_streaming(), "{call}");
                calls.insert(call);
            }
        }
    }
    let rows: BTreeSet<_> = TABLE.iter().map(|row| row.call.to_owned()).collect();
    assert_eq!(rows.len(), TABLE.len(), "no call has two rows");
    let ours: BTreeSet<_> = rows.iter().filter(|call| call.starts_with("leasehold.")).cloned().collect();
    assert_eq!(ours, calls);
}

#[tokio::test]
async fn a_call_that_does_not_exist_is_refused_by_name() {
    let world = World::new().await;
    let agent = world.agent("triage").await;
    for call in ["leasehold.v1.LeaseService/Steal", "leasehold.v2.TaskService/OpenTask", "a/b"] {
        assert_eq!(answer(&agent.channel, call, Vec::new()).await, "NOT_SERVED", "{call}");
    }
}

#[tokio::test]
async fn health_and_reflection_answer() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let world = World::new().await;
    let agent = world.agent("nobody").await;
    let check = HealthCheckRequest { service: "leasehold.v1.LeaseService".into() };
    let health = HealthClient::new(agent.channel.clone()).check(check).await.unwrap().into_inner();
    assert_eq!(health.status(), ServingStatus::Serving);
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let asked = tokio_stream::once(ask);
    let mut told =
        ServerReflectionClient::new(agent.channel).server_reflection_info(asked).await.unwrap().into_inner();
    let told = told.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = told else { panic!("{told:?}") };
    let services: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(services.contains(&"leasehold.v1.TaskService"), "{services:?}");
}

#[tokio::test]
async fn everybody_proven_is_told_who_they_are() {
    let world = World::new().await;
    let who = |mut client: Client| async move {
        client.identity.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner()
    };
    let agent = who(world.agent("triage").await).await;
    assert_eq!(agent.id, "spiffe://suite.leasehold.test/agent/triage");
    assert_eq!((agent.kind(), agent.door()), (v1::CallerKind::Workload, v1::Door::Agents));
    assert!(agent.registered && agent.frozen.is_none() && agent.svid_expires_at.is_some());
    assert_eq!(
        (agent.owner.as_str(), agent.groups, agent.autonomy.as_str()),
        ("person:ana", vec!["soc".into()], "act")
    );
    let nobody = who(world.agent("nobody").await).await;
    assert!(!nobody.registered && nobody.owner.is_empty() && nobody.roles.is_empty());
    let viewer = who(world.operator("viewer").await).await;
    assert_eq!((viewer.door(), viewer.roles), (v1::Door::Admin, vec![i32::from(v1::OperatorRole::Viewer)]));
    let local = who(world.admin().await).await;
    assert_eq!((local.kind(), local.svid_expires_at), (v1::CallerKind::UnixUser, None));
    assert!(local.id.starts_with("uid:"));
}
