//! Whose a store is, and who may have which name in it.

use leasehold_law::cause::Rank;
use leasehold_law::task::Task;

use super::super::schema::MIGRATIONS;
use super::super::{Options, PostgresStore, Stamp};
use super::world::Base;
use crate::store::suite::samples::{active, draft, lease_change, life, minting, task, task_change};
use crate::store::suite::{put, verify_export};
use crate::store::{AsideFilter, Change, DueLease, Store, StoreError};

#[tokio::test]
async fn a_name_is_held_by_one_process() {
    let base = Base::new().await;
    let first = base.open("broker-1").await;
    let error = base.open_error(&base.options("broker-1")).await;
    assert!(matches!(&error, StoreError::Held(whose) if whose.contains("`broker-1`")), "{error}");
    let other = base.open("broker-2").await;
    put(&first, vec![Change::Append(draft(1))]).await;
    first.leave().await;
    let next = base.open("broker-1").await;
    put(&next, vec![Change::Append(draft(2))]).await;
    put(&other, vec![Change::Append(draft(1))]).await;
    assert_eq!((verify_export(&next).await, verify_export(&other).await), (2, 1));
}

/// As just after a kill: the server has not noticed yet that nobody is at the other end.
#[tokio::test]
async fn a_connection_that_the_server_has_not_missed_yet_holds_no_name() {
    let base = Base::new().await;
    base.open("broker-1").await.leave().await;
    let late = base.stranger().await;
    late.batch_execute(
        "UPDATE leasehold.brokers SET holder = 'killed', seen_at = clock_timestamp(), pid = pg_backend_pid(), \
         backend_start = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())",
    )
    .await
    .unwrap();
    let mut opening = std::pin::pin!(base.open("broker-1"));
    let a_while = std::time::Duration::from_millis(700);
    assert!(tokio::time::timeout(a_while, &mut opening).await.is_err(), "the name is not free yet");
    drop(late);
    drop(opening.await);
}

/// As after a kill: nobody has let go, and the connections are gone.
#[tokio::test]
async fn a_process_that_was_killed_leaves_its_name_in_seconds() {
    let base = Base::new().await;
    let killed = base.open("broker-1").await;
    killed.herald.abort();
    base.sql("SELECT pg_terminate_backend(pid) FROM leasehold.brokers").await;
    base.open("broker-1").await;
    drop(killed);
}

/// RULES R-19.
#[tokio::test]
async fn a_store_serves_the_installation_and_purpose_it_was_made_for() {
    let base = Base::new().await;
    base.open("broker-1").await.leave().await;
    let options = base.options("broker-1");
    let told = async |options: Options| {
        let error = base.open_error(&options).await;
        assert!(matches!(error, StoreError::Foreign(_)), "{error}");
        error.to_string()
    };
    let dev = told(Options { stamp: Stamp::Dev, ..options.clone() }).await;
    assert!(dev.contains("--dev-trust never opens"), "{dev}");
    let other = told(Options { installation: "other".to_owned(), ..options.clone() }).await;
    assert!(other.contains("`inst`") && other.contains("`other`"), "{other}");
    PostgresStore::open(&options).await.unwrap();
}

#[tokio::test]
async fn a_schema_from_the_future_is_left_alone() {
    let base = Base::new().await;
    base.open("broker-1").await.leave().await;
    base.sql("INSERT INTO leasehold.schema_version VALUES (99)").await;
    let error = base.open_error(&base.options("broker-1")).await;
    let known = u32::try_from(MIGRATIONS.len()).unwrap();
    assert_eq!(error, StoreError::Newer { found: 99, known });
}

/// A store of each version before this one is brought up to date with what is in it, and keeps its chain.
#[tokio::test]
async fn a_store_of_each_earlier_schema_is_brought_up_to_date() {
    let base = Base::new().await;
    let first = base.open("broker-1").await;
    let (mint, lived) = (minting(1, 1), active(&minting(2, 1)));
    put(&first, vec![task_change(&task(1)), lease_change(&mint), Change::Append(draft(1))]).await;
    put(&first, life(&lived)).await;
    first.leave().await;
    base.sql("ALTER SCHEMA leasehold RENAME TO present").await;
    for version in 1..MIGRATIONS.len() {
        earlier(&base, version).await;
        let next = base.open("broker-1").await;
        let far = lived.state.expires_at().unwrap();
        for (lane, expect) in [(Rank::TaskEnd, &mint), (Rank::Routine, &lived)] {
            let due = next.due_leases("orders-db", lane, far, 9).await.unwrap();
            let [DueLease::Lease(found)] = &due[..] else { panic!("from {version}, {lane:?}: {due:?}") };
            assert_eq!(**found, *expect, "from {version}");
        }
        assert_eq!(next.task(task(1).terms.id).await, Ok(Some(task(1))), "from {version}");
        assert_eq!(next.token_key("a").await, Ok(None), "from {version}");
        let further = Task { version: 2, ..task(1) };
        let changes = [lease_change(&active(&mint)), task_change(&further), lease_change(&minting(3, 1))];
        put(&next, changes.into_iter().chain([Change::Append(draft(2))]).collect()).await;
        let told = (verify_export(&next).await, next.counts().await.unwrap().live);
        assert_eq!(told, (2, 3), "from {version}");
        assert_eq!(next.asides(&AsideFilter::default(), 9).await, Ok(vec![]), "from {version}");
        next.leave().await;
        base.sql("DROP SCHEMA leasehold CASCADE").await;
    }
}

/// A store of an earlier version that holds what a present one does, in the columns that it had.
async fn earlier(base: &Base, version: usize) {
    base.sql("CREATE SCHEMA leasehold; CREATE TABLE leasehold.schema_version (version integer NOT NULL)")
        .await;
    for (number, sql) in (1..=version).zip(MIGRATIONS) {
        base.sql(sql).await;
        base.sql(&format!("INSERT INTO leasehold.schema_version VALUES ({number})")).await;
    }
    for table in [
        "identity",
        "numbers",
        "subjects",
        "brokers",
        "live_counts",
        "tasks",
        "task_refs",
        "leases",
        "journal",
    ] {
        let columns = "SELECT string_agg(column_name, ', ') FROM information_schema.columns \
            WHERE table_schema = 'leasehold' AND table_name = $1";
        let columns: String = base.root.query_one(columns, &[&table]).await.unwrap().get(0);
        base.sql(&format!(
            "INSERT INTO leasehold.{table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM present.{table}"
        ))
        .await;
    }
    base.sql("SELECT setval('leasehold.journal_id_seq', (SELECT max(id) FROM leasehold.journal))").await;
}

#[tokio::test]
async fn brokers_that_start_together_make_one_store() {
    let base = Base::new().await;
    let opened = futures::join!(base.open("broker-1"), base.open("broker-2"), base.open("broker-3"));
    put(&opened.0, vec![Change::Append(draft(1))]).await;
    assert_eq!(base.count("SELECT count(*) FROM leasehold.brokers").await, 3);
    let versions = base.count("SELECT count(*) FROM leasehold.schema_version").await;
    assert_eq!(versions, i64::try_from(MIGRATIONS.len()).unwrap());
}

#[tokio::test]
async fn a_wrong_password_is_told_without_it() {
    let base = Base::new().await;
    let options = base.options("broker-1");
    let url = std::fs::read_to_string(&options.url_file).unwrap();
    std::fs::write(&options.url_file, url.replace("throwaway", "hunter2")).unwrap();
    let told = format!("{:?}", base.open_error(&options).await);
    assert!(told.contains("authentication failed") && !told.contains("hunter2"), "{told}");
}
