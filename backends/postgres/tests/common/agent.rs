//! What agents do to a target, well-meaning and not.

use std::time::Duration;

use async_trait::async_trait;
use leasehold_backend::Credential;
use leasehold_backend::conformance::{Estate, Failure, LateLogin, Session};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls};

use super::{Site, half_way};

/// An open session.
pub(crate) struct Open(pub(crate) Client);

#[async_trait]
impl Session for Open {
    async fn works(&self) -> bool {
        timeout(Duration::from_secs(10), self.0.simple_query("SELECT 1")).await.is_ok_and(|done| done.is_ok())
    }
}

/// A credential as its holder uses it.
pub(crate) fn config(credential: &Credential) -> Config {
    let public = |key: &str| credential.public[key].as_str();
    let mut config = Config::new();
    config
        .host(public("host"))
        .port(public("port").parse().unwrap())
        .dbname(public("dbname"))
        .user(public("user"));
    config.password(credential.secret["password"].expose());
    config
}

/// Logs in.
pub(crate) async fn login(config: Config) -> Result<Client, Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Logs in; `None` where the server refuses.
pub(crate) async fn connect(credential: &Credential) -> Result<Option<Box<dyn Session>>, Failure> {
    match login(config(credential)).await {
        Ok(client) => Ok(Some(Box::new(Open(client)))),
        Err(error) if refused(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn refused(error: &Error) -> bool {
    let refusals = [SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION];
    error.code().is_some_and(|code| refusals.contains(code))
}

/// A login that stays half-way for some seconds after the server has checked its role.
pub(crate) struct Delayed(pub(crate) JoinHandle<Result<Client, Error>>);

impl Delayed {
    /// Starts it, with options of its own, and waits until the server has checked its role.
    pub(crate) async fn start(credential: &Credential, seconds: u32, options: &str) -> Self {
        let root = Site::shared().root().await;
        let before = half_way(&root).await;
        let mut config = config(credential);
        config.options(format!("-c post_auth_delay={seconds} {options}"));
        let task = tokio::spawn(login(config));
        // A login that is only slow is through in a moment; one that is there at two looks is asleep.
        let mut asleep = false;
        for _ in 0..100 {
            let first = half_way(&root).await;
            tokio::time::sleep(Duration::from_millis(150)).await;
            let second = half_way(&root).await;
            asleep = first.iter().any(|pid| !before.contains(pid) && second.contains(pid));
            if asleep || task.is_finished() {
                break;
            }
        }
        assert!(asleep, "the login was never half-way");
        Self(task)
    }
}

#[async_trait]
impl LateLogin for Delayed {
    async fn arrive(self: Box<Self>) -> Option<Box<dyn Session>> {
        let client = self.0.await.unwrap().ok()?;
        Some(Box::new(Open(client)))
    }
}

/// A function that runs with its owner's rights, a table, a trigger and a view.
pub(crate) struct Trap;

const TRAP: &str = "CREATE FUNCTION work.trap_NAME() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS \
        $$ BEGIN EXECUTE 'ALTER ROLE boss CREATEROLE'; RETURN NEW; END $$; \
    CREATE TABLE work.bait_NAME(n int); \
    CREATE TRIGGER t BEFORE INSERT ON work.bait_NAME FOR EACH ROW EXECUTE FUNCTION work.trap_NAME(); \
    CREATE VIEW work.view_NAME AS SELECT * FROM work.bait_NAME; \
    CREATE TEMP TABLE scratch(n int)";

impl Trap {
    /// Lays it, as the agent.
    pub(crate) async fn lay(credential: &Credential) -> Self {
        let client = login(config(credential)).await.unwrap();
        client.batch_execute(&TRAP.replace("NAME", &credential.public["user"])).await.unwrap();
        Self
    }
}

#[async_trait]
impl Estate for Trap {
    async fn is_powerless(&self) -> Result<(), Failure> {
        let root = Site::shared().root().await;
        let query = "SELECT p.proname::text, r.rolname::text FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner \
            WHERE p.pronamespace = 'work'::regnamespace AND r.rolname::text !~ '^lh[0-9a-v]{30}$'";
        let rows = root.query(query, &[]).await?;
        match rows.first() {
            None => Ok(()),
            Some(row) => {
                Err(Failure::new(format!("{} has {}", row.get::<_, String>(1), row.get::<_, String>(0))))
            }
        }
    }
}
