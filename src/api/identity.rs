//! IdentityService: who the caller is, as the broker sees it.

use leasehold_law::caller::CallerId;
use leasehold_law::registry::{Claim, Who};
use leasehold_proto::v1::{self, identity_service_server::IdentityService};
use tonic::{Request, Response, Status};

use super::agent::{drift_view, lowered};
use super::{Api, identified, write};
use crate::config::Role;
use crate::identity::{Caller, Door};

#[tonic::async_trait]
impl IdentityService for Api {
    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let caller = identified(&request)?.caller.clone();
        Ok(Response::new(self.describe(&caller).await?))
    }
}

impl Api {
    async fn describe(&self, caller: &Caller) -> Result<v1::WhoAmIResponse, Status> {
        let registry = self.broker.registry();
        let now = self.broker.now();
        let agent = registry.agent(caller.id(), now, Claim::Unasked);
        let agent = agent.as_ref();
        let drift = registry.registration(&Who::One(caller.id().clone())).map(|view| view.drift);
        let barrier = self.broker.barrier_over(caller.id()).await?;
        let reading = self.broker.clock().read();
        Ok(v1::WhoAmIResponse {
            id: caller.id().to_string(),
            kind: kind(caller.id()).into(),
            door: door(caller.door()).into(),
            svid_expires_at: caller.not_after().map(write::moment),
            registered: agent.is_some(),
            owner: agent.map(|agent| agent.owner.to_string()).unwrap_or_default(),
            groups: agent.map(|agent| agent.groups.iter().cloned().collect()).unwrap_or_default(),
            autonomy: agent.map(|agent| agent.autonomy.name().to_owned()).unwrap_or_default(),
            frozen: barrier.as_ref().map(write::freeze),
            broker: self.broker.name().to_owned(),
            server_time: Some(write::moment(reading.now)),
            clock_offset: Some(write::span(reading.behind)),
            roles: self.roles(caller),
            status: agent.map(|agent| agent.standing.status.name().to_owned()).unwrap_or_default(),
            lowered: agent.map(|agent| lowered(&agent.standing)).unwrap_or_default(),
            drift: drift.unwrap_or_default().iter().map(drift_view).collect(),
        })
    }

    fn roles(&self, caller: &Caller) -> Vec<i32> {
        self.operators.roles(caller).into_iter().map(|role| role_view(role).into()).collect()
    }
}

fn kind(id: &CallerId) -> v1::CallerKind {
    match id {
        CallerId::Agent(_) => v1::CallerKind::Workload,
        CallerId::LocalUser(_) => v1::CallerKind::UnixUser,
        CallerId::CiJob(_) => v1::CallerKind::CiJob,
        CallerId::KubeAccount(_) => v1::CallerKind::KubeAccount,
        CallerId::PersonalAgent(_) => v1::CallerKind::PersonalAgent,
        CallerId::Person(_) => v1::CallerKind::Person,
        // No connection ever proves it.
        CallerId::Drill => v1::CallerKind::Unspecified,
    }
}

fn door(door: Door) -> v1::Door {
    match door {
        Door::Agents => v1::Door::Agents,
        Door::Admin => v1::Door::Admin,
    }
}

fn role_view(role: Role) -> v1::OperatorRole {
    match role {
        Role::Viewer => v1::OperatorRole::Viewer,
        Role::Revoker => v1::OperatorRole::Revoker,
        Role::Auditor => v1::OperatorRole::Auditor,
        Role::Admin => v1::OperatorRole::Admin,
    }
}
