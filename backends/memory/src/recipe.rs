//! What a memory target mints from: `{ role = "reader" }`.

use leasehold_backend::Problem;
use leasehold_law::catalog::Recipe;
use leasehold_law::scope::is_name;
use serde_json::Value;

/// What is wrong with a recipe.
pub(crate) fn problems(recipe: &Recipe) -> Vec<Problem> {
    let unknown = recipe.0.keys().filter(|key| *key != "role");
    let unknown = unknown.map(|key| Problem::new(pointer(key), "unknown key; a memory target takes `role`"));
    let role = match recipe.0.get("role") {
        Some(Value::String(role)) if is_name(role) => None,
        Some(_) => Some(Problem::new("/role", "must be a name, like `reader`")),
        None => Some(Problem::new("/role", "is missing; write e.g. `role = \"reader\"`")),
    };
    role.into_iter().chain(unknown).collect()
}

/// The role that a recipe asks for.
pub(crate) fn role(recipe: &Recipe) -> Option<&str> {
    recipe.0.get("role")?.as_str()
}

/// A key as a JSON pointer (RFC 6901, section 3).
pub(crate) fn pointer(key: &str) -> String {
    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_told_where_they_are() {
        let check = |text: &str, pointers: &[&str]| {
            let recipe = Recipe(serde_json::from_str(text).unwrap());
            let mut found: Vec<_> = problems(&recipe).into_iter().map(|problem| problem.pointer).collect();
            found.sort_unstable();
            assert_eq!(found, pointers, "{text}");
        };
        check(r#"{"role": "reader"}"#, &[]);
        check("{}", &["/role"]);
        check(r#"{"role": 7}"#, &["/role"]);
        check(r#"{"role": "a b"}"#, &["/role"]);
        check(r#"{"role": "reader", "member_of": [], "a/b~": 1}"#, &["/a~1b~0", "/member_of"]);
    }
}
