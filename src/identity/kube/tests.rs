//! Tokens of service accounts, a line each with the exact refusal.

use std::sync::Arc;

use leasehold_jose::{SigningKey, token};
use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp(1_795_000_000_000);
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A cluster whose keys are in a file, and its accounts `payments/worker` and `payments/pinned`.
struct World {
    key: SigningKey,
    tokens: KubeTokens,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::generate().unwrap();
        let file = folder.path().join("keys.json");
        std::fs::write(&file, json!({ "keys": [key.public("k1")] }).to_string()).unwrap();
        let cluster = Cluster {
            name: "prod".to_owned(),
            url: ISSUER.parse().unwrap(),
            keys: KeySource::File(file),
            audience: "leasehold".to_owned(),
            max_life: Span::from_mins(60),
        };
        let account = |name: &str, uid: Option<&str>| Account {
            id: format!("kube:prod|{name}").parse().unwrap(),
            cluster: "prod".to_owned(),
            name: name.to_owned(),
            uid: uid.map(str::to_owned),
        };
        let accounts = [account("payments/worker", None), account("payments/pinned", Some("u-1"))];
        let now: Now = Arc::new(|| NOW);
        let tokens = KubeTokens::new(&[cluster], &accounts, &now).unwrap();
        Self { key, tokens, _folder: folder }
    }

    async fn said(&self, claims: &Value) -> String {
        let token = self.key.token("k1", claims).unwrap();
        let peek = token::peek(&token).unwrap();
        match self.tokens.verify(&token, &peek, NOW).await {
            Ok(vouch) => format!("{} by {}", vouch.id, vouch.proven_by.name()),
            Err(refused) => refused.what,
        }
    }
}

/// As the kubelet projects one.
fn projected(account: &str) -> Value {
    let now = NOW.0 / 1000;
    json!({
        "iss": ISSUER, "aud": ["leasehold"], "iat": now, "nbf": now, "exp": now + 3600, "jti": "7",
        "sub": format!("system:serviceaccount:payments:{account}"),
        "kubernetes.io": {
            "namespace": "payments",
            "node": { "name": "n1", "uid": "n-1" },
            "pod": { "name": "worker-0", "uid": "p-1" },
            "serviceaccount": { "name": account, "uid": "u-1" },
        },
    })
}

#[tokio::test]
async fn accounts_and_tokens_that_count_and_that_do_not() {
    let world = World::new();
    let check = async |pointer: &str, value: Option<Value>, expect: &str| {
        let mut claims = projected("worker");
        let (outer, name) = pointer.rsplit_once('/').unwrap();
        let outer = claims.pointer_mut(outer).unwrap().as_object_mut().unwrap();
        match value {
            None => drop(outer.remove(name)),
            Some(value) => drop(outer.insert(name.to_owned(), value)),
        }
        assert_eq!(world.said(&claims).await, expect, "{pointer}");
    };
    check("/jti", None, "kube:prod|payments/worker by kube-token").await;
    check("/exp", None, "the token has no `exp`").await;
    check("/aud", Some(json!("kubernetes")), "the token's audience is not exactly `leasehold`").await;
    check("/exp", Some(json!(NOW.0 / 1000 + 86400)), "the token lives for 1d; at most 1h are accepted").await;
    let no = |why: &str| format!("the token is not a projected one: {why}");
    check("/kubernetes.io", None, &no("it has no `kubernetes.io`")).await;
    check("/kubernetes.io", Some(json!("payments")), &no("it has no `kubernetes.io`")).await;
    check("/kubernetes.io/namespace", None, &no("it names no namespace")).await;
    check("/kubernetes.io/serviceaccount", None, &no("it names no service account")).await;
    check("/kubernetes.io/serviceaccount/uid", None, &no("it names no service account")).await;
    check("/kubernetes.io/pod", None, &no("it is bound to no pod")).await;
    check("/kubernetes.io/pod/uid", Some(json!("")), &no("it is bound to no pod")).await;
    let two = no("`sub` and `kubernetes.io` are about two accounts");
    check("/sub", Some(json!("system:serviceaccount:payments:other")), &two).await;
    check("/kubernetes.io/namespace", Some(json!("other")), &two).await;
}

#[tokio::test]
async fn only_registered_accounts_count() {
    let world = World::new();
    let stranger = "the account `payments/stranger` of cluster `prod` is not in [kube_accounts]";
    assert_eq!(world.said(&projected("stranger")).await, stranger);
    assert_eq!(world.said(&projected("pinned")).await, "kube:prod|payments/pinned by kube-token");
    let mut anew = projected("pinned");
    anew["kubernetes.io"]["serviceaccount"]["uid"] = json!("u-2");
    let expect = "the account `payments/pinned` of cluster `prod` was made anew: its uid is not the one in \
                  [kube_accounts]";
    assert_eq!(world.said(&anew).await, expect);
}

#[test]
fn a_token_of_another_issuer_is_left_to_others() {
    let world = World::new();
    let token = world.key.token("k1", &json!({ "iss": format!("{ISSUER}/"), "sub": "x" })).unwrap();
    assert!(!world.tokens.is_mine(&token::peek(&token).unwrap()));
}
