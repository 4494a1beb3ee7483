//! The service: questions of the broker, and what agents do.
//!
//! | request | proof | answer |
//! |---|---|---|
//! | `POST /admin` | bearer token | one question of the broker |
//! | `GET /admin/principals` | bearer token | everybody, for proof from outside |
//! | `GET /read` | name and secret (RFC 7617) | who reads, or 401 |
//! | `GET /session` | name and secret | a stream that ends when the session does; its first line is the number |
//! | `POST /session/{number}` | the session's name and secret | 204 and a line `ping` on the stream, or 410 |

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use leasehold_backend::{Backend, BackendError};
use leasehold_law::secret::Secret;
use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::Token;
use super::wire::{ADMIN, Ask, Minted, Pulse, READ, Row};
use crate::backend::MemoryBackend;
use crate::target::{MemoryTarget, SessionId};

/// The longest question, in bytes.
const MAX_BODY: usize = 1 << 20;
/// Most principals on a page.
const MAX_PAGE: usize = 1000;

struct Service {
    backend: MemoryBackend,
    token: Token,
}

/// Serves a target until the listener fails; dropping the future stops it.
///
/// # Errors
/// Where the listener is not on loopback, or fails.
pub async fn serve(listener: TcpListener, target: Arc<MemoryTarget>, token: Token) -> io::Result<()> {
    if !listener.local_addr()?.ip().is_loopback() {
        return Err(io::Error::other("the memory service listens on loopback only"));
    }
    let service = Arc::new(Service { backend: MemoryBackend::new(target), token });
    let router = Router::new()
        .route(ADMIN, post(admin))
        .route("/admin/principals", get(principals))
        .route(READ, get(read))
        .route("/session", get(session))
        .route("/session/{number}", post(ping))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(service);
    axum::serve(listener, router).await
}

async fn admin(State(service): State<Arc<Service>>, headers: HeaderMap, Json(ask): Json<Ask>) -> Response {
    if !service.is_broker(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    Json(service.answer(ask).await).into_response()
}

async fn principals(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    if !service.is_broker(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let row = |name: String| {
        let (account, sessions) = service.target().find(&name)?;
        let disabled = account.disabled.is_some();
        Some(Row { name, role: account.role, ends: account.ends, disabled, sessions })
    };
    Json(service.target().accounts().into_keys().filter_map(row).collect::<Vec<_>>()).into_response()
}

async fn read(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let login = basic(&headers).filter(|(name, secret)| service.target().accepts(name, secret.expose()));
    match login.and_then(|(name, _)| Some((service.target().find(&name)?.0.role, name))) {
        Some((role, name)) => Json(json!({ "user": name, "role": role })).into_response(),
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

async fn session(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let login =
        basic(&headers).and_then(|(name, secret)| service.target().login_stream(&name, secret.expose()));
    let Some((SessionId(number), lines)) = login else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let first = tokio_stream::once(number.to_string());
    let lines = first.chain(ReceiverStream::new(lines)).map(|line| Ok::<_, Infallible>(format!("{line}\n")));
    Body::from_stream(lines).into_response()
}

async fn ping(
    State(service): State<Arc<Service>>,
    Path(number): Path<u64>,
    headers: HeaderMap,
) -> StatusCode {
    let Some((_, secret)) = basic(&headers) else { return StatusCode::UNAUTHORIZED };
    let told = service.target().tell(SessionId(number), secret.expose(), "ping");
    if told { StatusCode::NO_CONTENT } else { StatusCode::GONE }
}

type Answer = Result<Value, BackendError>;

impl Service {
    fn target(&self) -> &MemoryTarget {
        self.backend.target()
    }

    /// Digests are compared, so that the time tells nothing of the token.
    fn is_broker(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let same =
            |shown| digest(&SHA256, shown).as_ref() == digest(&SHA256, self.token.secret().expose()).as_ref();
        shown.is_some_and(same)
    }

    async fn answer(&self, ask: Ask) -> Answer {
        let backend = &self.backend;
        match ask {
            Ask::Mint(mint) => value(backend.mint(mint).await.map(|minted| Minted {
                secret: String::from_utf8_lossy(minted.secret.expose()).into_owned(),
                handle: minted.handle,
            })),
            Ask::Renew { name, ttl, by } => value(backend.move_end(&name, ttl, by).await),
            Ask::Find { name } => value(backend.find(&name).await),
            Ask::Revoke { name, handle } => value(Ok(backend.kill(&name, handle.as_deref()).await)),
            Ask::LateSessions => value(backend.late_sessions().await),
            Ask::Reap { handles } => value(backend.reap(&handles).await),
            Ask::Owner => value(backend.owner().await),
            Ask::Claim { claim, instead_of } => value(backend.claim(&claim, instead_of.as_ref()).await),
            Ask::List { prefix, after, limit } => {
                value(backend.list_principals(&prefix, after.as_deref(), limit.min(MAX_PAGE)).await)
            }
            Ask::Health => {
                let grade = backend.capabilities().grade;
                value(backend.health(&[]).await.map(|health| Pulse { health, grade }))
            }
        }
    }
}

fn value<T: Serialize>(outcome: Result<T, BackendError>) -> Answer {
    let written = serde_json::to_value(outcome?);
    written.map_err(|error| BackendError::Refused { what: error.to_string(), fix: None })
}

fn basic(headers: &HeaderMap) -> Option<(String, Secret)> {
    let shown = headers.get(AUTHORIZATION)?.as_bytes().strip_prefix(b"Basic ")?;
    let pair = Secret::new(BASE64_STANDARD.decode(shown).ok()?);
    let colon = pair.expose().iter().position(|byte| *byte == b':')?;
    let (name, secret) = pair.expose().split_at_checked(colon)?;
    Some((String::from_utf8(name.to_vec()).ok()?, Secret::new(secret.get(1..)?.to_vec())))
}
