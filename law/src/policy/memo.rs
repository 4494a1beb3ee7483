//! What was allowed before: a question that is asked again is not worked out again.
//!
//! An engine has no clock and no randomness, so that the same facts get the same answer for as long as it lives; a
//! change of policy or config makes another engine, which remembers nothing, and what the registry changes of an agent
//! is among the facts. Only an Allow is remembered, under every fact that its policies could look at; a denial and
//! whom to ask are worked out each time.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use cedar_policy::Policy;
use serde_json::Value;

use super::Question;

/// Which facts that change by themselves a policy may look at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moving {
    now: bool,
    age: bool,
}

impl Moving {
    /// A policy that never names a fact cannot tell one value of it from another: records have no other way in.
    pub(super) fn of(policy: &Policy) -> Self {
        let tree = policy.to_json().ok();
        let named = |word| tree.as_ref().is_none_or(|tree| names(tree, word));
        Self { now: named("now"), age: named("age") }
    }

    /// What either may look at.
    pub(super) const fn or(self, other: Self) -> Self {
        Self { now: self.now || other.now, age: self.age || other.age }
    }
}

fn names(tree: &Value, word: &str) -> bool {
    match tree {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => text == word,
        Value::Array(items) => items.iter().any(|item| names(item, word)),
        Value::Object(fields) => fields.iter().any(|(name, field)| name == word || names(field, word)),
    }
}

/// Every fact that an answer may rest on, as bytes.
pub(super) struct Facts(Vec<u8>);

impl Facts {
    /// `None` for what is too long to be kept.
    ///
    /// What of an agent's standing stops it was asked before policy is.
    pub(super) fn of(question: &Question<'_>, moving: Moving) -> Option<Self> {
        // Each field by its name, so that one that is added is not left out here.
        #[rustfmt::skip]
        let Question {
            id: _, agent, pair, params, ttl, now, liveness, task_age, proof, on_behalf_of, depth, renewal,
            dry_run: _, guards: _,
        } = question;
        let who = (&agent.id, &agent.owner, &agent.groups, agent.level().name());
        let now = moving.now.then(|| now.whole_seconds());
        let age = moving.age.then(|| task_age.whole_seconds());
        let how = (liveness, proof, on_behalf_of, depth, renewal);
        let bytes = serde_json::to_vec(&(who, pair, params, ttl, now, age, how)).ok()?;
        (bytes.len() <= Memo::LONGEST).then_some(Self(bytes))
    }
}

/// The names of the policies that allowed, by facts.
#[derive(Default)]
pub(super) struct Memo(Mutex<HashMap<Vec<u8>, Vec<String>>>);

impl Memo {
    /// So many answers are kept; then all are forgotten, and those that are asked for come back.
    const MOST: usize = 4096;
    /// Bytes of facts. Agents choose parameters, and make nobody keep much of them.
    const LONGEST: usize = 1024;

    pub(super) fn recall(&self, facts: &Facts) -> Option<Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&facts.0).cloned()
    }

    pub(super) fn keep(&self, facts: Facts, policies: &[String]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::MOST {
            known.clear();
        }
        known.insert(facts.0, policies.to_vec());
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memo")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moving(condition: &str) -> [bool; 2] {
        let text = format!("permit (principal, action, resource) when {{ {condition} }};");
        let Moving { now, age } = Moving::of(&text.parse().unwrap());
        [now, age]
    }

    #[test]
    fn whatever_a_policy_calls_time_is_seen() {
        assert_eq!(moving("context.ttl < duration(\"1h\")"), [false, false]);
        assert_eq!(moving("context.now < datetime(\"2030-01-01\")"), [true, false]);
        assert_eq!(moving(r#"context["n\u{6f}w"] < datetime("2030-01-01")"#), [true, false]);
        assert_eq!(moving("context.task[\"age\"] > duration(\"1h\")"), [false, true]);
        assert_eq!(moving("context.task == {\"liveness\": \"x\", \"age\": duration(\"1h\")}"), [false, true]);
        assert_eq!(moving("context has now && context.task has age"), [true, true]);
    }

    #[test]
    fn no_more_is_kept_than_is_said() {
        let memo = Memo::default();
        for n in 0..3 * Memo::MOST {
            memo.keep(Facts(n.to_string().into_bytes()), &[n.to_string()]);
        }
        assert!(memo.0.lock().unwrap().len() <= Memo::MOST);
        let last = 3 * Memo::MOST - 1;
        assert_eq!(memo.recall(&Facts(last.to_string().into_bytes())), Some(vec![last.to_string()]));
    }
}
