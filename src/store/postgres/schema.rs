//! The schema and the identity of a store: brought up to date, or refused, in one transaction.

use leasehold_law::journal::ChainId;
use tokio_postgres::Row;

use super::fault::Fault;
use super::link::Link;
use super::{Options, StoreError, column};
use crate::store::INCARNATION;

/// Each brings a store from the version before it to its own; the first is version 1. None is ever changed.
pub(super) const MIGRATIONS: [&str; 4] = [
    include_str!("migrations/0001_rows_journal_and_brokers.sql"),
    include_str!("migrations/0002_tokens.sql"),
    include_str!("migrations/0003_agents.sql"),
    include_str!("migrations/0004_people.sql"),
];
/// Brokers that start at the same time take turns: `leasehold store` in bytes.
const TURN: &str = "SELECT pg_advisory_xact_lock(x'6c686c6473746f72'::bigint)";

/// Checks whose store it is, brings its schema up to date, and gives the chain that this broker's journal continues.
///
/// # Errors
/// [`StoreError::Newer`] for a schema from the future, [`StoreError::Foreign`] for another installation's store or
/// one with the other stamp (RULES R-19); the store is then as it was.
pub(super) async fn prepare(link: &Link, options: &Options) -> Result<ChainId, StoreError> {
    link.run("BEGIN").await?;
    let prepared = prepare_inside(link, options).await;
    match &prepared {
        Ok(_) => link.run("COMMIT").await?,
        // What cannot be taken back here is taken back by the end of the connection.
        Err(_) => drop(link.run("ROLLBACK").await),
    }
    prepared
}

async fn prepare_inside(link: &Link, options: &Options) -> Result<ChainId, StoreError> {
    link.run(TURN).await?;
    let found = version(link).await?;
    if found > 0 {
        check_identity(link, options).await?;
    }
    migrate(link, found).await?;
    if found == 0 {
        write_identity(link, options).await?;
    }
    let incarnation = incarnation(link).await?;
    Ok(ChainId::new(&options.broker, incarnation))
}

/// Checks whose store it is without touching it; `false` where there is none yet.
///
/// # Errors
/// As [`prepare`].
pub(super) async fn identify(link: &Link, options: &Options) -> Result<bool, StoreError> {
    let there = there(link).await?.1 && known_version(link).await? > 0;
    if there {
        check_identity(link, options).await?;
    }
    Ok(there)
}

async fn version(link: &Link) -> Result<u32, StoreError> {
    let (schema, versions) = there(link).await?;
    // Where somebody else made the schema for it, the broker needs no right to make one.
    if !schema {
        link.run("CREATE SCHEMA leasehold").await?;
    }
    if !versions {
        link.run("CREATE TABLE leasehold.schema_version (version integer NOT NULL)").await?;
        return Ok(0);
    }
    known_version(link).await
}

/// Whether there is a schema, and a table of its versions in it.
async fn there(link: &Link) -> Result<(bool, bool), StoreError> {
    const THERE: &str = "SELECT to_regnamespace('leasehold') IS NOT NULL, \
        to_regclass('leasehold.schema_version') IS NOT NULL";
    let row = one(link.rows(THERE, &[]).await?)?;
    Ok((column(&row, 0)?, column(&row, 1)?))
}

async fn known_version(link: &Link) -> Result<u32, StoreError> {
    let row = one(link.rows("SELECT coalesce(max(version), 0) FROM leasehold.schema_version", &[]).await?)?;
    let found = u32::try_from(column::<i32>(&row, 0)?).unwrap_or(u32::MAX);
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    if found > known { Err(StoreError::Newer { found, known }) } else { Ok(found) }
}

async fn migrate(link: &Link, found: u32) -> Result<(), Fault> {
    for (version, sql) in (1_u32..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        link.run(sql).await?;
        link.run(&format!("INSERT INTO leasehold.schema_version VALUES ({version})")).await?;
    }
    Ok(())
}

async fn write_identity(link: &Link, options: &Options) -> Result<(), Fault> {
    const IDENTITY: &str = "INSERT INTO leasehold.identity (one, installation, stamp) VALUES (1, $1, $2)";
    link.rows(IDENTITY, &[&options.installation, &options.stamp.name()]).await?;
    link.rows("INSERT INTO leasehold.numbers (name, value) VALUES ($1, 1)", &[&INCARNATION]).await?;
    Ok(())
}

async fn check_identity(link: &Link, options: &Options) -> Result<(), StoreError> {
    let row = one(link.rows("SELECT installation, stamp FROM leasehold.identity", &[]).await?)?;
    let (installation, stamp): (String, String) = (column(&row, 0)?, column(&row, 1)?);
    if installation != options.installation {
        return Err(StoreError::of_another_key(
            &format!("installation `{installation}`"),
            &options.installation,
        ));
    }
    if stamp == options.stamp.name() {
        return Ok(());
    }
    Err(StoreError::Foreign(options.stamp.refusal().to_owned()))
}

async fn incarnation(link: &Link) -> Result<u32, StoreError> {
    let found = link.row("SELECT value FROM leasehold.numbers WHERE name = $1", &[&INCARNATION]).await?;
    let missing = || StoreError::Unreadable("the incarnation is missing".to_owned());
    let value: i64 = column(&found.ok_or_else(missing)?, 0)?;
    u32::try_from(value).map_err(|_| missing())
}

fn one(mut rows: Vec<Row>) -> Result<Row, StoreError> {
    rows.pop().ok_or_else(|| StoreError::Unreadable("an answer without a row".to_owned()))
}
