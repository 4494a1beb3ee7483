//! Refusals are on record like grants (law 12), each under an id by which people can speak of it.

use super::Broker;
use super::decide::Asker;
use super::refused::Refused;
use crate::ledger::refused;

impl Broker {
    /// Writes a denial down that no decision of policy has written down already.
    pub(super) async fn on_record<T>(
        &self,
        asker: &Asker,
        call: &str,
        result: Result<T, Refused>,
    ) -> Result<T, Refused> {
        match result {
            // A flood over a quota must not cost a commit each.
            Err(denied) if denied.details.contains_key("quota") => {
                Err(self.turn_away(&asker.id, call, denied).await)
            }
            Err(denied) if denied.is_denial() && denied.decision.is_none() => {
                Err(self.record_denial(asker, call, denied).await)
            }
            other => other,
        }
    }

    async fn record_denial(&self, asker: &Asker, call: &str, denied: Refused) -> Refused {
        let Ok(id) = self.make_decision_id() else { return denied };
        let event = refused(id, asker.id.clone(), call, denied.reason);
        match self.inner.ledger.note(&id.to_string(), event).await {
            Ok(()) => denied.decided(id),
            Err(error) => {
                tracing::warn!(caller = %asker.id, call, %error, "a denial is not on record");
                denied
            }
        }
    }
}
