//! Changing a task's scope: what is wider is decided anew, what no longer fits is revoked, the rest is left alone.
//!
//! What only takes away is always done: no barrier is asked, no rate counts it, and no grant need stand any more.

use std::sync::Arc;

use leasehold_law::cause::Cause;
use leasehold_law::id::TaskId;
use leasehold_law::lease::{Lease, LeaseEvent};
use leasehold_law::policy::DecisionRecord;
use leasehold_law::scope::{Scope, ScopeEntry};
use leasehold_law::subject::{Guard, Subject};
use leasehold_law::task::{Task, TaskEvent, TaskState};
use leasehold_law::time::Span;

use super::decide::{Asker, TaskFacts, check_scope_params, scope_guards};
use super::open_task::denial;
use super::refused::Refused;
use super::revoke::condemning;
use super::wait::Settled;
use super::{Broker, Inner};
use crate::fault::{self, Point};
use crate::ledger::LedgerError;
use crate::registry::Registry;

/// How often it is tried again when something changed under it.
const RACES: usize = 16;

/// A scope that was changed.
#[derive(Debug)]
pub struct ScopeChange {
    /// The task.
    pub task: Task,
    /// The leases that no longer fit, as they stand now.
    pub settled: Settled,
    /// The decisions on what is wider.
    pub decisions: Vec<DecisionRecord>,
}

impl Broker {
    /// Changes the scope of a caller's own task.
    ///
    /// # Errors
    /// Where something wider is denied: then nothing changes.
    pub async fn change_scope(
        &self,
        asker: &Asker,
        id: TaskId,
        scope: Scope,
        wait: Span,
    ) -> Result<ScopeChange, Refused> {
        let changed = self.change_own(asker, id, scope, wait).await;
        self.on_record(asker, &format!("change scope of {id}"), changed).await
    }

    async fn change_own(
        &self,
        asker: &Asker,
        id: TaskId,
        scope: Scope,
        wait: Span,
    ) -> Result<ScopeChange, Refused> {
        let mut counted = false;
        for _ in 0..RACES {
            let task = self.own_task(asker, id).await;
            if !counted && !gives_back(task.as_ref(), &scope) {
                self.inner.count_call(asker)?;
                counted = true;
            }
            let task = task?;
            if task.state == TaskState::Open && task.scope == scope {
                return Ok(ScopeChange { task, settled: Settled::default(), decisions: Vec::new() });
            }
            if let Some((task, condemned, decisions)) = self.inner.try_change(asker, &task, &scope).await? {
                let ids: Vec<_> = condemned.iter().map(|lease| lease.terms.id).collect();
                fault::point(Point::Narrowed);
                condemned.into_iter().for_each(|lease| self.inner.kill(lease));
                let settled = self.inner.wait_for(&ids, wait).await?;
                return Ok(ScopeChange { task, settled, decisions });
            }
        }
        Err(Refused::contended(format!("{id} keeps changing")))
    }
}

type Changed = (Task, Vec<Lease>, Vec<DecisionRecord>);

impl Inner {
    /// `None` where something changed under it.
    async fn try_change(
        self: &Arc<Self>,
        asker: &Asker,
        task: &Task,
        scope: &Scope,
    ) -> Result<Option<Changed>, Refused> {
        if task.state != TaskState::Open {
            return Err(Refused::task_ended(task));
        }
        let registry = self.registry.load_full();
        let (decisions, guards) = match widened(&task.scope, scope) {
            Some(wider) => self.decide_wider(&registry, asker, task, &wider).await?,
            None => {
                (Vec::new(), vec![Guard { subject: Subject::Task(task.terms.id), version: task.version }])
            }
        };
        check_new_params(&registry, &task.scope, scope)?;
        let steps = self.misfits(&registry, task, scope).await?;
        let step = TaskEvent::ScopeChanged { scope: scope.clone() };
        match self.ledger.step_task(task, step, decisions.clone(), &steps, guards).await {
            Ok((task, condemned)) => Ok(Some((task, condemned, decisions))),
            Err(LedgerError::Stale(_)) => Ok(None),
            Err(error) => {
                let misfits = steps.into_iter().map(|(lease, _)| lease);
                self.kill_without_record(misfits, Cause::ScopeChanged, &error);
                Err(error.into())
            }
        }
    }

