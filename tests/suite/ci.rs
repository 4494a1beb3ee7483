//! A job of a CI platform and a pod, from what their platforms give them to leases that end with them.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use leasehold::clock::{SystemTime, TimeSource as _};
use leasehold::dev::issuer::DevIssuer;
use leasehold_client::{Client as Sdk, Options};
use leasehold_jose::SigningKey;
use leasehold_proto::v1;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::bearer::{with_a_door, world_with};
use crate::web::write_certificate;
use crate::world::{Setup, World};

const DEPLOY: &str = "ci:github|1/123/prod";

/// What stands in GitHub's place: its issuer, and the service that a job asks for its token.
#[derive(Clone)]
pub(crate) struct Github {
    issuer: Arc<DevIssuer>,
    /// What the job is.
    job: Arc<Mutex<Value>>,
    url: String,
}

impl Github {
    pub(crate) async fn start() -> Self {
        let issuer = Arc::new(DevIssuer::start().await.unwrap());
        let job = Arc::new(Mutex::new(json!({
            "repository_owner_id": "1", "repository_id": "123", "environment": "prod",
            "ref": "refs/heads/main", "event_name": "push", "sub": "repo:acme/shop:environment:prod",
        })));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token?api-version=2.0", listener.local_addr().unwrap());
        let github = Self { issuer, job, url };
        let routes = Router::new().fallback(service).with_state(github.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        github
    }

    /// With its issuer, and a rule for one job.
    pub(crate) fn setup(&self) -> Setup {
        let config = format!(
            r#"
            [identity.ci.github]
            kind = "github"
            issuer = "{}"
            ca_file = "{}"
            [ci_jobs.deploy]
            issuer = "github"
            owner = "group:data"
            groups = ["soc"]
            autonomy = "act"
            repository_owner_id = 1
            repository_id = 123
            environment = "prod"
            ref = "refs/heads/main"
            "#,
            self.issuer.url(),
            self.issuer.ca_file().display()
        );
        added(&config)
    }

    /// The token of the job for an audience.
    pub(crate) fn token(&self, audience: &str) -> String {
        let mut claims = self.job.lock().unwrap().clone();
        let now = SystemTime.wall().0 / 1000;
        claims["aud"] = json!(audience);
        claims["iat"] = json!(now);
        claims["exp"] = json!(now + 300);
        self.issuer.token(claims).unwrap()
    }

    /// Makes the job another one.
    pub(crate) fn change(&self, claim: &str, value: Value) {
        self.job.lock().unwrap()[claim] = value;
    }

    /// What the runner sets in a job that may ask.
    fn leave(&self) -> [(&'static str, &str); 2] {
        [("ACTIONS_ID_TOKEN_REQUEST_URL", &self.url), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "leave")]
    }
}

/// A token for the audience that is asked for, to whoever has leave.
async fn service(State(github): State<Github>, request: Request) -> Response {
    let leave = request.headers().get(header::AUTHORIZATION).is_some_and(|value| value == "Bearer leave");
    let query = request.uri().query().unwrap_or_default();
    let audience = query.split('&').find_map(|pair| pair.strip_prefix("audience="));
    let (true, Some(audience)) = (leave, audience) else { return StatusCode::UNAUTHORIZED.into_response() };
    axum::Json(json!({ "count": 1, "value": github.token(audience) })).into_response()
}

fn added(config: &str) -> Setup {
    let mut setup = with_a_door();
    setup.config.push_str(config);
    setup
}

/// The program in a job: nothing of this machine's environment reaches it.
async fn job(world: &World, variables: &[(&str, &str)], args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
    command.args(args).env_clear().env("PATH", "/usr/bin:/bin").current_dir(world.dir.path());
    command.env("LEASEHOLD_ADDR", format!("https://{}", world.running().bearer.unwrap()));
    command.env("LEASEHOLD_CA_FILE", world.path("web-ca.pem")).envs(variables.iter().copied());
    let output = command.output().await.unwrap();
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code(), told.concat())
}

const EXEC: [&str; 7] =
    ["exec", "--lease", "orders.read@orders", "--", "sh", "-c", "echo ran in $LEASEHOLD_TASK"];

#[tokio::test]
async fn a_job_leases_with_nothing_but_what_its_platform_gives_it() {
    let github = Github::start().await;
    let world = world_with(&github.setup()).await;
    let (code, told) = job(&world, &github.leave(), &EXEC).await;
    assert!(code == Some(0) && told.contains("ran in task_"), "{code:?}: {told}");
    assert_eq!(World::principals(&world.orders), 0, "its lease ended with it");
    let (code, told) = job(&world, &github.leave(), &["whoami"]).await;
    assert!(code == Some(0) && told.contains(DEPLOY), "{code:?}: {told}");
    assert_eq!(github.issuer.asked("/keys"), 1);
}

