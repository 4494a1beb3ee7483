//! Agents of another trust domain: taken while the bundle is there, and only as agents.

use std::sync::Arc;

use leasehold::clock::{SystemTime, TimeSource as _};
use leasehold::dev::trust_domain::{DevIdentity, DevTrustDomain};
use leasehold_client::channel::connect_spiffe;
use leasehold_proto::v1;
use serde_json::json;
use tonic::Code;

use crate::bearer::{Bearer, now, with_a_door, world_with};
use crate::raw;
use crate::world::{Client, DOMAIN, PATIENCE, Setup, World, eventually, reason};

const PARTNER: &str = "partner.leasehold.test";
const PAIR: &str = "orders.read@orders";

/// Another trust domain, and an agent of it.
pub(crate) struct Partner {
    name: &'static str,
    pub(crate) domain: DevTrustDomain,
    agent: DevIdentity,
}

impl Partner {
    /// Beside a broker that knows nothing of it yet.
    pub(crate) async fn new(world: &World, name: &'static str) -> Self {
        let now: leasehold::identity::Now = Arc::new(|| SystemTime.wall());
        let life = std::time::Duration::from_secs(3600);
        let domain = DevTrustDomain::open(&world.path(name), name, life, now).unwrap();
        let agent = domain.serve("triage", "/agent/triage").await.unwrap();
        agent.federate(DOMAIN, Some(&world.domain.bundle()));
        Self { name, domain, agent }
    }

    /// With the config that registers its agent.
    pub(crate) fn welcome(setup: Setup, names: &[&str]) -> Setup {
        let mut setup = setup.replace("[store]", &format!("federates_with = {names:?}\n[store]"));
        for name in names {
            setup.config.push_str(&format!(
                "[agents.\"spiffe://{name}/agent/triage\"]\nowner = \"person:ana\"\ngroups = [\"soc\"]\n\
                 autonomy = \"act\"\n"
            ));
        }
        setup
    }

    /// The Workload API of the broker hands out the bundle, and the broker takes it.
    pub(crate) async fn join(&self, world: &World) {
        world.identity("leasehold").federate(self.name, Some(&self.domain.bundle()));
        self.until_taken(world, true).await;
    }

    /// The Workload API of the broker withdraws the bundle.
    pub(crate) async fn leave(&self, world: &World) {
        world.identity("leasehold").federate(self.name, None);
        self.until_taken(world, false).await;
    }

    /// A JWT-SVID of its agent, issued at this second.
    pub(crate) fn token(&self, at: i64) -> String {
        let id = format!("spiffe://{}/agent/triage", self.name);
        let claims = json!({ "sub": id, "aud": ["leasehold"], "iat": at, "exp": at + 300 });
        self.domain.sign_token(&claims).unwrap()
    }

    async fn until_taken(&self, world: &World, taken: bool) {
        let (ca, address) = (self.domain.ca(), world.running().agents);
        eventually("the change of bundles arrives", || async { raw::is_taken(&ca, address).await == taken })
            .await;
    }

    pub(crate) async fn client(&self, address: std::net::SocketAddr) -> Client {
        self.client_of(&self.agent, address).await
    }

    async fn client_of(&self, agent: &DevIdentity, address: std::net::SocketAddr) -> Client {
        let broker = format!("spiffe://{DOMAIN}/leasehold").as_str().try_into().unwrap();
        let channel = connect_spiffe(&agent.endpoint(), &address.to_string(), Some(broker), PATIENCE).await;
        Client::new(channel.unwrap())
    }
}

/// A broker that takes a partner's agents, and that partner.
async fn federated() -> (World, Partner) {
    let world = World::with(Partner::welcome(Setup::default(), &[PARTNER])).await;
    let partner = Partner::new(&world, PARTNER).await;
    (world, partner)
}

