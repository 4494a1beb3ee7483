//! What the good sets of a batch come to, as few statements with many rows each.

use std::collections::{BTreeMap, HashMap};

use leasehold_law::journal::{ChainHead, Entry};

use super::super::set::{LeaseRow, RevocationRow, Set, TaskRow, Write, signed};
use super::super::{Draft, StoreError, TokenUse};
use super::columns::{LeaseColumns, TaskColumns};
use super::fault::Fault;
use super::leaving::Leaving;
use super::link::{Link, Param};

// Whoever condemns a lease has it for itself for 30 s, and likewise a task. A claim only keeps brokers out of each
// other's way: what is true is settled by versions.
const INSERT_LEASES: &str = "INSERT INTO leases (id, task, agent, target, principal, handle, state, due, request_id, \
    attempt, version, created_at, stuck, revoked_at, body, lane, intent, claimed_by, claimed_until) \
    SELECT u.*, CASE WHEN u.state = 'revoking' THEN $18::text END, \
        CASE WHEN u.state = 'revoking' THEN clock_timestamp() + interval '30 s' END \
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int8[], \
        $9::text[], $10::int8[], $11::int8[], $12::int8[], $13::bool[], $14::int8[], $15::text[], \
        $16::int8[], $17::text[]) AS u (id, task, agent, target, principal, handle, state, due, request_id, attempt, version, created_at, \
        stuck, revoked_at, body, lane, intent)";

/// A try that failed lets go of its lease: another broker may reach the target where this one does not.
const UPDATE_LEASES: &str = "UPDATE leases SET handle = u.handle, state = u.state, due = u.due, version = u.version, \
        stuck = u.stuck, revoked_at = u.revoked_at, body = u.body, lane = u.lane, \
        claimed_by = CASE WHEN u.state = 'revoking' AND NOT u.stuck THEN $10::text END, \
        claimed_until = CASE WHEN u.state = 'revoking' AND NOT u.stuck THEN clock_timestamp() + interval '30 s' END \
    FROM unnest($1::text[], $2::text[], $3::text[], $4::int8[], $5::int8[], $6::bool[], $7::int8[], $8::text[], \
        $9::int8[]) AS u (id, handle, state, due, version, stuck, revoked_at, body, lane) WHERE leases.id = u.id";

const INSERT_TASKS: &str = "INSERT INTO tasks (id, agent, request_id, state, due, version, opened_at, body, \
        person, claimed_by, claimed_until) \
    SELECT u.*, CASE WHEN u.state = 'ending' THEN $10::text END, \
        CASE WHEN u.state = 'ending' THEN clock_timestamp() + interval '30 s' END \
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int8[], $6::int8[], $7::int8[], $8::text[], \
        $9::text[]) AS u (id, agent, request_id, state, due, version, opened_at, body, person)";

const INSERT_REFS: &str = "INSERT INTO task_refs (name, value, task) \
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[])";

const UPDATE_TASKS: &str = "UPDATE tasks SET state = u.state, due = u.due, version = u.version, body = u.body, \
        claimed_by = CASE WHEN u.state = 'ending' THEN $6::text END, \
        claimed_until = CASE WHEN u.state = 'ending' THEN clock_timestamp() + interval '30 s' END \
    FROM unnest($1::text[], $2::text[], $3::int8[], $4::int8[], $5::text[]) \
        AS u (id, state, due, version, body) WHERE tasks.id = u.id";

const REVOCATIONS: &str = "INSERT INTO revocations (id, selector, freezing, body) \
    SELECT * FROM unnest($1::text[], $2::text[], $3::bool[], $4::text[]) \
    ON CONFLICT (id) DO UPDATE SET freezing = excluded.freezing, body = excluded.body";

const AGENTS: &str = "INSERT INTO agents (who, body) SELECT * FROM unnest($1::text[], $2::text[]) \
    ON CONFLICT (who) DO UPDATE SET body = excluded.body";

const BUMPS: &str = "INSERT INTO subjects (subject, version) SELECT * FROM unnest($1::text[], $2::int8[]) \
    ON CONFLICT (subject) DO UPDATE SET version = subjects.version + excluded.version";

