//! What a rule says of a job's claims: each exactly, or as a pattern where that is safe.

use leasehold_law::caller::Vouched;

use super::words::{ENVIRONMENT, Words};
use crate::config::table::{Entry, Table, Value, to_i64};
use crate::identity::ci::{Scalar, Want, Wanted};
use glob::Pattern;
use toml::de::DeValue;

/// What a full ref begins with.
const REFS: &str = "refs/";
/// The most claims that a rule may name.
const MAX_CLAIMS: usize = 32;
/// Claims that could mean somebody else tomorrow.
const MUTABLE: [&str; 9] = [
    "repository",
    "repository_owner",
    "project_path",
    "namespace_path",
    "actor",
    "user_login",
    "user_email",
    "email",
    "preferred_username",
];

/// What a rule wants of a job of GitHub or GitLab, what weighs most first.
pub(super) fn of_platform(table: &Table<'_>, words: &Words) -> Option<Vec<Want>> {
    let [owner, repository] = words.ids.map(|claim| table.need(claim).and_then(|value| id(&value)));
    refuse_names(table, words);
    let environment = table.get(ENVIRONMENT).map(|value| environment(&value));
    let refs = table.get("ref").map(|value| full_ref(&value));
    let workflow = table.get("workflow").map(|value| text_or_pattern(&value));
    let events = table.get("events").map(|value| events(&value));
    let [owner_claim, repository_claim] = words.ids;
    let environment = environment.unwrap_or(Some(Wanted::Nothing));
    let mut wants =
        vec![want(owner_claim, owner?), want(repository_claim, repository?), want(ENVIRONMENT, environment?)];
    for (claim, wanted) in [(words.refs, refs), (words.workflow, workflow), (words.event, events)] {
        if let Some(wanted) = wanted {
            wants.push(want(claim, wanted?));
        }
    }
    Some(wants)
}

/// What a rule wants of a job of any other platform: the claims that it names, the subject first.
pub(super) fn of_any(table: &Table<'_>) -> Option<Vec<Want>> {
    let value = table.need("claims")?;
    let entries = value.table()?.entries();
    if entries.len() > MAX_CLAIMS {
        value.problem(format!("a rule names at most {MAX_CLAIMS} claims; this one has {}", entries.len()));
    }
    if !entries.iter().any(|entry| entry.name == "sub") {
        value.problem("`claims` needs at least `sub`: whose token it is");
    }
    entries.iter().for_each(warn_of_names);
    let read = |entry: &Entry<'_>| Some(want(entry.name, Wanted::Exactly(scalar(&entry.value)?)));
    let mut wants = entries.iter().map(read).collect::<Option<Vec<_>>>()?;
    wants.sort_by(|one, two| (one.claim != "sub", &one.claim).cmp(&(two.claim != "sub", &two.claim)));
    Some(wants)
}

fn want(claim: &str, wanted: Wanted) -> Want {
    Want { claim: claim.to_owned(), wanted }
}

fn refuse_names(table: &Table<'_>, words: &Words) {
    for name in words.names {
        if let Some(value) = table.get(name) {
            let [owner, repository] = words.ids;
            let what = format!("`{name}` can be given to somebody else; `{owner}` and `{repository}` cannot");
            value.problem(what);
        }
    }
}

fn warn_of_names(entry: &Entry<'_>) {
    if MUTABLE.contains(&entry.name) {
        let what =
            format!("`{}` can be given to somebody else; pin an id beside it, if there is one", entry.name);
        entry.value.context().report.warning(&entry.place, what);
    }
}

fn id(value: &Value<'_>) -> Option<Wanted> {
    if let Some(text) = value.raw().as_str() {
        value.problem(format!("`{text}` is not an id: write the one number that it is, without quotes"));
        return None;
    }
    let number = value.int()?;
    match u64::try_from(number).ok().filter(|id| *id > 0) {
        Some(id) => Some(Wanted::Id(id)),
        None => {
            value.problem(format!("`{number}` is not an id: ids are positive"));
            None
        }
    }
}

/// Part of the identity, and therefore one name.
fn environment(value: &Value<'_>) -> Option<Wanted> {
    let text = value.filled()?;
    if text == "-" || is_pattern(text) || Vouched::new("x", text).is_err() {
        value.problem(format!(
            "`{text}` is not an environment: write the one name that it has, of visible letters without spaces"
        ));
        return None;
    }
    Some(exactly(text))
}

fn full_ref(value: &Value<'_>) -> Option<Wanted> {
    let text = value.filled()?;
    if !text.starts_with(REFS) {
        value.problem(format!("`{text}` is not a full ref: write it like `refs/heads/main`"));
        return None;
    }
    text_or_pattern(value)
}

fn text_or_pattern(value: &Value<'_>) -> Option<Wanted> {
    let text = value.filled()?;
    if !is_pattern(text) {
        return Some(exactly(text));
    }
    let wrong =
        |error: glob::PatternError| value.problem(format!("`{text}` is not a pattern: {}", error.msg));
    Pattern::new(text).map(Wanted::Like).map_err(wrong).ok()
}

fn events(value: &Value<'_>) -> Option<Wanted> {
    let events: Vec<_> = value.texts().into_iter().map(|(text, _)| text.to_owned()).collect();
    if events.is_empty() {
        value.problem("`events` names no event: leave it out, or write it like `[\"push\"]`");
        return None;
    }
    Some(Wanted::OneOf(events))
}

fn scalar(value: &Value<'_>) -> Option<Scalar> {
    match value.raw() {
        DeValue::String(_) => value.filled().map(|text| Scalar::Text(text.to_owned())),
        DeValue::Boolean(flag) => Some(Scalar::Bool(*flag)),
        DeValue::Integer(number) => {
            let number = to_i64(number);
            if number.is_none() {
                value.problem("the number is out of range");
            }
            number.map(Scalar::Integer)
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            value.problem("a claim is text, a whole number, or true or false");
            None
        }
    }
}

fn exactly(text: &str) -> Wanted {
    Wanted::Exactly(Scalar::Text(text.to_owned()))
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}
