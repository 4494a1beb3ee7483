//! A server of the tests' own, a database for each, and a hand of the test's on it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use leasehold_postgres::throwaway::{self, Cluster};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::super::batch::Batcher;
use super::super::{Address, Link, Options, PostgresStore, Readers, Seat, Stamp};
use crate::store::{Store, StoreError};

/// How often the server is looked at again before a test fails: about ten seconds.
const LOOKS: usize = 1000;

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| throwaway::start(&programs()).unwrap())
}

/// Where the server's programs are.
pub(super) fn programs() -> PathBuf {
    let bin = std::env::var_os("LEASEHOLD_PG_BIN");
    bin.map_or_else(|| "/usr/lib/postgresql/15/bin".into(), PathBuf::from)
}

/// Writes a URL as operators do.
pub(super) fn write_url(file: &Path, url: &str) {
    std::fs::write(file, url).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A process of this broker.
pub(super) fn options(url_file: PathBuf, broker: &str) -> Options {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    Options {
        url_file,
        sslrootcert: None,
        verify: false,
        broker: broker.to_owned(),
        installation: "inst".to_owned(),
        holder: format!("process-{}", COUNT.fetch_add(1, Ordering::Relaxed)),
        stamp: Stamp::Production,
    }
}

/// A database of one test.
pub(super) struct Base {
    name: String,
    folder: TempDir,
    /// A superuser in it.
    pub(super) root: Client,
}

pub(super) async fn fresh() -> (Arc<dyn Store>, Base) {
    let base = Base::new().await;
    (Arc::new(base.open("broker-1").await), base)
}

async fn client(dbname: &str) -> Client {
    let (client, connection) =
        tokio_postgres::connect(&cluster().superuser_dsn(dbname), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Base {
    pub(super) async fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("store_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        client("postgres").await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let url = folder.path().join("store.url");
        let (user, password, port) = (throwaway::SUPERUSER, throwaway::SUPERUSER_PASSWORD, cluster().port());
        write_url(&url, &format!("postgres://{user}:{password}@127.0.0.1:{port}/{name}\n"));
        let root = client(&name).await;
        Self { name, folder, root }
    }

    pub(super) fn options(&self, broker: &str) -> Options {
        options(self.folder.path().join("store.url"), broker)
    }

    pub(super) async fn open(&self, broker: &str) -> PostgresStore {
        PostgresStore::open(&self.options(broker)).await.unwrap()
    }

    pub(super) async fn open_error(&self, options: &Options) -> StoreError {
        PostgresStore::open(options).await.map(drop).unwrap_err()
    }

    /// A connection as brokers make them.
    pub(super) async fn link(&self) -> Link {
        Link::open(&Address::read(&self.options("link")).unwrap(), None).await.unwrap()
    }

    /// The writer of a store in the test's own hands; the store's own is fenced by that.
    pub(super) async fn batcher(&self, store: &PostgresStore) -> Batcher {
        let address = Arc::new(Address::read(&self.options("batcher")).unwrap());
        let readers = Arc::new(Readers::new(address.clone()));
        let seat = Seat::take(&address, &store.presence).await.unwrap();
        Batcher::new(address, store.presence.clone(), readers, seat)
    }

    /// Somebody else in the same database.
    pub(super) async fn stranger(&self) -> Client {
        client(&self.name).await
    }

    pub(super) async fn sql(&self, sql: &str) {
        self.root.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    pub(super) async fn count(&self, query: &str) -> i64 {
        self.root.query_one(query, &[]).await.unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
    }

    /// Waits, in the server, until a query gives a number other than 0, and gives it.
    pub(super) async fn until(&self, query: &str) -> i64 {
        for _ in 0..LOOKS {
            let found = self.count(query).await;
            if found != 0 {
                return found;
            }
            self.sql("SELECT pg_sleep(0.01)").await;
        }
        panic!("never: {query}");
    }

    /// Waits until so many of the database's sessions wait for locks.
    pub(super) async fn until_waiting(&self, count: i64) {
        self.until(&format!(
            "SELECT (count(*) = {count})::int::int8 FROM pg_stat_activity \
             WHERE datname = current_database() AND wait_event_type = 'Lock' \
                 AND query NOT LIKE 'UPDATE brokers SET seen_at%'"
        ))
        .await;
    }
}
