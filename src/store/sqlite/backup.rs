//! Copies of a store: taken while a broker writes, and put back as a new incarnation (RULES R-12).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use leasehold_law::journal::{ChainHead, ChainId, Hash};
use leasehold_law::time::Timestamp;
use rusqlite::{Connection, OpenFlags, Row};

use super::apply::{Failure, append, remember_number};
use super::files::{self, PRIVATE_FILE};
use super::sql::{unsigned, unusable};
use super::{BUSY, Draft, Options, StoreError, schema};
use crate::store::{INCARNATION, RESTORE_TAKEN, RESTORED};

/// The number that says when a copy was begun.
const TAKEN: &str = "backup.taken_at";

/// A copy that was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Where its chain ends; every entry of that chain was verified.
    pub head: ChainHead,
    /// Up to when it knows everything.
    pub taken_at: Timestamp,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A store that was put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutBack {
    /// The copy that it was made of.
    pub copy: Copied,
    /// The chain that it continues under.
    pub chain: ChainId,
    /// Where the store that was there before lies now.
    pub aside: Option<PathBuf>,
}

/// How a copy is put back.
#[derive(Clone, Copy, Debug)]
pub struct PutBackOptions {
    /// Keep the store that is there aside, instead of refusing.
    pub replace: bool,
    /// The incarnation to be; otherwise one more than the highest that can be seen.
    pub incarnation: Option<u32>,
    /// The present.
    pub now: Timestamp,
}

/// Copies the store of these options to a new file with mode 0600, and reads the copy back. A broker may be writing:
/// the copy is what was committed when it began. Its log grows until the copy is done.
///
/// # Errors
/// Where there is no store or another's, `to` exists, or the copy is not whole.
pub fn copy(options: &Options, to: &Path, now: Timestamp) -> Result<Copied, StoreError> {
    if !options.path.exists() {
        return Err(at(&options.path, "there is no store"));
    }
    if to.exists() {
        return Err(at(to, "it exists, and a backup overwrites nothing"));
    }
    let source = read_only(&options.path)?;
    schema::identify(&source, options)?;
    let part = beside(to, "part");
    let copied = write_copy(&source, &part, now).and_then(|()| verify(options, &part));
    match copied.and_then(|copied| place(&part, to).map(|()| copied)) {
        Ok(copied) => Ok(copied),
        Err(error) => {
            let _ = fs::remove_file(&part);
            Err(error)
        }
    }
}

fn write_copy(source: &Connection, part: &Path, now: Timestamp) -> Result<(), StoreError> {
    remember_number(&copy_into(source, part)?, TAKEN, now.0).map_err(failure)
}

/// All that was committed, whether it is in the file or still in the log beside it.
fn copy_into(source: &Connection, part: &Path) -> Result<Connection, StoreError> {
    let _ = fs::remove_file(part);
    private(part)?;
    let name = part.to_str().ok_or_else(|| at(part, "its name is not UTF-8"))?;
    source.execute("VACUUM INTO ?", [name]).map_err(unusable)?;
    Connection::open(part).map_err(unusable)
}

/// Reads a copy back: whole pages, this broker's, and the newest chain from its first entry to its head.
///
/// # Errors
/// Where it is anything else.
pub fn verify(options: &Options, from: &Path) -> Result<Copied, StoreError> {
    if !from.exists() {
        return Err(at(from, "there is no such file"));
    }
    let copy = read_only(from)?;
    let whole: String =
        copy.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(unusable)?;
    if whole != "ok" {
        return Err(at(from, &whole));
    }
    let incarnation = schema::identify(&copy, options)?;
    let head = verified_head(&copy, ChainId::new(&options.chain, incarnation))?;
    let bytes = fs::metadata(from).map_err(|error| at(from, &error.to_string()))?.len();
    Ok(Copied { head, taken_at: taken_at(&copy)?, bytes })
}

/// A file that was copied by other means says when it ends by its last entry.
fn taken_at(copy: &Connection) -> Result<Timestamp, StoreError> {
    const SQL: &str = "SELECT coalesce((SELECT value FROM numbers WHERE name = ?),
        (SELECT max(at) FROM journal), 0)";
    copy.query_row(SQL, [TAKEN], |row| row.get(0)).map(Timestamp).map_err(unusable)
}

