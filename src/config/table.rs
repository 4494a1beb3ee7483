//! Reading a spanned TOML tree: each getter reports what does not fit and goes on.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;

use leasehold_law::scope::is_name;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Report, did_you_mean};
use super::source::{Place, Source};
use super::twice;
use crate::near::nearest;

/// What every part of one file needs for its messages.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) source: &'a Source,
    pub(super) report: &'a Report,
}

/// A table, which remembers the keys that it was asked for: the others are unknown ones.
pub(super) struct Table<'a> {
    context: Context<'a>,
    raw: &'a DeTable<'a>,
    name: String,
    place: Place,
    asked: RefCell<Vec<&'static str>>,
    missing: RefCell<Vec<&'static str>>,
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Value<'a> {
    context: Context<'a>,
    raw: &'a DeValue<'a>,
    name: String,
    place: Place,
}

/// One entry of a table whose keys are data.
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    /// Where the key stands.
    pub(super) place: Place,
    pub(super) value: Value<'a>,
}

impl<'a> Table<'a> {
    /// The table that a whole file is.
    pub(super) fn root(context: Context<'a>, raw: &'a DeTable<'a>) -> Self {
        Self::new(context, raw, String::new(), context.source.top())
    }

    fn new(context: Context<'a>, raw: &'a DeTable<'a>, name: String, place: Place) -> Self {
        Self { context, raw, name, place, asked: RefCell::default(), missing: RefCell::default() }
    }

    /// A key that may be left out.
    pub(super) fn get(&self, key: &'static str) -> Option<Value<'a>> {
        self.asked.borrow_mut().push(key);
        self.raw.get_key_value(key).map(|(key, value)| self.value(key, value))
    }

    /// A key that must be there. That it is not is reported when the table is finished.
    pub(super) fn need(&self, key: &'static str) -> Option<Value<'a>> {
        let found = self.get(key);
        if found.is_none() {
            self.missing.borrow_mut().push(key);
        }
        found
    }

    /// A key that must be there, as whatever its text reads as.
    pub(super) fn need_parsed<T: FromStr<Err: Display>>(&self, key: &'static str) -> Option<T> {
        self.need(key)?.parsed()
    }

    /// A key that may be left out, as whatever its text reads as; an unfit text counts as left out, since it has
    /// been reported.
    pub(super) fn parsed_or<T: FromStr<Err: Display>>(&self, key: &'static str, default: T) -> T {
        self.get(key).and_then(|value| value.parsed()).unwrap_or(default)
    }

    /// A list of texts that may be left out, each with its place.
    pub(super) fn texts(&self, key: &'static str) -> Vec<(&'a str, Place)> {
        self.get(key).map(|value| value.texts()).unwrap_or_default()
    }

    /// Every entry, for tables whose keys are data.
    pub(super) fn entries(&self) -> Vec<Entry<'a>> {
        let entry = |(key, value): (&'a Spanned<_>, _)| Entry {
            place: self.context.source.place(&key.span()),
            value: self.value(key, value),
            name: AsRef::<str>::as_ref(key.get_ref()),
        };
        self.raw.iter().map(entry).collect()
    }

    /// As [`Table::entries`], reporting the keys that are no names.
    pub(super) fn named(&self) -> Vec<Entry<'a>> {
        let (good, bad): (Vec<_>, Vec<_>) = self.entries().into_iter().partition(|entry| is_name(entry.name));
        for Entry { name, place, .. } in bad {
            let what = format!("`{name}` is not a name: use up to 64 letters, digits, `.`, `-` and `_`");
            self.context.report.problem(&place, what);
        }
        good
    }

    /// Reports the keys that nobody asked for, and those that are missing.
    pub(super) fn finish(self) {
        let asked = self.asked.take();
        let unknown = self.entries().into_iter().filter(|entry| !asked.contains(&entry.name));
        for Entry { name, place, .. } in unknown {
            let hint = did_you_mean(name, asked.iter().copied());
            self.context.report.problem(&place, format!("unknown key `{}`{hint}", self.path(name)));
            // One misspelt key is one problem.
            let meant = nearest(name, asked.iter().copied());
            self.missing.borrow_mut().retain(|key| Some(*key) != meant);
        }
        self.finish_open();
    }

    /// Reports the keys that are missing; the others are somebody else's.
    pub(super) fn finish_open(self) {
        for key in self.missing.take() {
            self.context.report.absent(&self.place, format!("`{}` is missing", self.path(key)));
        }
    }

