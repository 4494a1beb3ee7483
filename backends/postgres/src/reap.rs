//! The reaper: finds and ends sessions that arrive after their role was dropped. A login can be held up for 2147 seconds
//! by `post_auth_delay` (RULES R-7).

use leasehold_backend::{BackendError, Reaped};
use tokio_postgres::types::Type;

use crate::Postgres;
use crate::client::{Conn, Lane, column};
use crate::error::Failure;

const REAP: &str = "SELECT usesysid, count(pg_terminate_backend(pid)) AS sessions FROM pg_stat_activity a \
    WHERE usesysid = ANY($1) AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = a.usesysid AND r.rolcanlogin) \
    GROUP BY usesysid";

/// One look by OID for each session: on a server with thousands of roles a join would read them all.
const LATE: &str = "SELECT DISTINCT a.usesysid FROM pg_stat_activity a WHERE a.usesysid IS NOT NULL \
    AND (SELECT r.oid FROM pg_roles r WHERE r.oid = a.usesysid) IS NULL LIMIT 1000";

/// The OIDs of sessions whose role is gone.
pub(crate) async fn late(backend: &Postgres) -> Result<Vec<String>, BackendError> {
    let mut conn = backend.server.conn(Lane::Others).await?;
    let rows = conn.rows(LATE, &[]).await;
    let oids = rows.and_then(|rows| rows.iter().map(|row| column::<u32>(row, "usesysid")).collect());
    let oids: Vec<u32> = oids.map_err(|failure| failure.sorted(conn.label()))?;
    Ok(oids.iter().map(u32::to_string).collect())
}

/// Ends every session of these OIDs whose role is gone or may no longer log in.
pub(crate) async fn reap(backend: &Postgres, handles: &[String]) -> Result<Vec<Reaped>, BackendError> {
    let oids: Vec<u32> = handles.iter().filter_map(|handle| handle.parse().ok()).collect();
    if oids.is_empty() {
        return Ok(Vec::new());
    }
    let mut conn = backend.server.conn(Lane::Others).await?;
    sweep(&mut conn, &oids).await.map_err(|failure| failure.sorted(conn.label()))
}

async fn sweep(conn: &mut Conn<'_>, oids: &[u32]) -> Result<Vec<Reaped>, Failure> {
    let rows = conn.rows(REAP, &[(&oids, Type::OID_ARRAY)]).await?;
    let mut reaped = Vec::new();
    for row in &rows {
        let oid: u32 = column(row, "usesysid")?;
        let sessions: i64 = column(row, "sessions")?;
        reaped
            .push(Reaped { handle: oid.to_string(), sessions: u32::try_from(sessions).unwrap_or(u32::MAX) });
    }
    Ok(reaped)
}
