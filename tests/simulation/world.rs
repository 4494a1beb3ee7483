//! One world: a broker that dies and comes back, targets that live on, agents, operators, and the weather.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leasehold::broker::Broker;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::agents;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::ground::TARGETS;
use crate::history::{History, Told};
use crate::host;
use crate::life::{Life, pause};
use crate::operators;
use crate::punctual::{self, Hindrance};
use crate::quiet;
use crate::record::Record;
use crate::target::Site;
use crate::time::SimTime;
use crate::weather::Weather;

/// What a world leaves out, to show that somebody notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skip {
    /// The row that says what is about to be minted.
    Intent,
    /// The look into the target after a revocation, and the revocation with it.
    ReadBack,
    /// As long as the weather lasts, the look at what is due.
    Sweep,
    /// What a heartbeat is for.
    Heartbeats,
}

/// How many agents are at work.
const AT_WORK: usize = 4;

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) skip: Option<Skip>,
    pub(crate) dice: Dice,
    pub(crate) time: Arc<SimTime>,
    pub(crate) history: History,
    pub(crate) weather: Weather,
    pub(crate) record: Record,
    pub(crate) disk: Disk,
    /// What stands in everybody's way: a clock that steps, a disk that is full, a broker that stops.
    pub(crate) hindrance: Hindrance,
    /// Where the broker keeps its store; whoever lives through the world removes it.
    pub(crate) dir: PathBuf,
    pub(crate) sites: Vec<Arc<Site>>,
    /// Agents fall silent for good.
    pub(crate) silence: CancellationToken,
    serving: Mutex<Option<(Broker, Life)>>,
}

impl World {
    fn new(seed: u64, skip: Option<Skip>, dir: PathBuf) -> Arc<Self> {
        let time = SimTime::begin();
        let dice = Dice::of(seed);
        let site = |(name, grade): &(&'static str, _)| Site::new(name, *grade, &dice, time.clone());
        Arc::new(Self {
            seed,
            skip,
            history: History::new(time.clone()),
            weather: Weather::roll(&dice),
            record: Record::default(),
            disk: Disk::default(),
            hindrance: Hindrance::default(),
            dir,
            sites: TARGETS.iter().map(site).collect(),
            silence: CancellationToken::new(),
            serving: Mutex::default(),
            dice,
            time,
        })
    }

    pub(crate) fn site(&self, name: &str) -> &Arc<Site> {
        self.sites.iter().find(|site| site.name == name).unwrap()
    }

    pub(crate) fn serve(&self, serving: Option<(Broker, Life)>) {
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = serving;
    }

    pub(crate) fn serving(&self) -> Option<(Broker, Life)> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A call on the broker that stands. Nothing, where none stands, it dies meanwhile, or the caller goes away.
    pub(crate) async fn call<T, F>(&self, what: &str, call: impl FnOnce(Broker) -> F) -> Option<T>
    where
        F: Future<Output = T>,
    {
        let Some((broker, life)) = self.serving() else {
            pause(Duration::from_millis(500)).await;
            return None;
        };
        let patience = match self.dice.chance(self.weather.rates().gone) {
            true => self.dice.millis(0, if self.dice.chance(500) { 60 } else { 3000 }),
            false => Duration::from_secs(60),
        };
        let answer = tokio::select! {
            biased;
            () = life.over() => None,
            answer = tokio::time::timeout(patience, call(broker)) => answer.ok(),
        };
        if answer.is_none() {
            self.history.note(format!("no answer to {what}"));
        }
        answer
    }
}

/// A folder whose files cost no disk, where the host has one.
fn in_memory() -> TempDir {
    TempDir::with_prefix_in("leasehold-simulation-", "/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Lives through one world, and tells its history.
pub(crate) async fn live(seed: u64, skip: Option<Skip>) -> Told {
    // Held here and not by the world: whatever still holds the world at its end, its files are gone.
    let dir = in_memory();
    let world = World::new(seed, skip, dir.path().to_owned());
    world.history.note(format!("seed {seed}: {:?}", world.weather.rates()));
    let host = tokio::spawn(host::run(world.clone()));
    for n in 0..AT_WORK {
        tokio::spawn(agents::live(world.clone(), n));
    }
    tokio::spawn(operators::live(world.clone()));
    tokio::spawn(operators::sky(world.clone()));
    tokio::spawn(punctual::watch(world.clone()));
    pause(world.dice.millis(25_000, 70_000)).await;
    quiet::come(&world).await;
    host.abort();
    world.serve(None);
    world.history.tell()
}
