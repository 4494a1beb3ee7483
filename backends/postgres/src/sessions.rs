//! Ends sessions, also those that are not to be seen yet (RULES R-7).
//!
//! A client can stay half-way through its login for as long as `post_auth_delay` says: past the check of its role, and
//! not yet shown with it. It cannot be told whose it is, only that it is there: it holds a virtual transaction and has
//! no owner in `pg_stat_activity`. Every login that could be a disabled role's is among those that are half-way at the
//! first look after the disabling was committed; once each of those has got through or was ended, none is left.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::client::{Conn, column};
use crate::error::Failure;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(15);
/// How long a session may take to end once it was told to.
const END: Duration = Duration::from_secs(2);

/// Logins that are half-way. Up to 17 they have no row in `pg_stat_activity`; from 18 on they have one without an owner.
const LIMBO: &str = "(SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND usesysid IS NULL \
    UNION SELECT l.pid FROM pg_locks l WHERE l.locktype = 'virtualxid' AND l.pid IS NOT NULL \
    AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid))";

/// The processes of the logins that are half-way.
pub(crate) async fn limbo(conn: &mut Conn<'_>) -> Result<Vec<i32>, Failure> {
    still(conn, None).await
}

async fn still(conn: &mut Conn<'_>, among: Option<&[i32]>) -> Result<Vec<i32>, Failure> {
    let query = format!("SELECT pid FROM {LIMBO} AS limbo WHERE $1::int4[] IS NULL OR pid = ANY($1)");
    let rows = conn.rows(&query, &[(&among, Type::INT4_ARRAY)]).await?;
    rows.iter().map(|row| column(row, "pid")).collect()
}

/// Waits until each of these logins has got through or given up, and ends those that stay longer. Whether none is left.
pub(crate) async fn drain(conn: &mut Conn<'_>, seen: &[i32], wait: Duration) -> Result<bool, Failure> {
    let staying = wait_for(conn, seen, wait).await?;
    let mut told = Vec::new();
    for pid in staying {
        if end_login(conn, pid).await? {
            told.push(pid);
        }
    }
    Ok(wait_for(conn, &told, END).await?.is_empty())
}

async fn wait_for(conn: &mut Conn<'_>, pids: &[i32], wait: Duration) -> Result<Vec<i32>, Failure> {
    let deadline = Instant::now() + wait;
    let mut left = pids.to_vec();
    while !left.is_empty() {
        left = still(conn, Some(&left)).await?;
        if left.is_empty() || Instant::now() >= deadline {
            break;
        }
        sleep(LOOK).await;
    }
    Ok(left)
}

/// Ends a login that is still half-way. False where the server refuses: the broker may end any session but a
/// superuser's and one that has no role yet, and neither can be a lease's that passed its check.
async fn end_login(conn: &mut Conn<'_>, pid: i32) -> Result<bool, Failure> {
    let query = format!("SELECT pg_terminate_backend(pid) FROM {LIMBO} AS limbo WHERE pid = $1");
    match conn.rows(&query, &[(&pid, Type::INT4)]).await {
        Ok(_) => Ok(true),
        Err(failure) if failure.is(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Ends the sessions of these roles, by OID: once a role is dropped its name is gone from the sessions too. Gives the
/// OIDs of those whose sessions do not end.
pub(crate) async fn end(conn: &mut Conn<'_>, oids: &[u32]) -> Result<Vec<u32>, Failure> {
    let deadline = Instant::now() + END;
    loop {
        let open = end_once(conn, oids).await?;
        if open.is_empty() || Instant::now() >= deadline {
            return Ok(open);
        }
        sleep(LOOK).await;
    }
}

/// Tells them once, and gives the OIDs of those that had any.
pub(crate) async fn end_once(conn: &mut Conn<'_>, oids: &[u32]) -> Result<Vec<u32>, Failure> {
    let query = "SELECT usesysid, count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE usesysid = ANY($1) GROUP BY usesysid";
    let rows = conn.rows(query, &[(&oids, Type::OID_ARRAY)]).await?;
    rows.iter().map(|row| column(row, "usesysid")).collect()
}
