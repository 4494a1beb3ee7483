//! The broker's host: starts it on what the last life left, and starts it again when it dies or is told to stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use leasehold::broker::{Broker, Keeping, Parts, TaskLimits};
use leasehold::clock::Clock;
use leasehold::ledger::{HIGH_WATER, Ledger};
use leasehold::registry::Registry;
use leasehold::store::sqlite::{Options, SqliteStore, Writer};
use leasehold::store::{Stamp, Store};
use leasehold::vault_door::{TargetPart, VaultDoor};
use leasehold_backend::Claim;
use leasehold_law::principal::InstallationKey;
use leasehold_law::time::{Span, Timestamp};
use zeroize::Zeroizing;

use crate::disk::SimStore;
use crate::ground::{Ground, VERSIONS, ground, quotas};
use crate::life::{Life, pause};
use crate::target::SimBackend;
use crate::time::Bits;
use crate::world::{Skip, World};

/// How long a broker that is told to stop may go on with what is under way; as in src/server.rs.
const DRAIN: Duration = Duration::from_secs(10);

/// Keeps a broker running for as long as the world lasts.
pub(crate) async fn run(world: Arc<World>) {
    for number in 1.. {
        let life = Life::begin(&world);
        let booted = tokio::select! {
            biased;
            () = life.over() => Err("it died".to_owned()),
            booted = boot(&world, &life, number) => booted,
        };
        match booted {
            Ok(broker) => serve(&world, &life, broker, number).await,
            Err(error) => world.history.note(format!("life {number} does not begin: {error}")),
        }
        life.end();
        world.disk.close();
        pause(world.dice.millis(50, 6000)).await;
    }
}

/// Serves until it dies, or is told to stop.
async fn serve(world: &Arc<World>, life: &Life, broker: Broker, number: u64) {
    world.history.note(format!("life {number} serves"));
    life.hindrance.note(world);
    let sweep = tokio::spawn(sweep(world.clone(), broker.clone()));
    world.serve(Some((broker.clone(), life.clone())));
    tokio::select! {
        biased;
        () = life.over() => {}
        () = planned_stop(world) => {
            world.history.note(format!("life {number} is told to stop"));
            broker.drain();
            let _stopping = world.hindrance.begin(world, true);
            tokio::select! {
                biased;
                () = life.over() => {}
                drained = tokio::time::timeout(DRAIN, broker.drained()) => {
                    world.history.note(format!("life {number} stops, all done: {}", drained.is_ok()));
                }
            }
        }
    }
    world.serve(None);
    sweep.abort();
}

async fn sweep(world: Arc<World>, broker: Broker) {
    while world.skip == Some(Skip::Sweep) && !world.weather.is_calm() {
        pause(Duration::from_secs(1)).await;
    }
    broker.sweep().await;
}

/// Some brokers are told to stop, while the weather lasts.
async fn planned_stop(world: &World) {
    if world.dice.chance(400) {
        pause(world.dice.millis(5000, 60_000)).await;
        if !world.weather.is_calm() {
            return;
        }
    }
    std::future::pending::<()>().await;
}

async fn boot(world: &Arc<World>, life: &Life, number: u64) -> Result<Broker, String> {
    let key = InstallationKey::new(Zeroizing::new([7; InstallationKey::BYTES]));
    let options = Options {
        path: world.dir.join("leases.db"),
        chain: "sim".to_owned(),
        key: key.clone(),
        stamp: Stamp::Dev,
        writer: Writer::Inline,
        cache_mib: 1,
    };
    world.disk.put(SqliteStore::open(&options).map_err(|error| error.to_string())?);
    let store: Arc<dyn Store> = Arc::new(SimStore { world: world.clone(), life: life.clone() });
    let high_water = store.number(HIGH_WATER).await.map_err(|error| error.to_string())?;
    let clock = Arc::new(Clock::new(world.time.clone(), high_water.map(Timestamp)));
    let ledger = Ledger::new(store.clone(), clock.clone());
    let version = if world.dice.chance(800) { 0 } else { world.dice.roll(VERSIONS as u64) };
    let ground = ground(usize::try_from(version).unwrap());
    let settled = ledger.settle_config(&ground.digests).await.map_err(|error| error.to_string())?;
    let claim = Claim { installation: key.installation(), incarnation: 1, place: String::new(), term: 0 };
    let broker = Broker::new(Parts {
        entropy: Bits::of_broker(world.seed.wrapping_mul(1000) + number, clock.clone()),
        door: VaultDoor::new(targets(world, life, ground), clock.clone()),
        registry: Registry::new(ground.catalog.clone(), ground.engine.clone(), settled.versions),
        tasks: TaskLimits {
            grace: Span::from_secs(30),
            default_deadline: Span::from_secs(60),
            max_deadline: Span::from_mins(10),
        },
        quotas: quotas(),
        keeping: Keeping {
            claim,
            restored: None,
            sweep_every: Span::from_mins(1),
            drill_every: None,
            retention: Span::from_mins(24 * 60),
        },
        name: "sim".to_owned(),
        clock,
        ledger,
        key,
    });
    broker.recover(&settled.changed).await.map_err(|error| error.to_string())?;
    Ok(broker)
}

fn targets(world: &Arc<World>, life: &Life, ground: &Ground) -> BTreeMap<String, TargetPart> {
    let mut parts = BTreeMap::new();
    for site in &world.sites {
        let backend = SimBackend { world: world.clone(), life: life.clone(), site: site.clone() };
        let of_site = ground.catalog.grants.values().filter(|grant| grant.pair.target == site.name);
        let grants = of_site.map(|grant| (grant.pair.clone(), grant.recipe.clone())).collect();
        let part = TargetPart { kind: "memory".to_owned(), backend: Arc::new(backend), grants };
        parts.insert(site.name.to_owned(), part);
    }
    parts
}
