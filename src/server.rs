//! The composition root: the only room, with dev/, that names concrete stores and backends.

mod assemble;
mod backup;
mod bearers;
mod check;
mod door;
mod metrics;
mod process;
mod refusals;
mod shared;
mod spire;
mod standing;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use leasehold_backend::BackendKind;
use leasehold_law::time::Timestamp;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::Api;
use crate::api::layers::DoorLayer;
use crate::authority::Operators;
use crate::broker::Broker;
use crate::clock::{Clock, SystemTime, TimeSource};
use crate::config::{AdminAddr, Config, Loaded, Problem, Trust};
use crate::identity::listener::{Entrance, Gate, Limits, ListenError, bind_tcp, bind_unix};
use crate::identity::spiffe::{SpiffeIdentity, SpiffeSettings};
use crate::identity::unix::Access;
use crate::identity::{Door, Known, Refusals};

pub use backup::{Copied, PutBack, Restore, backup, restore};
pub use check::{Checked, check};
pub use process::{harden, stop_signal};
pub use spire::{SpireEntries, spire_entries};

/// How long the Workload API may take to give the broker its identity.
const IDENTITY_WAIT: Duration = Duration::from_secs(30);
/// How long open calls may take to end when the broker stops.
const DRAIN: Duration = Duration::from_secs(10);

/// The backends that are built in.
#[must_use]
pub fn kinds() -> Vec<Box<dyn BackendKind>> {
    vec![
        Box::new(leasehold_memory::MemoryKind::default()),
        #[cfg(feature = "postgres")]
        Box::new(leasehold_postgres::PostgresKind),
    ]
}

/// How a broker is started.
pub struct Start {
    /// Whether dev trust domains, dev keys and the memory backend are accepted (RULES R-19).
    pub trust: Trust,
    /// The backends that are built in.
    pub kinds: Vec<Box<dyn BackendKind>>,
    /// Where time comes from.
    pub time: Arc<dyn TimeSource>,
    /// Bounds on what peers may take.
    pub limits: Limits,
    /// Start although leases live in targets that the config has no more.
    pub force: bool,
}

impl Start {
    /// As a host starts one.
    #[must_use]
    pub fn on_host(trust: Trust) -> Self {
        Self { trust, kinds: kinds(), time: Arc::new(SystemTime), limits: Limits::default(), force: false }
    }
}

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The config has problems: all of them.
    #[error("{}", lines(.0))]
    Config(Vec<Problem>),
    /// The installation key cannot be used.
    #[error(transparent)]
    Key(#[from] crate::config::KeyError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// A broker serves from a store that was to be put back.
    #[error(
        "a broker serves from {0}, and nothing was restored\n  next: stop it, restore, and start it again"
    )]
    Serving(String),
    /// The broker has no identity.
    #[error(transparent)]
    Identity(#[from] crate::identity::spiffe::SpiffeError),
    /// A port or socket cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// What the last run left cannot be taken up.
    #[error("{0}")]
    Recover(String),
    /// Leases live in a target that the config has no more.
    #[error(
        "target `{target}` is not in the config, and leases live in it\n  \
         next: put [targets.{target}] back until they are over, or serve --force: nobody revokes them then"
    )]
    Abandoned {
        /// The target.
        target: String,
    },
    /// Something of the host is missing.
    #[error("{0}")]
    Host(String),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl StartError {
    /// The exit code: 78 for bad config (sysexits.h), 1 for everything else.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 78,
            Self::Key(_)
            | Self::Store(_)
            | Self::Serving(_)
            | Self::Identity(_)
            | Self::Listen(_)
            | Self::Recover(_)
            | Self::Abandoned { .. }
            | Self::Host(_) => 1,
        }
    }
}

/// A broker that serves. Dropped, it goes on; [`Running::stop`] ends it.
pub struct Running {
    /// The broker.
    pub broker: Broker,
    /// Where agents connect.
    pub agents: SocketAddr,
    /// Where callers with tokens connect, where that is configured.
    pub bearer: Option<SocketAddr>,
    /// Where operators connect over TCP, where that is configured.
    pub admin_tcp: Vec<SocketAddr>,
    /// Where monitoring reads, where that is configured.
    pub metrics: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    doors: Vec<JoinHandle<()>>,
    background: Vec<JoinHandle<()>>,
}

