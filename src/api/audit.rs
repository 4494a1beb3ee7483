//! AuditService: trace, find, export, verify.

use std::pin::Pin;

use leasehold_law::caller::{CallerId, Vouched};
use leasehold_law::catalog::Owner;
use leasehold_law::journal::{Body, Entry, Line, verify};
use leasehold_law::lease::Lease;
use leasehold_law::task::Task;
use leasehold_proto::v1::{self, audit_service_server::AuditService};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Api, read, write};
use crate::broker::{Broker, Hit, Part, Refused};

/// The longest text to find, in bytes.
const MAX_TEXT_BYTES: usize = 256;
/// How many may have been on the pages before: each page reads them again.
const MAX_SKIPPED: usize = 100_000;
/// How many entries go out at a time.
const PAGE: usize = 256;

#[tonic::async_trait]
impl AuditService for Api {
    async fn trace(&self, request: Request<v1::TraceRequest>) -> Result<Response<v1::TraceResponse>, Status> {
        use v1::trace_request::Subject;
        let wire = request.into_inner();
        let size = read::page_size(wire.page_size)?;
        let part = Part { skip: skipped(&wire.page_token)?, take: size };
        let story = match wire.subject {
            Some(Subject::Task(id)) => self.broker.trace_task(read::parse("task", &id)?, part).await?,
            Some(Subject::Lease(id)) => self.broker.trace_lease(read::parse("lease", &id)?, part).await?,
            Some(Subject::Decision(id)) => {
                self.broker.trace_decision(read::parse("decision", &id)?, part).await?
            }
            Some(Subject::Last(_)) => self.broker.trace_last(part).await?,
            None => return Err(Refused::field("subject", "say what to trace").into()),
        };
        let chain = self.broker.journal_head().await?.chain;
        let next_page_token = if story.more { next_token(part) } else { String::new() };
        let entries = story.entries.iter().map(|entry| entry_view(chain.as_str(), entry)).collect();
        Ok(Response::new(v1::TraceResponse { entries, next_page_token, cut: story.cut }))
    }

    async fn find(&self, request: Request<v1::FindRequest>) -> Result<Response<v1::FindResponse>, Status> {
        let wire = request.into_inner();
        let text = read::text("text", wire.text, MAX_TEXT_BYTES)?;
        if text.trim().is_empty() {
            return Err(Refused::field("text", "say what to find").into());
        }
        let part = Part { skip: skipped(&wire.page_token)?, take: read::page_size(wire.page_size)? };
        let end = part.skip.saturating_add(part.take);
        let found = self.broker.find(text.trim(), end.saturating_add(1)).await?;
        let mut hits = Vec::new();
        for hit in found.iter().skip(part.skip).take(part.take) {
            hits.push(self.hit_view(hit).await?);
        }
        let next_page_token = if found.len() > end { next_token(part) } else { String::new() };
        Ok(Response::new(v1::FindResponse { hits, next_page_token }))
    }

    type ExportStream = Pin<Box<dyn Stream<Item = Result<v1::ExportResponse, Status>> + Send>>;

