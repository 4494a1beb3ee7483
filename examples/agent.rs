//! An agent that reads orders and leaves no credential behind. Run it against `leasehold dev`:
//!
//! ```sh
//! leasehold dev --postgres postgres://localhost/app &
//! eval "$(leasehold dev env triage)" && cargo run --example agent
//! ```

// The SDK is all that an agent needs. It holds no password, no key file and no token of the broker: who this
// process is, SPIFFE proves, and the SDK fetches and renews that proof by itself.
use leasehold_client::Client;
// Any PostgreSQL client will do; leases give it a user and a password like any other.
use tokio_postgres::{Config, NoTls};

// What this agent means to do, and where: names that the operator chose. They are said twice below, once to open
// the task and once to lease, so they stand here once.
const READ: &str = "db.read@local";

// One thread is enough, and a busy one does no harm: the SDK's heartbeats run on a thread of their own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Where the broker is comes from the environment, and never from a repository: who may set it decides whom this
    // process trusts. The broker must prove its own SPIFFE ID before anything is sent.
    let client = Client::from_env().await?;

    // The unit of work. Everything leased hangs on it and dies with it, in good order or not.
    let task = client
        .task()
        // No more than this task needs: what is not in its scope is refused, however the agent is talked into it.
        .scope(READ)
        // For the people who read the record later. It decides nothing, so there is no gain in writing more.
        .purpose("count the tables for the morning report")
        // How to find this run again: `leasehold task list --ref run=8812`.
        .refs([("run", "8812")])
        // From here on the broker hears from us every third of the grace. Should this process be killed, it hears
        // nothing, and ends the task and the lease itself.
        .open()
        .await?;

    // Minted now, for us, by name: the database knows this role, and its log will. The SDK renews it in time, as
    // far as the grant's life allows.
    let db = task.lease(READ).await?;

    // `?` above or below is safe: a task that is dropped without `complete` is aborted, and its leases revoked.
    let tables = tokio::select! {
        counted = count_tables(&db) => counted?,
        // Narrowed scope, a changed policy, an operator at 02:13: stop the work rather than let it fail half-way.
        cause = db.ended() => return Err(format!("the lease ended under us: {cause}").into()),
    };
    // The result may be shown. The credential never was: its types have no `Debug` and no `Display`.
    tracing::info!(tables, "counted");

    // Done. The answer says what is confirmed dead and what is still pending; the broker goes on with the latter,
    // so it is worth a line in the log and no more.
    let ending = task.complete().await?;
    tracing::info!(%ending, "completed");
    Ok(())
}

/// The work itself, which knows nothing of leases.
async fn count_tables(db: &leasehold_client::Lease) -> Result<i64, Box<dyn std::error::Error>> {
    // Taken when it is needed, and not kept: a renewal may have brought a new one.
    let credential = db.credential();
    let mut config = Config::new();
    // What is not secret is plain text by name; `db.dsn()` gives all of it as one URL for clients that want that.
    config.host(credential.part("host").unwrap_or("localhost"));
    config.port(credential.part("port").unwrap_or("5432").parse()?);
    config.user(credential.part("user").unwrap_or_default());
    config.dbname(credential.part("dbname").unwrap_or_default());
    // The one place where the secret is exposed, and it goes straight to the client.
    config.password(credential.expose("password").unwrap_or_default());
    // A database on this machine. For any other, pass a TLS connector here, as you would without leases.
    let (client, connection) = config.connect(NoTls).await?;
    // tokio-postgres wants its connection driven beside the client; it ends when the client is dropped.
    tokio::spawn(connection);
    Ok(client.query_one("select count(*) from information_schema.tables", &[]).await?.get(0))
}
