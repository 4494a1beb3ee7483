//! Bad tokens and bad proofs, a line each, with the exact refusal.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as B64;
use leasehold_jose::{Demand, Keys, ProofKey, Rules, SigningKey, proof, token};
use leasehold_law::time::{Span, Timestamp};
use ring::hmac;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Value, json};

const NOW: i64 = 1_795_000_000;
const ISSUER: &str = "https://idp.example";

struct World {
    key: SigningKey,
    other: SigningKey,
    keys: Keys,
}

impl World {
    fn new() -> Self {
        let key = SigningKey::generate().unwrap();
        let keys = Keys::parse(json!({ "keys": [key.public("k1")] }).to_string().as_bytes()).unwrap();
        Self { key, other: SigningKey::generate().unwrap(), keys }
    }

    fn rules() -> Rules<'static> {
        let now = Timestamp(NOW * 1000);
        Rules {
            issuer: Some(ISSUER),
            audience: "leasehold",
            max_life: Span::from_mins(60),
            access_token: false,
            now,
        }
    }

    fn read(&self, token: &str) -> String {
        match token::read(token, &self.keys, &Self::rules()) {
            Ok(claims) => format!("accepted {}", claims.subject()),
            Err(error) => error.to_string(),
        }
    }
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "sub": "ana", "aud": "leasehold", "iat": NOW - 5, "exp": NOW + 300 })
}

/// The usual claims, but for one; `null` takes it away.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

