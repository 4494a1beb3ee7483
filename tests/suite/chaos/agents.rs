//! Agents at work while their brokers die: they open tasks, lease, renew, give back, complete and abort, ask again
//! where no answer came, and remember what they were told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold_client::channel::connect_spiffe;
use leasehold_proto::v1;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_postgres::{Client as Session, Config};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::dice::Dice;
use crate::child::{OTHER, PAIR};
use crate::site::{login, login_config};
use crate::world::{
    Client, World, detail, eventually_within, fresh_id, lease_request, millis, open_request, reason, seconds,
};

/// Who is at work.
pub(super) const AGENTS: [&str; 2] = ["triage", "other"];
/// How long an agent waits for an answer before it asks elsewhere.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a load may go without an answer before its test fails.
const STANDSTILL: Duration = Duration::from_secs(90);
/// The most sessions that agents hold open: a target has a hundred places.
const SESSIONS: usize = 20;

/// Where brokers serve at present, by their number.
#[derive(Default)]
pub(super) struct Doors(Mutex<BTreeMap<usize, SocketAddr>>);

impl Doors {
    pub(super) fn open(&self, broker: usize, address: SocketAddr) {
        self.0.lock().unwrap().insert(broker, address);
    }

    pub(super) fn close(&self, broker: usize) {
        self.0.lock().unwrap().remove(&broker);
    }

    fn any(&self, dice: &Dice) -> Option<SocketAddr> {
        let open: Vec<_> = self.0.lock().unwrap().values().copied().collect();
        dice.pick(&open).copied()
    }
}

/// What agents were told, and may hold their brokers to.
#[derive(Default)]
pub(super) struct Told {
    /// Tasks that were opened, and whether their end was acknowledged.
    pub(super) tasks: BTreeMap<String, bool>,
    /// Credentials that were handed over.
    pub(super) granted: Vec<Granted>,
    /// Leases whose release was acknowledged.
    pub(super) released: Vec<String>,
    /// Leases whose renewal was acknowledged, and until when, in milliseconds.
    pub(super) renewed: Vec<(String, i64)>,
}

/// A credential that was handed over.
pub(super) struct Granted {
    pub(super) lease: String,
    /// Task and request id: of all attempts under it, one credential at most is alive.
    pub(super) request: (String, String),
    pub(super) login: Config,
    pub(super) session: Option<Session>,
}

/// Agents at work.
pub(super) struct Load {
    shared: Arc<Shared>,
    agents: Vec<JoinHandle<()>>,
}

struct Shared {
    doors: Arc<Doors>,
    told: Mutex<Told>,
    answers: AtomicUsize,
    sessions: AtomicUsize,
    over: AtomicBool,
}

impl Load {
    /// So many of each agent begin, as soon as a door is open, with a pause between two calls.
    pub(super) fn begin(world: &World, doors: &Arc<Doors>, each: u64, pause: Duration, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            doors: doors.clone(),
            told: Mutex::default(),
            answers: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let mut agents = Vec::new();
        for (n, name) in (1..=each).flat_map(|n| AGENTS.map(|name| (n, name))) {
            let mut beat = interval(pause);
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let dice =
                Dice::of(seed ^ (n << 8) ^ (name.bytes().fold(0, |sum, byte| sum * 31 + u64::from(byte))));
            let endpoint = world.endpoint(name);
            let agent = Agent { endpoint, shared: shared.clone(), dice, client: None, beat };
            agents.push(tokio::spawn(agent.live()));
        }
        Self { shared, agents }
    }

    /// Waits until so many more calls were answered well.
    pub(super) async fn answers(&self, count: u64) {
        let count = usize::try_from(count).unwrap();
        let until = self.shared.answers.load(Ordering::SeqCst) + count;
        eventually_within(STANDSTILL, "agents are answered", || async {
            assert!(
                !self.agents.iter().any(JoinHandle::is_finished),
                "an agent gave up: its panic stands above"
            );
            self.shared.answers.load(Ordering::SeqCst) >= until
        })
        .await;
    }

    /// Waits until all have finished what they are at, and gives what they know.
    pub(super) async fn end(self) -> Told {
        self.shared.over.store(true, Ordering::SeqCst);
        for agent in self.agents {
            agent.await.unwrap();
        }
        std::mem::take(&mut self.shared.told.lock().unwrap())
    }
}

struct Agent {
    endpoint: String,
    shared: Arc<Shared>,
    dice: Dice,
    client: Option<Client>,
    beat: Interval,
}

impl Agent {
    async fn live(mut self) {
        while !self.is_over() {
            // None is the end of the load.
            _ = self.task().await;
        }
    }

    fn is_over(&self) -> bool {
        self.shared.over.load(Ordering::SeqCst)
    }

    fn told(&self, note: impl FnOnce(&mut Told)) {
        note(&mut self.shared.told.lock().unwrap());
    }

    /// One task from its beginning to its end, or until its agent loses interest.
    async fn task(&mut self) -> Option<()> {
        let request = open_request(&[PAIR, OTHER]);
        let task =
            self.ask(|mut client, request| async move { client.open_as(request).await }, request).await?;
        let task = task.unwrap_or_else(|status| panic!("a task was refused: {status:?}"));
        self.told(|told| _ = told.tasks.insert(task.id.clone(), false));
        for _ in 0..self.dice.between(1, 4) {
            self.lease(&task).await?;
        }
        let ended = match self.dice.roll(4) {
            0 => return Some(()),
            1 => self.abort(&task).await?,
            _ => self.complete(&task).await?,
        };
        if let Err(status) = ended {
            // The broker that ended it died before it could say so.
            assert_eq!(reason(&status), "TASK_ENDED", "{}: {status:?}", task.id);
        }
        self.told(|told| _ = told.tasks.insert(task.id.clone(), true));
        Some(())
    }

