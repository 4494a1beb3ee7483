//! Refusals that come again and again: the first of a kind in a minute is on record by itself, those after it are
//! counted and written together, so that no caller can fill the disk by being refused (RULES R-24).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use leasehold_law::caller::CallerId;
use leasehold_law::id::DecisionId;
use leasehold_law::journal::Event;
use leasehold_law::reason::Reason;
use leasehold_law::time::Timestamp;

use super::Broker;
use super::refused::Refused;

const MINUTE_MS: i64 = 60_000;
/// Kinds that are kept apart; of the others it is known how many there were.
const KEPT: usize = 4096;
/// Whom the refusals are about that were too many to keep apart.
const OTHERS: &str = "others";

/// What makes two refusals the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    minute: i64,
    /// The caller, or the holder of a quota.
    about: String,
    reason: Reason,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    first: DecisionId,
    again: u64,
}

/// Refusals of the present minute, and of those that are not yet written down.
#[derive(Default)]
pub(super) struct Repeats(Mutex<BTreeMap<Kind, Count>>);

impl Repeats {
    /// Counts a refusal, and gives the id of the first of its kind: `id`, if it is the first.
    fn count(&self, about: &str, reason: Reason, id: DecisionId, now: Timestamp) -> DecisionId {
        let mut kinds = self.lock();
        let minute = minute_of(now);
        let mut kind = Kind { minute, about: about.to_owned(), reason };
        if kinds.len() >= KEPT && !kinds.contains_key(&kind) {
            OTHERS.clone_into(&mut kind.about);
        }
        let count = kinds.entry(kind).or_insert(Count { first: id, again: 0 });
        if count.first != id {
            count.again = count.again.saturating_add(1);
        }
        count.first
    }

    /// Takes the minutes that are over at `now`.
    fn drain(&self, now: Timestamp) -> Vec<(Kind, Count)> {
        let mut kinds = self.lock();
        let first_open = Kind { minute: minute_of(now), about: String::new(), reason: Reason::NoIdentity };
        let open = kinds.split_off(&first_open);
        std::mem::replace(&mut *kinds, open).into_iter().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Kind, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn minute_of(now: Timestamp) -> i64 {
    now.0.div_euclid(MINUTE_MS).saturating_mul(MINUTE_MS)
}

impl Broker {
    /// Puts a refusal on record that rests on no decision of policy, or counts it where its like is on record. It
    /// carries the id of the one that is.
    pub async fn turn_away(&self, caller: &CallerId, call: &str, refused: Refused) -> Refused {
        let Ok(id) = self.make_decision_id() else { return refused };
        let about = refused.details.get("quota").cloned().unwrap_or_else(|| caller.to_string());
        let first = self.inner.repeats.count(&about, refused.reason, id, self.now());
        if first != id {
            return refused.decided(first);
        }
        self.record_denial_as(id, caller, call, refused).await
    }

    /// Writes down how often each kind of refusal came again, for the minutes that are over at `now`; at the end of a
    /// broker pass the end of time.
    pub async fn record_repeats(&self, now: Timestamp) {
        for (kind, count) in self.inner.repeats.drain(now) {
            if count.again == 0 {
                continue;
            }
            let event = Event::RefusedAgain {
                first: count.first,
                about: kind.about,
                reason: kind.reason.text().to_owned(),
                minute: Timestamp(kind.minute),
                count: count.again,
            };
            if let Err(error) = self.inner.ledger.note(&count.first.to_string(), event).await {
                tracing::warn!(first = %count.first, again = count.again, %error, "refusals are not on record");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(1_795_000_020_000);

    fn id(n: u64) -> DecisionId {
        DecisionId::derive(T0, n)
    }

    #[test]
    fn the_first_of_a_minute_stands_for_those_after_it() {
        let repeats = Repeats::default();
        let count = |about, reason, n, at| repeats.count(about, reason, id(n), T0.shifted(at));
        assert_eq!(count("a", Reason::Quota, 1, 0), id(1));
        assert_eq!(count("a", Reason::Quota, 2, 1), id(1));
        assert_eq!(count("b", Reason::Quota, 3, 2), id(3), "another holder");
        assert_eq!(count("a", Reason::UnknownAgent, 4, 3), id(4), "another reason");
        assert_eq!(count("a", Reason::Quota, 5, 60_000), id(5), "another minute");
        let drained = repeats.drain(T0.shifted(60_000));
        let again: Vec<_> = drained.iter().map(|(kind, count)| (kind.about.as_str(), count.again)).collect();
        assert_eq!(again, [("a", 0), ("a", 1), ("b", 0)]);
        assert_eq!(repeats.drain(Timestamp(i64::MAX)).len(), 1, "the open minute stayed");
    }

    #[test]
    fn memory_is_bounded_and_no_refusal_is_lost() {
        let repeats = Repeats::default();
        let all = 3 * u64::try_from(KEPT).unwrap();
        for n in 0..all {
            repeats.count(&n.to_string(), Reason::UnknownAgent, id(n), T0);
        }
        let drained = repeats.drain(Timestamp(i64::MAX));
        assert_eq!(drained.len(), KEPT + 1);
        assert_eq!(drained.iter().map(|(_, count)| 1 + count.again).sum::<u64>(), all);
    }
}
