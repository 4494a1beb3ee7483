//! One connection: a deadline on every wait, and statements that stay prepared.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::Address;
use super::fault::Fault;

/// How long a server may take to let the broker in.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may take to answer: longer than its own limit, so that its answer is heard where there is one.
const ANSWER: Duration = Duration::from_secs(10);

/// What values are bound as.
pub(super) type Param<'a> = &'a (dyn ToSql + Sync);

/// Who wakes when another broker says that it has written.
#[derive(Clone)]
pub(super) struct Ear {
    /// Woken.
    pub(super) wake: Arc<Notify>,
    /// What this broker itself says: it is not woken by that.
    pub(super) own: String,
}

/// A connection. Requests on it go out at once and in order, whether or not those before are answered. Dropping it
/// closes it.
pub(super) struct Link {
    client: Client,
    statements: Mutex<HashMap<String, Statement>>,
    driver: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// Connects.
    pub(super) async fn open(address: &Address, ear: Option<Ear>) -> Result<Self, Fault> {
        let late = |_| Fault::Silent("no connection within the deadline".to_owned());
        match &address.tls {
            Some(tls) => {
                let connector = MakeRustlsConnect::new(rustls::ClientConfig::clone(tls));
                let opened = timeout(CONNECT, address.config.connect(connector)).await.map_err(late)??;
                Ok(Self::drive(opened, ear))
            }
            None => {
                let opened = timeout(CONNECT, address.config.connect(NoTls)).await.map_err(late)??;
                Ok(Self::drive(opened, ear))
            }
        }
    }

    fn drive<S, T>((client, connection): (Client, Connection<S, T>), ear: Option<Ear>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let driver = tokio::spawn(drive(connection, ear));
        Self { client, statements: Mutex::default(), driver }
    }

    /// Whether it is known to be gone.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs a statement without parameters.
    pub(super) async fn run(&self, sql: &str) -> Result<(), Fault> {
        answered(self.client.batch_execute(sql)).await
    }

    /// Makes statements ready, so that requests with them go out at their first poll.
    pub(super) async fn ready(&self, statements: &[&str]) -> Result<(), Fault> {
        for sql in statements {
            self.statement(sql).await?;
        }
        Ok(())
    }

    /// Runs a query.
    pub(super) async fn rows(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Fault> {
        let statement = self.statement(sql).await?;
        answered(self.client.query(&statement, params)).await
    }

    /// Runs a query that gives at most one row.
    pub(super) async fn row(&self, sql: &str, params: &[Param<'_>]) -> Result<Option<Row>, Fault> {
        Ok(self.rows(sql, params).await?.pop())
    }

    async fn statement(&self, sql: &str) -> Result<Statement, Fault> {
        let known = self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = answered(self.client.prepare(sql)).await?;
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

async fn answered<T>(answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Fault> {
    let late = |_| Fault::Silent("no answer within the deadline".to_owned());
    Ok(timeout(ANSWER, answer).await.map_err(late)??)
}

async fn drive<S, T>(mut connection: Connection<S, T>, ear: Option<Ear>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
        if let (AsyncMessage::Notification(said), Some(ear)) = (&message, &ear)
            && said.payload() != ear.own
        {
            ear.wake.notify_one();
        }
    }
}
