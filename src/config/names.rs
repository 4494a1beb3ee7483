//! Names that may be defined in any file, but only once.

use std::collections::BTreeMap;

use super::problem::{Report, did_you_mean};
use super::source::Place;
use super::table::{Entry, Table, Value};
use super::twice;

/// Everything of one kind that the files define.
pub(super) struct Names<T> {
    kind: &'static str,
    /// Also of what could not be read, so that a reference to it is no second problem.
    places: BTreeMap<String, Place>,
    pub(super) values: BTreeMap<String, T>,
}

impl<T> Names<T> {
    /// Names that are defined elsewhere.
    pub(super) fn known<'a>(
        kind: &'static str,
        names: impl IntoIterator<Item = &'a String>,
        place: &Place,
    ) -> Self {
        let places = names.into_iter().map(|name| (name.clone(), place.clone())).collect();
        Self { kind, places, values: BTreeMap::new() }
    }

    /// Collects the entries of `[key]` in every file. `list` says which entries a table has.
    pub(super) fn collect<'a>(
        parts: &[Table<'a>],
        (key, kind): (&'static str, &'static str),
        list: impl Fn(&Table<'a>) -> Vec<Entry<'a>>,
        read: impl Fn(&str, &Value<'a>) -> Option<T>,
    ) -> Self {
        let mut names = Self { kind, places: BTreeMap::new(), values: BTreeMap::new() };
        for part in parts {
            let report = part.context().report;
            let table = part.get(key).and_then(|value| value.table());
            for entry in table.map(|table| list(&table)).unwrap_or_default() {
                if let Some(value) = read(entry.name, &entry.value) {
                    names.define(entry.name, &entry.place, value, report);
                } else {
                    names.places.entry(entry.name.to_owned()).or_insert(entry.place);
                }
            }
        }
        names
    }

    fn define(&mut self, name: &str, place: &Place, value: T, report: &Report) {
        match self.places.get(name) {
            Some(first) => report.problem(place, twice::told(&format!("{} `{name}`", self.kind), first)),
            None => {
                self.places.insert(name.to_owned(), place.clone());
                self.values.insert(name.to_owned(), value);
            }
        }
    }

    /// Takes in what is of this kind too, though it is defined elsewhere, under a name of its own.
    pub(super) fn join<U>(&mut self, others: &Names<U>, ours: impl Fn(&U) -> (String, T)) {
        for (name, place) in &others.places {
            match others.values.get(name).map(&ours) {
                Some((name, value)) => {
                    self.places.entry(name.clone()).or_insert_with(|| place.clone());
                    self.values.entry(name).or_insert(value);
                }
                // It could not be read, and may be anything.
                None => drop(self.places.entry(format!("{} {name}", others.kind)).or_insert(place.clone())),
            }
        }
    }

    /// Reports a reference to a name that nobody defines.
    pub(super) fn check(&self, name: &str, place: &Place, report: &Report) {
        self.check_among(name, &[], place, report);
    }

    /// Reports a reference to a name that nobody defines, where it may be likest to one of those beside these.
    pub(super) fn check_among(&self, name: &str, beside: &[String], place: &Place, report: &Report) {
        if !self.places.contains_key(name) {
            let known = self.places.keys().chain(beside).map(String::as_str);
            let hint = did_you_mean(name, known);
            report.absent(place, format!("no {} `{name}` is defined{hint}", self.kind));
        }
    }

    /// Whether everything that is defined could be read.
    pub(super) fn is_whole(&self) -> bool {
        self.places.len() == self.values.len()
    }

    /// Where a name is defined.
    pub(super) fn place(&self, name: &str) -> Option<&Place> {
        self.places.get(name)
    }
}
