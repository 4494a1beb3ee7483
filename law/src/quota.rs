//! Quotas: how many leases may live, and how many requests may come (REQUIREMENTS POL-9). Pure: `now` is an argument.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::caller::CallerId;
use crate::catalog::Owner;
use crate::time::{Span, Timestamp};

/// What a quota is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// One agent.
    Agent(CallerId),
    /// All agents of one owner.
    Owner(Owner),
    /// One target.
    Target(String),
}

impl Holder {
    /// Its kind, as config and programs name it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Agent(_) => "agent",
            Self::Owner(_) => "owner",
            Self::Target(_) => "target",
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(id) => write!(f, "agent {id}"),
            Self::Owner(owner) => write!(f, "owner {owner}"),
            Self::Target(name) => write!(f, "target {name}"),
        }
    }
}

/// What one holder may use; what is `None` has no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Live leases at one time; 0 lets none be issued.
    pub live: Option<u64>,
    /// Requests.
    pub rate: Option<Rate>,
}

/// The quotas of all holders: one for each kind, and those that name their holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Every agent that has none of its own.
    pub agent: Quota,
    /// Every owner that has none of its own.
    pub owner: Quota,
    /// Every target that has none of its own.
    pub target: Quota,
    /// By name.
    pub named: BTreeMap<Holder, Quota>,
}

impl Quotas {
    /// What a holder may use.
    #[must_use]
    pub fn of(&self, holder: &Holder) -> Quota {
        let general = match holder {
            Holder::Agent(_) => self.agent,
            Holder::Owner(_) => self.owner,
            Holder::Target(_) => self.target,
        };
        self.named.get(holder).copied().unwrap_or(general)
    }
}

/// So many in such a time, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many come back in `per`.
    pub count: u32,
    /// The time in which they do.
    pub per: Span,
    /// How many may come at once after a rest.
    pub burst: u32,
}

impl Rate {
    /// The part of one of so many brokers, each of which counts what it is asked itself: together they come to this
    /// rate. Only what may come at once is rounded up, so that each of them lets something through.
    #[must_use]
    pub fn among(self, brokers: u32) -> Self {
        let brokers = brokers.max(1);
        let per = Span(self.per.0.saturating_mul(u64::from(brokers)));
        Self { count: self.count, per, burst: self.burst.div_ceil(brokers) }
    }
}

/// Why a text is not a rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a rate; write it like `20/s`, `100/m` or `5/10s`, at least 1")]
pub struct RateError(String);

impl FromStr for Rate {
    type Err = RateError;
    /// Without more words as many may come at once as come back in the time that is named.
    fn from_str(text: &str) -> Result<Self, RateError> {
        let wrong = || RateError(text.to_owned());
        let (count, per) = text.split_once('/').ok_or_else(wrong)?;
        let count: u32 = count.trim().parse().map_err(|_| wrong())?;
        let per = per.trim();
        let per =
            if per.starts_with(|c: char| c.is_ascii_digit()) { per.to_owned() } else { format!("1{per}") };
        let per: Span = per.parse().map_err(|_| wrong())?;
        if count == 0 || per == Span::ZERO { Err(wrong()) } else { Ok(Self { count, per, burst: count }) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}, and {} at once", self.count, self.per, self.burst)
    }
}

/// A token bucket, full at first. What is left in it is divided with the rate: [`Rate::among`] makes each token dearer.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Tokens times the milliseconds of the rate's time, so that no fraction of a token is lost.
    level: u64,
    at: Timestamp,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn full(rate: &Rate, now: Timestamp) -> Self {
        Self { level: brim(rate), at: now }
    }

    /// How long until there is a token; zero where there is one.
    pub fn wait(&mut self, rate: &Rate, now: Timestamp) -> Span {
        let came = now.since(self.at).0.saturating_mul(u64::from(rate.count));
        self.level = self.level.saturating_add(came).min(brim(rate));
        self.at = self.at.max(now);
        let lacking = rate.per.0.saturating_sub(self.level);
        Span(lacking.div_ceil(u64::from(rate.count.max(1))))
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, rate: &Rate) {
        self.level = self.level.saturating_sub(rate.per.0);
    }
}

