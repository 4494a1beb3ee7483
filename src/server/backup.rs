//! `leasehold backup` and `leasehold restore`: a store as a file, and a file as a store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::assemble::store_options;
use super::{StartError, kinds};
use crate::clock::TimeSource;
use crate::config::{Config, Store as StoreConfig, Trust, read_installation_key};
use crate::ledger::restored_entry;
use crate::store::StoreError;
use crate::store::sqlite::Options;
pub use crate::store::sqlite::backup::{Copied, PutBack};
use crate::store::sqlite::backup::{PutBackOptions, copy, put_back};

/// What to restore, and how.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The backup.
    pub from: PathBuf,
    /// Keep the store that is there aside, instead of refusing.
    pub replace: bool,
    /// The incarnation to be; otherwise one more than the highest that can be seen.
    pub incarnation: Option<u32>,
}

/// Copies the store of a config to a new file, while a broker may be writing.
///
/// # Errors
/// Where the config has problems, there is no store, the file exists, or the copy is not whole.
pub async fn backup(
    config: PathBuf,
    trust: Trust,
    to: PathBuf,
    time: Arc<dyn TimeSource>,
) -> Result<Copied, StartError> {
    let options = options(&config, trust, "pg_dump")?;
    blocking(move || copy(&options, &to, time.wall())).await
}

/// Puts a backup back as the store of a config, as a new incarnation (RULES R-12).
///
/// # Errors
/// Where the config has problems, a broker runs, there is a store that is not to be replaced, or the backup is not
/// whole or not this broker's.
pub async fn restore(
    config: PathBuf,
    trust: Trust,
    how: Restore,
    time: Arc<dyn TimeSource>,
) -> Result<PutBack, StartError> {
    let options = options(&config, trust, "pg_restore, or its point-in-time recovery")?;
    let now = time.wall();
    let put = PutBackOptions { replace: how.replace, incarnation: how.incarnation, now };
    let entry = move |copied: &Copied| restored_entry(&copied.head, copied.taken_at, now);
    match blocking(move || put_back(&options, &how.from, put, entry)).await {
        Err(StartError::Store(StoreError::Held(store))) => Err(StartError::Serving(store)),
        done => done,
    }
}

/// Of the one file. A server that several brokers share is copied and put back by its own tools.
fn options(config: &Path, trust: Trust, tool: &str) -> Result<Options, StartError> {
    let config = Config::load(config, &kinds(), trust).map_err(StartError::Config)?.config;
    match &config.store {
        StoreConfig::Sqlite(path) => {
            let key = read_installation_key(&config.broker.installation_key, trust)?;
            Ok(store_options(&config, path, trust, &key))
        }
        StoreConfig::Postgres(_) => Err(StoreError::Unusable(format!(
            "it is in PostgreSQL: use {tool}, and see docs/store-postgres.md for what is compared afterwards"
        ))
        .into()),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StartError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| StoreError::Unusable(error.to_string()))??)
}
