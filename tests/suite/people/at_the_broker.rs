//! People and their agents at a broker: what a session is good for, and what it is not.

use leasehold_client::bearer::connect_web;
use leasehold_jose::ProofKey;
use leasehold_law::time::Timestamp;
use leasehold_proto::v1;
use leasehold_proto::v1::identity_service_client::IdentityServiceClient;
use serde_json::Value;
use tonic::{Request, Status};

use super::issuer::Provider;
use super::terminal::Terminal;
use super::{HOUR, field, shows_a_token, signed_in};
use crate::web::write_certificate;
use crate::world::{PATIENCE, Setup, World, reason};

/// A broker that takes the provider's people: `ana` by name and by her group, and her agent `coding`.
fn setup(provider: &Provider) -> Setup {
    let people = format!(
        "[identity.people]\nissuer = \"{}\"\nclient_id = \"leasehold\"\nca_file = \"{}\"\nmax_life = \"2h\"\n\
         operators = {{ claim = \"groups\", roles = {{ oncall = [\"revoker\"] }} }}\n\
         [personal_agents.coding]\npeople = [\"ana\"]\ngroups = [\"soc\"]\nautonomy = \"act\"\n\
         [intents.\"stock.write\"]\nclass = \"reversible\"\n\
         [[grants]]\nintent = \"stock.write\"\ntargets = [\"stock\"]\nrecipe = {{ role = \"writer\" }}\n\
         ttl = {{ default = \"5m\", max = \"10m\", life = \"10m\" }}\n[store]",
        provider.url,
        provider.ca.display()
    );
    let doors = "bearer = \"127.0.0.1:0\"\ncertificate = \"web.pem\"\nkey = \"web.key\"\n[operators]\n\
                 \"person:ana\" = [\"viewer\"]";
    let free = "@id(\"stock-may-be-written\") @unattended(\"a test\")\n\
                permit (principal, action == Action::\"stock.write\", resource);\n";
    Setup::default()
        .replace("[operators]", doors)
        .replace("[store]", &people)
        .replace("https://idp.example", &provider.url)
        .policy(free)
}

async fn world(provider: &Provider) -> World {
    let setup = setup(provider);
    let mut world = World::prepare(&setup).await;
    write_certificate(world.dir.path());
    world.start(&setup).await.unwrap_or_else(|error| panic!("the broker does not start: {error}"));
    world
}

/// A terminal from which a person reaches the broker.
async fn terminal(provider: &Provider, world: &World, person: &str) -> Terminal {
    let mut terminal = signed_in(provider, person).await;
    let (admin, bearer) = (world.running().admin_tcp[0].port(), world.running().bearer.unwrap().port());
    terminal.env = vec![
        ("LEASEHOLD_ADMIN_ADDR", format!("https://localhost:{admin}")),
        ("LEASEHOLD_ADDR", format!("https://localhost:{bearer}")),
        ("LEASEHOLD_CA_FILE", world.path("web-ca.pem").display().to_string()),
    ];
    terminal
}

#[tokio::test]
async fn a_person_may_what_their_name_and_their_groups_bring() {
    let Some(provider) = Provider::start(HOUR).await else { return };
    let mut world = world(&provider).await;
    let ana = terminal(&provider, &world, "ana").await;
    let told = ana.start(&["whoami", "--output", "json"]).succeeds().await;
    let me: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(me["id"], format!("oidc:{}|ana", provider.url));
    assert_eq!((&me["kind"], &me["roles"]), (&"person".into(), &serde_json::json!(["viewer", "revoker"])));
    assert_eq!(me["session"]["subject"], "ana");
    assert!(!shows_a_token(&told, &ana.session()));

    // Another process of the same session, with the key that the token is bound to.
    let tasks = ana.start(&["task", "list", "--admin", "--output", "json"]).ends().await;
    assert_eq!(tasks.code, Some(0), "{}", tasks.err);
    let lift =
        ana.start(&["revocations", "lift", "rev_01arz3ndektsv4rrffq69g5fav", "--reason", "R"]).ends().await;
    assert!(lift.err.contains("does not hold the role admin"), "{}", lift.err);

    let ben = terminal(&provider, &world, "ben").await;
    let status = ben.start(&["status"]).ends().await;
    assert_eq!(status.code, Some(3), "{}", status.err);
    assert!(status.err.contains("does not hold the role viewer"), "{}", status.err);
    // An operator with an SVID comes to the same port as before.
    let viewer = world.operator("viewer").await;
    assert!(viewer.identity.clone().who_am_i(v1::WhoAmIRequest {}).await.is_ok());
    world.stop().await;
}

