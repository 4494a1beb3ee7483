//! Quotas (REQUIREMENTS POL-9): buckets that requests take from, and ceilings that the store compares when it writes.
//!
//! A rate is asked before anything is decided or written, so that a flood costs no commit. What gives back or stops is
//! never counted: heartbeats, releases, scopes that only narrow, ends of tasks, revocations.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use leasehold_law::caller::CallerId;
use leasehold_law::quota::{Bucket, Holder, Quotas, Rate};
use leasehold_law::reason::Reason;
use leasehold_law::time::{Span, Timestamp};

use super::decide::Asker;
use super::refused::Refused;
use super::{Broker, Inner};
use crate::registry::Registry;
use crate::store::{Ceiling, Counted};

/// When to ask again where only the end of a lease makes room.
const UNTIL_A_LEASE_ENDS: Span = Span::from_secs(5);

/// Lets requests through at their rates. There is a bucket for each registered agent, owner and target that has a rate, and no other.
pub(super) struct RateLimiter {
    quotas: Quotas,
    /// How many brokers count beside each other, this one among them: each has its part of every rate.
    brokers: AtomicU32,
    buckets: Mutex<HashMap<Holder, Bucket>>,
}

/// A rate that is used up.
struct Exhausted {
    holder: Holder,
    rate: Rate,
    brokers: u32,
    wait: Span,
}

impl RateLimiter {
    pub(super) fn new(quotas: Quotas) -> Self {
        Self { quotas, brokers: AtomicU32::new(1), buckets: Mutex::default() }
    }

    /// Takes one from the bucket of each, or from none.
    fn take(&self, holders: &[Holder], now: Timestamp) -> Result<(), Exhausted> {
        let brokers = self.brokers.load(Ordering::Relaxed);
        let part = |holder| Some((holder, self.quotas.of(holder).rate?.among(brokers)));
        let rated: Vec<_> = holders.iter().filter_map(part).collect();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        for (holder, rate) in &rated {
            let bucket = buckets.entry((*holder).clone()).or_insert_with(|| Bucket::full(rate, now));
            let wait = bucket.wait(rate, now);
            if wait > Span::ZERO {
                let rate = self.quotas.of(holder).rate.unwrap_or(*rate);
                return Err(Exhausted { holder: (*holder).clone(), rate, brokers, wait });
            }
        }
        for (holder, rate) in &rated {
            if let Some(bucket) = buckets.get_mut(holder) {
                bucket.take(rate);
            }
        }
        Ok(())
    }
}

impl Broker {
    /// How many brokers share the store and live, this one among them, as of the last look, a second ago at most. Each
    /// lets through its part of every rate.
    #[must_use]
    pub fn live_brokers(&self) -> u32 {
        self.inner.limiter.brokers.load(Ordering::Relaxed)
    }
}

impl Inner {
    /// Looks how many brokers rates are divided among. While the store does not say, it stays as it was.
    pub(super) async fn count_brokers(&self) {
        match self.ledger.store().live_brokers().await {
            Ok(brokers) => self.limiter.brokers.store(brokers.max(1), Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "how many brokers live cannot be read"),
        }
    }

    /// Counts a call of an agent, and of its owner. Who is not registered has no bucket, and is refused elsewhere. What
    /// drills has none: a target has one drill at a time, and only what the target itself bears bounds it.
    pub(super) fn count_call(&self, asker: &Asker) -> Result<(), Refused> {
        if asker.id == CallerId::Drill {
            return Ok(());
        }
        let registry = self.registry.load();
        let Some(owner) = registry.owner(&asker.id) else { return Ok(()) };
        let holders = [Holder::Agent(asker.id.clone()), Holder::Owner(owner.clone())];
        self.limiter.take(&holders, self.clock.now()).map_err(Refused::from)
    }

    /// Counts what will touch a target that the caller may ask for: others must neither use up its rate nor learn of
    /// it.
    pub(super) fn count_use(&self, target: &str) -> Result<(), Refused> {
        let holders = [Holder::Target(target.to_owned())];
        self.limiter.take(&holders, self.clock.now()).map_err(Refused::from)
    }

