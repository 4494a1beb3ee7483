//! `INTENT@TARGET`, as people write it.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use crate::{time::wire_duration, v1};

/// One pair of a scope, with what narrows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// What is meant to be done: `orders.read`.
    pub intent: String,
    /// Where: `orders-db`.
    pub target: String,
    /// The longest lifetime a lease under this pair may have.
    pub max_ttl: Option<Duration>,
    /// Parameters, by name.
    pub params: BTreeMap<String, v1::ParamValue>,
}

/// A text that is no pair.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a pair INTENT@TARGET, for instance `orders.read@orders-db`")]
pub struct PairError(String);

impl Pair {
    /// The pair with one more parameter.
    #[must_use]
    pub fn param(mut self, name: &str, value: v1::param_value::Kind) -> Self {
        self.params.insert(name.to_owned(), v1::ParamValue { kind: Some(value) });
        self
    }

    /// The pair with a longest lifetime.
    #[must_use]
    pub fn max_ttl(mut self, ttl: Duration) -> Self {
        self.max_ttl = Some(ttl);
        self
    }

    pub(crate) fn into_wire(self) -> v1::ScopePair {
        let max_ttl = self.max_ttl.and_then(wire_duration);
        v1::ScopePair { intent: self.intent, target: self.target, max_ttl, params: self.params }
    }
}

impl FromStr for Pair {
    type Err = PairError;

    fn from_str(text: &str) -> Result<Self, PairError> {
        let bad = || PairError(text.to_owned());
        let (intent, target) = text.split_once('@').ok_or_else(bad)?;
        let clean = |part: &str| {
            !part.is_empty()
                && !part.contains(|c: char| c == '@' || c == ',' || c == '=' || c.is_whitespace())
        };
        if !clean(intent) || !clean(target) {
            return Err(bad());
        }
        let (intent, target) = (intent.to_owned(), target.to_owned());
        Ok(Self { intent, target, max_ttl: None, params: BTreeMap::new() })
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.intent, self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<(&str, &str)>) {
        let found = text.parse::<Pair>().ok();
        let found = found.as_ref().map(|pair| (pair.intent.as_str(), pair.target.as_str()));
        assert_eq!(found, expect, "{text}");
    }

    #[test]
    fn pairs_are_read_strictly() {
        check("orders.read@orders-db", Some(("orders.read", "orders-db")));
        check("orders.read", None);
        check("@orders-db", None);
        check("orders.read@", None);
        check("a@b@c", None);
        check("a b@c", None);
        check("a=1@c", None);
        check("a@c,ttl=1m", None);
        check("", None);
    }
}
