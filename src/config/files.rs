//! Files that config names by path or by pattern.

use std::path::{Path, PathBuf};

use super::problem::Report;
use super::source::Place;
use super::table::Value;

/// The files that a list of paths and patterns means, sorted and each once. Patterns are relative to the folder of
/// the file that they stand in.
pub(super) fn expand(list: &Value<'_>) -> Vec<PathBuf> {
    let context = list.context();
    let folder = context.source.resolve("");
    let mut files: Vec<_> = list
        .texts()
        .into_iter()
        .flat_map(|(pattern, place)| matches(&folder, pattern, &place, context.report))
        .collect();
    files.sort();
    files.dedup();
    files
}

fn matches(folder: &Path, pattern: &str, place: &Place, report: &Report) -> Vec<PathBuf> {
    if !pattern.contains(['*', '?', '[']) {
        return vec![folder.join(pattern)];
    }
    let found = match glob::glob(&absolute(folder, pattern)) {
        Ok(found) => found,
        Err(error) => {
            report.problem(place, format!("`{pattern}` is not a pattern: {}", error.msg));
            return Vec::new();
        }
    };
    let mut files = Vec::new();
    for path in found {
        match path {
            Ok(path) => files.push(path),
            Err(error) => report.problem(place, format!("{} cannot be read", error.path().display())),
        }
    }
    if files.is_empty() {
        report.warning(place, format!("no file matches `{pattern}`"));
    }
    files
}

/// The pattern with its folder, in which no character is special.
fn absolute(folder: &Path, pattern: &str) -> String {
    if Path::new(pattern).is_absolute() {
        return pattern.to_owned();
    }
    let folder = glob::Pattern::escape(&folder.to_string_lossy());
    Path::new(&folder).join(pattern).to_string_lossy().into_owned()
}