fn verified_head(copy: &Connection, chain: ChainId) -> Result<ChainHead, StoreError> {
    const SQL: &str = "SELECT seq, body, prev, hash FROM journal WHERE chain = ? ORDER BY seq";
    let mut statement = copy.prepare(SQL).map_err(unusable)?;
    let mut rows = statement.query([chain.as_str()]).map_err(unusable)?;
    let mut head = ChainHead::genesis(chain);
    while let Some(row) = rows.next().map_err(unusable)? {
        let stored = entry(row).map_err(unusable)?;
        let entry = head.append(stored.1);
        if (entry.seq, entry.prev, entry.hash) != (stored.0, stored.2, stored.3) {
            return Err(StoreError::Unusable(format!("its chain is broken at entry {}", entry.seq)));
        }
    }
    Ok(head)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<(u64, Vec<u8>, Hash, Hash)> {
    Ok((row.get(0).map(unsigned)?, row.get(1)?, row.get(2).map(Hash)?, row.get(3).map(Hash)?))
}

/// Puts a copy back as a new incarnation, whose first entry is what `entry` makes of the old chain's head.
///
/// # Errors
/// [`StoreError::Held`] while a broker holds the store; where there is a store and it is not to be replaced, or the
/// copy is not whole or not this broker's. What was there is untouched then.
pub fn put_back(
    options: &Options,
    from: &Path,
    how: PutBackOptions,
    entry: impl FnOnce(&Copied) -> Result<Draft, StoreError>,
) -> Result<PutBack, StoreError> {
    let _lock = files::lock(&options.path)?;
    let there = fs::metadata(&options.path).is_ok_and(|found| found.len() > 0);
    if there && !how.replace {
        return Err(at(&options.path, "there is a store; --replace keeps it aside"));
    }
    let copy = verify(options, from)?;
    let incarnation = next_incarnation(options, from, how, there)?;
    let chain = ChainId::new(&options.chain, incarnation);
    let part = beside(&options.path, "restoring");
    let made = make(options, from, &part, &copy, &chain, incarnation, how.now, entry);
    let aside = made.and_then(|()| swap(&options.path, &part, incarnation, there));
    if aside.is_err() {
        let _ = fs::remove_file(&part);
    }
    Ok(PutBack { copy, chain, aside: aside? })
}

/// One more than the copy's and, where it can be read, the replaced store's.
fn next_incarnation(
    options: &Options,
    from: &Path,
    how: PutBackOptions,
    there: bool,
) -> Result<u32, StoreError> {
    let copied = schema::identify(&read_only(from)?, options)?;
    let old =
        if there { read_only(&options.path).and_then(|old| schema::identify(&old, options)) } else { Ok(0) };
    let least = copied.max(old.unwrap_or(0)).saturating_add(1);
    match how.incarnation {
        Some(asked) if asked < least => {
            Err(StoreError::Foreign(format!("incarnation {asked} has been; the next is {least}")))
        }
        Some(asked) => Ok(asked),
        None => Ok(least),
    }
}

#[expect(clippy::too_many_arguments, reason = "what one restore is made of, in one place")]
fn make(
    options: &Options,
    from: &Path,
    part: &Path,
    copy: &Copied,
    chain: &ChainId,
    incarnation: u32,
    now: Timestamp,
    entry: impl FnOnce(&Copied) -> Result<Draft, StoreError>,
) -> Result<(), StoreError> {
    let mut conn = copy_into(&read_only(from)?, part)?;
    schema::prepare(&mut conn, options)?;
    let draft = entry(copy)?;
    let tx = conn.transaction().map_err(unusable)?;
    for (name, value) in
        [(INCARNATION, i64::from(incarnation)), (RESTORE_TAKEN, copy.taken_at.0), (RESTORED, now.0)]
    {
        remember_number(&tx, name, value).map_err(failure)?;
    }
    append(&tx, &mut ChainHead::genesis(chain.clone()), &draft).map_err(failure)?;
    tx.commit().map_err(unusable)?;
    conn.close().map_err(|(_, error)| unusable(error))?;
    let synced = File::open(part).and_then(|file| file.sync_all());
    synced.map_err(|error| at(part, &error.to_string()))
}

/// The old store keeps a name of its own before the new one takes its place, so that at no moment there is none.
fn swap(path: &Path, part: &Path, incarnation: u32, there: bool) -> Result<Option<PathBuf>, StoreError> {
    let failed = |error: io::Error| at(path, &error.to_string());
    let aside = there.then(|| beside(path, &format!("before-{incarnation}")));
    if let Some(aside) = &aside {
        tidy(path);
        fs::hard_link(path, aside).map_err(failed)?;
        for end in ["-wal", "-shm"] {
            let log = with_end(path, end);
            if log.exists() {
                fs::rename(&log, with_end(aside, end)).map_err(failed)?;
            }
        }
    }
    fs::rename(part, path).map_err(failed)?;
    sync_folder(path).map_err(failed)?;
    Ok(aside)
}

/// Moves the old store's log into it, as far as it can still be read.
fn tidy(path: &Path) {
    let tidied = Connection::open(path)
        .and_then(|conn| conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    if let Err(error) = tidied {
        tracing::warn!(%error, "the replaced store cannot be read; it is kept as it is");
    }
}

fn place(part: &Path, to: &Path) -> Result<(), StoreError> {
    let placed = File::open(part)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(part, to))
        .and_then(|()| sync_folder(to));
    placed.map_err(|error| at(to, &error.to_string()))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

pub(super) fn read_only(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(unusable)?;
    conn.busy_timeout(BUSY).map_err(unusable)?;
    Ok(conn)
}

/// A new file that nobody else may read, for SQLite to fill.
fn private(path: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE).open(path);
    made.map(drop).map_err(|error| at(path, &error.to_string()))
}

fn beside(path: &Path, end: &str) -> PathBuf {
    with_end(path, &format!(".{end}"))
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    PathBuf::from(name)
}

fn at(path: &Path, what: &str) -> StoreError {
    StoreError::Unusable(format!("`{}`: {what}", path.display()))
}

fn failure(failure: Failure) -> StoreError {
    match failure {
        Failure::Failed(error) => error,
        Failure::Stale(_) | Failure::Full(_) => StoreError::Unusable("it has changed meanwhile".to_owned()),
    }
}
