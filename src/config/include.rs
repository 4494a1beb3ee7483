//! Included files: each team its own, holding only what teams define.

use super::files;
use super::source::Source;
use super::table::Table;

/// What teams define, each in a file of its own if they like.
const DEFINED: [&str; 9] = [
    "people",
    "groups",
    "agents",
    "personal_agents",
    "ci_jobs",
    "kube_accounts",
    "targets",
    "intents",
    "grants",
];

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

/// Reports the tables of a broker's config in a file that is applied to one that runs.
pub(super) fn refuse_config_tables(applied: &Table<'_>) {
    for key in DEFINED.into_iter().chain(MAIN_ONLY).filter(|key| *key != "agents") {
        if let Some(value) = applied.get(key) {
            value.problem(format!(
                "`{key}` belongs in the broker's config, and takes a restart; a file to apply holds [agents.\"...\"] alone"
            ));
        }
    }
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
