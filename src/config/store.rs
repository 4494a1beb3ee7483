//! `[store]`: where the broker keeps what it knows.

use std::path::PathBuf;

use super::table::Table;

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// One file beside the broker.
    Sqlite(PathBuf),
}

pub(super) fn read(root: &Table<'_>) -> Option<Store> {
    root.need("store")?.read(|table| {
        if let Some(value) = table.get("postgres") {
            value.problem("a PostgreSQL store is not served yet; write `sqlite = \"leases.db\"`");
            return table.get("sqlite").and(None);
        }
        let path = table.need("sqlite")?;
        path.filled().map(|path| Store::Sqlite(table.context().source.resolve(path)))
    })
}
