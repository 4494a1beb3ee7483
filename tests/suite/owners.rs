//! People who own agents: they see and review their own, and nothing else.

use leasehold::clock::{SystemTime, TimeSource as _};
use leasehold::config::Trust;
use leasehold::dev::issuer::{Answer, DevIssuer};
use leasehold::server::check;
use leasehold_proto::v1;
use leasehold_proto::v1::agent_service_client::AgentServiceClient;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::bearer::{Bearer, add_a_door, now, world_with};
use crate::registry::{TRIAGE, show};
use crate::web::write_certificate;
use crate::world::{Setup, World, detail, reason};

/// What the people's tokens are for.
const CLIENT: &str = "leasehold-cli";
const OTHER: &str = "spiffe://suite.leasehold.test/agent/other";
const SHARED: &str = "spiffe://suite.leasehold.test/agent/shared-*";

/// Where people sign in, in place of whatever asks them who they are.
pub(crate) struct People(DevIssuer);

impl People {
    pub(crate) async fn new() -> Self {
        Self(DevIssuer::start().await.unwrap())
    }

    /// With an operators' door for them, and an agent `coding` of this person.
    pub(crate) fn welcome(&self, setup: Setup, person: &str) -> Setup {
        let mut setup = setup.replace("https://idp.example", self.0.url());
        setup.config.push_str(&format!(
            "[identity.people]\nissuer = \"{}\"\nclient_id = \"{CLIENT}\"\nca_file = \"{}\"\n\
             operators = {{ claim = \"groups\", roles = {{ oncall = [\"revoker\"] }} }}\n\
             [personal_agents.coding]\npeople = [\"{person}\"]\ngroups = [\"soc\"]\nautonomy = \"act\"\n",
            self.0.url(),
            self.0.ca_file().display()
        ));
        setup
    }

    /// The ID token that a person's sign-in leaves, good for so many seconds.
    pub(crate) fn signed_in(&self, subject: &str, groups: &[&str], seconds: i64) -> String {
        let now = SystemTime.wall().0 / 1000;
        let claims: Value = json!({
            "sub": subject, "aud": CLIENT, "iat": now, "exp": now + seconds, "auth_time": now, "groups": groups,
        });
        self.0.token(claims).unwrap()
    }

    /// What the issuer calls itself.
    pub(crate) fn url(&self) -> &str {
        self.0.url()
    }
}

/// A caller with a token at the operators' door: it asks for the door by the name of its certificate.
pub(crate) async fn at_the_admin_door(world: &World) -> Bearer {
    Bearer::at(world, &format!("localhost:{}", world.running().admin_tcp[0].port())).await
}

/// A person at the operators' door.
struct Person<'w> {
    world: &'w World,
    bearer: Bearer,
    token: String,
}

impl<'w> Person<'w> {
    async fn new(world: &'w World, people: &People, name: &str) -> Self {
        Self { world, bearer: at_the_admin_door(world).await, token: people.signed_in(name, &[], 300) }
    }

    fn agents(&self) -> AgentServiceClient<tonic::transport::Channel> {
        AgentServiceClient::new(self.bearer.channel.clone())
    }

    fn ask<T>(&self, method: &str, message: T) -> tonic::Request<T> {
        let path = format!("/leasehold.v1.AgentService/{method}");
        self.bearer.request(&path, &self.token, now(self.world), message)
    }

    /// Read one a page, so that none hides behind another.
    async fn sees(&self) -> Result<Vec<String>, Status> {
        let (mut seen, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListAgentsRequest { page_size: 1, page_token, ..Default::default() };
            let page = self.agents().list_agents(self.ask("ListAgents", request)).await?.into_inner();
            seen.extend(page.agents.into_iter().map(|agent| agent.id));
            if page.next_page_token.is_empty() {
                return Ok(seen);
            }
            page_token = page.next_page_token;
        }
    }

    async fn shows(&self, agent: &str) -> Result<String, Status> {
        let request = self.ask("GetAgent", v1::GetAgentRequest { agent: agent.to_owned() });
        Ok(self.agents().get_agent(request).await?.into_inner().owner)
    }

    async fn reviews(&self, agent: &str) -> Result<v1::ChangeAgentsResponse, Status> {
        let (agent, reason) = (agent.to_owned(), "looked at it".to_owned());
        let request = v1::ReviewAgentRequest { agent, reason, ..Default::default() };
        Ok(self.agents().review_agent(self.ask("ReviewAgent", request)).await?.into_inner())
    }
}

/// `shared-*` is of a group that `ana` and `ben` are in.
async fn world(people: &People) -> World {
    let shared =
        format!("[agents.\"{SHARED}\"]\nowner = \"group:data\"\ngroups = [\"soc\"]\nautonomy = \"act\"\n");
    let mut setup = people.welcome(add_a_door(Setup::default()), "ana");
    setup.config.push_str(&shared);
    world_with(&setup).await
}