    /// What must not be reached by one more lease of this agent on this target.
    pub(super) fn ceilings(&self, registry: &Registry, agent: &CallerId, target: &str) -> Vec<Ceiling> {
        let owner = registry.owner(agent).cloned();
        let whose = [Some(Holder::Agent(agent.clone())), owner.map(Holder::Owner)];
        let whose = whose.into_iter().flatten().filter(|_| *agent != CallerId::Drill);
        let holders = whose.chain([Holder::Target(target.to_owned())]);
        holders.filter_map(|holder| self.ceiling(registry, holder)).collect()
    }

    fn ceiling(&self, registry: &Registry, holder: Holder) -> Option<Ceiling> {
        let most = self.limiter.quotas.of(&holder).live?;
        let counted = match &holder {
            Holder::Agent(agent) => Counted::Agents(vec![agent.clone()]),
            Holder::Owner(owner) => Counted::Agents(registry.named_agents_of(owner)),
            Holder::Target(target) => Counted::Target(target.clone()),
        };
        Some(Ceiling { holder, counted, most })
    }
}

impl From<Exhausted> for Refused {
    fn from(Exhausted { holder, rate, brokers, wait }: Exhausted) -> Self {
        let why = match brokers {
            0 | 1 => format!("its quota is {rate}"),
            _ => format!("its quota is {rate}, and each of {brokers} brokers gives its part of it"),
        };
        Self::quota(&holder, format!("too many requests of {holder}"))
            .why(why)
            .next("ask again after the delay, and more slowly")
            .retry_after(wait)
    }
}

impl From<&Ceiling> for Refused {
    fn from(Ceiling { holder, most, .. }: &Ceiling) -> Self {
        let next = match holder {
            Holder::Agent(_) | Holder::Owner(_) => {
                "give back what is no longer needed (leasehold lease list --live), or ask an operator for a higher quota"
            }
            Holder::Target(_) => "ask again when others have given theirs back",
        };
        Self::quota(holder, format!("{holder} may have no more live leases"))
            .why(format!("its quota is {most} at one time"))
            .next(next)
            .retry_after(UNTIL_A_LEASE_ENDS)
    }
}

impl Refused {
    fn quota(holder: &Holder, what: String) -> Self {
        Self::new(Reason::Quota, what).detail("quota", holder)
    }
}

#[cfg(test)]
mod tests {
    use leasehold_law::quota::Quota;

    use super::*;

    const T0: Timestamp = Timestamp(1_795_000_000_000);

    #[test]
    fn a_call_takes_from_every_bucket_or_from_none() {
        let rate = |text: &str| Quota { live: None, rate: Some(text.parse().unwrap()) };
        let quotas = Quotas { agent: rate("2/s"), owner: rate("1/s"), ..Quotas::default() };
        let limiter = RateLimiter::new(quotas);
        let agent = |n: u8| Holder::Agent(format!("spiffe://prod.example/agent/{n}").parse().unwrap());
        let both = |n| [agent(n), Holder::Owner("person:ana".parse().unwrap())];
        assert!(limiter.take(&both(1), T0).is_ok());
        let exhausted = limiter.take(&both(1), T0).unwrap_err();
        assert_eq!((exhausted.holder.kind(), exhausted.wait), ("owner", Span::from_secs(1)));
        assert!(limiter.take(&[agent(1)], T0).is_ok(), "what the owner refused took nothing of the agent");
        assert!(limiter.take(&[agent(1)], T0).is_err());
        assert!(
            limiter.take(&[Holder::Target("orders".into())], T0).is_ok(),
            "what has no rate is not counted"
        );
        assert_eq!(limiter.buckets.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_full_queue_is_no_broken_journal() {
        let refused = Refused::from(crate::store::StoreError::Busy);
        assert_eq!(refused.reason, Reason::Quota);
        assert!(refused.retry_after.is_some());
    }
}
