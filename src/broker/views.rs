//! What callers and operators may see of tasks, leases and the journal.

use leasehold_law::caller::CallerId;
use leasehold_law::catalog::Owner;
use leasehold_law::id::{DecisionId, LeaseId, RevocationId, TaskId};
use leasehold_law::journal::{Body, Entry};
use leasehold_law::lease::Lease;
use leasehold_law::reason::Reason;
use leasehold_law::task::Task;
use leasehold_law::time::Span;

use super::Broker;
use super::decide::Asker;
use super::refused::Refused;
use crate::store::{LeaseFilter, TaskFilter};

/// The most entries that one trace tells.
const TRACE: usize = 50_000;
/// How long after the moment in a decision's id its entry may have been made: a journal that hangs is not waited for
/// so long.
const NEAR: Span = Span::from_secs(60);

/// Which part of a story is told.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// So many entries are left out at its beginning.
    pub skip: usize,
    /// So many are told, at most.
    pub take: usize,
}

/// A part of a story.
#[derive(Debug)]
pub struct Story {
    /// The entries, in order.
    pub entries: Vec<Entry>,
    /// There is a next part.
    pub more: bool,
    /// The story goes on, and no part tells the rest.
    pub cut: bool,
}

impl Part {
    /// What to read to tell this part, and to know whether anything is behind it.
    fn reach(self) -> usize {
        self.end().saturating_add(1)
    }

    fn end(self) -> usize {
        self.skip.saturating_add(self.take).min(TRACE)
    }

    /// This part of the entries up to its reach.
    fn of(self, mut known: Vec<Entry>) -> Story {
        let goes_on = known.len() > self.end();
        let last = self.end() == TRACE;
        known.truncate(self.end());
        known.drain(..self.skip.min(known.len()));
        Story { entries: known, more: goes_on && !last, cut: goes_on && last }
    }
}

/// One thing that a search found.
#[derive(Clone, Debug)]
pub enum Hit {
    /// A lease, by its id.
    Lease(Box<Lease>),
    /// A lease, by its name in the target.
    Principal(Box<Lease>),
    /// A task, by its id.
    Task(Box<Task>),
    /// A task, by a reference.
    Reference(Box<Task>),
    /// An agent.
    Agent(CallerId),
    /// A revocation.
    Revocation(RevocationId),
    /// The agents that answer to a person or a group.
    Owned(CallerId),
    /// A decision that led to nothing.
    Decision(Box<Body>),
}

