//! What holds for the wire as a whole: nothing secret is printed, and the descriptors tell what is served.

use std::collections::BTreeMap;
use std::fmt::Debug;

use prost::Message;
use prost_types::FileDescriptorSet;

use crate::{FILE_DESCRIPTOR_SET, v1, workload};

const CANARY: &str = "canary-4711";

/// Prints `message` in both shapes; neither may hold the canary, as text or as a list of bytes.
#[track_caller]
fn check_redacted(message: &impl Debug, visible: &str) {
    let bytes = format!("{:?}", CANARY.as_bytes());
    for printed in [format!("{message:?}"), format!("{message:#?}").replace([' ', '\n'], "")] {
        let flat = printed.replace(", ", ",");
        assert!(!flat.contains(CANARY), "{printed}");
        assert!(!flat.contains(bytes.replace(' ', "").trim_matches(['[', ']'])), "{printed}");
        assert!(flat.contains("[redacted]") && flat.contains(visible), "{printed}");
    }
}

fn credential() -> v1::Credential {
    v1::Credential {
        kind: "postgres".into(),
        public: BTreeMap::from([("host".into(), "db1.internal".into())]),
        secret: BTreeMap::from([("password".into(), CANARY.into())]),
    }
}

#[test]
fn no_secret_is_printed() {
    let credential = Some(credential());
    let person = v1::OnBehalfOf { token: CANARY.into() };
    let svid = workload::X509svid {
        spiffe_id: "spiffe://prod.example/a".into(),
        x509_svid_key: CANARY.into(),
        ..Default::default()
    };
    let jwt = workload::Jwtsvid { svid: CANARY.into(), hint: "internal".into(), ..Default::default() };
    check_redacted(&credential, "password");
    check_redacted(&credential, "db1.internal");
    check_redacted(
        &v1::RequestLeaseResponse { credential: credential.clone(), ..Default::default() },
        "postgres",
    );
    check_redacted(&v1::RenewLeaseResponse { credential, ..Default::default() }, "postgres");
    check_redacted(&v1::OpenTaskRequest { on_behalf_of: Some(person), ..Default::default() }, "on_behalf_of");
    check_redacted(
        &workload::X509svidResponse { svids: vec![svid], ..Default::default() },
        "spiffe://prod.example/a",
    );
    check_redacted(&workload::JwtsvidResponse { svids: vec![jwt] }, "internal");
    check_redacted(&workload::ValidateJwtsvidRequest { audience: "ci".into(), svid: CANARY.into() }, "ci");
}

#[test]
fn a_credential_prints_its_names_in_order() {
    assert_eq!(
        format!("{:?}", credential()),
        r#"Credential { kind: "postgres", public: {"host": "db1.internal"}, secret: {"password": [redacted]} }"#
    );
}

fn files() -> FileDescriptorSet {
    FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the descriptor set decodes")
}

/// Every RPC as `Service.Rpc`, `stream` before those that stream their answer.
fn rpcs() -> Vec<String> {
    let mut all = Vec::new();
    for service in files().file.into_iter().flat_map(|file| file.service) {
        for rpc in &service.method {
            assert!(!rpc.client_streaming(), "no RPC streams from the client: {}", rpc.name());
            let stream = if rpc.server_streaming() { "stream " } else { "" };
            all.push(format!("{stream}{}.{}", service.name(), rpc.name()));
        }
    }
    all.sort();
    all
}

#[test]
fn descriptors_list_every_rpc() {
    let expect = [
        "AdminService.ConfirmClock",
        "AdminService.Status",
        "AgentService.ApplyAgents",
        "AgentService.GetAgent",
        "AgentService.ListAgents",
        "AgentService.OffboardOwner",
        "AgentService.ReviewAgent",
        "AgentService.SetAgentStatus",
        "AuditService.Find",
        "AuditService.Trace",
        "AuditService.Verify",
        "IdentityService.WhoAmI",
        "LeaseService.GetLease",
        "LeaseService.ListGrants",
        "LeaseService.ListLeases",
        "LeaseService.Propose",
        "LeaseService.ReleaseLease",
        "LeaseService.RenewLease",
        "LeaseService.RequestLease",
        "RevocationService.GetRevocation",
        "RevocationService.LiftRevocation",
        "RevocationService.ListRevocations",
        "TargetService.CheckTarget",
        "TargetService.ListTargets",
        "TargetService.SetupTarget",
        "TargetService.SweepTarget",
        "TaskService.AbortTask",
        "TaskService.ChangeScope",
        "TaskService.CompleteTask",
        "TaskService.GetTask",
        "TaskService.Heartbeat",
        "TaskService.ListTasks",
        "TaskService.OpenTask",
        "stream AuditService.Export",
        "stream RevocationService.Revoke",
        "stream RevocationService.WatchRevocation",
        "stream TargetService.DrillTarget",
        "stream TaskService.WatchTask",
    ];
    assert_eq!(rpcs(), expect);
}

#[test]
fn descriptors_are_complete_and_hold_one_service_a_file() {
    let files = files();
    let names: Vec<&str> = files.file.iter().map(|file| file.name()).collect();
    for file in &files.file {
        assert!(file.dependency.iter().all(|needed| names.contains(&needed.as_str())), "{}", file.name());
        assert!(file.service.len() <= 1, "{} holds more than one service", file.name());
        assert!(file.source_code_info.is_none(), "{} carries comments", file.name());
    }
}

#[test]
fn every_enum_begins_with_unspecified() {
    let files = files();
    let ours = files.file.iter().filter(|file| file.package() == "leasehold.v1");
    let enums: Vec<_> = ours
        .flat_map(|file| {
            file.enum_type.iter().chain(file.message_type.iter().flat_map(|message| &message.enum_type))
        })
        .collect();
    assert!(enums.len() > 15, "the enums are found");
    for this in enums {
        let zero = this.value.iter().find(|value| value.number() == 0).expect("a zero value");
        assert!(zero.name().ends_with("_UNSPECIFIED"), "{}", this.name());
    }
}

#[test]
fn the_workload_api_keeps_its_name_without_a_package() {
    use tonic::server::NamedService;
    type Server = workload::spiffe_workload_api_server::SpiffeWorkloadApiServer<()>;
    assert_eq!(Server::NAME, "SpiffeWorkloadAPI");
}
