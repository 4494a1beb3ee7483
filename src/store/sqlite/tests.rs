//! The suite on SQLite, and what only SQLite can do: files, locks, full disks, broken commits.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, MutexGuard};
use std::task::Poll;

use leasehold_law::cause::Cause;
use leasehold_law::id::LeaseId;
use leasehold_law::lease::{LeaseEvent, Proof};
use leasehold_law::principal::InstallationKey;
use leasehold_law::quota::Holder;
use rusqlite::Connection;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::batch::Batcher;
use super::*;
use crate::store::set::Set;
use crate::store::suite::samples::{
    T0, active, agent, draft, key, lease_change, life, minting, task, task_change,
};
use crate::store::suite::{put, store_suite, verify_export};

mod thread {
    use super::*;
    store_suite!(fresh(Writer::Thread));
}

mod inline {
    use super::*;
    store_suite!(fresh(Writer::Inline));
}

fn options(folder: &Path, writer: Writer) -> Options {
    let path = folder.join("state/leasehold.db");
    Options { path, chain: "broker-1".to_owned(), key: key(), stamp: Stamp::Production, writer, cache_mib: 8 }
}

fn fresh(writer: Writer) -> (Arc<dyn Store>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&options(folder.path(), writer)).unwrap();
    (Arc::new(store), folder)
}

fn inline_store() -> (SqliteStore, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&options(folder.path(), Writer::Inline)).unwrap();
    (store, folder)
}

fn prepared(changes: Vec<Change>, guards: Vec<Guard>) -> Set {
    Set::prepare(changes, guards, vec![]).unwrap()
}

fn batcher(store: &SqliteStore) -> MutexGuard<'_, Batcher> {
    match &store.queue {
        Queue::Inline(batcher) => batcher.lock().unwrap(),
        Queue::Thread(_) => panic!("only an inline writer can be reached into"),
    }
}

fn sql(store: &SqliteStore, sql: &str) {
    batcher(store).conn.execute_batch(sql).unwrap();
}

fn open_error(options: &Options) -> StoreError {
    SqliteStore::open(options).map(drop).unwrap_err()
}

#[tokio::test]
async fn a_store_is_held_by_one_broker() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), Writer::Thread);
    let store = SqliteStore::open(&options).unwrap();
    let held = StoreError::Held(options.path.display().to_string());
    assert_eq!(open_error(&options), held);
    assert_eq!(open_error(&options), held);
    put(&store, vec![Change::Append(draft(1))]).await;
    drop(store);
    SqliteStore::open(&options).unwrap();
}

#[tokio::test]
async fn opening_again_continues_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), Writer::Thread);
    for round in 1..=3_u64 {
        let store = SqliteStore::open(&options).unwrap();
        put(&store, vec![Change::Append(draft(round))]).await;
        assert_eq!(verify_export(&store).await, round);
        assert_eq!(store.head().await.unwrap().chain, ChainId::new("broker-1", 1));
        assert_eq!(store.number("incarnation").await, Ok(Some(1)));
    }
}

/// What lies on disk at the moment of a kill is opened as a restarted broker would.
#[tokio::test]
async fn a_kill_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let killed = options(folder.path(), Writer::Thread);
    let store = SqliteStore::open(&killed).unwrap();
    for n in 1..=20 {
        put(&store, vec![lease_change(&minting(n, 1)), Change::Append(draft(n))]).await;
    }
    let after = tempfile::tempdir().unwrap();
    let restarted = options(after.path(), Writer::Thread);
    std::fs::create_dir(restarted.path.parent().unwrap()).unwrap();
    for end in ["", "-wal"] {
        let name = |path: &Path| format!("{}{end}", path.display());
        std::fs::copy(name(&killed.path), name(&restarted.path)).unwrap();
    }
    let reopened = SqliteStore::open(&restarted).unwrap();
    assert_eq!(verify_export(&reopened).await, 20);
    assert_eq!(reopened.counts().await.unwrap().live, 20);
    put(&reopened, vec![Change::Append(draft(21))]).await;
    assert_eq!(verify_export(&reopened).await, 21);
}

#[tokio::test]
async fn files_are_kept_from_other_users() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), Writer::Thread);
    let store = SqliteStore::open(&options).unwrap();
    put(&store, vec![Change::Append(draft(1))]).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let state = options.path.parent().unwrap();
    assert_eq!(mode(state), 0o700);
    let files: Vec<_> = std::fs::read_dir(state).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 4, "database, log, its index, lock: {files:?}");
    files.iter().for_each(|file| assert_eq!(mode(file), 0o600, "{}", file.display()));
}

