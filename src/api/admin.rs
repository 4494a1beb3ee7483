//! AdminService: the operator's one screen, and the clock.

use leasehold_proto::v1::{self, admin_service_server::AdminService};
use tonic::{Request, Response, Status};

use super::{Api, read, standing, target, write};
use crate::broker::Aside;
use crate::clock::Reading;
use crate::identity::Standing;

#[tonic::async_trait]
impl AdminService for Api {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let status = self.broker.status().await?;
        let standing = self.identity.standing();
        let identity_needs = standing.need(status.clock.now);
        Ok(Response::new(v1::StatusResponse {
            live: status.counts.live,
            due: status.targets.iter().flat_map(|target| target.due.values()).sum(),
            stuck: status.counts.stuck,
            frozen: u64::try_from(status.frozen).unwrap_or(u64::MAX),
            targets: status.targets.iter().map(|one| target::view(&self.broker, one)).collect(),
            open_tasks: status.counts.open_tasks,
            journal: Some(v1::JournalStatus {
                chain: status.head.chain.as_str().to_owned(),
                seq: status.head.seq,
                healthy: status.journal_error.is_none(),
                error: status.journal_error.unwrap_or_default(),
            }),
            clock: Some(clock_view(status.clock)),
            uptime: Some(write::span(status.uptime)),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            needs_person: status.needs_person.into_iter().chain(identity_needs).collect(),
            set_aside: status.asides.iter().map(set_aside).collect(),
            broker: self.broker.name().to_owned(),
            identity: Some(identity_view(standing)),
            drifting: status.drifting,
            lowered_agents: status.lowered_agents,
        }))
    }

    async fn confirm_clock(
        &self,
        request: Request<v1::ConfirmClockRequest>,
    ) -> Result<Response<v1::ConfirmClockResponse>, Status> {
        let by = standing(&request)?.id().to_string();
        let reason = read::reason(request.into_inner().reason)?;
        let reading = self.broker.confirm_clock(&by, &reason).await?;
        Ok(Response::new(v1::ConfirmClockResponse { clock: Some(clock_view(reading)) }))
    }
}

fn set_aside(aside: &Aside) -> v1::SetAside {
    let row = &aside.row;
    v1::SetAside {
        kind: row.kind.name().to_owned(),
        id: row.id.clone(),
        target: row.target.clone(),
        principal: row.principal.clone(),
        why: row.error.clone(),
        at: Some(write::moment(aside.at)),
        alive: aside.due.is_some(),
        tries: aside.tries,
        last_error: aside.last_error.clone().unwrap_or_default(),
    }
}

fn identity_view(standing: Standing) -> v1::IdentityStatus {
    v1::IdentityStatus {
        id: standing.id,
        not_after: standing.not_after.map(write::moment),
        error: standing.trouble.map(|(trouble, _)| trouble.to_string()).unwrap_or_default(),
        since: standing.trouble.map(|(_, since)| write::moment(since)),
        trust_domains: standing.trust_domains,
    }
}

fn clock_view(reading: Reading) -> v1::ClockStatus {
    let ok = reading.may_issue();
    v1::ClockStatus {
        ok,
        offset: Some(write::span(reading.behind)),
        reason: if ok { String::new() } else { "the wall clock stepped back; nothing is issued".to_owned() },
        now: Some(write::moment(reading.now)),
    }
}
