//! The reader of config files, and any text as one.

#[path = "../../src/config/ci_jobs/claims.rs"]
mod claims;
#[path = "../../src/config/apply/in_json.rs"]
mod in_json;
#[path = "../../src/config/problem.rs"]
mod problem;
#[path = "../../src/config/source.rs"]
mod source;
#[path = "../../src/config/table.rs"]
mod table;
#[path = "../../src/config/twice.rs"]
mod twice;
#[path = "../../src/config/ci_jobs/words.rs"]
mod words;

use leasehold_law::caller::SpiffeId;
use leasehold_law::time::{Day, Span};

use crate::identity::ci::Want;
use problem::{Problem, Report};
use source::Source;
use table::{Context, Table, Value};
use toml::de::DeValue;

/// Any text is a config file: read to its end, whatever is wrong with it, and each problem has a place in it.
pub fn any_text(text: &str) {
    let lines = text.matches('\n').count() + 1;
    for problem in problems(text) {
        assert!((1..=lines).contains(&problem.line), "{problem} in {lines} lines");
        assert!(problem.column.is_none_or(|column| column >= 1), "{problem}");
    }
    let Ok(toml) = in_json::from_json("agents.json", text) else { return };
    let report = Report::default();
    let source = Source::of("agents.json", toml);
    let _ = table::parse(&source, &report);
    // TOML has smaller numbers than JSON, and its reader fewer levels.
    let plain = !text.bytes().any(|byte| byte.is_ascii_digit());
    let flat = text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() < 32;
    assert!(!plain || !flat || report.count() == 0, "{:?}", report.verdict(None::<()>));
}

fn problems(text: &str) -> Vec<Problem> {
    let report = Report::default();
    let source = Source::of("leasehold.toml", text.to_owned());
    let tree = table::parse(&source, &report);
    let root = Table::root(Context { source: &source, report: &report }, tree.get_ref());
    let _ = (root.get("agents"), root.need("identity"), root.texts("groups"));
    root.named().iter().for_each(|entry| walk(&entry.value));
    root.finish();
    report.verdict(Some(())).map_or_else(|problems| problems, |(_, warnings)| warnings)
}

/// Reads a value as some part of the config would, by what it is and as something else.
fn walk(value: &Value<'_>) {
    match value.raw() {
        DeValue::String(_) => {
            let _ = (value.filled(), value.parsed::<Span>(), value.parsed::<Day>(), value.flag());
            let _ = (value.parsed::<SpiffeId>(), value.word(&[("observe", ()), ("propose", ()), ("act", ())]));
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            let _ = (value.int(), value.flag(), value.text());
        }
        DeValue::Array(_) => value.items().iter().for_each(walk),
        DeValue::Table(_) => {
            let _ = value.read(|table| {
                table.entries().iter().for_each(|entry| walk(&entry.value));
                Some((table.get("owner"), table.need("autonomy"), table.texts("groups")))
            });
        }
    }
}

/// What a rule for jobs wants, where the text is one: of GitHub's jobs, or with `claims` of anybody's.
pub(crate) fn wants(text: &str) -> Option<Vec<Want>> {
    let report = Report::default();
    let source = Source::of("leasehold.toml", text.to_owned());
    let tree = table::parse(&source, &report);
    let root = Table::root(Context { source: &source, report: &report }, tree.get_ref());
    let wants = match tree.get_ref().contains_key("claims") {
        true => claims::of_any(&root),
        false => claims::of_platform(&root, &words::GITHUB),
    };
    root.finish();
    report.verdict(wants).ok().map(|(wants, _)| wants)
}