/// RULES R-19.
#[test]
fn a_store_serves_whom_it_was_made_for() {
    let check = |made: Stamp, opened: Stamp, name: &str, expect: Option<&str>| {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path(), Writer::Inline);
        SqliteStore::open(&Options { stamp: made, ..options.clone() }).unwrap();
        let again = Options { stamp: opened, chain: name.to_owned(), ..options };
        let error = SqliteStore::open(&again).map(drop).err().map(|error| error.to_string());
        assert_eq!(error.is_some(), expect.is_some(), "{error:?}");
        assert!(error.unwrap_or_default().contains(expect.unwrap_or_default()));
    };
    check(Stamp::Dev, Stamp::Dev, "broker-1", None);
    check(Stamp::Production, Stamp::Production, "broker-1", None);
    check(Stamp::Dev, Stamp::Production, "broker-1", Some("never serves production"));
    check(Stamp::Production, Stamp::Dev, "broker-1", Some("--dev-trust never opens"));
    check(
        Stamp::Dev,
        Stamp::Dev,
        "broker-2",
        Some("belongs to broker `broker-1`, and this one is `broker-2`"),
    );
}

/// RULES R-11: what the rows name was minted under one key, and means nothing under another.
#[tokio::test]
async fn a_store_serves_the_key_that_it_was_first_used_with() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), Writer::Inline);
    drop(SqliteStore::open(&options).unwrap());
    let other =
        Options { key: InstallationKey::new(Zeroizing::new([8; InstallationKey::BYTES])), ..options.clone() };
    let error = open_error(&other).to_string();
    assert!(error.contains(&options.key.installation()) && error.contains("next:"), "{error}");
    assert!(error.contains(&other.key.installation()), "{error}");
    let error = look(&other).unwrap_err().to_string();
    assert!(error.contains(&options.key.installation()), "and so does a check: {error}");
    // As a store of an earlier version, which does not say whose it is: what was minted from it does.
    let forget = || {
        let sql = "UPDATE identity SET installation = NULL";
        Connection::open(&options.path).unwrap().execute_batch(sql).unwrap();
    };
    forget();
    drop(SqliteStore::open(&other).unwrap());
    assert!(
        matches!(open_error(&options), StoreError::Foreign(_)),
        "nothing was minted: the first start says"
    );
    forget();
    let store = SqliteStore::open(&options).unwrap();
    put(&store, vec![lease_change(&minting(1, 1))]).await;
    drop(store);
    forget();
    assert!(matches!(open_error(&other), StoreError::Foreign(_)));
    drop(SqliteStore::open(&options).unwrap());
}

#[test]
fn a_schema_from_the_future_is_left_alone() {
    let (store, folder) = inline_store();
    sql(&store, "PRAGMA user_version = 99");
    drop(store);
    let error = open_error(&options(folder.path(), Writer::Inline));
    let known = u32::try_from(schema::MIGRATIONS.len()).unwrap();
    assert_eq!(error, StoreError::Newer { found: 99, known });
}

#[test]
fn a_file_that_is_no_store_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), Writer::Inline);
    std::fs::create_dir(options.path.parent().unwrap()).unwrap();
    std::fs::write(&options.path, "a".repeat(5000)).unwrap();
    let error = open_error(&options);
    assert!(matches!(&error, StoreError::Unusable(why) if why.contains("not a database")), "{error}");
}

#[tokio::test]
async fn a_bad_set_leaves_its_neighbours_alone() {
    let (store, _folder) = inline_store();
    let broken = "CREATE TRIGGER broken BEFORE INSERT ON numbers BEGIN SELECT RAISE(ABORT, 'broken'); END";
    sql(&store, broken);
    let stale = vec![Guard { subject: Subject::Policy, version: 7 }];
    let sets = [
        prepared(vec![lease_change(&minting(1, 1)), Change::Append(draft(1))], vec![]),
        prepared(vec![lease_change(&minting(2, 1)), Change::Append(draft(2))], stale),
        prepared(vec![Change::Append(draft(3)), Change::Number("n".into(), 1)], vec![]),
        prepared(vec![lease_change(&minting(1, 1)), Change::Append(draft(4))], vec![]),
        prepared(vec![lease_change(&minting(5, 1)), Change::Append(draft(5))], vec![]),
    ];
    let outcomes = batcher(&store).write(&sets);
    let failed = Outcome::Failed(StoreError::Unusable("broken".to_owned()));
    let duplicate = Outcome::Stale(Subject::Lease(minting(1, 1).terms.id));
    let stale = Outcome::Stale(Subject::Policy);
    assert_eq!(outcomes, [Outcome::Committed, stale, failed, duplicate, Outcome::Committed]);
    assert_eq!(verify_export(&store).await, 2);
    assert_eq!(store.counts().await.unwrap().live, 2);
}

