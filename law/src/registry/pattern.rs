//! Who a registration is for: one identity, or every workload whose SPIFFE ID fits a pattern that no clever path can
//! widen.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::caller::{CallerId, SpiffeId};

/// The one wildcard.
const STAR: char = '*';

/// A SPIFFE ID whose last segment ends in `*`: `spiffe://prod.example/agent/ci-*`, `spiffe://prod.example/batch/*`.
///
/// The star stands for one character or more of one segment, never for a `/`. There is no other wildcard, so that what
/// a pattern takes in can be read off it, and two patterns either share nothing or one begins like the other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The star is not the end of it, or there are several.
    #[error(
        "`{0}`: a pattern has one `*`, as the end of its last segment, like `spiffe://prod.example/agent/ci-*`"
    )]
    Star(String),
    /// With the star replaced it is no SPIFFE ID.
    #[error("`{0}`: what stands before the `*` is not the beginning of a SPIFFE ID with a path")]
    Id(String),
}

impl Pattern {
    /// Whether it takes in this identity: a workload's, in the same folder, whose last segment goes on.
    #[must_use]
    pub fn matches(&self, id: &CallerId) -> bool {
        let CallerId::Agent(spiffe) = id else { return false };
        let text = spiffe.to_string();
        text.strip_prefix(self.stem()).is_some_and(|rest| !rest.is_empty() && !rest.contains('/'))
    }

    /// Whether some identity fits both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let goes_on = |long: &Self, short: &Self| {
            long.stem().strip_prefix(short.stem()).is_some_and(|rest| !rest.contains('/'))
        };
        goes_on(self, other) || goes_on(other, self)
    }

    /// The trust domain that it is in.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        let rest = self.0.strip_prefix("spiffe://").unwrap_or(&self.0);
        rest.split_once('/').map_or(rest, |(domain, _)| domain)
    }

    fn stem(&self) -> &str {
        self.0.trim_end_matches(STAR)
    }
}

impl FromStr for Pattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let shown = || text.chars().take(128).collect();
        let stem = text.strip_suffix(STAR).filter(|stem| !stem.contains(STAR));
        let stem = stem.ok_or_else(|| PatternError::Star(shown()))?;
        // With any character in the star's place it must be an id: so a lone `.` or `..` never hides in it.
        let example: Result<SpiffeId, _> = format!("{stem}x").parse();
        let dots = stem.ends_with("/.") || stem.ends_with("/..");
        if example.is_err() || dots { Err(PatternError::Id(shown())) } else { Ok(Self(text.to_owned())) }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;
    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

/// Whom a registration is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Who {
    /// One identity. It counts before any pattern that takes it in.
    One(CallerId),
    /// Every workload that fits.
    Each(Pattern),
}

/// Why a text names nobody who could be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhoError {
    /// It is a pattern that takes in something else than it seems, or nothing.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// It is no identity.
    #[error("`{0}` is not a SPIFFE ID: write it like `spiffe://prod.example/agent/triage`")]
    Id(String),
}

impl Who {
    /// Whether it is for this identity.
    #[must_use]
    pub fn takes_in(&self, id: &CallerId) -> bool {
        match self {
            Self::One(one) => one == id,
            Self::Each(pattern) => pattern.matches(id),
        }
    }
}

impl FromStr for Who {
    type Err = WhoError;
    fn from_str(text: &str) -> Result<Self, WhoError> {
        if text.contains(STAR) {
            return Ok(Self::Each(text.parse()?));
        }
        text.parse().map(Self::One).map_err(|_| WhoError::Id(text.chars().take(128).collect()))
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(id) => id.fmt(f),
            Self::Each(pattern) => pattern.fmt(f),
        }
    }
}

impl TryFrom<String> for Who {
    type Error = WhoError;
    fn try_from(text: String) -> Result<Self, WhoError> {
        text.parse()
    }
}

impl From<Who> for String {
    fn from(who: Who) -> Self {
        who.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_the_last_segment_is_open() {
        for good in
            ["spiffe://prod.example/agent/ci-*", "spiffe://prod.example/*", "spiffe://prod.example/a/...*"]
        {
            assert_eq!(good.parse::<Pattern>().unwrap().to_string(), good);
        }
        for (bad, star) in [
            ("spiffe://prod.example/agent/ci", true),
            ("spiffe://prod.example/*/ci", true),
            ("spiffe://prod.example/agent/*-ci", true),
            ("spiffe://prod.example/agent/**", true),
            ("spiffe://prod.example/agent/c*i*", true),
            ("spiffe://*", false),
            ("spiffe://prod.*", false),
            ("spiffe://*.example/agent/*", true),
            ("*", false),
            ("spiffe://prod.example/a//*", false),
            ("spiffe://prod.example/a/.*", false),
            ("spiffe://prod.example/a/..*", false),
            ("spiffe://prod.example/a/../*", false),
            ("spiffe://prod.example/a/%2f*", false),
            ("spiffe://Prod.example/a/*", false),
            ("spiffe://prod.example/a/?*", false),
        ] {
            let expect = if star { PatternError::Star(bad.into()) } else { PatternError::Id(bad.into()) };
            assert_eq!(bad.parse::<Pattern>(), Err(expect), "{bad}");
        }
    }

    #[test]
    fn a_pattern_takes_in_one_segment_and_only_workloads() {
        let pattern: Pattern = "spiffe://prod.example/agent/ci-*".parse().unwrap();
        let check = |id: &str, expect| assert_eq!(pattern.matches(&id.parse().unwrap()), expect, "{id}");
        check("spiffe://prod.example/agent/ci-7", true);
        check("spiffe://prod.example/agent/ci-", false);
        check("spiffe://prod.example/agent/ci", false);
        check("spiffe://prod.example/agent/ci-7/admin", false);
        check("spiffe://prod.example/agent/CI-7", false);
        check("spiffe://prod.example/other/ci-7", false);
        check("spiffe://prod.example.evil/agent/ci-7", false);
        check("uid:7", false);
        check("ci:github|1/2/prod", false);
    }

    #[test]
    fn patterns_that_share_an_identity_overlap() {
        let check = |one: &str, other: &str, expect| {
            let (one, other): (Pattern, Pattern) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!((one.overlaps(&other), other.overlaps(&one)), (expect, expect), "{one} {other}");
        };
        check("spiffe://p.example/a/*", "spiffe://p.example/a/*", true);
        check("spiffe://p.example/a/*", "spiffe://p.example/a/ci-*", true);
        check("spiffe://p.example/a/ci-*", "spiffe://p.example/a/cd-*", false);
        check("spiffe://p.example/*", "spiffe://p.example/a/*", false);
        check("spiffe://p.example/a/*", "spiffe://q.example/a/*", false);
    }

    #[test]
    fn who_is_one_or_each() {
        assert!(matches!("spiffe://p.example/a".parse(), Ok(Who::One(_))));
        assert!(matches!("spiffe://p.example/*".parse(), Ok(Who::Each(_))));
        assert_eq!("p".parse::<Who>(), Err(WhoError::Id("p".into())));
    }
}
