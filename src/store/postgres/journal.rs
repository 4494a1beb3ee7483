//! Reading the journal.

use leasehold_law::id::TaskId;
use leasehold_law::journal::{ChainHead, ChainId, Entry, Hash};
use leasehold_law::time::Timestamp;
use tokio_postgres::Row;

use super::super::set::{rows, signed, unsigned};
use super::link::{Link, Param};
use super::readers::Readers;
use super::{StoreError, column};

const HEAD: &str = "SELECT seq, hash FROM journal WHERE chain = $1 ORDER BY seq DESC LIMIT 1";

/// Where a chain ends, as the writer sees it.
pub(super) async fn head(link: &Link, chain: &ChainId) -> Result<ChainHead, StoreError> {
    read_head(chain, link.row(HEAD, &[&chain.as_str()]).await?)
}

/// Where a chain ends, as readers see it.
pub(super) async fn read(readers: &Readers, chain: &ChainId) -> Result<ChainHead, StoreError> {
    read_head(chain, readers.rows(HEAD, &[&chain.as_str()]).await?.pop())
}

fn read_head(chain: &ChainId, last: Option<Row>) -> Result<ChainHead, StoreError> {
    match last {
        Some(row) => Ok(ChainHead {
            chain: chain.clone(),
            seq: unsigned(column(&row, 0)?),
            hash: hash(column(&row, 1)?)?,
        }),
        None => Ok(ChainHead::genesis(chain.clone())),
    }
}

pub(super) async fn from(
    readers: &Readers,
    chain: &ChainId,
    first: u64,
    limit: usize,
) -> Result<Vec<Entry>, StoreError> {
    const SQL: &str = "SELECT seq, body, prev, hash FROM journal WHERE chain = $1 AND seq >= $2 \
        ORDER BY seq LIMIT $3";
    entries(readers, SQL, &[&chain.as_str(), &signed(first), &rows(limit)]).await
}

/// A lease's entries name its task too, so that one index finds both.
pub(super) async fn of_task(readers: &Readers, task: TaskId, limit: usize) -> Result<Vec<Entry>, StoreError> {
    const SQL: &str = "SELECT seq, body, prev, hash FROM journal WHERE task = $1 ORDER BY id LIMIT $2";
    entries(readers, SQL, &[&task.to_string(), &rows(limit)]).await
}

/// Across the chains of all brokers.
pub(super) async fn with(
    readers: &Readers,
    text: &str,
    from: Timestamp,
    to: Timestamp,
    limit: usize,
) -> Result<Vec<Entry>, StoreError> {
    const SQL: &str = "SELECT seq, body, prev, hash FROM journal WHERE at >= $1 AND at < $2 \
        AND position($3::bytea IN body) > 0 ORDER BY at, id LIMIT $4";
    entries(readers, SQL, &[&from.0, &to.0, &text.as_bytes(), &rows(limit)]).await
}

async fn entries(readers: &Readers, sql: &str, params: &[Param<'_>]) -> Result<Vec<Entry>, StoreError> {
    readers.rows(sql, params).await?.iter().map(entry).collect()
}

fn entry(row: &Row) -> Result<Entry, StoreError> {
    Ok(Entry {
        seq: unsigned(column(row, 0)?),
        body: column(row, 1)?,
        prev: hash(column(row, 2)?)?,
        hash: hash(column(row, 3)?)?,
    })
}

fn hash(bytes: &[u8]) -> Result<Hash, StoreError> {
    let wrong = |_| StoreError::Unreadable("a hash has another length".to_owned());
    bytes.try_into().map(Hash).map_err(wrong)
}