/// The row of a task is several statements: where a later one fails, nothing of it may be committed with others.
#[tokio::test]
async fn half_a_task_is_not_committed_with_its_neighbours() {
    let (store, _folder) = inline_store();
    sql(&store, "CREATE TRIGGER broken BEFORE INSERT ON task_refs BEGIN SELECT RAISE(ABORT, 'broken'); END");
    let sets =
        [prepared(vec![task_change(&task(1))], vec![]), prepared(vec![Change::Append(draft(1))], vec![])];
    let failed = Outcome::Failed(StoreError::Unusable("broken".to_owned()));
    assert_eq!(batcher(&store).write(&sets), [failed, Outcome::Committed]);
    assert_eq!(store.task(task(1).terms.id).await, Ok(None));
    assert_eq!(verify_export(&store).await, 1);
}

/// A statement that hits a full disk makes SQLite give up the whole transaction: what still fits must get through.
#[tokio::test]
async fn a_full_disk_fails_what_does_not_fit_and_recovers() {
    let (store, _folder) = inline_store();
    put(&store, vec![lease_change(&minting(1, 1)), Change::Append(draft(1))]).await;
    sql(&store, "PRAGMA max_page_count = 1");
    let mut big = draft(2);
    big.body = vec![b'x'; 1 << 20];
    let small = || prepared(vec![Change::Number("n".into(), 1)], vec![]);
    let sets = [small(), prepared(vec![Change::Append(big.clone())], vec![]), small()];
    let outcomes = batcher(&store).write(&sets);
    assert_eq!((&outcomes[0], &outcomes[2]), (&Outcome::Committed, &Outcome::Committed));
    assert!(matches!(&outcomes[1], Outcome::Failed(StoreError::Unusable(_))), "{outcomes:?}");
    assert_eq!(store.number("n").await, Ok(Some(1)));
    assert_eq!(store.lease(minting(1, 1).terms.id).await, Ok(Some(minting(1, 1))));
    sql(&store, "PRAGMA max_page_count = 1000000");
    put(&store, vec![Change::Append(big)]).await;
    assert_eq!(verify_export(&store).await, 2);
}

#[tokio::test]
async fn a_read_only_store_goes_on_reading_and_recovers() {
    let (store, _folder) = inline_store();
    put(&store, vec![lease_change(&minting(1, 1)), Change::Append(draft(1))]).await;
    sql(&store, "PRAGMA query_only = ON");
    let outcome = store.commit(vec![Change::Append(draft(2))], vec![]).await;
    assert!(matches!(outcome, Outcome::Failed(StoreError::Unusable(_))), "{outcome:?}");
    assert_eq!(store.lease(minting(1, 1).terms.id).await, Ok(Some(minting(1, 1))));
    sql(&store, "PRAGMA query_only = OFF");
    put(&store, vec![Change::Append(draft(2))]).await;
    assert_eq!(verify_export(&store).await, 2);
}

