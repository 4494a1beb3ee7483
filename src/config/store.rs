//! `[store]`: where the broker keeps what it knows.

use std::path::PathBuf;

use leasehold_law::time::Span;

use super::table::Table;

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// One file beside the broker.
    Sqlite(PathBuf),
}

/// The shortest time that leases and tasks stay in their tables after they are over.
const LEAST_RETENTION: Span = Span::from_mins(24 * 60);
/// The time where none is given.
const RETENTION: Span = Span::from_mins(30 * 24 * 60);

/// The store, and how long leases and tasks stay in its tables after they are over.
pub(super) fn read(root: &Table<'_>) -> Option<(Store, Span)> {
    root.need("store")?.read(|table| {
        let retention = retention(table);
        if let Some(value) = table.get("postgres") {
            value.problem("a PostgreSQL store is not served yet; write `sqlite = \"leases.db\"`");
            return table.get("sqlite").and(None);
        }
        let path = table.need("sqlite")?;
        path.filled().map(|path| (Store::Sqlite(table.context().source.resolve(path)), retention))
    })
}

fn retention(table: &Table<'_>) -> Span {
    let Some(value) = table.get("retention") else { return RETENTION };
    let span = value.parsed::<Span>().unwrap_or(RETENTION);
    if span < LEAST_RETENTION {
        value.problem(format!("leases stay at least {LEAST_RETENTION}; this is {span}"));
    }
    span
}
