//! The one connection that writes: many waiting sets, one transaction, two round trips.
//!
//! First everything that the sets compare is locked and read; then what still holds is written and committed in one
//! go. Whoever compares a subject takes its key shared, whoever writes it takes it alone, all keys in one order and
//! before anything is read: so what was compared stands until the commit, whichever broker would change it, whether or
//! not there is a row yet (RULES R-1, R-2), and brokers do not wait for each other in circles.

use std::collections::{BTreeMap, HashMap};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use leasehold_law::journal::ChainHead;
use ring::digest;
use tokio::task::JoinHandle;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::super::set::{Place, Set};
use super::super::{AsideKind, Outcome, StoreError};
use super::address::Address;
use super::fault::Fault;
use super::flush::{Flush, beaten, failed};
use super::judge::{HeldRow, Known, Needs};
use super::link::{Link, Param};
use super::presence::{FENCE, Presence};
use super::readers::Readers;
use super::{column, journal};

/// How often a set is tried again when it met somebody else's transaction.
const MEETINGS: usize = 4;
/// The shortest and the longest time without a try to connect, after one that failed.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Ordered: the keys come sorted, and a function in a select list runs row by row.
const LOCK: &str = "SELECT CASE WHEN alone THEN pg_advisory_xact_lock(key)::text \
    ELSE pg_advisory_xact_lock_shared(key)::text END FROM unnest($1::int8[], $2::bool[]) AS u (key, alone)";
const SUBJECTS: &str = "SELECT subject, version FROM subjects WHERE subject = ANY($1)";
const TASKS: &str = "SELECT id, version FROM tasks WHERE id = ANY($1)";
const COUNTS: &str =
    "SELECT holder, sum(leases)::int8 FROM live_counts WHERE holder = ANY($1) GROUP BY holder";
const LEASES: &str =
    "SELECT id, version, due IS NOT NULL FROM leases WHERE id = ANY($1) ORDER BY id FOR UPDATE";
/// Rows that are set aside, held as they are until the end of the transaction. Hardly any batch asks.
const ASIDES: &str = "SELECT * FROM (SELECT 'lease', id, body, due IS NOT NULL, agent, target FROM leases \
        WHERE id = ANY($1) ORDER BY id FOR UPDATE) AS l \
    UNION ALL SELECT * FROM (SELECT 'task', id, body, false, '', '' FROM tasks \
        WHERE id = ANY($2) ORDER BY id FOR UPDATE) AS t \
    UNION ALL SELECT * FROM (SELECT 'revocation', id, body, false, '', '' FROM revocations \
        WHERE id = ANY($3) ORDER BY id FOR UPDATE) AS r";
/// A commit that waits for a synchronous standby and is given up by the server would be told as a good one.
const NO_LIMIT: &str = "SET LOCAL statement_timeout = 0";

/// Writes sets, and knows where the chain ends.
pub(super) struct Batcher {
    pub(super) address: Arc<Address>,
    pub(super) presence: Presence,
    pub(super) readers: Arc<Readers>,
    seat: Option<Seat>,
    pause: Pause,
}

/// A connection with its fence: while it is the latest, this broker may write.
pub(super) struct Seat {
    pub(super) link: Link,
    pub(super) fence: i64,
    /// `None` where it must be read again.
    head: Option<ChainHead>,
}

/// After a connection failed, nothing is tried for a while, and everybody gets the same answer.
#[derive(Default)]
struct Pause {
    over: Option<(JoinHandle<()>, StoreError)>,
    length: Duration,
}

/// Why nothing, or nothing that is known of, was written.
enum Spoiled {
    /// The transaction is taken back, the connection is good.
    Back(Fault),
    /// There is no connection, and nothing was committed on it.
    Lost(StoreError),
    /// The connection was lost between commit and answer; the outcomes are those that a good commit would have had.
    Unknown(Fault, Vec<Outcome>),
}

impl Seat {
    /// Takes the next fence on a connection of its own.
    pub(super) async fn take(address: &Address, presence: &Presence) -> Result<Self, StoreError> {
        let link = Link::open(address, None).await?;
        let fence = presence.take(&link).await?;
        Ok(Self::new(link, fence))
    }

