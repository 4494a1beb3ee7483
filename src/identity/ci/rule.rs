//! One rule for jobs: what their claims must be, each of the type that the platform gives it.

use std::fmt;

use glob::{MatchOptions, Pattern};
use leasehold_law::caller::CallerId;
use serde_json::Value;

/// The most of a claim that a message shows, in letters.
const SHOWN: usize = 120;
/// `*` stays within a part of a name, `**` does not, and nothing is hidden.
const GLOB: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// Which jobs are one caller: `[ci_jobs.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What config calls it.
    pub name: String,
    /// The issuer's name in config.
    pub issuer: String,
    /// The caller that such a job is.
    pub id: CallerId,
    /// All that must fit, what weighs most first.
    pub wants: Vec<Want>,
}

/// What one claim must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Its name.
    pub claim: String,
    /// Its value.
    pub wanted: Wanted,
}

/// A value that is no table and no list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scalar {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// True or false.
    Bool(bool),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => number.fmt(f),
            Self::Bool(flag) => flag.fmt(f),
        }
    }
}

/// The values that fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This number, as GitHub and GitLab write it: as text.
    Id(u64),
    /// This value of this type.
    Exactly(Scalar),
    /// Any text that fits the pattern.
    Like(Pattern),
    /// One of these texts.
    OneOf(Vec<String>),
    /// None: the claim is missing, null or empty.
    Nothing,
}

/// The first claim that does not fit.
#[derive(Clone, Debug)]
pub(super) struct Misfit<'a> {
    pub(super) rule: &'a str,
    /// How many fit before it.
    pub(super) fitting: usize,
    want: &'a Want,
    found: Option<Value>,
}

impl Rule {
    /// What of a job does not fit, by what it claims under each name; none where it is this rule's.
    pub(super) fn misfit<'a, 'c>(&'a self, claim: impl Fn(&str) -> Option<&'c Value>) -> Option<Misfit<'a>> {
        let fitting = self.wants.iter().position(|want| !want.wanted.fits(claim(&want.claim)))?;
        let want = self.wants.get(fitting)?;
        Some(Misfit { rule: &self.name, fitting, want, found: claim(&want.claim).cloned() })
    }

    /// Whether a job could fit both: no claim must be two values.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let apart = |want: &Want| {
            other
                .wants
                .iter()
                .any(|theirs| theirs.claim == want.claim && want.wanted.excludes(&theirs.wanted))
        };
        self.issuer == other.issuer && !self.wants.iter().any(apart)
    }
}

impl Wanted {
    /// Whether a claim is such a value. Text is never a number here: the platform's type counts.
    #[must_use]
    pub fn fits(&self, found: Option<&Value>) -> bool {
        match self {
            Self::Id(id) => found.and_then(Value::as_str) == Some(id.to_string().as_str()),
            Self::Exactly(Scalar::Text(text)) => found.and_then(Value::as_str) == Some(text),
            Self::Exactly(Scalar::Integer(number)) => found.and_then(Value::as_i64) == Some(*number),
            Self::Exactly(Scalar::Bool(flag)) => found.and_then(Value::as_bool) == Some(*flag),
            Self::Like(pattern) => {
                found.and_then(Value::as_str).is_some_and(|text| pattern.matches_with(text, GLOB))
            }
            Self::OneOf(list) => {
                found.and_then(Value::as_str).is_some_and(|text| list.iter().any(|one| one == text))
            }
            Self::Nothing => found.is_none_or(|found| found.is_null() || found.as_str() == Some("")),
        }
    }

    /// Whether nothing fits both, as far as that can be told.
    fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Id(one), Self::Id(two)) => one != two,
            (Self::Exactly(one), Self::Exactly(two)) => one != two,
            (Self::Nothing, Self::Exactly(Scalar::Text(text)))
            | (Self::Exactly(Scalar::Text(text)), Self::Nothing) => !text.is_empty(),
            (Self::Id(_) | Self::Exactly(_) | Self::Like(_) | Self::OneOf(_) | Self::Nothing, _) => false,
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Exactly(Scalar::Text(text)) => write!(f, "`{text}`"),
            Self::Exactly(Scalar::Integer(number)) => write!(f, "the number {number}"),
            Self::Exactly(Scalar::Bool(flag)) => write!(f, "{flag}"),
            Self::Like(pattern) => write!(f, "`{pattern}`"),
            Self::OneOf(list) => {
                let list: Vec<_> = list.iter().map(|one| format!("`{one}`")).collect();
                f.write_str(&list.join(" or "))
            }
            Self::Nothing => f.write_str("none"),
        }
    }
}

impl fmt::Display for Misfit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = match &self.found {
            None | Some(Value::Null) => "missing".to_owned(),
            Some(Value::String(id)) if matches!(self.want.wanted, Wanted::Id(_)) && is_id(id) => id.clone(),
            Some(Value::String(text)) => format!("`{}`", shown(text)),
            Some(Value::Number(number)) => format!("the number {number}"),
            Some(Value::Bool(flag)) => flag.to_string(),
            Some(Value::Array(_)) => "a list".to_owned(),
            Some(Value::Object(_)) => "an object".to_owned(),
        };
        write!(f, "{} is {found}, rule `{}` wants {}", self.want.claim, self.rule, self.want.wanted)
    }
}

fn is_id(text: &str) -> bool {
    text.len() <= 20 && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What strangers may have named, such as a branch, without line breaks and at a length that fits a line.
fn shown(text: &str) -> String {
    text.escape_debug().take(SHOWN).collect()
}
