//! What other brokers have written: their chains, from where they were last read.

use std::collections::{HashMap, HashSet};

use leasehold_law::id::{LeaseId, TaskId};
use tokio_postgres::Row;

use super::super::{Foreign, StoreError};
use super::column;
use super::presence::Presence;
use super::readers::Readers;

/// So many entries of a chain are read at a time.
const PAGE: i64 = 512;

/// How far each chain was read. A chain has one writer and its numbers have no gaps, so that nothing is passed over,
/// whichever commit of several brokers is seen first.
#[derive(Default)]
pub(super) struct Follow {
    seen: HashMap<String, i64>,
}

impl Follow {
    /// From the present on.
    pub(super) async fn begin(readers: &Readers, own: &Presence) -> Result<Self, StoreError> {
        const ENDS: &str = "SELECT b.chain, coalesce((SELECT j.seq FROM journal j WHERE j.chain = b.chain \
            ORDER BY j.seq DESC LIMIT 1), 0) FROM brokers b WHERE b.name <> $1";
        let rows = readers.rows(ENDS, &[&own.name]).await?;
        let seen = rows.iter().map(|row| Ok((column(row, 0)?, column(row, 1)?)));
        Ok(Self { seen: seen.collect::<Result<_, StoreError>>()? })
    }

    /// What was written since the last look, each thing once. A chain that is new is read from its beginning.
    ///
    /// # Errors
    /// Where the journal cannot be read; nothing is passed over then.
    pub(super) async fn look(
        &mut self,
        readers: &Readers,
        own: &Presence,
    ) -> Result<Vec<Foreign>, StoreError> {
        const SQL: &str = "SELECT b.chain, e.seq, e.task, e.lease FROM brokers b \
            LEFT JOIN unnest($2::text[], $3::int8[]) AS s (chain, seq) ON s.chain = b.chain \
            CROSS JOIN LATERAL (SELECT j.seq, j.task, j.lease FROM journal j WHERE j.chain = b.chain \
                AND j.seq > coalesce(s.seq, 0) ORDER BY j.seq LIMIT $4) AS e \
            WHERE b.name <> $1 ORDER BY b.chain, e.seq";
        let (chains, seqs): (Vec<_>, Vec<_>) =
            self.seen.iter().map(|(chain, seq)| (chain.as_str(), *seq)).unzip();
        let rows = readers.rows(SQL, &[&own.name, &chains, &seqs, &PAGE]).await?;
        let mut found = Vec::new();
        let mut known = HashSet::new();
        for row in &rows {
            self.seen.insert(column(row, 0)?, column(row, 1)?);
            let change = change(row)?;
            if known.insert(change) {
                found.push(change);
            }
        }
        Ok(found)
    }
}

fn change(row: &Row) -> Result<Foreign, StoreError> {
    let (task, lease): (Option<&str>, Option<&str>) = (column(row, 2)?, column(row, 3)?);
    let lease = lease.and_then(|id| id.parse::<LeaseId>().ok()).map(Foreign::Lease);
    let task = || task.and_then(|id| id.parse::<TaskId>().ok()).map(Foreign::Task);
    Ok(lease.or_else(task).unwrap_or(Foreign::Other))
}