#[tokio::test]
async fn a_job_that_fits_no_rule_is_told_which_claim_does_not() {
    let github = Github::start().await;
    let world = world_with(&github.setup()).await;
    let check = async |claim: &str, value: Value, expect: &str| {
        let before = github.job.lock().unwrap().clone();
        github.change(claim, value);
        let (code, told) = job(&world, &github.leave(), &EXEC).await;
        assert!(code == Some(125) && told.contains(expect) && !told.contains("ran in"), "{code:?}: {told}");
        *github.job.lock().unwrap() = before;
    };
    let no = "no rule in [ci_jobs] fits this job:";
    let other = format!("{no} repository_id is 456, rule `deploy` wants 123");
    check("repository_id", json!("456"), &other).await;
    let pull = format!("{no} ref is `refs/pull/7/merge`, rule `deploy` wants `refs/heads/main`");
    check("ref", json!("refs/pull/7/merge"), &pull).await;
    assert_eq!(World::principals(&world.orders), 0);
}

#[tokio::test]
async fn a_job_without_a_token_is_told_what_to_write() {
    let github = Github::start().await;
    let world = world_with(&github.setup()).await;
    let check = async |variables: &[(&str, &str)], expect: &[&str]| {
        let (code, told) = job(&world, variables, &EXEC).await;
        assert_eq!(code, Some(125), "{told}");
        expect.iter().for_each(|line| assert!(told.contains(line), "no {line} in {told}"));
    };
    let hub = [
        "this GitHub Actions job may not ask for an ID token",
        "id-token: write",
        "pull request from a fork",
    ];
    check(&[("GITHUB_ACTIONS", "true")], &hub).await;
    let lab = ["this GitLab job has no ID token in `LEASEHOLD_ID_TOKEN`", "id_tokens:", "aud: leasehold-ci"];
    check(&[("GITLAB_CI", "true")], &lab).await;
    check(&[], &["is a door for tokens, and this process has none"]).await;
}

#[tokio::test]
async fn a_pod_leases_with_its_projected_token() {
    let key = SigningKey::generate().unwrap();
    let now = SystemTime.wall().0 / 1000;
    let account = |name: &str| {
        let claims = json!({
            "iss": "https://kube.example", "aud": ["leasehold"], "iat": now, "exp": now + 3600,
            "sub": format!("system:serviceaccount:payments:{name}"),
            "kubernetes.io": {
                "namespace": "payments", "pod": { "name": "worker-0", "uid": "p-1" },
                "serviceaccount": { "name": name, "uid": "u-1" },
            },
        });
        key.token("k1", &claims).unwrap()
    };
    let config = r#"
        [identity.kubernetes.prod]
        issuer = "https://kube.example"
        jwks_file = "keys.json"
        [kube_accounts."payments/worker"]
        cluster = "prod"
        owner = "group:data"
        groups = ["soc"]
        autonomy = "act"
    "#;
    let setup = added(config);
    let mut world = World::prepare(&setup).await;
    write_certificate(world.dir.path());
    std::fs::write(world.path("keys.json"), json!({ "keys": [key.public("k1")] }).to_string()).unwrap();
    std::fs::write(world.path("token"), account("worker")).unwrap();
    world.start(&setup).await.unwrap_or_else(|error| panic!("the broker does not start: {error}"));
    let mut options = Options::default();
    options.addr = format!("https://{}", world.running().bearer.unwrap());
    options.ca_file = Some(world.path("web-ca.pem"));
    options.token_file = Some(world.path("token"));
    let client = Sdk::connect(options.clone()).await.unwrap();
    let me = client.whoami().await.unwrap();
    assert_eq!((me.id.as_str(), me.kind()), ("kube:prod|payments/worker", v1::CallerKind::KubeAccount));
    let task = client.task().scope("orders.read@orders").open().await.unwrap();
    task.lease("orders.read@orders").await.unwrap();
    assert_eq!(World::principals(&world.orders), 1);
    task.complete().await.unwrap();
    assert_eq!(World::principals(&world.orders), 0);
    std::fs::write(world.path("token"), account("stranger")).unwrap();
    let stranger = Sdk::connect(options).await.unwrap().whoami().await.unwrap_err().to_string();
    assert!(
        stranger.contains("the account `payments/stranger` of cluster `prod` is not in [kube_accounts]"),
        "{stranger}"
    );
}
