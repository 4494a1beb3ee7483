//! The progress of a revocation as a stream: first all that it took, then what changes, until nothing is left to confirm.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

use leasehold_law::id::LeaseId;
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::revocation::Revocation;
use leasehold_law::time::Span;
use leasehold_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::watch::{Gone, PATIENCE, WAITING};
use super::write;
use crate::broker::{Broker, Settled};

/// The stream of a revocation's progress.
pub(super) type ProgressStream = Pin<Box<dyn Stream<Item = Result<v1::RevocationProgress, Status>> + Send>>;

/// How many outcomes one message holds: well below what a client takes.
pub(super) const OUTCOMES: usize = 1000;
/// How often what changed is told.
const STEP: Span = Span::from_secs(1);

/// Follows a revocation until every lease is dead or beyond reach, for at most `wait`.
pub(super) fn revocation(broker: Broker, revocation: Revocation, wait: Option<Span>) -> ProgressStream {
    let (out, stream) = mpsc::channel(WAITING);
    let open = revocation.leases.clone();
    let following =
        Following { broker, revocation, out, open, versions: BTreeMap::new(), residual: 0, stuck: 0 };
    // The client may go at any time; the revocation goes on.
    tokio::spawn(async move { drop(following.run(wait).await) });
    Box::pin(ReceiverStream::new(stream))
}

struct Following {
    broker: Broker,
    revocation: Revocation,
    out: mpsc::Sender<Result<v1::RevocationProgress, Status>>,
    /// The leases whose end is not proven yet.
    open: Vec<LeaseId>,
    /// What was told of these, by version.
    versions: BTreeMap<LeaseId, u64>,
    residual: usize,
    stuck: usize,
}

impl Following {
    async fn run(mut self, wait: Option<Span>) -> Result<(), Gone> {
        let until = wait.map(|wait| self.broker.now() + wait);
        let mut step = Span::ZERO;
        loop {
            let before = self.standing();
            self.learn_more().await;
            let settled = match self.broker.settled(&self.open, step).await {
                Ok(settled) => settled,
                Err(refused) => return self.out.send(Err(refused.into())).await.map_err(|_| Gone),
            };
            let changed = self.learn(settled);
            if step == Span::ZERO || !changed.is_empty() || self.standing() != before {
                self.tell(&changed).await?;
            }
            let over = until.is_some_and(|until| self.broker.now() >= until);
            if self.is_done() || over || self.out.is_closed() {
                return Ok(());
            }
            step = STEP;
        }
    }

    /// What a revocation that is not listed to its end has taken since.
    async fn learn_more(&mut self) {
        if self.revocation.complete {
            return;
        }
        if let Ok(revocation) = self.broker.revocation(self.revocation.id).await {
            let known: BTreeSet<_> = self.revocation.leases.iter().copied().collect();
            self.open.extend(revocation.leases.iter().copied().filter(|id| !known.contains(id)));
            self.revocation = revocation;
        }
    }

    fn standing(&self) -> (usize, usize, bool) {
        (self.open.len(), self.stuck, self.revocation.complete)
    }

    /// All is listed, and each is dead or beyond reach.
    fn is_done(&self) -> bool {
        self.revocation.complete && self.open.is_empty()
    }

    /// What is new of the leases that were open.
    fn learn(&mut self, settled: Settled) -> Vec<Lease> {
        self.open = settled.pending_ids().collect();
        self.stuck = write::stuck(&settled);
        let residual = settled.leases.iter().filter(|lease| is_residual(lease));
        self.residual += residual.count();
        let mut changed = settled.leases;
        changed.retain(|lease| self.versions.insert(lease.terms.id, lease.version) != Some(lease.version));
        changed
    }

    /// Only the last message of many may say that all is done.
    async fn tell(&self, changed: &[Lease]) -> Result<(), Gone> {
        let pages = changed.len().div_ceil(OUTCOMES).max(1);
        for number in 0..pages {
            let page: Vec<_> = changed.iter().skip(number * OUTCOMES).take(OUTCOMES).cloned().collect();
            let done = self.is_done() && number + 1 == pages;
            let progress = v1::RevocationProgress {
                revocation: Some(self.view(page)),
                pending: self.open.iter().take(OUTCOMES).map(ToString::to_string).collect(),
                done,
            };
            self.out.send_timeout(Ok(progress), PATIENCE).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    fn view(&self, leases: Vec<Lease>) -> v1::Revocation {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let (total, pending) = (self.revocation.leases.len(), self.open.len());
        let counts = v1::RevocationCounts {
            total: count(total),
            confirmed: count(total.saturating_sub(pending + self.residual)),
            pending: count(pending),
            residual: count(self.residual),
            stuck: count(self.stuck),
        };
        let changed = Settled { leases, ..Settled::default() };
        v1::Revocation { counts: Some(counts), ..write::revocation(&self.revocation, &changed) }
    }
}

fn is_residual(lease: &Lease) -> bool {
    matches!(lease.state, LeaseState::Residual { .. })
}
