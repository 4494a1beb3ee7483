//! A task in the hands of an agent: opened, held by heartbeats, completed.

mod hold;
mod person;

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use tokio::sync::watch;

use person::Person;

use crate::{
    Client, ClientError, Events, Lease, Manifest, Pair, TokenSource,
    io::Guard,
    lease::{self, lock},
    retry::request_id,
    v1, wire_duration,
};

/// A task to be opened.
#[must_use = "nothing is opened before `open`"]
pub struct TaskBuilder {
    client: Client,
    pairs: Vec<Result<Pair, ClientError>>,
    request: v1::OpenTaskRequest,
    grace: Option<Duration>,
    by_deadline: bool,
    person: Option<Arc<dyn TokenSource>>,
}

impl TaskBuilder {
    pub(crate) fn new(client: Client) -> Self {
        let request = v1::OpenTaskRequest::default();
        Self { client, pairs: Vec::new(), request, grace: None, by_deadline: false, person: None }
    }

    /// One more pair `INTENT@TARGET`. What is no pair is told by [`TaskBuilder::open`].
    pub fn scope(mut self, pair: &str) -> Self {
        self.pairs.push(pair.parse().map_err(ClientError::from));
        self
    }

    /// One more pair, with what narrows it.
    pub fn pair(mut self, pair: Pair) -> Self {
        self.pairs.push(Ok(pair));
        self
    }

    /// Labels by which the task is found again, up to 8: `run`, `thread`, `pr`, `ticket`. They decide nothing.
    pub fn refs<K: Into<String>, V: Into<String>>(mut self, refs: impl IntoIterator<Item = (K, V)>) -> Self {
        self.request.refs.extend(refs.into_iter().map(|(key, value)| (key.into(), value.into())));
        self
    }

    /// What the task is for, for people to read. At most 512 bytes. It decides nothing.
    pub fn purpose(mut self, purpose: impl Into<String>) -> Self {
        self.request.purpose = purpose.into();
        self
    }

    /// What the agent runs: see [`crate::Manifest`]. Where an operator has accepted another one, the agent may do less.
    pub fn manifest(self, manifest: &Manifest) -> Self {
        self.fingerprint(manifest.digest())
    }

    /// As [`TaskBuilder::manifest`], for whoever has the digest only.
    pub fn fingerprint(mut self, digest: impl Into<String>) -> Self {
        self.request.manifest = Some(v1::Manifest { fingerprint: digest.into() });
        self
    }

    /// The person that the task acts for, by tokens of theirs that name this agent: see [`crate::FileTokens`]. The task ends a
    /// minute after the token does; while heartbeats hold it, each newer token that the source has is brought with one.
    pub fn on_behalf_of(mut self, tokens: Arc<dyn TokenSource>) -> Self {
        self.person = Some(tokens);
        self
    }

    /// How long the task may last; the broker's default otherwise.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.request.deadline = wire_duration(deadline);
        self
    }

    /// The silence after which the task is lost, 30 s to 10 min; the broker's default otherwise.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Held by its deadline alone, at most 1 h, without heartbeats: for callers that exit and come back.
    pub fn held_by_deadline(mut self) -> Self {
        self.by_deadline = true;
        self
    }

    /// Opens the task. Safe to repeat, and repeated while the broker is away: the request has a name.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for a text that is no pair; the refusal of any pair refuses all.
    pub async fn open(self) -> Result<Task, ClientError> {
        let Self { client, pairs, mut request, grace, by_deadline, person } = self;
        request.scope = pairs.into_iter().map(|pair| pair.map(Pair::into_wire)).collect::<Result<_, _>>()?;
        request.liveness = Some(liveness(grace, by_deadline));
        request.request_id = request_id();
        let person = match person {
            Some(tokens) => Some(Person::first(tokens).await?),
            None => None,
        };
        request.on_behalf_of = person.as_ref().map(Person::wire);
        let answer = client.persist(|| async { client.tasks().open_task(request.clone()).await }).await?;
        let task = answer.task.ok_or(ClientError::BadAnswer("no task in it"))?;
        let hold = if by_deadline { Hold::Deadline } else { Hold::Heartbeat };
        Ok(Task::new(client, task, hold, person))
    }
}

fn liveness(grace: Option<Duration>, by_deadline: bool) -> v1::Liveness {
    use v1::liveness::{Deadline, Heartbeat, Kind};
    let kind = match by_deadline {
        true => Kind::Deadline(Deadline {}),
        false => Kind::Heartbeat(Heartbeat { grace: grace.and_then(wire_duration) }),
    };
    v1::Liveness { kind: Some(kind) }
}

