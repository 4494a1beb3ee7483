//! Leases, and how they end.

use leasehold_law::cause::Cause;
use leasehold_law::lease::{Lease, LeaseState, Progress, Proof, Reached, Refusal, Sessions};
use leasehold_law::time::Timestamp;
use leasehold_proto::v1;

use super::{cause, grade, limit, moment, params, span};
use crate::broker::Settled;

/// What a state says beyond its name.
#[derive(Default)]
struct StateView {
    cause: Option<Cause>,
    reached: Option<Reached>,
    sessions: Option<Sessions>,
    proof: Option<Proof>,
    refusal: Option<Refusal>,
    attempts: u32,
    last_error: String,
    next_try: Option<Timestamp>,
    since: Option<Timestamp>,
    residual_until: Option<Timestamp>,
    ended_at: Option<Timestamp>,
}

impl StateView {
    fn of(state: &LeaseState) -> Self {
        match state {
            LeaseState::New
            | LeaseState::Minting { .. }
            | LeaseState::Active { .. }
            | LeaseState::Renewing { .. } => Self::default(),
            LeaseState::Refused { refusal } => Self { refusal: Some(*refusal), ..Self::default() },
            LeaseState::Revoking { progress, .. } => Self::of_progress(progress),
            LeaseState::Residual { until, cause, reached, .. } => Self {
                cause: Some(*cause),
                reached: Some(*reached),
                residual_until: Some(*until),
                ..Self::default()
            },
            LeaseState::Revoked { cause, proof, at, .. } => Self {
                cause: Some(*cause),
                reached: Some(Reached::Removed),
                sessions: Some(Sessions::None),
                proof: Some(*proof),
                ended_at: Some(*at),
                ..Self::default()
            },
            LeaseState::Lapsed { cause, at } => {
                Self { cause: Some(*cause), ended_at: Some(*at), ..Self::default() }
            }
        }
    }

    fn of_progress(progress: &Progress) -> Self {
        Self {
            cause: Some(progress.cause),
            reached: Some(progress.reached),
            sessions: Some(progress.sessions),
            attempts: progress.attempts,
            last_error: progress.last_error.clone().unwrap_or_default(),
            next_try: Some(progress.next_try),
            since: Some(progress.since),
            ..Self::default()
        }
    }
}

pub(in crate::api) fn lease(lease: &Lease) -> v1::Lease {
    let terms = &lease.terms;
    let view = StateView::of(&lease.state);
    v1::Lease {
        id: terms.id.to_string(),
        task: terms.task.to_string(),
        agent: terms.agent.to_string(),
        intent: terms.pair.intent.clone(),
        target: terms.pair.target.clone(),
        params: params(&terms.params),
        principal: terms.principal.to_string(),
        state: lease_state(&lease.state).into(),
        expires_at: lease.state.expires_at().map(moment),
        life_ends_at: Some(moment(terms.life_ends_at)),
        created_at: Some(moment(terms.created_at)),
        cause: view.cause.map(cause).unwrap_or_default().into(),
        reached: view.reached.map(reached).unwrap_or_default().into(),
        sessions: view.sessions.map(sessions).unwrap_or_default().into(),
        proof: view.proof.map(proof).unwrap_or_default().into(),
        attempts: view.attempts,
        last_error: view.last_error,
        next_try: view.next_try.map(moment),
        decision: terms.decision.to_string(),
        grade: grade(terms.grade).into(),
        window: Some(span(terms.window)),
        limited_by: limit(terms.limited_by).into(),
        supersedes: terms.supersedes.map(|id| id.to_string()).unwrap_or_default(),
        refusal: view.refusal.map(refusal).unwrap_or_default().into(),
        residual_until: view.residual_until.map(moment),
        ended_at: view.ended_at.map(moment),
        revoking_since: view.since.map(moment),
    }
}

pub(in crate::api) fn outcome(lease: &Lease) -> v1::LeaseOutcome {
    let terms = &lease.terms;
    let view = StateView::of(&lease.state);
    v1::LeaseOutcome {
        lease: terms.id.to_string(),
        task: terms.task.to_string(),
        agent: terms.agent.to_string(),
        intent: terms.pair.intent.clone(),
        target: terms.pair.target.clone(),
        principal: terms.principal.to_string(),
        grade: grade(terms.grade).into(),
        state: lease_state(&lease.state).into(),
        reached: view.reached.map(reached).unwrap_or_default().into(),
        sessions: view.sessions.map(sessions).unwrap_or_default().into(),
        proof: view.proof.map(proof).unwrap_or_default().into(),
        attempts: view.attempts,
        error: view.last_error,
        next_try: view.next_try.map(moment),
    }
}

/// Leases at the end of a wait, and the ids of those whose end is not proven yet.
pub(in crate::api) fn settled(settled: &Settled) -> (Vec<v1::LeaseOutcome>, Vec<String>) {
    let pending = settled.pending_ids().map(|id| id.to_string()).collect();
    (settled.leases.iter().map(outcome).collect(), pending)
}

pub(in crate::api) fn lease_state(state: &LeaseState) -> v1::LeaseState {
    match state {
        LeaseState::New => v1::LeaseState::Unspecified,
        LeaseState::Refused { .. } => v1::LeaseState::Refused,
        LeaseState::Minting { .. } => v1::LeaseState::Minting,
        LeaseState::Active { .. } => v1::LeaseState::Active,
        LeaseState::Renewing { .. } => v1::LeaseState::Renewing,
        LeaseState::Revoking { .. } => v1::LeaseState::Revoking,
        LeaseState::Residual { .. } => v1::LeaseState::Residual,
        LeaseState::Revoked { .. } => v1::LeaseState::Revoked,
        LeaseState::Lapsed { .. } => v1::LeaseState::Lapsed,
    }
}

fn reached(reached: Reached) -> v1::Reached {
    match reached {
        Reached::None => v1::Reached::None,
        Reached::Disabled => v1::Reached::Disabled,
        Reached::Cut => v1::Reached::Cut,
        Reached::Removed => v1::Reached::Removed,
    }
}

fn sessions(sessions: Sessions) -> v1::Sessions {
    match sessions {
        Sessions::Unknown => v1::Sessions::Unknown,
        Sessions::Reaping => v1::Sessions::Reaping,
        Sessions::None => v1::Sessions::None,
    }
}

fn proof(proof: Proof) -> v1::Proof {
    match proof {
        Proof::ReadBack => v1::Proof::ReadBack,
        Proof::NeverMinted => v1::Proof::NeverMinted,
        Proof::DenyReadBack => v1::Proof::DenyReadBack,
    }
}

fn refusal(refusal: Refusal) -> v1::Refusal {
    match refusal {
        Refusal::Denied => v1::Refusal::Denied,
        Refusal::Unasked => v1::Refusal::Unasked,
    }
}
