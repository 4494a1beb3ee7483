//! The broker's side, in the same process: the contract over a [`MemoryTarget`], through its fault script.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_backend::{
    Alive, Backend, BackendError, Capabilities, Claim, Credential, Findable, Found, GrantView, Health,
    Issued, Page, Problem, Reaped, Renewed, RevokeOrder, RevokeReport, Statement,
};
use leasehold_law::catalog::Recipe;
use leasehold_law::lease::{Grade, Reached, Sessions};
use leasehold_law::policy::{IssueOrder, RenewOrder};
use leasehold_law::principal::PrincipalName;
use leasehold_law::secret::Secret;
use leasehold_law::time::{Span, Timestamp};

use crate::fault::{Call, Fault};
use crate::recipe;
use crate::target::{Late, MemoryTarget, Mint, Minted, Move};

/// The kind of the credentials.
pub(crate) const KIND: &str = "memory";
const USER: &str = "user";
const PASSWORD: &str = "password";

/// A backend for a target in the same process.
#[derive(Clone, Debug)]
pub struct MemoryBackend {
    target: Arc<MemoryTarget>,
}

impl MemoryBackend {
    /// A backend for this target. Several may share one target, as brokers do.
    #[must_use]
    pub fn new(target: Arc<MemoryTarget>) -> Self {
        Self { target }
    }

    /// The target behind it.
    #[must_use]
    pub fn target(&self) -> &Arc<MemoryTarget> {
        &self.target
    }

    /// Counts a call, and has the script's fault for it happen around it.
    async fn call<T>(
        &self,
        call: Call,
        principal: Option<&str>,
        work: impl FnOnce(&MemoryTarget) -> Result<T, BackendError> + Send,
    ) -> Result<T, BackendError> {
        let fault = self.fault(call, principal);
        play(fault, || work(&self.target)).await
    }

    fn fault(&self, call: Call, principal: Option<&str>) -> Option<Fault> {
        self.target.count(call);
        self.target.faults.take(call, principal)
    }

    /// Mints, or leaves the mint lying in the target where the script says so.
    pub(crate) async fn mint(&self, mint: Mint) -> Result<Minted, BackendError> {
        let fault = self.fault(Call::Issue, Some(&mint.name));
        if let Some(Fault::Late(_)) = &fault {
            self.target.delay(Late::Mint(mint.clone()));
        }
        play(fault, || self.target.mint(&mint)).await
    }

    pub(crate) async fn move_end(
        &self,
        name: &str,
        ttl: Span,
        by: Timestamp,
    ) -> Result<Renewed, BackendError> {
        if !self.target.settings().0.renewal {
            return Err(refused("this target cannot move an end"));
        }
        let renewal = Move { name: name.to_owned(), ttl, by };
        let fault = self.fault(Call::Renew, Some(name));
        if let Some(Fault::Late(_)) = &fault {
            self.target.delay(Late::Move(renewal.clone()));
        }
        play(fault, || self.target.renew(&renewal)).await.map(|ttl| Renewed { ttl })
    }

    pub(crate) async fn find(&self, name: &str) -> Result<Option<Found>, BackendError> {
        self.call(Call::Lookup, Some(name), |target| Ok(found(target, name))).await
    }

    pub(crate) async fn kill(&self, name: &str, handle: Option<&str>) -> RevokeReport {
        let fault = self.fault(Call::Revoke, Some(name));
        if let Some(Fault::Unasked) = &fault {
            return RevokeReport::unasked("every connection is in use");
        }
        let stop = match &fault {
            Some(Fault::Lie) => return lie(&self.target),
            Some(Fault::StopAt(reached, sessions)) => Some((*reached, *sessions)),
            Some(_) | None => None,
        };
        let revocation = Revocation { target: &self.target, name, handle, stop };
        play(fault, || Ok(revocation.run())).await.unwrap_or_else(RevokeReport::failed)
    }

    pub(crate) async fn accepts(&self, name: &str, secret: &[u8]) -> Result<Alive, BackendError> {
        self.call(Call::Probe, Some(name), |target| Ok(alive(target.accepts(name, secret)))).await
    }
}