/// Who holds a task.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// This process, by heartbeats; it also ends the task.
    Heartbeat,
    /// The task's deadline.
    Deadline,
    /// Another process, which also ends it.
    Elsewhere,
}

/// An open task. Dropped without [`Task::complete`], it is aborted as well as that still goes; where even that
/// fails, its heartbeats end and the broker takes it for lost after its grace.
pub struct Task {
    client: Client,
    shared: Arc<Shared>,
    hold: Hold,
    finished: bool,
    _guards: Vec<Guard>,
}

/// Whether a task is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskStatus {
    /// As far as is known.
    Open,
    /// It is ending or has ended, for this reason, in words.
    Ended(String),
}

pub(crate) struct Shared {
    task: v1::Task,
    leases: Mutex<Vec<Weak<lease::Shared>>>,
    /// Told to be over before their credential had arrived here; the newest few.
    early: Mutex<VecDeque<v1::Lease>>,
    status: watch::Sender<TaskStatus>,
}

/// More leases than this are not on their way at once.
const EARLY: usize = 64;

impl Task {
    fn new(client: Client, task: v1::Task, hold: Hold, person: Option<Person>) -> Self {
        let (status, _) = watch::channel(TaskStatus::Open);
        let shared = Arc::new(Shared { task, leases: Mutex::default(), early: Mutex::default(), status });
        let watch = hold::watch(client.channel(), Arc::clone(&shared));
        let mut guards = vec![client.io().keep(watch)];
        if hold == Hold::Heartbeat {
            guards.push(client.io().keep(hold::heartbeats(client.channel(), Arc::clone(&shared), person)));
        }
        Self { client, shared, hold, finished: false, _guards: guards }
    }

    /// Joins a task that another process of the same identity holds. It is neither kept alive nor ended from here.
    ///
    /// # Errors
    /// `NOT_FOUND` for a task that is not this caller's.
    pub async fn join(client: &Client, id: &str) -> Result<Self, ClientError> {
        let request = v1::GetTaskRequest { task: id.to_owned() };
        let task = client.persist(|| async { client.tasks().get_task(request.clone()).await }).await?;
        Ok(Self::new(client.clone(), task, Hold::Elsewhere, None))
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.task.id
    }

    /// The task as it was opened.
    #[must_use]
    pub fn opened(&self) -> &v1::Task {
        &self.shared.task
    }

    /// Whether it is open, now and whenever that changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<TaskStatus> {
        self.shared.status.subscribe()
    }

    /// A lease for one pair `INTENT@TARGET` of the scope, with the grant's default lifetime.
    ///
    /// # Errors
    /// As [`Task::lease_pair`].
    pub async fn lease(&self, pair: &str) -> Result<Lease, ClientError> {
        self.lease_pair(pair.parse()?, None).await
    }

    /// A lease for one pair with parameters and a lifetime. It is kept alive: renewed at two thirds.
    ///
    /// # Errors
    /// Any refusal; [`ClientError::Broken`] or [`ClientError::Late`] when patience ended without an answer.
    pub async fn lease_pair(&self, pair: Pair, ttl: Option<Duration>) -> Result<Lease, ClientError> {
        let request = v1::RequestLeaseRequest {
            task: self.id().to_owned(),
            intent: pair.intent,
            target: pair.target,
            params: pair.params,
            ttl: ttl.or(pair.max_ttl).and_then(wire_duration),
            ..v1::RequestLeaseRequest::default()
        };
        let granted = lease::request(&self.client, request).await?;
        let lease = Lease::new(self.client.clone(), granted);
        self.shared.adopt(lease.shared());
        Ok(lease)
    }

    /// What happens to the task, as it happens.
    #[must_use]
    pub fn events(&self) -> Events {
        Events::start(&self.client, self.id().to_owned())
    }

    /// Ends the task as done, and waits up to 10 s for the proof that its leases are dead.
    ///
    /// # Errors
    /// Any refusal. Still pending is no error: see [`Ending::pending`].
    pub async fn complete(self) -> Result<Ending, ClientError> {
        self.complete_within(Client::WAIT).await
    }

    /// As [`Task::complete`] with another wait, 0 to 30 s.
    ///
    /// # Errors
    /// As [`Task::complete`].
    pub async fn complete_within(mut self, wait: Duration) -> Result<Ending, ClientError> {
        self.finished = true;
        let request = v1::CompleteTaskRequest { task: self.id().to_owned(), wait: wire_duration(wait) };
        let client = &self.client;
        let answer = client.persist(|| async { client.tasks().complete_task(request.clone()).await }).await?;
        Ok(Ending::new(answer.leases, &answer.pending))
    }

    /// Ends the task as given up.
    ///
    /// # Errors
    /// As [`Task::complete`].
    pub async fn abort(mut self, reason: &str, wait: Duration) -> Result<Ending, ClientError> {
        self.finished = true;
        let request = abort_request(self.id(), reason, wait);
        let client = &self.client;
        let answer = client.persist(|| async { client.tasks().abort_task(request.clone()).await }).await?;
        Ok(Ending::new(answer.leases, &answer.pending))
    }

    /// Lets go of the task without ending it: its deadline, or another process, holds it on.
    pub fn leave(mut self) -> v1::Task {
        self.finished = true;
        self.shared.task.clone()
    }
}

