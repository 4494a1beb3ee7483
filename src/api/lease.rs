//! LeaseService: what may be asked, dry runs, request, renew, release, look.

use leasehold_law::cause::Cause;
use leasehold_law::lease::Lease;
use leasehold_proto::v1::{self, lease_service_server::LeaseService};
use tonic::{Request, Response, Status};

use super::layers::Receipt;
use super::task::next_page;
use super::{Api, asker, read, standing, write};
use crate::broker::{GrantOffer, LeaseFilter, Refused};

#[tonic::async_trait]
impl LeaseService for Api {
    async fn list_grants(
        &self,
        request: Request<v1::ListGrantsRequest>,
    ) -> Result<Response<v1::ListGrantsResponse>, Status> {
        let asker = asker(&request)?;
        let wire = request.into_inner();
        let size = read::page_size(wire.page_size)?;
        let offers = self.broker.offers(&asker).await?;
        let after =
            |offer: &&GrantOffer| wire.page_token.is_empty() || offer.pair.to_string() > wire.page_token;
        let wanted = |offer: &&GrantOffer| wire.target.is_empty() || offer.pair.target == wire.target;
        let page: Vec<_> = offers.iter().filter(after).filter(wanted).take(size).collect();
        let next_page_token = next_page(&page, size, |offer| offer.pair.to_string());
        let grants = page.into_iter().map(offer_view).collect();
        Ok(Response::new(v1::ListGrantsResponse { grants, next_page_token }))
    }

    async fn propose(
        &self,
        request: Request<v1::ProposeRequest>,
    ) -> Result<Response<v1::ProposeResponse>, Status> {
        let asker = asker(&request)?;
        let wire = request.into_inner();
        let pair = read::pair(&wire.intent, &wire.target)?;
        let (params, ttl) = (read::params(wire.params)?, read::ttl("ttl", wire.ttl)?);
        let task = read::parse_optional("task", &wire.task)?;
        let proposal = self.broker.propose(&asker, &pair, &params, ttl, task).await?;
        let decision = v1::Decision {
            would_mint: proposal.would_mint(),
            ttl: Some(write::span(proposal.ttl)),
            limited_by: write::limit(proposal.limited_by).into(),
            ..write::decision(&proposal.record)
        };
        Ok(Response::new(v1::ProposeResponse {
            decision: Some(decision),
            grade: write::grade(proposal.grade).into(),
            window: Some(write::span(proposal.window)),
        }))
    }

    async fn request_lease(
        &self,
        request: Request<v1::RequestLeaseRequest>,
    ) -> Result<Response<v1::RequestLeaseResponse>, Status> {
        let asker = asker(&request)?;
        let wanted = read::lease_request(request.into_inner())?;
        let granted = self.broker.request(&asker, wanted).await?;
        let lease = &granted.minted.lease;
        let mut response = Response::new(v1::RequestLeaseResponse {
            lease: Some(write::lease(lease)),
            credential: Some(write::credential(&granted.minted.credential)),
            limited_by: write::limit(granted.minted.lease.terms.limited_by).into(),
            grade: write::grade(lease.terms.grade).into(),
            window: Some(write::span(lease.terms.window)),
        });
        response.extensions_mut().insert(Receipt::new(granted.delivery));
        Ok(response)
    }

    async fn renew_lease(
        &self,
        request: Request<v1::RenewLeaseRequest>,
    ) -> Result<Response<v1::RenewLeaseResponse>, Status> {
        let asker = asker(&request)?;
        let wire = request.into_inner();
        let id = read::parse("lease", &wire.lease)?;
        let request = read::parse("request_id", &wire.request_id)?;
        let renewal = self.broker.renew(&asker, id, read::ttl("ttl", wire.ttl)?, &request).await?;
        Ok(Response::new(v1::RenewLeaseResponse {
            lease: Some(write::lease(&renewal.lease)),
            credential: None,
            limited_by: write::limit(renewal.limited_by).into(),
        }))
    }

    async fn release_lease(
        &self,
        request: Request<v1::ReleaseLeaseRequest>,
    ) -> Result<Response<v1::ReleaseLeaseResponse>, Status> {
        let asker = asker(&request)?;
        let wire = request.into_inner();
        let (id, wait) = (read::parse("lease", &wire.lease)?, read::wait(wire.wait)?);
        let settled = self.broker.end_own_lease(&asker, id, Cause::Released, wait).await?;
        let (leases, pending) = write::settled(&settled);
        Ok(Response::new(v1::ReleaseLeaseResponse { leases, pending }))
    }

    async fn get_lease(&self, request: Request<v1::GetLeaseRequest>) -> Result<Response<v1::Lease>, Status> {
        let own = standing(&request)?.own();
        let id = read::parse("lease", &request.into_inner().lease)?;
        Ok(Response::new(write::lease(&self.broker.lease(own.as_ref(), id).await?)))
    }

    async fn list_leases(
        &self,
        request: Request<v1::ListLeasesRequest>,
    ) -> Result<Response<v1::ListLeasesResponse>, Status> {
        let own = standing(&request)?.own();
        let wire = request.into_inner();
        let size = read::page_size(wire.page_size)?;
        let leases = self.broker.leases(own.as_ref(), lease_filter(&wire)?, size).await?;
        let next_page_token = next_page(&leases, size, |lease| lease.terms.id.to_string());
        let leases = leases.iter().filter(|lease| wanted_lease(&wire, lease)).map(write::lease).collect();
        Ok(Response::new(v1::ListLeasesResponse { leases, next_page_token }))
    }
}

fn lease_filter(wire: &v1::ListLeasesRequest) -> Result<LeaseFilter, Refused> {
    Ok(LeaseFilter {
        person: None,
        after: None,
        id: None,
        agent: read::parse_optional("agent", &wire.agent)?,
        task: read::parse_optional("task", &wire.task)?,
        target: (!wire.target.is_empty()).then(|| wire.target.clone()),
        intent: (!wire.intent.is_empty()).then(|| wire.intent.clone()),
        reference: None,
        live: wire.live,
        stuck: wire.stuck,
        tried_after: None,
        expired: None,
        since: read::moment(wire.created_after),
        before: read::parse_optional("page_token", &wire.page_token)?,
    })
}

/// What the store's filter does not say; a page may hold fewer rows than asked for (AIP-158).
fn wanted_lease(wire: &v1::ListLeasesRequest, lease: &Lease) -> bool {
    let state = i32::from(write::lease_state(&lease.state));
    let alive_then = |at| {
        let ended = write::lease(lease).ended_at;
        lease.terms.created_at <= at && read::moment(ended).is_none_or(|ended| ended > at)
    };
    (wire.states.is_empty() || wire.states.contains(&state))
        && read::moment(wire.alive_at).is_none_or(alive_then)
}

fn offer_view(offer: &GrantOffer) -> v1::Grant {
    v1::Grant {
        intent: offer.pair.intent.clone(),
        target: offer.pair.target.clone(),
        class: write::class(offer.class).into(),
        params: offer.params.iter().map(|(name, spec)| write::param_spec(name, spec)).collect(),
        ttl_default: Some(write::span(offer.ttl.default)),
        ttl_max: Some(write::span(offer.ttl.max)),
        life: Some(write::span(offer.ttl.life)),
        outcome: write::answer(offer.answer).into(),
        grade: write::grade(offer.grade).into(),
        window: Some(write::span(offer.window)),
    }
}
