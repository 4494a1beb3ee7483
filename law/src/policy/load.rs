//! Loading a policy set: every problem at once, with file and line (RULES R-13).

use std::collections::BTreeMap;
use std::fmt::Display;

use cedar_policy::{
    Policy, PolicyId, PolicySet, Schema, Template, ValidationError, ValidationMode, ValidationWarning,
    Validator,
};
use miette::Diagnostic;

use super::annotation::{self, DRILL_PREFIX, GRANT_PREFIX, Terms};
use super::fault::CedarError;
use super::names::{Names, did_you_mean};
use super::rule::{Rule, takes_in};
use super::schema::schema_text;
use super::source::{PolicyProblem, PolicySource, Snippet, cut};
use crate::caller::DRILL;
use crate::catalog::{Catalog, Grant};
use crate::scope::Pair;

/// A policy set that passed every check.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) schema: Schema,
    pub(super) schema_text: String,
    pub(super) rules: Vec<Rule>,
}

/// A policy that could be parsed, under a number of its own.
struct Draft<'a> {
    snippet: Snippet<'a>,
    policy: Policy,
    has_unknown_names: bool,
}

/// Loads the policies of all files and grants.
///
/// # Errors
/// Every problem, in the order of files and lines.
pub(super) fn load(catalog: &Catalog, sources: &[PolicySource]) -> Result<Loaded, Vec<PolicyProblem>> {
    let schema_text = schema_text(catalog);
    let (schema, _) =
        Schema::from_cedarschema_str(&schema_text).map_err(|error| vec![fault("the schema", &error)])?;
    let mut problems = Vec::new();
    let drafts = parse(sources, catalog, &mut problems);
    problems.extend(duplicates(&drafts));
    problems.extend(validate(&drafts, &schema, catalog));
    problems.extend(catalog.grants.values().flat_map(|grant| unknown_groups(grant, catalog)));
    if problems.is_empty() {
        match rules(&drafts, catalog) {
            Ok(rules) => return Ok(Loaded { schema, schema_text, rules }),
            Err(problem) => problems.push(problem),
        }
    }
    problems.sort();
    problems.dedup();
    Err(problems)
}

/// A problem that no line of a policy file is to blame for.
pub(super) fn fault(source: &str, error: &dyn Display) -> PolicyProblem {
    PolicyProblem { source: source.to_owned(), line: 1, what: error.to_string() }
}

fn parse<'a>(
    sources: &'a [PolicySource],
    catalog: &Catalog,
    problems: &mut Vec<PolicyProblem>,
) -> Vec<Draft<'a>> {
    let names = Names::of(catalog);
    let mut drafts = Vec::new();
    for (number, snippet) in sources.iter().flat_map(cut).enumerate() {
        match Policy::parse(Some(PolicyId::new(number.to_string())), snippet.text) {
            Ok(policy) => {
                let misuses = annotation::problems(&policy, catalog).into_iter();
                problems.extend(misuses.map(|(key, what)| snippet.problem_near(&format!("@{key}"), what)));
                let unknown = unknown_names(&snippet, &policy, &names);
                drafts.push(Draft { snippet, policy, has_unknown_names: !unknown.is_empty() });
                problems.extend(unknown);
            }
            Err(_) if Template::parse(None, snippet.text).is_ok() => {
                let what = "templates (`?principal`, `?resource`) are not taken; write the policy out";
                problems.push(snippet.problem_near("?", what.to_owned()));
            }
            Err(errors) => problems.extend(errors.iter().map(|error| located(&snippet, error))),
        }
    }
    drafts
}

fn unknown_names(snippet: &Snippet<'_>, policy: &Policy, names: &Names) -> Vec<PolicyProblem> {
    let problem = |uid| {
        let what = names.problem(&uid)?;
        Some(snippet.problem_near(&format!("{uid}"), what))
    };
    policy.entity_literals().into_iter().filter_map(problem).collect()
}

/// The problem that a diagnostic tells, on the line that it points to.
fn located(snippet: &Snippet<'_>, error: &(impl Diagnostic + Display)) -> PolicyProblem {
    let text = error.to_string();
    // Validation begins with "for policy `7`, ", and the number is ours.
    let told =
        text.strip_prefix("for policy `").and_then(|rest| rest.split_once("`, ")).map(|(_, told)| told);
    let help = error.help().map(|help| format!("; {help}")).unwrap_or_default();
    snippet.problem_at(offset(error), format!("{}{help}", told.unwrap_or(&text)))
}

fn offset(error: &impl Diagnostic) -> usize {
    error.labels().and_then(|mut labels| labels.next()).map_or(0, |label| label.offset())
}