    pub(super) fn new(link: Link, fence: i64) -> Self {
        Self { link, fence, head: None }
    }
}

impl Batcher {
    pub(super) fn new(address: Arc<Address>, presence: Presence, readers: Arc<Readers>, seat: Seat) -> Self {
        Self { address, presence, readers, seat: Some(seat), pause: Pause::default() }
    }

    /// Writes these sets in one transaction, and answers each for itself, in their order.
    ///
    /// Where one of them cannot be written, each is tried in a transaction of its own.
    pub(super) async fn write(&mut self, sets: &[Set]) -> Vec<Outcome> {
        match self.attempt(sets).await {
            Err(Spoiled::Back(_)) if sets.len() > 1 => {
                let mut outcomes = Vec::with_capacity(sets.len());
                for set in sets {
                    outcomes.push(self.write_alone(set).await);
                }
                outcomes
            }
            Err(Spoiled::Back(_)) => match sets.first() {
                Some(set) => vec![self.write_alone(set).await],
                None => Vec::new(),
            },
            other => self.settle(sets, other),
        }
    }

    /// Two transactions that met are tried again; what a unique index refuses is stale.
    async fn write_alone(&mut self, set: &Set) -> Outcome {
        let mut last = StoreError::Unusable("it keeps meeting other transactions".to_owned());
        for _ in 0..MEETINGS {
            match self.attempt(slice::from_ref(set)).await {
                Err(Spoiled::Back(fault)) => {
                    if let Some(subject) = fault.taken().and_then(|index| beaten(set, index)) {
                        return Outcome::Stale(subject);
                    }
                    last = failed(&fault);
                    // The chain is longer than was known: the head is read again.
                    if !fault.comes_right() && fault.taken() != Some("journal_chain") {
                        break;
                    }
                }
                other => {
                    let mut outcomes = self.settle(slice::from_ref(set), other);
                    return outcomes.pop().unwrap_or(Outcome::Failed(last));
                }
            }
        }
        Outcome::Failed(last)
    }

    fn settle(&mut self, sets: &[Set], attempt: Result<Vec<Outcome>, Spoiled>) -> Vec<Outcome> {
        match attempt {
            Ok(outcomes) => outcomes,
            Err(Spoiled::Back(fault)) => sets.iter().map(|_| Outcome::Failed(failed(&fault))).collect(),
            Err(Spoiled::Lost(error)) => {
                self.seat = None;
                sets.iter().map(|_| Outcome::Failed(error.clone())).collect()
            }
            Err(Spoiled::Unknown(fault, mut outcomes)) => {
                self.seat = None;
                let written = outcomes.iter_mut().filter(|outcome| **outcome == Outcome::Committed);
                written.for_each(|outcome| *outcome = Outcome::Unknown(failed(&fault)));
                outcomes
            }
        }
    }

    async fn attempt(&mut self, sets: &[Set]) -> Result<Vec<Outcome>, Spoiled> {
        let mut seat = self.sit().await.map_err(Spoiled::Lost)?;
        let written = transact(&mut seat, &self.presence, sets).await;
        if written.is_err() {
            seat.head = None;
        }
        self.seat = Some(seat);
        written
    }

    /// The seat, taken anew where it was lost. What readers hold may lead to a server that is no longer the primary.
    async fn sit(&mut self) -> Result<Seat, StoreError> {
        if let Some(seat) = self.seat.take().filter(|seat| !seat.link.is_closed()) {
            return Ok(seat);
        }
        if let Some(error) = self.pause.not_over() {
            return Err(error);
        }
        match Seat::take(&self.address, &self.presence).await {
            Ok(seat) => {
                tracing::info!(fence = seat.fence, "writing to the store with a new fence");
                self.readers.forget();
                self.pause = Pause::default();
                Ok(seat)
            }
            Err(error) => {
                tracing::error!(%error, "the store cannot be written to");
                self.pause.begin(error.clone());
                Err(error)
            }
        }
    }

    /// Lets go of the broker's name.
    pub(super) async fn leave(&mut self) {
        let Some(seat) = self.seat.take() else { return };
        if let Err(fault) = self.presence.leave(&seat.link).await {
            tracing::warn!(%fault, "the store still takes this broker for alive, for a few seconds");
        }
    }
}