const DIGESTS: &str = "INSERT INTO subjects (subject, version, digest) \
    SELECT u.subject, 0, u.digest FROM unnest($1::text[], $2::text[]) AS u (subject, digest) \
    ON CONFLICT (subject) DO UPDATE SET digest = excluded.digest";

/// The clocks of several brokers make one high-water mark, and no number of ours ever has to fall.
const NUMBERS: &str = "INSERT INTO numbers (name, value) SELECT * FROM unnest($1::text[], $2::int8[]) \
    ON CONFLICT (name) DO UPDATE SET value = greatest(numbers.value, excluded.value)";

/// The first key stays, whoever comes second. In the order of tokens, in which everybody takes them.
const TOKENS: &str = "INSERT INTO tokens (token, key, until) SELECT * FROM unnest($1::text[], $2::text[], $3::int8[]) \
    ON CONFLICT (token) DO NOTHING";
const OLD_TOKENS: &str = "DELETE FROM tokens WHERE until < $1";

/// Each broker counts what it adds and takes away in rows of its own, so that brokers do not wait for each other.
const COUNTS: &str = "INSERT INTO live_counts (broker, holder, leases) \
    SELECT $1::text, u.* FROM unnest($2::text[], $3::int8[]) AS u \
    ON CONFLICT (broker, holder) DO UPDATE SET leases = live_counts.leases + excluded.leases";

const JOURNAL: &str = "INSERT INTO journal (chain, seq, at, task, lease, body, prev, hash) \
    SELECT $1::text, u.* FROM unnest($2::int8[], $3::int8[], $4::text[], $5::text[], $6::bytea[], $7::bytea[], \
        $8::bytea[]) AS u";

/// Rows to write, each once, as the last set leaves it.
pub(super) struct Flush<'a> {
    /// Who claims what is being revoked.
    broker: &'a str,
    leases: Rows<'a, LeaseRow>,
    tasks: Rows<'a, TaskRow>,
    revocations: BTreeMap<&'a str, &'a RevocationRow>,
    agents: BTreeMap<&'a str, &'a str>,
    bumps: BTreeMap<&'a str, i64>,
    digests: BTreeMap<&'a str, &'a str>,
    numbers: BTreeMap<&'a str, i64>,
    tokens: BTreeMap<&'a str, &'a TokenUse>,
    counts: BTreeMap<String, i64>,
    leaving: Leaving<'a>,
    entries: Vec<(Entry, &'a Draft)>,
    /// Where the chain ends then.
    pub(super) head: ChainHead,
}

/// The last row of each id, and whether it is a new one.
struct Rows<'a, T>(HashMap<String, (&'a T, bool)>);

impl<'a, T> Rows<'a, T> {
    fn put(&mut self, id: String, row: &'a T, is_new: bool) {
        let known = self.0.entry(id).or_insert((row, is_new));
        known.0 = row;
    }

    /// In the order of ids, which is the one in which everybody takes rows.
    fn select(&self, new: bool) -> Vec<&'a T> {
        let mut found: Vec<_> = self.0.iter().filter(|(_, (_, is_new))| *is_new == new).collect();
        found.sort_unstable_by_key(|(id, _)| *id);
        found.into_iter().map(|(_, (row, _))| *row).collect()
    }
}

impl<'a> Flush<'a> {
    /// Nothing yet, behind this head.
    pub(super) fn new(broker: &'a str, head: ChainHead) -> Self {
        Self {
            broker,
            leases: Rows(HashMap::new()),
            tasks: Rows(HashMap::new()),
            revocations: BTreeMap::new(),
            agents: BTreeMap::new(),
            bumps: BTreeMap::new(),
            digests: BTreeMap::new(),
            numbers: BTreeMap::new(),
            tokens: BTreeMap::new(),
            counts: BTreeMap::new(),
            leaving: Leaving::default(),
            entries: Vec::new(),
            head,
        }
    }

