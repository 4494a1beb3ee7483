//! One set inside the writer's transaction: compared, written and chained.

use leasehold_law::journal::ChainHead;
use leasehold_law::subject::Subject;
use rusqlite::{Connection, OptionalExtension, params};

use super::ceilings::LiveCounts;
use super::sql::{lane_number, signed, unusable, version_query};
use super::{Ceiling, Draft, Outcome, StoreError, archive, aside};
use crate::store::TokenUse;
use crate::store::set::{AgentsRow, Check, LeaseRow, RevocationRow, Set, TaskRow, Write};

/// Why a set is not written.
pub(super) struct Rejected {
    /// What its caller is told.
    pub(super) outcome: Outcome,
    /// Whether something of it is written: the transaction cannot stand then.
    pub(super) partly: bool,
}

/// Why one write of a set failed.
pub(super) enum Failure {
    /// Something has another version by now.
    Stale(Subject),
    /// So many leases are live already.
    Full(Ceiling),
    /// SQLite says why.
    Failed(StoreError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(unusable(error))
    }
}

impl Failure {
    fn rejects(self, partly: bool) -> Rejected {
        let outcome = match self {
            Self::Stale(subject) => Outcome::Stale(subject),
            Self::Full(ceiling) => Outcome::Full(Box::new(ceiling)),
            Self::Failed(error) => Outcome::Failed(error),
        };
        Rejected { outcome, partly }
    }
}

/// Writes one set behind `head` and gives the head that it leaves.
///
/// No savepoint is set, since one costs a copy of each page that is touched after it: versions are compared first, so
/// that a set that is stale is nearly always so before its first write, and the rare other case starts the
/// transaction anew.
///
/// # Errors
/// SQLite may also have taken back the whole transaction (a full disk does that): the connection is in autocommit
/// then.
pub(super) fn set(
    conn: &Connection,
    head: &ChainHead,
    live: &mut LiveCounts,
    set: &Set,
) -> Result<ChainHead, Rejected> {
    may_write(conn, live, set).map_err(|failure| failure.rejects(false))?;
    let mut head = head.clone();
    for (count, one) in set.writes.iter().enumerate() {
        let partly = count > 0 || is_several(one);
        write(conn, &mut head, one).map_err(|failure| failure.rejects(partly))?;
    }
    live.learn(set);
    Ok(head)
}

/// Whether one write is several statements, of which some may have been carried out when another fails.
const fn is_several(write: &Write) -> bool {
    matches!(write, Write::Task(_) | Write::Token(_) | Write::SetAside(_) | Write::Archive(_))
}

fn may_write(conn: &Connection, live: &mut LiveCounts, set: &Set) -> Result<(), Failure> {
    set.checks.iter().try_for_each(|check| compare(conn, check))?;
    set.ceilings.iter().try_for_each(|ceiling| live.keep_below(conn, ceiling))
}

/// Runs a statement without parameters that will be run often.
pub(super) fn run(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(drop)
}

fn write(conn: &Connection, head: &mut ChainHead, write: &Write) -> Result<(), Failure> {
    match write {
        Write::Lease(row) => lease(conn, row),
        Write::Task(row) => task(conn, row),
        Write::Revocation(row) => revocation(conn, row),
        Write::Agents(row) => agents(conn, row),
        Write::Bump(key) => bump(conn, key),
        Write::Digest(key, digest) => remember_digest(conn, key, digest),
        Write::Number(name, value) => remember_number(conn, name, *value),
        Write::Token(token) => remember_token(conn, token),
        Write::SetAside(row) => aside::take(conn, row),
        Write::Aside(row) => aside::put(conn, row),
        Write::Archive(ended) => archive::remove(conn, ended),
        Write::Append(draft) => append(conn, head, draft),
    }
}

/// The first key stays, whoever comes second.
fn remember_token(conn: &Connection, token: &TokenUse) -> Result<(), Failure> {
    const PUT: &str =
        "INSERT INTO tokens (token, key, until) VALUES (?, ?, ?) ON CONFLICT (token) DO NOTHING";
    conn.prepare_cached("DELETE FROM tokens WHERE until < ?")?.execute([token.now.0])?;
    conn.prepare_cached(PUT)?.execute(params![token.token, token.key, token.until.0])?;
    Ok(())
}

fn compare(conn: &Connection, check: &Check) -> Result<(), Failure> {
    let (sql, key) = version_query(&check.place);
    let found: Option<i64> = conn.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()?;
    if found.unwrap_or(0) == check.version { Ok(()) } else { Err(Failure::Stale(check.subject.clone())) }
}

/// Conditions never change, so that only the first version writes their columns.
fn lease(conn: &Connection, row: &LeaseRow) -> Result<(), Failure> {
    let written = if row.lease.version == 1 { insert_lease(conn, row)? } else { update_lease(conn, row)? };
    if written == 1 { Ok(()) } else { Err(Failure::Stale(Subject::Lease(row.lease.terms.id))) }
}