    /// Decides what is wider: behind every barrier, on record where it is denied. With the versions it rests on.
    async fn decide_wider(
        &self,
        registry: &Registry,
        asker: &Asker,
        task: &Task,
        wider: &Scope,
    ) -> Result<(Vec<DecisionRecord>, Vec<Guard>), Refused> {
        let guards = self.open_task_guards(asker, task, None).await?;
        self.ledger.check_writable().await.map_err(|error| Refused::journal(&error))?;
        let facts = TaskFacts::of(task, self.clock.now());
        let decisions = self.decide_scope(registry, asker, wider, facts, &guards)?;
        if let Some(refused) = denial(&decisions) {
            for record in &decisions {
                self.record_decision(record).await?;
            }
            return Err(refused);
        }
        Ok((decisions, scope_guards(registry, &asker.id, wider, guards)))
    }

    /// The live leases that the new scope, or policy by now, no longer allows, each with the step that condemns it.
    async fn misfits(
        &self,
        registry: &Registry,
        task: &Task,
        scope: &Scope,
    ) -> Result<Vec<(Lease, LeaseEvent)>, Refused> {
        let live = self.live_of_task(task.terms.id).await?;
        let now = self.clock.now();
        let mut steps = Vec::new();
        for lease in live {
            let remaining = lease.state.expires_at().unwrap_or(now).since(now);
            let fits = scope.check(&lease.terms.pair, &lease.terms.params, remaining).is_ok();
            let cause = match fits {
                false => Cause::ScopeChanged,
                true if lease.state.is_usable() && !self.still_allowed(registry, &lease, task)? => {
                    Cause::PolicyChanged
                }
                true => continue,
            };
            steps.extend(condemning(lease, cause, now));
        }
        Ok(steps)
    }
}

/// Whether a change of this task's scope only takes away, and a pair at least: a task can do that as often as it has
/// pairs, while lifetimes could be shortened a little for ever. Where there is no such task, it does not.
fn gives_back(task: Result<&Task, &Refused>, scope: &Scope) -> bool {
    let fewer = |old: &Scope| scope.entries().len() < old.entries().len();
    task.is_ok_and(|task| fewer(&task.scope) && widened(&task.scope, scope).is_none())
}

/// The parameters of entries that are not as they were. What was granted once and is no more can still be narrowed.
fn check_new_params(registry: &Registry, old: &Scope, new: &Scope) -> Result<(), Refused> {
    for entry in new.entries().iter().filter(|entry| !old.entries().contains(entry)) {
        if let Some(granted) = registry.granted(&entry.pair) {
            check_scope_params(&granted, &entry.params)?;
        }
    }
    Ok(())
}

/// The part of a new scope that the old one does not cover.
fn widened(old: &Scope, new: &Scope) -> Option<Scope> {
    let covered = |entry: &&ScopeEntry| !old.entries().iter().any(|known| covers(known, entry));
    Scope::new(new.entries().iter().filter(covered).cloned().collect()).ok()
}

fn covers(old: &ScopeEntry, new: &ScopeEntry) -> bool {
    let ttl = match (old.max_ttl, new.max_ttl) {
        (None, _) => true,
        (Some(old), Some(new)) => new <= old,
        (Some(_), None) => false,
    };
    let params = old.params.iter().all(|(name, value)| new.params.get(name) == Some(value));
    old.pair == new.pair && ttl && params
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pair: &str, max_mins: Option<u64>) -> ScopeEntry {
        ScopeEntry { max_ttl: max_mins.map(Span::from_mins), ..ScopeEntry::of(pair.parse().unwrap()) }
    }

    #[test]
    fn only_what_is_wider_is_decided_again() {
        let check = |old: &[(&str, Option<u64>)], new: &[(&str, Option<u64>)], expect: &[&str]| {
            let scope = |entries: &[(&str, Option<u64>)]| {
                Scope::new(entries.iter().map(|(pair, max)| entry(pair, *max)).collect()).unwrap()
            };
            let wider = widened(&scope(old), &scope(new));
            let found: Vec<_> = wider.iter().flat_map(|s| s.entries()).map(|e| e.pair.to_string()).collect();
            assert_eq!(found, expect);
        };
        check(&[("a@t", None), ("b@t", None)], &[("a@t", None)], &[]);
        check(&[("a@t", None)], &[("a@t", Some(5))], &[]);
        check(&[("a@t", Some(5))], &[("a@t", None)], &["a@t"]);
        check(&[("a@t", Some(5))], &[("a@t", Some(6))], &["a@t"]);
        check(&[("a@t", None)], &[("a@t", None), ("c@t", None)], &["c@t"]);
    }
}
