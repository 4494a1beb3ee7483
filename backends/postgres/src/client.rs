//! Connections to one server: bounded pools, and a deadline on every wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType,
};
use leasehold_backend::{BackendError, Claim, Problem};
use leasehold_law::time::Timestamp;
use rustls::ClientConfig;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Config, NoTls, Row, SimpleQueryMessage};

use crate::claim::Expected;
use crate::config::{Route, Settings, Tls};
use crate::dial::{Dial, PasswordFile, connector, serve, tls_of};
use crate::error::Failure;
use crate::session;

const CONNECT: Duration = Duration::from_secs(5);
const ACQUIRE: Duration = Duration::from_secs(5);
/// Longer than the server's own, so that the server's answer is heard where there is one.
const ANSWER: Duration = Duration::from_secs(8);
/// Connections for revocations, one a call, so that neither mints nor each other hold them up.
const REVOKES: usize = leasehold_backend::REVOKE_CALLS;
/// Connections for everything else, so that a storm of revocations does not hide how the server is.
const OTHERS: usize = 4;

/// The server's own bound on a statement, and on its wait for a lock; as in [`SESSION`].
pub(crate) const STATEMENT: Duration = Duration::from_secs(6);
pub(crate) const LOCK: Duration = Duration::from_secs(2);

/// What every session sets, whatever the server, the database or the role set: deadlines, the catalog before anybody's
/// functions, commits that are on disk, and one way to write and read values.
const SESSION: &str = "-c statement_timeout=6000 -c lock_timeout=2000 -c idle_in_transaction_session_timeout=6000 \
    -c search_path=pg_catalog,pg_temp -c synchronous_commit=on -c default_transaction_read_only=off \
    -c default_transaction_isolation=read\\ committed -c standard_conforming_strings=on -c timezone=UTC \
    -c datestyle=ISO -c client_min_messages=error -c jit=off";

/// What sessions for mints set besides: their plans are made once, perhaps while a catalog is small, and stay right when
/// it has grown by thousands of leases.
const BY_INDEX: &str = "-c enable_seqscan=off";

/// One server, as one login.
#[derive(Debug)]
pub(crate) struct Server {
    label: String,
    user: String,
    database: String,
    mints: Pool,
    revokes: Pool,
    others: Pool,
    claims: Pool,
    expected: Arc<Expected>,
    /// One more whenever sessions that were opened before may lead to another server.
    epoch: AtomicU64,
    tls: Option<Arc<ClientConfig>>,
}

/// What a connection is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Minting and renewing.
    Mints,
    /// Revoking.
    Revokes,
    /// Asking whose the server is, and claiming it: the only one that takes any server.
    Claims,
    /// Everything else.
    Others,
}

impl Server {
    /// The server behind a target's settings. Reads the files that they name; dials nothing.
    ///
    /// # Errors
    /// Where a file cannot be read, or holds something else.
    pub(crate) fn open(target: &str, settings: &Settings) -> Result<Self, Vec<Problem>> {
        let tls = tls_of(settings).map_err(|problem| vec![problem])?;
        let mut config = config_of(&settings.connect, settings.tls);
        config.user(&settings.user).application_name("leasehold");
        let password = PasswordFile::open(settings).map_err(|problem| vec![problem])?;
        let expected = Arc::new(Expected::default());
        let pool = |size, options: &str, first, expected| {
            let dial = Dial { tls: tls.clone(), password: password.clone(), first, expected };
            pool_of(config.clone().options(options).clone(), dial, size)
        };
        let ours = |strictly| Some((expected.clone(), strictly));
        let problem = |error| vec![Problem::new("/pool", format!("cannot be made: {error}"))];
        Ok(Self {
            label: format!("{target} at {}", place(&settings.connect)),
            user: settings.user.clone(),
            database: settings.connect.dbname.clone(),
            mints: pool(
                settings.pool,
                &format!("{SESSION} {BY_INDEX}"),
                Some(session::functions()),
                ours(true),
            )
            .map_err(problem)?,
            revokes: pool(REVOKES, SESSION, None, ours(false)).map_err(problem)?,
            others: pool(OTHERS, SESSION, None, ours(false)).map_err(problem)?,
            claims: pool(1, SESSION, None, None).map_err(problem)?,
            epoch: AtomicU64::new(0),
            expected,
            tls,
        })
    }

