//! A real server for the tests, with a broker's login that has no more than `setup` gives.

pub(crate) mod agent;
pub(crate) mod proxy;
pub(crate) mod server;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use leasehold_backend::kind::EntropyError;
use leasehold_backend::{Backend, BackendKind, Entropy, GrantView};
use leasehold_law::catalog::Recipe;
use leasehold_law::scope::Pair;
use leasehold_law::time::Timestamp;
use leasehold_postgres::PostgresKind;
use leasehold_postgres::throwaway::{self, Cluster};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Map, Value, json};
use tokio_postgres::{Client, NoTls};

pub(crate) const ADMIN: &str = "leasehold";
pub(crate) const ADMIN_PASSWORD: &str = "the broker's own";
pub(crate) const GROUP: &str = "orders_reader";

/// Which server: another version's folder of programs, or Debian's.
pub(crate) fn bin_dir() -> PathBuf {
    std::env::var_os("LEASEHOLD_PG_BIN").map_or_else(|| "/usr/lib/postgresql/15/bin".into(), PathBuf::from)
}

/// Runs this test program again on PostgreSQL 18, where its folder of programs is named.
pub(crate) fn run_again_on_18() {
    let Some(bin) = std::env::var_os("LEASEHOLD_PG18_BIN") else { return };
    let again = std::process::Command::new(std::env::current_exe().unwrap())
        .env("LEASEHOLD_PG_BIN", bin)
        .env_remove("LEASEHOLD_PG18_BIN")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success(), "on PostgreSQL 18: {told}");
}

/// The one server of this test program.
pub(crate) struct Site {
    pub(crate) cluster: Cluster,
    pub(crate) files: Files,
}

/// Where its files are: in the server's own folder, which goes with it, since the one server is never dropped.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Site {
    /// Starts it at the first call.
    pub(crate) fn shared() -> &'static Self {
        static SITE: OnceLock<Site> = OnceLock::new();
        SITE.get_or_init(|| {
            let cluster = throwaway::start(&bin_dir()).unwrap();
            let site = Self { files: Files(cluster.socket_dir().to_owned()), cluster };
            std::fs::write(site.files.path().join("password"), format!("{ADMIN_PASSWORD}\n")).unwrap();
            std::thread::scope(|scope| scope.spawn(|| site.prepare()).join()).unwrap();
            site
        })
    }

    /// Gives the broker's login what `setup` says, and nothing else.
    #[tokio::main(flavor = "current_thread")]
    async fn prepare(&self) {
        let root = self.root().await;
        let password = ADMIN_PASSWORD.replace('\'', "''");
        root.batch_execute(&format!(
            "CREATE ROLE {ADMIN} LOGIN PASSWORD '{password}'; CREATE ROLE {GROUP} NOLOGIN; CREATE ROLE boss; \
             CREATE SCHEMA work; GRANT ALL ON SCHEMA work TO {GROUP}; \
             CREATE TABLE orders AS SELECT 7 AS n; GRANT SELECT ON orders TO {GROUP}"
        ))
        .await
        .unwrap();
        let (pair, recipe) = ("orders.read@orders".parse::<Pair>().unwrap(), recipe_of(&recipe()));
        let grants = [GrantView { pair: &pair, recipe: &recipe }];
        for table in [self.table(), self.with("on_owned", json!("keep"))] {
            for statement in open(&table).setup(&grants).await.unwrap() {
                root.batch_execute(&statement.text).await.unwrap();
            }
        }
        root.batch_execute("GRANT USAGE, CREATE ON SCHEMA work TO lh_estate").await.unwrap();
    }

    /// A superuser's session: the proof is never the broker's word.
    pub(crate) async fn root(&self) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&self.cluster.superuser_dsn("postgres"), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// The target's table in config.
    pub(crate) fn table(&self) -> Map<String, Value> {
        let table = json!({
            "backend": "postgres",
            "connect": { "host": "127.0.0.1", "port": self.cluster.port(), "dbname": "postgres" },
            "tls": "disable",
            "admin": { "user": ADMIN, "password_file": self.files.path().join("password") },
            "limbo_wait": "500ms",
            "pool": 2,
        });
        table.as_object().unwrap().clone()
    }

    /// The table with one key set.
    pub(crate) fn with(&self, key: &str, value: Value) -> Map<String, Value> {
        let mut table = self.table();
        table.insert(key.to_owned(), value);
        table
    }
}

/// The backend behind a table.
pub(crate) fn open(table: &Map<String, Value>) -> Arc<dyn Backend> {
    PostgresKind.open("orders-db", table, Arc::new(Dice)).unwrap()
}

/// A recipe that mints.
pub(crate) fn recipe() -> Value {
    json!({ "member_of": [GROUP], "connection_limit": 5, "settings": { "statement_timeout": "30s" } })
}

pub(crate) fn recipe_of(value: &Value) -> Recipe {
    Recipe(value.as_object().unwrap().clone())
}

/// Random bits and the time.
#[derive(Debug)]
pub(crate) struct Dice;

impl Entropy for Dice {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        SystemRandom::new().fill(buffer).map_err(|_| EntropyError)
    }

    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp(i64::try_from(since.as_millis()).unwrap())
    }
}

/// The processes of logins that are half-way, as a superuser sees them.
pub(crate) async fn half_way(root: &Client) -> Vec<i32> {
    let query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND usesysid IS NULL \
        UNION SELECT l.pid FROM pg_locks l WHERE locktype = 'virtualxid' AND pid IS NOT NULL \
        AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid)";
    root.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}