/// Loads a config and starts a broker on it.
///
/// # Errors
/// Every problem of the config, before any port opens (law 14); or the first thing that stands in the way.
pub async fn start(config: &Path, start: Start) -> Result<Running, StartError> {
    let Loaded { config, warnings } =
        Config::load(config, &start.kinds, start.trust).map_err(StartError::Config)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let parts = assemble::broker(&config, &start).await?;
    let identity = SpiffeIdentity::connect(&spiffe_settings(&config, start.trust)?).await?;
    let listeners = Listeners::bind(&config).await?;
    let broker = parts.broker;
    broker.recover(&parts.changed).await.map_err(|error| StartError::Recover(error.to_string()))?;
    let refusals = Arc::new(Refusals::default());
    let background = vec![
        tokio::spawn(sweep(broker.clone())),
        tokio::spawn(follow(broker.clone())),
        tokio::spawn(refusals::write_down(broker.clone(), refusals.clone())),
    ];
    let judges = bearers::judges(&config, start.trust, &broker, &refusals).await?;
    let gates = Gates { refusals, judges };
    serve(broker, &config, start.limits, identity, listeners, gates, background).await
}

async fn sweep(broker: Broker) {
    broker.sweep().await;
}

async fn follow(broker: Broker) {
    broker.follow().await;
}

fn spiffe_settings(config: &Config, trust: Trust) -> Result<SpiffeSettings, StartError> {
    let spiffe = &config.identity.spiffe;
    let default = format!("spiffe://{}/leasehold", config.broker.trust_domain);
    let id = match &spiffe.id {
        Some(id) => id.clone(),
        None => default.parse().map_err(|error| StartError::Host(format!("{error}")))?,
    };
    Ok(SpiffeSettings {
        workload_api: format!("unix:{}", spiffe.workload_api.display()),
        id,
        dev_trust: trust == Trust::Dev,
        federates_with: spiffe.federates_with.clone(),
        sync_timeout: IDENTITY_WAIT,
    })
}

/// Ports and sockets, open and not yet served.
struct Listeners {
    agents: TcpListener,
    bearer: Option<TcpListener>,
    admin_tcp: Vec<TcpListener>,
    admin_unix: Vec<UnixListener>,
    metrics: Option<TcpListener>,
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self, StartError> {
        let access = access(config)?;
        let agents = bind_tcp(config.listen.agents).await?;
        let (mut admin_tcp, mut admin_unix) = (Vec::new(), Vec::new());
        for address in &config.listen.admin {
            match address {
                AdminAddr::Tcp(address) => admin_tcp.push(bind_tcp(*address).await?),
                AdminAddr::Unix(path) => admin_unix.push(bind_unix(path, access).await?),
            }
        }
        let bearer = bind_if(config.listen.bearer).await?;
        let metrics = bind_if(config.listen.metrics).await?;
        Ok(Self { agents, bearer, admin_tcp, admin_unix, metrics })
    }
}

async fn bind_if(address: Option<SocketAddr>) -> Result<Option<TcpListener>, ListenError> {
    match address {
        Some(address) => bind_tcp(address).await.map(Some),
        None => Ok(None),
    }
}

/// What is asked at every door.
struct Gates {
    refusals: Arc<Refusals>,
    judges: bearers::Judges,
}

fn access(config: &Config) -> Result<Access, StartError> {
    let Some(group) = &config.listen.admin_group else { return Ok(Access::Owner) };
    match uzers::get_group_by_name(group) {
        Some(found) => Ok(Access::Group(found.gid())),
        None => Err(StartError::Host(format!(
            "there is no group `{group}` on this host; make it, or leave admin_group out"
        ))),
    }
}

