//! Agents at work while their brokers die: they open tasks, lease, renew, give back, complete and abort, ask again
//! where no answer came, and remember what they were told.

use std::collections::{BTreeMap, BTreeSet};
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
use super::hearts::{Beats, GRACE, Hearts, now};
use crate::child::{OTHER, PAIR};
use crate::site::{login, login_config};
use crate::world::{
    Client, World, by_heartbeat, detail, eventually_within, fresh_id, lease_request, millis, open_request,
    reason, seconds,
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
    /// Tasks that were opened.
    pub(super) tasks: BTreeMap<String, Opened>,
    /// Credentials that were handed over.
    pub(super) granted: Vec<Granted>,
    /// Leases that were given back, and whether that was acknowledged.
    pub(super) released: BTreeMap<String, bool>,
    /// Leases whose renewal was acknowledged, and until when, in milliseconds.
    pub(super) renewed: Vec<(String, i64)>,
    /// Leases of which a renewal had no answer, or a bad one, at least once.
    pub(super) doubtful: BTreeSet<String>,
    /// What holds the tasks that nobody has ended.
    pub(super) hearts: Hearts,
}

/// A task that was opened.
#[derive(Default)]
pub(super) struct Opened {
    /// Why it ends, once its agent has asked for that.
    pub(super) cause: Option<v1::Cause>,
    /// Its end was acknowledged.
    pub(super) ended: bool,
}

/// A credential that was handed over.
pub(super) struct Granted {
    pub(super) lease: String,
    /// When it ends unless it is renewed, as it was promised, in milliseconds.
    pub(super) until: i64,
    /// Task and request id: of all attempts under it, one credential at most is alive.
    pub(super) request: (String, String),
    pub(super) login: Config,
    pub(super) session: Option<Session>,
}

/// Agents at work.
pub(super) struct Load {
    shared: Arc<Shared>,
    agents: Vec<JoinHandle<()>>,
    hearts: Hearts,
}

struct Shared {
    told: Mutex<Told>,
    beats: Arc<Beats>,
    answers: AtomicUsize,
    sessions: AtomicUsize,
    over: AtomicBool,
}