/// A token in parts of our own making, signed by `key` where the header is asked to be another's.
fn spelt(header: &str, claims: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", B64.encode(header), B64.encode(claims));
    let signature = B64.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

#[test]
fn a_good_token_is_read() {
    let world = World::new();
    assert_eq!(world.read(&world.key.token("k1", &claims()).unwrap()), "accepted ana");
    let list = with("aud", json!(["leasehold"]));
    assert_eq!(world.read(&world.key.token("k1", &list).unwrap()), "accepted ana", "SPIRE's way");
}

#[test]
fn claims_that_are_refused() {
    let world = World::new();
    let check = |name: &str, value: Value, expect: &str| {
        let token = world.key.token("k1", &with(name, value.clone())).unwrap();
        assert_eq!(world.read(&token), expect, "{name} = {value}");
    };
    let audience = "the token's audience is not exactly `leasehold`";
    check("aud", json!("leasehold-ci"), audience);
    check("aud", json!(["leasehold", "other"]), audience);
    check("aud", json!(["leasehold", "leasehold"]), audience);
    check("aud", json!([]), audience);
    check("aud", json!(["leasehold", 1]), audience);
    check("aud", Value::Null, audience);
    let issuer = "the token is from another issuer than the one that is configured, to the letter";
    check("iss", json!("https://idp.example/"), issuer);
    check("iss", json!("HTTPS://idp.example"), issuer);
    check("iss", json!([ISSUER]), issuer);
    check("iss", Value::Null, issuer);
    check("exp", Value::Null, "the token has no `exp`");
    check("exp", json!("soon"), "the token's `exp` is not what that claim must be");
    check("exp", json!(-1), "the token's `exp` is not what that claim must be");
    check("exp", json!(1e300), "the token's `exp` is not what that claim must be");
    check("exp", json!(NOW), "the token expired at 2026-11-18T11:06:40.000Z");
    check("exp", json!(NOW + 10 * 365 * 86400), "the token lives for 3650d5s; at most 1h are accepted");
    check("iat", json!(NOW + 120), "the token is not valid before 2026-11-18T11:08:40.000Z");
    check("nbf", json!(NOW + 120), "the token is not valid before 2026-11-18T11:08:40.000Z");
    check("nbf", json!(true), "the token's `nbf` is not what that claim must be");
    check("sub", Value::Null, "the token has no `sub`");
    check("sub", json!(7), "the token's `sub` is not what that claim must be");
    check("sub", json!(""), "the token's `sub` is not what that claim must be");
    check("sub", json!("s".repeat(2049)), "the token's `sub` is not what that claim must be");
}

#[test]
fn headers_that_are_refused() {
    let world = World::new();
    let claims = claims().to_string();
    let check = |header: Value, expect: &str| {
        let token = spelt(&header.to_string(), &claims, |_| Vec::new());
        assert_eq!(world.read(&token), expect, "{header}");
    };
    let algorithm =
        "the token's header is not accepted: `alg` is missing, `none`, or nothing that is accepted";
    let unknown = "the token names a key that its issuer does not have, or not for this algorithm";
    check(json!({ "alg": "none", "kid": "k1" }), algorithm);
    check(json!({ "alg": "None", "kid": "k1" }), algorithm);
    check(json!({ "kid": "k1" }), algorithm);
    check(json!({ "alg": "HS256", "kid": "k1" }), unknown);
    check(json!({ "alg": "RS256", "kid": "k1" }), unknown);
    check(json!({ "alg": "ES384", "kid": "k1" }), unknown);
    check(json!({ "alg": "ES256", "kid": "k2" }), unknown);
    check(json!({ "alg": "ES256", "kid": "../../k1" }), unknown);
    check(json!({ "alg": "ES256", "kid": "K1" }), unknown);
    let no_key = "the token's header is not accepted: `kid` is missing: a token names its key";
    check(json!({ "alg": "ES256" }), no_key);
    check(json!({ "alg": "ES256", "kid": "" }), no_key);
    check(json!({ "alg": "ES256", "kid": 1 }), no_key);
    let critical = "the token's header is not accepted: `crit` is not understood";
    check(json!({ "alg": "ES256", "kid": "k1", "crit": ["b64"], "b64": false }), critical);
    let kind = "the token's header is not accepted: `typ` is not that of such a token";
    check(json!({ "alg": "ES256", "kid": "k1", "typ": "dpop+jwt" }), kind);
    check(json!({ "alg": "ES256", "kid": "k1", "typ": 1 }), kind);
    check(json!({ "alg": "ES256", "kid": "k1", "typ": "at+jwt" }), kind);
    check(json!({ "alg": "ES256", "kid": "k1", "typ": "application/AT+JWT" }), kind);
    check(json!({ "alg": "ES256", "kid": "k1" }), "the token's signature is not its issuer's");
}

/// RFC 9068 section 2.1: past its type, it is judged as any other.
#[test]
fn an_access_token_is_read_where_one_is_wanted_and_nowhere_else() {
    let world = World::new();
    let header = json!({ "alg": "ES256", "kid": "k1", "typ": "at+jwt" }).to_string();
    let token = spelt(&header, &claims().to_string(), |_| vec![0; 64]);
    let read = |access_token| {
        let rules = Rules { access_token, ..World::rules() };
        token::read(&token, &world.keys, &rules).unwrap_err().to_string()
    };
    assert_eq!(read(true), "the token's signature is not its issuer's");
    assert_eq!(read(false), "the token's header is not accepted: `typ` is not that of such a token");
}

#[test]
fn signatures_that_are_refused() {
    let world = World::new();
    let forged = world.other.token("k1", &claims()).unwrap();
    assert_eq!(world.read(&forged), "the token's signature is not its issuer's");
    let public = world.key.public("k1");
    let secret = hmac::Key::new(hmac::HMAC_SHA256, public["x"].as_str().unwrap().as_bytes());
    let header = json!({ "alg": "HS256", "kid": "k1" }).to_string();
    let confused = spelt(&header, &claims().to_string(), |m| hmac::sign(&secret, m).as_ref().to_vec());
    let unknown = "the token names a key that its issuer does not have, or not for this algorithm";
    assert_eq!(world.read(&confused), unknown, "signed with the public key as a secret");
    let good = world.key.token("k1", &claims()).unwrap();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let moved = format!("{}.{signature}", message.replacen('e', "f", 1));
    assert!(!world.read(&moved).starts_with("accepted"));
    let padded = format!("{good}=");
    assert_eq!(
        world.read(&padded),
        "the token's signature is not its issuer's",
        "one token has one spelling"
    );
}

#[test]
fn shapes_that_are_refused() {
    let world = World::new();
    let check = |token: &str, expect: &str| assert_eq!(world.read(token), expect, "{token}");
    check("", "it is not a signed token: it does not have three parts");
    check("a.b", "it is not a signed token: it does not have three parts");
    check("a.b.c.d", "it is not a signed token: it does not have three parts");
    check("a.b.c.d.e", "it is not a signed token: it does not have three parts");
    check("!.b.c", "it is not a signed token: it is not base64url");
    check(&"a".repeat(token::MAX_BYTES + 1), "the token has 16385 bytes; at most 16384 are read");
    check("W10.e30.", "it is not a signed token: its header is not a JSON object");
    let twice = r#"{"alg":"ES256","alg":"ES256","kid":"k1"}"#;
    check(&spelt(twice, "{}", |_| vec![]), "it is not a signed token: its header is not a JSON object");
    let twice = world.key.token("k1", &Twice).unwrap();
    check(&twice, "it is not a signed token: its claims are not a JSON object");
    let list = world.key.token("k1", &json!([])).unwrap();
    check(&list, "it is not a signed token: its claims are not a JSON object");
}

/// Claims with two subjects.
struct Twice;

impl Serialize for Twice {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (name, value) in claims().as_object().unwrap() {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("sub", "root")?;
        map.end()
    }
}

const URL: &str = "https://broker.example/leasehold.v1.LeaseService/RequestLease";

fn check_proof(proof: &str, token: &str) -> String {
    let demand = Demand { method: "POST", url: URL, token, now: Timestamp(NOW * 1000) };
    match proof::check(proof, &demand) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_proof_is_for_one_request_with_one_token() {
    let key = ProofKey::generate().unwrap();
    let make = |method: &str, url: &str, token: &str, at: i64| {
        key.prove(method, url, token, Timestamp(at * 1000)).unwrap()
    };
    let check = |proof: String, expect: &str| assert_eq!(check_proof(&proof, "t1"), expect);
    check(make("POST", URL, "t1", NOW), "accepted");
    check(make("POST", URL, "t1", NOW - 60), "accepted");
    check(make("GET", URL, "t1", NOW), "the proof is refused: `htm` is not that of this request");
    check(
        make("POST", "https://evil.example/x", "t1", NOW),
        "the proof is refused: `htu` is not that of this request",
    );
    check(make("POST", URL, "t2", NOW), "the proof is refused: `ath` is not that of this request");
    let stale = "the proof is refused: it was made at 2026-11-18T11:05:39.000Z, and now is 2026-11-18T11:06:40.000Z; \
                 check the clock of this machine";
    check(make("POST", URL, "t1", NOW - 61), stale);
    assert!(check_proof(&make("POST", URL, "t1", NOW + 61), "t1").contains("it was made at"));
}

#[test]
fn a_proof_may_name_the_agent_that_acts() {
    let key = ProofKey::generate().unwrap();
    let demand = Demand { method: "POST", url: URL, token: "t", now: Timestamp(NOW * 1000) };
    let of = |agent: Option<&str>| {
        let proof = key.prove_as(agent, "POST", URL, "t", demand.now).unwrap();
        proof::check(&proof, &demand).map(|proof| proof.agent).map_err(|error| error.to_string())
    };
    assert_eq!(of(None), Ok(None));
    assert_eq!(of(Some("coding")), Ok(Some("coding".to_owned())));
    let refused = Err("the proof is refused: `leasehold_agent` is not that of this request".to_owned());
    assert_eq!(of(Some("")), refused);
    assert_eq!(of(Some(&"x".repeat(129))), refused);
}

#[test]
fn a_key_that_is_kept_is_the_same_key() {
    let document = SigningKey::new_pkcs8().unwrap();
    let names = [0, 1].map(|_| ProofKey::from_pkcs8(&document).unwrap().thumbprint().clone());
    assert_eq!(names[0], names[1]);
    assert!(ProofKey::from_pkcs8(&[]).is_err());
}

#[test]
fn proofs_of_another_key_have_another_name() {
    let demand = Demand { method: "POST", url: URL, token: "t", now: Timestamp(NOW * 1000) };
    let names: Vec<_> = (0..2)
        .map(|_| {
            let key = ProofKey::generate().unwrap();
            let proof = proof::check(&key.prove("POST", URL, "t", demand.now).unwrap(), &demand).unwrap();
            assert_eq!(&proof.thumbprint, key.thumbprint());
            proof.thumbprint
        })
        .collect();
    assert_ne!(names[0], names[1]);
}

#[test]
fn proofs_that_are_refused() {
    let world = World::new();
    let key = world.key.public("");
    let (x, y) = (key["x"].clone(), key["y"].clone());
    let check = |header: Value, expect: &str| {
        assert_eq!(check_proof(&spelt(&header.to_string(), "{}", |_| vec![]), "t"), expect, "{header}");
    };
    let jwk = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y });
    let kind = "the proof is refused: the token's header is not accepted: a proof is `dpop+jwt` by ES256";
    check(json!({ "alg": "ES256", "jwk": jwk }), kind);
    check(json!({ "typ": "dpop+jwt", "alg": "RS256", "jwk": jwk }), kind);
    let typ = "the proof is refused: the token's header is not accepted: `typ` is not that of such a token";
    check(json!({ "typ": "JWT", "alg": "ES256", "jwk": jwk }), typ);
    let bad_key = "the proof is refused: `jwk` is not a public key on P-256 (ES256)";
    check(json!({ "typ": "dpop+jwt", "alg": "ES256" }), bad_key);
    let private = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "d": x });
    check(json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": private }), bad_key);
    let injected = json!({ "kty": "EC", "crv": "P-256", "x": "\",\"y\":\"", "y": y });
    check(json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": injected }), bad_key);
    let unsigned = "the proof is refused: the token's signature is not its issuer's";
    check(json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk }), unsigned);
}
