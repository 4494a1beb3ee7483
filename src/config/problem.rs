//! What is wrong with a config: all of it at once, each with its file and line (OPS-1).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::{Path, PathBuf};

use super::source::Place;
use crate::near::nearest;

/// One thing that is wrong, or that is worth a warning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as it was reached from the path that was given.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1, where one is known.
    pub column: Option<usize>,
    /// What is wrong, and what to write instead.
    pub what: String,
}

impl Problem {
    /// A problem at a place.
    #[must_use]
    pub fn at(place: &Place, what: impl Into<String>) -> Self {
        Self { file: place.file.to_path_buf(), line: place.line, column: place.column, what: what.into() }
    }
}

/// `file:line:column: what`, which editors follow.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.file.display(), self.line)?;
        if let Some(column) = self.column {
            write!(f, "{column}:")?;
        }
        write!(f, " {}", self.what)
    }
}

/// Where checks put what they find, so that none stops at its first problem.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    torn: Cell<bool>,
}

impl Report {
    /// Something is wrong.
    pub(super) fn problem(&self, place: &Place, what: impl Into<String>) {
        self.push(Problem::at(place, what));
    }

    /// A problem that has its place already.
    pub(super) fn push(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Something is not there. Said only while every file could be parsed: what seems absent may stand in the part
    /// that could not be.
    pub(super) fn absent(&self, place: &Place, what: impl Into<String>) {
        if !self.torn.get() {
            self.problem(place, what);
        }
    }

    /// A file could not be parsed to its end.
    pub(super) fn syntax(&self, place: &Place, what: impl Into<String>) {
        self.torn.set(true);
        self.problem(place, what);
    }

    /// A file could not be read or followed at all.
    pub(super) fn unreadable(&self, path: &Path, error: &std::io::Error) {
        self.syntax(&Place::top_of(path), format!("cannot be read: {error}"));
    }

    /// Something works, but is not what one would want.
    pub(super) fn warning(&self, place: &Place, what: impl Into<String>) {
        self.warnings.borrow_mut().push(Problem::at(place, what));
    }

    /// How many problems there are so far.
    pub(super) fn count(&self) -> usize {
        self.problems.borrow().len()
    }

    /// The value, if nothing was wrong with it, and the warnings; otherwise every problem, by file and line.
    pub(super) fn verdict<T>(self, value: Option<T>) -> Result<(T, Vec<Problem>), Vec<Problem>> {
        let problems = sorted(self.problems.into_inner());
        match value {
            Some(value) if problems.is_empty() => Ok((value, sorted(self.warnings.into_inner()))),
            Some(_) | None => Err(problems),
        }
    }
}

fn sorted(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort();
    problems.dedup();
    problems
}

/// What follows an unknown word: what it may have been meant to be, or what there is.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut known: Vec<_> = known.into_iter().collect();
    known.sort_unstable();
    known.dedup();
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("; did you mean `{near}`?"),
        None if (1..=16).contains(&known.len()) => format!("; there is {}", known.join(", ")),
        None => String::new(),
    }
}
