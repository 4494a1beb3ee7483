//! RevocationService: stop things, see it through, lift a barrier.

use leasehold_law::revocation::Revocation;
use leasehold_law::time::Span;
use leasehold_proto::v1::{self, revocation_service_server::RevocationService};
use tonic::{Request, Response, Status};

use super::follow::{self, OUTCOMES, ProgressStream};
use super::task::next_page;
use super::{Api, read, standing, write};
use crate::broker::{RevokeCommand, Settled};

#[tonic::async_trait]
impl RevocationService for Api {
    type RevokeStream = ProgressStream;

    async fn revoke(
        &self,
        request: Request<v1::RevokeRequest>,
    ) -> Result<Response<Self::RevokeStream>, Status> {
        let by = standing(&request)?.id().clone();
        let wire = request.into_inner();
        let command = RevokeCommand {
            selector: read::selector(wire.selector, |name| self.broker.person(name))?,
            freeze: wire.freeze,
            reason: read::reason(wire.reason)?,
            by,
        };
        let wait = read::wait(wire.wait)?;
        if wire.dry_run {
            let plan = self.plan(&command).await?;
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(plan)))));
        }
        let revocation = self.broker.revoke(command).await?;
        Ok(Response::new(follow::revocation(self.broker.clone(), revocation, Some(wait))))
    }

    async fn get_revocation(
        &self,
        request: Request<v1::GetRevocationRequest>,
    ) -> Result<Response<v1::Revocation>, Status> {
        let id = read::parse("revocation", &request.into_inner().revocation)?;
        let revocation = self.broker.revocation(id).await?;
        Ok(Response::new(self.view(&revocation).await?))
    }

    async fn list_revocations(
        &self,
        request: Request<v1::ListRevocationsRequest>,
    ) -> Result<Response<v1::ListRevocationsResponse>, Status> {
        let wire = request.into_inner();
        let size = read::page_size(wire.page_size)?;
        let before = read::parse_optional("page_token", &wire.page_token)?;
        let page = self.broker.revocations(wire.frozen, before, size).await?;
        let next_page_token = next_page(&page, size, |revocation| revocation.id.to_string());
        let mut revocations = Vec::new();
        for revocation in &page {
            let view = self.view(revocation).await?;
            let pending = view.counts.as_ref().is_some_and(|counts| counts.pending > 0);
            if pending || !revocation.complete || !wire.pending {
                revocations.push(v1::Revocation { outcomes: Vec::new(), ..view });
            }
        }
        Ok(Response::new(v1::ListRevocationsResponse { revocations, next_page_token }))
    }

    type WatchRevocationStream = ProgressStream;

    async fn watch_revocation(
        &self,
        request: Request<v1::WatchRevocationRequest>,
    ) -> Result<Response<Self::WatchRevocationStream>, Status> {
        let id = read::parse("revocation", &request.into_inner().revocation)?;
        let revocation = self.broker.revocation(id).await?;
        Ok(Response::new(follow::revocation(self.broker.clone(), revocation, None)))
    }

    async fn lift_revocation(
        &self,
        request: Request<v1::LiftRevocationRequest>,
    ) -> Result<Response<v1::Revocation>, Status> {
        let by = standing(&request)?.id().clone();
        let wire = request.into_inner();
        let id = read::parse("revocation", &wire.revocation)?;
        let revocation = self.broker.lift(id, by, read::reason(wire.reason)?).await?;
        Ok(Response::new(self.view(&revocation).await?))
    }
}

impl Api {
    async fn view(&self, revocation: &Revocation) -> Result<v1::Revocation, Status> {
        let settled = self.broker.settled(&revocation.leases, Span::ZERO).await?;
        let mut view = write::revocation(revocation, &settled);
        view.outcomes.truncate(OUTCOMES);
        Ok(view)
    }

    /// What would be stopped: the id is empty, since nothing was done.
    async fn plan(&self, command: &RevokeCommand) -> Result<v1::RevocationProgress, Status> {
        let plan = self.broker.plan_revocation(command).await?;
        let total = u32::try_from(plan.total).unwrap_or(u32::MAX);
        let settled = Settled { leases: plan.leases, ..Settled::default() };
        let at = self.broker.now();
        let revocation = Revocation {
            id: leasehold_law::id::RevocationId::derive(at, 0),
            selector: command.selector.clone(),
            by: command.by.clone(),
            reason: command.reason.clone(),
            at,
            freeze: plan.freeze,
            lifted: None,
            leases: Vec::new(),
            tasks: plan.tasks,
            complete: false,
        };
        let view = write::revocation(&revocation, &settled);
        let counts = view.counts.map(|counts| v1::RevocationCounts { total, pending: total, ..counts });
        let unknown_agent = plan.unknown_agent.map(|nearest| v1::UnknownAgent { nearest });
        let view = v1::Revocation { id: String::new(), counts, unknown_agent, ..view };
        Ok(v1::RevocationProgress { revocation: Some(view), pending: Vec::new(), done: true })
    }
}
