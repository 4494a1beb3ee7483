//! Channels to a broker: mutual TLS with a live SVID, or a unix socket for local users.

use std::{
    error::Error as StdError,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use leasehold_law::words::with_causes;
use rustls::pki_types::ServerName;
use spiffe::{
    SpiffeId, X509Source,
    transport::Endpoint as WorkloadEndpoint,
    workload_api::{WorkloadApiClient, WorkloadApiError},
};
use spiffe_rustls::{TerminalSourcePolicy, TlsStatus, TrustDomainPolicy, authorizer};
use spiffe_rustls_tokio::TlsConnector;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::{Instant, timeout_at},
};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// Path of the broker's SPIFFE ID in the caller's own trust domain, where no other id is given.
const SERVER_SEGMENT: &str = "leasehold";
/// Sent as TLS server name and HTTP authority only; the server is known by its SPIFFE ID.
const AUTHORITY: &str = "leasehold.invalid";
/// A broker that vanished without a word is noticed after these two.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEPALIVE_WAIT: Duration = Duration::from_secs(10);

/// Why there is no channel to the broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// No socket at the path, or nobody listens on it.
    #[error("nobody listens on `{socket}`: {reason}")]
    NoSocket {
        /// The socket, as given.
        socket: String,
        /// The system's words.
        reason: String,
    },
    /// The socket is there and closed to this user.
    #[error("this user may not open `{socket}`")]
    NotAllowed {
        /// The socket, as given.
        socket: String,
    },
    /// The Workload API endpoint cannot be read.
    #[error("`{endpoint}` is no Workload API endpoint: {reason}")]
    BadEndpoint {
        /// The endpoint, as given.
        endpoint: String,
        /// The parser's words.
        reason: String,
    },
    /// The Workload API gives this process no identity.
    #[error("the Workload API at `{endpoint}` issued no identity to this process")]
    NoIdentityIssued {
        /// The endpoint, as given.
        endpoint: String,
    },
    /// The Workload API answered with something unusable.
    #[error("the Workload API at `{endpoint}` failed: {reason}")]
    BadIdentity {
        /// The endpoint, as given.
        endpoint: String,
        /// What went wrong.
        reason: String,
    },
    /// Somebody else answered: no request was sent.
    #[error("the server is `{found}`, not `{expected}`")]
    WrongServerId {
        /// The id asked for.
        expected: String,
        /// The id that the server proved.
        found: String,
    },
    /// The server's certificate is not to be trusted: no request was sent.
    #[error("the server at `{addr}` proved no identity that this process trusts: {reason}")]
    UntrustedServer {
        /// The address, as given.
        addr: String,
        /// What was wrong with it.
        reason: String,
    },
    /// The server did not take this process's SVID.
    #[error("the server at `{addr}` refused this identity: {alert}")]
    Refused {
        /// The address, as given.
        addr: String,
        /// The TLS alert, or how the connection ended.
        alert: String,
    },
    /// No TCP connection.
    #[error("cannot reach `{addr}`: {reason}")]
    Unreachable {
        /// The address, as given.
        addr: String,
        /// The system's words.
        reason: String,
    },
    /// The deadline passed.
    #[error("no connection to `{addr}` within {} ms", after.as_millis())]
    Timeout {
        /// The address, as given.
        addr: String,
        /// The time that was given.
        after: Duration,
    },
}

/// Connects to `addr` (`host:port`) by mutual TLS with the SVID that `workload_api` (`unix:/path`) issues.
///
/// The server must prove `server`, or `spiffe://<own trust domain>/leasehold` if none is given. One handshake
/// is made and closed before the answer, since under TLS 1.3 a client learns of its refusal only with the first
/// read. The channel connects again by itself, each time with the newest SVID. `deadline` bounds the whole call.
///
/// # Errors
/// As [`ChannelError`] says.
pub async fn connect_spiffe(
    workload_api: &str,
    addr: &str,
    server: Option<SpiffeId>,
    deadline: Duration,
) -> Result<Channel, ChannelError> {
    let give_up = Instant::now() + deadline;
    let late = |_| ChannelError::Timeout { addr: addr.to_owned(), after: deadline };
    let source = timeout_at(give_up, identity(workload_api, deadline)).await.map_err(late)??;
    let dialer = Dialer::new(workload_api, addr, server, source)?;
    timeout_at(give_up, dialer.rehearse()).await.map_err(late)??;
    Ok(dialer.into_channel(deadline))
}