    async fn export(
        &self,
        request: Request<v1::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let range = self.range(request.into_inner()).await?;
        let (out, stream) = mpsc::channel(4);
        let broker = self.broker.clone();
        tokio::spawn(async move {
            if let Err(refused) = export(&broker, range, &out).await {
                // The client may be gone; then nobody is left to tell.
                let _ = out.send(Err(refused.into())).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> Result<Response<v1::VerifyResponse>, Status> {
        let wire = request.into_inner();
        let wanted =
            v1::ExportRequest { chain: wire.chain, first_seq: wire.first_seq, last_seq: wire.last_seq };
        let range = self.range(wanted).await?;
        Ok(Response::new(verify_range(&self.broker, range).await?))
    }
}

/// How many were on the pages before: of several chains no number of an entry says where a page ended.
fn skipped(token: &str) -> Result<usize, Refused> {
    let skipped = read::parse_optional("page_token", token)?.unwrap_or(0);
    if skipped > MAX_SKIPPED {
        return Err(Refused::field("page_token", "it was not given by a page before"));
    }
    Ok(skipped)
}

fn next_token(part: Part) -> String {
    part.skip.saturating_add(part.take).to_string()
}

/// Entries from `first` to `last`, both included.
#[derive(Clone)]
struct Range {
    chain: leasehold_law::journal::ChainId,
    first: u64,
    last: u64,
}

impl Api {
    async fn range(&self, wire: v1::ExportRequest) -> Result<Range, Refused> {
        let head = self.broker.journal_head().await?;
        if !wire.chain.is_empty() && wire.chain != head.chain.as_str() {
            return Err(Refused::field("chain", format!("this broker writes `{}`", head.chain.as_str())));
        }
        let last = if wire.last_seq == 0 { head.seq } else { wire.last_seq.min(head.seq) };
        Ok(Range { chain: head.chain, first: wire.first_seq.max(1), last })
    }

    async fn hit_view(&self, hit: &Hit) -> Result<v1::FindHit, Refused> {
        Ok(match hit {
            Hit::Lease(lease) => self.lease_hit(v1::FindKind::Lease, lease),
            Hit::Principal(lease) => self.lease_hit(v1::FindKind::Principal, lease),
            Hit::Task(task) => self.task_hit(v1::FindKind::Task, task),
            Hit::Reference(task) => self.task_hit(v1::FindKind::Ref, task),
            Hit::Agent(id) => self.agent_hit(v1::FindKind::Agent, id),
            Hit::Owned(id) => self.agent_hit(v1::FindKind::Person, id),
            Hit::Revocation(id) => v1::FindHit {
                kind: v1::FindKind::Revocation.into(),
                stop_commands: vec![format!("leasehold revocations show {id}")],
                ..v1::FindHit::default()
            },
            Hit::Decision(body) => self.decision_hit(body).await?,
        })
    }

    fn lease_hit(&self, kind: v1::FindKind, lease: &Lease) -> v1::FindHit {
        let (lease_id, task, agent) = (lease.terms.id, lease.terms.task, &lease.terms.agent);
        v1::FindHit {
            lease: lease_id.to_string(),
            principal: lease.terms.principal.to_string(),
            target: lease.terms.pair.target.clone(),
            lease_state: write::lease_state(&lease.state).into(),
            task: task.to_string(),
            stop_commands: vec![stop("lease", &lease_id), stop("task", &task), stop("agent", agent)],
            ..self.hit_for(kind, agent, lease.terms.on_behalf_of.as_ref())
        }
    }

    fn task_hit(&self, kind: v1::FindKind, task: &Task) -> v1::FindHit {
        let agent = &task.terms.agent;
        v1::FindHit {
            task: task.terms.id.to_string(),
            stop_commands: vec![stop("task", &task.terms.id), stop("agent", agent)],
            ..self.hit_for(kind, agent, task.person())
        }
    }

    /// What an agent did for somebody leads to them; the person who answers for it, otherwise.
    fn hit_for(&self, kind: v1::FindKind, agent: &CallerId, person: Option<&Vouched>) -> v1::FindHit {
        let hit = self.agent_hit(kind, agent);
        let person = person.map(write::person);
        v1::FindHit { person: person.unwrap_or(hit.person), ..hit }
    }

    fn agent_hit(&self, kind: v1::FindKind, id: &CallerId) -> v1::FindHit {
        let registry = self.broker.registry();
        let owner = registry.owner(id).cloned();
        let person = match &owner {
            Some(Owner::Person(name)) => name.clone(),
            Some(Owner::Group(_) | Owner::Broker) | None => String::new(),
        };
        v1::FindHit {
            kind: kind.into(),
            agent: id.to_string(),
            owner: owner.map(|owner| owner.to_string()).unwrap_or_default(),
            person,
            stop_commands: vec![stop("agent", id)],
            ..v1::FindHit::default()
        }
    }

    async fn decision_hit(&self, body: &Body) -> Result<v1::FindHit, Refused> {
        let kind = v1::FindKind::Decision;
        if let Some(id) = body.lease {
            return Ok(self.lease_hit(kind, &self.broker.lease(None, id).await?));
        }
        if let Some(id) = body.task {
            return Ok(self.task_hit(kind, &self.broker.task(None, id).await?));
        }
        let agent: Option<CallerId> = body.aims.agent.parse().ok();
        let hit = agent.map(|id| self.agent_hit(kind, &id));
        Ok(hit.unwrap_or(v1::FindHit { kind: kind.into(), ..v1::FindHit::default() }))
    }
}

fn stop(what: &str, id: &impl std::fmt::Display) -> String {
    format!("leasehold revoke --{what} {id} --reason R")
}

fn entry_view(chain: &str, entry: &Entry) -> v1::JournalEntry {
    let body = Body::parse(&entry.body).ok();
    let text = String::from_utf8_lossy(&entry.body).into_owned();
    let base = v1::JournalEntry {
        chain: chain.to_owned(),
        seq: entry.seq,
        body: text,
        hash: entry.hash.0.to_vec(),
        ..v1::JournalEntry::default()
    };
    let Some(body) = body else { return base };
    v1::JournalEntry {
        at: Some(write::moment(body.at)),
        summary: summary(&body),
        task: body.task.map(|id| id.to_string()).unwrap_or_default(),
        lease: body.lease.map(|id| id.to_string()).unwrap_or_default(),
        kind: body.kind,
        subject: body.subject,
        ..base
    }
}

/// An entry in one line: what was decided or done, on what, and why.
fn summary(body: &Body) -> String {
    let aims = &body.aims;
    let parts = [&aims.action_decision, &aims.resource, &aims.remediation];
    let said: Vec<_> = parts.into_iter().filter(|part| *part != "none").map(String::as_str).collect();
    said.join(" · ")
}

async fn export(
    broker: &Broker,
    range: Range,
    out: &mpsc::Sender<Result<v1::ExportResponse, Status>>,
) -> Result<(), Refused> {
    let mut lines = line(&begin(broker, &range).await?)?;
    let mut next = range.first;
    while next <= range.last {
        let entries = page(broker, &range, next).await?;
        let Some(last) = entries.last() else { break };
        next = last.seq + 1;
        for entry in &entries {
            lines.extend(line(&entry_line(entry)?)?);
        }
        let sent = out.send(Ok(v1::ExportResponse { lines: std::mem::take(&mut lines) })).await;
        if sent.is_err() {
            return Ok(());
        }
    }
    if !lines.is_empty() {
        // The client may be gone.
        let _ = out.send(Ok(v1::ExportResponse { lines })).await;
    }
    Ok(())
}

async fn page(broker: &Broker, range: &Range, first: u64) -> Result<Vec<Entry>, Refused> {
    let mut entries = broker.journal_entries(first, PAGE).await?;
    entries.retain(|entry| entry.seq <= range.last);
    Ok(entries)
}

async fn begin(broker: &Broker, range: &Range) -> Result<Line, Refused> {
    let first = broker.journal_entries(range.first, 1).await?;
    let prev = first.first().map_or(leasehold_law::journal::Hash::GENESIS, |entry| entry.prev);
    Ok(Line::Begin { chain: range.chain.clone(), first_seq: range.first, prev })
}

fn entry_line(entry: &Entry) -> Result<Line, Refused> {
    let body = String::from_utf8(entry.body.clone()).map_err(|error| Refused::internal(&error))?;
    Ok(Line::Entry { seq: entry.seq, body, hash: entry.hash })
}

fn line(line: &Line) -> Result<Vec<u8>, Refused> {
    let mut bytes = serde_json::to_vec(line).map_err(|error| Refused::internal(&error))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The same check that an auditor makes offline, a page at a time.
async fn verify_range(broker: &Broker, range: Range) -> Result<v1::VerifyResponse, Refused> {
    let mut answer = v1::VerifyResponse {
        whole: true,
        chain: range.chain.as_str().to_owned(),
        ..v1::VerifyResponse::default()
    };
    let mut start = begin(broker, &range).await?;
    let mut next = range.first;
    while next <= range.last {
        let entries = page(broker, &range, next).await?;
        let Some(last) = entries.last() else { break };
        next = last.seq + 1;
        let mut lines = vec![text(&start)?];
        for entry in &entries {
            lines.push(text(&entry_line(entry)?)?);
        }
        match verify(lines.iter().map(String::as_str)) {
            Ok(head) => {
                answer.entries += u64::try_from(entries.len()).unwrap_or(u64::MAX);
                answer.last_seq = head.seq;
                answer.last_hash = head.hash.0.to_vec();
                start = Line::Begin { chain: range.chain.clone(), first_seq: next, prev: head.hash };
            }
            Err(error) => return Ok(broken(answer, &error)),
        }
    }
    Ok(answer)
}

fn text(line: &Line) -> Result<String, Refused> {
    serde_json::to_string(line).map_err(|error| Refused::internal(&error))
}

fn broken(answer: v1::VerifyResponse, error: &leasehold_law::journal::ChainError) -> v1::VerifyResponse {
    use leasehold_law::journal::ChainError as E;
    let first_broken = match error {
        E::NoBeginning | E::NotAnEntry(_) => 0,
        E::Gap { expected, .. } => *expected,
        E::Broken(seq) => *seq,
    };
    v1::VerifyResponse { whole: false, first_broken, problem: error.to_string(), ..answer }
}
