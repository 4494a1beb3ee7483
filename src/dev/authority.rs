//! What a dev trust domain signs with, and the bundles by which others check it. Rolled in SPIRE's order: the next keys
//! are published, then signed with, and only then the old ones are withdrawn.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use leasehold_jose::SigningKey;
use leasehold_law::time::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::{DevError, ca::DevCa};
use crate::identity::Now;

/// Lifetime of a dev JWT-SVID; SPIRE's default.
pub const TOKEN_LIFE: Duration = Duration::from_secs(300);
/// Tokens kept for the next who asks for the same; a caller chooses audiences freely.
const KEPT_TOKENS: usize = 1024;
/// Characters of a key's id.
const KEY_ID: usize = 32;

/// The bundles of a trust domain, for whoever federates with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevBundle {
    /// The authorities' certificates, DER, one after the other.
    pub x509: Vec<u8>,
    /// The public keys of JWT-SVIDs: a JWK set.
    pub jwt: Vec<u8>,
}

/// The authority of one dev trust domain.
pub(super) struct Authority {
    now: Now,
    keys: Mutex<Keys>,
    tokens: Mutex<BTreeMap<Wanted, Token>>,
}

struct Keys {
    active: Arc<Generation>,
    published: Vec<Arc<Generation>>,
}

/// What is rolled together.
struct Generation {
    ca: Arc<DevCa>,
    id: String,
    key: SigningKey,
}

/// Whose token for whom; SPIRE does not mind the order of audiences either.
type Wanted = (String, Vec<String>);

struct Token {
    text: String,
    key: String,
    fresh_until: Timestamp,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("ca", &self.ca()).finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority whose certificate is kept in `dir`. Keys of JWT-SVIDs are not: they live as long as the process.
    pub(super) fn open(dir: &Path, trust_domain: &str, now: Now) -> Result<Self, DevError> {
        let first = Generation::new(DevCa::load_or_create(dir, trust_domain, now())?)?;
        let keys = Keys { active: first.clone(), published: vec![first] };
        Ok(Self { now, keys: Mutex::new(keys), tokens: Mutex::default() })
    }

    /// The certificate authority that signs now.
    pub(super) fn ca(&self) -> Arc<DevCa> {
        self.keys().active.ca.clone()
    }

    /// What is handed out now.
    pub(super) fn bundle(&self) -> DevBundle {
        let published = self.keys().published.clone();
        let x509 = published.iter().flat_map(|keys| keys.ca.certificate()).copied().collect();
        let keys: Vec<_> = published.iter().map(|keys| keys.key.public(&keys.id)).collect();
        DevBundle { x509, jwt: json!({ "keys": keys }).to_string().into_bytes() }
    }

    /// Publishes the next keys; nothing is signed with them yet.
    pub(super) fn publish_next(&self) -> Result<(), DevError> {
        let ca = DevCa::generate(self.ca().trust_domain(), (self.now)())?;
        let next = Generation::new(ca)?;
        self.keys().published.push(next);
        Ok(())
    }

    /// Signs with the keys that were published last.
    pub(super) fn activate(&self) {
        let mut keys = self.keys();
        if let Some(next) = keys.published.last().cloned() {
            keys.active = next;
        }
    }

    /// Withdraws all keys but those that sign, and the tokens that were made with them.
    pub(super) fn withdraw_old(&self) {
        let mut keys = self.keys();
        keys.published = vec![keys.active.clone()];
        let active = keys.active.id.clone();
        drop(keys);
        self.tokens().retain(|_, token| token.key == active);
    }

    /// A JWT-SVID: the same one for the same wish until half of its life is over, as SPIRE's agent caches it.
    pub(super) fn token(&self, id: &str, audience: &[String]) -> Result<String, DevError> {
        let now = (self.now)();
        let mut wanted = (id.to_owned(), audience.to_vec());
        wanted.1.sort();
        let mut tokens = self.tokens();
        tokens.retain(|_, token| now < token.fresh_until);
        if let Some(token) = tokens.get(&wanted) {
            return Ok(token.text.clone());
        }
        let token = self.mint(id, audience, now)?;
        let text = token.text.clone();
        if tokens.len() < KEPT_TOKENS {
            tokens.insert(wanted, token);
        }
        Ok(text)
    }