/// Connects to the admin door on a unix socket. The kernel tells the broker who calls.
///
/// # Errors
/// [`ChannelError::NoSocket`] or [`ChannelError::NotAllowed`].
pub async fn connect_unix(path: &Path) -> Result<Channel, ChannelError> {
    drop(UnixStream::connect(path).await.map_err(|error| socket_error(path, &error))?);
    let path: Arc<PathBuf> = Arc::new(path.to_owned());
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path.as_path()).await.map(TokioIo::new) }
    });
    Ok(endpoint().connect_with_connector_lazy(connector))
}

fn socket_error(path: &Path, error: &io::Error) -> ChannelError {
    let socket = path.display().to_string();
    match error.kind() == io::ErrorKind::PermissionDenied {
        true => ChannelError::NotAllowed { socket },
        false => ChannelError::NoSocket { socket, reason: error.to_string() },
    }
}

fn endpoint() -> Endpoint {
    keep_alive(Endpoint::from_static("http://leasehold.invalid"))
}

/// Notices a broker that vanished without a word.
pub(crate) fn keep_alive(endpoint: Endpoint) -> Endpoint {
    endpoint.http2_keep_alive_interval(KEEPALIVE_EVERY).keep_alive_timeout(KEEPALIVE_WAIT)
}

/// A live source of SVIDs. The first look is made apart, since the source itself forgets why it had to wait.
async fn identity(workload_api: &str, deadline: Duration) -> Result<X509Source, ChannelError> {
    look(workload_api).await?;
    let source = X509Source::builder().endpoint(workload_api).initial_sync_timeout(deadline).build().await;
    source.map_err(|error| bad_identity(workload_api, &error))
}

async fn look(workload_api: &str) -> Result<(), ChannelError> {
    let endpoint = workload_api.to_owned();
    let bad = |reason| ChannelError::BadEndpoint { endpoint: endpoint.clone(), reason };
    let parsed = WorkloadEndpoint::parse(workload_api).map_err(|error| bad(error.to_string()))?;
    if let WorkloadEndpoint::Unix(path) = &parsed {
        drop(UnixStream::connect(path).await.map_err(|error| socket_error(path, &error))?);
    }
    let nobody =
        |error| ChannelError::NoSocket { socket: workload_api.to_owned(), reason: with_causes(&error) };
    let client = WorkloadApiClient::connect(parsed).await.map_err(nobody)?;
    client.fetch_x509_svid().await.map(drop).map_err(|error| {
        match matches!(error, WorkloadApiError::NoIdentityIssued) {
            true => ChannelError::NoIdentityIssued { endpoint },
            false => bad_identity(workload_api, &error),
        }
    })
}

fn bad_identity(workload_api: &str, error: &dyn StdError) -> ChannelError {
    ChannelError::BadIdentity { endpoint: workload_api.to_owned(), reason: with_causes(error) }
}

/// Makes connections to one server that must prove one id.
#[derive(Clone)]
struct Dialer {
    addr: Arc<str>,
    expected: Arc<SpiffeId>,
    tls: TlsConnector,
    status: TlsStatus,
}

/// Why a dial failed: as the caller sees it.
type Dialled<T> = Result<T, ChannelError>;

