//! Typed parameters of an intent: what an operator declares, and what an agent passes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The value of one parameter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ParamValue {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Text, at most [`MAX_TEXT_BYTES`].
    String(String),
    /// Texts, at most [`MAX_LIST`] of them.
    List(Vec<String>),
}

/// Parameters by name.
pub type Params = BTreeMap<String, ParamValue>;

/// Most parameters that one request may carry.
pub const MAX_PARAMS: usize = 16;
/// Longest text of one parameter, in bytes.
pub const MAX_TEXT_BYTES: usize = 256;
/// Most items in one list.
pub const MAX_LIST: usize = 64;

/// What kind of value a parameter takes, and within which limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParamKind {
    /// True or false.
    Bool,
    /// A whole number, within limits.
    Int {
        /// The least value.
        min: Option<i64>,
        /// The greatest value.
        max: Option<i64>,
    },
    /// Text, reaching policy only where its values are limited.
    String(TextRule),
    /// A list of texts.
    List(TextRule),
}

/// Which texts a parameter takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextRule {
    /// Any text: recorded, and never an input to policy (law 5).
    Free,
    /// One of these.
    Enum(Vec<String>),
    /// Text that matches, where `*` stands for any run of characters, as in Cedar's `like`.
    Pattern(String),
}

/// The declaration of one parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamSpec {
    /// What it takes.
    pub kind: ParamKind,
    /// Whether a request may leave it out.
    pub optional: bool,
}

/// What is wrong with one parameter of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// The intent declares no such parameter.
    #[error("unknown parameter `{0}`")]
    Unknown(String),
    /// A required parameter is not there.
    #[error("parameter `{0}` is required")]
    Missing(String),
    /// The value does not fit the declaration.
    #[error("parameter `{name}` {expects}")]
    Unfit {
        /// The parameter.
        name: String,
        /// What it takes.
        expects: String,
    },
}

impl TextRule {
    fn problem(&self, text: &str) -> Option<String> {
        match self {
            _ if text.len() > MAX_TEXT_BYTES => Some(format!("takes at most {MAX_TEXT_BYTES} bytes")),
            Self::Free => None,
            Self::Enum(values) if values.iter().any(|v| v == text) => None,
            Self::Enum(values) => Some(format!("takes one of {}", values.join(", "))),
            Self::Pattern(pattern) if matches_pattern(pattern, text) => None,
            Self::Pattern(pattern) => Some(format!("must look like `{pattern}`")),
        }
    }

    /// Whether policy may see the text.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        !matches!(self, Self::Free)
    }
}

impl ParamSpec {
    fn problem(&self, value: &ParamValue) -> Option<String> {
        match (&self.kind, value) {
            (ParamKind::Bool, ParamValue::Bool(_)) => None,
            (ParamKind::Int { min, max }, ParamValue::Int(n)) => outside(*n, *min, *max),
            (ParamKind::String(rule), ParamValue::String(text)) => rule.problem(text),
            (ParamKind::List(_), ParamValue::List(items)) if items.len() > MAX_LIST => {
                Some(format!("takes at most {MAX_LIST} items"))
            }
            (ParamKind::List(rule), ParamValue::List(items)) => items.iter().find_map(|i| rule.problem(i)),
            (ParamKind::Bool, _) => Some("takes true or false".to_owned()),
            (ParamKind::Int { .. }, _) => Some("takes a whole number".to_owned()),
            (ParamKind::String(_), _) => Some("takes text".to_owned()),
            (ParamKind::List(_), _) => Some("takes a list of texts".to_owned()),
        }
    }

    /// Whether policy may see the value.
    #[must_use]
    pub fn reaches_policy(&self) -> bool {
        match &self.kind {
            ParamKind::Bool | ParamKind::Int { .. } => true,
            ParamKind::String(rule) | ParamKind::List(rule) => rule.is_limited(),
        }
    }
}

fn outside(n: i64, min: Option<i64>, max: Option<i64>) -> Option<String> {
    match (min, max) {
        (Some(min), _) if n < min => Some(format!("must be at least {min}")),
        (_, Some(max)) if n > max => Some(format!("must be at most {max}")),
        _ => None,
    }
}

/// Whether `text` matches `pattern`, where `*` stands for any run of characters.
#[must_use]
pub fn matches_pattern(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| text.strip_prefix(head)) else { return false };
    let Some(tail) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(tail)
}

/// Everything that is wrong with the parameters of a request, in order of their names.
#[must_use]
pub fn check_params(specs: &BTreeMap<String, ParamSpec>, params: &Params) -> Vec<ParamError> {
    let mut errors = check_fixed(specs, params);
    let missing = specs.iter().filter(|(name, spec)| !spec.optional && !params.contains_key(*name));
    errors.extend(missing.map(|(name, _)| ParamError::Missing(name.clone())));
    errors
}

/// As [`check_params`], for parameters that a scope fixes: none is required yet.
#[must_use]
pub fn check_fixed(specs: &BTreeMap<String, ParamSpec>, params: &Params) -> Vec<ParamError> {
    params
        .iter()
        .filter_map(|(name, value)| match specs.get(name) {
            None => Some(ParamError::Unknown(name.clone())),
            Some(spec) => {
                spec.problem(value).map(|expects| ParamError::Unfit { name: name.clone(), expects })
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run() {
        let check = |pattern: &str, text: &str, expect: bool| {
            assert_eq!(matches_pattern(pattern, text), expect, "{pattern} {text}");
        };
        check("a", "a", true);
        check("a", "ab", false);
        check("*", "", true);
        check("web-*", "web-7", true);
        check("web-*", "db-7", false);
        check("*-prod", "web-prod", true);
        check("a*b*c", "aXbYc", true);
        check("a*b*c", "aXcYb", false);
        check("ab*ba", "aba", false);
        check("", "", true);
        check("", "x", false);
    }

    #[test]
    fn each_misfit_is_named() {
        let spec = |kind| ParamSpec { kind, optional: false };
        let specs = BTreeMap::from([
            (
                "code".to_owned(),
                spec(ParamKind::String(TextRule::Enum(vec!["triage".into(), "audit".into()]))),
            ),
            ("rows".to_owned(), spec(ParamKind::Int { min: Some(1), max: Some(9) })),
        ]);
        let check = |params: &[(&str, ParamValue)], expect: &[&str]| {
            let params = params.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
            let found: Vec<_> = check_params(&specs, &params).iter().map(ToString::to_string).collect();
            assert_eq!(found, expect);
        };
        let code = || ("code", ParamValue::String("audit".into()));
        check(&[code(), ("rows", ParamValue::Int(3))], &[]);
        check(&[code()], &["parameter `rows` is required"]);
        check(&[code(), ("rows", ParamValue::Int(0))], &["parameter `rows` must be at least 1"]);
        check(&[code(), ("rows", ParamValue::Bool(true))], &["parameter `rows` takes a whole number"]);
        check(
            &[
                ("code", ParamValue::String("x".into())),
                ("rows", ParamValue::Int(1)),
                ("z", ParamValue::Int(1)),
            ],
            &["parameter `code` takes one of triage, audit", "unknown parameter `z`"],
        );
    }
}
