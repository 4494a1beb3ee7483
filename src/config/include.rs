//! Included files: each team its own, holding only what teams define.

use super::files;
use super::source::Source;
use super::table::Table;

/// The tables of the main file that say how the broker itself runs.
const MAIN_ONLY: [&str; 12] = [
    "include",
    "broker",
    "listen",
    "operators",
    "identity",
    "store",
    "policy",
    "tasks",
    "sweep",
    "drill",
    "quotas",
    "registry",
];

/// Reads the files that `include` names, in the order of their paths.
pub(super) fn read(main: &Table<'_>) -> Vec<Source> {
    let context = main.context();
    let Some(list) = main.get("include") else { return Vec::new() };
    let itself = context.source.path().canonicalize().ok();
    let mut sources = Vec::new();
    for path in files::expand(&list) {
        if path.canonicalize().is_ok_and(|path| Some(path) == itself) {
            list.problem("the file includes itself");
            continue;
        }
        match Source::read(&path) {
            Ok(source) => sources.push(source),
            Err(error) => context.report.unreadable(&path, &error),
        }
    }
    sources
}

/// Reports what an included file may not hold.
pub(super) fn refuse_main_tables(included: &Table<'_>) {
    for key in MAIN_ONLY {
        if let Some(value) = included.get(key) {
            value.problem(format!(
                "`{key}` belongs in the main file; included files hold people, groups, agents, targets, intents \
                 and grants"
            ));
        }
    }
}