async fn serve(
    broker: Broker,
    config: &Config,
    limits: Limits,
    identity: SpiffeIdentity,
    listeners: Listeners,
    gates: Gates,
    background: Vec<JoinHandle<()>>,
) -> Result<Running, StartError> {
    let local =
        |listener: &TcpListener| listener.local_addr().map_err(|error| StartError::Host(error.to_string()));
    let agents = local(&listeners.agents)?;
    let admin_tcp = listeners.admin_tcp.iter().map(local).collect::<Result<Vec<_>, _>>()?;
    let operators = Arc::new(bearers::operators(config));
    let subjects = gates.judges.subjects.clone();
    let routes = Api::new(broker.clone(), operators.clone(), identity.clone(), subjects).routes().await;
    let routes = routes.map_err(|error| StartError::Host(error.to_string()))?;
    let (stop, stopped) = watch::channel(false);
    let handshakes_each = config.listen.handshakes_per_address.unwrap_or(limits.handshakes_each);
    let limits = Limits { each: config.listen.per_caller, handshakes_each, ..limits };
    let gate = |known| Gate { now: now_of(&broker), refusals: gates.refusals.clone(), known };
    let (agents_door, agents_incoming) = Entrance::new(Door::Agents, limits, gate(known_agents(&broker)));
    agents_door.accept_tls(listeners.agents, identity.server_tls()?);
    let certificate = bearers::certificate(config)?;
    let people = bearers::people_s(config, certificate.as_ref())?;
    let bearer = listeners.bearer.as_ref().map(local).transpose()?;
    if let Some(listener) = listeners.bearer {
        agents_door.accept_open(listener, bearers::tls(certificate.as_ref(), &identity)?);
    }
    let (admin_door, admin_incoming) = Entrance::new(Door::Admin, limits, gate(known_operators(&operators)));
    for listener in listeners.admin_tcp {
        match &people {
            Some(web) => admin_door.accept_either(listener, identity.server_tls()?, web.clone()),
            None => admin_door.accept_tls(listener, identity.server_tls()?),
        }
    }
    listeners.admin_unix.into_iter().for_each(|listener| admin_door.accept_unix(listener));
    let door = |incoming| {
        let layer = DoorLayer::new(broker.clone(), operators.clone(), gates.judges.bearers.clone());
        tokio::spawn(door::serve(layer, routes.clone(), incoming, stopped.clone()))
    };
    let doors = vec![door(agents_incoming), door(admin_incoming)];
    let mut background = background;
    let metrics = listeners.metrics.as_ref().map(local).transpose()?;
    if let Some(listener) = listeners.metrics {
        let served = metrics::serve(listener, broker.clone(), identity.clone());
        background.push(served.map_err(|error| StartError::Host(error.to_string()))?);
    }
    background.push(tokio::spawn(standing::hold(identity, now_of(&broker), [agents_door, admin_door])));
    let bearer_door = bearer.map(|address| address.to_string());
    tracing::info!(%agents, bearer = bearer_door, broker = broker.name(), "serving");
    Ok(Running { broker, agents, bearer, admin_tcp, metrics, stop, doors, background })
}

fn known_agents(broker: &Broker) -> Known {
    let broker = broker.clone();
    Arc::new(move |id| broker.registry().knows(id))
}

fn known_operators(operators: &Arc<Operators>) -> Known {
    let operators = operators.clone();
    Arc::new(move |id| operators.names(id))
}

fn now_of(broker: &Broker) -> crate::identity::Now {
    let broker = broker.clone();
    Arc::new(move || broker.now())
}

impl Running {
    /// Stops: nothing new, then what is under way ends, for at most ten seconds.
    pub async fn stop(self) {
        self.broker.drain();
        let _ = self.stop.send(true);
        let ended = async {
            for door in self.doors {
                if let Err(error) = door.await {
                    tracing::warn!(%error, "a door ended badly");
                }
            }
            self.broker.drained().await;
        };
        if tokio::time::timeout(DRAIN, ended).await.is_err() {
            tracing::warn!(
                "some calls did not end in time; what they held is found again after the next start"
            );
        }
        self.broker.record_repeats(Timestamp(i64::MAX)).await;
        for task in self.background {
            task.abort();
            // Awaited, so that whoever opens the store next finds it free; that it was aborted is no news.
            let _ = task.await;
        }
        self.broker.ledger().store().leave().await;
    }
}

/// Serves until a signal says to stop.
///
/// # Errors
/// As [`start`].
pub async fn serve_until_signal(config: PathBuf, trust: Trust, force: bool) -> Result<(), StartError> {
    harden();
    let running = start(&config, Start { force, ..Start::on_host(trust) }).await?;
    stop_signal().await.map_err(|error| StartError::Host(error.to_string()))?;
    tracing::info!("stopping");
    running.stop().await;
    Ok(())
}

/// The host's clocks.
#[must_use]
pub fn host_time() -> Arc<dyn TimeSource> {
    Arc::new(SystemTime)
}

/// Random bits of the operating system, for what is made before there is a broker.
#[must_use]
pub fn entropy() -> Arc<crate::entropy::SystemEntropy> {
    crate::entropy::SystemEntropy::new(clock(Arc::new(SystemTime), None))
}

/// The clock of a broker that has read its high-water mark.
fn clock(time: Arc<dyn TimeSource>, high_water: Option<i64>) -> Arc<Clock> {
    Arc::new(Clock::new(time, high_water.map(Timestamp)))
}
