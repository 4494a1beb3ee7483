//! Room 5, the road: one verb per file. Each step hands the next a thing that only it could make.

mod agents;
mod archive;
mod aside;
mod barrier;
mod change_scope;
mod claims;
mod decide;
mod drill;
mod end_task;
mod follow;
mod issue;
mod keep;
mod liveness;
mod on_record;
mod open_task;
mod orphans;
mod propose;
mod quota;
mod reassess;
mod recover;
mod refused;
mod renew;
mod repeats;
mod request;
mod restore;
mod reviews;
mod revocations;
mod revoke;
mod seldom;
mod selected;
mod session;
mod status;
mod stops;
mod sweep;
mod taking;
mod views;
mod wait;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use leasehold_backend::Entropy;
use leasehold_law::id::DecisionId;
use leasehold_law::principal::InstallationKey;
use leasehold_law::quota::Quotas;
use leasehold_law::time::{Span, Timestamp};
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::registry::Registry;
use crate::vault_door::VaultDoor;

pub use agents::{Order, Reregistered, Whose};
pub use change_scope::ScopeChange;
pub use claims::Owner;
pub use decide::Asker;
pub use drill::{DrillStatus, Drilling};
pub use end_task::Ended;
pub use issue::{Delivery, Minted};
pub use keep::{Keeping, Restored};
pub use liveness::Pulse;
pub use open_task::Opened;
pub use orphans::{Orphan, OrphanWhy, SweepOrder, SweepReport, SweepVerdict};
pub use propose::{GrantOffer, Proposal};
pub use refused::{FieldFault, Refused};
pub use renew::Renewal;
pub use request::Requested;
pub use restore::Reconciled;
pub use revocations::{RevokeCommand, RevokePlan};
pub use revoke::Breaker;
pub use status::{Status, TargetStatus};
pub use stops::Stop;
pub use views::{Hit, Part, Story};
pub use wait::{MAX_WAIT, Settled, Unread};
// Plain data of other rooms, shown here so that the door names the broker alone.
pub use crate::store::{Aside, LeaseFilter, TaskFilter};
pub use leasehold_backend::{Credential, Missing};

/// What every verb works with.
pub struct Parts {
    /// The clock.
    pub clock: Arc<Clock>,
    /// Random bits.
    pub entropy: Arc<dyn Entropy>,
    /// The maker of records.
    pub ledger: Ledger,
    /// The holder of backends.
    pub door: VaultDoor,
    /// What operators defined.
    pub registry: Registry,
    /// What marks principals as ours.
    pub key: InstallationKey,
    /// Limits of tasks.
    pub tasks: TaskLimits,
    /// What agents, owners and targets may use.
    pub quotas: Quotas,
    /// The broker's name.
    pub name: String,
    /// How targets are kept.
    pub keeping: Keeping,
}

/// Limits of tasks, from config.
#[derive(Clone, Copy, Debug)]
pub struct TaskLimits {
    /// The grace of a task that names none.
    pub grace: Span,
    /// The deadline of a task that names none.
    pub default_deadline: Span,
    /// The furthest deadline.
    pub max_deadline: Span,
}

/// The broker: verbs over what it was given. Cheap to clone.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<Clock>,
    entropy: Arc<dyn Entropy>,
    ledger: Ledger,
    door: VaultDoor,
    registry: ArcSwap<Registry>,
    key: InstallationKey,
    tasks: TaskLimits,
    name: String,
    started_at: Timestamp,
    liveness: liveness::Liveness,
    attempts: request::Attempts,
    limiter: quota::RateLimiter,
    repeats: repeats::Repeats,
    revoker: revoke::Revoker,
    standing: barrier::Standing,
    taking: taking::Taking,
    held: sweep::Held,
    ending: seldom::Ending,
    archive: archive::Archive,
    reviews: reviews::Reviews,
    /// Held while registrations are read: whoever waits finds them read.
    reloading: tokio::sync::Mutex<()>,
    busy: aside::Busy,
    keep: keep::Keep,
    drills: drill::Drills,
    reaping: sweep::Reaping,
    draining: AtomicBool,
    /// Work that a caller cannot cancel (RULES R-3).
    owned: TaskTracker,
}

impl Broker {
    /// A broker that has not started: [`Broker::recover`] and [`Broker::sweep`] are next.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let targets: Vec<String> = parts.door.targets().map(ToOwned::to_owned).collect();
        Self {
            inner: Arc::new(Inner {
                started_at: parts.clock.now(),
                liveness: liveness::Liveness::default(),
                attempts: request::Attempts::default(),
                limiter: quota::RateLimiter::new(parts.quotas),
                repeats: repeats::Repeats::default(),
                revoker: revoke::Revoker::default(),
                standing: barrier::Standing::default(),
                taking: taking::Taking::default(),
                held: sweep::Held::default(),
                ending: seldom::Ending::default(),
                archive: archive::Archive::default(),
                reviews: reviews::Reviews::default(),
                reloading: tokio::sync::Mutex::default(),
                busy: aside::Busy::default(),
                keep: keep::Keep::new(parts.keeping, &targets),
                drills: drill::Drills::default(),
                reaping: sweep::Reaping::default(),
                draining: AtomicBool::new(false),
                owned: TaskTracker::new(),
                clock: parts.clock,
                entropy: parts.entropy,
                ledger: parts.ledger,
                door: parts.door,
                registry: ArcSwap::from_pointee(parts.registry),
                key: parts.key,
                tasks: parts.tasks,
                name: parts.name,
            }),
        }
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// The grace of a task that names none.
    #[must_use]
    pub fn default_grace(&self) -> Span {
        self.inner.tasks.grace
    }

    /// The broker's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// What operators defined.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.inner.registry.load_full()
    }

    /// The ledger, for those who watch and those who read the journal.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.inner.ledger
    }

    /// Refuses new tasks and leases from now on; what is under way goes on, and so does revoking.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
        self.inner.owned.close();
    }

    /// Waits until everything that was under way is done.
    pub async fn drained(&self) {
        self.inner.owned.wait().await;
    }

    /// A new id for a decision.
    ///
    /// # Errors
    /// Where there are no random bits.
    pub fn make_decision_id(&self) -> Result<DecisionId, Refused> {
        self.inner.make_decision_id()
    }
}

impl Inner {
    /// Step 1 of the road, and what else stops all issuing: a draining broker, a clock that cannot be trusted, a
    /// journal that takes nothing.
    async fn may_issue(&self) -> Result<(), Refused> {
        self.may_open().await?;
        let reading = self.clock.read();
        if reading.may_issue() { Ok(()) } else { Err(Refused::clock(reading.behind)) }
    }

    /// What stops new tasks: a draining broker, or a journal that takes nothing.
    async fn may_open(&self) -> Result<(), Refused> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Refused::draining());
        }
        self.ledger.check_writable().await.map_err(|error| Refused::journal(&error))
    }

    /// A new id for a decision.
    fn make_decision_id(&self) -> Result<DecisionId, Refused> {
        Ok(DecisionId::derive(self.clock.now(), self.random_bits()?))
    }

    fn random_bits(&self) -> Result<u64, Refused> {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes).map_err(|error| Refused::internal(&error))?;
        Ok(u64::from_be_bytes(bytes))
    }
}
