//! The schema and the identity of a store: brought up to date, or refused, in one transaction.

use leasehold_law::journal::ChainId;
use leasehold_law::principal::PrincipalName;
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
/// The version from which on a store says which key it belongs to.
const SAYS_WHOSE: u32 = 8;

/// Checks whose store it is, brings its schema up to date, and gives the chain that its journal continues.
///
/// # Errors
/// [`StoreError::Newer`] for a schema from the future, [`StoreError::Foreign`] for another broker's or installation's
/// store, or one with the other stamp (RULES R-19); the store is then as it was.
pub(super) fn prepare(conn: &mut Connection, options: &Options) -> Result<ChainId, StoreError> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(unusable)?;
    let found = version(&tx)?;
    if found > 0 {
        check_identity(&tx, options, found)?;
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

/// The key that it was first used with.
fn write_whose(tx: &Transaction<'_>, options: &Options) -> rusqlite::Result<()> {
    let sql = "UPDATE identity SET installation = ? WHERE installation IS NULL";
    tx.execute(sql, [options.key.installation()]).map(drop)
}

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
    check_key(tx, options, version)
}

/// A store that does not say yet whose it is tells by what was minted from it.
fn check_key(tx: &Connection, options: &Options, version: u32) -> Result<(), StoreError> {
    let ours = options.key.installation();
    match installation(tx, version).map_err(unusable)? {
        Some(theirs) if theirs == ours => Ok(()),
        Some(theirs) => Err(StoreError::of_another_key(&format!("installation `{theirs}`"), &ours)),
        None if are_marked(tx, options).map_err(unusable)? => Ok(()),
        None => Err(StoreError::of_another_key("another installation", &ours)),
    }
}

fn installation(tx: &Connection, version: u32) -> rusqlite::Result<Option<String>> {
    if version < SAYS_WHOSE {
        return Ok(None);
    }
    tx.query_row("SELECT installation FROM identity", [], |row| row.get(0))
}

/// Whether the newest leases, if there are any, carry the code of the key: one does where any does, since a store has
/// one key, and single rows may be damaged.
fn are_marked(tx: &Connection, options: &Options) -> rusqlite::Result<bool> {
    let mut newest = tx.prepare("SELECT principal FROM leases ORDER BY id DESC LIMIT 100")?;
    let names = newest.query_map([], |row| row.get::<_, String>(0))?;
    let names: Vec<_> = names.filter_map(Result::ok).collect();
    let is_ours = |name: &String| PrincipalName::verify(name, &options.key).is_some();
    Ok(names.is_empty() || names.iter().any(is_ours))
}

fn incarnation(tx: &Connection) -> Result<u32, StoreError> {
    let sql = "SELECT value FROM numbers WHERE name = ?";
    let found = tx.query_row(sql, [INCARNATION], |row| row.get(0)).optional().map_err(unusable)?;
    found.ok_or_else(|| StoreError::Unreadable("the incarnation is missing".to_owned()))
}
