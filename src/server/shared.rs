//! A store that several brokers share, and what must not be a target beside it.

use std::sync::Arc;

use leasehold_backend::{Entropy as _, Problem as BackendProblem};
use leasehold_law::hex::Hex;
use leasehold_law::principal::InstallationKey;

use super::{StartError, entropy};
use crate::config::{Config, Problem, SharedStore, Target};
use crate::store::postgres::{self, Options, Place, PostgresStore};
use crate::store::{Stamp, Store};

/// The backend that could have the store as its target.
const KIND: &str = "postgres";
const PORT: u64 = 5432;

pub(super) async fn open(
    config: &Config,
    shared: &SharedStore,
    stamp: Stamp,
    key: &InstallationKey,
) -> Result<Arc<dyn Store>, StartError> {
    let options = options(config, shared, stamp, key)?;
    Ok(Arc::new(PostgresStore::open(&options).await?))
}

/// The targets with live leases, if there is a store; takes nothing in it.
pub(super) async fn look(
    config: &Config,
    shared: &SharedStore,
    stamp: Stamp,
    key: &InstallationKey,
) -> Result<Option<Vec<String>>, StartError> {
    let options = options(config, shared, stamp, key)?;
    Ok(postgres::look(&options).await?)
}

fn options(
    config: &Config,
    shared: &SharedStore,
    stamp: Stamp,
    key: &InstallationKey,
) -> Result<Options, StartError> {
    let options = Options {
        url_file: shared.url_file.clone(),
        sslrootcert: shared.sslrootcert.clone(),
        verify: shared.verify,
        broker: config.broker.name.clone(),
        installation: key.installation(),
        holder: holder()?,
        stamp,
    };
    let problems = own_stores(config, &options.places()?);
    if problems.is_empty() { Ok(options) } else { Err(StartError::Config(problems)) }
}

/// What no other process calls itself.
fn holder() -> Result<String, StartError> {
    let mut bytes = [0; 16];
    entropy().fill(&mut bytes).map_err(|error| StartError::Host(error.to_string()))?;
    Ok(Hex(&bytes).to_string())
}

/// A lease on the store would be a lease on all that the broker knows (RULES R-9).
fn own_stores(config: &Config, store: &[Place]) -> Vec<Problem> {
    let targets = config.targets.values().filter(|target| target.backend == KIND);
    let own = targets
        .filter(|target| place(target).is_some_and(|place| store.iter().any(|store| store.is_same(&place))));
    let what = "is the broker's own store, which is no target: keep it in a database of its own, best on a server of \
                its own";
    own.map(|target| target.problem(&BackendProblem::new("/connect", what))).collect()
}

fn place(target: &Target) -> Option<Place> {
    let connect = target.table.get("connect")?;
    let port = connect.get("port").and_then(serde_json::Value::as_u64).unwrap_or(PORT);
    Some(Place {
        host: connect.get("host")?.as_str()?.to_owned(),
        port: u16::try_from(port).ok()?,
        dbname: connect.get("dbname")?.as_str()?.to_owned(),
    })
}
