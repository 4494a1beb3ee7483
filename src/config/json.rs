//! TOML as the JSON that backends read, and the way back from a JSON pointer to a line.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value as Json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::source::Place;
use super::table::{Context, Value, to_i64};

/// Where each part of a table stands, by JSON pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    whole: Place,
    parts: BTreeMap<String, Place>,
}

impl Lines {
    /// Where a pointer leads; what is not there is found at the nearest table around it.
    #[must_use]
    pub fn place(&self, pointer: &str) -> &Place {
        let mut rest = pointer;
        loop {
            if let Some(place) = self.parts.get(rest) {
                return place;
            }
            match rest.rsplit_once('/') {
                Some((outer, _)) => rest = outer,
                None => return &self.whole,
            }
        }
    }
}

/// The table without the keys in `except`, and where its parts stand.
pub(super) fn read(value: &Value<'_>, except: &[&str]) -> Option<(Map<String, Json>, Lines)> {
    let table = value.table()?;
    let lines = Lines { whole: value.place().clone(), parts: BTreeMap::new() };
    let mut reader = Reader { context: value.context(), lines };
    let entries = table.entries().into_iter().filter(|entry| !except.contains(&entry.name));
    let map = entries
        .map(|entry| {
            let pointer = format!("/{}", escaped(entry.name));
            reader.lines.parts.insert(pointer.clone(), entry.value.place().clone());
            let json = reader.json(entry.value.raw(), entry.name, &pointer);
            (entry.name.to_owned(), json)
        })
        .collect();
    Some((map, reader.lines))
}

struct Reader<'a> {
    context: Context<'a>,
    lines: Lines,
}

impl Reader<'_> {
    fn json(&mut self, value: &DeValue<'_>, key: &str, pointer: &str) -> Json {
        match value {
            DeValue::String(text) if is_path(key) => {
                Json::String(self.context.source.resolve(text).to_string_lossy().into_owned())
            }
            DeValue::String(text) => Json::String(text.to_string()),
            DeValue::Integer(number) => self.number(to_i64(number).map(Number::from), key, pointer),
            DeValue::Float(number) => {
                self.number(number.as_str().parse().ok().and_then(Number::from_f64), key, pointer)
            }
            DeValue::Boolean(flag) => Json::Bool(*flag),
            DeValue::Datetime(at) => Json::String(at.to_string()),
            DeValue::Array(items) => self.list(items, key, pointer),
            DeValue::Table(table) => self.table(table, pointer),
        }
    }

    fn number(&self, number: Option<Number>, key: &str, pointer: &str) -> Json {
        if number.is_none() {
            let what = format!("the number of `{key}` is out of range");
            self.context.report.problem(self.lines.place(pointer), what);
        }
        number.map_or(Json::Null, Json::Number)
    }

    fn list(&mut self, items: &[Spanned<DeValue<'_>>], key: &str, pointer: &str) -> Json {
        let item = |(index, item): (usize, &Spanned<DeValue<'_>>)| {
            let pointer = format!("{pointer}/{index}");
            self.note(&pointer, item.span());
            self.json(item.get_ref(), key, &pointer)
        };
        Json::Array(items.iter().enumerate().map(item).collect())
    }

    fn table(&mut self, table: &DeTable<'_>, pointer: &str) -> Json {
        let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let name: &str = AsRef::<str>::as_ref(key.get_ref());
            let pointer = format!("{pointer}/{}", escaped(name));
            self.note(&pointer, if value.get_ref().is_table() { key.span() } else { value.span() });
            (name.to_owned(), self.json(value.get_ref(), name, &pointer))
        };
        Json::Object(table.iter().map(entry).collect())
    }

    fn note(&mut self, pointer: &str, span: std::ops::Range<usize>) {
        self.lines.parts.insert(pointer.to_owned(), self.context.source.place(&span));
    }
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Whether a key of a target holds a path, which config means relative to its own folder.
pub(super) fn is_path(key: &str) -> bool {
    key.ends_with("_file") || key == "sslrootcert"
}
