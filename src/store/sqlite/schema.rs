//! The schema and the identity of a store: brought up to date, or refused, in one transaction.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::UNIX_EPOCH;

use leasehold_law::journal::ChainId;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::sql::unusable;
use super::{Options, StoreError};
use crate::store::INCARNATION;

/// Each brings a store from the version before it to its own; the first is version 1. None is ever changed.
pub(super) const MIGRATIONS: [&str; 8] = [
    include_str!("migrations/0001_rows_and_journal.sql"),
    include_str!("migrations/0002_lanes.sql"),
    include_str!("migrations/0003_revoked_handles.sql"),
    include_str!("migrations/0004_set_aside.sql"),
    include_str!("migrations/0005_tokens.sql"),
    include_str!("migrations/0006_agents.sql"),
    include_str!("migrations/0007_people.sql"),
    include_str!("migrations/0008_whose.sql"),
];
/// The version from which on a store says which key and which file it belongs to.
const SAYS_WHOSE: u32 = 8;

/// Checks whose store it is, brings its schema up to date, and gives the chain that its journal continues.
///
/// # Errors
/// [`StoreError::Newer`] for a schema from the future, [`StoreError::Foreign`] for another broker's or installation's
/// store, one with the other stamp (RULES R-19), or a copy of one; the store is then as it was.
pub(super) fn prepare(conn: &mut Connection, options: &Options) -> Result<ChainId, StoreError> {
    bring_up(conn, options, check_file)
}

/// As [`prepare`], for a copy that becomes the store.
pub(super) fn prepare_copy(conn: &mut Connection, options: &Options) -> Result<ChainId, StoreError> {
    bring_up(conn, options, |_| Ok(()))
}

fn bring_up(
    conn: &mut Connection,
    options: &Options,
    check_file: impl FnOnce(&Connection) -> Result<(), StoreError>,
) -> Result<ChainId, StoreError> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(unusable)?;
    let found = version(&tx)?;
    if found > 0 {
        check_identity(&tx, options, found)?;
    }
    if found >= SAYS_WHOSE {
        check_file(&tx)?;
    }
    migrate(&tx, found).map_err(unusable)?;
    if found == 0 {
        write_identity(&tx, options).map_err(unusable)?;
    }
    write_whose(&tx, options).map_err(unusable)?;
    let incarnation = incarnation(&tx)?;
    tx.commit().map_err(unusable)?;
    Ok(ChainId::new(&options.chain, incarnation))
}

/// Checks whose store it is without touching it, and gives its incarnation.
///
/// # Errors
/// As [`prepare`].
pub(super) fn identify(conn: &Connection, options: &Options) -> Result<u32, StoreError> {
    let found = version(conn)?;
    if found == 0 {
        return Err(StoreError::Foreign("it is not a store of leasehold".to_owned()));
    }
    check_identity(conn, options, found)?;
    incarnation(conn)
}

/// Checks that a store is no copy, without touching it.
///
/// # Errors
/// [`StoreError::Foreign`] where it is.
pub(super) fn identify_file(conn: &Connection) -> Result<(), StoreError> {
    if version(conn)? >= SAYS_WHOSE { check_file(conn) } else { Ok(()) }
}

fn version(tx: &Connection) -> Result<u32, StoreError> {
    let found: u32 = tx.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(unusable)?;
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    if found > known { Err(StoreError::Newer { found, known }) } else { Ok(found) }
}

fn migrate(tx: &Transaction<'_>, found: u32) -> rusqlite::Result<()> {
    for (version, sql) in (1_u32..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "user_version", version)?;
    }
    Ok(())
}

fn write_identity(tx: &Transaction<'_>, options: &Options) -> rusqlite::Result<()> {
    let stamp = options.stamp.name();
    tx.execute("INSERT INTO identity (one, broker, stamp) VALUES (1, ?, ?)", params![options.chain, stamp])?;
    tx.execute("INSERT INTO numbers (name, value) VALUES (?, 1)", [INCARNATION])?;
    Ok(())
}

/// The key that it was first used with, and the file that it is in now.
fn write_whose(tx: &Transaction<'_>, options: &Options) -> rusqlite::Result<()> {
    const SQL: &str =
        "UPDATE identity SET installation = coalesce(installation, ?1), file = coalesce(?2, file)
        WHERE installation IS NULL OR file IS NOT coalesce(?2, file)";
    tx.execute(SQL, params![options.installation, file_of(tx)]).map(drop)
}

/// What a file has and no copy of it, by whatever means it was made: the moment at which it was made. Where the file
/// system keeps none, its number, which another may have on another disk.
fn file_of(conn: &Connection) -> Option<String> {
    let file = fs::metadata(conn.path()?).ok()?;
    let born = file.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Some(born.map_or_else(|| format!("{INODE}{}", file.ino()), |born| format!("{BORN}{}", born.as_nanos())))
}

const BORN: &str = "born ";
const INODE: &str = "inode ";

/// A copy that is started beside its original would take what the original holds for its own (RULES R-12). Nothing is
/// said by a kernel that tells another thing than the one before it did.
fn check_file(conn: &Connection) -> Result<(), StoreError> {
    let stood: Option<String> =
        conn.query_row("SELECT file FROM identity", [], |row| row.get(0)).map_err(unusable)?;
    let same_kind =
        |a: &str, b: &str| [BORN, INODE].iter().any(|kind| a.starts_with(kind) && b.starts_with(kind));
    match (stood, file_of(conn)) {
        (Some(stood), Some(here)) if same_kind(&stood, &here) && stood != here => {
            Err(StoreError::Foreign(COPIED.to_owned()))
        }
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

const COPIED: &str = "this file is a copy of it, and beside the original it would end leases that are not its own\n  \
    next: start from the original; where that never serves again, put this copy in its place as a new incarnation: \
    leasehold restore --from COPY";

fn check_identity(tx: &Connection, options: &Options, version: u32) -> Result<(), StoreError> {
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let (broker, stamp): (String, String) =
        tx.query_row("SELECT broker, stamp FROM identity", [], read).map_err(unusable)?;
    if broker != options.chain {
        let why = format!("it belongs to broker `{broker}`, and this one is `{}`", options.chain);
        return Err(StoreError::Foreign(why));
    }
    if stamp != options.stamp.name() {
        return Err(StoreError::Foreign(options.stamp.refusal().to_owned()));
    }
    if version >= SAYS_WHOSE { check_key(tx, options) } else { Ok(()) }
}

fn check_key(tx: &Connection, options: &Options) -> Result<(), StoreError> {
    let theirs: Option<String> =
        tx.query_row("SELECT installation FROM identity", [], |row| row.get(0)).map_err(unusable)?;
    match theirs.filter(|theirs| *theirs != options.installation) {
        Some(theirs) => Err(StoreError::of_another_key(&theirs, &options.installation)),
        None => Ok(()),
    }
}

fn incarnation(tx: &Connection) -> Result<u32, StoreError> {
    let sql = "SELECT value FROM numbers WHERE name = ?";
    let found = tx.query_row(sql, [INCARNATION], |row| row.get(0)).optional().map_err(unusable)?;
    found.ok_or_else(|| StoreError::Unreadable("the incarnation is missing".to_owned()))
}