    /// Adds a set that holds.
    pub(super) fn add(&mut self, set: &'a Set) {
        for write in &set.writes {
            match write {
                Write::Lease(row) => {
                    self.leases.put(row.lease.terms.id.to_string(), row, row.lease.version == 1);
                }
                Write::Task(row) => self.tasks.put(row.task.terms.id.to_string(), row, row.task.version == 1),
                Write::Revocation(row) => drop(self.revocations.insert(&row.id, row)),
                Write::Agents(row) => drop(self.agents.insert(&row.who, &row.body)),
                Write::Bump(key) => *self.bumps.entry(key).or_default() += 1,
                Write::Digest(key, digest) => drop(self.digests.insert(key, digest)),
                Write::Number(name, value) => drop(self.numbers.insert(name, *value)),
                Write::Token(token) => drop(self.tokens.entry(&token.token).or_insert(token)),
                Write::SetAside(aside) => self.leaving.set_aside(aside),
                Write::Aside(aside) => self.leaving.note(aside),
                Write::Archive(ended) => self.leaving.archive(ended),
                Write::Append(draft) => self.entries.push((self.head.append(draft.body.clone()), draft)),
            }
        }
    }

    /// By how much all of it changes the numbers of live leases.
    pub(super) fn count(&mut self, moved: BTreeMap<String, i64>) {
        self.counts = moved;
    }

    /// Makes ready what [`Flush::send`] sends, so that all of it goes out in one go.
    pub(super) async fn make_ready(link: &Link) -> Result<(), Fault> {
        link.ready(&[
            INSERT_LEASES,
            UPDATE_LEASES,
            INSERT_TASKS,
            INSERT_REFS,
            UPDATE_TASKS,
            REVOCATIONS,
            AGENTS,
            BUMPS,
            DIGESTS,
            NUMBERS,
            TOKENS,
            OLD_TOKENS,
            COUNTS,
            JOURNAL,
        ])
        .await?;
        Leaving::make_ready(link).await
    }

    /// Sends everything without waiting for answers in between.
    ///
    /// # Errors
    /// The first that was told.
    pub(super) async fn send(&self, link: &Link) -> Result<(), Fault> {
        // `join!` polls in the order in which they are written, and each goes out at its first poll.
        let answers: [Result<(), Fault>; 4] = futures::join!(
            self.leaving.take(link),
            self.write(link),
            self.leaving.put(link),
            self.leaving.leave(link),
        )
        .into();
        answers.into_iter().collect()
    }

    async fn write(&self, link: &Link) -> Result<(), Fault> {
        let answers: [Result<(), Fault>; 12] = futures::join!(
            self.insert_leases(link),
            self.update_leases(link),
            self.insert_tasks(link),
            self.insert_refs(link),
            self.update_tasks(link),
            self.put_what_operators_did(link),
            self.put_bumps(link),
            self.put_digests(link),
            self.put_numbers(link),
            self.put_tokens(link),
            self.put_counts(link),
            self.append(link),
        )
        .into();
        answers.into_iter().collect()
    }

    async fn insert_leases(&self, link: &Link) -> Result<(), Fault> {
        let rows = self.leases.select(true);
        if rows.is_empty() {
            return Ok(());
        }
        let terms = || rows.iter().map(|row| row.lease.terms.as_ref());
        let texts =
            |text: fn(&leasehold_law::lease::LeaseTerms) -> String| terms().map(text).collect::<Vec<_>>();
        let targets: Vec<_> = terms().map(|terms| terms.pair.target.as_str()).collect();
        let intents: Vec<_> = terms().map(|terms| terms.pair.intent.as_str()).collect();
        let principals: Vec<_> = terms().map(|terms| terms.principal.as_str()).collect();
        let attempts: Vec<_> = terms().map(|terms| i64::from(terms.attempt)).collect();
        let created: Vec<_> = terms().map(|terms| terms.created_at.0).collect();
        let columns = LeaseColumns::of(&rows);
        link.rows(
            INSERT_LEASES,
            &[
                &texts(|terms| terms.id.to_string()),
                &texts(|terms| terms.task.to_string()),
                &texts(|terms| terms.agent.to_string()),
                &targets,
                &principals,
                &columns.handles,
                &columns.states,
                &columns.due,
                &texts(|terms| terms.request_id.to_string()),
                &attempts,
                &columns.versions,
                &created,
                &columns.stuck,
                &columns.revoked,
                &columns.bodies,
                &columns.lanes,
                &intents,
                &self.broker,
            ],
        )
        .await
        .map(drop)
    }

