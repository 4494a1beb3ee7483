//! Reads: a few read-only connections, apart from the writer.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::sql::unusable;
use super::{StoreError, Writer, set_up};

/// So many reads run at once; more wait.
const READERS: usize = 4;
/// So many bad rows are told apart; beyond that they count no higher.
const MAX_BAD_ROWS: usize = 10_000;

/// A pool of connections that cannot write.
pub(super) struct Readers {
    shared: Arc<Shared>,
    turns: Arc<Semaphore>,
    writer: Writer,
}

struct Shared {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    bad: Mutex<BTreeSet<String>>,
}

/// One connection while one read uses it.
pub(super) struct Reader<'a> {
    pub(super) conn: &'a Connection,
    bad: &'a Mutex<BTreeSet<String>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, writer: Writer) -> Self {
        let shared = Shared { path, idle: Mutex::default(), bad: Mutex::default() };
        Self { shared: Arc::new(shared), turns: Arc::new(Semaphore::new(READERS)), writer }
    }

    /// Runs one read where it may block: on tokio's blocking threads, or right here if the writer is inline.
    pub(super) async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let stopped = |_| StoreError::Unusable("the readers have stopped".to_owned());
        match self.writer {
            Writer::Inline => self.shared.run(query),
            Writer::Thread => {
                let turn =
                    Arc::clone(&self.turns).acquire_owned().await.map_err(|e| stopped(e.to_string()))?;
                let shared = Arc::clone(&self.shared);
                let run = move || {
                    let answer = shared.run(query);
                    drop(turn);
                    answer
                };
                tokio::task::spawn_blocking(run).await.map_err(|e| stopped(e.to_string()))?
            }
        }
    }
}

impl Shared {
    fn run<T>(&self, query: impl FnOnce(&Reader<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let conn = self.take()?;
        let answer = query(&Reader { conn: &conn, bad: &self.bad });
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
        answer
    }

    fn take(&self) -> Result<Connection, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| self.connect().map_err(unusable), Ok)
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.path, flags)?;
        set_up(&conn)?;
        Ok(conn)
    }
}

impl Reader<'_> {
    /// What a body says; `None` for one that cannot be read, which is counted and set aside, so that it never
    /// hides the rows beside it (law 9).
    pub(super) fn parse<T: DeserializeOwned>(&self, id: &str, body: &str) -> Option<T> {
        match serde_json::from_str(body) {
            Ok(value) => Some(value),
            Err(error) => {
                self.set_aside(id, &error.to_string());
                None
            }
        }
    }

    /// Counts a bad row, once.
    pub(super) fn set_aside(&self, id: &str, error: &str) {
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        if bad.len() < MAX_BAD_ROWS && bad.insert(id.to_owned()) {
            tracing::error!(row = id, error, "a row cannot be read and is set aside");
        }
    }

    /// How many bad rows were met since the store was opened.
    pub(super) fn bad_rows(&self) -> u64 {
        let bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        u64::try_from(bad.len()).unwrap_or(u64::MAX)
    }
}
