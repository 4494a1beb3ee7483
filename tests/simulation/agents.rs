//! Agents at work: they open tasks, ask for leases, log in, renew, give back, change their minds, fall silent, and hang
//! up in the middle of a call.

use std::sync::Arc;
use std::time::Duration;

use leasehold::broker::{Asker, Credential, Delivery, Refused};
use leasehold_law::behalf::OnBehalfOf;
use leasehold_law::caller::{ProvenBy, Vouched};
use leasehold_law::cause::Cause;
use leasehold_law::id::{LeaseId, TaskId};
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::param::Params;
use leasehold_law::reason::Reason;
use leasehold_law::request::{LeaseRequest, Liveness, OpenRequest, Refs};
use leasehold_law::scope::{Scope, ScopeEntry};
use leasehold_law::task::{Task, TaskState};
use leasehold_law::time::Span;

use crate::ground::{PAIRS, REF, RUNS, agents, people};
use crate::life::pause;
use crate::punctual::{Beat, Moment};
use crate::world::{Skip, World};

/// How long a person's token lives: shorter than many tasks.
const TOKEN_LIFE: Span = Span::from_secs(20);

/// One agent, or one of several processes of it.
struct Agent {
    world: Arc<World>,
    asker: Asker,
}

/// Works until the weather is calm, then holds what it has until it is told to be silent.
pub(crate) async fn live(world: Arc<World>, n: usize) {
    let ids = agents();
    let id = ids[n % ids.len()].clone();
    let agent = Agent { world: world.clone(), asker: Asker { id, proof: ProvenBy::X509Svid } };
    for count in 0_u64.. {
        pause(world.dice.millis(0, 4000)).await;
        if world.silence.is_cancelled() {
            return;
        }
        agent.work_on_a_task(&format!("task-{n}-{count}")).await;
    }
}

impl Agent {
    async fn work_on_a_task(&self, name: &str) {
        let Some(task) = self.open(name).await else { return };
        let dice = &self.world.dice;
        let mut held = Vec::new();
        for step in 0..dice.between(2, 9) {
            pause(dice.millis(0, 4000)).await;
            if self.world.weather.is_calm() {
                return self.hold(task).await;
            }
            self.step(task, &mut held, step).await;
        }
        match dice.roll(6) {
            0..=2 => self.end(task, Cause::TaskCompleted).await,
            3 => self.end(task, Cause::TaskAborted).await,
            4 => {}
            _ => self.hold(task).await,
        }
    }

    async fn step(&self, task: TaskId, held: &mut Vec<LeaseId>, step: u64) {
        match self.world.dice.roll(14) {
            0..=3 => held.extend(self.request(task, &format!("r{step}")).await),
            4..=6 => self.renew(held).await,
            7 => self.release(held).await,
            8 => self.change_scope(task).await,
            9 | 10 => drop(self.heartbeat(task).await),
            11 | 12 => held.extend(self.two_at_once(task, held, step).await),
            _ => pause(self.world.dice.millis(5000, 35_000)).await,
        }
    }

    /// While a lease is minted, the task under it changes, ends, or asks for the same again.
    async fn two_at_once(&self, task: TaskId, held: &[LeaseId], step: u64) -> Option<LeaseId> {
        let dice = &self.world.dice;
        let name = format!("r{step}");
        let other = async {
            pause(dice.millis(0, 120)).await;
            match dice.roll(4) {
                0 | 1 => self.change_scope(task).await,
                2 => drop(self.request(task, &name).await),
                _ if dice.chance(300) => self.end(task, Cause::TaskCompleted).await,
                _ => self.release(held).await,
            }
        };
        futures::join!(self.request(task, &name), other).0
    }

    async fn open(&self, name: &str) -> Option<TaskId> {
        let dice = &self.world.dice;
        let request = OpenRequest {
            request_id: name.parse().unwrap(),
            purpose: "the simulation".to_owned(),
            scope: self.scope(),
            liveness: match dice.chance(750) {
                true => Liveness::Heartbeat { grace: Span::from_secs(dice.between(30, 45)) },
                false => Liveness::Deadline,
            },
            deadline: dice.chance(500).then(|| Span::from_secs(dice.between(30, 100))),
            refs: Refs::from([(REF.to_owned(), dice.roll(RUNS).to_string())]),
            manifest: None,
            on_behalf_of: None,
        };
        let person = if dice.chance(300) { dice.pick(&people()).cloned() } else { None };
        let mut first: Option<TaskId> = None;
        for _ in 0..3 {
            let answer = self.world.call("open", |b| open(b, &self.asker, &request, person.clone())).await;
            match answer {
                Some(Ok(task)) => {
                    self.on_record(&task);
                    if first.is_some_and(|id| id != task.terms.id) {
                        self.world.history.wrong(format!("{name} was opened twice"));
                    }
                    if dice.chance(900) {
                        return Some(task.terms.id);
                    }
                    first = Some(task.terms.id);
                }
                Some(Err(refused)) if refused.retry_after.is_none() => return None,
                Some(Err(_)) | None => {}
            }
            pause(dice.millis(100, 3000)).await;
        }
        first
    }

