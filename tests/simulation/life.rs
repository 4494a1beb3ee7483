//! One life of the broker's process, from its start to its end: nothing of it acts after that.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::punctual::{Hindrance, Unrecorded};
use crate::world::World;

/// Shared by all that the process holds.
#[derive(Clone)]
pub(crate) struct Life {
    world: Arc<World>,
    over: CancellationToken,
    /// Its calls of the store.
    pub(crate) flights: Flights,
    /// What stands in its way, and nobody else's: reads that fail, and calls of the store that take long.
    pub(crate) hindrance: Hindrance,
    /// What it could not record.
    pub(crate) unrecorded: Unrecorded,
}

impl Life {
    pub(crate) fn begin(world: &Arc<World>) -> Self {
        Self {
            world: world.clone(),
            over: CancellationToken::new(),
            flights: Flights::default(),
            hindrance: Hindrance::default(),
            unrecorded: Unrecorded::default(),
        }
    }

    /// The process is gone, as `kill -9` would have it.
    pub(crate) fn end(&self) {
        self.over.cancel();
    }

    /// Returns when the process is gone.
    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Never returns in a process that is gone.
    pub(crate) async fn still(&self) {
        if self.over.is_cancelled() {
            pending::<()>().await;
        }
    }

    /// A place where the process may die, and never returns then.
    pub(crate) async fn risk(&self, place: &str, what: &str) {
        self.still().await;
        let World { dice, weather, history, .. } = &*self.world;
        if dice.chance(weather.rates().crash) {
            history.note(format!("CRASH {place} {what}"));
            self.end();
            pending::<()>().await;
        }
    }

    /// Waits, unless the process dies meanwhile.
    pub(crate) async fn wait(&self, span: Duration) {
        pause(span).await;
        self.still().await;
    }
}

/// Lets time pass, on the paused clock.
pub(crate) async fn pause(span: Duration) {
    if !span.is_zero() {
        tokio::time::sleep(span).await;
    }
}

/// Counts calls while they are on their way.
#[derive(Clone, Default)]
pub(crate) struct Flights(Arc<AtomicUsize>);

/// One call on its way.
pub(crate) struct Flight(Flights);

impl Flights {
    pub(crate) fn begin(&self) -> Flight {
        self.0.fetch_add(1, Ordering::Relaxed);
        Flight(self.clone())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
