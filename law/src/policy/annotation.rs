//! Annotations on policies, checked when they are loaded (RULES R-13): Cedar itself takes any, so a misspelt
//! `@aprovers` would permit what was meant to ask.

use cedar_policy::{Effect, Policy};

use super::ApprovalNeed;
use super::approvers::Approvers;
use super::names::did_you_mean;
use crate::catalog::Catalog;
use crate::time::Span;

/// Every annotation that there is.
pub const KNOWN: [&str; 4] = ["id", "approvers", "timeout", "unattended"];
/// What the id of a permit made from a grant begins with; nobody else may use it.
pub const GRANT_PREFIX: &str = "grant:";
/// What the id of a permit made for a drill begins with; nobody else may use it.
pub const DRILL_PREFIX: &str = "drill:";
/// Longest id of a policy, in bytes.
pub const MAX_ID_BYTES: usize = 128;
/// How long people have where a permit says nothing.
pub const DEFAULT_TIMEOUT: Span = Span::from_mins(5);
/// Whom a permit asks below an ask-floor where it says nothing.
pub const DEFAULT_APPROVERS: &str = "1 of target-owner";

/// What the annotations of a permit ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    /// The people who must say yes first.
    pub(super) need: Option<ApprovalNeed>,
    /// Whether it permits below an ask-floor.
    pub(super) is_unattended: bool,
}

/// The problem and the annotation that has it.
type Misuse = (String, String);

/// Everything that is wrong with the annotations of one policy.
pub(super) fn problems(policy: &Policy, catalog: &Catalog) -> Vec<Misuse> {
    let mut found: Vec<Misuse> =
        policy.annotations().filter_map(|(key, _)| misplaced(key, policy.effect())).collect();
    found.extend(id_problem(policy.annotation("id")).map(|what| ("id".to_owned(), what)));
    found.extend(terms_problems(policy, catalog));
    found
}

/// What the annotations say; only for policies without [`problems`].
pub(super) fn terms(policy: &Policy) -> Terms {
    let timeout = policy.annotation("timeout").and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_TIMEOUT);
    Terms {
        need: policy.annotation("approvers").map(|approvers| ApprovalNeed {
            approvers: approvers.to_owned(),
            excluded: None,
            timeout,
        }),
        is_unattended: policy.annotation("unattended").is_some(),
    }
}

fn misplaced(key: &str, effect: Effect) -> Option<Misuse> {
    let what = match (KNOWN.contains(&key), effect) {
        (false, _) => format!("unknown annotation `@{key}`{}", did_you_mean(key, KNOWN, "@")),
        (true, Effect::Forbid) if key != "id" => format!("`@{key}` belongs on a permit, not on a forbid"),
        (true, Effect::Forbid | Effect::Permit) => return None,
    };
    Some((key.to_owned(), what))
}

fn id_problem(id: Option<&str>) -> Option<String> {
    match id {
        None | Some("") => Some("a policy needs a name: write `@id(\"...\")` before it".to_owned()),
        Some(id) if id.starts_with(GRANT_PREFIX) => {
            Some(format!("`@id` may not begin with `{GRANT_PREFIX}`: those are the permits of grants"))
        }
        Some(id) if id.starts_with(DRILL_PREFIX) => {
            Some(format!("`@id` may not begin with `{DRILL_PREFIX}`: those are the permits of drills"))
        }
        Some(id) if id.len() > MAX_ID_BYTES => Some(format!("`@id` is longer than {MAX_ID_BYTES} bytes")),
        Some(id) if id.chars().any(|c| c.is_control() || c == '"') => {
            Some("`@id` holds a quote or a control character".to_owned())
        }
        Some(_) => None,
    }
}

fn terms_problems(policy: &Policy, catalog: &Catalog) -> Vec<Misuse> {
    let [approvers, timeout, unattended] =
        ["approvers", "timeout", "unattended"].map(|key| policy.annotation(key));
    let mut found = Vec::new();
    let mut note = |key: &str, what: String| found.push((key.to_owned(), what));
    if unattended.is_some_and(|why| why.trim().is_empty()) {
        note("unattended", "`@unattended` needs a reason: write `@unattended(\"why\")`".to_owned());
    }
    if unattended.is_some() && approvers.is_some() {
        note("unattended", "`@unattended` and `@approvers` contradict each other".to_owned());
    }
    if timeout.is_some() && approvers.is_none() {
        note("timeout", "`@timeout` needs `@approvers`".to_owned());
    }
    if let Some(what) = timeout.and_then(timeout_problem) {
        note("timeout", what);
    }
    for what in approvers.map(|text| approvers_problems(text, policy, catalog)).unwrap_or_default() {
        note("approvers", what);
    }
    found
}

fn timeout_problem(text: &str) -> Option<String> {
    match text.parse::<Span>() {
        Ok(Span::ZERO) => Some("`@timeout` leaves no time at all".to_owned()),
        Ok(_) => None,
        Err(error) => Some(format!("`@timeout`: {error}")),
    }
}

fn approvers_problems(text: &str, policy: &Policy, catalog: &Catalog) -> Vec<String> {
    match text.parse::<Approvers>() {
        Err(error) => vec![format!("`@approvers`: {error}")],
        Ok(approvers) => {
            let shortages = approvers.quorums().iter().filter_map(|quorum| quorum.problem(catalog, policy));
            shortages.map(|what| format!("`@approvers`: {what}")).collect()
        }
    }
}
