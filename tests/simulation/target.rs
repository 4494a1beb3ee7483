//! A target as a broker sees it in bad weather: slow, down, hung, half done, done without an answer, done too late.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use leasehold_backend::{
    Alive, Backend, BackendError, Capabilities, Claim, Found, GrantView, Health, Issued, Page, Problem,
    Reaped, Renewed, RevokeOrder, RevokeReport, Statement,
};
use leasehold_law::catalog::Recipe;
use leasehold_law::lease::{Grade, Reached, Sessions};
use leasehold_law::policy::{IssueOrder, RenewOrder};
use leasehold_law::principal::PrincipalName;
use leasehold_memory::{Account, Call, Fault, MemoryBackend, MemoryTarget, Rule, SessionId, Settings};
use tokio::sync::oneshot;

use crate::dice::Dice;
use crate::life::{Flights, Life, pause};
use crate::punctual::Hindrance;
use crate::time::{Bits, SimTime};
use crate::world::{Skip, World};

/// One target, which no crash of the broker touches.
pub(crate) struct Site {
    pub(crate) name: &'static str,
    pub(crate) target: Arc<MemoryTarget>,
    backend: MemoryBackend,
    down: AtomicBool,
    /// Calls that are still on their way, whoever waits for them.
    pub(crate) flights: Flights,
    /// What stands in the way of its calls.
    pub(crate) hindrance: Hindrance,
    /// Sessions that agents opened: whose, and whether they have arrived.
    sessions: Mutex<Vec<Session>>,
}

#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) principal: String,
    pub(crate) arrived: bool,
}

impl Site {
    /// Its clock is a little off, sometimes by more than the broker takes.
    pub(crate) fn new(name: &'static str, grade: Grade, dice: &Dice, time: Arc<SimTime>) -> Arc<Self> {
        let seed = dice.roll(u64::MAX);
        let off = if dice.chance(30) { 90_000 } else { 3000 };
        let off = i64::try_from(dice.roll(2 * off)).unwrap() - i64::try_from(off).unwrap();
        let target = Arc::new(MemoryTarget::new(Settings::of(grade), Bits::of_target(seed, time)));
        target.set_clock_offset(off);
        Arc::new(Self {
            name,
            backend: MemoryBackend::new(target.clone()),
            target,
            down: AtomicBool::new(false),
            flights: Flights::default(),
            hindrance: Hindrance::default(),
            sessions: Mutex::default(),
        })
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Those who could log in now.
    pub(crate) fn usable(&self) -> BTreeMap<String, Account> {
        let now = self.target.now();
        let Settings(can) = self.target.settings();
        let over = |account: &Account| can.enforces_expiry && now >= account.ends;
        let mut accounts = self.target.accounts();
        accounts.retain(|_, account| account.disabled.is_none() && !over(account));
        accounts
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.target.settings().0.grade == Grade::Exact
    }

    /// An agent logs in, at once or slowly.
    pub(crate) fn log_in(&self, user: &str, password: &[u8], slowly: bool) -> Option<SessionId> {
        let login = if slowly { MemoryTarget::begin_login } else { MemoryTarget::login };
        let id = login(&self.target, user, password)?;
        let session = Session { id, principal: user.to_owned(), arrived: !slowly };
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        Some(id)
    }

    /// A slow login comes to its end.
    pub(crate) fn arrive(&self, id: SessionId) {
        self.target.arrive(id);
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.iter_mut().filter(|session| session.id == id).for_each(|session| session.arrived = true);
    }

    /// The sessions that are served.
    pub(crate) fn served(&self) -> Vec<Session> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sessions.into_iter().filter(|session| self.target.serves(session.id)).collect()
    }
}

/// A target in the hands of one life of the broker.
#[derive(Clone)]
pub(crate) struct SimBackend {
    pub(crate) world: Arc<World>,
    pub(crate) life: Life,
    pub(crate) site: Arc<Site>,
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    Failed,
    AnswerLost,
    Hung,
    DoneAndHung,
}

