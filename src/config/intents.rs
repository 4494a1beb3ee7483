//! `[intents]`: what agents may mean to do, how well it can be undone, and what a request may carry.

use std::collections::BTreeMap;

use leasehold_law::catalog::{Class, Intent};
use leasehold_law::param::{MAX_PARAMS, MAX_TEXT_BYTES, ParamKind, ParamSpec, TextRule};

use super::names::Names;
use super::table::{Table, Value};

/// The words for the type of a parameter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    Int,
    Bool,
    List,
}

const TYPES: [(&str, Type); 4] =
    [("string", Type::Text), ("int", Type::Int), ("bool", Type::Bool), ("list", Type::List)];

pub(super) fn read(parts: &[Table<'_>]) -> Names<Intent> {
    Names::collect(parts, ("intents", "intent"), Table::named, intent)
}

fn intent(name: &str, value: &Value<'_>) -> Option<Intent> {
    let classes = Class::ALL.map(|class| (class.name(), class));
    value.read(|table| {
        let class = table.need("class").and_then(|value| value.word(&classes));
        let params = table.get("params").map(|value| params(&value)).unwrap_or_default();
        Some(Intent { name: name.to_owned(), class: class?, params })
    })
}

fn params(value: &Value<'_>) -> BTreeMap<String, ParamSpec> {
    let entries = value.table().map(|table| table.named()).unwrap_or_default();
    if entries.len() > MAX_PARAMS {
        value.problem(format!(
            "an intent takes at most {MAX_PARAMS} parameters; this one has {}",
            entries.len()
        ));
    }
    entries.iter().filter_map(|entry| Some((entry.name.to_owned(), param(&entry.value)?))).collect()
}

fn param(value: &Value<'_>) -> Option<ParamSpec> {
    value.read(|table| {
        let kind = table.get("type").map_or(Some(Type::Text), |value| value.word(&TYPES));
        let optional = table.get("optional").and_then(|value| value.flag()).unwrap_or(false);
        let text = text_rule(table);
        let (min, max) = (table.get("min"), table.get("max"));
        let bounds = (min.as_ref().and_then(Value::int), max.as_ref().and_then(Value::int));
        let unfit = match kind? {
            Type::Text | Type::List => [min, max],
            Type::Int => [table.get("enum"), table.get("pattern")],
            Type::Bool => [min.or(max), table.get("enum").or(table.get("pattern"))],
        };
        for value in unfit.iter().flatten() {
            value.problem("`min` and `max` are for type `int`, `enum` and `pattern` for `string` and `list`");
        }
        let kind = match kind? {
            Type::Text => ParamKind::String(text),
            Type::List => ParamKind::List(text),
            Type::Int => int(value, bounds),
            Type::Bool => ParamKind::Bool,
        };
        Some(ParamSpec { kind, optional })
    })
}

fn int(value: &Value<'_>, (min, max): (Option<i64>, Option<i64>)) -> ParamKind {
    if let (Some(least), Some(most)) = (min, max)
        && least > most
    {
        value.problem(format!("min {least} is greater than max {most}"));
    }
    ParamKind::Int { min, max }
}

fn text_rule(table: &Table<'_>) -> TextRule {
    match (table.get("enum"), table.get("pattern")) {
        (Some(list), None) => TextRule::Enum(choices(&list)),
        (None, Some(pattern)) => pattern.filled().map_or(TextRule::Free, |p| TextRule::Pattern(p.to_owned())),
        (Some(_), Some(pattern)) => {
            pattern.problem("a parameter takes `enum` or `pattern`, not both");
            TextRule::Free
        }
        (None, None) => TextRule::Free,
    }
}

fn choices(list: &Value<'_>) -> Vec<String> {
    let texts = list.texts();
    if texts.is_empty() && list.raw().as_array().is_some_and(|items| items.is_empty()) {
        list.problem("an empty `enum` takes nothing");
    }
    for (text, place) in texts.iter().filter(|(text, _)| text.len() > MAX_TEXT_BYTES) {
        let what = format!("a text has at most {MAX_TEXT_BYTES} bytes; this one has {}", text.len());
        list.context().report.problem(place, what);
    }
    texts.into_iter().map(|(text, _)| text.to_owned()).collect()
}
