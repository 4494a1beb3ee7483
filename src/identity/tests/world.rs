//! A broker's front door on real sockets, and clients of every sort.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use leasehold_law::{caller::CallerId, time::Timestamp};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    sign::CertifiedKey,
};
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Request, Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Server},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    dev::{
        ca::DevSvid,
        trust_domain::{DevIdentity, DevTrustDomain},
    },
    identity::{
        ConnectInfo, Door, Now, Presented, RefusalCount, RefusalReason, Refusals,
        listener::{Entrance, Gate, Limits, bind_tcp, bind_unix},
        spiffe::{SpiffeIdentity, SpiffeSettings},
        unix::Access,
    },
};

pub(super) const DOMAIN: &str = "home.leasehold.test";
pub(super) const BROKER: &str = "spiffe://home.leasehold.test/leasehold";
/// The one trust domain that the broker federates with.
pub(super) const PARTNER: &str = "partner.leasehold.test";
pub(super) const TTL: Duration = Duration::from_secs(600);
/// No test waits so long unless it fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn wall() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_millis()).unwrap())
}

fn wall_clock() -> Now {
    Arc::new(wall)
}

/// A dev trust domain in a folder of its own.
pub(super) struct Domain {
    pub(super) inner: DevTrustDomain,
    _dir: TempDir,
}

impl Domain {
    pub(super) fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let inner = DevTrustDomain::open(&dir.path().join("dev"), name, TTL, wall_clock()).unwrap();
        Self { inner, _dir: dir }
    }
}

pub(super) fn settings(workload_api: String) -> SpiffeSettings {
    let id = BROKER.parse().unwrap();
    let federates_with = [PARTNER.to_owned()].into();
    SpiffeSettings { workload_api, id, dev_trust: true, federates_with, sync_timeout: PATIENCE }
}

/// A broker that answers health checks to proven callers and remembers who came.
pub(super) struct World {
    pub(super) domain: Domain,
    pub(super) broker: DevIdentity,
    pub(super) identity: SpiffeIdentity,
    pub(super) addr: SocketAddr,
    /// Where callers come with tokens.
    pub(super) open: SocketAddr,
    pub(super) socket: PathBuf,
    pub(super) refusals: Arc<Refusals>,
    skew: Arc<AtomicI64>,
    seen: Arc<Mutex<Vec<Presented>>>,
    shown: Arc<Mutex<Option<ConnectInfo>>>,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    pub(super) async fn with(limits: Limits) -> Self {
        let domain = Domain::new(DOMAIN);
        let broker = domain.inner.serve("broker", "/leasehold").await.unwrap();
        let identity = SpiffeIdentity::connect(&settings(broker.endpoint())).await.unwrap();
        let skew = Arc::new(AtomicI64::new(0));
        let offset = skew.clone();
        let now: Now = Arc::new(move || wall().shifted(offset.load(Ordering::SeqCst)));
        let refusals = Arc::new(Refusals::default());
        let known = Arc::new(|id: &CallerId| !id.to_string().ends_with("/visitor"));
        let gate = Gate { now: now.clone(), refusals: refusals.clone(), known };
        let (entrance, incoming) = Entrance::new(Door::Agents, limits, gate);
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let socket = domain.inner.dir().join("door.sock");
        entrance.accept_tls(listener, identity.server_tls().unwrap());
        let tokens = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let open = tokens.local_addr().unwrap();
        entrance.accept_open(tokens, identity.open_tls().unwrap());
        entrance.accept_unix(bind_unix(&socket, Access::Owner).await.unwrap());
        let seen = Arc::new(Mutex::new(vec![]));
        let (_, health) = tonic_health::server::health_reporter();
        let shown = Arc::new(Mutex::new(None));
        let guarded = InterceptedService::new(health, guard(now, seen.clone(), shown.clone()));
        tokio::spawn(Server::builder().add_service(guarded).serve_with_incoming(incoming));
        Self { domain, broker, identity, addr, open, socket, refusals, skew, seen, shown }
    }

