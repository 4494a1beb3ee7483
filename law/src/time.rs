//! Points and spans of time, in whole milliseconds.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

/// A length of time in milliseconds, never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(pub u64);

impl Timestamp {
    /// The time that has passed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Span {
        Span(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The second that this is in.
    #[must_use]
    pub const fn whole_seconds(self) -> Self {
        Self(self.0 - self.0.rem_euclid(1000))
    }

    /// Whether this moment, which was set no more than `most` ahead, has come. It has, too, where it lies further ahead
    /// than that: whoever set it went by a clock that was put back since (RULES R-23).
    #[must_use]
    pub fn has_come(self, now: Self, most: Span) -> bool {
        self <= now || self > now + most
    }

    /// This point moved by a signed number of milliseconds: how a clock offset is applied.
    #[must_use]
    pub fn shifted(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

impl Add<Span> for Timestamp {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        self.shifted(i64::try_from(span.0).unwrap_or(i64::MAX))
    }
}

impl Sub<Span> for Timestamp {
    type Output = Self;
    fn sub(self, span: Span) -> Self {
        self.shifted(-i64::try_from(span.0).unwrap_or(i64::MAX))
    }
}

/// Why a text is no day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a day; write it like `2026-10-01`")]
pub struct DayError(String);

/// A day of the calendar, as `2026-10-01`, by its first moment in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day(pub Timestamp);

impl std::str::FromStr for Day {
    type Err = DayError;
    fn from_str(text: &str) -> Result<Self, DayError> {
        let wrong = || DayError(text.chars().take(32).collect());
        let fits = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let day: chrono::NaiveDate =
            Some(text).filter(|_| fits).ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
        Ok(Self(Timestamp(day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis())))
    }
}

/// RFC 3339 in UTC, to the millisecond.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_timestamp_millis(self.0) {
            Some(at) => f.write_str(&at.to_rfc3339_opts(SecondsFormat::Millis, true)),
            None => write!(f, "{} ms", self.0),
        }
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// A span of whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// A span of whole minutes.
    #[must_use]
    pub const fn from_mins(mins: u64) -> Self {
        Self::from_secs(mins.saturating_mul(60))
    }

    /// Without what is less than a second.
    #[must_use]
    pub const fn whole_seconds(self) -> Self {
        Self(self.0 - self.0 % 1000)
    }

    /// The span for timers.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// The fraction `numerator / denominator` of this span; a zero denominator counts as one.
    #[must_use]
    pub fn fraction(self, numerator: u64, denominator: u64) -> Self {
        Self(self.0.saturating_mul(numerator) / denominator.max(1))
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

/// As people write it: `90s`, `15m`, `1h`, `1h30m`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, millis) in UNITS {
            if rest >= millis {
                write!(f, "{}{unit}", rest / millis)?;
                rest %= millis;
            }
        }
        Ok(())
    }
}

/// Largest first; `ms` last, so that `m` is not taken for it.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Why a text is not a span.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a length of time; write it like `90s`, `15m` or `1h30m`")]
pub struct SpanError(String);

impl std::str::FromStr for Span {
    type Err = SpanError;
    fn from_str(text: &str) -> Result<Self, SpanError> {
        let wrong = || SpanError(text.to_owned());
        let mut rest = text;
        let mut total = 0_u64;
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, tail) = rest.split_at(digits);
            let letters = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
            let (unit, tail) = tail.split_at(letters);
            let (_, millis) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            let number: u64 = number.parse().map_err(|_| wrong())?;
            total = number.checked_mul(millis).and_then(|n| total.checked_add(n)).ok_or_else(wrong)?;
            rest = tail;
        }
        if text.is_empty() { Err(wrong()) } else { Ok(Self(total)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_people_write_them() {
        let check = |text: &str, expect: Option<u64>| {
            assert_eq!(text.parse::<Span>().ok().map(|s| s.0), expect, "{text}");
        };
        check("90s", Some(90_000));
        check("15m", Some(900_000));
        check("1h30m", Some(5_400_000));
        check("250ms", Some(250));
        check("2d", Some(172_800_000));
        for bad in
            ["", "15", "m", "1.5h", "-1m", "1w", "1h ", "99999999999999999999s", "18446744073709551615s"]
        {
            check(bad, None);
        }
    }

    #[test]
    fn spans_print_as_they_are_read() {
        for text in ["0s", "90ms", "15m", "1h30m", "2d1h1m1s1ms"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_day_begins_at_midnight_utc() {
        assert_eq!("2026-10-01".parse::<Day>().unwrap().0.to_string(), "2026-10-01T00:00:00.000Z");
        for bad in
            ["", "2026-13-01", "2026-02-30", "26-10-01", "2026-10-1", "+026-10-01", "2026-10-01T00:00:00Z"]
        {
            assert_eq!(bad.parse::<Day>(), Err(DayError(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn time_never_wraps() {
        assert_eq!(Timestamp(5).since(Timestamp(9)), Span::ZERO);
        assert_eq!(Timestamp(i64::MAX) + Span(u64::MAX), Timestamp(i64::MAX));
    }

    #[test]
    fn seconds_begin_before_what_is_in_them() {
        assert_eq!(Timestamp(1999).whole_seconds(), Timestamp(1000));
        assert_eq!(Timestamp(-1).whole_seconds(), Timestamp(-1000));
        assert_eq!(Span(1999).whole_seconds(), Span(1000));
    }

    #[test]
    fn a_timestamp_prints_as_rfc_3339() {
        assert_eq!(Timestamp(1_795_000_000_123).to_string(), "2026-11-18T11:06:40.123Z");
    }
}