#[tokio::test]
async fn an_agent_of_a_federated_trust_domain_is_an_agent_and_no_more() {
    let (mut world, partner) = federated().await;
    partner.join(&world).await;
    let mut agent = partner.client(world.running().agents).await;
    let me = agent.identity.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(me.id, "spiffe://partner.leasehold.test/agent/triage");
    assert!(me.registered);
    let task = agent.open(&[PAIR]).await.unwrap();
    agent.lease(&task, PAIR).await.unwrap();
    agent.complete(&task).await.unwrap();

    let mut at_admin = partner.client(world.running().admin_tcp[0]).await;
    let refused = at_admin.admin.status(v1::StatusRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    world.stop().await;
}

/// REQUIREMENTS ID-2: a withdrawn bundle stops new handshakes at once, and what is open counts no more.
#[tokio::test]
async fn a_federation_that_ends_ends_its_open_connections() {
    let (mut world, partner) = federated().await;
    partner.join(&world).await;
    let mut agent = partner.client(world.running().agents).await;
    let task = agent.open(&[PAIR]).await.unwrap();
    let watch = agent.tasks.watch_task(v1::WatchTaskRequest { task: task.id.clone() });
    let mut watch = watch.await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();

    partner.leave(&world).await;
    let ended = async { while matches!(watch.message().await, Ok(Some(_))) {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("a watch went on without a bundle");
    agent.lease(&task, PAIR).await.unwrap_err();
    let mut ours = world.agent("triage").await;
    ours.open(&[PAIR]).await.unwrap();

    partner.join(&world).await;
    let mut again = partner.client(world.running().agents).await;
    again.lease(&task, PAIR).await.unwrap();
    world.stop().await;
}

/// The token was verified a moment ago: by itself that would be forgotten after a minute, which is longer than anything is
/// waited for here.
#[tokio::test]
async fn a_token_of_a_trust_domain_that_is_gone_counts_no_more() {
    let mut world = world_with(&Partner::welcome(with_a_door(), &[PARTNER])).await;
    let partner = Partner::new(&world, PARTNER).await;
    partner.join(&world).await;
    let bearer = Bearer::new(&world).await;
    let token = partner.token(now(&world).0 / 1000);
    let comes = async || bearer.come_with(&token, now(&world)).await;
    eventually("the token is taken", async || comes().await.is_ok()).await;

    partner.leave(&world).await;
    eventually("the token is refused", async || comes().await.is_err()).await;
    let refused = comes().await.unwrap_err();
    assert_eq!(refused.message(), format!("no bundle vouches for the trust domain `{PARTNER}`"));
    world.stop().await;
}

#[tokio::test]
async fn agents_of_a_partner_are_registered_while_the_broker_runs() {
    let (mut world, partner) = federated().await;
    partner.join(&world).await;
    let mut admin = world.admin().await;
    let late = format!("spiffe://{PARTNER}/agent/late");
    let table = |id: &str| {
        format!("[agents.\"{id}\"]\nowner = \"person:ana\"\ngroups = [\"soc\"]\nautonomy = \"act\"\n")
    };
    let apply = |text: String| v1::ApplyAgentsRequest { text, ..v1::ApplyAgentsRequest::default() };
    let elsewhere = "spiffe://elsewhere.leasehold.test/agent/late";
    let refused = admin.agents.apply_agents(apply(table(elsewhere))).await.unwrap_err();
    assert!(refused.message().contains("federates_with = [\"elsewhere.leasehold.test\"]"), "{refused}");

    let identity = partner.domain.serve("late", "/agent/late").await.unwrap();
    identity.federate(DOMAIN, Some(&world.domain.bundle()));
    let mut client = partner.client_of(&identity, world.running().agents).await;
    assert_eq!(reason(&client.open(&[PAIR]).await.unwrap_err()), "UNKNOWN_AGENT");
    admin.agents.apply_agents(apply(table(&late))).await.unwrap();
    let task = client.open(&[PAIR]).await.unwrap();
    assert_eq!(task.agent, late);
    client.lease(&task, PAIR).await.unwrap();
    world.stop().await;
}