    async fn update_leases(&self, link: &Link) -> Result<(), Fault> {
        let rows = self.leases.select(false);
        if rows.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = rows.iter().map(|row| row.lease.terms.id.to_string()).collect();
        let columns = LeaseColumns::of(&rows);
        link.rows(
            UPDATE_LEASES,
            &[
                &ids,
                &columns.handles,
                &columns.states,
                &columns.due,
                &columns.versions,
                &columns.stuck,
                &columns.revoked,
                &columns.bodies,
                &columns.lanes,
                &self.broker,
            ],
        )
        .await
        .map(drop)
    }

    async fn insert_tasks(&self, link: &Link) -> Result<(), Fault> {
        let rows = self.tasks.select(true);
        if rows.is_empty() {
            return Ok(());
        }
        let terms = || rows.iter().map(|row| &row.task.terms);
        let agents: Vec<_> = terms().map(|terms| terms.agent.to_string()).collect();
        let requests: Vec<_> = terms().map(|terms| terms.request_id.to_string()).collect();
        let opened: Vec<_> = terms().map(|terms| terms.opened_at.0).collect();
        let people: Vec<_> = rows.iter().map(|row| row.task.person().map(ToString::to_string)).collect();
        let TaskColumns { ids, states, due, versions, bodies } = TaskColumns::of(&rows);
        link.rows(
            INSERT_TASKS,
            &[&ids, &agents, &requests, &states, &due, &versions, &opened, &bodies, &people, &self.broker],
        )
        .await
        .map(drop)
    }

