//! The sources of the house, read once: what of each file is code, and what of that is a test.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

/// Folders with code of ours. What is not there yet has no rules to break.
pub(crate) const FOLDERS: &[&str] =
    &["law", "proto", "backends", "sdk", "src", "tests", "benches", "examples"];

/// One file.
pub(crate) struct Source {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    /// Code that ships: no comments, no text between quotes, no test module at the end.
    pub(crate) code: String,
    /// Code of tests, likewise.
    pub(crate) tests: String,
    /// The names of its tests, conformance cases included.
    pub(crate) test_names: BTreeSet<String>,
}

impl Source {
    /// Splits a file into what ships and what tests it.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let bare = without_words(text);
        let is_test = path.split('/').any(|part| part == "tests");
        let cut = if is_test { 0 } else { test_module(&bare).unwrap_or(bare.len()) };
        let (code, tests) = bare.split_at_checked(cut).unwrap_or((&bare, ""));
        Self {
            path: path.to_owned(),
            code: without_groups(code),
            tests: tests.to_owned(),
            test_names: test_names(path, &bare),
        }
    }

    /// Whether it lies in a room: `src/api` is `src/api.rs` and all of `src/api/`.
    pub(crate) fn is_in(&self, room: &str) -> bool {
        self.path
            .strip_prefix(room)
            .is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
    }

    /// Where a needle stands in what ships, as `path:line`.
    pub(crate) fn finds(&self, needle: &str) -> Vec<String> {
        finds(&self.path, &self.code, needle)
    }
}

/// Every file of ours. A file that a parent declares under `#[cfg(test)]` is all test.
pub(crate) fn read(root: &Path) -> io::Result<Vec<Source>> {
    let mut texts = Vec::new();
    for folder in FOLDERS.iter().map(|folder| root.join(folder)).filter(|folder| folder.is_dir()) {
        walk(root, &folder, &mut texts)?;
    }
    let test_rooms: Vec<String> =
        texts.iter().flat_map(|(path, text)| test_rooms(path, &without_words(text))).collect();
    Ok(texts.into_iter().map(|(path, text)| all_test_where(Source::new(&path, &text), &test_rooms)).collect())
}