fn brim(rate: &Rate) -> u64 {
    rate.per.0.saturating_mul(u64::from(rate.burst.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(1_795_000_000_000);

    #[test]
    fn rates_read_as_people_write_them() {
        let check = |text: &str, count, seconds| {
            let expect = Rate { count, per: Span::from_secs(seconds), burst: count };
            assert_eq!(text.parse(), Ok(expect), "{text}");
        };
        check("20/s", 20, 1);
        check("100/m", 100, 60);
        check("5/10s", 5, 10);
        for bad in ["20", "0/s", "20/", "x/s", "20/0s", "-1/s", "20/fortnight"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = Rate { burst: 3, ..("2/s").parse().unwrap() };
        let mut bucket = Bucket::full(&rate, T0);
        let taken = |bucket: &mut Bucket, at: i64| {
            let mut taken = 0;
            while bucket.wait(&rate, T0.shifted(at)) == Span::ZERO {
                bucket.take(&rate);
                taken += 1;
            }
            taken
        };
        assert_eq!(taken(&mut bucket, 0), 3);
        assert_eq!(bucket.wait(&rate, T0), Span(500));
        assert_eq!(taken(&mut bucket, 499), 0);
        assert_eq!(taken(&mut bucket, 500), 1);
        assert_eq!(taken(&mut bucket, 1500), 2);
        assert_eq!(taken(&mut bucket, 1_000_000_000), 3, "it never holds more than its burst");
        assert_eq!(taken(&mut bucket, 0), 0, "time that runs back brings nothing");
    }

    #[test]
    fn brokers_that_count_for_themselves_come_to_the_rate_together() {
        let rate = Rate { burst: 6, ..("4/m").parse().unwrap() };
        let taken = |brokers: u32, minutes: i64| -> u32 {
            let part = rate.among(brokers);
            let mut buckets: Vec<_> = (0..brokers).map(|_| Bucket::full(&part, T0)).collect();
            let mut taken = 0;
            for minute in 0..=minutes {
                for bucket in &mut buckets {
                    while bucket.wait(&part, T0.shifted(minute * 60_000)) == Span::ZERO {
                        bucket.take(&part);
                        taken += 1;
                    }
                }
            }
            taken
        };
        for (brokers, at_once) in [(1, 6), (2, 6), (3, 6), (4, 8), (12, 12)] {
            assert_eq!(taken(brokers, 0), at_once, "{brokers} brokers at once");
            assert_eq!(taken(brokers, 12), at_once + 12 * 4, "{brokers} brokers in twelve minutes");
        }
        assert_eq!(rate.among(0), rate);
    }

    #[test]
    fn what_is_left_is_divided_when_a_broker_comes_and_not_made_again_when_it_goes() {
        let rate = Rate { burst: 4, ..("1/h").parse().unwrap() };
        let mut bucket = Bucket::full(&rate, T0);
        let left = |bucket: &Bucket, rate: &Rate| {
            let mut bucket = *bucket;
            std::iter::repeat_with(|| {
                bucket.wait(rate, T0) == Span::ZERO && {
                    bucket.take(rate);
                    true
                }
            })
            .take_while(|taken| *taken)
            .count()
        };
        assert_eq!((left(&bucket, &rate), left(&bucket, &rate.among(2))), (4, 2));
        bucket.take(&rate.among(2));
        assert_eq!((left(&bucket, &rate.among(2)), left(&bucket, &rate)), (1, 2));
    }

    #[test]
    fn a_name_goes_before_its_kind() {
        let few = Quota { live: Some(1), rate: None };
        let holder = Holder::Target("orders".to_owned());
        let quotas = Quotas { named: BTreeMap::from([(holder.clone(), few)]), ..Quotas::default() };
        assert_eq!(quotas.of(&holder), few);
        assert_eq!(quotas.of(&Holder::Target("stock".to_owned())), Quota::default());
    }
}
