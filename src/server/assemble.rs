//! From a checked config to a broker: key, store, clock, targets, versions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use leasehold_backend::{Backend, Claim, Entropy};
use leasehold_law::catalog::Recipe;
use leasehold_law::principal::InstallationKey;
use leasehold_law::scope::Pair;
use leasehold_law::subject::Subject;
use leasehold_law::time::Timestamp;

use super::{Start, StartError, clock, shared};
use crate::broker::{Broker, Keeping, Parts, Restored, TaskLimits};
use crate::config::{Config, Problem, Store as StoreConfig, Trust, read_installation_key};
use crate::entropy::SystemEntropy;
use crate::ledger::{HIGH_WATER, Ledger};
use crate::registry::Registry;
use crate::store::sqlite::{self, Options, SqliteStore, Writer};
use crate::store::{INCARNATION, RESTORE_TAKEN, RESTORED, Stamp, Store, StoreError};
use crate::vault_door::{TargetPart, VaultDoor};

/// A broker that has not started, and what its start must look at.
pub(super) struct Assembled {
    pub(super) broker: Broker,
    /// Config subjects that differ from the last run.
    pub(super) changed: Vec<Subject>,
}

pub(super) async fn broker(config: &Config, start: &Start) -> Result<Assembled, StartError> {
    let key = read_installation_key(&config.broker.installation_key, start.trust)?;
    let store = open_store(config, start.trust, &key).await?;
    if !start.force {
        abandoned(config, store.live_targets().await?).next().map_or(Ok(()), Err)?;
    }
    let clock = clock(start.time.clone(), store.number(HIGH_WATER).await?);
    let entropy: Arc<dyn Entropy> = SystemEntropy::new(clock.clone());
    let targets = open_targets(config, start, &entropy)?;
    let ledger = Ledger::new(store.clone(), clock.clone());
    let settled = ledger.settle_config(&config.digests).await;
    let settled = settled.map_err(|error| StartError::Recover(error.to_string()))?;
    let registry = Registry::new(config.catalog.as_ref().clone(), config.engine.clone(), settled.versions)
        .in_domain(&config.broker.trust_domain, config.identity.spiffe.federates_with.clone());
    let keeping = keeping(config, &key, store.as_ref()).await?;
    let door = VaultDoor::new(targets, clock.clone());
    let tasks = TaskLimits {
        grace: config.tasks.grace,
        default_deadline: config.tasks.default_deadline,
        max_deadline: config.tasks.max_deadline,
    };
    let (quotas, name) = (config.quotas.clone(), config.broker.name.clone());
    let broker =
        Broker::new(Parts { clock, entropy, ledger, door, registry, key, tasks, quotas, name, keeping });
    Ok(Assembled { broker, changed: settled.changed })
}

async fn open_store(
    config: &Config,
    trust: Trust,
    key: &InstallationKey,
) -> Result<Arc<dyn Store>, StartError> {
    match &config.store {
        StoreConfig::Sqlite(path) => open_sqlite(store_options(config, path, trust, key)).await,
        StoreConfig::Postgres(shared) => shared::open(config, shared, stamp(trust), key).await,
    }
}

async fn open_sqlite(options: Options) -> Result<Arc<dyn Store>, StartError> {
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&options)).await;
    Ok(Arc::new(opened.map_err(|error| StoreError::Unusable(error.to_string()))??))
}

/// What is live in a store, by target, without opening it as its broker would; `None` where there is no store yet.
pub(super) async fn look(config: &Config, trust: Trust) -> Result<Option<Vec<String>>, StartError> {
    let key = read_installation_key(&config.broker.installation_key, trust)?;
    match &config.store {
        StoreConfig::Sqlite(path) => {
            let options = store_options(config, path, trust, &key);
            let looked = tokio::task::spawn_blocking(move || sqlite::look(&options)).await;
            Ok(looked.map_err(|error| StoreError::Unusable(error.to_string()))??)
        }
        StoreConfig::Postgres(shared) => shared::look(config, shared, stamp(trust), &key).await,
    }
}

/// A target that was renamed or left out takes nothing with it: its leases could never be revoked.
pub(super) fn abandoned(config: &Config, live: Vec<String>) -> impl Iterator<Item = StartError> {
    let gone = live.into_iter().filter(|target| !config.targets.contains_key(target));
    gone.map(|target| StartError::Abandoned { target })
}

/// Where the one file is, and whose.
pub(super) fn store_options(config: &Config, path: &Path, trust: Trust, key: &InstallationKey) -> Options {
    Options {
        path: path.to_owned(),
        chain: config.broker.name.clone(),
        key: key.clone(),
        stamp: stamp(trust),
        writer: Writer::Thread,
        cache_mib: CACHE_MIB,
    }
}

const fn stamp(trust: Trust) -> Stamp {
    match trust {
        Trust::Production => Stamp::Production,
        Trust::Dev => Stamp::Dev,
    }
}

/// Small enough for an idle broker of 40 MB; the store gives it back after half a minute without writes.
const CACHE_MIB: u16 = 16;

fn open_targets(
    config: &Config,
    start: &Start,
    entropy: &Arc<dyn Entropy>,
) -> Result<BTreeMap<String, TargetPart>, StartError> {
    let mut problems = Vec::new();
    let mut parts = BTreeMap::new();
    for (name, target) in &config.targets {
        let Some(kind) = start.kinds.iter().find(|kind| kind.name() == target.backend) else { continue };
        match kind.open(name, &target.table, entropy.clone()) {
            Ok(backend) => {
                let grants = grants_of(config, name);
                problems.extend(recipe_problems(config, backend.as_ref(), &grants));
                parts.insert(name.clone(), TargetPart { kind: target.backend.clone(), backend, grants });
            }
            Err(found) => problems.extend(found.iter().map(|problem| target.problem(problem))),
        }
    }
    if problems.is_empty() { Ok(parts) } else { Err(StartError::Config(problems)) }
}

pub(super) fn grants_of(config: &Config, target: &str) -> Vec<(Pair, Recipe)> {
    let of_target = config.catalog.grants.values().filter(|grant| grant.pair.target == target);
    of_target.map(|grant| (grant.pair.clone(), grant.recipe.clone())).collect()
}

fn recipe_problems(config: &Config, backend: &dyn Backend, grants: &[(Pair, Recipe)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (pair, recipe) in grants {
        for found in backend.check_recipe(recipe) {
            let what = format!("the recipe of {pair}: {}", found.what);
            problems.extend(config.recipe_place(pair, &found.pointer).map(|place| Problem::at(place, what)));
        }
    }
    problems
}

/// How targets are claimed, swept, and brought into agreement with a store that was restored.
async fn keeping(config: &Config, key: &InstallationKey, store: &dyn Store) -> Result<Keeping, StartError> {
    let incarnation = store.number(INCARNATION).await?.and_then(|number| u32::try_from(number).ok());
    let claim = Claim { installation: key.installation(), incarnation: incarnation.unwrap_or(1), term: 0 };
    let restored = match (store.number(RESTORE_TAKEN).await?, store.number(RESTORED).await?) {
        (Some(taken_at), Some(at)) => Some(Restored { taken_at: Timestamp(taken_at), at: Timestamp(at) }),
        (None, _) | (_, None) => None,
    };
    Ok(Keeping {
        claim,
        restored,
        sweep_every: config.sweep.every,
        drill_every: config.drill.every,
        retention: config.retention,
    })
}
