//! Revocations, and what they select.

use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::revocation::{Revocation, Selector};
use leasehold_proto::v1;

use super::{moment, outcome, person};
use crate::broker::Settled;

fn selector(selector: &Selector) -> v1::Selector {
    use v1::selector::Kind;
    let kind = match selector {
        Selector::Lease(id) => Kind::Lease(id.to_string()),
        Selector::Task(id) => Kind::Task(id.to_string()),
        Selector::Agent(id) => Kind::Agent(id.to_string()),
        Selector::Owner(owner) => Kind::Owner(owner.to_string()),
        Selector::Person(one) => Kind::Person(person(one)),
        Selector::Target(name) => Kind::Target(name.clone()),
        Selector::Intent(name) => Kind::Intent(name.clone()),
        Selector::Ref { key, value } => Kind::Ref(v1::Ref { key: key.clone(), value: value.clone() }),
        Selector::All => Kind::All(v1::All {}),
    };
    v1::Selector { kind: Some(kind) }
}

pub(in crate::api) fn revocation(revocation: &Revocation, settled: &Settled) -> v1::Revocation {
    let outcomes: Vec<_> = settled.leases.iter().map(outcome).collect();
    let of_leases = settled.leases.iter().map(|lease| lease.terms.task);
    let mut tasks: Vec<_> =
        of_leases.chain(revocation.tasks.iter().copied()).map(|task| task.to_string()).collect();
    tasks.sort();
    tasks.dedup();
    v1::Revocation {
        id: revocation.id.to_string(),
        selector: Some(selector(&revocation.selector)),
        cause: v1::Cause::Operator.into(),
        by: revocation.by.to_string(),
        reason: revocation.reason.clone(),
        at: Some(moment(revocation.at)),
        frozen: revocation.is_freezing(),
        lifted_by: revocation.lifted.as_ref().map(|lifted| lifted.by.to_string()).unwrap_or_default(),
        lifted_at: revocation.lifted.as_ref().map(|lifted| moment(lifted.at)),
        outcomes,
        counts: Some(counts(settled)),
        tasks,
        unknown_agent: None,
    }
}

fn counts(settled: &Settled) -> v1::RevocationCounts {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let of = |test: &dyn Fn(&Lease) -> bool| settled.leases.iter().filter(|lease| test(lease)).count();
    v1::RevocationCounts {
        total: number(settled.leases.len() + settled.unread.len() + settled.gone),
        confirmed: number(of(&|lease| !lease.state.is_live()) + settled.gone),
        pending: number(settled.pending_ids().count()),
        residual: number(of(&|lease| matches!(lease.state, LeaseState::Residual { .. }))),
        stuck: number(stuck(settled)),
    }
}

/// How many of those that are pending could not be killed at the first try.
pub(in crate::api) fn stuck(settled: &Settled) -> usize {
    let unread = settled.unread.iter().filter(|one| one.stuck);
    settled.pending().filter(|lease| is_stuck(lease)).count() + unread.count()
}

/// Whether it could not be killed at the first try.
fn is_stuck(lease: &Lease) -> bool {
    matches!(&lease.state, LeaseState::Revoking { progress, .. } if progress.last_error.is_some())
}

pub(in crate::api) fn freeze(revocation: &Revocation) -> v1::Freeze {
    v1::Freeze {
        revocation: revocation.id.to_string(),
        reason: revocation.reason.clone(),
        lifted_by: "an operator with the role admin".to_owned(),
        since: Some(moment(revocation.at)),
    }
}