impl SimBackend {
    fn fate(&self) -> Fate {
        let World { dice, weather, .. } = &*self.world;
        let rates = weather.rates();
        if self.site.is_down() {
            return if dice.chance(500) { Fate::Failed } else { Fate::Hung };
        }
        if dice.chance(rates.target_failed) {
            return Fate::Failed;
        }
        if dice.chance(rates.answer_lost) {
            return Fate::AnswerLost;
        }
        if dice.chance(rates.target_hung) {
            return if dice.chance(500) { Fate::Hung } else { Fate::DoneAndHung };
        }
        Fate::Done
    }

    /// A call, from the broker to the target and back. What is on its way is not stopped by a crash.
    async fn call<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        self.life.risk("before call", what).await;
        let fate = self.fate();
        let answer = {
            let _flight = self.site.flights.begin();
            let _hindering = self.site.hindrance.begin(&self.world, fate != Fate::Done);
            self.travel(fate, work).await
        };
        self.life.still().await;
        self.world.history.note(format!("{} {what}: {fate:?}, {}", self.site.name, ok_or(&answer)));
        self.life.risk("after call", what).await;
        answer
    }

    async fn travel<T>(
        &self,
        fate: Fate,
        work: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let World { dice, weather, .. } = &*self.world;
        pause(weather.distance(dice)).await;
        match fate {
            Fate::Failed => return Err(lost(&self.site)),
            Fate::Hung => pending::<()>().await,
            Fate::Done | Fate::AnswerLost | Fate::DoneAndHung => {}
        }
        let answer = work.await;
        if fate == Fate::DoneAndHung {
            pending::<()>().await;
        }
        pause(weather.distance(dice)).await;
        if fate == Fate::AnswerLost { Err(lost(&self.site)) } else { answer }
    }

    /// A mint or a renewal that lies in the target for a while, though the broker has given it up.
    async fn leave_late<T>(
        &self,
        call: Call,
        name: &PrincipalName,
        work: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        self.life.risk("before late", name.as_str()).await;
        self.site.target.faults.add(Rule::once(call, Fault::late()).on(name.as_str()));
        drop(work.await);
        let (world, site) = (self.world.clone(), self.site.clone());
        let (after, flight) = (self.world.dice.millis(500, 14_000), site.flights.begin());
        self.site.hindrance.note(&world);
        world.history.note(format!("{} {call:?} {name} is late by {after:?}", site.name));
        tokio::spawn(async move {
            pause(after).await;
            let landed = site.target.land();
            world.history.note(format!("{} landed: {landed:?}", site.name));
            world.record.landed(&world, &site);
            site.hindrance.note(&world);
            drop(flight);
        });
        if self.world.dice.chance(500) { Err(lost(&self.site)) } else { pending().await }
    }

    /// Each order for itself: one that comes no further than some step never stops another.
    async fn revoke_all(&self, orders: &[RevokeOrder]) -> Vec<RevokeReport> {
        let mut reports = Vec::new();
        for order in orders {
            reports.push(self.revoke_one(order).await);
        }
        reports
    }

    async fn revoke_one(&self, order: &RevokeOrder) -> RevokeReport {
        let World { dice, weather, skip, record, .. } = &*self.world;
        record.killing(order.principal.as_str());
        if *skip == Some(Skip::ReadBack) {
            return unread();
        }
        if self.site.is_exact() && dice.chance(weather.rates().partial) {
            self.site.hindrance.note(&self.world);
            let fault = partial(dice);
            self.site.target.faults.add(Rule::once(Call::Revoke, fault).on(order.principal.as_str()));
        }
        let reports = self.site.backend.revoke(std::slice::from_ref(order)).await;
        reports.into_iter().next().unwrap_or_else(|| RevokeReport::failed("no report"))
    }
}

/// What a backend would say that never looked.
fn unread() -> RevokeReport {
    RevokeReport {
        reached: Reached::Removed,
        sessions: Sessions::None,
        absent: false,
        handle: None,
        target_now: None,
        error: None,
        remains: Vec::new(),
        unasked: false,
    }
}

fn partial(dice: &Dice) -> Fault {
    match dice.roll(5) {
        0 => Fault::StopAt(Reached::None, Sessions::Unknown),
        1 => Fault::StopAt(Reached::Disabled, Sessions::Unknown),
        2 => Fault::StopAt(Reached::Cut, Sessions::Reaping),
        3 => Fault::down(),
        _ => Fault::lost_answer(),
    }
}

