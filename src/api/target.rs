//! TargetService: what is minted in, whether it is fit, and what it needs.

use leasehold_law::cause::Rank;
use leasehold_law::lease::Grade;
use leasehold_law::time::{Span, Timestamp};
use leasehold_proto::v1::{self, target_service_server::TargetService};
use tonic::{Request, Response, Status};

use super::drill::{self, DrillStream};
use super::task::next_page;
use super::{Api, read, standing, write};
use crate::broker::{
    Breaker, Broker, Missing, Orphan, Reconciled, SweepOrder, SweepReport, SweepVerdict, TargetStatus,
};

#[tonic::async_trait]
impl TargetService for Api {
    async fn list_targets(
        &self,
        request: Request<v1::ListTargetsRequest>,
    ) -> Result<Response<v1::ListTargetsResponse>, Status> {
        let wire = request.into_inner();
        let size = read::page_size(wire.page_size)?;
        let statuses = self.broker.target_statuses().await?;
        let after = |status: &&TargetStatus| status.name > wire.page_token;
        let page: Vec<_> = statuses.iter().filter(after).take(size).collect();
        let next_page_token = next_page(&page, size, |status| status.name.clone());
        let targets = page.into_iter().map(|status| view(&self.broker, status)).collect();
        Ok(Response::new(v1::ListTargetsResponse { targets, next_page_token }))
    }

    async fn check_target(
        &self,
        request: Request<v1::CheckTargetRequest>,
    ) -> Result<Response<v1::CheckTargetResponse>, Status> {
        let name = request.into_inner().target;
        let status = self.broker.check_target(&name).await?;
        let missing = status.seen.missing.iter();
        let problem =
            |missing: &Missing| v1::TargetProblem { what: missing.what.clone(), fix: missing.fix.clone() };
        Ok(Response::new(v1::CheckTargetResponse {
            target: Some(view(&self.broker, &status)),
            problems: missing.map(problem).collect(),
            warnings: status.seen.warnings,
        }))
    }

    async fn setup_target(
        &self,
        request: Request<v1::SetupTargetRequest>,
    ) -> Result<Response<v1::SetupTargetResponse>, Status> {
        let name = request.into_inner().target;
        let statements = self.broker.setup_target(&name).await?;
        let (undo, statements): (Vec<_>, Vec<_>) =
            statements.into_iter().partition(|statement| statement.undo);
        Ok(Response::new(v1::SetupTargetResponse {
            statements: statements.iter().map(|one| format!("-- {}\n{}", one.why, one.text)).collect(),
            notes: Vec::new(),
            undo: undo.into_iter().map(|statement| statement.text).collect(),
        }))
    }

    async fn sweep_target(
        &self,
        request: Request<v1::SweepTargetRequest>,
    ) -> Result<Response<v1::SweepTargetResponse>, Status> {
        let wire = request.into_inner();
        let order = SweepOrder {
            dry_run: wire.dry_run,
            at_most: (wire.at_most > 0).then_some(wire.at_most),
            missing_at_most: (wire.missing_at_most > 0).then_some(wire.missing_at_most),
            claim: wire.claim,
            ..SweepOrder::default()
        };
        let report = self.broker.sweep_target(&wire.target, &order).await?;
        Ok(Response::new(v1::SweepTargetResponse { sweep: Some(sweep(&report)) }))
    }

    type DrillTargetStream = DrillStream;

    async fn drill_target(
        &self,
        request: Request<v1::DrillTargetRequest>,
    ) -> Result<Response<Self::DrillTargetStream>, Status> {
        let by = standing(&request)?.id().clone();
        let told = self.broker.drill(&request.into_inner().target, Some(by)).await?;
        Ok(Response::new(drill::progress(told)))
    }
}

