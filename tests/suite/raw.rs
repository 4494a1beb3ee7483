//! Channels that no honest client makes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use leasehold::clock::{SystemTime, TimeSource};
use leasehold::dev::ca::{DevCa, Shape};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::world::World;

/// The authority of no server.
const AUTHORITY: &str = "leasehold.invalid";

/// A channel of an agent whose HTTP/2 window lets nothing of an answer through.
pub(crate) async fn narrow(world: &World, name: &str) -> Channel {
    let source = spiffe::X509Source::builder().endpoint(world.endpoint(name)).build().await.unwrap();
    let config = spiffe_rustls::mtls_client(source)
        .authorize(spiffe_rustls::authorizer::any())
        .with_alpn_protocols([b"h2"])
        .build()
        .unwrap();
    let endpoint = Endpoint::from_static("http://leasehold.invalid").initial_stream_window_size(0);
    over(&endpoint, world.running().agents, config)
}

/// A channel of a workload of another trust domain.
pub(crate) fn stranger(address: SocketAddr) -> Channel {
    let ca = DevCa::generate("stranger.leasehold.test", SystemTime.wall()).unwrap();
    shaped(&ca, Shape::Good, address)
}

/// A channel of the agent `triage` with such a certificate. It trusts whatever answers.
pub(crate) fn shaped(ca: &DevCa, shape: Shape, address: SocketAddr) -> Channel {
    over(&Endpoint::from_static("http://leasehold.invalid"), address, gullible(ca, shape))
}

/// A channel whose requests are for another server than the one that gets them.
pub(crate) fn for_another(origin: &str, ca: &DevCa, address: SocketAddr) -> Channel {
    over(&Endpoint::from_shared(origin.to_owned()).unwrap(), address, gullible(ca, Shape::Good))
}

/// Whether a new connection of the agent `triage` with an SVID of this authority is taken.
pub(crate) async fn is_taken(ca: &DevCa, address: SocketAddr) -> bool {
    let tls = tokio_rustls::TlsConnector::from(Arc::new(gullible(ca, Shape::Good)));
    let Ok(tcp) = TcpStream::connect(address).await else { return false };
    match tls.connect(ServerName::try_from(AUTHORITY).unwrap(), tcp).await {
        // Under TLS 1.3 a client learns of its refusal with the first read.
        Ok(mut stream) => stream.read_u8().await.is_ok(),
        Err(_) => false,
    }
}

/// An open connection of the agent `triage` that speaks no HTTP/2 of itself.
pub(crate) async fn connection(ca: &DevCa, address: SocketAddr) -> TlsStream<TcpStream> {
    let tls = tokio_rustls::TlsConnector::from(Arc::new(gullible(ca, Shape::Good)));
    let tcp = TcpStream::connect(address).await.unwrap();
    tls.connect(ServerName::try_from(AUTHORITY).unwrap(), tcp).await.unwrap()
}

/// The TLS of a client that trusts whatever answers.
fn gullible(ca: &DevCa, shape: Shape) -> ClientConfig {
    let svid = ca.sign("/agent/triage", shape, SystemTime.wall(), Duration::from_secs(600)).unwrap();
    let chain = vec![CertificateDer::from(svid.certificate().to_vec())];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.expose_key().to_vec()));
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

fn over(endpoint: &Endpoint, address: SocketAddr, config: ClientConfig) -> Channel {
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connect = move |_: http::Uri| {
        let tls = tls.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            let name = ServerName::try_from(AUTHORITY).map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(tls.connect(name, tcp).await?))
        }
    };
    endpoint.connect_with_connector_lazy(tower::service_fn(connect))
}

/// Takes every server for the right one.
#[derive(Debug)]
pub(crate) struct Gullible;

impl ServerCertVerifier for Gullible {
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
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
