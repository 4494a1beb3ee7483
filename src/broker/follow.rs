//! What other brokers of the same store have changed, told here to whoever watches or waits: any broker serves any
//! call.

use std::sync::Arc;

use futures::StreamExt as _;
use leasehold_law::task::TaskState;
use leasehold_law::time::Span;

use super::refused::Refused;
use super::{Broker, Inner};
use crate::store::{Foreign, StoreError};

/// How many rows are read at a time.
const AT_ONCE: usize = 32;

impl Broker {
    /// Follows the other brokers until this one stops. A store of one broker has nothing to tell.
    pub async fn follow(&self) {
        loop {
            let changes = self.inner.ledger.store().foreign_changes().await;
            let told = changes.into_iter().map(|change| self.inner.hear_of(change));
            futures::stream::iter(told).buffered(AT_ONCE).for_each(|()| async {}).await;
        }
    }
}

impl Inner {
    async fn hear_of(self: &Arc<Self>, change: Foreign) {
        let heard = match change {
            // Nobody keeps what he knows of leases but those who watch or wait.
            Foreign::Lease(id) if !self.ledger.reaches(id) => Ok(()),
            Foreign::Lease(id) => self.hear_of_lease(id).await.map_err(Refused::from),
            Foreign::Task(id) => self.hear_of_task(id).await.map_err(Refused::from),
            Foreign::Other => self.hear_of_config().await,
            Foreign::Fallen => self.take_over().await,
        };
        if let Err(error) = heard {
            tracing::warn!(%error, "what another broker has changed cannot be read");
        }
    }

    /// Registrations may have changed; the next request would find out too.
    async fn hear_of_config(&self) -> Result<(), Refused> {
        self.standing().await?;
        Ok(self.compare_config().await?)
    }

    /// What a broker that fell was about to end.
    async fn take_over(self: &Arc<Self>) -> Result<(), Refused> {
        self.resume_revocations(Span::ZERO).await?;
        self.standing().await?;
        self.reassess_kept();
        Ok(())
    }

    async fn hear_of_lease(&self, id: leasehold_law::id::LeaseId) -> Result<(), StoreError> {
        if let Some(lease) = self.ledger.store().lease(id).await? {
            self.ledger.retell_lease(lease);
        }
        Ok(())
    }

    /// A task that another broker opened is lost like any other if all of them hear nothing more of it.
    async fn hear_of_task(&self, id: leasehold_law::id::TaskId) -> Result<(), StoreError> {
        let Some(task) = self.ledger.store().task(id).await? else { return Ok(()) };
        if task.state != TaskState::Open {
            self.liveness.forget(id);
        } else {
            self.liveness.expect(&task, self.clock.now());
        }
        self.ledger.retell_task(task);
        Ok(())
    }

    /// Brokers with different config would each decide by their own: the one that started last is right, and what the
    /// others would issue is stale until they are restarted with the same (RULES R-1).
    async fn compare_config(&self) -> Result<(), StoreError> {
        let registry = self.registry.load_full();
        let (subjects, known): (Vec<_>, Vec<_>) = registry.versions().unzip();
        let now = self.ledger.store().versions(&subjects).await?;
        for (subject, _) in
            subjects.iter().zip(known.iter().zip(&now)).filter(|(_, (known, now))| known != now)
        {
            tracing::error!(
                %subject,
                "another broker was started with other config: nothing that rests on this is issued here until this \
                 broker is restarted with the same"
            );
        }
        Ok(())
    }
}
