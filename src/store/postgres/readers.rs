//! Reads: a few connections, apart from the writer, each of which takes questions before it has answered others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::de::DeserializeOwned;
use tokio::sync::Mutex as AsyncMutex;
use tokio_postgres::Row;

use super::super::AsideKind;
use super::super::bad::BadRows;
use super::super::set::rows;
use super::StoreError;
use super::address::Address;
use super::column;
use super::fault::Fault;
use super::link::{Link, Param};

/// So many connections.
const READERS: usize = 4;
/// A connection, and which of the writer's moves it has seen.
type Slot = AsyncMutex<Option<(usize, Arc<Link>)>>;

/// The connections that read.
pub(super) struct Readers {
    address: Arc<Address>,
    links: Vec<Slot>,
    turn: AtomicUsize,
    /// How often the writer has connected anew.
    moves: AtomicUsize,
    /// What they met and could not read.
    pub(super) bad: BadRows,
}

impl Readers {
    pub(super) fn new(address: Arc<Address>) -> Self {
        let links = (0..READERS).map(|_| AsyncMutex::default()).collect();
        Self {
            address,
            links,
            turn: AtomicUsize::default(),
            moves: AtomicUsize::default(),
            bad: BadRows::default(),
        }
    }

    /// Connections that are open may lead to a server that is no longer the primary.
    pub(super) fn forget(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks. A connection that turns out to be gone is replaced once, since a question may be put twice.
    ///
    /// # Errors
    /// Where the server does not answer, or refuses.
    pub(super) async fn rows(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        // The same one again, which is a new connection by then: the next may be gone as well.
        let place = self.turn.fetch_add(1, Ordering::Relaxed) % READERS;
        match self.ask(place, sql, params).await {
            Err(fault) if fault.ends_connection() => Ok(self.ask(place, sql, params).await?),
            other => Ok(other?),
        }
    }

    async fn ask(&self, place: usize, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Fault> {
        let Some(slot) = self.links.get(place) else {
            return Err(Fault::Silent("there are no readers".to_owned()));
        };
        let link = self.link(slot).await?;
        let answer = link.rows(sql, params).await;
        if matches!(&answer, Err(fault) if fault.ends_connection()) {
            let mut held = slot.lock().await;
            held.take_if(|(_, held)| Arc::ptr_eq(held, &link));
        }
        answer
    }

    async fn link(&self, slot: &Slot) -> Result<Arc<Link>, Fault> {
        let mut held = slot.lock().await;
        let moves = self.moves.load(Ordering::Relaxed);
        if let Some((_, link)) = held.as_ref().filter(|(seen, link)| *seen == moves && !link.is_closed()) {
            return Ok(link.clone());
        }
        let link = Arc::new(Link::open(&self.address, None).await?);
        *held = Some((moves, link.clone()));
        Ok(link)
    }

    /// The one row of a query for id and body; a body that cannot be read is an error here.
    pub(super) async fn one<T: DeserializeOwned>(
        &self,
        kind: AsideKind,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Option<T>, StoreError> {
        let row = self.rows(sql, params).await?.pop();
        row.map(|row| self.read(kind, &row)).transpose()
    }

    /// What a row of id and body says; a body that cannot be read is an error here.
    pub(super) fn read<T: DeserializeOwned>(&self, kind: AsideKind, row: &Row) -> Result<T, StoreError> {
        let id: &str = column(row, 0)?;
        let value = self.bad.parse(kind, id, body(row)?);
        value.ok_or_else(|| StoreError::Unreadable(format!("the {} `{id}`", kind.name())))
    }

    /// The rows of a query for ids and bodies, whose last parameter is how many: the first `limit` that can be read. A
    /// page that is shorter is the last.
    pub(super) async fn many<T: DeserializeOwned>(
        &self,
        kind: AsideKind,
        sql: &str,
        params: &[Param<'_>],
        limit: usize,
    ) -> Result<Vec<T>, StoreError> {
        loop {
            let known = self.bad.count();
            let asked = limit.saturating_add(usize::try_from(known).unwrap_or(usize::MAX));
            let count = rows(asked);
            let params: Vec<Param<'_>> = params.iter().copied().chain([&count as Param<'_>]).collect();
            let found = self.rows(sql, &params).await?;
            let mut read = Vec::new();
            for row in &found {
                read.extend(self.bad.parse::<T>(kind, column(row, 0)?, body(row)?));
            }
            // Bad rows that were not known took the places of good ones.
            if read.len() >= limit || found.len() < asked || self.bad.count() == known {
                read.truncate(limit);
                return Ok(read);
            }
        }
    }
}

fn body(row: &Row) -> Result<&[u8], StoreError> {
    column::<&str>(row, 1).map(str::as_bytes)
}