    /// The target and where it is, for messages.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// A connection of the pool.
    ///
    /// # Errors
    /// Where none is to be had within the deadline, or the server refuses the broker's login.
    pub(crate) async fn conn(&self, lane: Lane) -> Result<Conn<'_>, BackendError> {
        self.conn_or_why(lane).await.map_err(|none| none.error)
    }

    /// As [`Server::conn`], with whose fault it is.
    pub(crate) async fn conn_or_why(&self, lane: Lane) -> Result<Conn<'_>, NoConn> {
        let pool = match lane {
            Lane::Mints => &self.mints,
            Lane::Revokes => &self.revokes,
            Lane::Claims => &self.claims,
            Lane::Others => &self.others,
        };
        let epoch = self.epoch.load(Ordering::Acquire);
        let none = |error| NoConn {
            all_in_use: matches!(error, PoolError::Timeout(TimeoutType::Wait)),
            error: self.refused(error.into()),
        };
        Ok(Conn { server: self, epoch, object: Some(pool.get().await.map_err(none)?) })
    }

    /// From now on sessions are opened on the server with this claim alone, if there is one; what was opened on
    /// whichever is closed.
    pub(crate) fn expect(&self, claim: Option<&Claim>) {
        if self.expected.set(claim) {
            self.renew();
        }
    }

    /// Closes what is open: it may lead to another server than the next connection. What is in use is closed as soon as
    /// it is not.
    pub(crate) fn renew(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        for pool in [&self.mints, &self.revokes, &self.others] {
            pool.retain(|_, _| false);
        }
    }

    /// Whose the server is to be.
    pub(crate) fn expected(&self) -> &Expected {
        &self.expected
    }

    /// Says whose login it was that the server refused, or which privilege its session lacks.
    fn refused(&self, failure: Failure) -> BackendError {
        if failure.is(&SqlState::INSUFFICIENT_PRIVILEGE) {
            let fix = session::grant(&self.database, &self.user);
            return BackendError::Refused { what: failure.text(), fix: Some(fix) };
        }
        if !is_refusal(&failure) {
            return failure.sorted(&self.label);
        }
        let what =
            format!("{} refused the broker's login as `{}`: {}", self.label, self.user, failure.text());
        let fix = "put the password of that role into `admin.password_file`, and let it log in".to_owned();
        BackendError::Refused { what, fix: Some(fix) }
    }

    /// Logs in as somebody else by the given route, runs a statement, and logs out again.
    ///
    /// # Errors
    /// What the server said, or that it said nothing.
    pub(crate) async fn login(
        &self,
        route: &Route,
        tls: Tls,
        user: &str,
        password: &[u8],
    ) -> Result<(), Failure> {
        let mut config = config_of(route, tls);
        config.user(user).password(password);
        let connector = self.tls.as_ref().map(connector);
        let used = async {
            let (client, _) = match connector.filter(|_| tls == Tls::VerifyFull) {
                Some(connector) => serve(config.connect(connector).await?),
                None => serve(config.connect(NoTls).await?),
            };
            // A pooler may let in whom its server would not: only a statement reaches the server for sure.
            client.batch_execute("SELECT 1").await
        };
        timeout(CONNECT, used)
            .await
            .map_err(|_| Failure::silent("no answer to a login within the deadline"))?
            .map_err(Failure::from)
    }
}

/// Why there is no connection.
pub(crate) struct NoConn {
    /// Whether the broker itself had them all in use: the server was not asked for one.
    pub(crate) all_in_use: bool,
    pub(crate) error: BackendError,
}