impl Broker {
    /// One task: the caller's own, or any for an operator.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn task(&self, asker: Option<&Asker>, id: TaskId) -> Result<Task, Refused> {
        match asker {
            Some(asker) => self.own_task(asker, id).await,
            None => self.inner.ledger.store().task(id).await?.ok_or_else(|| Refused::not_found("task", id)),
        }
    }

    /// One lease: the caller's own, or any for an operator.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn lease(&self, asker: Option<&Asker>, id: LeaseId) -> Result<Lease, Refused> {
        match asker {
            Some(asker) => self.own_lease(asker, id).await,
            None => self.inner.ledger.store().lease(id).await?.ok_or_else(|| Refused::not_found("lease", id)),
        }
    }

    /// Tasks, newest first: the caller's own, or any for an operator.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn tasks(
        &self,
        asker: Option<&Asker>,
        mut filter: TaskFilter,
        limit: usize,
    ) -> Result<Vec<Task>, Refused> {
        filter.agent = asker.map(|asker| asker.id.clone()).or(filter.agent);
        Ok(self.inner.ledger.store().tasks(&filter, limit).await?)
    }

    /// Leases, newest first: the caller's own, or any for an operator.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn leases(
        &self,
        asker: Option<&Asker>,
        mut filter: LeaseFilter,
        limit: usize,
    ) -> Result<Vec<Lease>, Refused> {
        filter.agent = asker.map(|asker| asker.id.clone()).or(filter.agent);
        Ok(self.inner.ledger.store().leases(&filter, limit).await?)
    }

    /// Where this broker's chain ends.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn journal_head(&self) -> Result<leasehold_law::journal::ChainHead, Refused> {
        Ok(self.inner.ledger.store().head().await?)
    }

    /// Entries from `first` on, at most `limit`, in order.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn journal_entries(&self, first: u64, limit: usize) -> Result<Vec<Entry>, Refused> {
        Ok(self.inner.ledger.store().entries(first, limit).await?)
    }

    /// The entries of a task and its leases, in order.
    ///
    /// # Errors
    /// Where there are none.
    pub async fn trace_task(&self, id: TaskId, part: Part) -> Result<Story, Refused> {
        let known = self.inner.ledger.store().entries_of_task(id, part.reach()).await?;
        if known.is_empty() {
            return Err(Refused::not_found("task", id));
        }
        Ok(part.of(known))
    }

    /// The entries of the task that a lease hangs on.
    ///
    /// # Errors
    /// Where there are none.
    pub async fn trace_lease(&self, id: LeaseId, part: Part) -> Result<Story, Refused> {
        let lease = self.lease(None, id).await?;
        self.trace_task(lease.terms.task, part).await
    }

    /// The entries around a decision: those of its task, or the one that holds it.
    ///
    /// # Errors
    /// Where there are none.
    pub async fn trace_decision(&self, id: DecisionId, part: Part) -> Result<Story, Refused> {
        let found = self.entry_of_decision(id).await?;
        let found = found.ok_or_else(|| Refused::not_found("decision", id))?;
        match Body::parse(&found.body).ok().and_then(|body| body.task) {
            Some(task) => self.trace_task(task, part).await,
            None => Ok(part.of(vec![found])),
        }
    }

    /// The entries of the task that was opened last.
    ///
    /// # Errors
    /// Where there is no task yet.
    pub async fn trace_last(&self, part: Part) -> Result<Story, Refused> {
        let tasks = self.tasks(None, TaskFilter::default(), 1).await?;
        match tasks.first() {
            Some(task) => self.trace_task(task.terms.id, part).await,
            None => Err(Refused::new(Reason::NotFound, "no task was opened yet")),
        }
    }

    /// The id says when the decision was made, so only what was written from then on is looked at.
    async fn entry_of_decision(&self, id: DecisionId) -> Result<Option<Entry>, Refused> {
        let made = id.made_at();
        let found = self.inner.ledger.store().entries_with(&id.to_string(), made, made + NEAR, 1).await?;
        Ok(found.into_iter().next())
    }

    /// Whatever a text names: a principal, a lease, a task, a decision, a revocation, an agent, an owner, a reference.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn find(&self, text: &str, limit: usize) -> Result<Vec<Hit>, Refused> {
        let store = self.inner.ledger.store();
        if let Ok(id) = text.parse::<LeaseId>() {
            return Ok(store.lease(id).await?.map(|lease| Hit::Lease(Box::new(lease))).into_iter().collect());
        }
        if let Ok(id) = text.parse::<TaskId>() {
            return Ok(store.task(id).await?.map(|task| Hit::Task(Box::new(task))).into_iter().collect());
        }
        if let Ok(id) = text.parse::<RevocationId>() {
            return Ok(store
                .revocation(id)
                .await?
                .map(|found| Hit::Revocation(found.id))
                .into_iter()
                .collect());
        }
        if let Ok(id) = text.parse::<DecisionId>() {
            let entry = self.entry_of_decision(id).await?;
            let body = entry.and_then(|entry| Body::parse(&entry.body).ok());
            return Ok(body.map(|body| Hit::Decision(Box::new(body))).into_iter().collect());
        }
        if let Some(lease) = store.lease_by_principal(text).await? {
            return Ok(vec![Hit::Principal(Box::new(lease))]);
        }
        self.find_by_words(text, limit).await
    }

    async fn find_by_words(&self, text: &str, limit: usize) -> Result<Vec<Hit>, Refused> {
        let registry = self.registry();
        let owner = text.parse().unwrap_or_else(|_| Owner::Person(text.to_owned()));
        let live = self.inner.ledger.store().live_agents().await?;
        let owned = registry.agents_of(&owner, &live);
        let mut hits: Vec<_> = owned.into_iter().map(Hit::Owned).collect();
        if let Ok(id) = text.parse::<CallerId>()
            && registry.knows(&id)
        {
            hits.push(Hit::Agent(id));
        }
        if let Some((key, value)) = text.split_once('=') {
            let filter =
                TaskFilter { reference: Some((key.to_owned(), value.to_owned())), ..TaskFilter::default() };
            let tasks = self.inner.ledger.store().tasks(&filter, limit).await?;
            hits.extend(tasks.into_iter().map(|task| Hit::Reference(Box::new(task))));
        }
        hits.truncate(limit);
        Ok(hits)
    }
}

#[cfg(test)]
mod tests {
    use leasehold_law::journal::{ChainHead, ChainId};

    use super::*;

    #[test]
    fn a_story_that_is_cut_says_so_and_one_that_goes_on_too() {
        let entry = ChainHead::genesis(ChainId::new("broker-1", 1)).append(Vec::new());
        let told = |length: usize, skip: usize, take: usize| {
            let part = Part { skip, take };
            let story = part.of(vec![entry.clone(); length.min(part.reach())]);
            (story.entries.len(), story.more, story.cut)
        };
        assert_eq!(told(5, 0, 2), (2, true, false));
        assert_eq!(told(5, 4, 2), (1, false, false));
        assert_eq!(told(5, 9, 2), (0, false, false));
        assert_eq!(told(TRACE, TRACE - 2, 2), (2, false, false));
        assert_eq!(told(TRACE + 1, TRACE - 2, 2), (2, false, true));
        assert_eq!(told(TRACE + 1, TRACE - 3, 2), (2, true, false));
        assert_eq!(told(TRACE + 1, usize::MAX, 2), (0, false, true));
    }
}
