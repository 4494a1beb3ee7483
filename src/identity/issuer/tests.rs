//! An issuer that is asked over real `https`, as it should be and as it should not.

use std::sync::Mutex;

use serde_json::json;

use super::*;
use crate::dev::issuer::{Answer, DevIssuer};

const DISCOVERY: &str = "/.well-known/openid-configuration";
const NOW: Timestamp = Timestamp(1_795_000_000_000);
/// No test waits so long unless it fails.
const LONG: Duration = Duration::from_secs(60);

/// A real issuer, ours that asks it, and a clock that stands still.
struct World {
    there: DevIssuer,
    here: Issuer,
    clock: Arc<Mutex<Timestamp>>,
}

impl World {
    async fn new() -> Self {
        Self::with(LONG, |there| there.url().to_owned()).await
    }

    async fn with(patience: Duration, url: impl FnOnce(&DevIssuer) -> String) -> Self {
        let there = DevIssuer::start().await.unwrap();
        let clock = Arc::new(Mutex::new(NOW));
        let now: Now = {
            let clock = clock.clone();
            Arc::new(move || *clock.lock().unwrap())
        };
        let keys = KeySource::Discovery { ca_file: Some(there.ca_file()) };
        let url = url(&there).parse().unwrap();
        let here = Issuer::with_patience(url, &keys, now, patience).unwrap();
        Self { there, here, clock }
    }

    fn pass(&self, span: Span) {
        let mut now = self.clock.lock().unwrap();
        *now = *now + span;
    }

    fn token(&self) -> String {
        let now = self.clock.lock().unwrap().0 / 1000;
        let claims = json!({ "sub": "job", "aud": "leasehold-ci", "iat": now, "exp": now + 300 });
        self.there.token(claims).unwrap()
    }

    async fn verify(&self, token: &str) -> Result<Claims, TokenRefused> {
        let peek = token::peek(token).unwrap();
        let now = *self.clock.lock().unwrap();
        let (audience, max_life) = ("leasehold-ci", Span::from_mins(60));
        let rules = Rules { issuer: None, audience, max_life, access_token: false, now };
        self.here.verify(token, &peek, rules).await
    }

    async fn why(&self) -> String {
        let port = self.there.url().rsplit(':').next().unwrap().to_owned();
        let told = self.here.keys("k1").await.unwrap_err().to_string();
        told.replace(&port, "PORT")
    }
}

#[tokio::test]
async fn keys_are_asked_for_once_and_kept() {
    let world = World::new().await;
    for _ in 0..3 {
        assert_eq!(world.verify(&world.token()).await.unwrap().subject(), "job");
    }
    assert_eq!((world.there.asked(DISCOVERY), world.there.asked("/keys")), (1, 1));
    let endpoints = world.here.endpoints().await.unwrap().unwrap();
    assert_eq!(endpoints.token.as_ref().unwrap().path(), "/token");
    assert_eq!(endpoints.authorization.as_ref().unwrap().path(), "/authorize");
    assert_eq!(endpoints.device_authorization.as_ref().unwrap().path(), "/device");
}

#[tokio::test]
async fn a_new_key_is_asked_for_when_it_is_first_named() {
    let world = World::new().await;
    let old = world.token();
    world.verify(&old).await.unwrap();
    world.there.rotate().unwrap();
    let refused = world.verify(&world.token()).await.unwrap_err();
    assert!(refused.is_ours && refused.what.contains("asked once in 30s"), "{refused:?}");
    world.pass(PAUSE);
    world.verify(&world.token()).await.unwrap();
    world.verify(&old).await.unwrap();
    world.there.rotate().unwrap();
    world.pass(PAUSE);
    world.verify(&world.token()).await.unwrap();
    let refused = world.verify(&old).await.unwrap_err();
    assert_eq!(refused.what, IssuerError::Paused { issuer: world.there.url().to_owned() }.to_string());
    assert_eq!(world.there.asked("/keys"), 3);
}

#[tokio::test]
async fn a_storm_of_made_up_keys_asks_the_issuer_once() {
    let world = World::new().await;
    world.verify(&world.token()).await.unwrap();
    world.pass(PAUSE);
    let storm: Vec<_> = (0..200)
        .map(|number| {
            let here = world.here.clone();
            tokio::spawn(async move { here.keys(&format!("made-up-{number}")).await.map(|_| ()) })
        })
        .collect();
    let mut looked = 0;
    for one in storm {
        looked += usize::from(one.await.unwrap().is_ok());
    }
    assert_eq!((looked, world.there.asked("/keys")), (1, 2), "one had the turn");
    world.verify(&world.token()).await.unwrap();
}

