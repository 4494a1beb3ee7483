//! Callers that come with a token: where it comes from, and the proof that it is theirs (RFC 9449).

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use leasehold_jose::{ProofKey, token};
use leasehold_law::time::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, version};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use zeroize::Zeroizing;

use crate::channel::{ChannelError, keep_alive};
use crate::time::now;

/// A token is asked for anew this long before its end.
pub(crate) const FRESH: Duration = Duration::from_secs(30);
/// How long a source may take over a token.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no token: what, and what to do about it. It holds nothing of any token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct TokenSourceError {
    /// What is wrong.
    pub what: String,
    /// What to do next.
    pub next: String,
}

impl TokenSourceError {
    /// A source that takes too long.
    pub(crate) fn late() -> Self {
        Self {
            what: format!("no token came within {} s", PATIENCE.as_secs()),
            next: "look at whoever issues it, and try again".to_owned(),
        }
    }
}

/// A token on its way.
pub type Fetched<'a> = Pin<Box<dyn Future<Output = Result<Zeroizing<String>, TokenSourceError>> + Send + 'a>>;

/// Where tokens come from: a Workload API, a CI platform, a person's session.
pub trait TokenSource: Send + Sync {
    /// A token that is good now. Asked for once, and again shortly before it ends.
    fn fetch(&self) -> Fetched<'_>;

    /// The key that proves the calls. One of its own for each client, unless the tokens are those of a session that goes on
    /// from process to process.
    ///
    /// # Errors
    /// Where there is none.
    fn key(&self) -> Result<ProofKey, TokenSourceError> {
        ProofKey::generate().map_err(|error| TokenSourceError {
            what: error.to_string(),
            next: "the system gives no random bits: look at it".to_owned(),
        })
    }

    /// The agent that acts with the tokens of a person, where one does: each proof says so.
    fn agent(&self) -> Option<&str> {
        None
    }
}

/// Proves each call, with one key for as long as the client lives.
pub(crate) struct Bearer {
    source: Arc<dyn TokenSource>,
    key: ProofKey,
    origin: String,
    held: Mutex<Option<Held>>,
}

/// A token until it is nearly over.
struct Held {
    token: Arc<Zeroizing<String>>,
    until: Timestamp,
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearer").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Bearer {
    /// `origin` is what calls are made to: `https://host:port`.
    pub(crate) fn new(source: Arc<dyn TokenSource>, origin: &str) -> Result<Self, TokenSourceError> {
        let key = source.key()?;
        Ok(Self { source, key, origin: origin.trim_end_matches('/').to_owned(), held: Mutex::default() })
    }

    /// The token, and a proof for one call.
    pub(crate) async fn prove(
        &self,
        path: &str,
    ) -> Result<(Arc<Zeroizing<String>>, String), TokenSourceError> {
        let token = self.token().await?;
        let proof =
            self.key.prove_as(self.source.agent(), "POST", &format!("{}{path}", self.origin), &token, now());
        let proof = proof.map_err(|error| TokenSourceError {
            what: error.to_string(),
            next: "the system gives no random bits: look at it".to_owned(),
        })?;
        Ok((token, proof))
    }

    async fn token(&self) -> Result<Arc<Zeroizing<String>>, TokenSourceError> {
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref().filter(|held| held.until > now()) {
            return Ok(held.token.clone());
        }
        let fetched =
            timeout(PATIENCE, self.source.fetch()).await.map_err(|_| TokenSourceError::late())??;
        let end = token::peek(&fetched).ok().and_then(|peek| peek.expires_at).unwrap_or_else(now);
        let until = end.shifted(-i64::try_from(FRESH.as_millis()).unwrap_or_default());
        let token = Arc::new(fetched);
        *held = Some(Held { token: token.clone(), until });
        Ok(token)
    }
}

/// Connects to a door for tokens: TLS 1.3, the server known by its certificate for the host that was dialled, under the
/// system's roots or those of a file. Nobody is proven by that: each call over it must bring a token.
///
/// # Errors
/// [`ChannelError::Unreachable`], [`ChannelError::Timeout`], [`ChannelError::UntrustedServer`].
pub async fn connect_web(
    addr: &str,
    ca_file: Option<&Path>,
    deadline: Duration,
) -> Result<Channel, ChannelError> {
    let dialer = Dialer::new(addr, ca_file)?;
    let late = |_| ChannelError::Timeout { addr: addr.to_owned(), after: deadline };
    drop(timeout(deadline, dialer.dial()).await.map_err(late)??);
    let endpoint = Endpoint::from_shared(dialer.origin.clone()).map_err(|error| dialer.untrusted(&error))?;
    let connector = service_fn(move |_: Uri| {
        let dialer = dialer.clone();
        async move { dialer.dial().await.map(TokioIo::new) }
    });
    // The connector speaks TLS itself, so that the endpoint must not ask for its own.
    Ok(keep_alive(endpoint).connect_timeout(deadline).connect_with_connector_lazy(connector))
}