/// A deferred constraint lets every statement pass and the COMMIT fail.
#[tokio::test]
async fn a_commit_that_fails_is_unknown_to_all_in_it() {
    let (store, _folder) = inline_store();
    put(&store, vec![Change::Append(draft(1))]).await;
    let trap = "PRAGMA foreign_keys = ON;
        CREATE TABLE parent (id INTEGER PRIMARY KEY);
        CREATE TABLE child (id INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
        CREATE TRIGGER trap AFTER INSERT ON numbers BEGIN INSERT INTO child VALUES (1); END;";
    sql(&store, trap);
    let stale = vec![Guard { subject: Subject::Policy, version: 7 }];
    let sets = [
        prepared(vec![Change::Append(draft(2))], vec![]),
        prepared(vec![Change::Number("n".into(), 1)], vec![]),
        prepared(vec![Change::Append(draft(3))], stale),
    ];
    let outcomes = batcher(&store).write(&sets);
    assert!(matches!(&outcomes[..2], [Outcome::Unknown(_), Outcome::Unknown(_)]), "{outcomes:?}");
    assert_eq!(outcomes[2], Outcome::Stale(Subject::Policy));
    sql(&store, "DROP TRIGGER trap");
    put(&store, vec![Change::Append(draft(2))]).await;
    assert_eq!(verify_export(&store).await, 2);
}

/// Law 9.
#[tokio::test]
async fn an_unreadable_row_is_set_aside_and_stops_nothing() {
    let (store, folder) = inline_store();
    put(&store, (1..=3).map(|n| lease_change(&minting(n, 1))).collect()).await;
    put(&store, vec![task_change(&task(1)), task_change(&task(2))]).await;
    let bad = minting(2, 1);
    sql(&store, &format!("UPDATE leases SET handle = 'oid', body = '{{}}' WHERE id = '{}'", bad.terms.id));
    sql(&store, &format!("UPDATE tasks SET body = 'x' WHERE id = '{}'", task(1).terms.id));
    drop(store);
    let store = SqliteStore::open(&options(folder.path(), Writer::Inline)).unwrap();
    let far = minting(9, 1).terms.created_at;
    let due = store.due_leases("orders-db", Rank::TaskEnd, far, 9).await.unwrap();
    let [DueLease::Lease(first), DueLease::Bad(row), DueLease::Lease(last)] = &due[..] else {
        panic!("{due:?}");
    };
    assert_eq!((&**first, &**last), (&minting(1, 1), &minting(3, 1)));
    assert_eq!(row.id, bad.terms.id.to_string());
    assert_eq!(row.target, "orders-db");
    assert_eq!(row.principal, bad.terms.principal.as_str());
    assert_eq!(row.handle.as_deref(), Some("oid"));
    let expect = vec![minting(3, 1), minting(1, 1)];
    assert_eq!(store.leases(&LeaseFilter::default(), 2).await, Ok(expect.clone()));
    let live = LeaseFilter { live: true, ..LeaseFilter::default() };
    assert_eq!(store.leases(&live, 9).await, Ok(expect));
    assert!(matches!(store.lease(bad.terms.id).await, Err(StoreError::Unreadable(_))));
    assert!(matches!(store.task(task(1).terms.id).await, Err(StoreError::Unreadable(_))));
    assert_eq!(store.tasks(&TaskFilter::default(), 9).await, Ok(vec![task(2)]));
    assert_eq!(store.counts().await.unwrap().bad_rows, 2);
}

/// A set that is found stale behind its own first write leaves nothing behind, and takes no other set with it.
#[tokio::test]
async fn live_leases_are_counted_right_after_a_transaction_was_taken_back() {
    let (store, folder) = inline_store();
    let counted = Counted::Agents(vec![agent(1)]);
    let ceiling = Ceiling { holder: Holder::Agent(agent(1)), counted, most: 2 };
    let begin = |n| Set::prepare(vec![lease_change(&minting(n, 1))], vec![], vec![ceiling.clone()]).unwrap();
    let stops = prepared(vec![Change::Append(draft(1)), lease_change(&active(&minting(9, 1)))], vec![]);
    let full = Outcome::Full(Box::new(ceiling.clone()));
    let outcomes = batcher(&store).write(&[begin(1), stops, begin(2), begin(3)]);
    let stale = Outcome::Stale(Subject::Lease(minting(9, 1).terms.id));
    assert_eq!(outcomes, [Outcome::Committed, stale, Outcome::Committed, full.clone()]);
    drop(store);
    let store = SqliteStore::open(&options(folder.path(), Writer::Inline)).unwrap();
    assert_eq!(batcher(&store).write(&[begin(4)]), [full]);
}

#[tokio::test]
async fn a_set_that_stops_in_the_middle_is_left_out_of_its_batch() {
    let (store, _folder) = inline_store();
    put(&store, vec![lease_change(&minting(1, 1))]).await;
    let set = |changes| prepared(changes, vec![]);
    let stale = Subject::Lease(minting(1, 1).terms.id);
    let outcomes = batcher(&store).write(&[
        set(vec![lease_change(&minting(2, 1)), Change::Append(draft(1))]),
        set(vec![lease_change(&minting(3, 1)), Change::Append(draft(2)), lease_change(&minting(1, 1))]),
        set(vec![lease_change(&minting(4, 1)), Change::Append(draft(3))]),
    ]);
    assert_eq!(outcomes, [Outcome::Committed, Outcome::Stale(stale), Outcome::Committed]);
    assert_eq!(store.lease(minting(3, 1).terms.id).await, Ok(None));
    assert_eq!(store.counts().await.unwrap().live, 3);
    assert_eq!(verify_export(&store).await, 2);
}

/// A caller that stops waiting does not take its set back, and stops nobody.
#[tokio::test]
async fn dropping_the_store_writes_what_was_handed_in() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), Writer::Thread);
    let store = SqliteStore::open(&options).unwrap();
    for n in 1..=50 {
        let mut commit = store.commit(vec![Change::Append(draft(n))], vec![]);
        // One poll hands the set in.
        drop(futures::poll!(&mut commit));
    }
    drop(store);
    let store = SqliteStore::open(&options).unwrap();
    assert_eq!(verify_export(&store).await, 50);
}

