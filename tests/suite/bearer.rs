//! The door for callers with tokens: JWT-SVIDs, each good with the key that it first came with, and with no other.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use leasehold_client::bearer::connect_web;
use leasehold_client::{Client as Sdk, Options};
use leasehold_jose::ProofKey;
use leasehold_law::time::Timestamp;
use leasehold_proto::v1;
use leasehold_proto::v1::identity_service_client::IdentityServiceClient;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::raw;
use crate::web::write_certificate;
use crate::world::{PATIENCE, Setup, World, reason};

const WHOAMI: &str = "/leasehold.v1.IdentityService/WhoAmI";
const TRIAGE: &str = "spiffe://suite.leasehold.test/agent/triage";

pub(crate) fn with_a_door() -> Setup {
    add_a_door(Setup::default())
}

/// With a door for tokens, which shows the certificate of [`write_certificate`].
pub(crate) fn add_a_door(setup: Setup) -> Setup {
    setup
        .replace(
            "agents = \"127.0.0.1:0\"",
            "agents = \"127.0.0.1:0\"\nbearer = \"127.0.0.1:0\"\ncertificate = \"web.pem\"\nkey = \"web.key\"",
        )
        .replace(
            "workload_api = \"unix:dev/leasehold.sock\"",
            "workload_api = \"unix:dev/leasehold.sock\"\njwt = { max_life = \"10m\" }",
        )
}

async fn world() -> World {
    world_with(&with_a_door()).await
}

pub(crate) async fn world_with(setup: &Setup) -> World {
    let mut world = World::prepare(setup).await;
    write_certificate(world.dir.path());
    world.start(setup).await.unwrap_or_else(|error| panic!("the broker does not start: {error}"));
    world
}

/// A caller that makes its own proofs, good and bad.
pub(crate) struct Bearer {
    pub(crate) channel: Channel,
    origin: String,
    key: ProofKey,
    agent: Option<&'static str>,
}

impl Bearer {
    pub(crate) async fn new(world: &World) -> Self {
        Self::at(world, &world.running().bearer.unwrap().to_string()).await
    }

    /// At a door that the world does not know of.
    pub(crate) async fn at(world: &World, address: &str) -> Self {
        let origin = format!("https://{address}");
        let channel = connect_web(&origin, Some(&world.path("web-ca.pem")), PATIENCE).await.unwrap();
        Self { channel, origin, key: ProofKey::generate().unwrap(), agent: None }
    }

    /// As an agent of the person whose token it is.
    pub(crate) fn acting_as(self, agent: &'static str) -> Self {
        Self { agent: Some(agent), ..self }
    }

    fn proof(&self, token: &str, at: Timestamp) -> String {
        self.proof_for(WHOAMI, token, at)
    }

    /// A proof for a call, `/package.Service/Method`.
    pub(crate) fn proof_for(&self, path: &str, token: &str, at: Timestamp) -> String {
        self.key.prove_as(self.agent, "POST", &format!("{}{path}", self.origin), token, at).unwrap()
    }

    /// One whose requests are made for another server, which passes them on: token, proof and all.
    fn passed_on_from(world: &World, host: &str) -> Self {
        let (origin, door) = (format!("https://{host}"), world.running().bearer.unwrap());
        let channel = raw::for_another(&origin, &world.domain.ca(), door);
        Self { channel, origin, key: ProofKey::generate().unwrap(), agent: None }
    }

    /// A request with a token and a proof for it.
    pub(crate) fn request<T>(&self, path: &str, token: &str, at: Timestamp, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let proof = self.proof_for(path, token, at);
        request.metadata_mut().insert("authorization", format!("DPoP {token}").parse().unwrap());
        request.metadata_mut().insert("dpop", proof.parse().unwrap());
        request
    }

    async fn ask(&self, authorization: Option<&str>, proof: Option<&str>) -> Result<String, Status> {
        let mut request = Request::new(v1::WhoAmIRequest {});
        let headers = [("authorization", authorization), ("dpop", proof)];
        for (name, value) in headers.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
        let answer = IdentityServiceClient::new(self.channel.clone()).who_am_i(request).await?;
        Ok(answer.into_inner().id)
    }