/// Makes connections to one server that must prove one name.
#[derive(Clone)]
struct Dialer {
    origin: String,
    addr: String,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Dialer {
    fn new(origin: &str, ca_file: Option<&Path>) -> Result<Self, ChannelError> {
        let bad = |reason: String| ChannelError::UntrustedServer { addr: origin.to_owned(), reason };
        let uri: Uri = origin.parse().map_err(|error| bad(format!("it is no address: {error}")))?;
        let host = uri.host().ok_or_else(|| bad("it names no host".to_owned()))?;
        let addr = format!("{host}:{}", uri.port_u16().unwrap_or(443));
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(name).map_err(|error| bad(error.to_string()))?;
        let tls = TlsConnector::from(Arc::new(config(ca_file).map_err(bad)?));
        Ok(Self { origin: origin.trim_end_matches('/').to_owned(), addr, name, tls })
    }

    async fn dial(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ChannelError> {
        let unreachable = |error: std::io::Error| ChannelError::Unreachable {
            addr: self.addr.clone(),
            reason: error.to_string(),
        };
        let tcp = TcpStream::connect(&self.addr).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        self.tls.connect(self.name.clone(), tcp).await.map_err(|error| self.untrusted(&error))
    }

    fn untrusted(&self, error: &dyn fmt::Display) -> ChannelError {
        ChannelError::UntrustedServer { addr: self.addr.clone(), reason: error.to_string() }
    }
}

fn config(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&version::TLS13]);
    let builder = builder.map_err(|error| error.to_string())?;
    let mut config = match ca_file {
        None => builder.with_platform_verifier().map_err(|error| error.to_string())?.with_no_client_auth(),
        Some(file) => builder.with_root_certificates(roots(file)?).with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn roots(file: &Path) -> Result<RootCertStore, String> {
    let wrong =
        |error: &dyn fmt::Display| format!("the roots in `{}` cannot be used: {error}", file.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() { Err(wrong(&"there is no certificate in it")) } else { Ok(roots) }
}

/// JWT-SVIDs of a Workload API.
pub(crate) struct WorkloadTokens {
    endpoint: String,
    audience: String,
}

impl WorkloadTokens {
    pub(crate) fn new(endpoint: &str, audience: &str) -> Self {
        Self { endpoint: endpoint.to_owned(), audience: audience.to_owned() }
    }
}

impl TokenSource for WorkloadTokens {
    fn fetch(&self) -> Fetched<'_> {
        Box::pin(async {
            let none = |reason: String| TokenSourceError {
                what: format!("the Workload API at `{}` gave no JWT-SVID: {reason}", self.endpoint),
                next: "`leasehold doctor` looks step by step".to_owned(),
            };
            let endpoint = spiffe::transport::Endpoint::parse(&self.endpoint);
            let endpoint = endpoint.map_err(|error| none(error.to_string()))?;
            let client = spiffe::WorkloadApiClient::connect(endpoint).await;
            let client = client.map_err(|error| none(error.to_string()))?;
            let svid = client.fetch_jwt_svid([&self.audience], None).await;
            Ok(Zeroizing::new(svid.map_err(|error| none(error.to_string()))?.token().to_owned()))
        })
    }
}

/// A token that somebody else keeps fresh in a file, as Kubernetes does: read anew each time.
#[derive(Clone, Debug)]
pub struct FileTokens {
    path: PathBuf,
    named_by: &'static str,
}

impl FileTokens {
    /// The token in this file; `named_by` is what named the file, for whoever is told that it cannot be read.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, named_by: &'static str) -> Self {
        Self { path: path.into(), named_by }
    }
}

impl TokenSource for FileTokens {
    fn fetch(&self) -> Fetched<'_> {
        Box::pin(async {
            let read = tokio::fs::read_to_string(&self.path).await.map(Zeroizing::new);
            let text = read.map_err(|error| TokenSourceError {
                what: format!("the token in `{}` cannot be read: {error}", self.path.display()),
                next: format!("{} names it", self.named_by),
            })?;
            Ok(Zeroizing::new(text.trim().to_owned()))
        })
    }
}
