//! Who is there: each broker holds its name, says every second that it lives, and fences who has fallen silent.
//!
//! A fence is a number that grows. Each connection that writes takes the next one of its broker, and every transaction
//! compares it under a lock: whoever was paused, cut off or replaced meanwhile writes nothing more. Taking the next
//! one waits for the transaction that holds the lock, so that what comes after sees how that one ended.

use std::slice;
use std::time::Duration;

use leasehold_law::journal::ChainId;

use super::fault::Fault;
use super::link::Link;
use super::readers::Readers;
use super::{StoreError, column};

/// How often a broker says that it lives.
pub(super) const PULSE: Duration = Duration::from_secs(1);
/// How often a start looks again whether a name has become free, and how many times: longer than the three seconds
/// after which the name of a process without a connection is free.
const LOOK: Duration = Duration::from_millis(250);
const LOOKS: usize = 24;

/// Compares the fence, under a lock that a takeover and the next connection wait for.
pub(super) const FENCE: &str = "SELECT 1 FROM brokers WHERE name = $1 AND fence = $2 FOR SHARE";

/// The name is free if nobody holds it, this process does, its holder has been silent for 30 s, or the holder's
/// connection is gone and did not come back within 3 s.
const TAKE: &str = "UPDATE brokers SET fence = fence + 1, holder = $2, chain = $3, seen_at = clock_timestamp(), \
    pid = pg_backend_pid(), \
    backend_start = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()) \
    WHERE name = $1 AND (holder IS NULL OR holder = $2 OR seen_at < clock_timestamp() - interval '30 s' \
        OR (seen_at < clock_timestamp() - interval '3 s' AND NOT EXISTS (SELECT FROM pg_stat_activity a \
            WHERE a.pid = brokers.pid AND a.backend_start = brokers.backend_start))) \
    RETURNING fence";

const ADD: &str = "INSERT INTO brokers (name, chain, fence, seen_at) VALUES ($1, $2, 0, clock_timestamp()) \
    ON CONFLICT (name) DO NOTHING";

const SEEN: &str = "SELECT seen_at::text FROM brokers WHERE name = $1";

const BEAT: &str = "UPDATE brokers SET seen_at = clock_timestamp() WHERE name = $1 AND holder = $2";

/// Rows that a transaction in flight holds are passed over: their broker may be alive, and the next look comes soon.
const FALLEN: &str = "WITH fallen AS (SELECT name FROM brokers WHERE name <> $1 AND holder IS NOT NULL \
        AND (seen_at < clock_timestamp() - interval '30 s' \
            OR (seen_at < clock_timestamp() - interval '5 s' AND NOT EXISTS (SELECT FROM pg_stat_activity a \
                WHERE a.pid = brokers.pid AND a.backend_start = brokers.backend_start))) \
        FOR UPDATE SKIP LOCKED) \
    UPDATE brokers SET fence = fence + 1, holder = NULL FROM fallen WHERE brokers.name = fallen.name \
    RETURNING brokers.name";

/// What a fallen broker was working on.
const UNCLAIM: [&str; 2] = [
    "UPDATE leases SET claimed_by = NULL, claimed_until = NULL WHERE claimed_by = ANY($1) AND due IS NOT NULL",
    "UPDATE tasks SET claimed_by = NULL, claimed_until = NULL WHERE claimed_by = ANY($1) AND due IS NOT NULL",
];

/// This one counts, whatever the others think of it.
const LIVE: &str = "SELECT count(*) FROM brokers WHERE holder IS NOT NULL OR name = $1";

const LEAVE: &str = "UPDATE brokers SET holder = NULL WHERE name = $1 AND holder = $2";

/// This broker among the others.
#[derive(Clone, Debug)]
pub(super) struct Presence {
    /// Its name.
    pub(super) name: String,
    /// This process: another one with the same name is somebody else.
    pub(super) holder: String,
    /// Its chain.
    pub(super) chain: ChainId,
}

impl Presence {
    /// Takes the name with the next fence. A name that was just let go by a process that ended is waited for.
    ///
    /// # Errors
    /// [`StoreError::Held`] while another process has the name.
    pub(super) async fn enter(&self, link: &Link) -> Result<i64, StoreError> {
        let mut first = None;
        for _ in 0..LOOKS {
            let held = match self.take(link).await {
                Err(StoreError::Held(name)) => StoreError::Held(name),
                other => return other,
            };
            // Whoever lives says so every second. A connection proves nothing: a server takes its time to notice that the
            // process at the other end was killed.
            let seen = self.seen(link).await?;
            if *first.get_or_insert_with(|| seen.clone()) != seen {
                return Err(held);
            }
            tokio::time::sleep(LOOK).await;
        }
        self.take(link).await
    }

    /// Takes the next fence.
    ///
    /// # Errors
    /// [`StoreError::Held`] while another process has the name.
    pub(super) async fn take(&self, link: &Link) -> Result<i64, StoreError> {
        let chain = self.chain.as_str();
        link.rows(ADD, &[&self.name, &chain]).await?;
        match link.row(TAKE, &[&self.name, &self.holder, &chain]).await? {
            Some(row) => column(&row, 0),
            None => Err(StoreError::Held(format!(
                "under the name `{}`: stop that process, or give this one a `broker.name` of its own",
                self.name
            ))),
        }
    }

    /// When whoever has the name last said that it lives.
    async fn seen(&self, link: &Link) -> Result<Option<String>, StoreError> {
        link.row(SEEN, &[&self.name]).await?.map(|row| column(&row, 0)).transpose()
    }

    /// Says that this broker lives.
    pub(super) async fn beat(&self, link: &Link) -> Result<(), Fault> {
        link.rows(BEAT, &[&self.name, &self.holder]).await.map(drop)
    }

    /// Fences brokers that have been silent for 30 s by the database's clock, or for 5 s without a connection that
    /// writes, and lets go of what they were working on. Gives their names.
    pub(super) async fn take_over(&self, link: &Link) -> Result<Vec<String>, StoreError> {
        let rows = link.rows(FALLEN, &[&self.name]).await?;
        let fallen: Vec<String> = rows.iter().map(|row| column(row, 0)).collect::<Result<_, _>>()?;
        if !fallen.is_empty() {
            unclaim(link, &fallen).await?;
        }
        Ok(fallen)
    }

    /// How many brokers live: one that left or was fenced has no holder.
    pub(super) async fn count_live(&self, readers: &Readers) -> Result<u32, StoreError> {
        let Some(row) = readers.rows(LIVE, &[&self.name]).await?.pop() else { return Ok(1) };
        Ok(u32::try_from(column::<i64>(&row, 0)?).unwrap_or(u32::MAX))
    }

    /// Lets go of the name, and of what this broker was working on.
    pub(super) async fn leave(&self, link: &Link) -> Result<(), Fault> {
        link.rows(LEAVE, &[&self.name, &self.holder]).await?;
        unclaim(link, slice::from_ref(&self.name)).await
    }
}

async fn unclaim(link: &Link, names: &[String]) -> Result<(), Fault> {
    for sql in UNCLAIM {
        link.rows(sql, &[&names]).await?;
    }
    Ok(())
}
