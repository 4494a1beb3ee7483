//! A throwaway PostgreSQL, and a separate superuser who is asked what is true.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_backend::{BackendKind, Entropy};
use leasehold_client::Credential;
use leasehold_law::catalog::Recipe;
use leasehold_law::scope::Pair;
use leasehold_postgres::PostgresKind;
use leasehold_postgres::throwaway::{self, Cluster};
use serde_json::{Map, Value, json};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls, Row};

use super::ground::{Attacker, Ground, Role, Session};
use super::story::{Failure, Seen, ensure};
use crate::dev::admin_role::{self, told};
use crate::dev::files::write_private;
use crate::dev::proxy::StallingProxy;

const DATABASE: &str = "postgres";
const TABLES: &str = "\
    CREATE TABLE orders AS SELECT n, 'order ' || n AS what FROM generate_series(1, 1204) AS n; \
    CREATE TABLE stock AS SELECT n, 7 AS left_over FROM generate_series(1, 300) AS n; \
    CREATE ROLE orders_reader NOLOGIN; GRANT SELECT ON orders TO orders_reader; \
    CREATE ROLE stock_reader NOLOGIN; GRANT SELECT ON stock TO stock_reader";
/// How the server refuses a login.
const REFUSALS: [SqlState; 2] = [SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION];
/// No answer of a server on this host takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// The server, the superuser, and the wire that the broker speaks over.
pub(super) struct Postgres {
    cluster: Cluster,
    superuser: Client,
    wire: StallingProxy,
    password_file: PathBuf,
    major: u32,
}

impl Postgres {
    /// Starts a server, fills two tables, and gives the broker's login what `targets setup` says.
    pub(super) async fn start(bin: &Path, dir: &Path, entropy: Arc<dyn Entropy>) -> Seen<Self> {
        let bin = bin.to_owned();
        let cluster = tokio::task::spawn_blocking(move || throwaway::start(&bin)).await??;
        let superuser = superuser(&cluster).await?;
        let wire = StallingProxy::open(SocketAddr::from((Ipv4Addr::LOCALHOST, cluster.port()))).await?;
        let password_file = dir.join("orders-db.password");
        let major = major(&superuser).await?;
        let postgres = Self { cluster, superuser, wire, password_file, major };
        postgres.prepare(entropy).await?;
        Ok(postgres)
    }

    async fn prepare(&self, entropy: Arc<dyn Entropy>) -> Seen<()> {
        self.superuser.batch_execute(TABLES).await.map_err(failed)?;
        let password = admin_role::new_password(entropy.as_ref())?;
        write_private(&self.password_file, &password)?;
        admin_role::make(&self.superuser, &password, entropy.as_ref()).await?;
        let backend = PostgresKind.open("orders-db", &self.table(), entropy);
        let backend = backend.map_err(|problems| Failure::new(format!("{problems:?}")))?;
        let statements = admin_role::statements(backend.as_ref(), &grants()?).await?;
        Ok(admin_role::grant(&self.superuser, &statements).await?)
    }

    fn table(&self) -> Map<String, Value> {
        let table = json!({
            "connect": { "host": "127.0.0.1", "port": self.cluster.port(), "dbname": DATABASE },
            "tls": "disable",
            "admin": { "user": admin_role::ADMIN, "password_file": self.password_file },
        });
        table.as_object().cloned().unwrap_or_default()
    }

    pub(super) fn superuser(&self) -> &Client {
        &self.superuser
    }

    /// How a role logs in.
    pub(super) fn route(&self, user: &str, password: &[u8]) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.cluster.port()).dbname(DATABASE).user(user).password(password);
        config.connect_timeout(PATIENCE);
        config
    }

    pub(super) fn route_of(&self, credential: &Credential) -> Seen<Config> {
        let (user, password) = login_of(credential)?;
        Ok(self.route(user, password))
    }
}

/// The name and the password in a credential.
pub(super) fn login_of(credential: &Credential) -> Seen<(&str, &[u8])> {
    let user = credential.part("user").ok_or_else(|| Failure::new("a credential without a user"))?;
    let password =
        credential.expose("password").ok_or_else(|| Failure::new("a credential without a password"))?;
    Ok((user, password))
}

async fn superuser(cluster: &Cluster) -> Seen<Client> {
    let config: Config = cluster.superuser_dsn(DATABASE).parse()?;
    Ok(connect(&config).await?)
}

pub(super) async fn connect(config: &Config) -> Result<Client, Error> {
    let (client, connection) = config.connect(NoTls).await?;
    // It ends with the client, or when the server ends it, which the client tells too.
    tokio::spawn(connection);
    Ok(client)
}

async fn major(superuser: &Client) -> Seen<u32> {
    let row = superuser.query_one("SELECT current_setting('server_version_num')::int4 / 10000", &[]).await?;
    Ok(u32::try_from(row.try_get::<_, i32>(0)?)?)
}

