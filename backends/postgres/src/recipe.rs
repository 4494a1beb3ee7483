//! How a role is minted: `{ member_of = [..], connection_limit = N, settings = {..} }`.

use leasehold_backend::Problem;
use leasehold_law::catalog::Recipe;
use serde_json::Value;

use crate::config::role_problem;
use crate::fields::Fields;

const MAX_GROUPS: usize = 32;
/// Settings that would change whose rights a session has.
const FORBIDDEN: [&str; 4] =
    ["role", "session_authorization", "session_preload_libraries", "local_preload_libraries"];

/// A recipe, checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RoleRecipe {
    /// Prepared group roles.
    pub(crate) member_of: Vec<String>,
    /// Most sessions at a time.
    pub(crate) connection_limit: Option<u32>,
    /// Settings of its sessions. Hints: the holder may change them.
    pub(crate) settings: Vec<(String, String)>,
}

/// Reads a recipe.
///
/// # Errors
/// Every problem at once, by JSON pointer.
pub(crate) fn parse(recipe: &Recipe) -> Result<RoleRecipe, Vec<Problem>> {
    let mut fields = Fields::new(&recipe.0);
    let member_of = read_groups(&mut fields);
    let connection_limit = fields.number("connection_limit", 1..=10_000);
    let settings = read_settings(&mut fields);
    let problems = fields.finish();
    if problems.is_empty() { Ok(RoleRecipe { member_of, connection_limit, settings }) } else { Err(problems) }
}

fn read_groups(fields: &mut Fields<'_>) -> Vec<String> {
    if !fields.has("member_of") {
        fields.problem("member_of", "is missing: the prepared group roles that the lease is a member of");
    }
    let groups = fields.texts("member_of").unwrap_or_default();
    if fields.has("member_of") && (groups.is_empty() || groups.len() > MAX_GROUPS) {
        fields.problem("member_of", &format!("must name from 1 to {MAX_GROUPS} roles"));
    }
    let mut names: Vec<String> = Vec::new();
    for (pointer, name) in groups {
        match role_problem(name) {
            Some(what) => fields.problem_at(pointer, &what),
            None if names.iter().any(|other| other == name) => fields.problem_at(pointer, "is there twice"),
            None => names.push(name.to_owned()),
        }
    }
    names
}

fn read_settings(fields: &mut Fields<'_>) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    for (pointer, name, value) in fields.entries("settings") {
        match (setting_problem(name), setting_value(value)) {
            (None, Some(value)) => settings.push((name.to_owned(), value)),
            (Some(what), _) => fields.problem_at(pointer, &what),
            (None, None) => fields.problem_at(pointer, "must be text, a whole number or true or false"),
        }
    }
    settings
}

fn setting_problem(name: &str) -> Option<String> {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if name.is_empty() || !name.chars().all(letter) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Some(format!("`{name}` is not the name of a setting"));
    }
    let forbidden = FORBIDDEN.iter().any(|other| other.eq_ignore_ascii_case(name));
    forbidden.then(|| format!("`{name}` would change what the session may do"))
}

fn setting_value(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.contains('\0') => Some(text.clone()),
        Value::Number(number) if number.is_i64() => Some(number.to_string()),
        Value::Bool(on) => Some(if *on { "on" } else { "off" }.to_owned()),
        Value::String(_) | Value::Number(_) | Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<RoleRecipe, Vec<String>> {
        let recipe = Recipe(value.as_object().unwrap().clone());
        parse(&recipe).map_err(|problems| problems.into_iter().map(|problem| problem.pointer).collect())
    }

    #[test]
    fn a_whole_recipe_reads() {
        let recipe = read(&json!({
            "member_of": ["reader", "odd \"one\""],
            "connection_limit": 5,
            "settings": { "statement_timeout": "5s", "work_mem": 64, "jit": false },
        }));
        let settings = [("jit", "off"), ("statement_timeout", "5s"), ("work_mem", "64")]
            .map(|(k, v)| (k.into(), v.into()));
        let expect = RoleRecipe {
            member_of: vec!["reader".into(), "odd \"one\"".into()],
            connection_limit: Some(5),
            settings: settings.into(),
        };
        assert_eq!(recipe.map(sorted), Ok(expect));
    }

    fn sorted(mut recipe: RoleRecipe) -> RoleRecipe {
        recipe.settings.sort();
        recipe
    }

    #[test]
    fn each_problem_is_told_where_it_is() {
        let check = |value: Value, expect: &[&str]| {
            let expect = expect.iter().map(|pointer| (*pointer).to_owned()).collect();
            assert_eq!(read(&value), Err(expect), "{value}");
        };
        check(json!({}), &["/member_of"]);
        check(json!({ "member_of": [] }), &["/member_of"]);
        check(json!({ "member_of": "reader" }), &["/member_of", "/member_of"]);
        check(json!({ "member_of": ["a", 1] }), &["/member_of/1"]);
        check(json!({ "member_of": ["a", "pg_read_all_data"] }), &["/member_of/1"]);
        check(json!({ "member_of": ["a", "a"] }), &["/member_of/1"]);
        check(json!({ "member_of": ["x".repeat(64)] }), &["/member_of/0"]);
        check(json!({ "member_of": ["a"], "connection_limit": 0 }), &["/connection_limit"]);
        check(json!({ "member_of": ["a"], "settings": { "role": "admin" } }), &["/settings/role"]);
        check(json!({ "member_of": ["a"], "settings": { "a/b": 1 } }), &["/settings/a~1b"]);
        check(json!({ "member_of": ["a"], "settings": { "a": [] } }), &["/settings/a"]);
        check(json!({ "member_of": ["a"], "grants": [] }), &["/grants"]);
    }
}