    async fn complete(&mut self, task: &v1::Task) -> Option<Result<(), Status>> {
        let request = v1::CompleteTaskRequest { task: task.id.clone(), wait: seconds(2) };
        let complete = |mut client: Client, request| async move { client.tasks.complete_task(request).await };
        Some(self.ask(complete, request).await?.map(drop))
    }

    async fn abort(&mut self, task: &v1::Task) -> Option<Result<(), Status>> {
        let reason = "no more use for it".to_owned();
        let request = v1::AbortTaskRequest { task: task.id.clone(), reason, wait: None };
        let abort = |mut client: Client, request| async move { client.tasks.abort_task(request).await };
        Some(self.ask(abort, request).await?.map(drop))
    }

    /// One lease, by as many attempts as it takes; used, renewed, given back or left to its task.
    async fn lease(&mut self, task: &v1::Task) -> Option<()> {
        let pair = if self.dice.chance(500) { PAIR } else { OTHER };
        let ttl = if self.dice.chance(200) { seconds(BRIEF) } else { None };
        let mut request = v1::RequestLeaseRequest { ttl, ..lease_request(task, pair) };
        let granted = loop {
            let lease =
                |mut client: Client, request| async move { client.leases.request_lease(request).await };
            match self.ask(lease, request.clone()).await? {
                Ok(granted) => break granted.into_inner(),
                Err(status) if reason(&status) == "ATTEMPT_SPENT" => {
                    request.attempt = detail(&status, "next_attempt").parse().unwrap();
                }
                Err(status) => panic!("a lease was refused: {status:?}"),
            }
        };
        let lease = granted.lease.unwrap().id;
        let login_config = login_config(&granted.credential.unwrap());
        let session = self.use_it(&login_config).await;
        let request = (task.id.clone(), request.request_id);
        let granted = Granted { lease: lease.clone(), request, login: login_config, session };
        self.told(|told| told.granted.push(granted));
        match self.dice.roll(4) {
            0 => self.renew(&lease).await,
            1 | 2 => self.release(&lease).await,
            _ => Some(()),
        }
    }

    /// Some log in and stay.
    async fn use_it(&mut self, config: &Config) -> Option<Session> {
        let uses = self.dice.chance(250) && self.shared.sessions.fetch_add(1, Ordering::SeqCst) < SESSIONS;
        if uses { timeout(ANSWER, login(config)).await.ok()?.ok() } else { None }
    }

    /// It may have ended meanwhile, which is an answer.
    async fn renew(&mut self, lease: &str) -> Option<()> {
        let request =
            v1::RenewLeaseRequest { lease: lease.to_owned(), ttl: seconds(900), request_id: fresh_id() };
        let renew = |mut client: Client, request| async move { client.leases.renew_lease(request).await };
        if let Ok(renewed) = self.ask(renew, request).await? {
            let until = renewed.into_inner().lease.unwrap().expires_at;
            self.told(|told| told.renewed.push((lease.to_owned(), millis(until))));
        }
        Some(())
    }

    async fn release(&mut self, lease: &str) -> Option<()> {
        let wait = if self.dice.chance(500) { seconds(2) } else { None };
        let request = v1::ReleaseLeaseRequest { lease: lease.to_owned(), wait };
        let release = |mut client: Client, request| async move { client.leases.release_lease(request).await };
        if self.ask(release, request).await?.is_ok() {
            self.told(|told| told.released.push(lease.to_owned()));
        }
        Some(())
    }

    /// Asks until a broker answers: `None` where the load is over before one does. The same question goes to whoever
    /// serves now, where nobody knows what became of it.
    async fn ask<Q, A, F>(&mut self, call: impl Fn(Client, Q) -> F, question: Q) -> Option<Result<A, Status>>
    where
        Q: Clone,
        F: Future<Output = Result<A, Status>>,
    {
        while !self.is_over() {
            self.beat.tick().await;
            let Some(client) = self.client().await else { continue };
            match timeout(ANSWER, call(client, question.clone())).await {
                Ok(Ok(answer)) => {
                    self.shared.answers.fetch_add(1, Ordering::SeqCst);
                    return Some(Ok(answer));
                }
                Ok(Err(status)) if is_final(&status) => return Some(Err(status)),
                Ok(Err(status)) if is_answered(&status) => {}
                Ok(Err(_)) | Err(_) => self.client = None,
            }
        }
        None
    }

    /// Whoever it was that answered last, until it does not.
    async fn client(&mut self) -> Option<Client> {
        if self.client.is_none() {
            let address = self.shared.doors.any(&self.dice)?.to_string();
            let channel = connect_spiffe(&self.endpoint, &address, None, ANSWER).await.ok()?;
            self.client = Some(Client::new(channel));
        }
        self.client.clone()
    }
}

/// Seconds that some leases live, so that expiry is at work too.
pub(super) const BRIEF: i64 = 12;

/// Whether a broker said it, and not the connection to one.
fn is_answered(status: &Status) -> bool {
    status.get_details_error_info().is_some()
}

/// Whether asking the same again is of no use.
fn is_final(status: &Status) -> bool {
    const TRY_AGAIN: [Code; 3] = [Code::Unavailable, Code::Aborted, Code::ResourceExhausted];
    is_answered(status) && !TRY_AGAIN.contains(&status.code())
}