    fn mint(&self, id: &str, audience: &[String], now: Timestamp) -> Result<Token, DevError> {
        let issued = now.0.div_euclid(1000);
        let life = i64::try_from(TOKEN_LIFE.as_secs()).unwrap_or(i64::MAX);
        let claims = json!({ "aud": audience, "exp": issued.saturating_add(life), "iat": issued, "sub": id });
        let keys = self.keys().active.clone();
        let fresh_until = Timestamp(now.0.saturating_add(life.saturating_mul(1000) / 2));
        Ok(Token { text: keys.key.token(&keys.id, &claims)?, key: keys.id.clone(), fresh_until })
    }

    /// Any claims at all, signed with the key of the moment.
    pub(super) fn sign(&self, claims: &impl Serialize) -> Result<String, DevError> {
        let keys = self.keys().active.clone();
        Ok(keys.key.token(&keys.id, claims)?)
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tokens(&self) -> MutexGuard<'_, BTreeMap<Wanted, Token>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generation {
    fn new(ca: DevCa) -> Result<Arc<Self>, DevError> {
        let key = SigningKey::generate()?;
        let public = key.public("");
        let id = public.get("x").and_then(serde_json::Value::as_str).unwrap_or_default();
        let id = id.chars().take(KEY_ID).collect();
        Ok(Arc::new(Self { ca: Arc::new(ca), id, key }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    use serde_json::Value;
    use tempfile::TempDir;

    use super::*;

    const START: i64 = 1_800_000_000_000;
    const ID: &str = "spiffe://t.leasehold.test/a";

    struct World {
        _dir: TempDir,
        time: Arc<AtomicI64>,
        authority: Authority,
    }

    fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let time = Arc::new(AtomicI64::new(START));
        let clock = time.clone();
        let now: Now = Arc::new(move || Timestamp(clock.load(Ordering::SeqCst)));
        let authority = Authority::open(&dir.path().join("dev"), "t.leasehold.test", now).unwrap();
        World { _dir: dir, time, authority }
    }

    fn part(token: &str, at: usize) -> Value {
        let part = token.split('.').nth(at).unwrap();
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    fn key_ids(bundle: &DevBundle) -> Vec<String> {
        let set: Value = serde_json::from_slice(&bundle.jwt).unwrap();
        let keys = set["keys"].as_array().unwrap();
        keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_token_has_the_shape_that_spire_gives_it() {
        let World { authority, .. } = world();
        let token = authority.token(ID, &["leasehold".to_owned()]).unwrap();
        let key = &key_ids(&authority.bundle())[0];
        assert_eq!(part(&token, 0), json!({ "alg": "ES256", "kid": key, "typ": "JWT" }));
        let issued = START / 1000;
        let claims = json!({ "aud": ["leasehold"], "exp": issued + 300, "iat": issued, "sub": ID });
        assert_eq!(part(&token, 1), claims);
    }

    #[test]
    fn the_same_token_comes_again_until_half_of_its_life() {
        let World { authority, time, .. } = world();
        let audience = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let ask = |names: &[&str]| authority.token(ID, &audience(names)).unwrap();
        let first = ask(&["a", "b"]);
        time.store(START + 149_000, Ordering::SeqCst);
        assert_eq!(ask(&["b", "a"]), first);
        assert_ne!(ask(&["a"]), first);
        assert_ne!(authority.token("spiffe://t.leasehold.test/b", &audience(&["a", "b"])).unwrap(), first);
        time.store(START + 150_000, Ordering::SeqCst);
        assert_ne!(ask(&["a", "b"]), first);
    }

    #[test]
    fn keys_are_published_before_and_after_they_sign() {
        let World { authority, .. } = world();
        let kid = || part(&authority.token(ID, &["a".to_owned()]).unwrap(), 0)["kid"].clone();
        let first = kid();
        authority.publish_next().unwrap();
        assert_eq!(key_ids(&authority.bundle()).len(), 2);
        authority.activate();
        assert_eq!(kid(), first, "the token of the old key is still kept");
        assert!(authority.bundle().x509.len() > authority.ca().certificate().len(), "both authorities count");
        authority.withdraw_old();
        assert_ne!(kid(), first);
        assert_eq!(key_ids(&authority.bundle()), [kid().as_str().unwrap()]);
        assert_eq!(authority.bundle().x509, authority.ca().certificate());
    }
}