#[tokio::test]
async fn keys_are_kept_for_a_day_while_the_issuer_is_away() {
    let world = World::new().await;
    world.verify(&world.token()).await.unwrap();
    world.there.set("/keys", Some(Answer::Broken));
    world.pass(Span(KEEP.0 - 60_000));
    world.verify(&world.token()).await.unwrap();
    world.pass(Span::from_mins(2));
    let refused = world.verify(&world.token()).await.unwrap_err();
    assert!(refused.is_ours && refused.what.contains("503 Service Unavailable"), "{refused:?}");
    world.there.set("/keys", None);
    let refused = world.verify(&world.token()).await.unwrap_err();
    assert!(refused.is_ours, "it was asked a moment ago: {refused:?}");
    world.pass(PAUSE);
    world.verify(&world.token()).await.unwrap();
}

#[tokio::test]
async fn a_key_that_was_withdrawn_is_forgotten_within_the_hour() {
    let world = World::new().await;
    let old = world.token();
    world.here.keys("k1").await.unwrap();
    world.there.rotate().unwrap();
    world.there.rotate().unwrap();
    world.pass(REFRESH);
    world.here.keys("k1").await.unwrap();
    // That call let the issuer be asked behind its back; whoever has the turn next comes after that.
    drop(world.here.0.turn.clone().lock_owned().await);
    let refused = world.verify(&old).await.unwrap_err();
    assert_eq!(world.there.asked("/keys"), 2, "{refused:?}");
}

#[tokio::test]
async fn a_caller_that_goes_away_wastes_no_turn() {
    let world = World::new().await;
    {
        let ask = world.here.keys("k1");
        tokio::pin!(ask);
        assert!(futures::poll!(ask.as_mut()).is_pending());
    }
    world.verify(&world.token()).await.unwrap();
    assert_eq!(world.there.asked("/keys"), 1);
}

#[tokio::test]
async fn what_an_issuer_must_not_answer() {
    let check = async |path: &str, answer: Answer, expect: &str| {
        let world = World::new().await;
        world.there.set(path, Some(answer.clone()));
        let expect = format!("the issuer `https://localhost:PORT` did not give its keys: {expect}");
        assert_eq!(world.why().await, expect, "{path}: {answer:?}");
    };
    let document = |name: &str, value: &str| {
        let mut document =
            json!({ "issuer": "https://evil.example", "jwks_uri": "https://evil.example/keys" });
        document[name] = json!(value);
        Answer::Json(document)
    };
    check(
        DISCOVERY,
        document("x", ""),
        "its discovery document calls it `https://evil.example`; that must be the same to the letter",
    )
    .await;
    check(DISCOVERY, Answer::Json(json!([])), "its discovery document is not a JSON object").await;
    check(
        DISCOVERY,
        Answer::Json(json!({ "issuer": 1 })),
        "its discovery document calls it ``; that must be the same to the letter",
    )
    .await;
    let at = format!("`https://localhost:PORT{DISCOVERY}`");
    let redirect = Answer::Redirect("https://localhost/".to_owned());
    check(DISCOVERY, redirect.clone(), &format!("{at} answered 302 Found; redirects are not followed")).await;
    check("/keys", redirect, "`https://localhost:PORT/keys` answered 302 Found; redirects are not followed")
        .await;
    let long = "it is longer than the 262144 bytes that are read";
    check(DISCOVERY, Answer::Flood(10 << 20), &format!("{at}: {long}")).await;
    check("/keys", Answer::Flood(10 << 20), &format!("`https://localhost:PORT/keys`: {long}")).await;
    let large = Answer::Json(json!({ "keys": [], "x": "x".repeat(10 << 20) }));
    check("/keys", large, &format!("`https://localhost:PORT/keys`: {long}")).await;
    check("/keys", Answer::Json(json!({})), "`https://localhost:PORT/keys`: it is not a JWK set: no `keys`")
        .await;
    check("/keys", Answer::Broken, "`https://localhost:PORT/keys` answered 503 Service Unavailable").await;
}

