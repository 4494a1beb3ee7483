//! What was stopped of a task for the sake of security, whatever the task itself ended by: a program that says goodbye
//! after a stop completes its task, and who reads that later must not take it for a quiet end.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_law::cause::{Cause, Rank};
use leasehold_law::id::{LeaseId, RevocationId};
use leasehold_law::task::Task;
use leasehold_law::time::Span;

use super::decide::Asker;
use super::refused::Refused;
use super::{Broker, Inner};
use crate::store::{LeaseFilter, StoreError};

/// How many leases are read at a time, and how many times for an operator: more than an agent may have alive without a
/// word. An agent, which may ask as often as it likes, is told of the newest.
const PAGE: usize = 512;
const PAGES: usize = 20;
/// How many revocations are read at a time, since one may name many leases, and how many times.
const ACTS: usize = 16;
const ACTS_PAGES: usize = 32;
/// How much the clock of the broker that revoked may be behind that of the one that issued.
const CLOCKS: Span = Span::from_mins(1);

/// Leases of a task that were revoked for one cause, by one act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The cause, of the rank of security.
    pub cause: Cause,
    /// The revocation that took them, where one did and is told.
    pub revocation: Option<RevocationId>,
    /// How many.
    pub leases: u32,
}

impl Broker {
    /// What of a task was stopped for the sake of security: its newest leases, as long as they are kept. By which
    /// revocation is for operators alone: finding it reads what every late revocation took.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn stops(&self, asker: Option<&Asker>, task: &Task) -> Result<Vec<Stop>, Refused> {
        let stopped = self.inner.stopped(task, if asker.is_some() { 1 } else { PAGES }).await?;
        let by_operators = stopped.iter().filter(|(_, cause)| **cause == Cause::Operator);
        let by_operators: BTreeSet<_> = by_operators.map(|(id, _)| *id).collect();
        let acts = match asker {
            Some(_) => BTreeMap::new(),
            None => self.inner.acts_on(task, &by_operators).await?,
        };
        let mut counted = BTreeMap::<_, u32>::new();
        for (id, cause) in stopped {
            *counted.entry((acts.get(&id).copied(), cause)).or_default() += 1;
        }
        let stop = |((revocation, cause), leases)| Stop { cause, revocation, leases };
        Ok(counted.into_iter().map(stop).collect())
    }
}

impl Inner {
    /// The leases of a task whose cause is of the rank of security.
    async fn stopped(&self, task: &Task, pages: usize) -> Result<BTreeMap<LeaseId, Cause>, StoreError> {
        let mut filter = LeaseFilter { task: Some(task.terms.id), ..LeaseFilter::default() };
        let mut stopped = BTreeMap::new();
        for _ in 0..pages {
            let page = self.ledger.store().leases(&filter, PAGE).await?;
            let causes = page.iter().filter_map(|lease| Some((lease.terms.id, lease.state.cause()?)));
            stopped.extend(causes.filter(|(_, cause)| cause.rank() == Rank::Security));
            filter.before = page.last().map(|lease| lease.terms.id);
            if page.len() < PAGE {
                break;
            }
        }
        Ok(stopped)
    }

    /// The first revocation that took each of these leases of a task: a later one lists what is still dying too.
    async fn acts_on(
        &self,
        task: &Task,
        leases: &BTreeSet<LeaseId>,
    ) -> Result<BTreeMap<LeaseId, RevocationId>, StoreError> {
        let (mut acts, mut before) = (BTreeMap::new(), None);
        let oldest = task.terms.opened_at - CLOCKS;
        let pages = if leases.is_empty() { 0 } else { ACTS_PAGES };
        for _ in 0..pages {
            let page = self.ledger.store().revocations(false, before, ACTS).await?;
            let late = page.iter().take_while(|act| act.at >= oldest);
            for act in late {
                acts.extend(act.leases.iter().filter(|id| leases.contains(id)).map(|id| (*id, act.id)));
            }
            before = page.last().map(|act| act.id);
            if page.len() < ACTS || page.last().is_none_or(|act| act.at < oldest) {
                break;
            }
        }
        Ok(acts)
    }
}