    /// As an honest client does.
    pub(crate) async fn come_with(&self, token: &str, at: Timestamp) -> Result<String, Status> {
        self.ask(Some(&format!("DPoP {token}")), Some(&self.proof(token, at))).await
    }
}

fn claims(world: &World) -> Value {
    let now = now(world).0 / 1000;
    json!({ "sub": TRIAGE, "aud": ["leasehold"], "iat": now, "exp": now + 300 })
}

pub(crate) fn now(world: &World) -> Timestamp {
    leasehold::clock::TimeSource::wall(&*world.time)
}

/// A JWT-SVID of the agent `triage`, changed.
pub(crate) fn token(world: &World, change: impl FnOnce(&mut Value)) -> String {
    let mut claims = claims(world);
    change(&mut claims);
    world.domain.sign_token(&claims).unwrap()
}

fn refusal(answer: Result<String, Status>) -> String {
    let status = answer.expect_err("it should have been refused");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "NO_IDENTITY"));
    status.message().to_owned()
}

#[tokio::test]
async fn a_workload_with_a_jwt_svid_works_as_it_does_with_a_certificate() {
    let world = world().await;
    let mut options = Options::default();
    options.addr = format!("https://{}", world.running().bearer.unwrap());
    options.ca_file = Some(world.path("web-ca.pem"));
    options.workload_api = Some(world.endpoint("triage"));
    let client = Sdk::connect(options).await.unwrap();
    let me = client.whoami().await.unwrap();
    assert_eq!((me.id.as_str(), me.kind(), me.registered), (TRIAGE, v1::CallerKind::Workload, true));
    let task = client.task().scope("orders.read@orders").open().await.unwrap();
    task.lease("orders.read@orders").await.unwrap();
    assert_eq!(World::principals(&world.orders), 1);
    task.complete().await.unwrap();
    assert_eq!(World::principals(&world.orders), 0);
}

#[tokio::test]
async fn policy_tells_a_token_from_a_certificate() {
    let setup = with_a_door().policy(
        "@id(\"certificates-only\")\nforbid (principal, action == Action::\"orders.read\", resource)\n\
         when { context.proof != \"x509-svid\" };\n",
    );
    let world = world_with(&setup).await;
    let mut agent = world.agent("triage").await;
    assert!(agent.open(&["orders.read@orders"]).await.is_ok());
    let mut options = Options::default();
    options.addr = format!("https://{}", world.running().bearer.unwrap());
    options.ca_file = Some(world.path("web-ca.pem"));
    options.workload_api = Some(world.endpoint("triage"));
    let client = Sdk::connect(options).await.unwrap();
    let refused = client.task().scope("orders.read@orders").open().await.err().unwrap();
    assert!(refused.is("FORBIDDEN"), "{refused}");
}

#[tokio::test]
async fn a_token_is_good_with_its_first_key_alone_and_for_good() {
    let setup = with_a_door();
    let mut world = world_with(&setup).await;
    let token = token(&world, |_| {});
    let (owner, thief) = (Bearer::new(&world).await, Bearer::new(&world).await);
    let at = now(&world);
    assert_eq!(owner.come_with(&token, at).await.unwrap(), TRIAGE);
    assert_eq!(refusal(thief.come_with(&token, at).await), "the token is bound to another key");
    world.restart(&setup).await;
    let later = Bearer::new(&world).await;
    assert_eq!(
        refusal(later.come_with(&token, at).await),
        "the token is bound to another key",
        "nor after a start"
    );
    let mut owner_again = later;
    owner_again.key = owner.key;
    assert_eq!(owner_again.come_with(&token, at).await.unwrap(), TRIAGE);
}

/// The order of P-256 (SEC 2, section 2.4.2).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
    0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The same token with the other spelling of its signature: s becomes n - s, and it verifies as before.