/// Whether the server refused a login: 28000 and 28P01.
pub(crate) fn is_refusal(failure: &Failure) -> bool {
    failure.is(&SqlState::INVALID_PASSWORD) || failure.is(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

/// A parameter with its type, so that a query takes one round trip.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A connection that is in use.
#[derive(Debug)]
pub(crate) struct Conn<'a> {
    server: &'a Server,
    epoch: u64,
    object: Option<Object>,
}

impl Conn<'_> {
    /// Closes the connection, so that the next is a new one.
    pub(crate) fn close(mut self) {
        drop(self.object.take().map(Object::take));
    }

    /// The target, for messages.
    pub(crate) fn label(&self) -> &str {
        self.server.label()
    }

    /// Runs statements in one message, and so in one transaction.
    pub(crate) async fn run(&mut self, statements: &str) -> Result<(), Failure> {
        self.within(async |object| object.batch_execute(statements).await).await
    }

    /// Runs statements in one message, and gives the first value of the last row that any of them gave.
    pub(crate) async fn run_for_value(&mut self, statements: &str) -> Result<Option<String>, Failure> {
        let messages = self.within(async |object| object.simple_query(statements).await).await?;
        let value = |message: &SimpleQueryMessage| {
            if let SimpleQueryMessage::Row(row) = message { row.get(0).map(str::to_owned) } else { None }
        };
        Ok(messages.iter().rev().find_map(value))
    }

    /// Runs a query in a transaction of its own.
    pub(crate) async fn rows(&mut self, query: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Failure> {
        self.within(async |object| object.query_typed(query, params).await).await
    }

    /// Calls a function that its session made. The statement is prepared once a session, for the same reason.
    pub(crate) async fn call(&mut self, query: &str, params: &[Param<'_>]) -> Result<Row, Failure> {
        let (values, types): (Vec<_>, Vec<_>) = params.iter().cloned().unzip();
        let ask = async |object: &Object| {
            let statement = object.prepare_typed_cached(query, &types).await?;
            object.query_one(&statement, &values).await
        };
        self.within(ask).await
    }

    /// Runs a query that gives one row.
    pub(crate) async fn row(&mut self, query: &str, params: &[Param<'_>]) -> Result<Row, Failure> {
        let mut rows = self.rows(query, params).await?;
        rows.pop().ok_or_else(|| Failure::silent("an answer without a row"))
    }

    /// Waits for an answer, but not for ever. A connection that owes one is never used again.
    async fn within<T>(
        &mut self,
        ask: impl AsyncFnOnce(&Object) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Failure> {
        let Some(object) = self.object.take() else { return Err(Failure::silent("the connection was lost")) };
        let mut busy = Busy(Some(object));
        let Some(object) = &busy.0 else { return Err(Failure::silent("the connection was lost")) };
        let answer = timeout(ANSWER, ask(object)).await;
        let answer = answer.map_err(|_| Failure::silent("no answer within the deadline"))?;
        self.object = busy.0.take();
        answer.map_err(Failure::from)
    }
}

impl Drop for Conn<'_> {
    fn drop(&mut self) {
        if self.epoch != self.server.epoch.load(Ordering::Acquire) {
            drop(self.object.take().map(Object::take));
        }
    }
}

/// A connection that owes an answer. Whoever stops waiting for it, by a deadline or by going away, closes it.
struct Busy(Option<Object>);

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

/// A value of a row.
pub(crate) fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    name: &str,
) -> Result<T, Failure> {
    row.try_get(name).map_err(Failure::from)
}

/// A time that a query gave in whole milliseconds.
pub(crate) fn time_column(row: &Row, name: &str) -> Result<Timestamp, Failure> {
    column(row, name).map(Timestamp)
}

fn pool_of(config: Config, dial: Dial, size: usize) -> Result<Pool, deadpool_postgres::BuildError> {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    Pool::builder(Manager::from_connect(config, dial, recycling))
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(ACQUIRE))
        .create_timeout(Some(CONNECT))
        .recycle_timeout(Some(CONNECT))
        .build()
}

fn config_of(route: &Route, tls: Tls) -> Config {
    let mut config = Config::new();
    if route.is_socket() {
        config.host_path(&route.host);
    } else {
        config.host(&route.host);
    }
    let mode = match tls {
        Tls::VerifyFull => SslMode::Require,
        Tls::Disable => SslMode::Disable,
    };
    config.port(route.port).dbname(&route.dbname).ssl_mode(mode);
    config.connect_timeout(CONNECT).tcp_user_timeout(ANSWER).keepalives_idle(Duration::from_secs(30));
    config
}

fn place(route: &Route) -> String {
    format!("{}:{}/{}", route.host, route.port, route.dbname)
}
