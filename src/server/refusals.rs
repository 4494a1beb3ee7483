//! Refusals written down by reason and minute, so that neither strangers nor callers fill the disk (RULES R-24).

use std::sync::Arc;
use std::time::Duration;

use leasehold_law::journal::Event;

use crate::broker::Broker;
use crate::identity::Refusals;

/// How often the minutes that are over are written down.
const EVERY: Duration = Duration::from_secs(15);

/// Writes until the broker stops.
pub(super) async fn write_down(broker: Broker, refusals: Arc<Refusals>) {
    let mut beat = tokio::time::interval(EVERY);
    loop {
        beat.tick().await;
        broker.record_repeats(broker.now()).await;
        for counted in refusals.drain(broker.now()) {
            let event = Event::Strangers {
                reason: counted.reason.to_string(),
                minute: counted.minute,
                count: counted.count,
            };
            if let Err(error) = broker.ledger().note("strangers", event).await {
                tracing::warn!(%error, reason = %counted.reason, count = counted.count, "refusals are not on record");
            }
        }
    }
}
