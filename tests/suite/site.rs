//! A real PostgreSQL, with a broker's login that has no more than `setup` gives.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use leasehold::clock::Clock;
use leasehold::entropy::SystemEntropy;
use leasehold_backend::{BackendKind, GrantView};
use leasehold_law::catalog::Recipe;
use leasehold_law::scope::Pair;
use leasehold_postgres::PostgresKind;
use leasehold_postgres::throwaway::{self, Cluster};
use leasehold_proto::v1;
use serde_json::{Map, Value, json};
use tokio_postgres::{Client, Config, Error, NoTls};

/// The broker's login.
pub(crate) const ADMIN: &str = "leasehold";
/// Its password: a text that is nowhere else, so that it can be looked for.
pub(crate) const ADMIN_PASSWORD: &str = "admin-Zq83kXv1-of-the-broker";
/// What the leases of every test are members of.
pub(crate) const GROUP: &str = "reader";

/// Where PostgreSQL's programs are.
pub(crate) fn programs() -> PathBuf {
    let bin = std::env::var_os("LEASEHOLD_PG_BIN");
    bin.map_or_else(|| "/usr/lib/postgresql/15/bin".into(), PathBuf::from)
}

/// A server, with the file of the broker's password in its folder: both go with it.
pub(crate) struct Site {
    cluster: Cluster,
}

impl Site {
    /// The server of most tests.
    pub(crate) fn shared() -> &'static Self {
        static SITE: OnceLock<Site> = OnceLock::new();
        SITE.get_or_init(Self::start)
    }

    /// The server of the tests that attack: any revocation on it would end their half-way logins.
    pub(crate) fn attacked() -> &'static Self {
        static SITE: OnceLock<Site> = OnceLock::new();
        SITE.get_or_init(Self::start)
    }

    /// The server of the tests that kill brokers at random, under agents who hold many connections.
    pub(crate) fn stormy() -> &'static Self {
        static SITE: OnceLock<Site> = OnceLock::new();
        SITE.get_or_init(Self::start)
    }

    /// A server of one's own, to be stopped by dropping it.
    pub(crate) fn start() -> Self {
        let site = Self { cluster: throwaway::start(&programs()).unwrap() };
        std::fs::write(site.password_file(), format!("{ADMIN_PASSWORD}\n")).unwrap();
        std::thread::scope(|scope| scope.spawn(|| site.prepare()).join()).unwrap();
        site
    }

    /// The server itself, to be halted, frozen or copied.
    pub(crate) fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// Gives the broker's login what `setup` says, and nothing else.
    #[tokio::main(flavor = "current_thread")]
    async fn prepare(&self) {
        let root = self.root().await;
        let made = format!(
            "CREATE ROLE {ADMIN} LOGIN PASSWORD '{ADMIN_PASSWORD}'; CREATE ROLE {GROUP} NOLOGIN; \
             CREATE TABLE orders AS SELECT 7 AS n; GRANT SELECT ON orders TO {GROUP}"
        );
        root.batch_execute(&made).await.unwrap();
        let entropy = SystemEntropy::new(Arc::new(Clock::new(Arc::new(leasehold::clock::SystemTime), None)));
        let backend = PostgresKind.open("db", &self.table(), entropy).unwrap();
        let recipe = Recipe(object(&json!({ "member_of": [GROUP] })));
        let pair: Pair = "db.read@db".parse().unwrap();
        for statement in backend.setup(&[GrantView { pair: &pair, recipe: &recipe }]).await.unwrap() {
            if !statement.undo {
                root.batch_execute(&statement.text).await.unwrap();
            }
        }
    }

    fn table(&self) -> Map<String, Value> {
        object(&json!({
            "backend": "postgres",
            "connect": { "host": "127.0.0.1", "port": self.port(), "dbname": "postgres" },
            "tls": "disable",
            "admin": { "user": ADMIN, "password_file": self.password_file() },
        }))
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.cluster.port()
    }

    /// Where the broker's password is.
    pub(crate) fn password_file(&self) -> PathBuf {
        self.cluster.socket_dir().join("broker-password")
    }

    /// A database for a store, and the URL by which brokers reach it.
    pub(crate) async fn store(&self) -> (String, String) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("store_{}", NEXT.fetch_add(1, Ordering::SeqCst));
        self.root().await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let (user, password) = (throwaway::SUPERUSER, throwaway::SUPERUSER_PASSWORD);
        (name.clone(), format!("postgres://{user}:{password}@127.0.0.1:{}/{name}\n", self.port()))
    }

    /// A superuser's session in any database.
    pub(crate) async fn root_in(&self, dbname: &str) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&self.cluster.superuser_dsn(dbname), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// A superuser's session: the proof is never the broker's word.
    pub(crate) async fn root(&self) -> Client {
        self.root_in("postgres").await
    }

    /// The roles that a broker minted here, by the mark that its recipe leaves on them.
    pub(crate) async fn roles(&self, mark: &str) -> Vec<String> {
        let query = "SELECT r.rolname::text FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole \
            WHERE ('application_name=' || $1::text) = ANY(s.setconfig) ORDER BY 1";
        self.root().await.query(query, &[&mark]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// How many milliseconds a role may still log in, by the server's clock.
    pub(crate) async fn remaining(&self, role: &str) -> i64 {
        let query = "SELECT (extract(epoch FROM rolvaliduntil - clock_timestamp()) * 1000)::int8 \
            FROM pg_roles WHERE rolname = $1::text::name";
        self.root().await.query_one(query, &[&role]).await.unwrap().get(0)
    }

    /// How many sessions and half-way logins there are beside the superuser's.
    pub(crate) async fn sessions_of(&self, oid: u32) -> i64 {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE usesysid = $1";
        self.root().await.query_one(query, &[&oid]).await.unwrap().get(0)
    }
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// A credential as its holder uses it.
pub(crate) fn login_config(credential: &v1::Credential) -> Config {
    let public = |key: &str| credential.public[key].as_str();
    let mut config = Config::new();
    config.host(public("host")).port(public("port").parse().unwrap());
    config.dbname(public("dbname")).user(public("user"));
    config.password(&credential.secret["password"]);
    config
}

/// Logs in.
pub(crate) async fn login(config: &Config) -> Result<Client, Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Whether a session still answers.
pub(crate) async fn works(client: &Client) -> bool {
    client.simple_query("SELECT n FROM orders").await.is_ok()
}
