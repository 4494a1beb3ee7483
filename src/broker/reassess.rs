//! Deciding live leases again: when their task's scope, or what operators defined, has changed (POL-8).

use std::sync::Arc;

use leasehold_law::cause::Cause;
use leasehold_law::lease::Lease;
use leasehold_law::policy::Verdict;
use leasehold_law::registry::Who;
use leasehold_law::revocation::Selector;
use leasehold_law::subject::Subject;
use leasehold_law::task::Task;

use super::Inner;
use super::decide::{Ask, Asker, TaskFacts};
use super::refused::Refused;
use crate::registry::Registry;

impl Inner {
    /// Whether policy would still allow a live lease: its own parameters, its remaining lifetime, nobody asked.
    pub(super) fn still_allowed(
        &self,
        registry: &Registry,
        lease: &Lease,
        task: &Task,
    ) -> Result<bool, Refused> {
        let now = self.clock.now();
        let asker = Asker { id: lease.terms.agent.clone(), proof: lease.terms.proven_by };
        if !registry.knows(&asker.id) || registry.granted(&lease.terms.pair).is_none() {
            return Ok(false);
        }
        let remaining = lease.state.expires_at().unwrap_or(now).since(now);
        let ask = Ask {
            pair: &lease.terms.pair,
            params: Some(&lease.terms.params),
            ttl: remaining,
            renewal: false,
            dry_run: false,
        };
        let id = self.make_decision_id()?;
        let decision = self.ask(registry, id, &asker, &ask, TaskFacts::of(task, now), &[])?;
        Ok(matches!(decision.verdict, Verdict::Allow(_)))
    }

    /// Re-decides every live lease that a changed subject touches, and revokes those that no longer stand.
    pub(super) async fn reassess(self: &Arc<Self>, changed: &[Subject]) -> Result<usize, Refused> {
        let mut revoked = 0;
        for subject in changed {
            let (selector, cause) = match subject {
                Subject::Agent(id) => (Selector::Agent(id.clone()), Cause::AgentChanged),
                Subject::Target(name) => (Selector::Target(name.clone()), Cause::PolicyChanged),
                Subject::Policy => (Selector::All, Cause::PolicyChanged),
                Subject::Task(_)
                | Subject::Lease(_)
                | Subject::Agents
                | Subject::Freezes
                | Subject::Term(_)
                | Subject::Revocation(_) => continue,
            };
            revoked += self.reassess_selected(&selector, cause, &|_| true).await?;
        }
        Ok(revoked)
    }

    /// Re-decides every live lease of these registrations, and revokes those that no longer stand.
    pub(super) async fn reassess_agents(self: &Arc<Self>, who: &[Who]) -> Result<usize, Refused> {
        let mut revoked = 0;
        let (mut patterns, cause) = (Vec::new(), Cause::AgentChanged);
        for one in who {
            match one {
                Who::One(id) => {
                    let selector = Selector::Agent(id.clone());
                    revoked += self.reassess_selected(&selector, cause, &|_| true).await?;
                }
                Who::Each(pattern) => patterns.push(pattern),
            }
        }
        if !patterns.is_empty() {
            let of_any = |lease: &Lease| patterns.iter().any(|pattern| pattern.matches(&lease.terms.agent));
            revoked += self.reassess_selected(&Selector::All, cause, &of_any).await?;
        }
        Ok(revoked)
    }

    async fn reassess_selected(
        self: &Arc<Self>,
        selector: &Selector,
        cause: Cause,
        concerns: &(dyn Fn(&Lease) -> bool + Sync),
    ) -> Result<usize, Refused> {
        let mut walk = self.walk(selector);
        let mut revoked = 0;
        loop {
            let page = walk.next(self.ledger.store()).await?;
            if page.is_empty() {
                return Ok(revoked);
            }
            let page = page.into_iter().filter(|lease| concerns(lease)).collect();
            revoked += self.reassess_leases(page, cause).await?;
        }
    }

    async fn reassess_leases(self: &Arc<Self>, leases: Vec<Lease>, cause: Cause) -> Result<usize, Refused> {
        let registry = self.registry.load_full();
        let mut revoked = 0;
        for lease in leases.into_iter().filter(|lease| lease.state.is_usable()) {
            let Some(task) = self.ledger.store().task(lease.terms.task).await? else { continue };
            if !self.still_allowed(&registry, &lease, &task)? {
                self.condemn(lease, cause, None).await;
                revoked += 1;
            }
        }
        Ok(revoked)
    }
}
