//! AgentService: the registry of agents, read and changed.

use leasehold_law::reason::Reason;
use leasehold_law::registry::{Act, Drift, Source, Standing, Status as Stands, View, Who};
use leasehold_law::request::MAX_REASON_BYTES;
use leasehold_law::words::count;
use leasehold_proto::v1::{self, agent_service_server::AgentService};
use tonic::{Request, Response, Status};

use super::task::next_page;
use super::{Api, read, standing, write};
use crate::broker::{FieldFault, Order, Refused, Reregistered, Whose};
use crate::config::{Ground, Problem, read_agents};
use crate::registry::Registry;

/// The longest name of a file, in bytes.
const MAX_FILE_BYTES: usize = 256;
/// The longest file, in bytes.
const MAX_TEXT_BYTES: usize = 192 * 1024;
/// So many bytes of problems of a file are told, which are twice as many in the headers that they travel in.
const MOST_TOLD: usize = 6 * 1024;
/// And so many characters of one: names in it are as long as their writer likes.
const MOST_OF_ONE: usize = 400;

#[tonic::async_trait]
impl AgentService for Api {
    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let whose = standing(&request)?.whose();
        let wire = request.into_inner();
        let size = read::page_size(wire.page_size)?;
        let status = status_filter(wire.status)?;
        let owner = read::parse_optional("owner", &wire.owner)?;
        let registry = self.broker.fresh_registry().await?;
        let mut views = registry.registrations();
        views.retain(|view| status.is_none_or(|status| view.standing.status == status));
        views.retain(|view| whose.holds(&view.terms.owner));
        views.retain(|view| owner.as_ref().is_none_or(|owner| view.terms.owner == *owner));
        let key = |view: &View| (matches!(view.who, Who::Each(_)), view.who.to_string());
        views.sort_by_cached_key(key);
        let after = match wire.page_token.as_str() {
            "" => None,
            token => Some((token.ends_with('*'), token.to_owned())),
        };
        let page: Vec<_> = views.into_iter().filter(|view| after < Some(key(view))).take(size).collect();
        let next_page_token = next_page(&page, size, |view| view.who.to_string());
        let agents = page.into_iter().map(|view| self.registered(&registry, view)).collect();
        Ok(Response::new(v1::ListAgentsResponse { agents, next_page_token }))
    }

    async fn get_agent(
        &self,
        request: Request<v1::GetAgentRequest>,
    ) -> Result<Response<v1::RegisteredAgent>, Status> {
        let whose = standing(&request)?.whose();
        let who: Who = read::parse("agent", &request.into_inner().agent)?;
        let found = self.broker.registration(&whose, &who).await;
        let view = found.map_err(|refused| to_owners(refused, &whose))?;
        Ok(Response::new(self.registered(&self.broker.registry(), view)))
    }

    async fn apply_agents(
        &self,
        request: Request<v1::ApplyAgentsRequest>,
    ) -> Result<Response<v1::ChangeAgentsResponse>, Status> {
        let by = standing(&request)?.id().clone();
        let wire = request.into_inner();
        let file = read::text("file", wire.file, MAX_FILE_BYTES)?;
        let file = if file.is_empty() { "agents.toml".to_owned() } else { file };
        if wire.text.len() > MAX_TEXT_BYTES {
            return Err(Refused::field("text", format!("takes at most {MAX_TEXT_BYTES} bytes")).into());
        }
        let reason = read::text("reason", wire.reason, MAX_REASON_BYTES)?;
        let registry = self.broker.fresh_registry().await?;
        let ground = Ground {
            catalog: registry.catalog(),
            book: registry.book(),
            trust_domain: registry.domain(),
            federated: registry.federated(),
        };
        let agents = read_agents(&file, &wire.text, &ground).map_err(|problems| unfit(&problems))?;
        let order = Order { by, reason };
        let done = self.broker.apply_agents(&registry, order, agents, wire.dry_run).await?;
        Ok(Response::new(changes(&done)))
    }

    async fn set_agent_status(
        &self,
        request: Request<v1::SetAgentStatusRequest>,
    ) -> Result<Response<v1::ChangeAgentsResponse>, Status> {
        let by = standing(&request)?.id().clone();
        let wire = request.into_inner();
        let who: Who = read::parse("agent", &wire.agent)?;
        let status = status_filter(wire.status)?
            .ok_or_else(|| Refused::field("status", "say active, retired, suspended or quarantined"))?;
        let order = Order { by, reason: read::reason(wire.reason)? };
        let done = self.broker.set_agent_status(order, &who, status).await?;
        Ok(Response::new(changes(&done)))
    }

    async fn review_agent(
        &self,
        request: Request<v1::ReviewAgentRequest>,
    ) -> Result<Response<v1::ChangeAgentsResponse>, Status> {
        let standing = standing(&request)?;
        let (by, whose) = (standing.id().clone(), standing.whose());
        let wire = request.into_inner();
        let who: Who = read::parse("agent", &wire.agent)?;
        let manifest = read::parse_optional("manifest", &wire.manifest)?;
        let order = Order { by, reason: read::text("reason", wire.reason, MAX_REASON_BYTES)? };
        let done = self.broker.review_agent(order, &whose, &who, manifest).await;
        let done = done.map_err(|refused| to_owners(refused, &whose))?;
        Ok(Response::new(changes(&done)))
    }

    async fn offboard_owner(
        &self,
        request: Request<v1::OffboardOwnerRequest>,
    ) -> Result<Response<v1::ChangeAgentsResponse>, Status> {
        let by = standing(&request)?.id().clone();
        let wire = request.into_inner();
        let owner = read::parse("owner", &wire.owner)?;
        let order = Order { by, reason: read::reason(wire.reason)? };
        let done = self.broker.offboard_owner(order, &owner).await?;
        Ok(Response::new(changes(&done)))
    }
}

