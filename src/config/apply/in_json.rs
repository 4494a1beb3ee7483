//! The same file in JSON, as TOML that says the same.

use serde_json::Value as Json;

use crate::config::problem::Problem;

/// The same as TOML: tables in one line, so that nothing but the shape is left to check.
pub(super) fn from_json(file: &str, text: &str) -> Result<String, Vec<Problem>> {
    let json: Json = serde_json::from_str(text).map_err(|error| {
        let what = format!("this is no JSON: {error}");
        vec![Problem { file: file.into(), line: error.line(), column: None, what }]
    })?;
    let Json::Object(root) = json else { return Ok(String::new()) };
    Ok(root
        .iter()
        .map(|(key, value)| format!("{} = {}\n", Json::from(key.as_str()), as_toml(value)))
        .collect())
}

/// JSON's texts, numbers, words and lists are TOML's too. `null` is none, and is told as an empty table.
fn as_toml(value: &Json) -> String {
    match value {
        Json::Null => "{}".to_owned(),
        Json::Bool(_) | Json::Number(_) | Json::String(_) => value.to_string(),
        Json::Array(items) => {
            let items: Vec<_> = items.iter().map(as_toml).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(map) => {
            let pair =
                |(key, value): (&String, &Json)| format!("{} = {}", Json::from(key.as_str()), as_toml(value));
            let pairs: Vec<_> = map.iter().map(pair).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}
