//! Reads a table of config key by key, and collects everything that is wrong with it by JSON pointer (RFC 6901).

use std::ops::RangeInclusive;

use leasehold_backend::Problem;
use leasehold_law::time::Span;
use serde_json::{Map, Value};

/// A table that is being read. Keys that nobody asked for are problems.
pub(crate) struct Fields<'a> {
    at: String,
    map: &'a Map<String, Value>,
    known: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl<'a> Fields<'a> {
    /// The outermost table.
    pub(crate) fn new(map: &'a Map<String, Value>) -> Self {
        Self { at: String::new(), map, known: Vec::new(), problems: Vec::new() }
    }

    /// Reads the table under a key. Nothing is read where there is none.
    pub(crate) fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let map = self.value(key, "a table", Value::as_object)?;
        let mut inner = Self { at: self.pointer(key), map, known: Vec::new(), problems: Vec::new() };
        let made = read(&mut inner);
        self.problems.extend(inner.finish());
        Some(made)
    }

    /// Keys that others read.
    pub(crate) fn ignore(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    /// A text that is not empty and holds no NUL.
    pub(crate) fn text(&mut self, key: &'static str) -> Option<&'a str> {
        let text = self.value(key, "text", Value::as_str)?;
        if text.is_empty() || text.contains('\0') {
            self.problem(key, "must not be empty nor hold a NUL");
            return None;
        }
        Some(text)
    }

    /// A text that has to be there.
    pub(crate) fn required(&mut self, key: &'static str, what: &str) -> Option<&'a str> {
        if !self.has(key) {
            self.known.push(key);
            self.problem(key, &format!("is missing: {what}"));
            return None;
        }
        self.text(key)
    }

    /// One of these texts.
    pub(crate) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
        if chosen.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
            self.problem(key, &format!("is `{text}`; write {}", names.join(" or ")));
        }
        chosen
    }

    /// A whole number in a range.
    pub(crate) fn number(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let number = self.value(key, "a whole number", Value::as_i64)?;
        let found = u32::try_from(number).ok().filter(|n| range.contains(n));
        if found.is_none() {
            self.problem(key, &format!("must be from {} to {}", range.start(), range.end()));
        }
        found
    }

    /// A length of time in a range.
    pub(crate) fn span(&mut self, key: &'static str, range: RangeInclusive<Span>) -> Option<Span> {
        let text = self.text(key)?;
        match text.parse::<Span>() {
            Ok(span) if range.contains(&span) => return Some(span),
            Ok(_) => self.problem(key, &format!("must be from {} to {}", range.start(), range.end())),
            Err(error) => self.problem(key, &error.to_string()),
        }
        None
    }

    /// A list of texts, each with its pointer.
    pub(crate) fn texts(&mut self, key: &'static str) -> Option<Vec<(String, &'a str)>> {
        let list = self.value(key, "a list of texts", Value::as_array)?;
        let mut texts = Vec::new();
        for (index, item) in list.iter().enumerate() {
            match item.as_str() {
                Some(text) => texts.push((format!("{}/{index}", self.pointer(key)), text)),
                None => self.problem(&format!("{key}/{index}"), "must be text"),
            }
        }
        Some(texts)
    }

    /// Every entry of a table whose keys are the operator's own, each with its pointer.
    pub(crate) fn entries(&mut self, key: &'static str) -> Vec<(String, &'a str, &'a Value)> {
        let at = self.pointer(key);
        let map = self.value(key, "a table", Value::as_object);
        let entry =
            |(key, value): (&'a String, &'a Value)| (format!("{at}/{}", escape(key)), key.as_str(), value);
        map.into_iter().flatten().map(entry).collect()
    }

    /// Whether the key is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Notes what is wrong under a key.
    pub(crate) fn problem(&mut self, key: &str, what: &str) {
        let pointer = format!("{}/{key}", self.at);
        self.problems.push(Problem::new(pointer, what));
    }

    /// Notes what is wrong at a pointer.
    pub(crate) fn problem_at(&mut self, pointer: String, what: &str) {
        self.problems.push(Problem::new(pointer, what));
    }

    /// Everything that is wrong; unknown keys last.
    pub(crate) fn finish(mut self) -> Vec<Problem> {
        for key in self.map.keys().filter(|key| !self.known.contains(&key.as_str())) {
            let pointer = format!("{}/{}", self.at, escape(key));
            self.problems.push(Problem::new(
                pointer,
                format!("unknown key `{key}`; known: {}", self.known.join(", ")),
            ));
        }
        self.problems
    }

    fn pointer(&self, key: &str) -> String {
        format!("{}/{key}", self.at)
    }

    fn value<T>(
        &mut self,
        key: &'static str,
        kind: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        let found = read(self.map.get(key)?);
        if found.is_none() {
            self.problem(key, &format!("must be {kind}"));
        }
        found
    }
}

/// A key as one step of a JSON pointer.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