/// A stranger holds the write lock, so that nothing moves until the queue is full.
#[tokio::test]
async fn more_than_the_queue_holds_is_turned_away_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), Writer::Thread);
    let store = SqliteStore::open(&options).unwrap();
    let stranger = Connection::open(&options.path).unwrap();
    stranger.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut waiting = vec![];
    let turned_away = loop {
        let mut commit = store.commit(vec![Change::Number("n".into(), 1)], vec![]);
        match futures::poll!(&mut commit) {
            Poll::Pending => waiting.push(commit),
            Poll::Ready(outcome) => break outcome,
        }
        assert!(waiting.len() < 5000, "the queue is bounded");
    };
    assert_eq!(turned_away, Outcome::Failed(StoreError::Busy));
    assert_eq!(store.number("n").await, Ok(None), "reads go on");
    stranger.execute_batch("ROLLBACK").unwrap();
    let outcomes = futures::future::join_all(waiting).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Committed));
}

#[test]
fn hot_queries_use_their_indexes() {
    let (store, _folder) = inline_store();
    let batcher = batcher(&store);
    let check = |query: &str, index: &str| {
        let plan = plan(&batcher.conn, query);
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{query}\n{plan}");
    };
    let list = |terms: &str| format!("SELECT id, body FROM leases WHERE {terms} ORDER BY id DESC");
    let due = "SELECT body FROM leases WHERE target = 't' AND lane = 1 AND due <= 5 ORDER BY due, id LIMIT 9";
    check(due, "leases_due");
    check("SELECT min(target) FROM leases WHERE due IS NOT NULL AND target > 't'", "leases_");
    let by_lane = "SELECT target, lane, count(*) FROM leases WHERE due IS NOT NULL GROUP BY target, lane";
    check(by_lane, "COVERING INDEX leases_due");
    check(&list("due IS NOT NULL"), "leases_live");
    check(&list("agent = 'a' AND due IS NOT NULL"), "leases_live_agent");
    check(&list("agent = 'a' AND id < 'x'"), "leases_agent");
    check(&list("target = 't' AND due IS NOT NULL"), "leases_live_target");
    check(&list("state = 'revoking' AND stuck = 1"), "leases_revoking");
    let request =
        "SELECT body FROM leases WHERE task = 't' AND request_id = 'r' ORDER BY attempt DESC LIMIT 1";
    check(request, "leases_request");
    check("SELECT body FROM journal WHERE task = 't' ORDER BY rowid", "journal_task");
    check("SELECT body FROM journal WHERE at >= 1 AND at < 2 ORDER BY at, rowid", "journal_at");
    let late = "SELECT EXISTS (SELECT 1 FROM leases WHERE handle = 'h' AND target = 't' AND revoked_at >= 5)";
    check(late, "leases_revoked_handle");
}

fn plan(conn: &Connection, query: &str) -> String {
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
    let lines = statement.query_map([], |row| row.get::<_, String>(3)).unwrap();
    lines.map(Result::unwrap).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn an_id_that_is_not_there_is_no_error() {
    let (store, _folder) = inline_store();
    assert_eq!(store.lease(LeaseId::derive(T0, 1)).await, Ok(None));
    assert_eq!(store.counts().await, Ok(Counts::default()));
}

/// A store of each version before this one is brought up to date with what is in it, and keeps its chain.
#[tokio::test]
async fn a_store_of_each_earlier_schema_is_brought_up_to_date() {
    let present = tempfile::tempdir().unwrap();
    let filled = options(present.path(), Writer::Thread);
    let store = SqliteStore::open(&filled).unwrap();
    let (mint, lived) = (minting(1, 1), active(&minting(2, 1)));
    put(&store, vec![task_change(&task(1)), lease_change(&mint), Change::Append(draft(1))]).await;
    put(&store, life(&lived)).await;
    drop(store);
    for version in 1..schema::MIGRATIONS.len() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path(), Writer::Thread);
        earlier(&options.path, version, &filled.path);
        let store = SqliteStore::open(&options).unwrap();
        let far = lived.state.expires_at().unwrap();
        for (lane, expect) in [(Rank::TaskEnd, &mint), (Rank::Routine, &lived)] {
            let due = store.due_leases("orders-db", lane, far, 9).await.unwrap();
            let [DueLease::Lease(found)] = &due[..] else { panic!("from {version}, {lane:?}: {due:?}") };
            assert_eq!(**found, *expect, "from {version}");
        }
        assert_eq!(store.task(task(1).terms.id).await, Ok(Some(task(1))), "from {version}");
        put(&store, vec![lease_change(&minting(3, 1)), Change::Append(draft(2))]).await;
        assert_eq!(
            (verify_export(&store).await, store.counts().await.unwrap().live),
            (2, 3),
            "from {version}"
        );
        assert_eq!(store.asides(&AsideFilter::default(), 9).await, Ok(vec![]));
    }
}

