//! The breaker of one target: when it does not answer, one call at a time asks whether it is back.

use leasehold_law::time::{Span, Timestamp};

use super::backoff;

/// The wait before the first probe.
const FIRST: Span = Span(500);
/// The longest wait between two probes: what a healed target is found within.
const MOST: Span = Span::from_secs(3);

/// Whether a target is called, and when it is asked again where it did not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Breaker {
    /// It answers, as far as is known.
    #[default]
    Closed,
    /// It did not answer.
    Open {
        /// Since when.
        since: Timestamp,
        /// How often in a row.
        failures: u32,
        /// When it was asked last.
        asked_at: Timestamp,
        /// When it is asked again.
        until: Timestamp,
    },
    /// It is being asked whether it is back.
    HalfOpen {
        /// Since when it has not answered.
        since: Timestamp,
        /// How often in a row.
        failures: u32,
    },
}

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// Yes.
    Call,
    /// One, with one lease: the probe.
    Probe,
    /// Not now.
    Wait,
}

impl Breaker {
    /// Whether a call may be made now. A security lease that no call has carried yet does not wait for a long pause to
    /// end: whatever made others fail need not be in its way.
    pub(super) fn leave(&self, now: Timestamp, urgent: bool) -> Leave {
        match self {
            Self::Closed => Leave::Call,
            Self::Open { until, .. } if until.has_come(now, MOST) => Leave::Probe,
            Self::Open { asked_at, .. } if urgent && (*asked_at + FIRST).has_come(now, FIRST) => Leave::Probe,
            Self::Open { .. } | Self::HalfOpen { .. } => Leave::Wait,
        }
    }

    /// A probe is on its way.
    pub(super) fn probe(&mut self) {
        if let Self::Open { since, failures, .. } = *self {
            *self = Self::HalfOpen { since, failures };
        }
    }

    /// The target answered a call, whatever it said.
    pub(super) fn answered(&mut self) {
        *self = Self::Closed;
    }

    /// The target did not answer a call. Gives the moment from which on it is asked again. Calls that were under way
    /// when the breaker opened change nothing any more.
    pub(super) fn unanswered(&mut self, was_probe: bool, now: Timestamp, spread: u64) -> Timestamp {
        let (since, failures) = match *self {
            Self::Closed => (now, 1),
            Self::HalfOpen { since, failures } if was_probe => (since, failures.saturating_add(1)),
            Self::HalfOpen { .. } => return now + MOST,
            Self::Open { until, .. } => return until.min(now + MOST),
        };
        let until = now + backoff::wait(FIRST, MOST, failures - 1, spread);
        *self = Self::Open { since, failures, asked_at: now, until };
        until
    }

    /// A probe ended without a word: the next may follow at once.
    pub(super) fn give_up_probe(&mut self) {
        if let Self::HalfOpen { since, failures } = *self {
            *self = Self::Open { since, failures, asked_at: since, until: since };
        }
    }

    /// Whether the target is called as it should be.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1000)
    }

    fn failures(breaker: Breaker) -> u32 {
        match breaker {
            Breaker::Closed => 0,
            Breaker::Open { failures, .. } | Breaker::HalfOpen { failures, .. } => failures,
        }
    }

    #[test]
    fn one_probe_at_a_time_asks_whether_the_target_is_back() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.leave(at(0), false), Leave::Call);
        let until = breaker.unanswered(false, at(0), 0);
        assert!(at(0) < until && until < at(1));
        assert_eq!(breaker.leave(until.shifted(-1), false), Leave::Wait);
        assert_eq!(breaker.leave(until, false), Leave::Probe);
        breaker.probe();
        assert_eq!(breaker.leave(at(999), true), Leave::Wait, "one is on its way");
        breaker.answered();
        assert_eq!((breaker, breaker.leave(at(2), false)), (Breaker::Closed, Leave::Call));
    }

    #[test]
    fn the_pause_grows_to_its_most_and_no_further() {
        let mut breaker = Breaker::default();
        let mut now = at(0);
        let mut pauses = vec![];
        for _ in 0..2000 {
            let until = breaker.unanswered(true, now, 77);
            pauses.push(until.since(now).0);
            now = until;
            assert_eq!(breaker.leave(now, false), Leave::Probe, "it never gives up");
            breaker.probe();
        }
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]), "{:?}", &pauses[..8]);
        assert!(pauses.iter().all(|pause| *pause <= MOST.0));
        assert!(matches!(breaker, Breaker::HalfOpen { since, failures: 2000 } if since == at(0)));
    }

    #[test]
    fn calls_that_were_under_way_when_it_opened_do_not_prolong_it() {
        let mut breaker = Breaker::default();
        let until = breaker.unanswered(false, at(0), 0);
        assert_eq!(breaker.unanswered(false, at(9), 0), until);
        breaker.probe();
        breaker.unanswered(false, at(9), 0);
        assert_eq!(failures(breaker), 1);
        breaker.unanswered(true, at(9), 0);
        assert_eq!(failures(breaker), 2);
    }

    /// An operator confirmed a wall clock that had been an hour ahead: every moment that was reckoned by it is far off.
    #[test]
    fn a_clock_that_was_put_back_keeps_no_target_waiting() {
        let mut breaker = Breaker::default();
        breaker.unanswered(false, at(3600), 0);
        assert_eq!(breaker.leave(at(3600), true), Leave::Wait);
        assert_eq!(breaker.leave(at(5), false), Leave::Probe);
        assert!(breaker.unanswered(false, at(5), 0) <= at(5) + MOST, "nor the calls that were under way");
        breaker.probe();
        let until = breaker.unanswered(true, at(5), 0);
        assert_eq!((breaker.leave(at(5), false), breaker.leave(until, false)), (Leave::Wait, Leave::Probe));
    }

    #[test]
    fn what_is_new_and_urgent_waits_for_no_long_pause() {
        let mut breaker = Breaker::default();
        for second in 0..9 {
            breaker.unanswered(true, at(second), 0);
            breaker.probe();
        }
        breaker.unanswered(true, at(10), 0);
        let soon = at(10) + FIRST;
        assert_eq!(breaker.leave(soon, false), Leave::Wait);
        assert_eq!(breaker.leave(soon.shifted(-1), true), Leave::Wait);
        assert_eq!(breaker.leave(soon, true), Leave::Probe);
    }
}
