//! The server's side: principals, sessions and the clock of the target.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leasehold_backend::{BackendError, Claim, Entropy, Page, Principal};
use leasehold_law::hex::Hex;
use leasehold_law::lease::Grade;
use leasehold_law::secret::Secret;
use leasehold_law::time::{Span, Timestamp};
use ring::digest;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::fault::{Call, FaultScript};
use crate::settings::Settings;

/// Random bytes in a secret; twice as many characters.
const SECRET_BYTES: usize = 32;

/// A session, by a number that is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// A principal as an administrator of the target sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What it is known by when its name is gone.
    pub handle: String,
    /// What it may do.
    pub role: String,
    /// When it ends, by the target's clock.
    pub ends: Timestamp,
    /// Since when its logins are refused.
    pub disabled: Option<Timestamp>,
    /// A digest of its secret; the target does not keep the secret.
    verifier: [u8; 32],
}

struct Session {
    handle: String,
    /// Of the secret that it logged in with.
    verifier: [u8; 32],
    visible: bool,
    /// Dropped when the session ends, which is how a stream learns of it.
    lines: Option<mpsc::Sender<String>>,
}

/// What a mint needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Mint {
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) ttl: Span,
    pub(crate) by: Timestamp,
}

/// What a renewal needs.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) name: String,
    pub(crate) ttl: Span,
    pub(crate) by: Timestamp,
}

/// What lies in the target for a while before it is done.
#[derive(Clone, Debug)]
pub(crate) enum Late {
    /// A mint.
    Mint(Mint),
    /// A renewal.
    Move(Move),
}

/// What a mint gave.
#[derive(Debug)]
pub(crate) struct Minted {
    pub(crate) handle: String,
    pub(crate) secret: Secret,
}

#[derive(Default)]
struct State {
    accounts: BTreeMap<String, Account>,
    sessions: BTreeMap<SessionId, Session>,
    late: Vec<Late>,
    last: u64,
    offset: i64,
    claim: Option<Claim>,
    calls: BTreeMap<Call, u64>,
}

/// A target in memory. Its state changes in calls and at no other time.
pub struct MemoryTarget {
    settings: Settings,
    entropy: Arc<dyn Entropy>,
    state: Mutex<State>,
    /// What goes wrong.
    pub faults: FaultScript,
}

