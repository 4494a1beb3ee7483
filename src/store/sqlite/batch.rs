//! The one connection that writes: many waiting sets, one transaction, one flush to disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::slice;
use std::sync::Arc;

use leasehold_law::journal::{ChainHead, ChainId};
use rusqlite::Connection;

use super::apply::{self, Rejected, run};
use super::ceilings::LiveCounts;
use super::hot::Hot;
use super::journal;
use super::sql::unusable;
use super::{Outcome, StoreError};
use crate::store::set::Set;

/// So many sets make a checkpoint worth its flush once there is time for it.
const WORTH_A_CHECKPOINT: usize = 256;

/// Writes sets, and knows where the chain ends.
pub(super) struct Batcher {
    pub(super) conn: Connection,
    chain: ChainId,
    /// `None` when a commit failed: then it is read again.
    head: Option<ChainHead>,
    hot: Arc<Hot>,
    live: LiveCounts,
    since_checkpoint: usize,
    /// Closed last: it is what keeps other brokers away.
    _lock: File,
}

/// Why a transaction cannot be committed.
enum Broken {
    /// This set stopped in the middle: the others are written without it.
    By(usize, Outcome),
    /// SQLite took all of it back.
    Lost(StoreError),
}

/// What each set of a transaction comes to if it is committed, and the head of the chain then.
type Filled = (Vec<Outcome>, ChainHead);

impl Batcher {
    pub(super) fn new(conn: Connection, chain: ChainId, hot: Arc<Hot>, lock: File) -> Self {
        Self { conn, chain, head: None, hot, live: LiveCounts::default(), since_checkpoint: 0, _lock: lock }
    }

    /// Writes these sets in one transaction, and answers each for itself, in their order.
    ///
    /// Where one of them makes SQLite give up the transaction, each is tried in one of its own: on a disk that is
    /// nearly full the small ones, such as revocations, may still fit.
    pub(super) fn write(&mut self, sets: &[Set]) -> Vec<Outcome> {
        self.since_checkpoint += sets.len();
        let mut left_out = BTreeMap::new();
        loop {
            let head = match self.begin() {
                Ok(head) => head,
                Err(error) => return sets.iter().map(|_| Outcome::Failed(error.clone())).collect(),
            };
            let filled = self.fill(head, sets, &left_out);
            if filled.is_err() {
                self.live.forget();
            }
            match filled {
                Ok(filled) => return self.finish(sets, filled),
                Err(Broken::By(at, outcome)) => {
                    self.abandon();
                    left_out.insert(at, outcome);
                }
                Err(Broken::Lost(_)) if sets.len() > 1 => {
                    return sets.iter().flat_map(|set| self.write(slice::from_ref(set))).collect();
                }
                Err(Broken::Lost(error)) => return vec![Outcome::Failed(error)],
            }
        }
    }

    fn begin(&mut self) -> Result<ChainHead, StoreError> {
        let head = match self.head.take() {
            Some(head) => head,
            None => journal::head(&self.conn, &self.chain)?,
        };
        let begun = run(&self.conn, "BEGIN IMMEDIATE");
        self.head = Some(head.clone());
        begun.map(|()| head).map_err(unusable)
    }

    /// `self.head` stays where it was until the commit; what is lost leaves it right.
    fn fill(
        &mut self,
        mut head: ChainHead,
        sets: &[Set],
        left_out: &BTreeMap<usize, Outcome>,
    ) -> Result<Filled, Broken> {
        let mut outcomes = Vec::with_capacity(sets.len());
        for (at, set) in sets.iter().enumerate() {
            if let Some(outcome) = left_out.get(&at) {
                outcomes.push(outcome.clone());
                continue;
            }
            match apply::set(&self.conn, &head, &mut self.live, set) {
                Ok(moved) => {
                    head = moved;
                    outcomes.push(Outcome::Committed);
                }
                Err(rejected) => outcomes.push(self.weigh(at, rejected)?),
            }
        }
        Ok((outcomes, head))
    }

    /// Whether the transaction can go on without a set that was rejected.
    fn weigh(&self, at: usize, rejected: Rejected) -> Result<Outcome, Broken> {
        let Rejected { outcome, partly } = rejected;
        if let Outcome::Failed(error) = &outcome
            && self.conn.is_autocommit()
        {
            return Err(Broken::Lost(error.clone()));
        }
        if partly { Err(Broken::By(at, outcome)) } else { Ok(outcome) }
    }

    /// After a commit that failed nobody knows what a crash would find, whatever SQLite shows now.
    fn finish(&mut self, sets: &[Set], (mut outcomes, head): Filled) -> Vec<Outcome> {
        match run(&self.conn, "COMMIT") {
            Ok(()) => {
                self.head = Some(head);
                let written =
                    sets.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == Outcome::Committed);
                self.hot.learn(written.map(|(set, _)| set));
            }
            Err(error) => {
                self.head = None;
                self.hot.forget();
                self.live.forget();
                self.abandon();
                let error = unusable(error);
                let written = outcomes.iter_mut().filter(|outcome| **outcome == Outcome::Committed);
                written.for_each(|outcome| *outcome = Outcome::Unknown(error.clone()));
            }
        }
        outcomes
    }

    fn abandon(&self) {
        if self.conn.is_autocommit() {
            return;
        }
        if let Err(error) = run(&self.conn, "ROLLBACK") {
            tracing::error!(%error, "the store's transaction cannot be taken back");
        }
    }

    /// Moves what the write-ahead log holds into the database, without waiting for readers, if that is worth it.
    pub(super) fn checkpoint(&mut self) {
        if self.since_checkpoint >= WORTH_A_CHECKPOINT {
            self.since_checkpoint = 0;
            self.upkeep("PRAGMA wal_checkpoint(PASSIVE)");
        }
    }

    /// Gives the page cache back.
    pub(super) fn shrink(&self) {
        self.upkeep("PRAGMA shrink_memory");
    }

    /// The next commit finds out whether anything is truly wrong.
    fn upkeep(&self, sql: &str) {
        if let Err(error) = self.conn.execute_batch(sql) {
            tracing::warn!(%error, sql, "the store's upkeep failed");
        }
    }
}
