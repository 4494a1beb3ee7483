//! Clients of a broker, what they ask, and how its answers are read.

use std::sync::atomic::{AtomicI64, Ordering};

use leasehold_proto::v1;
use leasehold_proto::v1::admin_service_client::AdminServiceClient;
use leasehold_proto::v1::agent_service_client::AgentServiceClient;
use leasehold_proto::v1::audit_service_client::AuditServiceClient;
use leasehold_proto::v1::identity_service_client::IdentityServiceClient;
use leasehold_proto::v1::lease_service_client::LeaseServiceClient;
use leasehold_proto::v1::revocation_service_client::RevocationServiceClient;
use leasehold_proto::v1::target_service_client::TargetServiceClient;
use leasehold_proto::v1::task_service_client::TaskServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::eventually;

/// Every service over one channel.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) tasks: TaskServiceClient<Channel>,
    pub(crate) leases: LeaseServiceClient<Channel>,
    pub(crate) identity: IdentityServiceClient<Channel>,
    pub(crate) revocations: RevocationServiceClient<Channel>,
    pub(crate) audit: AuditServiceClient<Channel>,
    pub(crate) targets: TargetServiceClient<Channel>,
    pub(crate) admin: AdminServiceClient<Channel>,
    pub(crate) agents: AgentServiceClient<Channel>,
    pub(crate) channel: Channel,
}

impl Client {
    pub(crate) fn new(channel: Channel) -> Self {
        Self {
            tasks: TaskServiceClient::new(channel.clone()),
            leases: LeaseServiceClient::new(channel.clone()),
            identity: IdentityServiceClient::new(channel.clone()),
            revocations: RevocationServiceClient::new(channel.clone()),
            audit: AuditServiceClient::new(channel.clone()),
            targets: TargetServiceClient::new(channel.clone()),
            admin: AdminServiceClient::new(channel.clone()),
            agents: AgentServiceClient::new(channel.clone()),
            channel,
        }
    }

    /// Opens a task over these pairs.
    pub(crate) async fn open(&mut self, pairs: &[&str]) -> Result<v1::Task, Status> {
        self.open_as(open_request(pairs)).await
    }

    /// Opens a task.
    pub(crate) async fn open_as(&mut self, request: v1::OpenTaskRequest) -> Result<v1::Task, Status> {
        Ok(self.tasks.open_task(request).await?.into_inner().task.unwrap())
    }

    /// Requests a lease.
    pub(crate) async fn lease(
        &mut self,
        task: &v1::Task,
        pair: &str,
    ) -> Result<v1::RequestLeaseResponse, Status> {
        Ok(self.leases.request_lease(lease_request(task, pair)).await?.into_inner())
    }

    /// Gives a lease back and waits until it is dead.
    pub(crate) async fn release(&mut self, lease: &str) -> Result<v1::ReleaseLeaseResponse, Status> {
        let request = v1::ReleaseLeaseRequest { lease: lease.to_owned(), wait: seconds(20) };
        Ok(self.leases.release_lease(request).await?.into_inner())
    }

    /// Renews a lease for so many seconds.
    pub(crate) async fn renew(&mut self, lease: &str, ttl: i64) -> Result<v1::RenewLeaseResponse, Status> {
        let request =
            v1::RenewLeaseRequest { lease: lease.to_owned(), ttl: seconds(ttl), request_id: fresh_id() };
        Ok(self.leases.renew_lease(request).await?.into_inner())
    }

    /// Changes the scope of a task, and waits until what no longer fits is dead.
    pub(crate) async fn change(
        &mut self,
        task: &v1::Task,
        scope: Vec<v1::ScopePair>,
    ) -> Result<v1::ChangeScopeResponse, Status> {
        let request = v1::ChangeScopeRequest { task: task.id.clone(), scope, wait: seconds(20) };
        Ok(self.tasks.change_scope(request).await?.into_inner())
    }

    /// A task as it stands.
    pub(crate) async fn task(&mut self, task: &v1::Task) -> v1::Task {
        let request = v1::GetTaskRequest { task: task.id.clone() };
        self.tasks.get_task(request).await.unwrap().into_inner()
    }

    /// Waits until a lease is in a state.
    pub(crate) async fn until_lease(&self, lease: &str, state: v1::LeaseState) -> v1::Lease {
        let mut client = self.clone();
        eventually(&format!("{lease} is {state:?}"), || {
            let mut client = client.clone();
            async move { client.look(lease).await.state() == state }
        })
        .await;
        client.look(lease).await
    }

