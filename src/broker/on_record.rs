//! Refusals are on record like grants (law 12), each under an id by which people can speak of it.

use leasehold_law::caller::CallerId;
use leasehold_law::id::DecisionId;
use leasehold_law::journal::Event;

use super::Broker;
use super::decide::Asker;
use super::refused::Refused;

/// How much of a call's name goes on record: a stranger may have chosen it.
const CALL_CHARS: usize = 128;

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
                Err(self.record_denial(&asker.id, call, denied).await)
            }
            other => other,
        }
    }

    async fn record_denial(&self, caller: &CallerId, call: &str, denied: Refused) -> Refused {
        match self.make_decision_id() {
            Ok(id) => self.record_denial_as(id, caller, call, denied).await,
            Err(_) => denied,
        }
    }

    /// Writes a denial down, and gives it with the id of its record. One that cannot be written is no less a denial.
    pub(super) async fn record_denial_as(
        &self,
        decision: DecisionId,
        caller: &CallerId,
        call: &str,
        denied: Refused,
    ) -> Refused {
        let event = Event::Refused {
            decision,
            caller: caller.clone(),
            call: call.chars().take(CALL_CHARS).collect(),
            reason: denied.reason.text().to_owned(),
        };
        match self.inner.ledger.note(&decision.to_string(), event).await {
            Ok(()) => denied.decided(decision),
            Err(error) => {
                tracing::warn!(%caller, call, %error, "a denial is not on record");
                denied
            }
        }
    }
}