    /// Moves the broker's clock.
    pub(super) fn skew(&self, by: Duration) {
        self.skew.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// What the last request presented.
    pub(super) fn last_seen(&self) -> Presented {
        self.seen.lock().unwrap().last().cloned().unwrap()
    }

    /// What one more request on the connection of the last one would present, whether or not it is open.
    pub(super) fn one_more(&self) -> Presented {
        let mut extensions = http::Extensions::new();
        extensions.insert(self.shown.lock().unwrap().clone().unwrap());
        Presented::of(&extensions, wall())
    }

    pub(super) async fn agent(&self, name: &str) -> DevIdentity {
        self.domain.inner.serve(name, &format!("/agent/{name}")).await.unwrap()
    }

    pub(super) async fn connect(&self, agent: &DevIdentity) -> Channel {
        let server = Some(BROKER.try_into().unwrap());
        let addr = self.addr.to_string();
        leasehold_client::channel::connect_spiffe(&agent.endpoint(), &addr, server, PATIENCE).await.unwrap()
    }

    /// Waits for the one refusal that must come, and checks that it is the only one.
    pub(super) async fn expect_refusal(&self, reason: RefusalReason, case: &str) {
        let rows = eventually(case, || {
            Some(self.refusals.drain(Timestamp(i64::MAX))).filter(|rows: &Vec<RefusalCount>| !rows.is_empty())
        });
        let rows: Vec<_> = rows.await.iter().map(|row| (row.reason, row.count)).collect();
        assert_eq!(rows, [(reason, 1)], "{case}");
    }
}

fn guard(
    now: Now,
    seen: Arc<Mutex<Vec<Presented>>>,
    shown: Arc<Mutex<Option<ConnectInfo>>>,
) -> impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone {
    move |request| {
        let presented = Presented::of(request.extensions(), now());
        seen.lock().unwrap().push(presented.clone());
        *shown.lock().unwrap() = request.extensions().get().cloned();
        match presented {
            Presented::Proven(..) => Ok(request),
            Presented::NotPresented | Presented::Open(_) => Err(Status::unauthenticated("nothing presented")),
            Presented::Rejected(why) => Err(Status::unauthenticated(why.to_string())),
        }
    }
}

pub(super) async fn check(channel: &Channel) -> Result<(), Status> {
    HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.map(drop)
}

/// Polls a condition that a real server brings about, with a bound.
pub(super) async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A connection that comes from this address of the host's own.
pub(super) async fn tcp_from(source: &str, addr: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    socket.connect(addr).await.unwrap()
}

/// A TLS client without scruples: any server, any certificate of its own or none.
pub(super) async fn raw_tls(
    addr: SocketAddr,
    own: Option<&DevSvid>,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    raw_tls_over(TcpStream::connect(addr).await?, own, version).await
}

/// The same over a connection that is open.
pub(super) async fn raw_tls_over(
    tcp: TcpStream,
    own: Option<&DevSvid>,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let shows = own.map(|svid| Shows::new(&[svid.certificate().to_vec()], svid.expose_key()));
    raw_tls_as(tcp, shows, version).await
}

/// The same with whatever is shown.
pub(super) async fn raw_tls_as(
    tcp: TcpStream,
    shows: Option<Shows>,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let mut config = match shows {
        None => builder.with_no_client_auth(),
        Some(shows) => builder.with_client_cert_resolver(Arc::new(shows)),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("broker.invalid").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// A chain and a key that need not fit each other, nor be right in any way.
#[derive(Debug)]
pub(super) struct Shows(Arc<CertifiedKey>);

impl Shows {
    pub(super) fn new(chain: &[Vec<u8>], key: &[u8]) -> Self {
        let chain = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let key = ring::sign::any_supported_type(&PrivateKeyDer::Pkcs8(key.to_vec().into())).unwrap();
        Self(Arc::new(CertifiedKey::new(chain, key)))
    }
}

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
