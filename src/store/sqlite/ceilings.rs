//! Bounds on live leases, compared in the writer's transaction. Triggers keep the counts, so that no way of writing a
//! lease goes past them, and a comparison costs the same at ten leases and at a million.

use rusqlite::Connection;

use super::apply::Failure;
use super::sql::unsigned;
use super::{Ceiling, Counted};

/// Refuses the set where so many are live already.
pub(super) fn keep_below(conn: &Connection, ceiling: &Ceiling) -> Result<(), Failure> {
    let live = match &ceiling.counted {
        Counted::Target(name) => count(conn, &format!("target:{name}"))?,
        Counted::Agents(agents) => agents.iter().try_fold(0_u64, |sum, agent| {
            count(conn, &format!("agent:{agent}")).map(|live| sum.saturating_add(live))
        })?,
    };
    if live < ceiling.most { Ok(()) } else { Err(Failure::Full(ceiling.clone())) }
}

fn count(conn: &Connection, holder: &str) -> rusqlite::Result<u64> {
    const SQL: &str = "SELECT coalesce(max(leases), 0) FROM live_counts WHERE holder = ?";
    conn.prepare_cached(SQL)?.query_row([holder], |row| row.get(0)).map(unsigned)
}