impl fmt::Debug for MemoryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTarget").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl MemoryTarget {
    /// An empty target, whose clock is that of `entropy`.
    #[must_use]
    pub fn new(settings: Settings, entropy: Arc<dyn Entropy>) -> Self {
        Self { settings, entropy, state: Mutex::default(), faults: FaultScript::default() }
    }

    /// What kind of target it is.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The target's time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now_in(&self.state())
    }

    /// Sets how far the target's clock is from the injected one, in milliseconds.
    pub fn set_clock_offset(&self, millis: i64) {
        self.state().offset = millis;
    }

    /// The principals, by name.
    #[must_use]
    pub fn accounts(&self) -> BTreeMap<String, Account> {
        self.state().accounts.clone()
    }

    /// How many sessions are open, whoever's they are.
    #[must_use]
    pub fn session_count(&self) -> usize {
        let mut state = self.state();
        self.settle(&mut state);
        state.sessions.values().filter(|session| session.visible).count()
    }

    /// How often something was called, whether or not it went well.
    #[must_use]
    pub fn calls(&self, call: Call) -> u64 {
        self.state().calls.get(&call).copied().unwrap_or(0)
    }

    /// Carries out the mints and renewals that were late, in order; how many landed.
    ///
    /// # Errors
    /// Why the first one that did not land did not; the others are carried out nevertheless.
    pub fn land(&self) -> Result<usize, BackendError> {
        let late = std::mem::take(&mut self.state().late);
        let outcomes: Vec<_> = late.iter().map(|late| self.carry_out(late)).collect();
        outcomes.into_iter().try_fold(0, |landed, outcome| outcome.map(|_| landed + 1))
    }

    /// Logs in; `None` where that is refused.
    #[must_use]
    pub fn login(&self, name: &str, secret: &[u8]) -> Option<SessionId> {
        self.open(name, secret, true, None)
    }

    /// Logs in with a stream that is told `lines` and that ends with the session.
    #[must_use]
    pub fn login_stream(&self, name: &str, secret: &[u8]) -> Option<(SessionId, mpsc::Receiver<String>)> {
        let (sender, receiver) = mpsc::channel(16);
        let id = self.open(name, secret, true, Some(sender))?;
        Some((id, receiver))
    }

    /// Writes a line to the stream of a session that was opened with this secret; false where the session is not
    /// served, or the stream is full.
    #[must_use]
    pub fn tell(&self, id: SessionId, secret: &[u8], line: &str) -> bool {
        let mut state = self.state();
        self.settle(&mut state);
        let session = state.sessions.get(&id).filter(|session| session.verifier == verifier(secret));
        let lines = session.and_then(|session| session.lines.as_ref());
        lines.is_some_and(|lines| lines.try_send(line.to_owned()).is_ok())
    }

    /// Passes the login check, and is not to be seen before [`MemoryTarget::arrive`] (RULES R-7).
    #[must_use]
    pub fn begin_login(&self, name: &str, secret: &[u8]) -> Option<SessionId> {
        self.open(name, secret, false, None)
    }

    /// A login that was begun comes to its end.
    pub fn arrive(&self, id: SessionId) {
        if let Some(session) = self.state().sessions.get_mut(&id) {
            session.visible = true;
        }
    }

    /// Whether a session is served.
    #[must_use]
    pub fn serves(&self, id: SessionId) -> bool {
        let mut state = self.state();
        self.settle(&mut state);
        state.sessions.get(&id).is_some_and(|session| session.visible)
    }

    /// Ends a session from the agent's side.
    pub fn logout(&self, id: SessionId) {
        self.state().sessions.remove(&id);
    }

    /// Whether name and secret would log in.
    #[must_use]
    pub fn accepts(&self, name: &str, secret: &[u8]) -> bool {
        self.check(&self.state(), name, secret).is_some()
    }

    /// Refuses further logins, as an administrator; whether there was such a principal.
    pub fn disable(&self, name: &str) -> bool {
        let mut state = self.state();
        let now = self.now_in(&state);
        let account = state.accounts.get_mut(name);
        account.map(|account| account.disabled.get_or_insert(now)).is_some()
    }

    /// Removes a principal behind the broker's back; its sessions go on.
    pub fn remove(&self, name: &str) -> bool {
        self.state().accounts.remove(name).is_some()
    }

    pub(crate) fn count(&self, call: Call) {
        *self.state().calls.entry(call).or_default() += 1;
    }

    pub(crate) fn delay(&self, late: Late) {
        self.state().late.push(late);
    }

    fn carry_out(&self, late: &Late) -> Result<(), BackendError> {
        match late {
            Late::Mint(mint) => self.mint(mint).map(drop),
            Late::Move(renewal) => self.renew(renewal).map(drop),
        }
    }

    pub(crate) fn mint(&self, mint: &Mint) -> Result<Minted, BackendError> {
        let secret = self.secret()?;
        let mut state = self.state();
        let now = self.now_in(&state);
        if now >= mint.by {
            return Err(BackendError::TooLate);
        }
        if state.accounts.contains_key(&mint.name) {
            return Err(BackendError::Conflict(format!("`{}` exists", mint.name)));
        }
        let handle = format!("m{}", state.next());
        let account = Account {
            handle: handle.clone(),
            role: mint.role.clone(),
            ends: now + mint.ttl,
            disabled: None,
            verifier: verifier(secret.expose()),
        };
        state.accounts.insert(mint.name.clone(), account);
        Ok(Minted { handle, secret })
    }

    pub(crate) fn renew(&self, renewal: &Move) -> Result<Span, BackendError> {
        let Move { name, ttl, by } = renewal;
        let mut state = self.state();
        let now = self.now_in(&state);
        if now >= *by {
            return Err(BackendError::TooLate);
        }
        let account = state.accounts.get_mut(name).ok_or(BackendError::Absent)?;
        if account.disabled.is_some() {
            return Err(BackendError::Conflict(format!("`{name}` is disabled")));
        }
        account.ends = now + *ttl;
        Ok(account.ends.since(now))
    }

    /// What an account looks like, and how many sessions of it are seen.
    pub(crate) fn find(&self, name: &str) -> Option<(Account, u32)> {
        let mut state = self.state();
        self.settle(&mut state);
        let account = state.accounts.get(name)?.clone();
        let sessions = state.seen(&account.handle);
        Some((account, sessions))
    }

    /// Ends the sessions of a handle that can be seen.
    pub(crate) fn cut(&self, handle: &str) -> u32 {
        let mut state = self.state();
        let seen = state.seen(handle);
        state.sessions.retain(|_, session| !(session.visible && session.handle == handle));
        seen
    }

    /// Sessions that are seen under a handle, whether or not its name is still there.
    pub(crate) fn seen(&self, handle: &str) -> u32 {
        self.state().seen(handle)
    }

    /// The handles of sessions that are seen and whose principal is gone. Without sessions no account is looked at.
    pub(crate) fn late(&self) -> Vec<String> {
        let state = self.state();
        let seen = state.sessions.values().filter(|session| session.visible);
        let mut late: BTreeSet<&str> = seen.map(|session| session.handle.as_str()).collect();
        if !late.is_empty() {
            for account in state.accounts.values() {
                late.remove(account.handle.as_str());
            }
        }
        late.into_iter().map(str::to_owned).collect()
    }

    /// Whether a handle belongs to nobody who may log in.
    pub(crate) fn is_dead(&self, handle: &str) -> bool {
        let state = self.state();
        state.accounts.values().all(|account| account.handle != handle || account.disabled.is_some())
    }

    pub(crate) fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Page {
        let state = self.state();
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        let behind = state.accounts.range::<str, _>((from, Bound::Unbounded));
        let mut named = behind.take_while(|(name, _)| name.starts_with(prefix));
        let principal = |(name, account): (&String, &Account)| Principal {
            name: name.clone(),
            handle: Some(account.handle.clone()),
        };
        let principals = named.by_ref().take(limit).map(principal).collect();
        Page { principals, more: named.next().is_some() }
    }

    pub(crate) fn owner(&self) -> Option<Claim> {
        self.state().claim.clone()
    }

    pub(crate) fn claim(&self, claim: &Claim, instead_of: Option<&Claim>) -> Result<(), BackendError> {
        let mut state = self.state();
        if state.claim.as_ref() != instead_of {
            return Err(BackendError::Conflict("another claim stands".to_owned()));
        }
        state.claim = Some(claim.clone());
        Ok(())
    }

    fn open(
        &self,
        name: &str,
        secret: &[u8],
        visible: bool,
        lines: Option<mpsc::Sender<String>>,
    ) -> Option<SessionId> {
        let mut state = self.state();
        let handle = self.check(&state, name, secret)?;
        let id = SessionId(state.next());
        state.sessions.insert(id, Session { handle, verifier: verifier(secret), visible, lines });
        Some(id)
    }

    /// The login check: the handle of whoever passes it.
    fn check(&self, state: &State, name: &str, secret: &[u8]) -> Option<String> {
        let account = state.accounts.get(name)?;
        let over = self.settings.0.enforces_expiry && self.now_in(state) >= account.ends;
        let good = account.verifier == verifier(secret) && account.disabled.is_none() && !over;
        good.then(|| account.handle.clone())
    }

    /// Ends the sessions whose stream nobody reads any more, and in a coarse target those of disabled principals
    /// whose window is over.
    fn settle(&self, state: &mut State) {
        state.sessions.retain(|_, session| session.lines.as_ref().is_none_or(|lines| !lines.is_closed()));
        let Settings(capabilities) = &self.settings;
        if capabilities.grade != Grade::Coarse {
            return;
        }
        let now = self.now_in(state);
        let over =
            |account: &&Account| account.disabled.is_some_and(|since| now >= since + capabilities.window);
        let ended: BTreeSet<_> = state.accounts.values().filter(over).map(|a| a.handle.clone()).collect();
        state.sessions.retain(|_, session| !ended.contains(&session.handle));
    }

    fn secret(&self) -> Result<Secret, BackendError> {
        let mut bytes = [0; SECRET_BYTES];
        self.entropy
            .fill(&mut bytes)
            .map_err(|error| BackendError::Refused { what: error.to_string(), fix: None })?;
        Ok(Secret::new(Hex(&bytes).to_string().into_bytes()))
    }

    fn now_in(&self, state: &State) -> Timestamp {
        self.entropy.now().shifted(state.offset)
    }

    /// A call that panicked left no change half done: every change is one insert or one removal.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn seen(&self, handle: &str) -> u32 {
        let seen = self.sessions.values().filter(|session| session.visible && session.handle == handle);
        u32::try_from(seen.count()).unwrap_or(u32::MAX)
    }
}

/// Secrets have 256 random bits, so that a plain digest cannot be searched, nor its comparison timed.
fn verifier(secret: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(digest::digest(&digest::SHA256, secret).as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}
