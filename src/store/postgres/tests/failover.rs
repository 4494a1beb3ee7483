//! A primary that dies under load, and its synchronous standby in its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use leasehold_postgres::throwaway::{self, SUPERUSER, SUPERUSER_PASSWORD};
use tokio_postgres::{Client, NoTls};

use super::super::PostgresStore;
use super::world::{options, programs, write_url};
use crate::store::suite::samples::{draft, lease_change, minting};
use crate::store::suite::verify_export;
use crate::store::{Change, Outcome, Store};

/// How often a server is asked again, with 50 ms between, before a test fails.
const LOOKS: usize = 1200;

async fn client(port: u16) -> Option<Client> {
    let dsn =
        format!("host=127.0.0.1 port={port} user={SUPERUSER} password={SUPERUSER_PASSWORD} dbname=postgres");
    let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}

/// Asks again until the answer is true.
async fn until(client: &Client, query: &str) {
    for _ in 0..LOOKS {
        if client.query_one(query, &[]).await.unwrap().get(0) {
            return;
        }
        client.batch_execute("SELECT pg_sleep(0.05)").await.unwrap();
    }
    panic!("never: {query}");
}

/// A caller that writes one lease after another, and remembers what was acknowledged.
async fn write(store: Arc<PostgresStore>, caller: u64, over: Arc<AtomicBool>) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for n in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let n = 1 + caller * 1_000_000 + n;
        let changes = vec![lease_change(&minting(n, 1)), Change::Append(draft(n))];
        match store.commit(changes, vec![]).await {
            Outcome::Committed => acknowledged.push(n),
            Outcome::Failed(_) | Outcome::Unknown(_) => tokio::task::yield_now().await,
            outcome @ (Outcome::Stale(_) | Outcome::Full(_)) => panic!("{outcome:?}"),
        }
    }
    acknowledged
}

async fn count(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM leasehold.leases", &[]).await.unwrap().get(0)
}

/// Silent for longer than any claim, as a machine that was suspended: it is fenced in the middle of its work, and goes
/// on with a new fence.
async fn suspend(root: &Client, broker: &PostgresStore) {
    broker.herald.abort();
    let fence = "SELECT fence FROM leasehold.brokers WHERE name = 'c'";
    let before: i64 = root.query_one(fence, &[]).await.unwrap().get(0);
    let silent = "UPDATE leasehold.brokers SET seen_at = seen_at - interval '1 minute' WHERE name = 'c'";
    root.batch_execute(silent).await.unwrap();
    until(root, &format!("SELECT fence > {} FROM leasehold.brokers WHERE name = 'c'", before + 1)).await;
}

/// Three brokers under load; one is suspended until the others fence it, then the primary dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_fences_and_a_failover() {
    let primary = throwaway::start(&programs()).unwrap();
    let standby = primary.standby().unwrap();
    let root = client(primary.port()).await.unwrap();
    root.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
    root.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until(&root, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')").await;
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("store.url");
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", primary.port(), standby.port());
    write_url(&url, &format!("postgres://{SUPERUSER}:{SUPERUSER_PASSWORD}@{hosts}/postgres"));
    let mut brokers = Vec::new();
    for name in ["a", "b", "c"] {
        brokers.push(Arc::new(PostgresStore::open(&options(url.clone(), name)).await.unwrap()));
    }
    let over = Arc::new(AtomicBool::new(false));
    let callers = (0..12_u64).zip(brokers.iter().cycle());
    let callers: Vec<_> =
        callers.map(|(n, broker)| tokio::spawn(write(broker.clone(), n, over.clone()))).collect();
    until(&root, "SELECT count(*) > 100 FROM leasehold.leases").await;
    suspend(&root, &brokers[2]).await;
    drop(primary);
    let promoted = client(standby.port()).await.unwrap();
    let before = count(&promoted).await;
    promoted.batch_execute("SELECT pg_promote()").await.unwrap();
    until(&promoted, &format!("SELECT count(*) > {} FROM leasehold.leases", before + 200)).await;
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        for n in caller.await.unwrap() {
            let lease = brokers[0].lease(minting(n, 1).terms.id).await.unwrap();
            assert!(lease.is_some(), "{n} was acknowledged and is lost");
        }
    }
    let mut entries = 0;
    for broker in &brokers {
        entries += verify_export(&**broker).await;
    }
    assert_eq!(
        i64::try_from(entries).unwrap(),
        count(&promoted).await,
        "each set whole and once, or not at all"
    );
}