impl Api {
    fn registered(&self, registry: &Registry, view: View) -> v1::RegisteredAgent {
        let rules = &registry.catalog().rules;
        let View { who, source, terms, standing, drift } = view;
        let ruling = standing.ruling.as_ref();
        let pattern = match &source {
            Source::Pattern(pattern) => pattern.to_string(),
            Source::Config | Source::Applied => String::new(),
        };
        let due =
            rules.review_every.map(|every| standing.reviewed.map_or(self.broker.now(), |at| at + every));
        v1::RegisteredAgent {
            id: who.to_string(),
            source: source_view(&source).into(),
            pattern,
            owner: terms.owner.to_string(),
            groups: terms.groups.into_iter().collect(),
            autonomy: terms.autonomy.name().to_owned(),
            purpose: terms.purpose,
            status: status_view(standing.status).into(),
            status_by: ruling.map(|ruling| ruling.by.clone()).unwrap_or_default(),
            status_reason: ruling.map(|ruling| ruling.reason.clone()).unwrap_or_default(),
            status_at: ruling.map(|ruling| write::moment(ruling.at)),
            reviewed_at: standing.reviewed.map(write::moment),
            review_due: due.map(write::moment),
            manifest: standing.manifest.map(|digest| digest.to_string()).unwrap_or_default(),
            drift: drift.iter().map(drift_view).collect(),
            lowered: lowered(&standing.lowered_by(rules, self.broker.now())),
        }
    }
}

/// What owners are told of an agent that is not theirs or nobody's: the same words for both (law 6).
fn to_owners(refused: Refused, whose: &Whose) -> Refused {
    if *whose == Whose::Everybody || refused.reason != Reason::NotFound {
        return refused;
    }
    refused.why("you are here as an owner of agents, and an owner sees their own").next(
        "leasehold agents list names yours, leasehold whoami says who you are; of any other, its owner is told after a \
         leasehold login of theirs, and an operator with the role viewer",
    )
}

/// What lowers an agent, in words.
pub(super) fn lowered(standing: &Standing) -> Vec<String> {
    standing.lowered.iter().map(|one| format!("{}: {}", one.to.name(), one.by)).collect()
}

pub(super) fn drift_view(drift: &Drift) -> v1::AgentDrift {
    v1::AgentDrift {
        claimed: drift.claimed.map(|digest| digest.to_string()).unwrap_or_default(),
        task: drift.task.to_string(),
        at: Some(write::moment(drift.at)),
    }
}

fn source_view(source: &Source) -> v1::AgentSource {
    match source {
        Source::Config => v1::AgentSource::Config,
        Source::Applied => v1::AgentSource::Applied,
        Source::Pattern(_) => v1::AgentSource::Pattern,
    }
}

fn status_view(status: Stands) -> v1::AgentStatus {
    match status {
        Stands::Active => v1::AgentStatus::Active,
        Stands::Retired => v1::AgentStatus::Retired,
        Stands::Suspended => v1::AgentStatus::Suspended,
        Stands::Quarantined => v1::AgentStatus::Quarantined,
    }
}

fn status_filter(wire: i32) -> Result<Option<Stands>, Refused> {
    match v1::AgentStatus::try_from(wire) {
        Ok(v1::AgentStatus::Unspecified) => Ok(None),
        Ok(v1::AgentStatus::Active) => Ok(Some(Stands::Active)),
        Ok(v1::AgentStatus::Retired) => Ok(Some(Stands::Retired)),
        Ok(v1::AgentStatus::Suspended) => Ok(Some(Stands::Suspended)),
        Ok(v1::AgentStatus::Quarantined) => Ok(Some(Stands::Quarantined)),
        Err(_) => Err(Refused::field("status", format!("{wire} is no status"))),
    }
}

/// Every problem of a file, each with its line: as many as an answer's headers have room for.
fn unfit(problems: &[Problem]) -> Refused {
    let mut room = MOST_TOLD;
    let lines =
        problems.iter().map(|problem| problem.to_string().chars().take(MOST_OF_ONE).collect::<String>());
    let told: Vec<_> = lines.take_while(|line| take_room(&mut room, line.len())).collect();
    let what = match (told.as_slice(), problems.len()) {
        ([one], 1) => one.clone(),
        (told, all) if told.len() == all => {
            format!("{} in that file, and nothing was applied", count(all, "problem"))
        }
        (told, all) => {
            let all = count(all, "problem");
            format!("{all} in that file, of which {} are told here, and nothing was applied", told.len())
        }
    };
    let fault = |what| FieldFault { field: "text".to_owned(), what };
    Refused { what, ..Refused::fields(told.into_iter().map(fault).collect()) }
}

/// Whether there is room for so much, which is then taken.
fn take_room(room: &mut usize, length: usize) -> bool {
    let left = room.checked_sub(length);
    *room = left.unwrap_or(0);
    left.is_some()
}

fn changes(done: &Reregistered) -> v1::ChangeAgentsResponse {
    let change = |(who, act): &(Who, Option<Act>)| v1::AgentChange {
        agent: who.to_string(),
        change: act.map(|act| act.kind().trim_start_matches("agent.").to_owned()).unwrap_or_default(),
    };
    v1::ChangeAgentsResponse {
        changes: done.agents.iter().map(change).collect(),
        leases_ended: u64::try_from(done.ended).unwrap_or(u64::MAX),
    }
}