    /// Where the table begins.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The file, and where to report.
    pub(super) fn context(&self) -> Context<'a> {
        self.context
    }

    fn value(&self, key: &Spanned<impl AsRef<str>>, value: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        let raw = value.get_ref();
        // A table's own span is its header or its braces; the key is where people look.
        let span = if raw.is_table() { key.span() } else { value.span() };
        let place = self.context.source.place(&span);
        Value { context: self.context, raw, name: self.path(key.get_ref().as_ref()), place }
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

impl<'a> Value<'a> {
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn context(&self) -> Context<'a> {
        self.context
    }

    pub(super) fn raw(&self) -> &'a DeValue<'a> {
        self.raw
    }

    /// Reports that the value is wrong.
    pub(super) fn problem(&self, what: impl Into<String>) {
        self.context.report.problem(&self.place, what);
    }

    /// The value as text.
    pub(super) fn text(&self) -> Option<&'a str> {
        self.expect("text in quotes", self.raw.as_str())
    }

    /// The value as text that is not empty.
    pub(super) fn filled(&self) -> Option<&'a str> {
        let text = self.text()?;
        if text.trim().is_empty() {
            self.problem(format!("`{}` is empty", self.name));
            return None;
        }
        Some(text)
    }

    /// The value as whatever its text reads as.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&self) -> Option<T> {
        self.text()?.parse().map_err(|error: T::Err| self.problem(error.to_string())).ok()
    }

    /// The value as one of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let hint = did_you_mean(text, words.iter().map(|(word, _)| *word));
            self.problem(format!("`{text}` is no value of `{}`{hint}", self.name));
        }
        found
    }

    /// The value as true or false.
    pub(super) fn flag(&self) -> Option<bool> {
        self.expect("true or false", self.raw.as_bool())
    }

    /// The value as a whole number.
    pub(super) fn int(&self) -> Option<i64> {
        self.expect("a whole number", self.raw.as_integer().and_then(to_i64))
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Vec<Value<'a>> {
        let list = self.expect("a list in brackets", self.raw.as_array());
        let item = |(index, item): (usize, &'a Spanned<DeValue<'a>>)| Value {
            context: self.context,
            raw: item.get_ref(),
            name: format!("{}[{index}]", self.name),
            place: self.context.source.place(&item.span()),
        };
        list.into_iter().flat_map(|list| list.iter().enumerate().map(item)).collect()
    }

    /// The items of a list of texts.
    pub(super) fn texts(&self) -> Vec<(&'a str, Place)> {
        self.items().into_iter().filter_map(|item| Some((item.text()?, item.place))).collect()
    }

    /// The value as a table; the caller ends with [`Table::finish`] unless the keys are data.
    pub(super) fn table(&self) -> Option<Table<'a>> {
        let raw = self.expect("a table", self.raw.as_table())?;
        Some(Table::new(self.context, raw, self.name.clone(), self.place.clone()))
    }

    /// Reads the value as a table of known keys. `read` must ask for every key before it gives up on one.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Table<'a>) -> Option<T>) -> Option<T> {
        let table = self.table()?;
        let value = read(&table);
        table.finish();
        value
    }

    fn expect<T>(&self, wanted: &str, found: Option<T>) -> Option<T> {
        if found.is_none() {
            self.problem(format!("`{}` takes {wanted}, not {}", self.name, kind_of(self.raw)));
        }
        found
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The number, where it fits.
pub(super) fn to_i64(number: &toml::de::DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Parses a file as far as it can be, reporting every mistake in its syntax.
pub(super) fn parse<'a>(source: &'a Source, report: &Report) -> Spanned<DeTable<'a>> {
    let (table, errors) = DeTable::parse_recoverable(source.text());
    let mut looked_up = 0;
    for error in errors {
        let span: Range<usize> = error.span().unwrap_or_default();
        let what = match error.message() {
            TWICE if looked_up < MOST_TOLD => {
                looked_up += 1;
                told_twice(source, &span)
            }
            other => other.replace('\n', ", "),
        };
        report.syntax(&source.place(&span), what);
    }
    table
}

/// What the parser says of a key that its table has already.
const TWICE: &str = "duplicate key";
/// So many of a file are told with the place where they stood first, which costs a search for each.
const MOST_TOLD: usize = 8;

fn told_twice(source: &Source, again: &Range<usize>) -> String {
    let key = source.text().get(again.clone()).unwrap_or_default();
    let what = format!("key `{}`", key.trim_matches(['"', '\'']));
    match twice::first(source.text(), again) {
        Some(at) => twice::told(&what, &source.place(&(at..at))),
        None => format!("{what} is in this table already"),
    }
}