fn abort_request(task: &str, reason: &str, wait: Duration) -> v1::AbortTaskRequest {
    v1::AbortTaskRequest { task: task.to_owned(), reason: reason.to_owned(), wait: wire_duration(wait) }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.finished || self.hold == Hold::Elsewhere {
            return;
        }
        let request = abort_request(self.id(), "dropped without being completed", Duration::ZERO);
        let client = self.client.clone();
        self.client.io().detach(async move {
            // Nobody is left to be told; the grace ends the task all the same.
            drop(client.call(client.tasks().abort_task(request)).await);
        });
    }
}

impl Shared {
    fn adopt(&self, lease: &Arc<lease::Shared>) {
        let mut leases = lock(&self.leases);
        leases.retain(|known| known.strong_count() > 0);
        leases.push(Arc::downgrade(lease));
        drop(leases);
        // The lease, or the task, may have ended while the credential was on its way.
        lock(&self.early).iter().for_each(|seen| lease.observe(seen));
        if let TaskStatus::Ended(cause) = &*self.status.borrow() {
            lease.end(cause.clone());
        }
    }

    /// Passes on what the broker says of a lease.
    fn observe(&self, seen: &v1::Lease) {
        if !lease::is_usable(seen.state()) {
            let mut early = lock(&self.early);
            early.push_back(seen.clone());
            let surplus = early.len().saturating_sub(EARLY);
            early.drain(..surplus);
        }
        self.leases().iter().for_each(|lease| lease.observe(seen));
    }

    fn leases(&self) -> Vec<Arc<lease::Shared>> {
        lock(&self.leases).iter().filter_map(Weak::upgrade).collect()
    }

    fn end(&self, cause: &str) {
        self.status.send_if_modified(|status| {
            let first = *status == TaskStatus::Open;
            if first {
                *status = TaskStatus::Ended(cause.to_owned());
            }
            first
        });
        self.leases().iter().for_each(|lease| lease.end(cause));
    }
}

/// What became of the leases that an ending call stops.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// Proven dead, or refused before they lived.
    pub confirmed: Vec<v1::LeaseOutcome>,
    /// Not proven dead yet; the broker goes on.
    pub pending: Vec<v1::LeaseOutcome>,
}

impl Ending {
    pub(crate) fn new(leases: Vec<v1::LeaseOutcome>, pending: &[String]) -> Self {
        let (pending, confirmed) = leases.into_iter().partition(|outcome| pending.contains(&outcome.lease));
        Self { confirmed, pending }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} confirmed dead", self.confirmed.len())?;
        if self.pending.is_empty() {
            return Ok(());
        }
        let names = self.pending.iter().map(|outcome| outcome.lease.as_str()).collect::<Vec<_>>();
        write!(f, ", {} pending: {}", names.len(), names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lease: &str) -> v1::LeaseOutcome {
        v1::LeaseOutcome { lease: lease.to_owned(), ..v1::LeaseOutcome::default() }
    }

    #[test]
    fn an_ending_names_what_is_pending() {
        let leases = || vec![outcome("lease_1"), outcome("lease_2")];
        assert_eq!(Ending::new(leases(), &[]).to_string(), "2 confirmed dead");
        let one = Ending::new(leases(), &["lease_2".to_owned()]);
        assert_eq!(one.to_string(), "1 confirmed dead, 1 pending: lease_2");
    }
}