fn respelt(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = 0;
    for (byte, order) in bytes[32..].iter_mut().zip(ORDER).rev() {
        let left = i16::from(order) - i16::from(*byte) - borrow;
        borrow = i16::from(left < 0);
        *byte = u8::try_from(left.rem_euclid(256)).unwrap();
    }
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

#[tokio::test]
async fn a_token_that_is_spelt_anew_is_no_new_token() {
    let world = world().await;
    let (token, at) = (token(&world, |_| {}), now(&world));
    let (owner, thief) = (Bearer::new(&world).await, Bearer::new(&world).await);
    let other = respelt(&token);
    assert_ne!(token, other);
    assert_eq!(thief.come_with(&other, at).await.unwrap(), TRIAGE, "the issuer's signature it is");
    assert_eq!(refusal(owner.come_with(&token, at).await), "the token is bound to another key");
    // SPIRE gives no `jti`: of one second's claims it makes tokens that differ in their signatures alone.
    let twins = [(); 2].map(|()| world.domain.sign_token(&claims(&world)).unwrap());
    for twin in twins {
        assert_eq!(Bearer::new(&world).await.come_with(&twin, at).await.unwrap(), TRIAGE);
    }
}

#[tokio::test]
async fn a_proof_is_good_for_one_request() {
    let world = world().await;
    let (token, bearer) = (token(&world, |_| {}), Bearer::new(&world).await);
    let proof = bearer.proof(&token, now(&world));
    let authorization = format!("DPoP {token}");
    assert_eq!(bearer.ask(Some(&authorization), Some(&proof)).await.unwrap(), TRIAGE);
    let again = bearer.ask(Some(&authorization), Some(&proof)).await;
    assert_eq!(refusal(again), "the proof is refused: it came before");
    let elsewhere =
        bearer.key.prove("POST", &format!("{}/other", bearer.origin), &token, now(&world)).unwrap();
    let elsewhere = bearer.ask(Some(&authorization), Some(&elsewhere)).await;
    assert_eq!(refusal(elsewhere), "the proof is refused: `htu` is not that of this request");
    let old = bearer.come_with(&token, now(&world).shifted(-61_000)).await;
    assert!(refusal(old).starts_with("the proof is refused: it was made at"));
}

#[tokio::test]
async fn what_is_not_presented_as_it_must_be_is_refused() {
    let world = world().await;
    let (token, bearer) = (token(&world, |_| {}), Bearer::new(&world).await);
    let proof = bearer.proof(&token, now(&world));
    let no_token = "no token was presented";
    let no_proof = "a token was presented without a proof of its bearer's key";
    let dpop = format!("DPoP {token}");
    assert_eq!(refusal(bearer.ask(None, None).await), no_token);
    assert_eq!(refusal(bearer.ask(None, Some(&proof)).await), no_token);
    assert_eq!(refusal(bearer.ask(Some(&token), Some(&proof)).await), no_token);
    assert_eq!(refusal(bearer.ask(Some(&format!("Basic {token}")), Some(&proof)).await), no_token);
    assert_eq!(refusal(bearer.ask(Some(&format!("Bearer {token}")), Some(&proof)).await), no_proof);
    assert_eq!(refusal(bearer.ask(Some(&dpop), None).await), no_proof);
    assert_eq!(
        refusal(bearer.ask(Some(&dpop), Some(&token)).await),
        "the proof is refused: the token's header is not \
        accepted: `typ` is not that of such a token"
    );
}

#[tokio::test]
async fn tokens_that_do_not_count_are_refused() {
    let world = world().await;
    let bearer = Bearer::new(&world).await;
    let check = async |change: &dyn Fn(&mut Value), expect: &str| {
        let token = token(&world, change);
        assert_eq!(refusal(bearer.come_with(&token, now(&world)).await), expect);
    };
    let nobody_s = "no configured issuer and audience are those of the token";
    check(&|claims| claims["aud"] = json!(["other"]), "the token's audience is not exactly `leasehold`")
        .await;
    check(
        &|claims| claims["exp"] = json!(claims["iat"].as_i64().unwrap() + 3600),
        "the token lives for 1h; at most 10m are accepted",
    )
    .await;
    check(
        &|claims| claims["sub"] = json!("spiffe://other.leasehold.test/agent/triage"),
        "no bundle vouches for the trust domain `other.leasehold.test`",
    )
    .await;
    check(
        &|claims| claims["sub"] = json!("spiffe://suite.leasehold.test/a/../agent/triage"),
        "the token's `sub` is not a SPIFFE ID",
    )
    .await;
    check(&|claims| claims["sub"] = json!("ana"), nobody_s).await;
    let forged = leasehold_jose::SigningKey::generate().unwrap().token("k", &claims(&world)).unwrap();
    let unknown = "the token names a key that its issuer does not have, or not for this algorithm";
    assert_eq!(refusal(bearer.come_with(&forged, now(&world)).await), unknown);
}

#[tokio::test]
async fn a_token_ends_when_it_says_so_though_it_was_good_before() {
    let world = world().await;
    let (token, bearer) = (token(&world, |_| {}), Bearer::new(&world).await);
    assert_eq!(bearer.come_with(&token, now(&world)).await.unwrap(), TRIAGE);
    world.pass(301);
    assert!(refusal(bearer.come_with(&token, now(&world)).await).starts_with("the token expired at"));
}

#[tokio::test]
async fn tokens_from_before_a_restore_are_refused() {
    let setup = with_a_door();
    let mut world = world_with(&setup).await;
    let token = token(&world, |_| {});
    world.stop().await;
    let restored = now(&world).0 + 1000;
    world.on_store(&format!("INSERT INTO numbers (name, value) VALUES ('restore.at', {restored})"));
    world.start(&setup).await.unwrap();
    let bearer = Bearer::new(&world).await;
    let expect = "the token was issued before this broker was restored from a backup";
    assert_eq!(refusal(bearer.come_with(&token, now(&world)).await), expect);
}

#[tokio::test]
async fn a_workload_that_nobody_registered_is_told_so() {
    let world = world().await;
    let bearer = Bearer::new(&world).await;
    let token = token(&world, |claims| claims["sub"] = json!("spiffe://suite.leasehold.test/agent/nobody"));
    let url = format!("{}/leasehold.v1.LeaseService/ListGrants", bearer.origin);
    let mut request = Request::new(v1::ListGrantsRequest::default());
    let proof = bearer.key.prove("POST", &url, &token, now(&world)).unwrap();
    request.metadata_mut().insert("authorization", format!("DPoP {token}").parse().unwrap());
    request.metadata_mut().insert("dpop", proof.parse().unwrap());
    let mut leases = v1::lease_service_client::LeaseServiceClient::new(bearer.channel.clone());
    let status = leases.list_grants(request).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "UNKNOWN_AGENT"));
}

/// RFC 9449 section 4.3: a proof is for one server. Whoever runs another that takes the same audience, and is trusted with a
/// call, must not make it here.
#[tokio::test]
async fn a_call_that_was_made_for_another_server_counts_nowhere_else() {
    let setup = with_a_door().replace("bearer = ", "hosts = [\"Broker.Example\"]\nbearer = ");
    let world = world_with(&setup).await;
    let comes = async |host: &str| {
        let bearer = Bearer::passed_on_from(&world, host);
        bearer.come_with(&token(&world, |_| {}), now(&world)).await
    };
    for ours in ["broker.example", "broker.example:8445", "localhost", "127.0.0.1:1"] {
        assert_eq!(comes(ours).await.unwrap(), TRIAGE, "{ours}");
    }
    for other in ["staging.example", "x.broker.example", "broker.example.evil.example", "[::1]:8445"] {
        let refused = comes(other).await.unwrap_err();
        assert_eq!(reason(&refused), "NO_IDENTITY", "{other}");
        assert!(refused.message().contains("this broker is not called so"), "{other}: {}", refused.message());
    }
}
