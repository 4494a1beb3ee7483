//! What was set aside: rows that cannot be read, moved out of the way with their bytes, and principals that no row
//! explains.

use leasehold_law::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::apply::Failure;
use super::leases;
use super::readers::Reader;
use super::rows::{bytes, text};
use super::sql::{MARK, rows, unusable};
use super::{Aside, AsideFilter, AsideKind, BadRow, StoreError};
use crate::store::aside::{bare, table};
use crate::store::conditions::Conditions;

/// Moves a row out of its table, if it is still the one that was read. An orphan has no row to move.
pub(super) fn take(conn: &Connection, aside: &Aside) -> Result<(), Failure> {
    if aside.row.kind != AsideKind::Orphan {
        let sql = format!("DELETE FROM {} WHERE id = ? AND CAST(body AS BLOB) = ?", table(aside.row.kind));
        let moved = conn.prepare_cached(&sql)?.execute(params![aside.row.id, aside.row.bytes])?;
        if moved != 1 {
            let what = format!("the {} `{}` is not what it was", aside.row.kind.name(), aside.row.id);
            return Err(Failure::Failed(StoreError::Unreadable(what)));
        }
    }
    put(conn, aside)
}

/// Writes how far it has come.
pub(super) fn put(conn: &Connection, aside: &Aside) -> Result<(), Failure> {
    const SQL: &str = "INSERT INTO set_aside
        (kind, id, task, target, principal, handle, bytes, error, at, due, tries, last_error, gone_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (kind, id, target) DO UPDATE SET handle = excluded.handle, bytes = excluded.bytes,
        error = excluded.error, at = excluded.at, due = excluded.due, tries = excluded.tries,
        last_error = excluded.last_error, gone_at = excluded.gone_at";
    let row = &aside.row;
    conn.prepare_cached(SQL)?.execute(params![
        row.kind.name(),
        row.id,
        row.task,
        row.target,
        row.principal,
        row.handle,
        row.bytes,
        row.error,
        aside.at.0,
        aside.due.map(|at| at.0),
        aside.tries,
        aside.last_error,
        aside.gone_at.map(|at| at.0),
    ])?;
    Ok(())
}

pub(super) fn list(
    reader: &Reader<'_>,
    filter: &AsideFilter,
    limit: usize,
) -> Result<Vec<Aside>, StoreError> {
    let terms = Conditions::of_asides(MARK, filter);
    let sql = format!(
        "SELECT kind, id, task, target, principal, handle, bytes, error, at, due, tries, last_error, gone_at
        FROM set_aside{terms} ORDER BY at DESC, id DESC LIMIT {}",
        rows(limit)
    );
    let mut statement = reader.conn.prepare_cached(&sql).map_err(unusable)?;
    let found = statement.query_map(params_from_iter(terms.values()), read).map_err(unusable)?;
    found.collect::<Result<_, _>>().map_err(unusable)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Aside> {
    let word = text(row, 0)?;
    Ok(Aside {
        row: BadRow {
            kind: AsideKind::of(&word),
            id: text(row, 1)?,
            task: text(row, 2)?,
            target: text(row, 3)?,
            principal: text(row, 4)?,
            handle: row.get(5)?,
            bytes: bytes(row, 6)?,
            error: text(row, 7)?,
        },
        at: Timestamp(row.get(8)?),
        due: row.get::<_, Option<i64>>(9)?.map(Timestamp),
        tries: row.get(10)?,
        last_error: row.get(11)?,
        gone_at: row.get::<_, Option<i64>>(12)?.map(Timestamp),
    })
}

/// What reads met and could not read, as it is now. What is gone or was mended meanwhile is forgotten.
pub(super) fn unreadable(reader: &Reader<'_>, limit: usize) -> Result<Vec<BadRow>, StoreError> {
    let mut found = Vec::new();
    for (kind, id, error) in reader.bad.all() {
        if found.len() >= limit {
            break;
        }
        let row = match kind {
            AsideKind::Lease => leases::bad(reader, &id)?,
            AsideKind::Task => bad_task(reader, &id, error)?,
            AsideKind::Revocation => bad_revocation(reader, &id, error)?,
            AsideKind::Orphan => None,
        };
        match row {
            Some(row) => found.push(row),
            None => reader.bad.forget(kind, &id),
        }
    }
    Ok(found)
}

fn bad_task(reader: &Reader<'_>, id: &str, error: String) -> Result<Option<BadRow>, StoreError> {
    let held = body_of(reader, AsideKind::Task, "''", id)?;
    let row =
        held.map(|(_, bytes)| BadRow { task: id.to_owned(), ..bare(AsideKind::Task, id, bytes, error) });
    Ok(row.filter(|row| serde_json::from_slice::<leasehold_law::task::Task>(&row.bytes).is_err()))
}

fn bad_revocation(reader: &Reader<'_>, id: &str, error: String) -> Result<Option<BadRow>, StoreError> {
    let selects = "CASE WHEN freezing = 1 THEN selector ELSE '' END";
    let held = body_of(reader, AsideKind::Revocation, selects, id)?;
    let row = held.map(|(target, bytes)| BadRow { target, ..bare(AsideKind::Revocation, id, bytes, error) });
    Ok(row.filter(|row| serde_json::from_slice::<leasehold_law::revocation::Revocation>(&row.bytes).is_err()))
}

fn body_of(
    reader: &Reader<'_>,
    kind: AsideKind,
    column: &str,
    id: &str,
) -> Result<Option<(String, Vec<u8>)>, StoreError> {
    let sql = format!("SELECT {column}, body FROM {} WHERE id = ?", table(kind));
    let mut statement = reader.conn.prepare_cached(&sql).map_err(unusable)?;
    let read = |row: &Row<'_>| Ok((text(row, 0)?, bytes(row, 1)?));
    statement.query_row([id], read).optional().map_err(unusable)
}