#[tokio::test]
async fn an_agent_acts_in_its_person_s_session() {
    let Some(provider) = Provider::start(HOUR).await else { return };
    let mut world = world(&provider).await;
    let ana = terminal(&provider, &world, "ana").await;
    let before = field(&ana.session(), "refresh_token");
    let exec = [
        "exec",
        "--agent",
        "coding",
        "--lease",
        "orders.read@orders",
        "--",
        "sh",
        "-c",
        "echo $LEASEHOLD_TASK",
    ];
    let task = ana.start(&exec).succeeds().await;
    let mut admin = world.admin().await;
    let leases =
        admin.leases.list_leases(v1::ListLeasesRequest::default()).await.unwrap().into_inner().leases;
    let [lease] = &leases[..] else { panic!("one lease: {leases:?}") };
    assert_eq!(lease.agent, format!("personal:{}|ana/coding", provider.url));
    assert_eq!(lease.task, task.trim());
    assert_eq!(lease.state(), v1::LeaseState::Revoked, "it ended with the command");
    let request = v1::GetTaskRequest { task: lease.task.clone() };
    let task = admin.tasks.get_task(request).await.unwrap().into_inner();
    assert_eq!((task.on_behalf_of, task.session_until), (format!("oidc:{}|ana", provider.url), None));
    assert_eq!(World::principals(&world.orders), 0);
    // Its token was fetched for it alone; the person's is as good as before.
    assert_ne!(field(&ana.session(), "refresh_token"), before);
    ana.start(&["task", "list", "--admin"]).succeeds().await;

    let production = ["exec", "--agent", "coding", "--lease", "stock.write@stock", "--", "true"];
    let asked = ana.start(&production).ends().await;
    assert_eq!(asked.code, Some(125), "{}", asked.err);
    assert!(asked.err.contains("NEEDS_APPROVAL"), "{}", asked.err);
    let nobody_s = ["exec", "--agent", "other", "--lease", "orders.read@orders", "--", "true"];
    assert!(ana.start(&nobody_s).ends().await.err.contains("UNKNOWN_AGENT"));
    let ben = terminal(&provider, &world, "ben").await;
    assert!(ben.start(&exec).ends().await.err.contains("UNKNOWN_AGENT"), "it is not ben's");
    world.stop().await;
}

/// A caller with a person's token and key.
struct Holder {
    token: String,
    key: ProofKey,
    at: Timestamp,
}

impl Holder {
    /// Whom the broker takes it for at an address.
    async fn comes(&self, world: &World, port: u16, agent: Option<&str>) -> Result<String, Status> {
        let origin = format!("https://localhost:{port}");
        let channel = connect_web(&origin, Some(&world.path("web-ca.pem")), PATIENCE).await.unwrap();
        let url = format!("{origin}/leasehold.v1.IdentityService/WhoAmI");
        let proof = self.key.prove_as(agent, "POST", &url, &self.token, self.at).unwrap();
        let mut request = Request::new(v1::WhoAmIRequest {});
        request.metadata_mut().insert("authorization", format!("DPoP {}", self.token).parse().unwrap());
        request.metadata_mut().insert("dpop", proof.parse().unwrap());
        Ok(IdentityServiceClient::new(channel).who_am_i(request).await?.into_inner().id)
    }
}

fn refusal(answer: Result<String, Status>) -> String {
    let status = answer.expect_err("it should have been refused");
    assert_eq!(reason(&status), "NO_IDENTITY");
    status.message().to_owned()
}

#[tokio::test]
async fn one_token_is_never_a_person_s_and_an_agent_s() {
    let Some(provider) = Provider::start(HOUR).await else { return };
    let mut world = world(&provider).await;
    let at = leasehold::clock::TimeSource::wall(&*world.time);
    let (admin, bearer) = (world.running().admin_tcp[0].port(), world.running().bearer.unwrap().port());
    let holder = async |person| {
        let session = signed_in(&provider, person).await.session();
        Holder { token: field(&session, "id_token"), key: ProofKey::generate().unwrap(), at }
    };
    let bound = "the token is bound to another key";

    let person = holder("ana").await;
    assert_eq!(person.comes(&world, admin, None).await.unwrap(), format!("oidc:{}|ana", provider.url));
    assert_eq!(refusal(person.comes(&world, bearer, Some("coding")).await), bound);

    let agent = holder("ana").await;
    let as_coding = format!("personal:{}|ana/coding", provider.url);
    assert_eq!(agent.comes(&world, bearer, Some("coding")).await.unwrap(), as_coding);
    assert_eq!(refusal(agent.comes(&world, admin, None).await), bound);
    assert_eq!(refusal(agent.comes(&world, bearer, Some("other")).await), bound);
    let door = "only a person's own token is taken at the admin door";
    assert_eq!(refusal(agent.comes(&world, admin, Some("coding")).await), door);
    let unfit = holder("ana").await;
    assert!(refusal(unfit.comes(&world, bearer, Some("a/b")).await).contains("no agent that could be"));

    let thief = Holder { token: person.token.clone(), key: ProofKey::generate().unwrap(), at };
    assert_eq!(refusal(thief.comes(&world, admin, None).await), bound);
    world.stop().await;
}

#[tokio::test]
async fn an_agent_does_not_outlive_a_working_day() {
    let Some(provider) = Provider::start(24 * HOUR).await else { return };
    let setup = setup(&provider).replace("max_life = \"2h\"", "max_life = \"24h\"");
    let mut world = World::prepare(&setup).await;
    write_certificate(world.dir.path());
    world.start(&setup).await.unwrap_or_else(|error| panic!("the broker does not start: {error}"));
    let session = signed_in(&provider, "ana").await.session();
    let mut holder = Holder {
        token: field(&session, "id_token"),
        key: ProofKey::generate().unwrap(),
        at: leasehold::clock::TimeSource::wall(&*world.time),
    };
    let bearer = world.running().bearer.unwrap().port();
    assert!(holder.comes(&world, bearer, Some("coding")).await.is_ok());
    world.pass(8 * 3600);
    holder.at = leasehold::clock::TimeSource::wall(&*world.time);
    let told = refusal(holder.comes(&world, bearer, Some("coding")).await);
    assert!(told.contains("the session began more than 8h ago"), "{told}");
    world.stop().await;
}
