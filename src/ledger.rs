//! Room 7: the only maker of [`Recorded`]. Nothing is minted that was not written down first (law 1).
//!
//! The ledger turns steps of the law into rows and journal entries, writes both in one transaction with the versions
//! that the step was decided on (RULES R-1), and tells whoever watches.

mod aims;
mod aside;
mod config;
mod drills;
mod entry;
mod leases;
mod notices;
mod registry;
mod revocations;
mod tasks;
mod terms;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use leasehold_law::id::LeaseId;
use leasehold_law::journal::Event;
use leasehold_law::lease::IllegalTransition;
use leasehold_law::subject::{Guard, Subject};
use leasehold_law::task::IllegalTaskTransition;
use leasehold_law::time::Span;
use leasehold_law::words::count;
use tokio::sync::broadcast;

use crate::clock::Clock;
use crate::store::{Ceiling, Change, Outcome, Store, StoreError};
pub use aside::restored_entry;
pub use config::{ConfigLook, ConfigOnRecord};
use entry::about_nothing;
use notices::Notices;
pub use notices::{Notice, Steps};
pub use registry::Registering;
pub use terms::{Follow, Tenure, Terms};

/// Proof that something is durable. Only the ledger makes one.
#[derive(Debug)]
pub struct Recorded<T>(T);

impl<T> Recorded<T> {
    /// What was recorded.
    pub fn inner(&self) -> &T {
        &self.0
    }
}

/// Why a step is not on record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// It rests on something that has changed: decide again.
    #[error("{0} has changed meanwhile")]
    Stale(Subject),
    /// A quota is used up.
    #[error("{} has {} already", .0.holder, count(.0.most, "live lease"))]
    Full(Box<Ceiling>),
    /// The law knows no such step.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// The law knows no such step of a task.
    #[error(transparent)]
    IllegalTask(#[from] IllegalTaskTransition),
    /// The store refused; nothing is written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody knows whether it is written: expose nothing, read again.
    #[error("whether it was written is not known: {0}")]
    Unknown(StoreError),
}

/// How long the store may take to write. After that nobody knows what became of the changes; a store that hangs holds
/// up no revocation (RULES R-24).
const COMMIT_DEADLINE: Span = Span::from_secs(5);
/// The name under which the clock's high-water mark is kept.
pub const HIGH_WATER: &str = "clock.high_water";

/// The maker of records.
pub struct Ledger {
    store: Arc<dyn Store>,
    clock: Arc<Clock>,
    notices: Notices,
    healthy: AtomicBool,
}

impl Ledger {
    /// A ledger over a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<Clock>) -> Self {
        Self { store, clock, notices: Notices::new(), healthy: AtomicBool::new(true) }
    }

    /// What is durable, for reading.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// Every change from now on.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Notice> {
        self.notices.watch()
    }

    /// Every step of these leases from now on.
    #[must_use]
    pub fn wait(&self, ids: &[LeaseId]) -> Steps {
        self.notices.wait(ids)
    }

    /// Whether the last write went well. Where it did not, revoking does not wait for the next.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Whether the journal takes entries: step 1 of the road. Where the last write failed, a small one is tried.
    ///
    /// # Errors
    /// Why it takes none.
    pub async fn check_writable(&self) -> Result<(), StoreError> {
        if self.is_well() {
            return Ok(());
        }
        self.record_time().await.map_err(|error| match error {
            LedgerError::Store(error) | LedgerError::Unknown(error) => error,
            LedgerError::Stale(_)
            | LedgerError::Full(_)
            | LedgerError::Illegal(_)
            | LedgerError::IllegalTask(_) => StoreError::Unusable(error.to_string()),
        })
    }

    /// Something that changes no row: a decision, a refusal, an act of the broker.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn note(&self, subject: &str, event: Event) -> Result<(), LedgerError> {
        let draft = about_nothing(subject, None, event, self.clock.now())?;
        self.commit(vec![Change::Append(draft)], Vec::new()).await
    }

    /// What the broker itself did, with details.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn note_broker(
        &self,
        what: &str,
        details: BTreeMap<String, String>,
    ) -> Result<(), LedgerError> {
        self.note("broker", Event::Broker { what: what.to_owned(), details }).await
    }

    /// Remembers the present as the clock's high-water mark.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn record_time(&self) -> Result<(), LedgerError> {
        self.commit(vec![Change::Number(HIGH_WATER.into(), self.clock.now().0)], Vec::new()).await
    }

    async fn commit(&self, changes: Vec<Change>, guards: Vec<Guard>) -> Result<(), LedgerError> {
        self.commit_below(changes, guards, Vec::new()).await
    }

    async fn commit_below(
        &self,
        changes: Vec<Change>,
        guards: Vec<Guard>,
        ceilings: Vec<Ceiling>,
    ) -> Result<(), LedgerError> {
        let outcome = in_time(self.store.commit_below(changes, guards, ceilings)).await;
        let healthy = !matches!(
            outcome,
            Outcome::Failed(StoreError::Unusable(_) | StoreError::Fenced | StoreError::Held(_))
                | Outcome::Unknown(_)
        );
        self.healthy.store(healthy, Ordering::Relaxed);
        match outcome {
            Outcome::Committed => Ok(()),
            Outcome::Stale(subject) => Err(LedgerError::Stale(subject)),
            Outcome::Full(ceiling) => Err(LedgerError::Full(ceiling)),
            Outcome::Failed(error) => Err(LedgerError::Store(error)),
            Outcome::Unknown(error) => Err(LedgerError::Unknown(error)),
        }
    }
}

/// What became of a write, or that nobody knows: a store that does not answer is not waited for.
async fn in_time(written: impl Future<Output = Outcome>) -> Outcome {
    let late = |_| {
        let what = format!("it did not answer within {COMMIT_DEADLINE}");
        Outcome::Unknown(StoreError::Unusable(what))
    };
    tokio::time::timeout(COMMIT_DEADLINE.as_duration(), written).await.unwrap_or_else(late)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn of_a_commit_that_hangs_nobody_knows_what_became() {
        let patience = COMMIT_DEADLINE.as_duration() + std::time::Duration::from_millis(1);
        let outcome = tokio::time::timeout(patience, in_time(std::future::pending())).await;
        assert!(matches!(outcome, Ok(Outcome::Unknown(_))), "{outcome:?}");
        assert_eq!(in_time(async { Outcome::Committed }).await, Outcome::Committed);
    }
}