#[tokio::test]
async fn owners_see_and_review_their_own_agents_and_no_others() {
    let people = People::new().await;
    let world = world(&people).await;
    let personal = format!("personal:{}|ana/coding", people.url());
    let (ana, ben) = (Person::new(&world, &people, "ana").await, Person::new(&world, &people, "ben").await);
    assert_eq!(ana.sees().await.unwrap(), [personal.as_str(), TRIAGE, SHARED]);
    assert_eq!(ben.sees().await.unwrap(), [OTHER, SHARED]);
    assert_eq!(ana.shows(TRIAGE).await.unwrap(), "person:ana");
    for hidden in [ana.shows(OTHER).await.unwrap_err(), ana.reviews(OTHER).await.unwrap_err()] {
        assert_eq!((hidden.code(), reason(&hidden).as_str()), (Code::NotFound, "NOT_FOUND"));
        assert_eq!(
            hidden.message(),
            format!("no agent `{OTHER}` is registered"),
            "as of one that is nobody's"
        );
        assert!(detail(&hidden, "why").contains("an owner sees their own"), "{hidden}");
        assert!(detail(&hidden, "next").contains("leasehold login"), "{hidden}");
    }
    let mut admin = world.admin().await;
    assert!(show(&mut admin, TRIAGE).await.reviewed_at.is_none());
    assert_eq!(ana.reviews(TRIAGE).await.unwrap().changes[0].change, "reviewed");
    assert!(show(&mut admin, TRIAGE).await.reviewed_at.is_some());
    for reviewer in [&ana, &ben] {
        assert_eq!(reviewer.reviews(SHARED).await.unwrap().changes[0].agent, SHARED);
    }
}

#[tokio::test]
async fn owners_do_nothing_else_and_review_no_agent_of_their_own_session() {
    let people = People::new().await;
    let world = world(&people).await;
    let ana = Person::new(&world, &people, "ana").await;
    let personal = format!("personal:{}|ana/coding", people.url());
    let stands = ana.reviews(&personal).await.unwrap_err();
    assert_eq!(reason(&stands), "REGISTRATION_STANDS");
    assert_eq!(detail(&stands, "why"), "it acts in the session of its owner, who therefore cannot review it");
    assert_eq!(detail(&stands, "next"), "an admin reviews it");
    let mut admin = world.admin().await;
    let request = v1::ReviewAgentRequest { agent: personal, ..Default::default() };
    admin.agents.review_agent(request).await.unwrap();

    let (agent, reason_given) = (TRIAGE.to_owned(), "a test".to_owned());
    let status = v1::AgentStatus::Suspended.into();
    let request = v1::SetAgentStatusRequest { agent, status, reason: reason_given };
    let refused = ana.agents().set_agent_status(ana.ask("SetAgentStatus", request)).await.unwrap_err();
    assert_eq!(reason(&refused), "ROLE_MISSING");
    let nora = Person::new(&world, &people, "nora").await;
    assert_eq!(reason(&nora.sees().await.unwrap_err()), "ROLE_MISSING", "who owns nothing sees nothing");
}

/// An owner without agents is an owner no longer.
#[tokio::test]
async fn who_answers_for_agents_is_what_the_registry_says_at_that_moment() {
    let people = People::new().await;
    let setup = people
        .welcome(add_a_door(Setup::default()), "ana")
        .replace("owner = \"person:ben\"", "owner = \"person:ana\"");
    let world = world_with(&setup).await;
    let ben = Person::new(&world, &people, "ben").await;
    assert_eq!(reason(&ben.sees().await.unwrap_err()), "ROLE_MISSING");
    let id = "spiffe://suite.leasehold.test/agent/late";
    let text = format!("[agents.\"{id}\"]\nowner = \"person:ben\"\ngroups = [\"soc\"]\nautonomy = \"act\"\n");
    let mut admin = world.admin().await;
    let request = v1::ApplyAgentsRequest { file: "late.toml".into(), text, ..Default::default() };
    admin.agents.apply_agents(request).await.unwrap();
    assert_eq!(ben.sees().await.unwrap(), [id]);
    assert_eq!(ben.reviews(id).await.unwrap().changes[0].change, "reviewed");
}

#[tokio::test]
async fn check_asks_the_issuer_of_people() {
    let people = People::new().await;
    let setup = people.welcome(add_a_door(Setup::default()), "ana");
    let world = World::prepare(&setup).await;
    write_certificate(world.dir.path());
    let config = world.write_config(&setup);
    let checked = check(&config, Trust::Dev, true).await;
    assert_eq!((checked.problems, checked.warnings), (Vec::new(), Vec::new()));
    assert!(checked.good.contains(&format!("people: `{}` has 1 key", people.url())), "{:?}", checked.good);

    let keys = format!("{}/keys", people.url());
    let bare = json!({ "issuer": people.url(), "jwks_uri": keys });
    people.0.set("/.well-known/openid-configuration", Some(Answer::Json(bare)));
    let checked = check(&config, Trust::Dev, true).await;
    let nowhere = format!("people: `{}` names no place to sign in", people.url());
    assert!(checked.warnings[0].starts_with(&nowhere), "{:?}", checked.warnings);

    people.0.set("/keys", Some(Answer::Json(json!({ "keys": [] }))));
    let checked = check(&config, Trust::Dev, true).await;
    let none = format!("people: `{}` has no key that could have signed a token", people.url());
    assert_eq!(checked.problems, [none]);

    people.0.set("/keys", Some(Answer::Broken));
    let checked = check(&config, Trust::Dev, true).await;
    let away = format!("people: the issuer `{}` did not give its keys: `{keys}` answered 503", people.url());
    assert!(checked.problems[0].starts_with(&away), "{:?}", checked.problems);
}