    /// Waits until a task is in a state.
    pub(crate) async fn until_task(&self, task: &v1::Task, state: v1::TaskState) -> v1::Task {
        let mut client = self.clone();
        eventually(&format!("{} is {state:?}", task.id), || {
            let mut client = client.clone();
            async move { client.task(task).await.state() == state }
        })
        .await;
        client.task(task).await
    }

    /// Waits until the session of the person behind a task is good until then.
    pub(crate) async fn until_session(&self, task: &v1::Task, until: i64) {
        eventually(&format!("the session of {} ends at {until}", task.id), || {
            let mut client = self.clone();
            async move { client.task(task).await.session_until.is_some_and(|at| at.seconds == until) }
        })
        .await;
    }

    /// A lease as it stands.
    pub(crate) async fn look(&mut self, lease: &str) -> v1::Lease {
        self.leases.get_lease(v1::GetLeaseRequest { lease: lease.to_owned() }).await.unwrap().into_inner()
    }

    /// Completes a task and waits until its leases are dead.
    pub(crate) async fn complete(&mut self, task: &v1::Task) -> Result<v1::CompleteTaskResponse, Status> {
        let request = v1::CompleteTaskRequest { task: task.id.clone(), wait: seconds(20) };
        Ok(self.tasks.complete_task(request).await?.into_inner())
    }
}

/// A request id that no other has.
pub(crate) fn fresh_id() -> String {
    static NEXT: AtomicI64 = AtomicI64::new(0);
    format!("r-{}", NEXT.fetch_add(1, Ordering::SeqCst))
}

pub(crate) fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

pub(crate) fn scope(pairs: &[&str]) -> Vec<v1::ScopePair> {
    let pair = |text: &&str| {
        let (intent, target) = text.split_once('@').unwrap();
        v1::ScopePair { intent: intent.into(), target: target.into(), ..v1::ScopePair::default() }
    };
    pairs.iter().map(pair).collect()
}

pub(crate) fn open_request(pairs: &[&str]) -> v1::OpenTaskRequest {
    v1::OpenTaskRequest {
        request_id: fresh_id(),
        purpose: "a test".into(),
        scope: scope(pairs),
        liveness: by_deadline(),
        ..v1::OpenTaskRequest::default()
    }
}

pub(crate) fn lease_request(task: &v1::Task, pair: &str) -> v1::RequestLeaseRequest {
    let (intent, target) = pair.split_once('@').unwrap();
    v1::RequestLeaseRequest {
        task: task.id.clone(),
        intent: intent.into(),
        target: target.into(),
        request_id: fresh_id(),
        attempt: 1,
        ..v1::RequestLeaseRequest::default()
    }
}

/// Held by its deadline alone: moving time loses no such task.
pub(crate) fn by_deadline() -> Option<v1::Liveness> {
    Some(v1::Liveness { kind: Some(v1::liveness::Kind::Deadline(v1::liveness::Deadline {})) })
}

/// Held by heartbeats.
pub(crate) fn by_heartbeat(grace: i64) -> Option<v1::Liveness> {
    let heartbeat = v1::liveness::Heartbeat { grace: seconds(grace) };
    Some(v1::Liveness { kind: Some(v1::liveness::Kind::Heartbeat(heartbeat)) })
}

/// Name and password of a credential.
pub(crate) fn login(granted: &v1::RequestLeaseResponse) -> (String, Vec<u8>) {
    let credential = granted.credential.as_ref().unwrap();
    (credential.public["user"].clone(), credential.secret["password"].clone())
}

/// The moment on the wire, in milliseconds.
pub(crate) fn millis(at: Option<prost_types::Timestamp>) -> i64 {
    let at = at.expect("a moment");
    at.seconds * 1000 + i64::from(at.nanos) / 1_000_000
}

/// What a refusal says, in metadata.
pub(crate) fn detail(status: &Status, key: &str) -> String {
    let info = status.get_details_error_info();
    info.and_then(|info| info.metadata.get(key).cloned()).unwrap_or_default()
}

/// Code and reason of a call that must be refused.
pub(crate) fn refused<T>(answer: Result<T, Status>) -> (Code, String) {
    match answer {
        Ok(_) => panic!("it should have been refused"),
        Err(status) => (status.code(), reason(&status)),
    }
}

/// The reason's word in a refusal.
pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_else(|| format!("{status:?}"))
}
