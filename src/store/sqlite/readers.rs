//! Reads: a few read-only connections, apart from the writer.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::sql::unusable;
use super::{StoreError, Writer, set_up};
use crate::store::bad::BadRows;

/// So many reads run at once; more wait.
const READERS: usize = 4;

/// A pool of connections that cannot write.
pub(super) struct Readers {
    shared: Arc<Shared>,
    turns: Arc<Semaphore>,
    writer: Writer,
}

struct Shared {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    bad: BadRows,
}

/// One connection while one read uses it.
pub(super) struct Reader<'a> {
    pub(super) conn: &'a Connection,
    /// Where it notes what it cannot read.
    pub(super) bad: &'a BadRows,
}

impl Readers {
    pub(super) fn new(path: PathBuf, writer: Writer) -> Self {
        let shared = Shared { path, idle: Mutex::default(), bad: BadRows::default() };
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
