//! The one clock (RULES R-23): wall time that never runs backwards and never hides a jump.
//!
//! now = the later of the wall clock and the persisted high-water mark plus what CLOCK_BOOTTIME has counted since.
//! Where the wall clock falls more than five seconds behind that, nothing is issued until they agree or an operator
//! confirms the wall clock. A jump forward, as of a machine that was suspended, is taken as it is.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use leasehold_law::time::{Span, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// How far the wall clock may fall behind before nothing is issued.
pub const TOLERANCE: Span = Span::from_secs(5);

/// Where time comes from.
pub trait TimeSource: Send + Sync {
    /// The wall clock.
    fn wall(&self) -> Timestamp;
    /// Time since boot, suspended time included.
    fn boot(&self) -> Span;
}

/// The host's own clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemTime;

impl TimeSource for SystemTime {
    fn wall(&self) -> Timestamp {
        Timestamp(chrono_millis(clock_gettime(ClockId::Realtime)))
    }

    fn boot(&self) -> Span {
        Span(u64::try_from(chrono_millis(clock_gettime(ClockId::Boottime))).unwrap_or(0))
    }
}

fn chrono_millis(at: rustix::time::Timespec) -> i64 {
    at.tv_sec.saturating_mul(1000).saturating_add(at.tv_nsec / 1_000_000)
}

/// A time source that moves only when it is told to.
#[derive(Debug, Default)]
pub struct ManualTime(Mutex<(i64, u64)>);

impl ManualTime {
    /// Starts at a moment.
    #[must_use]
    pub fn at(now: Timestamp) -> Arc<Self> {
        Arc::new(Self(Mutex::new((now.0, 1))))
    }

    /// Lets time pass.
    pub fn advance(&self, span: Span) {
        let mut at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        at.0 = Timestamp(at.0).shifted(i64::try_from(span.0).unwrap_or(i64::MAX)).0;
        at.1 = at.1.saturating_add(span.0);
    }

    /// Moves the wall clock alone, by a signed number of milliseconds, as an administrator or NTP would.
    pub fn step_wall(&self, millis: i64) {
        let mut at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        at.0 = at.0.saturating_add(millis);
    }
}

impl TimeSource for ManualTime {
    fn wall(&self) -> Timestamp {
        Timestamp(self.0.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    fn boot(&self) -> Span {
        Span(self.0.lock().unwrap_or_else(PoisonError::into_inner).1)
    }
}

/// The clock of a broker.
pub struct Clock {
    source: Arc<dyn TimeSource>,
    base: Mutex<Base>,
}

/// A moment, and what the boot clock counted then.
#[derive(Clone, Copy)]
struct Base {
    at: Timestamp,
    boot: Span,
}

/// How the clock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The present.
    pub now: Timestamp,
    /// How far the wall clock is behind it.
    pub behind: Span,
}

impl Reading {
    /// Whether credentials may be issued.
    #[must_use]
    pub fn may_issue(&self) -> bool {
        self.behind <= TOLERANCE
    }
}

impl Clock {
    /// A clock that is never before `high_water`, the latest moment that was ever recorded.
    #[must_use]
    pub fn new(source: Arc<dyn TimeSource>, high_water: Option<Timestamp>) -> Self {
        let wall = source.wall();
        let at = high_water.map_or(wall, |mark| mark.max(wall));
        let base = Mutex::new(Base { at, boot: source.boot() });
        Self { source, base }
    }

    /// The present, and how far the wall clock is behind it.
    #[must_use]
    pub fn read(&self) -> Reading {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let wall = self.source.wall();
        let counted = base.at + Span(self.source.boot().0.saturating_sub(base.boot.0));
        if wall > counted {
            *base = Base { at: wall, boot: self.source.boot() };
        }
        let now = wall.max(counted);
        Reading { now, behind: now.since(wall) }
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.read().now
    }

    /// Takes the wall clock as right from now on: an operator looked at it. Time may step back once.
    pub fn confirm(&self) -> Reading {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        *base = Base { at: self.source.wall(), boot: self.source.boot() };
        Reading { now: base.at, behind: Span::ZERO }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("now", &self.now()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn clock(high_water: Option<i64>) -> (Arc<ManualTime>, Clock) {
        let time = ManualTime::at(Timestamp(10 * HOUR));
        let clock = Clock::new(time.clone(), high_water.map(Timestamp));
        (time, clock)
    }

    #[test]
    fn time_passes() {
        let (time, clock) = clock(None);
        time.advance(Span::from_secs(7));
        assert_eq!(clock.read(), Reading { now: Timestamp(10 * HOUR + 7000), behind: Span::ZERO });
    }

    #[test]
    fn an_hour_back_stops_issuing_and_not_the_clock() {
        let (time, clock) = clock(None);
        time.step_wall(-HOUR);
        time.advance(Span::from_secs(1));
        let reading = clock.read();
        assert_eq!(reading.now, Timestamp(10 * HOUR + 1000));
        assert!(!reading.may_issue());
    }

    #[test]
    fn they_may_agree_again_by_themselves_or_by_an_operator() {
        let (time, clock) = clock(None);
        time.step_wall(-6000);
        assert!(!clock.read().may_issue());
        time.step_wall(5000);
        assert!(clock.read().may_issue());
        time.step_wall(-HOUR);
        assert!(!clock.read().may_issue());
        clock.confirm();
        assert_eq!(clock.now(), time.wall());
        assert!(clock.read().may_issue());
    }

    #[test]
    fn a_jump_forward_is_taken_as_it_is() {
        let (time, clock) = clock(None);
        time.step_wall(HOUR);
        assert_eq!(clock.read(), Reading { now: Timestamp(11 * HOUR), behind: Span::ZERO });
        time.advance(Span::from_secs(1));
        assert_eq!(clock.now(), Timestamp(11 * HOUR + 1000));
    }

    #[test]
    fn a_restart_remembers_the_latest_moment() {
        let (_, clock) = clock(Some(11 * HOUR));
        assert_eq!(clock.now(), Timestamp(11 * HOUR));
        assert!(!clock.read().may_issue());
    }
}