impl Dialer {
    fn new(
        workload_api: &str,
        addr: &str,
        server: Option<SpiffeId>,
        source: X509Source,
    ) -> Result<Self, ChannelError> {
        let bad = |error: &dyn StdError| bad_identity(workload_api, error);
        let expected = match server {
            Some(id) => id,
            None => default_server(&source).map_err(|error| bad(&*error))?,
        };
        let exact = authorizer::exact([expected.clone()]).map_err(|error| bad(&error))?;
        let (config, status) = spiffe_rustls::mtls_client(source)
            .authorize(exact)
            .trust_domain_policy(TrustDomainPolicy::LocalOnly(expected.trust_domain().clone()))
            .terminal_source_policy(TerminalSourcePolicy::FailClosed)
            .with_alpn_protocols([b"h2"])
            .build_with_status()
            .map_err(|error| bad(&error))?;
        let tls = TlsConnector::new(Arc::new(config));
        Ok(Self { addr: addr.into(), expected: Arc::new(expected), tls, status })
    }

    /// Connects once and waits for the server's first bytes: an HTTP/2 server speaks first once it has accepted
    /// the client's certificate.
    async fn rehearse(&self) -> Dialled<()> {
        let mut stream = self.dial().await?;
        match stream.read_u8().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refused(&error)),
        }
    }

    async fn dial(&self) -> Dialled<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
        let tcp = TcpStream::connect(&*self.addr).await.map_err(|error| self.unreachable(&error))?;
        tcp.set_nodelay(true).map_err(|error| self.unreachable(&error))?;
        self.settled().await;
        let name = ServerName::try_from(AUTHORITY).map_err(|error| self.untrusted(error.to_string()))?;
        let (stream, _) = self.tls.connect(name, tcp).await.map_err(|error| self.handshake_error(&error))?;
        Ok(stream)
    }

    /// Waits out the moment in which a rotated SVID is known but not yet applied: a handshake would fail in it.
    async fn settled(&self) {
        let mut status = self.status.clone();
        while is_pending(&status) {
            if status.changed().await.is_err() {
                return;
            }
        }
    }

    fn into_channel(self, deadline: Duration) -> Channel {
        let connector = service_fn(move |_: Uri| {
            let dialer = self.clone();
            async move { dialer.dial().await.map(TokioIo::new) }
        });
        endpoint().connect_timeout(deadline).connect_with_connector_lazy(connector)
    }

    fn unreachable(&self, error: &io::Error) -> ChannelError {
        ChannelError::Unreachable { addr: self.addr.to_string(), reason: error.to_string() }
    }

    fn untrusted(&self, reason: String) -> ChannelError {
        ChannelError::UntrustedServer { addr: self.addr.to_string(), reason }
    }

    /// The server ended the connection, with an alert or without.
    fn refused(&self, error: &io::Error) -> ChannelError {
        let alert = match error.kind() == io::ErrorKind::UnexpectedEof {
            true => "it closed the connection without a word".to_owned(),
            false => error.to_string(),
        };
        ChannelError::Refused { addr: self.addr.to_string(), alert }
    }

    /// Tells our refusal of the server from the server's refusal of us.
    fn handshake_error(&self, error: &spiffe_rustls_tokio::Error) -> ChannelError {
        let spiffe_rustls_tokio::Error::Io(io) = error else { return self.untrusted(error.to_string()) };
        let Some(tls) = io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return self.refused(io);
        };
        if matches!(tls, rustls::Error::AlertReceived(_)) {
            return self.refused(io);
        }
        match found_id(tls) {
            Some(found) => ChannelError::WrongServerId { expected: self.expected.to_string(), found },
            None => self.untrusted(tls.to_string()),
        }
    }
}

fn is_pending(status: &TlsStatus) -> bool {
    let error = status.current().error;
    error.is_some_and(|error| matches!(*error, spiffe_rustls::Error::PendingRevision { .. }))
}

/// The id of a server that proved one, only not the right one.
fn found_id(error: &rustls::Error) -> Option<String> {
    let rustls::Error::Other(other) = error else { return None };
    match other.0.downcast_ref::<spiffe_rustls::Error>() {
        Some(spiffe_rustls::Error::UnauthorizedSpiffeId(found)) => Some(found.to_string()),
        Some(_) | None => None,
    }
}

fn default_server(source: &X509Source) -> Result<SpiffeId, Box<dyn StdError>> {
    let svid = source.svid()?;
    Ok(SpiffeId::from_segments(svid.spiffe_id().trust_domain().clone(), &[SERVER_SEGMENT])?)
}
