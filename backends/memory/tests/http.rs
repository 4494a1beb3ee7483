//! The suite over HTTP, and what agents see of the service.
#![cfg(feature = "http")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_backend::conformance::{Failure, Harness, LateMint, Session, run};
use leasehold_backend::{Backend, BackendError, Credential, Entropy, Issued};
use leasehold_law::catalog::Recipe;
use leasehold_law::lease::Grade;
use leasehold_law::policy::IssueOrder;
use leasehold_law::principal::PrincipalName;
use leasehold_law::time::Span;
use leasehold_memory::http::{HttpBackend, Token, serve};
use leasehold_memory::{Call, Fault, Gate, MemoryTarget, Rule, Settings};
use reqwest::{Client, Response, StatusCode};
use support::Fixed;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

const TOKEN: &[u8] = b"a-token-for-tests-only";

struct OverHttp {
    clock: Arc<Fixed>,
    target: Arc<MemoryTarget>,
    backend: Arc<HttpBackend>,
    address: SocketAddr,
}

impl OverHttp {
    async fn start(grade: Grade) -> Self {
        let clock = Arc::new(Fixed::default());
        let target = Arc::new(MemoryTarget::new(Settings::of(grade), clock.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, target.clone(), Token::new(TOKEN).unwrap()));
        let backend = backend(address, TOKEN, grade);
        Self { clock, target, backend, address }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn backend(address: SocketAddr, token: &[u8], grade: Grade) -> Arc<HttpBackend> {
    let token = Token::new(token).unwrap();
    let url = format!("http://{address}");
    Arc::new(HttpBackend::new("demo", &url, token, Settings::of(grade)).unwrap())
}

#[async_trait]
impl Harness for OverHttp {
    fn backend(&self) -> Arc<dyn Backend> {
        self.backend.clone()
    }

    fn entropy(&self) -> Arc<dyn Entropy> {
        self.clock.clone()
    }

    fn recipe(&self) -> Recipe {
        support::good_recipe()
    }

    fn bad_recipes(&self) -> Vec<(Recipe, &'static str)> {
        support::bad_recipes()
    }

    async fn connect(&self, credential: &Credential) -> Result<Option<Box<dyn Session>>, Failure> {
        let user = credential.public["user"].clone();
        let password = String::from_utf8(credential.secret["password"].expose().to_vec()).unwrap();
        let client = Client::builder().no_proxy().build()?;
        let request = client.get(self.url("/session")).basic_auth(&user, Some(&password));
        let mut stream = request.send().await?;
        if stream.status() == StatusCode::UNAUTHORIZED {
            return Ok(None);
        }
        let first = stream.chunk().await?.ok_or_else(|| Failure::new("the stream is empty"))?;
        let number = std::str::from_utf8(&first).unwrap().trim();
        let ping = self.url(&format!("/session/{number}"));
        Ok(Some(Box::new(Stream { client, ping, user, password, stream: Mutex::new(stream) })))
    }

    async fn pass(&self, span: Span) {
        self.clock.advance(span);
    }

    async fn late_mint(&self, order: IssueOrder) -> Option<Box<dyn LateMint>> {
        let gate = Gate::default();
        self.target.faults.add(Rule::once(Call::Issue, Fault::Hold(gate.clone())));
        let backend = self.backend();
        let call = tokio::spawn(async move { backend.issue(&order).await });
        gate.arrival().await;
        Some(Box::new(Held { gate, call }))
    }

    async fn disable(&self, principal: &PrincipalName) -> bool {
        self.target.disable(principal.as_str())
    }
}

struct Stream {
    client: Client,
    ping: String,
    user: String,
    password: String,
    stream: Mutex<Response>,
}

#[async_trait]
impl Session for Stream {
    async fn works(&self) -> bool {
        let ping = self.client.post(&self.ping).basic_auth(&self.user, Some(&self.password));
        let status = ping.send().await.unwrap().status();
        let line = self.stream.lock().await.chunk().await.ok().flatten();
        assert_eq!(status == StatusCode::NO_CONTENT, line.is_some(), "the stream and {status} do not agree");
        line.is_some()
    }
}

struct Held {
    gate: Gate,
    call: JoinHandle<Result<Issued, BackendError>>,
}

#[async_trait]
impl LateMint for Held {
    async fn arrive(self: Box<Self>) -> Result<Issued, BackendError> {
        self.gate.open();
        self.call.await.unwrap()
    }
}

mod exact {
    use super::*;
    leasehold_backend::conformance!(OverHttp::start(Grade::Exact));
}

mod coarse {
    use super::*;
    leasehold_backend::conformance!(OverHttp::start(Grade::Coarse));
}

#[tokio::test]
async fn an_agent_reads_until_it_is_revoked_and_the_listing_shows_it() {
    let harness = OverHttp::start(Grade::Exact).await;
    let client = Client::builder().no_proxy().build().unwrap();
    let listing = async || {
        let request =
            client.get(harness.url("/admin/principals")).bearer_auth(str::from_utf8(TOKEN).unwrap());
        request.send().await.unwrap().json::<Vec<serde_json::Value>>().await.unwrap()
    };
    let read = async |credential: &Credential| {
        let password = str::from_utf8(credential.secret["password"].expose()).unwrap();
        let request = client.get(harness.url("/read")).basic_auth(&credential.public["user"], Some(password));
        request.send().await.unwrap().status()
    };
    let outcome = run(&harness, async |bench| {
        let leased = bench.issue().await?;
        assert_eq!(read(&leased.issued.credential).await, StatusCode::OK);
        assert_eq!(listing().await[0]["name"], leased.principal().as_str());
        bench.kill(leased.revocation()).await?;
        assert_eq!(read(&leased.issued.credential).await, StatusCode::UNAUTHORIZED);
        assert!(listing().await.is_empty());
        Ok(())
    });
    outcome.await.unwrap();
}

#[tokio::test]
async fn a_stranger_gets_nothing() {
    let harness = OverHttp::start(Grade::Exact).await;
    let stranger = backend(harness.address, b"not-the-right-token", Grade::Exact);
    assert!(matches!(stranger.health(&[]).await, Err(BackendError::Refused { .. })));
    let client = Client::builder().no_proxy().build().unwrap();
    for path in ["/admin/principals", "/read", "/session"] {
        let response = client.get(harness.url(path)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn a_service_that_is_away_is_transient_and_names_the_target() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = listener.local_addr().unwrap();
    drop(listener);
    let error = backend(away, TOKEN, Grade::Exact).health(&[]).await.unwrap_err();
    assert!(error.outcome_unknown() && error.to_string().starts_with("demo "), "{error}");
}

#[tokio::test]
async fn another_grade_than_the_service_s_is_found_out() {
    let harness = OverHttp::start(Grade::Coarse).await;
    let wrong = backend(harness.address, TOKEN, Grade::Exact);
    assert_eq!(wrong.health(&[]).await.unwrap().missing_privileges[0].fix, "grade = \"coarse\"");
}

#[tokio::test]
async fn a_lost_answer_leaves_a_principal_that_a_revocation_finds() {
    let harness = OverHttp::start(Grade::Exact).await;
    harness.target.faults.add(Rule::once(Call::Issue, Fault::lost_answer()));
    let outcome = run(&harness, async |bench| {
        let order = bench.order(Span::from_mins(1)).await?;
        assert!(bench.backend.issue(&order).await.unwrap_err().outcome_unknown());
        assert_eq!(harness.target.accounts().len(), 1);
        Ok(())
    });
    outcome.await.unwrap();
    assert!(harness.target.accounts().is_empty());
    assert_eq!(harness.target.calls(Call::Revoke), 1);
}

#[test]
fn a_token_file_that_others_may_read_is_refused() {
    let path = std::env::temp_dir().join(format!("leasehold-token-{}", std::process::id()));
    std::fs::write(&path, "a-token-for-tests-only\n").unwrap();
    let text = path.to_str().unwrap();
    let check = |mode, good| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(Token::read(text).is_ok(), good, "{mode:o}");
    };
    check(0o600, true);
    check(0o640, false);
    check(0o604, false);
    std::fs::remove_file(&path).unwrap();
    assert!(Token::read(text).is_err());
}
