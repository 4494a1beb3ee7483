//! A file as it was read, and places in it.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A place in a file, as people and editors count: from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it was reached from the path that was given.
    pub file: Arc<Path>,
    /// The line.
    pub line: usize,
    /// The column, in characters, where one is known.
    pub column: Option<usize>,
}

impl Place {
    /// A place that is a whole file: its first line.
    #[must_use]
    pub fn top_of(file: &Path) -> Self {
        Self { file: Arc::from(file), line: 1, column: None }
    }
}

/// The text of one config file.
#[derive(Debug)]
pub(super) struct Source {
    path: Arc<Path>,
    text: String,
}

impl Source {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> std::io::Result<Self> {
        Ok(Self { path: Arc::from(path), text: std::fs::read_to_string(path)? })
    }

    /// A text that was handed in, under the name that its sender gave the file.
    pub(super) fn of(file: &str, text: String) -> Self {
        Self { path: Arc::from(Path::new(file)), text }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// A path as the config means it: relative to the folder of the file that names it.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    /// The first line.
    pub(super) fn top(&self) -> Place {
        Place { file: Arc::clone(&self.path), line: 1, column: None }
    }

    /// Where a run of bytes begins.
    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Place { file: Arc::clone(&self.path), line, column: Some(column) }
    }
}
