//! Times and durations between the wire and the standard library.

use std::time::{Duration, Instant, SystemTime};

use leasehold_law::time::Timestamp;

/// A moment of the broker's clock; `None` when unset or out of range.
#[must_use]
pub fn system_time(stamp: Option<prost_types::Timestamp>) -> Option<SystemTime> {
    stamp.and_then(|stamp| SystemTime::try_from(stamp).ok())
}

/// This machine's time: proofs say when they were made.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A duration for the wire. Longer than the wire can say counts as unset.
#[must_use]
pub fn wire_duration(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

/// When, by this process's own steady clock, something ends that the broker says lasts from `from` to `until`.
///
/// Both ends are the broker's, so the two clocks need not agree; counted from `started`, before the request was
/// sent, the answer errs on the early side only.
#[must_use]
pub fn deadline_of(
    started: Instant,
    from: Option<prost_types::Timestamp>,
    until: Option<prost_types::Timestamp>,
) -> Instant {
    let length =
        system_time(until).zip(system_time(from)).and_then(|(end, start)| end.duration_since(start).ok());
    started + length.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    #[test]
    fn a_deadline_needs_no_common_clock() {
        let now = Instant::now();
        assert_eq!(deadline_of(now, at(9_000_000), at(9_000_600)), now + Duration::from_secs(600));
        assert_eq!(deadline_of(now, at(10), at(5)), now);
        assert_eq!(deadline_of(now, None, at(5)), now);
    }
}