impl Pause {
    fn begin(&mut self, error: StoreError) {
        let (shortest, longest) = PAUSES;
        self.length = (self.length * 2).clamp(shortest, longest);
        self.over = Some((tokio::spawn(tokio::time::sleep(self.length)), error));
    }

    fn not_over(&self) -> Option<StoreError> {
        let (waiting, error) = self.over.as_ref()?;
        (!waiting.is_finished()).then(|| error.clone())
    }
}

async fn transact(seat: &mut Seat, own: &Presence, sets: &[Set]) -> Result<Vec<Outcome>, Spoiled> {
    make_ready(&seat.link).await.map_err(|fault| Spoiled::Lost(fault.into()))?;
    let head = match seat.head.take() {
        Some(head) => head,
        None => journal::head(&seat.link, &own.chain).await.map_err(Spoiled::Lost)?,
    };
    let mut known = match compare(seat, &own.name, &Needs::of(sets)).await {
        Ok(known) => known,
        Err(spoiled) => return Err(give_up(&seat.link, spoiled).await),
    };
    let mut flush = Flush::new(&own.name, head.clone());
    let outcomes: Vec<_> = sets
        .iter()
        .map(|set| match known.admit(set) {
            Ok(()) => {
                flush.add(set);
                Outcome::Committed
            }
            Err(outcome) => outcome,
        })
        .collect();
    if !outcomes.contains(&Outcome::Committed) {
        seat.link.run("ROLLBACK").await.map_err(|fault| Spoiled::Lost(fault.into()))?;
        seat.head = Some(head);
        return Ok(outcomes);
    }
    flush.count(known.moved);
    commit(&seat.link, &flush).await.map_err(|ended| match ended {
        Ended::Back(fault) if fault.ends_connection() => Spoiled::Lost(fault.into()),
        Ended::Back(fault) => Spoiled::Back(fault),
        Ended::Unknown(fault) => Spoiled::Unknown(fault, outcomes.clone()),
    })?;
    seat.head = Some(flush.head);
    Ok(outcomes)
}

async fn make_ready(link: &Link) -> Result<(), Fault> {
    link.ready(&[FENCE, LOCK, SUBJECTS, TASKS, COUNTS, LEASES, ASIDES]).await?;
    Flush::make_ready(link).await
}

/// Begins, compares the fence, locks and reads: one round trip.
async fn compare(seat: &Seat, broker: &str, needs: &Needs) -> Result<Known, Spoiled> {
    let link = &seat.link;
    let (keys, alone) = keys(needs);
    let holders = needs.counts.iter().cloned().collect();
    let read = async |sql, ids: &Vec<String>| match ids.is_empty() {
        true => Ok(Vec::new()),
        false => link.rows(sql, &[ids]).await,
    };
    let (fence, locks): ([Param<'_>; 2], [Param<'_>; 2]) = ([&broker, &seat.fence], [&keys, &alone]);
    // `join!` polls in the order in which they are written, and each goes out at its first poll.
    let (begun, fence, locked, subjects, tasks, counts, leases, asides) = futures::join!(
        link.run("BEGIN"),
        link.rows(FENCE, &fence),
        link.rows(LOCK, &locks),
        read(SUBJECTS, &needs.subjects),
        read(TASKS, &needs.tasks),
        read(COUNTS, &holders),
        read(LEASES, &needs.leases),
        held(link, needs),
    );
    let spoiled = |fault: Fault| match fault.ends_connection() {
        true => Spoiled::Lost(fault.into()),
        false => Spoiled::Back(fault),
    };
    begun.map_err(spoiled)?;
    if fence.map_err(spoiled)?.is_empty() {
        return Err(Spoiled::Lost(StoreError::Fenced));
    }
    locked.map_err(spoiled)?;
    let mut known = Known::default();
    note(&mut known, &subjects.map_err(spoiled)?, Place::Subject).map_err(Spoiled::Lost)?;
    note(&mut known, &tasks.map_err(spoiled)?, Place::Task).map_err(Spoiled::Lost)?;
    let leases = leases.map_err(spoiled)?;
    note(&mut known, &leases, Place::Lease).map_err(Spoiled::Lost)?;
    known.live = pairs(&leases, 2).map_err(Spoiled::Lost)?;
    known.held =
        asides.map_err(spoiled)?.iter().map(held_row).collect::<Result<_, _>>().map_err(Spoiled::Lost)?;
    known.counts = pairs(&counts.map_err(spoiled)?, 1).map_err(Spoiled::Lost)?;
    Ok(known)
}