fn grants() -> Seen<Vec<(Pair, Recipe)>> {
    let grant = |intent: &str, group: &str| -> Seen<(Pair, Recipe)> {
        let pair = Pair { intent: intent.to_owned(), target: "orders-db".to_owned() };
        let recipe = json!({ "member_of": [group] });
        Ok((pair, Recipe(recipe.as_object().cloned().unwrap_or_default())))
    };
    Ok(vec![grant("orders.read", "orders_reader")?, grant("stock.read", "stock_reader")?])
}

/// In the server's words.
#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
pub(super) fn failed(error: Error) -> Failure {
    Failure::new(told(&error))
}

const LEASED: &str = "\
    SELECT r.rolname::text AS name, r.rolcanlogin AS alive, \
        r.rolconnlimit || ' connections, valid until ' || to_char(r.rolvaliduntil, 'HH24:MI:SS') AS bounds, \
        ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid \
            WHERE m.member = r.oid ORDER BY 1) AS groups \
    FROM pg_roles r WHERE r.rolname ~ '^lh[0-9a-v]{30}$' ORDER BY 1";

fn role(row: &Row) -> Seen<Role> {
    Ok(Role {
        name: row.try_get("name")?,
        alive: row.try_get("alive")?,
        groups: row.try_get("groups")?,
        bounds: row.try_get::<_, Option<String>>("bounds")?.unwrap_or_default(),
    })
}

#[async_trait]
impl Ground for Postgres {
    fn name(&self) -> String {
        format!("PostgreSQL {}", self.major)
    }

    fn prompt(&self) -> &'static str {
        "pg>"
    }

    fn witness(&self) -> &'static str {
        "PostgreSQL's answers to a separate superuser session"
    }

    fn target_toml(&self) -> String {
        format!(
            "[targets.orders-db]\nbackend = \"postgres\"\nowner = \"group:data\"\nlabels = {{ env = \"demo\" }}\n\
             connect = {{ host = \"127.0.0.1\", port = {wire}, dbname = \"{DATABASE}\" }}\n\
             agents = {{ host = \"127.0.0.1\", port = {port} }}\ntls = \"disable\"\n\
             admin = {{ user = \"{admin}\", password_file = \"{file}\" }}\n",
            wire = self.wire.address().port(),
            port = self.cluster.port(),
            admin = admin_role::ADMIN,
            file = self.password_file.display(),
        )
    }

    fn recipe_toml(&self, group: &str) -> String {
        format!("{{ member_of = [\"{group}\"], connection_limit = 5 }}")
    }

    fn wire(&self) -> (&StallingProxy, &'static str) {
        (&self.wire, "SCRAM-SHA-256$")
    }

    async fn leased(&self) -> Seen<Vec<Role>> {
        self.superuser.query(LEASED, &[]).await.map_err(failed)?.iter().map(role).collect()
    }

    async fn login(&self, credential: &Credential) -> Seen<Box<dyn Session>> {
        let client = connect(&self.route_of(credential)?).await.map_err(failed)?;
        Ok(Box::new(Open(client)))
    }

    async fn accepts(&self, credential: &Credential) -> Seen<bool> {
        match connect(&self.route_of(credential)?).await {
            Ok(_) => Ok(true),
            Err(error) if error.code().is_some_and(|code| REFUSALS.contains(code)) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    fn attacker(&self) -> Option<&dyn Attacker> {
        Some(self)
    }
}

/// An open session.
struct Open(Client);

#[async_trait]
impl Session for Open {
    async fn read(&self) -> Seen {
        let row = self.0.query_one("SELECT count(*) FROM orders", &[]).await.map_err(failed)?;
        Ok(row.try_get::<_, i64>(0)?.to_string())
    }

    async fn delete(&self) -> Seen<Option<String>> {
        match self.0.batch_execute("DELETE FROM orders").await {
            Ok(()) => Err(Failure::new("the orders were deleted")),
            Err(error) => {
                ensure(error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE), || told(&error))?;
                Ok(Some(told(&error)))
            }
        }
    }

    async fn work_until_cut(&self) -> Seen {
        match self.0.batch_execute("SELECT pg_sleep(60)").await {
            Ok(()) => Err(Failure::new("the query ran to its end")),
            Err(error) => {
                let cut = error.code() == Some(&SqlState::ADMIN_SHUTDOWN) || error.is_closed();
                ensure(cut, || format!("it ended otherwise: {}", told(&error)))?;
                Ok(told(&error))
            }
        }
    }

    async fn answers(&self) -> bool {
        tokio::time::timeout(PATIENCE, self.0.batch_execute("SELECT 1")).await.is_ok_and(|done| done.is_ok())
    }
}
