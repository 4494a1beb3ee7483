//! Looking: one principal, and all of them.

use leasehold_backend::{BackendError, Found, Page, Principal};
use leasehold_law::principal::PrincipalName;
use leasehold_law::time::Span;
use tokio_postgres::types::Type;

use crate::Postgres;
use crate::client::{Lane, column};
use crate::error::Failure;
use crate::quote::like_prefix;

const LOOKUP: &str = "SELECT r.oid, r.rolcanlogin, \
      CASE WHEN isfinite(r.rolvaliduntil) THEN greatest(0, \
        floor(extract(epoch FROM r.rolvaliduntil - clock_timestamp()) * 1000))::int8 END AS remaining, \
      (SELECT count(*) FROM pg_stat_activity a WHERE a.usesysid = r.oid) AS sessions \
    FROM pg_roles r WHERE r.rolname = $1::text::name AND r.rolname::text = $1";

const LIST: &str = "SELECT rolname::text AS name, oid FROM pg_roles \
    WHERE rolname::text LIKE $1 ESCAPE '\\' AND ($2::text IS NULL OR rolname::text COLLATE \"C\" > $2) \
    ORDER BY rolname::text COLLATE \"C\" LIMIT $3";

/// What the server holds by that name.
pub(crate) async fn lookup(backend: &Postgres, name: &PrincipalName) -> Result<Option<Found>, BackendError> {
    let mut conn = backend.server.conn(Lane::Others).await?;
    let found = conn.rows(LOOKUP, &[(&name.as_str(), Type::TEXT)]).await;
    let found = found.and_then(|rows| rows.first().map(found_of).transpose());
    found.map_err(|failure| failure.sorted(conn.label()))
}

fn found_of(row: &tokio_postgres::Row) -> Result<Found, Failure> {
    let oid: u32 = column(row, "oid")?;
    let remaining: Option<i64> = column(row, "remaining")?;
    let sessions: i64 = column(row, "sessions")?;
    Ok(Found {
        handle: Some(oid.to_string()),
        remaining: remaining.map(|millis| Span(u64::try_from(millis).unwrap_or(0))),
        disabled: !column::<bool>(row, "rolcanlogin")?,
        sessions: u32::try_from(sessions).unwrap_or(u32::MAX),
    })
}

/// Roles whose names begin with `prefix`, in the order of their bytes.
pub(crate) async fn list(
    backend: &Postgres,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Page, BackendError> {
    let mut conn = backend.server.conn(Lane::Others).await?;
    let one_more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let pattern = like_prefix(prefix);
    let params = [(&pattern as _, Type::TEXT), (&after as _, Type::TEXT), (&one_more as _, Type::INT8)];
    let rows = conn.rows(LIST, &params).await;
    let listed = rows.and_then(|rows| rows.iter().map(principal_of).collect::<Result<Vec<_>, _>>());
    let mut principals = listed.map_err(|failure| failure.sorted(conn.label()))?;
    let more = principals.len() > limit;
    principals.truncate(limit);
    Ok(Page { principals, more })
}

fn principal_of(row: &tokio_postgres::Row) -> Result<Principal, Failure> {
    let oid: u32 = column(row, "oid")?;
    Ok(Principal { name: column(row, "name")?, handle: Some(oid.to_string()) })
}
