//! An OpenID Connect issuer for trials and tests: `https` on loopback under an authority of its own, keys that rotate,
//! and answers that can be spoilt.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use leasehold_jose::SigningKey;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::DevError;

/// Where the document is.
const DISCOVERY: &str = "/.well-known/openid-configuration";
/// Where the keys are.
const KEYS: &str = "/keys";
/// How many keys it publishes: the newest, and the one before it.
const PUBLISHED: usize = 2;

/// How a path answers instead.
#[derive(Clone, Debug)]
pub enum Answer {
    /// With this.
    Json(Value),
    /// With this many bytes, of which it does not say beforehand how many they are.
    Flood(usize),
    /// By pointing elsewhere.
    Redirect(String),
    /// Not at all.
    Never,
    /// That something is wrong on its side.
    Broken,
}

/// An issuer. It ends when it is dropped.
#[derive(Debug)]
pub struct DevIssuer {
    url: String,
    folder: TempDir,
    inner: Arc<Mutex<Inner>>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Inner {
    url: String,
    keys: VecDeque<(String, SigningKey)>,
    made: usize,
    answers: BTreeMap<String, Answer>,
    asked: BTreeMap<String, usize>,
}

impl DevIssuer {
    /// Starts one, on a free port.
    ///
    /// # Errors
    /// Where no certificate can be made, or no port opened.
    pub async fn start() -> Result<Self, DevError> {
        let io = |source| DevError::Io { path: "issuer".to_owned(), source };
        let folder = tempfile::tempdir().map_err(io)?;
        let acceptor = acceptor(&folder.path().join("ca.pem"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(io)?;
        let url = format!("https://localhost:{}", listener.local_addr().map_err(io)?.port());
        let (answers, asked) = (BTreeMap::new(), BTreeMap::new());
        let inner = Inner { url: url.clone(), keys: VecDeque::new(), made: 0, answers, asked };
        let inner = Arc::new(Mutex::new(inner));
        let routes = Router::new().fallback(answer).with_state(inner.clone());
        let server = tokio::spawn(serve(listener, acceptor, routes));
        let issuer = Self { url, folder, inner, server };
        issuer.rotate()?;
        Ok(issuer)
    }

    /// What it calls itself.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The certificate of the authority that its own is from, as PEM.
    #[must_use]
    pub fn ca_file(&self) -> std::path::PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Signs with a new key from now on. The one before is still published; the one before that is not.
    ///
    /// # Errors
    /// Where the system gives no random bits.
    pub fn rotate(&self) -> Result<(), DevError> {
        let key = SigningKey::generate()?;
        let mut inner = self.inner();
        inner.made += 1;
        let id = format!("k{}", inner.made);
        inner.keys.push_front((id, key));
        inner.keys.truncate(PUBLISHED);
        Ok(())
    }

    /// A token with these claims, and with `iss` where they have none.
    ///
    /// # Errors
    /// Where the claims are no object, or there are no random bits.
    pub fn token(&self, mut claims: Value) -> Result<String, DevError> {
        let inner = self.inner();
        if let Some(claims) = claims.as_object_mut() {
            claims.entry("iss").or_insert_with(|| json!(self.url));
        }
        let (id, key) = inner.keys.front().ok_or(leasehold_jose::SigningError)?;
        Ok(key.token(id, &claims)?)
    }

    /// From now on a path answers so; `None` for what it usually answers.
    pub fn set(&self, path: &str, answer: Option<Answer>) {
        let answers = &mut self.inner().answers;
        match answer {
            Some(answer) => drop(answers.insert(path.to_owned(), answer)),
            None => drop(answers.remove(path)),
        }
    }

    /// How often a path was asked for.
    #[must_use]
    pub fn asked(&self, path: &str) -> usize {
        self.inner().asked.get(path).copied().unwrap_or_default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DevIssuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Inner {
    /// What a path usually answers.
    fn usual(&self, path: &str) -> Option<Value> {
        let at = |path: &str| format!("{}{path}", self.url);
        match path {
            DISCOVERY => Some(json!({
                "issuer": self.url,
                "jwks_uri": at(KEYS),
                "authorization_endpoint": at("/authorize"),
                "token_endpoint": at("/token"),
                "device_authorization_endpoint": at("/device"),
            })),
            KEYS => {
                let keys: Vec<_> = self.keys.iter().map(|(id, key)| key.public(id)).collect();
                Some(json!({ "keys": keys }))
            }
            _ => None,
        }
    }
}

async fn answer(State(inner): State<Arc<Mutex<Inner>>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let answer = {
        let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
        *inner.asked.entry(path.clone()).or_default() += 1;
        inner.answers.get(&path).cloned().or_else(|| inner.usual(&path).map(Answer::Json))
    };
    match answer {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(Answer::Json(value)) => axum::Json(value).into_response(),
        Some(Answer::Flood(bytes)) => flood(bytes).into_response(),
        Some(Answer::Redirect(to)) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Some(Answer::Never) => std::future::pending().await,
        Some(Answer::Broken) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

fn flood(bytes: usize) -> Body {
    const PIECE: usize = 64 * 1024;
    let pieces = (0..bytes.div_ceil(PIECE)).map(|_| Ok::<_, std::io::Error>(vec![b' '; PIECE]));
    Body::from_stream(futures::stream::iter(pieces))
}

/// An authority, written to `ca_file`, and a server's certificate from it.
fn acceptor(ca_file: &Path) -> Result<TlsAcceptor, DevError> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let own = authority.self_signed(&key)?;
    std::fs::write(ca_file, own.pem())
        .map_err(|source| DevError::Io { path: ca_file.display().to_string(), source })?;
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let leaf_key = KeyPair::generate()?;
    let leaf = CertificateParams::new(names)?.signed_by(&leaf_key, &Issuer::new(authority, key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let key = PrivateKeyDer::Pkcs8(leaf_key.serialize_der().into());
    let config = builder.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, routes: Router) {
    let mut open = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while open.try_join_next().is_some() {}
        open.spawn(converse(stream, acceptor.clone(), routes.clone()));
    }
}

async fn converse(stream: TcpStream, acceptor: TlsAcceptor, routes: Router) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let mut http = auto::Builder::new(TokioExecutor::new()).http1_only();
    http.http1().keep_alive(false);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)).await {
        tracing::debug!(error, "a connection to the dev issuer ended badly");
    }
}
