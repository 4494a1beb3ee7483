//! Bounds on live leases, compared in the writer's transaction.
//!
//! There is one writer, so that it can keep the counts that are asked for in memory: a holder's leases are counted once,
//! by an index, and from then on each set that is written moves the count. What is not certain is counted again.

use std::collections::HashMap;

use leasehold_law::caller::CallerId;
use leasehold_law::cause::Cause;
use leasehold_law::lease::LeaseState;
use rusqlite::Connection;

use super::apply::Failure;
use super::sql::unsigned;
use super::{Ceiling, Counted};
use crate::store::set::{LeaseRow, Set, Write};

/// How many live leases those have who were asked about.
#[derive(Default)]
pub(super) struct LiveCounts {
    agents: HashMap<CallerId, u64>,
    targets: HashMap<String, u64>,
}

impl LiveCounts {
    /// Refuses a set where so many are live already.
    pub(super) fn keep_below(&mut self, conn: &Connection, ceiling: &Ceiling) -> Result<(), Failure> {
        let live = match &ceiling.counted {
            Counted::Target(name) => self.of_target(conn, name)?,
            Counted::Agents(agents) => agents.iter().try_fold(0_u64, |sum, agent| {
                self.of_agent(conn, agent).map(|live| sum.saturating_add(live))
            })?,
        };
        if live < ceiling.most { Ok(()) } else { Err(Failure::Full(ceiling.clone())) }
    }

    fn of_agent(&mut self, conn: &Connection, agent: &CallerId) -> rusqlite::Result<u64> {
        if let Some(live) = self.agents.get(agent) {
            return Ok(*live);
        }
        const SQL: &str = "SELECT count(*) FROM leases WHERE agent = ? AND due IS NOT NULL";
        let live = count(conn, SQL, &agent.to_string())?;
        self.agents.insert(agent.clone(), live);
        Ok(live)
    }

    fn of_target(&mut self, conn: &Connection, target: &str) -> rusqlite::Result<u64> {
        if let Some(live) = self.targets.get(target) {
            return Ok(*live);
        }
        const SQL: &str = "SELECT count(*) FROM leases WHERE target = ? AND due IS NOT NULL";
        let live = count(conn, SQL, target)?;
        self.targets.insert(target.to_owned(), live);
        Ok(live)
    }

    /// Moves the counts by a set that is written in the transaction that runs.
    pub(super) fn learn(&mut self, set: &Set) {
        for write in &set.writes {
            match write {
                Write::Lease(row) => self.learn_lease(row),
                // A bad row that leaves its table is counted no more, and nobody can say whose it was.
                Write::SetAside(_) => self.forget(),
                Write::Task(_)
                | Write::Revocation(_)
                | Write::Agents(_)
                | Write::Bump(_)
                | Write::Digest(..)
                | Write::Number(..)
                | Write::Token(_)
                | Write::Aside(_)
                | Write::Archive(_)
                | Write::Append(_) => {}
            }
        }
    }

    /// A row begins live, unless it was refused, and ends once. Only what was found alive again may come back.
    fn learn_lease(&mut self, row: &LeaseRow) {
        let (agent, target) = (&row.lease.terms.agent, &row.lease.terms.pair.target);
        let step: fn(&mut u64) = match (row.lease.version, row.due) {
            (1, Some(_)) => |live| *live = live.saturating_add(1),
            (1, None) => return,
            (_, None) => |live| *live = live.saturating_sub(1),
            (_, Some(_)) if is_back(&row.lease.state) => {
                self.agents.remove(agent);
                self.targets.remove(target);
                return;
            }
            (_, Some(_)) => return,
        };
        self.agents.get_mut(agent).into_iter().for_each(step);
        self.targets.get_mut(target).into_iter().for_each(step);
    }

    /// After a transaction that was not committed nothing is certain.
    pub(super) fn forget(&mut self) {
        self.agents.clear();
        self.targets.clear();
    }
}

fn is_back(state: &LeaseState) -> bool {
    matches!(state, LeaseState::Revoking { progress, .. } if progress.cause == Cause::Resurrected)
}

fn count(conn: &Connection, sql: &str, of: &str) -> rusqlite::Result<u64> {
    conn.prepare_cached(sql)?.query_row([of], |row| row.get(0)).map(unsigned)
}