/// What a document names besides must be `https` too, and may be elsewhere.
#[tokio::test]
async fn every_endpoint_is_https() {
    for name in ["jwks_uri", "authorization_endpoint", "token_endpoint", "device_authorization_endpoint"] {
        let world = World::new().await;
        let mut document = json!({ "issuer": world.there.url(), "jwks_uri": "https://keys.example/" });
        document[name] = json!("http://localhost/keys");
        world.there.set(DISCOVERY, Some(Answer::Json(document)));
        let expect = format!("its discovery document names a `{name}` that is not an https URL");
        assert!(world.why().await.ends_with(&expect), "{name}");
    }
    let elsewhere = DevIssuer::start().await.unwrap();
    let world = World::new().await;
    let keys = format!("{}/keys", elsewhere.url());
    world.there.set(DISCOVERY, Some(Answer::Json(json!({ "issuer": world.there.url(), "jwks_uri": keys }))));
    assert!(
        world.why().await.contains("/keys`"),
        "another host is asked, and its certificate is not from our authority"
    );
}

#[tokio::test]
async fn an_issuer_is_its_name_to_the_letter() {
    let world = World::with(LONG, |there| format!("{}/", there.url())).await;
    let told = world.why().await;
    assert!(
        told.ends_with("calls it `https://localhost:PORT`; that must be the same to the letter"),
        "{told}"
    );
}

#[tokio::test]
async fn an_issuer_that_hangs_costs_its_patience_and_no_more() {
    let short = Duration::from_millis(50);
    let world = World::with(short, |there| there.url().to_owned()).await;
    world.there.set(DISCOVERY, Some(Answer::Never));
    let told = world.why().await;
    assert!(told.contains("did not answer") || told.contains("error sending"), "{told}");
}

#[tokio::test]
async fn only_the_authority_that_is_configured_counts() {
    let other = DevIssuer::start().await.unwrap();
    let there = DevIssuer::start().await.unwrap();
    let keys = KeySource::Discovery { ca_file: Some(other.ca_file()) };
    let here = Issuer::new(there.url().parse().unwrap(), &keys, Arc::new(|| NOW)).unwrap();
    let told = here.keys("k1").await.unwrap_err().to_string();
    assert!(told.contains("certificate"), "{told}");
    assert_eq!(there.asked(DISCOVERY), 0);
}

#[tokio::test]
async fn keys_from_a_file_follow_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let there = DevIssuer::start().await.unwrap();
    let clock = Arc::new(Mutex::new(NOW));
    let now: Now = {
        let clock = clock.clone();
        Arc::new(move || *clock.lock().unwrap())
    };
    let url: IssuerUrl = "https://kubernetes.default.svc.cluster.local".parse().unwrap();
    let here = Issuer::with_patience(url, &KeySource::File(path.clone()), now, LONG).unwrap();
    let told = here.keys("k1").await.unwrap_err().to_string();
    assert!(told.contains("keys.json`: cannot be read"), "{told}");
    let key = leasehold_jose::SigningKey::generate().unwrap();
    std::fs::write(&path, json!({ "keys": [key.public("k1")] }).to_string()).unwrap();
    *clock.lock().unwrap() = NOW + PAUSE;
    assert!(here.keys("k1").await.unwrap().holds("k1"));
    assert_eq!(here.endpoints().await.unwrap(), None);
    assert_eq!(there.asked("/keys"), 0);
}

#[test]
fn roots_are_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let check = |text: Option<&str>, expect: &str| {
        let path = folder.path().join("roots.pem");
        text.into_iter().for_each(|text| std::fs::write(&path, text).unwrap());
        let keys = KeySource::Discovery { ca_file: Some(path) };
        let told = Issuer::new("https://idp.example".parse().unwrap(), &keys, Arc::new(|| NOW)).unwrap_err();
        assert!(told.to_string().ends_with(expect), "{told}");
    };
    check(None, "roots.pem`: cannot be read: No such file or directory (os error 2)");
    check(Some(""), "roots.pem`: it holds no certificate");
    check(Some("hello"), "roots.pem`: it holds no certificate");
}

#[test]
fn an_issuer_is_an_https_url() {
    let check = |text: &str, good: bool| assert_eq!(text.parse::<IssuerUrl>().is_ok(), good, "{text}");
    check("https://idp.example", true);
    check("https://idp.example/", true);
    check("https://idp.example/realms/a", true);
    check("https://idp.example:8443", true);
    check("http://idp.example", false);
    check("https://idp.example?x=1", false);
    check("https://idp.example#x", false);
    check("https://me:secret@idp.example", false);
    check("https://IDP.example", false);
    check("https://idp.example/a/../b", false);
    check("HTTPS://idp.example", false);
    check("idp.example", false);
    check("", false);
    check(&format!("https://idp.example/{}", "a".repeat(256)), false);
    let url: IssuerUrl = "https://idp.example/".parse().unwrap();
    assert_eq!(url.discovery(), "https://idp.example/.well-known/openid-configuration");
}
