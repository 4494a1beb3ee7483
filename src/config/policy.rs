//! `[policy]`: the policy files, and the floors under them (RULES R-13).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use leasehold_law::catalog::{Catalog, Class, Floor, Floors};
use leasehold_law::policy::{Engine, PolicyProblem, PolicySource};
use leasehold_law::scope::Pair;

use super::files;
use super::problem::Report;
use super::source::Place;
use super::table::{Table, Value};

const FLOORS: [(&str, Floor); 2] = [("permit", Floor::Permit), ("ask", Floor::Ask)];

/// The files and the floors.
#[derive(Default)]
pub(super) struct Policy {
    pub(super) sources: Vec<PolicySource>,
    pub(super) floors: Floors,
}

pub(super) fn read(root: &Table<'_>) -> Policy {
    let read = |value: Value<'_>| value.read(|table| Some(policy(table)));
    root.get("policy").and_then(read).unwrap_or_default()
}

fn policy(table: &Table<'_>) -> Policy {
    let sources = table.get("files").map(|list| sources(&list)).unwrap_or_default();
    let mut floors = Floors::default();
    if let Some(value) = table.get("floor") {
        floors.base.extend(by_class(&value));
    }
    if let Some(value) = table.get("production") {
        value.read(|production| {
            if let Some(value) = production.get("labels") {
                floors.production_labels = labels(&value);
            }
            floors
                .production
                .extend(production.get("floor").map(|value| by_class(&value)).unwrap_or_default());
            Some(())
        });
    }
    Policy { sources, floors }
}

fn by_class(value: &Value<'_>) -> BTreeMap<Class, Floor> {
    let floors = value.read(|table| {
        let floor = |class: Class| Some((class, table.get(class.name())?.word(&FLOORS)?));
        Some(Class::ALL.into_iter().filter_map(floor).collect())
    });
    floors.unwrap_or_default()
}

fn labels(value: &Value<'_>) -> BTreeMap<String, BTreeSet<String>> {
    let entries = value.table().map(|table| table.named()).unwrap_or_default();
    let values = |value: &Value<'_>| value.texts().into_iter().map(|(text, _)| text.to_owned()).collect();
    entries.iter().map(|entry| (entry.name.to_owned(), values(&entry.value))).collect()
}

fn sources(list: &Value<'_>) -> Vec<PolicySource> {
    let report = list.context().report;
    let read = |path: &Path| match std::fs::read_to_string(path) {
        Ok(text) => Some(PolicySource { name: path.display().to_string(), text }),
        Err(error) => {
            report.unreadable(path, &error);
            None
        }
    };
    files::expand(list).iter().filter_map(|path| read(path)).collect()
}

/// Where the parts of a policy set stand.
pub(super) struct Places<'a> {
    /// The whole config.
    pub(super) main: &'a Place,
    /// Grants, each of which may be a permit.
    pub(super) grants: &'a BTreeMap<Pair, Place>,
}

/// Loads the policies over a catalog in which nothing is wrong.
pub(super) fn load(
    catalog: &Catalog,
    sources: &[PolicySource],
    places: &Places<'_>,
    report: &Report,
) -> Option<Engine> {
    let problems = match Engine::load(catalog, sources) {
        Ok(engine) => return Some(engine),
        Err(problems) => problems,
    };
    for problem in problems {
        report.problem(&places.of(&problem, sources), problem.what);
    }
    None
}

impl Places<'_> {
    /// A line of a policy file, the grant that is a permit, or else the config as a whole.
    fn of(&self, problem: &PolicyProblem, sources: &[PolicySource]) -> Place {
        if sources.iter().any(|source| source.name == problem.source) {
            return Place { line: problem.line, ..Place::top_of(Path::new(&problem.source)) };
        }
        let pair = problem.source.strip_prefix("grant ").and_then(|pair| pair.parse::<Pair>().ok());
        pair.and_then(|pair| self.grants.get(&pair)).unwrap_or(self.main).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_of_policy_is_found_where_it_was_written() {
        let main = Place::top_of(Path::new("main.toml"));
        let grant = Place { line: 9, ..main.clone() };
        let grants = BTreeMap::from([("a@b".parse().unwrap(), grant)]);
        let places = Places { main: &main, grants: &grants };
        let sources = [PolicySource { name: "x.cedar".to_owned(), text: String::new() }];
        let check = |source: &str, expect: (&str, usize)| {
            let problem = PolicyProblem { source: source.to_owned(), line: 3, what: String::new() };
            let place = places.of(&problem, &sources);
            assert_eq!((place.file.to_str().unwrap(), place.line), expect);
        };
        check("x.cedar", ("x.cedar", 3));
        check("grant a@b", ("main.toml", 9));
        check("grant a@c", ("main.toml", 1));
        check("the schema", ("main.toml", 1));
    }
}