async fn held(link: &Link, needs: &Needs) -> Result<Vec<Row>, Fault> {
    if needs.asides.is_empty() {
        return Ok(Vec::new());
    }
    let ids = |kind| needs.asides.get(&kind).map(Vec::as_slice).unwrap_or_default();
    let (leases, tasks) = (ids(AsideKind::Lease), ids(AsideKind::Task));
    link.rows(ASIDES, &[&leases, &tasks, &ids(AsideKind::Revocation)]).await
}

fn held_row(row: &Row) -> Result<((AsideKind, String), HeldRow), StoreError> {
    let counted = match column(row, 3)? {
        true => Some((column(row, 4)?, column(row, 5)?)),
        false => None,
    };
    Ok(((AsideKind::of(column(row, 0)?), column(row, 1)?), HeldRow { body: column(row, 2)?, counted }))
}

fn note(known: &mut Known, rows: &[Row], place: fn(String) -> Place) -> Result<(), StoreError> {
    let versions: HashMap<String, i64> = pairs(rows, 1)?;
    known.versions.extend(versions.into_iter().map(|(key, version)| (place(key), version)));
    Ok(())
}

/// The first column with another.
fn pairs<T: for<'a> FromSql<'a>>(rows: &[Row], value: usize) -> Result<HashMap<String, T>, StoreError> {
    rows.iter().map(|row| Ok((column(row, 0)?, column(row, value)?))).collect()
}

/// The keys to lock, sorted, and which of them alone.
fn keys(needs: &Needs) -> (Vec<i64>, Vec<bool>) {
    let mut keys: BTreeMap<i64, bool> = BTreeMap::new();
    for (place, alone) in &needs.locks {
        *keys.entry(key(place)).or_default() |= *alone;
    }
    keys.extend(needs.counts.iter().map(|holder| (hash("count", holder), true)));
    keys.into_iter().unzip()
}

/// The key of a place's lock: half of a digest. Two places that share one by chance only wait for each other.
pub(super) fn key(place: &Place) -> i64 {
    match place {
        Place::Task(id) => hash("task", id),
        Place::Lease(id) => hash("lease", id),
        Place::Subject(key) => hash("subject", key),
    }
}

fn hash(kind: &str, text: &str) -> i64 {
    let digest = digest::digest(&digest::SHA256, format!("leasehold.store.v1 {kind} {text}").as_bytes());
    digest.as_ref().iter().take(8).fold(0_i64, |key, byte| (key << 8) | i64::from(*byte))
}

/// Takes back what was begun; where that fails too, the connection goes.
async fn give_up(link: &Link, spoiled: Spoiled) -> Spoiled {
    match (spoiled, link.run("ROLLBACK").await) {
        (Spoiled::Back(fault), Err(_)) => Spoiled::Lost(fault.into()),
        (spoiled, Ok(()) | Err(_)) => spoiled,
    }
}

/// How a commit that is not known to be good ended.
enum Ended {
    Back(Fault),
    Unknown(Fault),
}

/// Writes and commits: one round trip. Where the server refused a write, its commit has taken everything back; where
/// nothing was told, nobody knows.
async fn commit(link: &Link, flush: &Flush<'_>) -> Result<(), Ended> {
    let (sent, limit, committed) = futures::join!(flush.send(link), link.run(NO_LIMIT), link.run("COMMIT"));
    match (sent, limit, committed) {
        (Ok(()), Ok(()), Ok(())) => Ok(()),
        (Err(fault @ Fault::Told { .. }), _, _) => Err(Ended::Back(fault)),
        (Err(fault @ Fault::Silent(_)), _, _) | (_, Err(fault), _) | (_, _, Err(fault)) => {
            Err(Ended::Unknown(fault))
        }
    }
}