/// Has a fault happen around some work.
async fn play<T>(
    fault: Option<Fault>,
    work: impl FnOnce() -> Result<T, BackendError> + Send,
) -> Result<T, BackendError> {
    match fault {
        None | Some(Fault::StopAt(..) | Fault::Lie | Fault::Unasked) => work(),
        Some(Fault::Before(error) | Fault::Late(error)) => Err(error),
        Some(Fault::After(error)) => work().and(Err(error)),
        Some(Fault::Hold(gate)) => {
            gate.pass().await;
            work()
        }
        Some(Fault::HoldAnswer(gate)) => {
            let outcome = work();
            gate.pass().await;
            outcome
        }
    }
}

/// What a target says that calls dead what lives.
fn lie(target: &MemoryTarget) -> RevokeReport {
    RevokeReport {
        reached: Reached::Removed,
        sessions: Sessions::None,
        absent: false,
        handle: None,
        target_now: Some(target.now()),
        error: None,
        unasked: false,
        remains: Vec::new(),
    }
}

/// One order on its way: disable, cut, remove, read back.
struct Revocation<'a> {
    target: &'a MemoryTarget,
    name: &'a str,
    handle: Option<&'a str>,
    stop: Option<(Reached, Sessions)>,
}

impl Revocation<'_> {
    fn run(&self) -> RevokeReport {
        let found = self.target.find(self.name);
        // A handle that is wrong must not cost a stranger its sessions.
        let known = || self.handle.filter(|handle| self.target.is_dead(handle)).map(str::to_owned);
        let handle = found.as_ref().map(|(account, _)| account.handle.clone()).or_else(known);
        let findable = self.target.settings().0.findable != Findable::No;
        let mut report = RevokeReport {
            reached: Reached::None,
            sessions: Sessions::Unknown,
            absent: found.is_none() && findable,
            handle: handle.clone(),
            target_now: None,
            error: None,
            remains: Vec::new(),
            unasked: false,
        };
        match self.target.settings().0.grade {
            Grade::Exact => self.exact(handle.as_deref(), &mut report),
            Grade::Coarse if self.target.disable(self.name) => report.reached = Reached::Disabled,
            Grade::Coarse | Grade::None => {}
        }
        report.target_now = Some(self.target.now());
        report
    }

    fn exact(&self, handle: Option<&str>, report: &mut RevokeReport) {
        for reached in [Reached::Disabled, Reached::Cut, Reached::Removed] {
            if self.stop.is_some_and(|(stop, _)| reached > stop) {
                break;
            }
            self.step(reached, handle);
            report.reached = reached;
        }
        let seen = handle.map_or(0, |handle| self.target.seen(handle));
        let read_back =
            if seen == 0 && report.reached >= Reached::Cut { Sessions::None } else { Sessions::Unknown };
        report.sessions = self.stop.map_or(read_back, |(_, sessions)| sessions);
        report.error = self.stop.map(|(stop, _)| format!("the fault script stopped it at {stop:?}"));
    }

    fn step(&self, reached: Reached, handle: Option<&str>) {
        match (reached, handle) {
            (Reached::Disabled, _) => {
                self.target.disable(self.name);
            }
            (Reached::Cut, Some(handle)) => {
                self.target.cut(handle);
            }
            (Reached::Removed, _) => {
                self.target.remove(self.name);
            }
            (Reached::None | Reached::Cut, _) => {}
        }
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn capabilities(&self) -> Capabilities {
        self.target.settings().0.clone()
    }

    fn check_recipe(&self, recipe: &Recipe) -> Vec<Problem> {
        recipe::problems(recipe)
    }

    async fn issue(&self, order: &IssueOrder) -> Result<Issued, BackendError> {
        let mint = mint(order, &self.target.settings().0)?;
        let name = mint.name.clone();
        let minted = self.mint(mint).await?;
        Ok(issued(name, BTreeMap::new(), minted))
    }

    async fn renew(&self, order: &RenewOrder) -> Result<Renewed, BackendError> {
        self.move_end(order.principal().as_str(), order.ttl(), order.renew_by()).await
    }

    async fn lookup(&self, name: &PrincipalName) -> Result<Option<Found>, BackendError> {
        self.find(name.as_str()).await
    }

    async fn revoke(&self, orders: &[RevokeOrder]) -> Vec<RevokeReport> {
        let mut reports = Vec::with_capacity(orders.len());
        for order in orders {
            reports.push(self.kill(order.principal.as_str(), order.handle.as_deref()).await);
        }
        reports
    }

    async fn late_sessions(&self) -> Result<Vec<String>, BackendError> {
        self.call(Call::Reap, None, |target| Ok(target.late())).await
    }

    async fn reap(&self, handles: &[String]) -> Result<Vec<Reaped>, BackendError> {
        self.call(Call::Reap, None, |target| Ok(reap(target, handles))).await
    }

    async fn probe(&self, issued: &Issued) -> Result<Alive, BackendError> {
        let (name, secret) = login_of(&issued.credential);
        self.accepts(&name, secret).await
    }

    async fn owner(&self) -> Result<Option<Claim>, BackendError> {
        self.call(Call::Claim, None, |target| Ok(target.owner())).await
    }

    async fn claim(&self, claim: &Claim, instead_of: Option<&Claim>) -> Result<(), BackendError> {
        self.call(Call::Claim, None, |target| target.claim(claim, instead_of)).await
    }

    async fn setup(&self, _grants: &[GrantView<'_>]) -> Result<Vec<Statement>, BackendError> {
        Ok(Vec::new())
    }

    async fn list_principals(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, BackendError> {
        if !self.target.settings().0.lists {
            return Err(refused("this target cannot list"));
        }
        self.call(Call::List, None, |target| Ok(target.list(prefix, after, limit))).await
    }

    async fn health(&self, _grants: &[GrantView<'_>]) -> Result<Health, BackendError> {
        self.call(Call::Health, None, |target| Ok(health(target))).await
    }
}

/// What an order asks of the target.
pub(crate) fn mint(order: &IssueOrder, capabilities: &Capabilities) -> Result<Mint, BackendError> {
    let problems = recipe::problems(order.recipe());
    let role = recipe::role(order.recipe()).filter(|_| problems.is_empty()).ok_or_else(|| {
        let told = problems.iter().map(|problem| format!("`{}` {}", problem.pointer, problem.what));
        BackendError::BadRecipe(told.collect::<Vec<_>>().join("; "))
    })?;
    if let Some(max) = capabilities.max_natural_life.filter(|max| order.ttl() > *max) {
        return Err(refused(&format!("it lets nothing live longer than {max}")));
    }
    let name = order.principal().to_string();
    Ok(Mint { name, role: role.to_owned(), ttl: order.ttl(), by: order.mint_by() })
}

/// What an agent gets.
pub(crate) fn issued(name: String, mut public: BTreeMap<String, String>, minted: Minted) -> Issued {
    public.insert(USER.to_owned(), name);
    let secret = BTreeMap::from([(PASSWORD.to_owned(), minted.secret)]);
    Issued { credential: Credential { kind: KIND.to_owned(), public, secret }, handle: Some(minted.handle) }
}

/// Name and secret of a credential; empty, and so refused, where it is not one of ours.
pub(crate) fn login_of(credential: &Credential) -> (String, &[u8]) {
    let name = credential.public.get(USER).cloned().unwrap_or_default();
    (name, credential.secret.get(PASSWORD).map_or(&[], Secret::expose))
}

fn alive(accepted: bool) -> Alive {
    if accepted { Alive::Alive } else { Alive::Refused }
}

pub(crate) fn refused(what: &str) -> BackendError {
    BackendError::Refused { what: what.to_owned(), fix: None }
}

fn found(target: &MemoryTarget, name: &str) -> Option<Found> {
    if target.settings().0.findable == Findable::No {
        return None;
    }
    let (account, sessions) = target.find(name)?;
    Some(Found {
        handle: Some(account.handle),
        remaining: Some(account.ends.since(target.now())),
        disabled: account.disabled.is_some(),
        sessions,
    })
}

/// Ends what is seen under these handles, unless a handle's principal may log in.
fn reap(target: &MemoryTarget, handles: &[String]) -> Vec<Reaped> {
    let dead = handles.iter().filter(|handle| target.is_dead(handle));
    let reaped = dead.map(|handle| Reaped { handle: handle.clone(), sessions: target.cut(handle) });
    reaped.filter(|reaped| reaped.sessions > 0).collect()
}

fn health(target: &MemoryTarget) -> Health {
    Health {
        version: format!("memory {}", env!("CARGO_PKG_VERSION")),
        target_now: target.now(),
        missing_privileges: Vec::new(),
        warnings: Vec::new(),
    }
}