    /// What a caller was told is durable.
    fn on_record(&self, task: &Task) {
        if !self.world.record.rows().tasks.contains_key(&task.terms.id) {
            self.world.history.wrong(format!("{} was opened, and is not on record", task.terms.id));
        }
    }

    /// One to four pairs.
    fn scope(&self) -> Scope {
        let dice = &self.world.dice;
        let mut entries: Vec<ScopeEntry> = Vec::new();
        for _ in 0..dice.between(1, 5) {
            let pair = PAIRS[usize::try_from(dice.roll(6)).unwrap()].parse().unwrap();
            if entries.iter().all(|entry| entry.pair != pair) {
                let max_ttl = dice.chance(200).then(|| Span::from_secs(dice.between(15, 40)));
                entries.push(ScopeEntry { max_ttl, ..ScopeEntry::of(pair) });
            }
        }
        Scope::new(entries).unwrap()
    }

    /// Asks until it has a lease, or has a reason to give up.
    async fn request(&self, task: TaskId, name: &str) -> Option<LeaseId> {
        let dice = &self.world.dice;
        let pairs = self.pairs_of(task);
        let mut request = LeaseRequest {
            task,
            pair: dice.pick(&pairs)?.parse().unwrap(),
            params: Params::new(),
            ttl: dice.chance(400).then(|| Span::from_secs(dice.between(5, 60))),
            request_id: name.parse().unwrap(),
            attempt: 1,
        };
        for _ in 0..4 {
            let answer = self.world.call("request", |b| ask(b, &self.asker, &request)).await;
            match answer {
                Some(Ok((lease, credential, delivery))) => {
                    self.world.record.handed(&self.world, lease.terms.id);
                    self.world.history.note(format!("{} is handed out for {name}", lease.terms.id));
                    self.use_it(&lease, &credential);
                    if dice.chance(850) {
                        delivery.confirm();
                        return Some(lease.terms.id);
                    }
                }
                Some(Err(refused)) if refused.reason == Reason::AttemptSpent => {
                    request.attempt += 1;
                    self.world.history.note(format!("request {name}: attempt {} follows", request.attempt));
                }
                Some(Err(refused)) => {
                    self.world.history.note(format!("request {name}: {refused}"));
                    refused.retry_after?;
                }
                None => {}
            }
            pause(dice.millis(100, 4000)).await;
        }
        None
    }

    /// The pairs of its scope, and sometimes one beside it.
    fn pairs_of(&self, task: TaskId) -> Vec<String> {
        let rows = self.world.record.rows();
        let scope = rows.tasks.get(&task).map(|task| task.scope.entries().to_vec()).unwrap_or_default();
        let beside = self.world.dice.chance(50).then(|| PAIRS[6].to_owned());
        scope.iter().map(|entry| entry.pair.to_string()).chain(beside).collect()
    }

    /// Logs in, at once or so slowly that the login arrives later.
    fn use_it(&self, lease: &Lease, credential: &Credential) {
        let dice = &self.world.dice;
        if !dice.chance(600) {
            return;
        }
        let user = credential.public.get("user").unwrap();
        let password = credential.secret.get("password").unwrap();
        let site = self.world.site(&lease.terms.pair.target).clone();
        let slowly = dice.chance(300);
        let session = site.log_in(user, password.expose(), slowly);
        if let Some(session) = session.filter(|_| slowly) {
            let after = dice.millis(100, 8000);
            tokio::spawn(async move {
                pause(after).await;
                site.arrive(session);
            });
        }
    }

