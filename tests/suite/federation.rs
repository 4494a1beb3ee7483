//! Agents of another trust domain: taken while the bundle is there, and only as agents.

use std::sync::Arc;

use leasehold::clock::{SystemTime, TimeSource as _};
use leasehold::dev::trust_domain::{DevIdentity, DevTrustDomain};
use leasehold_client::channel::connect_spiffe;
use leasehold_proto::v1;
use tonic::Code;

use crate::raw;
use crate::world::{Client, DOMAIN, PATIENCE, Setup, World, eventually};

const PARTNER: &str = "partner.leasehold.test";
const PAIR: &str = "orders.read@orders";

/// A broker that takes a partner's agents, and that partner.
struct Federated {
    world: World,
    partner: DevTrustDomain,
    agent: DevIdentity,
}

impl Federated {
    async fn new() -> Self {
        let setup = Setup::default().replace(
            "[store]",
            "federates_with = [\"partner.leasehold.test\"]\n\
             [agents.\"spiffe://partner.leasehold.test/agent/triage\"]\n\
             owner = \"person:ana\"\ngroups = [\"soc\"]\nautonomy = \"act\"\n[store]",
        );
        let world = World::with(setup).await;
        let now: leasehold::identity::Now = Arc::new(|| SystemTime.wall());
        let life = std::time::Duration::from_secs(3600);
        let partner = DevTrustDomain::open(&world.path("partner"), PARTNER, life, now).unwrap();
        let agent = partner.serve("triage", "/agent/triage").await.unwrap();
        agent.federate(DOMAIN, Some(&world.domain.bundle()));
        Self { world, partner, agent }
    }

    /// The Workload API of the broker hands out the partner's bundle, and the broker takes it.
    async fn add(&self) {
        self.world.identity("leasehold").federate(PARTNER, Some(&self.partner.bundle()));
        self.until_taken(true).await;
    }

    async fn until_taken(&self, taken: bool) {
        let (ca, address) = (self.partner.ca(), self.world.running().agents);
        eventually("the change of bundles arrives", || async { raw::is_taken(&ca, address).await == taken })
            .await;
    }

    async fn client(&self, address: std::net::SocketAddr) -> Client {
        let broker = format!("spiffe://{DOMAIN}/leasehold").as_str().try_into().unwrap();
        let endpoint = self.agent.endpoint();
        let channel = connect_spiffe(&endpoint, &address.to_string(), Some(broker), PATIENCE).await;
        Client::new(channel.unwrap())
    }
}

#[tokio::test]
async fn an_agent_of_a_federated_trust_domain_is_an_agent_and_no_more() {
    let mut federated = Federated::new().await;
    federated.add().await;
    let mut agent = federated.client(federated.world.running().agents).await;
    let me = agent.identity.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(me.id, "spiffe://partner.leasehold.test/agent/triage");
    assert!(me.registered);
    let task = agent.open(&[PAIR]).await.unwrap();
    agent.lease(&task, PAIR).await.unwrap();
    agent.complete(&task).await.unwrap();

    let mut at_admin = federated.client(federated.world.running().admin_tcp[0]).await;
    let refused = at_admin.admin.status(v1::StatusRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    federated.world.stop().await;
}

/// REQUIREMENTS ID-2: a withdrawn bundle stops new handshakes at once, and what is open counts no more.
#[tokio::test]
async fn a_federation_that_ends_ends_its_open_connections() {
    let mut federated = Federated::new().await;
    federated.add().await;
    let mut agent = federated.client(federated.world.running().agents).await;
    let task = agent.open(&[PAIR]).await.unwrap();
    let watch = agent.tasks.watch_task(v1::WatchTaskRequest { task: task.id.clone() });
    let mut watch = watch.await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();

    federated.world.identity("leasehold").federate(PARTNER, None);
    let ended = async { while matches!(watch.message().await, Ok(Some(_))) {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("a watch went on without a bundle");
    federated.until_taken(false).await;
    agent.lease(&task, PAIR).await.unwrap_err();
    let mut ours = federated.world.agent("triage").await;
    ours.open(&[PAIR]).await.unwrap();

    federated.add().await;
    let mut again = federated.client(federated.world.running().agents).await;
    again.lease(&task, PAIR).await.unwrap();
    federated.world.stop().await;
}