fn lost(site: &Site) -> BackendError {
    BackendError::Transient { target: site.name.to_owned(), what: "bad weather".to_owned() }
}

fn ok_or<T>(answer: &Result<T, BackendError>) -> String {
    answer.as_ref().map_or_else(ToString::to_string, |_| "ok".to_owned())
}

#[async_trait]
impl Backend for SimBackend {
    fn capabilities(&self) -> Capabilities {
        self.site.backend.capabilities()
    }

    fn check_recipe(&self, recipe: &Recipe) -> Vec<Problem> {
        self.site.backend.check_recipe(recipe)
    }

    async fn issue(&self, order: &IssueOrder) -> Result<Issued, BackendError> {
        let work = self.site.backend.issue(order);
        if !self.site.is_down() && self.world.dice.chance(self.world.weather.rates().late) {
            return self.leave_late(Call::Issue, order.principal(), work).await;
        }
        let landing = async {
            let issued = work.await;
            self.world.record.landed(&self.world, &self.site);
            issued
        };
        self.call(&format!("issue {}", order.principal()), landing).await
    }

    async fn renew(&self, order: &RenewOrder) -> Result<Renewed, BackendError> {
        let work = self.site.backend.renew(order);
        if !self.site.is_down() && self.world.dice.chance(self.world.weather.rates().late) {
            return self.leave_late(Call::Renew, order.principal(), work).await;
        }
        self.call(&format!("renew {}", order.principal()), work).await
    }

    async fn lookup(&self, name: &PrincipalName) -> Result<Option<Found>, BackendError> {
        self.call(&format!("lookup {name}"), self.site.backend.lookup(name)).await
    }

    /// Carried out to its end by the target, though the broker may have given it up.
    async fn revoke(&self, orders: &[RevokeOrder]) -> Vec<RevokeReport> {
        let names: Vec<_> = orders.iter().map(|order| order.principal.to_string()).collect();
        let what = format!("revoke {}", names.join(" "));
        let (backend, orders_there) = (self.clone(), orders.to_vec());
        let work = async move {
            let (answer, answered) = oneshot::channel();
            tokio::spawn(async move { drop(answer.send(backend.revoke_all(&orders_there).await)) });
            answered.await.map_err(|_| BackendError::Absent)
        };
        match self.call(&what, work).await {
            Ok(reports) => {
                let told = |report: &RevokeReport| format!("{:?}/{:?}", report.reached, report.sessions);
                let told: Vec<_> = reports.iter().map(told).collect();
                self.world.history.note(format!("{} reports {}", self.site.name, told.join(" ")));
                reports
            }
            Err(error) => orders.iter().map(|_| RevokeReport::failed(&error)).collect(),
        }
    }

    async fn late_sessions(&self) -> Result<Vec<String>, BackendError> {
        self.call("late sessions", self.site.backend.late_sessions()).await
    }

    async fn reap(&self, handles: &[String]) -> Result<Vec<Reaped>, BackendError> {
        self.call("reap", self.site.backend.reap(handles)).await
    }

    async fn probe(&self, issued: &Issued) -> Result<Alive, BackendError> {
        self.call("probe", self.site.backend.probe(issued)).await
    }

    async fn owner(&self) -> Result<Option<Claim>, BackendError> {
        self.call("owner", self.site.backend.owner()).await
    }

    async fn claim(&self, claim: &Claim, instead_of: Option<&Claim>) -> Result<(), BackendError> {
        self.call("claim", self.site.backend.claim(claim, instead_of)).await
    }

    async fn setup(&self, grants: &[GrantView<'_>]) -> Result<Vec<Statement>, BackendError> {
        self.site.backend.setup(grants).await
    }

    async fn list_principals(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, BackendError> {
        self.call("list", self.site.backend.list_principals(prefix, after, limit)).await
    }

    async fn health(&self, grants: &[GrantView<'_>]) -> Result<Health, BackendError> {
        self.call("health", self.site.backend.health(grants)).await
    }
}