impl Load {
    /// So many of each agent begin, as soon as a door is open, with a pause between two calls.
    pub(super) fn begin(world: &World, doors: &Arc<Doors>, each: u64, pause: Duration, seed: u64) -> Self {
        let mut hearts = Hearts::default();
        let shared = Arc::new(Shared {
            told: Mutex::default(),
            beats: hearts.beats.clone(),
            answers: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let line = |name: &str, n: u64| {
            let seed = seed ^ (n << 8) ^ (name.bytes().fold(0, |sum, byte| sum * 31 + u64::from(byte)));
            Line { endpoint: world.endpoint(name), doors: doors.clone(), dice: Dice::of(seed), client: None }
        };
        AGENTS.into_iter().for_each(|name| hearts.begin(name, line(name, 0)));
        let mut agents = Vec::new();
        for (n, name) in (1..=each).flat_map(|n| AGENTS.map(|name| (n, name))) {
            let mut beat = interval(pause);
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let first = Some(if n % 2 == 1 { Plan::SILENT } else { Plan::KEPT });
            let (line, shared) = (line(name, n), shared.clone());
            agents.push(tokio::spawn(Agent { name, line, shared, beat, first, failures: 0 }.live()));
        }
        Self { shared, agents, hearts }
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

    /// Waits until all have finished what they are at, and gives what they know. Their hearts go on beating.
    pub(super) async fn end(self) -> Told {
        self.shared.over.store(true, Ordering::SeqCst);
        for agent in self.agents {
            agent.await.unwrap();
        }
        Told { hearts: self.hearts, ..std::mem::take(&mut self.shared.told.lock().unwrap()) }
    }
}

/// A way to whoever serves.
pub(super) struct Line {
    endpoint: String,
    doors: Arc<Doors>,
    dice: Dice,
    client: Option<Client>,
}

impl Line {
    /// Whoever it was that answered last, until it does not.
    pub(super) async fn client(&mut self) -> Option<Client> {
        if self.client.is_none() {
            let address = self.doors.any(&self.dice)?.to_string();
            let channel = connect_spiffe(&self.endpoint, &address, None, ANSWER).await.ok()?;
            self.client = Some(Client::new(channel));
        }
        self.client.clone()
    }

    /// It does not answer.
    pub(super) fn hang_up(&mut self) {
        self.client = None;
    }
}

/// What becomes of a task.
#[derive(Clone, Copy)]
struct Plan {
    /// Heartbeats hold it, beside its deadline.
    by_heartbeat: bool,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Completed,
    Aborted,
    /// Its agent loses interest, and goes on beating.
    Kept,
    /// Its agent falls silent.
    Silent,
}

impl Plan {
    /// What is held to the end, whatever dies, and what is lost: each load has some of both.
    const KEPT: Self = Self { by_heartbeat: true, end: End::Kept };
    const SILENT: Self = Self { by_heartbeat: true, end: End::Silent };

    fn roll(dice: &Dice) -> Self {
        let by_heartbeat = dice.chance(500);
        let end = match dice.roll(4) {
            0 if by_heartbeat && dice.chance(500) => End::Silent,
            0 => End::Kept,
            1 => End::Aborted,
            _ => End::Completed,
        };
        Self { by_heartbeat, end }
    }
}

struct Agent {
    name: &'static str,
    line: Line,
    shared: Arc<Shared>,
    beat: Interval,
    /// What becomes of its first task.
    first: Option<Plan>,
    /// How often nobody said how a call went.
    failures: u64,
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
        let plan = self.first.take().unwrap_or_else(|| Plan::roll(&self.line.dice));
        let task = self.open(plan).await?;
        for _ in 0..self.line.dice.between(1, 4) {
            self.lease(&task).await?;
        }
        let cause = match plan.end {
            End::Completed => v1::Cause::TaskCompleted,
            End::Aborted => v1::Cause::TaskAborted,
            End::Kept => return Some(()),
            End::Silent => {
                self.shared.beats.stop(&task.id);
                return Some(());
            }
        };
        self.shared.beats.stop(&task.id);
        self.told(|told| told.tasks.get_mut(&task.id).unwrap().cause = Some(cause));
        let ended = match plan.end {
            End::Aborted => self.abort(&task).await?,
            End::Completed | End::Kept | End::Silent => self.complete(&task).await?,
        };
        if let Err(status) = ended {
            // The broker that ended it died before it could say so.
            assert_eq!(reason(&status), "TASK_ENDED", "{}: {status:?}", task.id);
        }
        self.told(|told| told.tasks.get_mut(&task.id).unwrap().ended = true);
        Some(())
    }

    async fn open(&mut self, plan: Plan) -> Option<v1::Task> {
        let (asked, mut request) = (now(), open_request(&[PAIR, OTHER]));
        if plan.by_heartbeat {
            request.liveness = by_heartbeat(GRACE);
        }
        let task =
            self.ask(|mut client, request| async move { client.open_as(request).await }, request).await?;
        let task = task.unwrap_or_else(|status| panic!("a task was refused: {status:?}"));
        self.told(|told| _ = told.tasks.insert(task.id.clone(), Opened::default()));
        if plan.by_heartbeat {
            self.shared.beats.begin(&task.id, self.name, asked);
        }
        Some(task)
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
        let pair = if self.line.dice.chance(500) { PAIR } else { OTHER };
        let ttl = if self.line.dice.chance(200) { seconds(BRIEF) } else { None };
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
        let lease = granted.lease.unwrap();
        let (lease, until) = (lease.id, millis(lease.expires_at));
        let login_config = login_config(&granted.credential.unwrap());
        let session = self.use_it(&login_config).await;
        let request = (task.id.clone(), request.request_id);
        let granted = Granted { lease: lease.clone(), until, request, login: login_config, session };
        self.told(|told| told.granted.push(granted));
        match self.line.dice.roll(4) {
            0 => self.renew(&lease).await,
            1 | 2 => self.release(&lease).await,
            _ => Some(()),
        }
    }

    /// Some log in and stay.
    async fn use_it(&mut self, config: &Config) -> Option<Session> {
        let uses =
            self.line.dice.chance(250) && self.shared.sessions.fetch_add(1, Ordering::SeqCst) < SESSIONS;
        if uses { timeout(ANSWER, login(config)).await.ok()?.ok() } else { None }
    }

    /// It may have ended meanwhile, which is an answer.
    async fn renew(&mut self, lease: &str) -> Option<()> {
        let request =
            v1::RenewLeaseRequest { lease: lease.to_owned(), ttl: seconds(900), request_id: fresh_id() };
        let renew = |mut client: Client, request| async move { client.leases.renew_lease(request).await };
        let failures = self.failures;
        let answer = self.ask(renew, request).await;
        if self.failures > failures || !matches!(answer, Some(Ok(_))) {
            self.told(|told| _ = told.doubtful.insert(lease.to_owned()));
        }
        if let Ok(renewed) = answer? {
            let until = renewed.into_inner().lease.unwrap().expires_at;
            self.told(|told| told.renewed.push((lease.to_owned(), millis(until))));
        }
        Some(())
    }

    async fn release(&mut self, lease: &str) -> Option<()> {
        let wait = if self.line.dice.chance(500) { seconds(2) } else { None };
        let request = v1::ReleaseLeaseRequest { lease: lease.to_owned(), wait };
        let release = |mut client: Client, request| async move { client.leases.release_lease(request).await };
        self.told(|told| _ = told.released.insert(lease.to_owned(), false));
        if self.ask(release, request).await?.is_ok() {
            self.told(|told| _ = told.released.insert(lease.to_owned(), true));
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
            let Some(client) = self.line.client().await else { continue };
            match timeout(ANSWER, call(client, question.clone())).await {
                Ok(Ok(answer)) => {
                    self.shared.answers.fetch_add(1, Ordering::SeqCst);
                    return Some(Ok(answer));
                }
                Ok(Err(status)) if is_final(&status) => return Some(Err(status)),
                Ok(Err(status)) if is_answered(&status) => self.failures += 1,
                Ok(Err(_)) | Err(_) => {
                    self.failures += 1;
                    self.line.hang_up();
                }
            }
        }
        None
    }
}

/// Seconds that some leases live, so that expiry is at work too.
pub(super) const BRIEF: i64 = 12;

/// Whether a broker said it, and not the connection to one.
pub(super) fn is_answered(status: &Status) -> bool {
    status.get_details_error_info().is_some()
}

/// Whether asking the same again is of no use.
pub(super) fn is_final(status: &Status) -> bool {
    const TRY_AGAIN: [Code; 3] = [Code::Unavailable, Code::Aborted, Code::ResourceExhausted];
    is_answered(status) && !TRY_AGAIN.contains(&status.code())
}