fn insert_lease(conn: &Connection, row: &LeaseRow) -> rusqlite::Result<usize> {
    const SQL: &str =
        "INSERT INTO leases (id, task, agent, target, principal, handle, state, due, request_id,
        attempt, version, created_at, stuck, revoked_at, body, lane, intent)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING";
    let (terms, state) = (&row.lease.terms, &row.lease.state);
    conn.prepare_cached(SQL)?.execute(params![
        terms.id.to_string(),
        terms.task.to_string(),
        terms.agent.to_string(),
        terms.pair.target,
        terms.principal.as_str(),
        state.handle(),
        state.name(),
        row.due,
        terms.request_id.to_string(),
        terms.attempt,
        signed(row.lease.version),
        terms.created_at.0,
        row.stuck,
        row.revoked_at,
        row.body,
        lane_number(state.lane()),
        terms.pair.intent,
    ])
}

fn update_lease(conn: &Connection, row: &LeaseRow) -> rusqlite::Result<usize> {
    const SQL: &str =
        "UPDATE leases SET handle = ?, state = ?, due = ?, version = ?4, stuck = ?, revoked_at = ?,
        body = ?, lane = ? WHERE id = ? AND version = ?4 - 1";
    let state = &row.lease.state;
    conn.prepare_cached(SQL)?.execute(params![
        state.handle(),
        state.name(),
        row.due,
        signed(row.lease.version),
        row.stuck,
        row.revoked_at,
        row.body,
        lane_number(state.lane()),
        row.lease.terms.id.to_string(),
    ])
}

fn task(conn: &Connection, row: &TaskRow) -> Result<(), Failure> {
    let written = if row.task.version == 1 { insert_task(conn, row)? } else { update_task(conn, row)? };
    if written == 1 { Ok(()) } else { Err(Failure::Stale(Subject::Task(row.task.terms.id))) }
}

fn insert_task(conn: &Connection, row: &TaskRow) -> rusqlite::Result<usize> {
    const SQL: &str = "INSERT INTO tasks (id, agent, request_id, state, due, version, opened_at, body,
        person) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING";
    const REF: &str = "INSERT INTO task_refs (name, value, task) VALUES (?, ?, ?)";
    let terms = &row.task.terms;
    let id = terms.id.to_string();
    let written = conn.prepare_cached(SQL)?.execute(params![
        id,
        terms.agent.to_string(),
        terms.request_id.to_string(),
        row.task.state.name(),
        row.due,
        signed(row.task.version),
        terms.opened_at.0,
        row.body,
        row.task.person().map(ToString::to_string),
    ])?;
    for (name, value) in terms.refs.iter().filter(|_| written == 1) {
        conn.prepare_cached(REF)?.execute(params![name, value, id])?;
    }
    Ok(written)
}

fn update_task(conn: &Connection, row: &TaskRow) -> rusqlite::Result<usize> {
    const SQL: &str =
        "UPDATE tasks SET state = ?, due = ?, version = ?3, body = ? WHERE id = ? AND version = ?3 - 1";
    conn.prepare_cached(SQL)?.execute(params![
        row.task.state.name(),
        row.due,
        signed(row.task.version),
        row.body,
        row.task.terms.id.to_string(),
    ])
}

fn revocation(conn: &Connection, row: &RevocationRow) -> Result<(), Failure> {
    const SQL: &str = "INSERT INTO revocations (id, selector, freezing, body) VALUES (?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET freezing = excluded.freezing, body = excluded.body";
    conn.prepare_cached(SQL)?.execute(params![row.id, row.selector, row.freezing, row.body])?;
    Ok(())
}

fn agents(conn: &Connection, row: &AgentsRow) -> Result<(), Failure> {
    const SQL: &str = "INSERT INTO agents (who, body) VALUES (?, ?)
        ON CONFLICT (who) DO UPDATE SET body = excluded.body";
    conn.prepare_cached(SQL)?.execute(params![row.who, row.body])?;
    Ok(())
}

fn bump(conn: &Connection, key: &str) -> Result<(), Failure> {
    const SQL: &str = "INSERT INTO subjects (subject, version) VALUES (?, 1)
        ON CONFLICT (subject) DO UPDATE SET version = version + 1";
    conn.prepare_cached(SQL)?.execute([key])?;
    Ok(())
}

fn remember_digest(conn: &Connection, key: &str, digest: &str) -> Result<(), Failure> {
    const SQL: &str = "INSERT INTO subjects (subject, version, digest) VALUES (?, 0, ?)
        ON CONFLICT (subject) DO UPDATE SET digest = excluded.digest";
    conn.prepare_cached(SQL)?.execute([key, digest])?;
    Ok(())
}

pub(super) fn remember_number(conn: &Connection, name: &str, value: i64) -> Result<(), Failure> {
    const SQL: &str = "INSERT INTO numbers (name, value) VALUES (?, ?)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    conn.prepare_cached(SQL)?.execute(params![name, value])?;
    Ok(())
}

pub(super) fn append(conn: &Connection, head: &mut ChainHead, draft: &Draft) -> Result<(), Failure> {
    const SQL: &str = "INSERT INTO journal (chain, seq, at, task, lease, body, prev, hash)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    let entry = head.append(draft.body.clone());
    conn.prepare_cached(SQL)?.execute(params![
        head.chain.as_str(),
        signed(entry.seq),
        draft.at.0,
        draft.task.map(|id| id.to_string()),
        draft.lease.map(|id| id.to_string()),
        entry.body,
        entry.prev.0,
        entry.hash.0,
    ])?;
    Ok(())
}
