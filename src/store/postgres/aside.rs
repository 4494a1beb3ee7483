//! Reading what was set aside, and rows that some read could not read.

use leasehold_law::revocation::Revocation;
use leasehold_law::task::Task;
use leasehold_law::time::Timestamp;
use tokio_postgres::Row;

use super::super::aside::{bare, table};
use super::super::conditions::Conditions;
use super::super::set::rows;
use super::super::{Aside, AsideFilter, AsideKind, BadRow, StoreError};
use super::conditions::{MARK, select};
use super::readers::Readers;
use super::{column, leases};

/// Newest first.
pub(super) async fn list(
    readers: &Readers,
    filter: &AsideFilter,
    limit: usize,
) -> Result<Vec<Aside>, StoreError> {
    const COLUMNS: &str = "SELECT kind, id, task, target, principal, handle, bytes, error, at, due, tries, \
        last_error, gone_at FROM set_aside";
    let terms = Conditions::of_asides(MARK, filter);
    let found = select(readers, COLUMNS, &terms, "at DESC, id DESC", rows(limit)).await?;
    found.iter().map(read).collect()
}

fn read(row: &Row) -> Result<Aside, StoreError> {
    let moment = |place| Ok::<_, StoreError>(column::<Option<i64>>(row, place)?.map(Timestamp));
    Ok(Aside {
        row: BadRow {
            kind: AsideKind::of(column(row, 0)?),
            id: column(row, 1)?,
            task: column(row, 2)?,
            target: column(row, 3)?,
            principal: column(row, 4)?,
            handle: column(row, 5)?,
            bytes: column(row, 6)?,
            error: column(row, 7)?,
        },
        at: Timestamp(column(row, 8)?),
        due: moment(9)?,
        tries: u32::try_from(column::<i64>(row, 10)?).unwrap_or(u32::MAX),
        last_error: column(row, 11)?,
        gone_at: moment(12)?,
    })
}

/// What reads met and could not read, as it is now. What is gone or was mended meanwhile, by whichever broker, is
/// forgotten.
pub(super) async fn unreadable(readers: &Readers, limit: usize) -> Result<Vec<BadRow>, StoreError> {
    let mut found = Vec::new();
    for (kind, id, error) in readers.bad.all() {
        if found.len() >= limit {
            break;
        }
        let row = match kind {
            AsideKind::Lease => leases::bad(readers, &id).await?,
            AsideKind::Task => bad_task(readers, &id, error).await?,
            AsideKind::Revocation => bad_revocation(readers, &id, error).await?,
            AsideKind::Orphan => None,
        };
        match row {
            Some(row) => found.push(row),
            None => readers.bad.forget(kind, &id),
        }
    }
    Ok(found)
}

async fn bad_task(readers: &Readers, id: &str, error: String) -> Result<Option<BadRow>, StoreError> {
    let held = body_of(readers, AsideKind::Task, "''", id).await?;
    let row =
        held.map(|(_, bytes)| BadRow { task: id.to_owned(), ..bare(AsideKind::Task, id, bytes, error) });
    Ok(row.filter(|row| serde_json::from_slice::<Task>(&row.bytes).is_err()))
}

async fn bad_revocation(readers: &Readers, id: &str, error: String) -> Result<Option<BadRow>, StoreError> {
    let selects = "CASE WHEN freezing THEN selector ELSE '' END";
    let held = body_of(readers, AsideKind::Revocation, selects, id).await?;
    let row = held.map(|(target, bytes)| BadRow { target, ..bare(AsideKind::Revocation, id, bytes, error) });
    Ok(row.filter(|row| serde_json::from_slice::<Revocation>(&row.bytes).is_err()))
}

async fn body_of(
    readers: &Readers,
    kind: AsideKind,
    named: &str,
    id: &str,
) -> Result<Option<(String, Vec<u8>)>, StoreError> {
    let sql = format!("SELECT {named}, body FROM {} WHERE id = $1", table(kind));
    let found = readers.rows(&sql, &[&id]).await?.pop();
    found.map(|row| Ok((column(&row, 0)?, column::<String>(&row, 1)?.into_bytes()))).transpose()
}
