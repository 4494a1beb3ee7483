//! Everything that the story plays on: folder, identities, target, broker, and the agent that vanishes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use leasehold_backend::Entropy;
use leasehold_client::{Client, Lease, Task};
use tempfile::TempDir;

use super::Options;
use super::broker::{BrokerProcess, Place};
use super::ground::{Ground, Role};
use super::memory::Memory;
use super::story::{Failure, Seen};
use super::vanishing::Vanishing;
use crate::clock::{Clock, SystemTime, TimeSource};
use crate::config::{KeyKind, write_installation_key};
use crate::dev::trust_domain::{DevIdentity, DevTrustDomain};
use crate::entropy::SystemEntropy;
use crate::identity::Now;

/// The trust domain of the demo.
pub(super) const DOMAIN: &str = "demo.leasehold.test";
const ELSEWHERE: &str = "elsewhere.leasehold.test";
/// As short as production would have them; they rotate while the story is told.
const SVID_LIFE: Duration = Duration::from_secs(60);
const IDENTITIES: [(&str, &str); 5] = [
    ("leasehold", "/leasehold"),
    ("triage", "/agent/triage"),
    ("vanishing", "/agent/vanishing"),
    ("batch", "/agent/batch"),
    ("nobody", "/agent/nobody"),
];

/// The stage. What is listed first ends first.
pub(super) struct Stage {
    pub(super) vanishing: Option<Vanishing>,
    pub(super) work: Option<Work>,
    pub(super) broker: Option<BrokerProcess>,
    pub(super) place: Place,
    pub(super) ground: Arc<dyn Ground>,
    identities: Vec<(&'static str, DevIdentity)>,
    stranger: DevIdentity,
    _domains: [DevTrustDomain; 2],
    folder: TempDir,
}

/// A task with two leases.
pub(super) struct Work {
    pub(super) task: Task,
    pub(super) orders: Lease,
    pub(super) stock: Lease,
}

/// What stands in the task's purpose, to be found again where passwords must not be.
pub(super) const CANARY: &str = "canary-5d41f0c2b7";

impl Stage {
    /// Sets everything up; the broker serves.
    pub(super) async fn set(options: &Options) -> Seen<Self> {
        let folder = TempDir::with_prefix("leasehold-demo-")?;
        let entropy: Arc<dyn Entropy> = SystemEntropy::new(Arc::new(Clock::new(Arc::new(SystemTime), None)));
        let ground = ground(options, &folder, entropy.clone()).await?;
        let (domains, identities, stranger) = identities(&folder).await?;
        write_installation_key(&folder.path().join("installation.key"), KeyKind::Dev, entropy.as_ref())?;
        let program = options.program.clone().map_or_else(std::env::current_exe, Ok)?;
        let place = Place { program, dir: folder.path().to_owned(), agents: free_address()? };
        std::fs::write(place.config(), config(ground.as_ref(), &place))?;
        let broker = Some(BrokerProcess::start(&place).await?);
        let (vanishing, work) = (None, None);
        Ok(Self { vanishing, work, broker, place, ground, identities, stranger, _domains: domains, folder })
    }

    /// A client with this identity.
    pub(super) async fn agent(&self, name: &str) -> Seen<Client> {
        Ok(Client::connect(self.place.options(&self.endpoint(name)?)).await?)
    }

    /// A client on the admin socket.
    pub(super) async fn admin(&self) -> Seen<Client> {
        Ok(Client::connect_admin(self.place.options("")).await?)
    }

    /// The Workload API of an identity.
    pub(super) fn endpoint(&self, name: &str) -> Seen<String> {
        let found = self.identities.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, identity)| identity.endpoint())
            .ok_or_else(|| Failure::new(format!("no identity {name}")))
    }

    pub(super) fn stranger(&self) -> String {
        self.stranger.endpoint()
    }

    /// Leased roles that are there now, but for the one of the agent that vanished.
    pub(super) async fn leased(&self) -> Seen<Vec<Role>> {
        let mut roles = self.ground.leased().await?;
        roles.retain(|role| self.vanishing.as_ref().is_none_or(|vanishing| vanishing.role != role.name));
        Ok(roles)
    }

    /// The task that chapters 3 and 4 are about, opened where it is not.
    pub(super) async fn work(&mut self) -> Seen<&Work> {
        if self.work.is_none() {
            let task = self.agent("triage").await?.task();
            let task = task
                .scope("orders.read@orders-db")
                .scope("stock.read@orders-db")
                .purpose(CANARY)
                .open()
                .await?;
            let orders = task.lease("orders.read@orders-db").await?;
            let stock = task.lease("stock.read@orders-db").await?;
            self.work = Some(Work { task, orders, stock });
        }
        self.work.as_ref().ok_or_else(|| Failure::new("no task"))
    }

    /// The files in which a password could have been left behind.
    pub(super) fn files(&self) -> Seen<Vec<PathBuf>> {
        let mut files = vec![self.place.log()];
        for entry in std::fs::read_dir(self.place.dir.join("store"))? {
            files.push(entry?.path());
        }
        Ok(files)
    }

    /// Leaves the folder where it is.
    pub(super) fn keep(self) -> PathBuf {
        self.folder.keep()
    }
}

