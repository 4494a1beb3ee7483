//! `[targets]`: where credentials are minted, and by which backend.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use leasehold_backend::{BackendKind, Problem as BackendProblem};
use leasehold_law::catalog;
use leasehold_law::scope::{MAX_NAME_BYTES, is_name};
use serde_json::{Map, Value as Json};

use super::agents::{Owners, group_names};
use super::drill::{self, DrillChoice};
use super::json::{self, Lines};
use super::names::Names;
use super::problem::{Problem, did_you_mean};
use super::table::{Context, Table, Value};
use super::trust::Trust;

/// The keys of a target that are the broker's; the backend gets the others.
const OURS: [&str; 5] = ["backend", "owner", "labels", "groups", "drill"];
/// The backend that needs `--dev-trust` (RULES R-19).
const MEMORY: &str = "memory";

/// One target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What policy sees of it.
    pub law: catalog::Target,
    /// The name of its backend's kind.
    pub backend: String,
    /// What it is drilled with.
    pub drill: DrillChoice,
    /// What the backend is made from: the target's table without `backend`, `owner`, `labels`, `groups` and `drill`.
    /// Paths, which are the values of `sslrootcert` and of keys that end in `_file`, are those that the config means.
    pub table: Map<String, Json>,
    /// Where each part of the table stands.
    pub lines: Lines,
}

impl Target {
    /// A problem of the backend with its table, with file and line.
    #[must_use]
    pub fn problem(&self, found: &BackendProblem) -> Problem {
        located(&self.law.name, &self.lines, found)
    }

    /// The files that its table names, with the pointers to them.
    pub(super) fn files(&self) -> Vec<(String, &str)> {
        let mut found = Vec::new();
        files("", &self.table, &json::is_path, &mut found);
        found
    }
}

fn located(target: &str, lines: &Lines, found: &BackendProblem) -> Problem {
    let key = found.pointer.trim_start_matches('/').replace('/', ".");
    let dot = if key.is_empty() { "" } else { "." };
    Problem::at(lines.place(&found.pointer), format!("`targets.{target}{dot}{key}`: {}", found.what))
}

/// What targets are checked against.
pub(super) struct World<'a> {
    pub(super) owners: &'a Owners<'a>,
    pub(super) kinds: &'a [Box<dyn BackendKind>],
    pub(super) trust: Trust,
}

pub(super) fn read(parts: &[Table<'_>], world: &World<'_>) -> Names<Target> {
    Names::collect(parts, ("targets", "target"), Table::named, |name, value| target(name, value, world))
}

fn target(name: &str, value: &Value<'_>, world: &World<'_>) -> Option<Target> {
    let ours = value.table()?;
    let owner = world.owners.read(&ours);
    let labels = ours.get("labels").map(|value| labels(&value)).unwrap_or_default();
    let groups = group_names(&ours);
    let drill = ours.get("drill").and_then(|value| drill::choice(&value)).unwrap_or_default();
    let kind = ours.need("backend").and_then(|value| backend(&value, world));
    ours.finish_open();
    let (table, lines) = json::read(value, &OURS)?;
    let kind = kind?;
    for found in kind.check(&table) {
        value.context().report.push(located(name, &lines, &found));
    }
    secrets(&table, name, &lines, value);
    let law = catalog::Target { name: name.to_owned(), owner: owner?, labels, groups };
    Some(Target { law, backend: kind.name().to_owned(), drill, table, lines })
}

/// The files that hold a target's secrets, as far as they can be judged without opening them.
fn secrets(table: &Map<String, Json>, target: &str, lines: &Lines, value: &Value<'_>) {
    let Context { source, report } = value.context();
    let mut found = Vec::new();
    files("", table, &|key| key.ends_with("_file"), &mut found);
    for (pointer, file) in found {
        let path = source.resolve(file);
        // Whether it is there is told by `check` and `serve`.
        if !std::fs::metadata(&path).is_ok_and(|file| file.permissions().mode() & 0o007 != 0) {
            continue;
        }
        let what =
            format!("target `{target}`: anybody on this host may read `{}`: chmod 600 it", path.display());
        report.warning(lines.place(&pointer), what);
    }
}

/// What a backend's table names under such keys, at any depth.
fn files<'t>(
    pointer: &str,
    table: &'t Map<String, Json>,
    is_file: &dyn Fn(&str) -> bool,
    found: &mut Vec<(String, &'t str)>,
) {
    for (key, value) in table {
        let pointer = format!("{pointer}/{key}");
        match value {
            Json::Object(inner) => files(&pointer, inner, is_file, found),
            Json::String(file) if is_file(key) => found.push((pointer, file)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {}
        }
    }
}

fn backend<'k>(value: &Value<'_>, world: &World<'k>) -> Option<&'k dyn BackendKind> {
    let name = value.text()?;
    if name == MEMORY && world.trust == Trust::Production {
        value.problem("the memory target guards nothing: it needs `--dev-trust`");
    }
    let kind = world.kinds.iter().find(|kind| kind.name() == name);
    if kind.is_none() {
        let hint = did_you_mean(name, world.kinds.iter().map(|kind| kind.name()));
        value.problem(format!("no backend `{name}` is built in{hint}"));
    }
    kind.map(AsRef::as_ref)
}

fn labels(value: &Value<'_>) -> BTreeMap<String, String> {
    let entries = value.table().map(|table| table.named()).unwrap_or_default();
    entries.iter().filter_map(|entry| Some((entry.name.to_owned(), label(&entry.value)?))).collect()
}

fn label(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if !is_name(text) {
        let what =
            format!("`{text}` is no label: use up to {MAX_NAME_BYTES} letters, digits, `.`, `-` and `_`");
        value.problem(what);
    }
    Some(text.to_owned())
}
