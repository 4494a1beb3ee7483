//! The scope of a task: which intents it may ask for, on which targets, under which constraints.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::param::{ParamValue, Params};
use crate::time::Span;

/// An intent on a target, written `INTENT@TARGET` wherever people see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pair {
    /// What an agent means to do, as the operator named it.
    pub intent: String,
    /// Where.
    pub target: String,
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.intent, self.target)
    }
}

/// Why a text is not a pair, or a name cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a pair; write it like `orders.read@orders-db`")]
pub struct PairError(String);

/// Longest name of an intent, target, group or person, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// Whether operators may use `name` for an intent, target, group or person: letters, digits, `.`, `-`, `_`,
/// starting with a letter or digit.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let first_ok = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    first_ok && name.len() <= MAX_NAME_BYTES && name.bytes().all(ok)
}

impl FromStr for Pair {
    type Err = PairError;
    fn from_str(text: &str) -> Result<Self, PairError> {
        match text.split_once('@') {
            Some((intent, target)) if is_name(intent) && is_name(target) => {
                Ok(Self { intent: intent.to_owned(), target: target.to_owned() })
            }
            Some(_) | None => Err(PairError(text.chars().take(160).collect())),
        }
    }
}

/// One pair of a scope and what narrows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeEntry {
    /// What may be asked.
    pub pair: Pair,
    /// The longest lifetime that may be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ttl: Option<Span>,
    /// Parameters that every request must carry with exactly these values.
    #[serde(default, skip_serializing_if = "Params::is_empty")]
    pub params: Params,
}

impl ScopeEntry {
    /// An entry without constraints.
    #[must_use]
    pub fn of(pair: Pair) -> Self {
        Self { pair, max_ttl: None, params: Params::new() }
    }
}

/// One to 64 entries, no pair twice, no wildcards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<ScopeEntry>", into = "Vec<ScopeEntry>")]
pub struct Scope(Vec<ScopeEntry>);

/// Why entries make no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// There is no entry.
    #[error("a scope needs at least one pair, like `orders.read@orders-db`")]
    Empty,
    /// There are too many entries.
    #[error("a scope holds at most {max} pairs; this one has {0}", max = Scope::MAX)]
    TooMany(usize),
    /// A pair stands twice.
    #[error("`{0}` stands in the scope twice")]
    Duplicate(Pair),
}

/// How a request steps outside a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutOfScope {
    /// The pair is not in it.
    #[error("the task's scope does not hold {0}")]
    Pair(Pair),
    /// The lifetime is longer than the entry allows.
    #[error("the task's scope limits {pair} to {max}; you asked for {asked}")]
    Ttl {
        /// The pair.
        pair: Pair,
        /// The limit of the entry.
        max: Span,
        /// What was asked.
        asked: Span,
    },
    /// A parameter differs from the fixed one.
    #[error("the task's scope fixes parameter `{name}` of {pair}")]
    Param {
        /// The pair.
        pair: Pair,
        /// The parameter.
        name: String,
    },
}

impl Scope {
    /// Most entries in one scope.
    pub const MAX: usize = 64;

    /// A scope of these entries, sorted by pair.
    ///
    /// # Errors
    /// Where there are none, more than [`Scope::MAX`], or a pair stands twice.
    pub fn new(mut entries: Vec<ScopeEntry>) -> Result<Self, ScopeError> {
        match entries.len() {
            0 => return Err(ScopeError::Empty),
            n if n > Self::MAX => return Err(ScopeError::TooMany(n)),
            _ => entries.sort_by(|a, b| a.pair.cmp(&b.pair)),
        }
        let mut seen = BTreeSet::new();
        match entries.iter().find(|entry| !seen.insert(&entry.pair)) {
            Some(twice) => Err(ScopeError::Duplicate(twice.pair.clone())),
            None => Ok(Self(entries)),
        }
    }

    /// The longest lifetime that may be asked for on a pair, where an entry limits it.
    #[must_use]
    pub fn max_ttl(&self, pair: &Pair) -> Option<Span> {
        self.0.iter().find(|entry| entry.pair == *pair)?.max_ttl
    }

    /// The entries, sorted by pair.
    #[must_use]
    pub fn entries(&self) -> &[ScopeEntry] {
        &self.0
    }

    /// Whether a request or a live lease fits: its pair, its parameters and its (remaining) lifetime.
    ///
    /// # Errors
    /// The first way in which it does not.
    pub fn check(&self, pair: &Pair, params: &Params, ttl: Span) -> Result<(), OutOfScope> {
        let entry = self.0.iter().find(|e| e.pair == *pair).ok_or_else(|| OutOfScope::Pair(pair.clone()))?;
        if let Some(max) = entry.max_ttl.filter(|max| ttl > *max) {
            return Err(OutOfScope::Ttl { pair: pair.clone(), max, asked: ttl });
        }
        let differs = |(name, value): &(&String, &ParamValue)| params.get(*name) != Some(*value);
        match entry.params.iter().find(differs) {
            Some((name, _)) => Err(OutOfScope::Param { pair: pair.clone(), name: name.clone() }),
            None => Ok(()),
        }
    }
}

impl TryFrom<Vec<ScopeEntry>> for Scope {
    type Error = ScopeError;
    fn try_from(entries: Vec<ScopeEntry>) -> Result<Self, ScopeError> {
        Self::new(entries)
    }
}

impl From<Scope> for Vec<ScopeEntry> {
    fn from(scope: Scope) -> Self {
        scope.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(text: &str) -> Pair {
        text.parse().unwrap()
    }

    #[test]
    fn pairs_read_as_they_print() {
        for good in ["orders.read@orders-db", "a@b", "host.isolate@web-7"] {
            assert_eq!(pair(good).to_string(), good);
        }
        for bad in ["", "a", "@b", "a@", "a@b@c", "a b@c", "*@b", "é@b", ".a@b"] {
            assert!(bad.parse::<Pair>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scope_has_entries_and_no_duplicates() {
        let entry = |text: &str| ScopeEntry::of(pair(text));
        assert_eq!(Scope::new(vec![]), Err(ScopeError::Empty));
        assert_eq!(Scope::new(vec![entry("a@b"), entry("a@b")]), Err(ScopeError::Duplicate(pair("a@b"))));
        let many = (0..65).map(|n| entry(&format!("a{n}@b"))).collect();
        assert_eq!(Scope::new(many), Err(ScopeError::TooMany(65)));
    }

    #[test]
    fn a_lease_fits_by_pair_params_and_lifetime() {
        let entry = ScopeEntry {
            pair: pair("a@b"),
            max_ttl: Some(Span::from_mins(5)),
            params: Params::from([("code".into(), ParamValue::String("x".into()))]),
        };
        let scope = Scope::new(vec![entry]).unwrap();
        let check = |what: &str, code: &str, mins: u64| {
            let params = Params::from([("code".into(), ParamValue::String(code.into()))]);
            scope.check(&pair(what), &params, Span::from_mins(mins)).is_ok()
        };
        assert!(check("a@b", "x", 5));
        assert!(!check("a@c", "x", 5));
        assert!(!check("a@b", "y", 5));
        assert!(!check("a@b", "x", 6));
    }
}