    async fn renew(&self, held: &mut Vec<LeaseId>) {
        let dice = &self.world.dice;
        held.retain(|id| self.world.record.rows().is_usable(*id));
        let Some(id) = dice.pick(held).copied() else { return };
        let ttl = dice.chance(500).then(|| Span::from_secs(dice.between(5, 60)));
        let request = format!("renew-{}", dice.roll(4)).parse().unwrap();
        let renew = async |b: leasehold::broker::Broker| b.renew(&self.asker, id, ttl, &request).await;
        let answer = self.world.call("renew", renew).await;
        if let Some(Err(refused)) = answer {
            self.world.history.note(format!("renew {id}: {refused}"));
        }
    }

    async fn release(&self, held: &[LeaseId]) {
        let dice = &self.world.dice;
        let Some(id) = dice.pick(held).copied() else { return };
        let wait = Span(dice.roll(8000));
        let release = async |b: leasehold::broker::Broker| {
            b.end_own_lease(&self.asker, id, Cause::Released, wait).await
        };
        if let Some(Ok(settled)) = self.world.call("release", release).await {
            let dead =
                settled.leases.iter().filter(|lease| matches!(lease.state, LeaseState::Revoked { .. }));
            dead.for_each(|lease| self.world.history.note(format!("{} is given back", lease.terms.id)));
        }
    }

    async fn change_scope(&self, task: TaskId) {
        let (scope, wait) = (self.scope(), Span(self.world.dice.roll(5000)));
        let change =
            async |b: leasehold::broker::Broker| b.change_scope(&self.asker, task, scope, wait).await;
        if let Some(Err(refused)) = self.world.call("change scope", change).await {
            self.world.history.note(format!("change scope of {task}: {refused}"));
        }
    }

    /// Whether the task goes on.
    async fn heartbeat(&self, task: TaskId) -> bool {
        let person = self.world.record.rows().tasks.get(&task).and_then(|task| task.person().cloned());
        let person = person.filter(|_| self.world.dice.chance(500));
        let beat = async |broker: leasehold::broker::Broker| {
            let sent = Moment::of(&self.world, broker.now());
            if self.world.skip != Some(Skip::Heartbeats) {
                broker.heartbeat(&self.asker, task).await?;
            }
            let answered = Moment::of(&self.world, broker.now());
            self.world.record.rows().beats.heard(task, Beat(sent, answered));
            match person {
                Some(person) => {
                    broker.renew_session(&self.asker, task, &proven(&broker, person)).await.map(drop)
                }
                None => Ok(()),
            }
        };
        !matches!(self.world.call("heartbeat", beat).await, Some(Err(_)))
    }

    async fn end(&self, task: TaskId, cause: Cause) {
        let wait = Span(self.world.dice.roll(10_000));
        let end = async |b: leasehold::broker::Broker| {
            if cause == Cause::TaskAborted {
                drop(b.note_abort(&self.asker, task, "it makes no sense").await);
            }
            b.end_own_task(&self.asker, task, cause, wait).await
        };
        if let Some(Ok(_)) = self.world.call("end", end).await {
            let rows = self.world.record.rows();
            if rows.tasks.get(&task).is_some_and(|task| task.state == TaskState::Open) {
                self.world.history.wrong(format!("{task} was ended, and is open on record"));
            }
        }
    }

    /// Heartbeats, and one lease after another, until the task ends or all agents fall silent.
    async fn hold(&self, task: TaskId) {
        for beat in 0_u64.. {
            if self.world.silence.is_cancelled() || !self.heartbeat(task).await {
                return;
            }
            if self.world.weather.is_calm() && beat % 2 == 0 {
                self.request(task, &format!("hold-{beat}")).await;
            }
            pause(Duration::from_secs(10)).await;
        }
    }
}

async fn open(
    broker: leasehold::broker::Broker,
    asker: &Asker,
    request: &OpenRequest,
    person: Option<Vouched>,
) -> Result<Task, Refused> {
    let person = std::future::ready(Ok(person.map(|person| proven(&broker, person))));
    broker.open_task(asker, request.clone(), person).await.map(|opened| opened.task)
}

/// What a token of a person proves that is good for a while.
fn proven(broker: &leasehold::broker::Broker, person: Vouched) -> OnBehalfOf {
    OnBehalfOf { person, until: Some(broker.now() + TOKEN_LIFE) }
}

async fn ask(
    broker: leasehold::broker::Broker,
    asker: &Asker,
    request: &LeaseRequest,
) -> Result<(Lease, Credential, Delivery), Refused> {
    let requested = broker.request(asker, request.clone()).await?;
    Ok((requested.minted.lease, requested.minted.credential, requested.delivery))
}
