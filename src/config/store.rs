//! `[store]`: where the broker keeps what it knows.

use std::path::PathBuf;

use leasehold_law::time::Span;

use super::table::{Table, Value};

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// One file beside the broker.
    Sqlite(PathBuf),
    /// A PostgreSQL that several brokers share.
    Postgres(SharedStore),
}

/// `store.postgres`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedStore {
    /// The file with the URL, read when the broker starts.
    pub url_file: PathBuf,
    /// The roots that the server's certificate is checked under.
    pub sslrootcert: Option<PathBuf>,
    /// Whether a server over TCP must prove its name; unix sockets and loopback may do without.
    pub verify: bool,
}

/// The shortest time that leases and tasks stay in their tables after they are over.
const LEAST_RETENTION: Span = Span::from_mins(24 * 60);
/// The time where none is given.
const RETENTION: Span = Span::from_mins(30 * 24 * 60);

/// The store, and how long leases and tasks stay in its tables after they are over.
pub(super) fn read(root: &Table<'_>) -> Option<(Store, Span)> {
    root.need("store")?.read(|table| {
        let (retention, store) = (retention(table), kind(table)?);
        Some((store, retention))
    })
}

fn kind(table: &Table<'_>) -> Option<Store> {
    match (table.get("sqlite"), table.get("postgres")) {
        (Some(path), None) => path.filled().map(|path| Store::Sqlite(table.context().source.resolve(path))),
        (None, Some(shared)) => read_shared(&shared),
        (Some(_), Some(postgres)) => {
            postgres.problem("`store` takes one of `sqlite` and `postgres`, not both");
            None
        }
        (None, None) => {
            table.need("sqlite")?;
            None
        }
    }
}

fn read_shared(value: &Value<'_>) -> Option<Store> {
    value.read(|table| {
        let path = |value: Value<'_>| value.filled().map(|path| table.context().source.resolve(path));
        let url_file = table.need("url_file").and_then(path);
        let sslrootcert = table.get("sslrootcert").and_then(path);
        let tls = table.get("tls").map(|value| value.word(&[("verify-full", true), ("disable", false)]));
        let verify = tls.unwrap_or(Some(true))?;
        Some(Store::Postgres(SharedStore { url_file: url_file?, sslrootcert, verify }))
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