    async fn insert_refs(&self, link: &Link) -> Result<(), Fault> {
        let (mut names, mut values, mut tasks) = (vec![], vec![], vec![]);
        for row in self.tasks.select(true) {
            for (name, value) in &row.task.terms.refs {
                names.push(name.as_str());
                values.push(value.as_str());
                tasks.push(row.task.terms.id.to_string());
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        link.rows(INSERT_REFS, &[&names, &values, &tasks]).await.map(drop)
    }

    async fn update_tasks(&self, link: &Link) -> Result<(), Fault> {
        let rows = self.tasks.select(false);
        if rows.is_empty() {
            return Ok(());
        }
        let TaskColumns { ids, states, due, versions, bodies } = TaskColumns::of(&rows);
        link.rows(UPDATE_TASKS, &[&ids, &states, &due, &versions, &bodies, &self.broker]).await.map(drop)
    }

    async fn put_what_operators_did(&self, link: &Link) -> Result<(), Fault> {
        let (revocations, agents) = futures::join!(self.put_revocations(link), self.put_agents(link));
        revocations.and(agents)
    }

    async fn put_revocations(&self, link: &Link) -> Result<(), Fault> {
        if self.revocations.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = self.revocations.keys().copied().collect();
        let selectors: Vec<_> = self.revocations.values().map(|row| row.selector.as_str()).collect();
        let freezing: Vec<_> = self.revocations.values().map(|row| row.freezing).collect();
        let bodies: Vec<_> = self.revocations.values().map(|row| row.body.as_str()).collect();
        link.rows(REVOCATIONS, &[&ids, &selectors, &freezing, &bodies]).await.map(drop)
    }

    async fn put_agents(&self, link: &Link) -> Result<(), Fault> {
        if self.agents.is_empty() {
            return Ok(());
        }
        let (who, bodies): (Vec<_>, Vec<_>) = self.agents.iter().map(|(who, body)| (*who, *body)).unzip();
        link.rows(AGENTS, &[&who, &bodies]).await.map(drop)
    }

    async fn put_bumps(&self, link: &Link) -> Result<(), Fault> {
        if self.bumps.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = self.bumps.keys().copied().collect();
        let counts: Vec<_> = self.bumps.values().copied().collect();
        link.rows(BUMPS, &[&keys, &counts]).await.map(drop)
    }

    async fn put_digests(&self, link: &Link) -> Result<(), Fault> {
        if self.digests.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = self.digests.keys().copied().collect();
        let digests: Vec<_> = self.digests.values().copied().collect();
        link.rows(DIGESTS, &[&keys, &digests]).await.map(drop)
    }

    async fn put_numbers(&self, link: &Link) -> Result<(), Fault> {
        if self.numbers.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = self.numbers.keys().copied().collect();
        let values: Vec<_> = self.numbers.values().copied().collect();
        link.rows(NUMBERS, &[&names, &values]).await.map(drop)
    }

    async fn put_tokens(&self, link: &Link) -> Result<(), Fault> {
        let Some(before) = self.tokens.values().map(|token| token.forgotten().0).max() else { return Ok(()) };
        let tokens: Vec<_> = self.tokens.keys().copied().collect();
        let keys: Vec<_> = self.tokens.values().map(|token| token.key.as_str()).collect();
        let until: Vec<_> = self.tokens.values().map(|token| token.until.0).collect();
        let (over, used): ([Param<'_>; 1], [Param<'_>; 3]) = ([&before], [&tokens, &keys, &until]);
        let (forgotten, kept) = futures::join!(link.rows(OLD_TOKENS, &over), link.rows(TOKENS, &used));
        forgotten.and(kept).map(drop)
    }

    async fn put_counts(&self, link: &Link) -> Result<(), Fault> {
        let moved = self.counts.iter().filter(|(_, moved)| **moved != 0);
        let (holders, counts): (Vec<_>, Vec<_>) =
            moved.map(|(holder, moved)| (holder.as_str(), *moved)).unzip();
        if holders.is_empty() {
            return Ok(());
        }
        link.rows(COUNTS, &[&self.broker, &holders, &counts]).await.map(drop)
    }

    async fn append(&self, link: &Link) -> Result<(), Fault> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let entries = || self.entries.iter().map(|(entry, _)| entry);
        let drafts = || self.entries.iter().map(|(_, draft)| draft);
        let seqs: Vec<_> = entries().map(|entry| signed(entry.seq)).collect();
        let at: Vec<_> = drafts().map(|draft| draft.at.0).collect();
        let tasks: Vec<_> = drafts().map(|draft| draft.task.map(|id| id.to_string())).collect();
        let leases: Vec<_> = drafts().map(|draft| draft.lease.map(|id| id.to_string())).collect();
        let bodies: Vec<_> = entries().map(|entry| entry.body.as_slice()).collect();
        let prevs: Vec<_> = entries().map(|entry| entry.prev.0.as_slice()).collect();
        let hashes: Vec<_> = entries().map(|entry| entry.hash.0.as_slice()).collect();
        let chain = self.head.chain.as_str();
        link.rows(JOURNAL, &[&chain, &seqs, &at, &tasks, &leases, &bodies, &prevs, &hashes]).await.map(drop)
    }
}

/// What a unique index that stands in the way means: somebody else was first.
pub(super) fn beaten(set: &Set, index: &str) -> Option<leasehold_law::subject::Subject> {
    use leasehold_law::subject::Subject;
    let is_lease = ["leases_pkey", "leases_request", "leases_usable"].contains(&index);
    let is_task = ["tasks_pkey", "tasks_request"].contains(&index);
    set.writes.iter().find_map(|write| match write {
        Write::Lease(row) if is_lease => Some(Subject::Lease(row.lease.terms.id)),
        Write::Task(row) if is_task => Some(Subject::Task(row.task.terms.id)),
        Write::Lease(_)
        | Write::Task(_)
        | Write::Revocation(_)
        | Write::Agents(_)
        | Write::Bump(_)
        | Write::Digest(..)
        | Write::Number(..)
        | Write::Token(_)
        | Write::SetAside(_)
        | Write::Aside(_)
        | Write::Archive(_)
        | Write::Append(_) => None,
    })
}

/// Why one set cannot be written.
pub(super) fn failed(fault: &Fault) -> StoreError {
    StoreError::Unusable(fault.to_string())
}