fn walk(root: &Path, folder: &Path, texts: &mut Vec<(String, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name == "target" || name == "compile_fail");
        if path.is_dir() && !hidden {
            walk(root, &path, texts)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            texts.push((name, fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

fn all_test_where(source: Source, test_rooms: &[String]) -> Source {
    if test_rooms.iter().any(|room| source.is_in(room)) {
        return Source { tests: format!("{}{}", source.code, source.tests), code: String::new(), ..source };
    }
    source
}

/// The rooms of modules that a file declares for tests alone.
fn test_rooms(path: &str, code: &str) -> Vec<String> {
    let stem = path.trim_end_matches(".rs");
    let inside = ["/mod", "/lib", "/main"].iter().find_map(|name| stem.strip_suffix(name)).unwrap_or(stem);
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let declared = lines.windows(2).filter_map(|pair| match pair {
        ["#[cfg(test)]", module] => module.split_once("mod ")?.1.strip_suffix(';'),
        _ => None,
    });
    declared.map(|name| format!("{inside}/{name}")).collect()
}

/// Where the test module at the end of a file begins.
fn test_module(code: &str) -> Option<usize> {
    code.match_indices("#[cfg(test)]\nmod ").map(|(at, _)| at).find(|at| {
        code.get(*at..)
            .and_then(|rest| rest.lines().nth(1))
            .is_some_and(|line| line.trim_end().ends_with('{'))
    })
}

/// The tests of a file. The conformance suite's cases are tests too: its own test sees to it that each one runs.
fn test_names(path: &str, code: &str) -> BTreeSet<String> {
    let cases = path.contains("/conformance/");
    let mut names = BTreeSet::new();
    let mut marked = false;
    for line in code.lines().map(str::trim) {
        marked |= line == "#[test]" || line.starts_with("#[tokio::test");
        marked |= cases && line.starts_with("pub async fn ");
        let name = line.split_once("fn ").and_then(|(_, rest)| rest.split_once('(')).map(|(name, _)| name);
        if let Some(name) = name.filter(|_| std::mem::take(&mut marked)) {
            names.insert(name.to_owned());
        }
    }
    names
}

/// Where a needle stands, unless it is the end of a longer word.
pub(crate) fn finds(path: &str, code: &str, needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        for (at, _) in line.match_indices(needle) {
            let before = line.get(..at).and_then(|text| text.chars().next_back());
            let after = line.get(at + needle.len()..).and_then(|text| text.chars().next());
            let longer_before = is_word(before) && is_word(needle.chars().next());
            let longer_after = is_word(after) && is_word(needle.chars().next_back());
            if !longer_before && !longer_after {
                found.push(format!("{path}:{}", number + 1));
            }
        }
    }
    found
}

fn is_word(letter: Option<char>) -> bool {
    letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
}

/// The code with `use a::{b, c::d};` written as `use a::b; a::c::d;`; lines stay where they are.
fn without_groups(code: &str) -> String {
    let mut flat = String::with_capacity(code.len());
    let mut rest = code;
    while let Some((before, import)) = rest.split_once("use ") {
        let Some((tree, after)) = import.split_once(';') else { break };
        let mut paths = Vec::new();
        if is_word(before.chars().next_back()) || tree.contains("fn ") {
            paths.push(tree.to_owned());
        } else {
            ungroup("", tree, &mut paths);
        }
        let lines = "\n".repeat(tree.matches('\n').count());
        flat.extend([before, "use ", &paths.join("; "), ";", &lines]);
        rest = after;
    }
    flat + rest
}

fn ungroup(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let mut depth = 0_usize;
    let parts = tree.split(|letter: char| {
        depth = if letter == '{' { depth + 1 } else { depth.saturating_sub(usize::from(letter == '}')) };
        letter == ',' && depth == 0
    });
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('{') {
            Some((path, group)) => {
                ungroup(&format!("{prefix}{path}"), group.strip_suffix('}').unwrap_or(group), paths);
            }
            None => paths.push(format!("{prefix}{part}")),
        }
    }
}

/// The text without comments and without what stands between quotes; lines stay where they are.
fn without_words(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skipped = wordy(rest, code.chars().next_back());
        if skipped == 0 {
            code.push(next);
            rest = rest.get(next.len_utf8()..).unwrap_or_default();
        } else {
            let (words, after) = rest.split_at_checked(skipped).unwrap_or((rest, ""));
            code.extend(words.chars().filter(|letter| *letter == '\n'));
            rest = after;
        }
    }
    code
}

/// How much of the beginning is a comment or a literal.
fn wordy(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    if rest.starts_with('"') {
        return closed(rest, 1);
    }
    match rest.strip_prefix('r').filter(|_| !is_word(before) || before == Some('b')) {
        Some(raw) => raw_string(raw),
        None => character(rest),
    }
}

/// The end of a string with escapes.
fn closed(rest: &str, from: usize) -> usize {
    let mut escaped = false;
    for (at, letter) in rest.char_indices().skip(from) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of `r"..."`, `r#"..."#`; 0 for what is none, such as `r#type`.
fn raw_string(after_r: &str) -> usize {
    let hashes = after_r.len() - after_r.trim_start_matches('#').len();
    let Some(body) = after_r.get(hashes..).and_then(|rest| rest.strip_prefix('"')) else { return 0 };
    let end = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&end).map_or(body.len(), |at| at + end.len());
    1 + hashes + 1 + length
}

/// The length of `'"'` and `'\''`, which would otherwise open a string; 0 for lifetimes.
fn character(rest: &str) -> usize {
    let Some(body) = rest.strip_prefix('\'') else { return 0 };
    if body.starts_with('\\') {
        let close = body.get(2..).and_then(|tail| tail.find('\''));
        return close.map_or(0, |at| 1 + 2 + at + 1);
    }
    let length = body.chars().next().map_or(0, char::len_utf8);
    if body.get(length..).is_some_and(|tail| tail.starts_with('\'')) { length + 2 } else { 0 }
}