#[cfg(feature = "postgres")]
async fn ground(options: &Options, folder: &TempDir, entropy: Arc<dyn Entropy>) -> Seen<Arc<dyn Ground>> {
    let programs = match options.without_postgres {
        true => None,
        false => super::programs::find(options.pg_bin.as_deref())?,
    };
    match programs {
        Some(bin) => Ok(Arc::new(super::postgres::Postgres::start(&bin, folder.path(), entropy).await?)),
        None => Ok(Arc::new(Memory::start(folder.path(), entropy).await?)),
    }
}

#[cfg(not(feature = "postgres"))]
async fn ground(_: &Options, folder: &TempDir, entropy: Arc<dyn Entropy>) -> Seen<Arc<dyn Ground>> {
    Ok(Arc::new(Memory::start(folder.path(), entropy).await?))
}

type Identities = ([DevTrustDomain; 2], Vec<(&'static str, DevIdentity)>, DevIdentity);

async fn identities(folder: &TempDir) -> Seen<Identities> {
    let now: Now = Arc::new(|| SystemTime.wall());
    let domain = DevTrustDomain::open(&folder.path().join("dev"), DOMAIN, SVID_LIFE, now.clone())?;
    let elsewhere = DevTrustDomain::open(&folder.path().join("elsewhere"), ELSEWHERE, SVID_LIFE, now)?;
    let mut served = Vec::new();
    for (name, path) in IDENTITIES {
        served.push((name, domain.serve(name, path).await?));
    }
    let stranger = elsewhere.serve("stranger", "/agent/stranger").await?;
    // The stranger trusts the broker; the broker does not trust the stranger.
    stranger.federate(DOMAIN, Some(&domain.bundle()));
    Ok(([domain, elsewhere], served, stranger))
}

/// A port that nobody has now.
fn free_address() -> std::io::Result<String> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.to_string())
}

fn config(ground: &dyn Ground, place: &Place) -> String {
    let uid = rustix::process::getuid().as_raw();
    let grant = |intent: &str, group: &str| {
        format!(
            "[intents.\"{intent}\"]\nclass = \"read-only\"\n[[grants]]\nintent = \"{intent}\"\n\
             targets = [\"orders-db\"]\nallow = [\"agents:demo\"]\nrecipe = {}\n\
             ttl = {{ default = \"10m\", max = \"15m\", life = \"1h\" }}\n",
            ground.recipe_toml(group)
        )
    };
    let agent = |name: &str| {
        format!(
            "[agents.\"spiffe://{DOMAIN}/agent/{name}\"]\nowner = \"person:ana\"\ngroups = [\"demo\"]\n\
             autonomy = \"act\"\n"
        )
    };
    format!(
        "[broker]\nname = \"demo\"\ntrust_domain = \"{DOMAIN}\"\ninstallation_key = \"installation.key\"\n\
         [listen]\nagents = \"{}\"\nadmin = [\"unix:admin/admin.sock\"]\n[operators]\n\"uid:{uid}\" = [\"admin\"]\n\
         [identity.spiffe]\nworkload_api = \"unix:dev/leasehold.sock\"\n[store]\nsqlite = \"store/leases.db\"\n\
         [tasks]\ngrace = \"30s\"\n[people]\nana = {{ issuer = \"https://idp.example\", subject = \"ana\" }}\n\
         [groups]\ndata = [\"ana\"]\n{}{}{}{}{}{}",
        place.agents,
        ground.target_toml(),
        grant("orders.read", "orders_reader"),
        grant("stock.read", "stock_reader"),
        agent("triage"),
        agent("vanishing"),
        agent("batch"),
    )
}