/// A store of an earlier version that holds what a present one does, in the columns that it had.
fn earlier(path: &Path, version: usize, present: &Path) {
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let old = Connection::open(path).unwrap();
    schema::MIGRATIONS.iter().take(version).for_each(|sql| old.execute_batch(sql).unwrap());
    old.pragma_update(None, "user_version", u32::try_from(version).unwrap()).unwrap();
    old.execute("ATTACH ? AS present", [present.to_str().unwrap()]).unwrap();
    for table in ["identity", "numbers", "subjects", "tasks", "leases", "journal"] {
        let columns = "SELECT group_concat(name) FROM pragma_table_info(?, 'main')";
        let columns: String = old.query_row(columns, [table], |row| row.get(0)).unwrap();
        let copy = format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM present.{table}");
        old.execute_batch(&copy).unwrap();
    }
}

/// What is left of a log that was cut short is what was whole in it: a prefix of the chain, and no more.
#[tokio::test]
async fn a_log_that_was_cut_short_leaves_a_whole_chain() {
    let folder = tempfile::tempdir().unwrap();
    let killed = options(folder.path(), Writer::Thread);
    let store = SqliteStore::open(&killed).unwrap();
    for n in 1..=20 {
        put(&store, vec![lease_change(&minting(n, 1)), Change::Append(draft(n))]).await;
    }
    let name = |path: &Path, end: &str| format!("{}{end}", path.display());
    let log = std::fs::read(name(&killed.path, "-wal")).unwrap();
    let mut seen = Vec::new();
    for part in [4, 3, 2] {
        let after = tempfile::tempdir().unwrap();
        let restarted = options(after.path(), Writer::Thread);
        std::fs::create_dir(restarted.path.parent().unwrap()).unwrap();
        std::fs::copy(&killed.path, &restarted.path).unwrap();
        std::fs::write(name(&restarted.path, "-wal"), &log[..log.len() / part * (part - 1) + 7]).unwrap();
        let reopened = SqliteStore::open(&restarted).unwrap();
        let entries = verify_export(&reopened).await;
        assert_eq!(reopened.counts().await.unwrap().live, entries, "rows and entries are cut together");
        put(&reopened, vec![Change::Append(draft(99))]).await;
        seen.push(verify_export(&reopened).await - 1);
    }
    assert!(seen.is_sorted_by(|more, less| more >= less) && seen.iter().all(|n| *n < 20), "{seen:?}");
}

/// The pages that archived rows leave are used again: under churn the tables do not grow.
#[tokio::test]
async fn tables_do_not_grow_under_churn_that_is_archived() {
    let (store, _folder) = inline_store();
    let pages = |store: &SqliteStore| -> i64 {
        batcher(store).conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap()
    };
    let mut sizes = Vec::new();
    for round in 0..6 {
        for n in (round * 200)..(round + 1) * 200 {
            let dying = active(&minting(n + 1, 1))
                .apply(&LeaseEvent::RevokeStarted { cause: Cause::Released, at: T0, handle: None })
                .unwrap();
            let dead = LeaseEvent::Revoked { proof: Proof::ReadBack, at: T0, handle: None };
            put(&store, life(&dying.apply(&dead).unwrap())).await;
        }
        let far = minting(9999, 1).terms.created_at;
        let ended = store.ended(far, 999).await.unwrap();
        assert_eq!(ended.len(), 200);
        put(&store, ended.into_iter().map(Change::Archive).collect()).await;
        sizes.push(pages(&store));
    }
    assert!(sizes[5] <= sizes[1] + sizes[1] / 10, "{sizes:?}");
}