fn sweep(report: &SweepReport) -> v1::Sweep {
    let verdict = match report.verdict {
        SweepVerdict::Swept => v1::SweepVerdict::Swept,
        SweepVerdict::DryRun => v1::SweepVerdict::DryRun,
        SweepVerdict::NotOurs(_) => v1::SweepVerdict::NotOurs,
        SweepVerdict::Halted => v1::SweepVerdict::Halted,
        SweepVerdict::ClaimGone => v1::SweepVerdict::ClaimGone,
    };
    let orphan = |one: &Orphan| v1::Orphan {
        principal: one.principal.clone(),
        lease: one.lease.to_string(),
        why: one.why.text().to_owned(),
    };
    v1::Sweep {
        at: Some(write::moment(report.at)),
        verdict: verdict.into(),
        note: report.verdict.text(),
        ours: report.ours,
        strangers: report.strangers,
        found: report.found,
        orphans: report.orphans.iter().map(orphan).collect(),
        young: report.young,
        missing: report.missing.iter().map(ToString::to_string).collect(),
        bound: report.bound,
        missing_bound: report.missing_bound,
        more: report.more,
    }
}

/// A target as operators see it.
pub(super) fn view(broker: &Broker, status: &TargetStatus) -> v1::Target {
    let registry = broker.registry();
    let defined = registry.catalog().targets.get(&status.name);
    let state = match &status.seen {
        seen if seen.error.is_some() => v1::TargetState::Down,
        seen if !seen.missing.is_empty() => v1::TargetState::Unfit,
        _ if status.owner.forbids_mints().is_some() => v1::TargetState::Unfit,
        seen if seen.answered_at.is_some() => v1::TargetState::Ready,
        _ => v1::TargetState::Unspecified,
    };
    let can = status.capabilities.as_ref();
    let due = |lane| status.due.get(&lane).copied().unwrap_or_default();
    v1::Target {
        name: status.name.clone(),
        backend: status.kind.clone(),
        owner: defined.map(|target| target.owner.to_string()).unwrap_or_default(),
        labels: defined.map(|target| target.labels.clone()).unwrap_or_default(),
        state: state.into(),
        last_error: status.seen.error.clone().unwrap_or_default(),
        last_answer_at: status.seen.answered_at.map(write::moment),
        clock_offset: Some(write::millis(status.seen.offset)),
        live: status.live,
        due: status.due.values().sum(),
        stuck: status.stuck,
        grade: write::grade(can.map_or(Grade::None, |can| can.grade)).into(),
        window: Some(write::span(can.map_or(Span::ZERO, |can| can.window))),
        last_sweep: status.swept.as_ref().map(sweep),
        claimed_by: status.owner.claimant().map(|claim| claim.installation.clone()).unwrap_or_default(),
        barred: status.owner.forbids_mints().unwrap_or_default().replace("NAME", &status.name),
        reconciliation: status.compared.as_ref().map(|compared| reconciliation(status, compared)),
        due_security: due(Rank::Security),
        due_task_end: due(Rank::TaskEnd),
        due_expiry: due(Rank::Routine),
        breaker: Some(breaker(status.breaker)),
        drill_intent: status.drill.plan.as_ref().map(|plan| plan.pair.intent.clone()).unwrap_or_default(),
        last_drill: status.drill.last.as_ref().map(drill::view),
        next_drill: status.drill.next.map(write::moment),
        not_drilled: status.drill.not_drilled.clone().unwrap_or_default(),
    }
}

fn reconciliation(status: &TargetStatus, compared: &Reconciled) -> v1::Reconciliation {
    v1::Reconciliation {
        at: Some(write::moment(compared.at)),
        complete: status.reconciled,
        kept: compared.kept,
        renewed: compared.renewed,
        ended: compared.ended,
        since: compared.since.clone(),
    }
}

fn breaker(breaker: Breaker) -> v1::Breaker {
    let view = |state: v1::BreakerState, since, failures, next_probe: Option<Timestamp>| v1::Breaker {
        state: state.into(),
        since: Some(write::moment(since)),
        failures,
        next_probe: next_probe.map(write::moment),
    };
    match breaker {
        Breaker::Closed => v1::Breaker { state: v1::BreakerState::Closed.into(), ..v1::Breaker::default() },
        Breaker::Open { since, failures, until, .. } => {
            view(v1::BreakerState::Open, since, failures, Some(until))
        }
        Breaker::HalfOpen { since, failures } => view(v1::BreakerState::HalfOpen, since, failures, None),
    }
}