fn duplicates(drafts: &[Draft<'_>]) -> Vec<PolicyProblem> {
    let mut first: BTreeMap<&str, &Snippet<'_>> = BTreeMap::new();
    let mut problems = Vec::new();
    for draft in drafts {
        let Some(id) = draft.policy.annotation("id") else { continue };
        if let Some(known) = first.get(id) {
            let what = format!("`@id(\"{id}\")` stands already in {} line {}", known.source, known.line);
            problems.push(draft.snippet.problem_near("@id", what));
        } else {
            first.insert(id, &draft.snippet);
        }
    }
    problems
}

/// Strict validation. Its warnings count, too: a forbid that can never apply is one that somebody relies on.
/// What is wrong at one place for several actions is reported once.
fn validate(drafts: &[Draft<'_>], schema: &Schema, catalog: &Catalog) -> Vec<PolicyProblem> {
    let set = match PolicySet::from_policies(drafts.iter().map(|draft| draft.policy.clone())) {
        Ok(set) => set,
        Err(error) => return vec![fault("the policy set", &error)],
    };
    let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
    let draft = |id: &PolicyId| drafts.iter().find(|draft| draft.policy.id() == id);
    let mut found: BTreeMap<(&PolicyId, usize), PolicyProblem> = BTreeMap::new();
    let mut note = |id, offset, problem: PolicyProblem| {
        let kept = found.entry((id, offset)).or_insert_with(|| problem.clone());
        *kept = problem.min(kept.clone());
    };
    for error in result.validation_errors() {
        let named = |draft: &&Draft<'_>| !(draft.has_unknown_names && is_about_names(error));
        if let Some(draft) = draft(error.policy_id()).filter(named) {
            note(draft.policy.id(), offset(error), located(&draft.snippet, error));
        }
    }
    for warning in result.validation_warnings() {
        let idle = |draft: &Draft<'_>| draft.has_unknown_names || is_idle(draft, catalog);
        let counts = |draft: &&Draft<'_>| !(is_about_scope(warning) && idle(draft));
        if let Some(draft) = draft(warning.policy_id()).filter(counts) {
            note(draft.policy.id(), offset(warning), located(&draft.snippet, warning));
        }
    }
    found.into_values().collect()
}

/// Whether it only repeats what we say of a name ourselves.
const fn is_about_names(error: &ValidationError) -> bool {
    matches!(error, ValidationError::UnrecognizedActionId(_))
}

/// Whether it says that the policy applies to nothing at all.
const fn is_about_scope(warning: &ValidationWarning) -> bool {
    matches!(warning, ValidationWarning::ImpossiblePolicy(_) | ValidationWarning::InvalidActionApplication(_))
}

/// Whether the policy is about classes without any intent: it waits for one.
fn is_idle(draft: &Draft<'_>, catalog: &Catalog) -> bool {
    !catalog.intents.values().any(|intent| takes_in(&draft.policy, intent))
}

fn unknown_groups(grant: &Grant, catalog: &Catalog) -> Vec<PolicyProblem> {
    let known = || catalog.agent_groups();
    let unknown = grant.allow.iter().filter(|group| !known().any(|name| name == *group));
    let problem = |group: &String| {
        let hint = did_you_mean(group, known(), "");
        let what = format!("`allow` names `{group}`: the config has no such group of agents{hint}");
        fault(&format!("grant {}", grant.pair), &what)
    };
    unknown.map(problem).collect()
}

fn rules(drafts: &[Draft<'_>], catalog: &Catalog) -> Result<Vec<Rule>, PolicyProblem> {
    let mut rules = Vec::new();
    for Draft { snippet, policy, .. } in drafts {
        let id = policy.annotation("id").unwrap_or_default();
        let rule = Rule::new(id, id, policy, annotation::terms(policy));
        rules.push(rule.map_err(|error| snippet.problem_at(0, error.to_string()))?);
    }
    for grant in catalog.grants.values() {
        for group in &grant.allow {
            let rule = grant_rule(grant, group);
            rules.push(rule.map_err(|error| fault(&format!("grant {}", grant.pair), &error))?);
        }
    }
    for pair in catalog.drills.values().map(|plan| &plan.pair) {
        rules.push(drill_rule(pair).map_err(|error| fault(&format!("drill {pair}"), &error))?);
    }
    Ok(rules)
}

/// The permit with which the broker drills a target: for exactly this, and below no floor.
fn drill_rule(pair: &Pair) -> Result<Rule, CedarError> {
    let id = format!("{DRILL_PREFIX}{pair}");
    let text = format!(
        "permit (principal == Agent::{DRILL:?}, action == Action::{:?}, resource == Target::{:?});",
        pair.intent, pair.target
    );
    Rule::new(&id, &id, &Policy::parse(None, text).map_err(CedarError::of)?, Terms::default())
}

/// The permit that a grant's `allow` stands for: one for each group, all under the grant's name.
fn grant_rule(grant: &Grant, group: &str) -> Result<Rule, CedarError> {
    let id = format!("{GRANT_PREFIX}{}", grant.pair);
    let text = format!(
        "permit (principal in AgentGroup::{group:?}, action == Action::{:?}, resource == Target::{:?});",
        grant.pair.intent, grant.pair.target
    );
    Rule::new(
        &id,
        &format!("{id}/{group}"),
        &Policy::parse(None, text).map_err(CedarError::of)?,
        Terms::default(),
    )
}
