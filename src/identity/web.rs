//! Server-authenticated TLS 1.3, for callers that come with a token.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, TlsAcceptor};
use x509_parser::extensions::GeneralName;

use super::refusal::{RefusalReason, Refused};

/// A certificate chain and its key, as PEM files; read again when told to, so that a renewed one needs no restart.
pub struct WebCertificate {
    chain: PathBuf,
    key: PathBuf,
    current: ArcSwap<Current>,
}

/// What was read last.
struct Current {
    key: Arc<CertifiedKey>,
    /// The hosts that the certificate is for, in lower case: names, patterns as `*.example`, and addresses.
    hosts: BTreeSet<String>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the certificate `{}` with the key `{}` cannot be used: {reason}", chain.display(), key.display())]
pub struct WebCertificateError {
    chain: PathBuf,
    key: PathBuf,
    reason: String,
}

impl fmt::Debug for WebCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebCertificate").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl WebCertificate {
    /// Reads both files.
    ///
    /// # Errors
    /// Where they cannot be read, or do not belong together.
    pub fn load(chain: &Path, key: &Path) -> Result<Self, WebCertificateError> {
        let current = ArcSwap::from_pointee(read(chain, key)?);
        Ok(Self { chain: chain.to_owned(), key: key.to_owned(), current })
    }

    /// Reads both files again. Where they cannot be used, the old ones stay.
    ///
    /// # Errors
    /// As [`WebCertificate::load`].
    pub fn reload(&self) -> Result<(), WebCertificateError> {
        self.current.store(Arc::new(read(&self.chain, &self.key)?));
        Ok(())
    }
}

impl WebCertificate {
    /// Whether it is for this host. A pattern stands for one label (RFC 9525 section 6.3).
    #[must_use]
    pub fn is_for(&self, host: &str) -> bool {
        let (host, current) = (host.to_ascii_lowercase(), self.current.load());
        let pattern = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        current.hosts.contains(&host) || pattern.is_some_and(|pattern| current.hosts.contains(&pattern))
    }
}

impl ResolvesServerCert for WebCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().key.clone())
    }
}

/// TLS 1.3 without a client's certificate, for clients that ask for the server by a name of its certificate.
#[derive(Clone)]
pub struct WebTls {
    certificate: Arc<WebCertificate>,
    acceptor: TlsAcceptor,
}

impl fmt::Debug for WebTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebTls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl WebTls {
    /// With this certificate.
    ///
    /// # Errors
    /// Where the provider of cryptography does not have TLS 1.3.
    pub fn new(certificate: Arc<WebCertificate>) -> Result<Self, rustls::Error> {
        Ok(Self { acceptor: acceptor(certificate.clone())?, certificate })
    }

    /// Whether a client wants a server of that name. One that holds an SVID asks for no name of ours: it knows the server by
    /// its SPIFFE ID.
    pub(super) fn is_asked_for(&self, hello: &StartHandshake<TcpStream>) -> bool {
        let hello = hello.client_hello();
        let name = hello.server_name().map(str::to_ascii_lowercase);
        name.is_some_and(|name| self.certificate.current.load().hosts.contains(&name))
    }

    /// Ends the handshake. The caller sets the deadline.
    pub(super) async fn greet(
        &self,
        hello: StartHandshake<TcpStream>,
    ) -> Result<Box<TlsStream<TcpStream>>, Refused> {
        let stream = hello.into_stream(self.acceptor.config().clone()).await;
        stream.map(Box::new).map_err(|error| Refused::from_handshake(&error))
    }
}

/// Reads the first message of a handshake, which says whom the client wants. The caller sets the deadline.
pub(super) async fn hello(tcp: TcpStream) -> Result<StartHandshake<TcpStream>, Refused> {
    tcp.set_nodelay(true).map_err(|error| Refused::new(RefusalReason::Other, error.to_string()))?;
    let hello = LazyConfigAcceptor::new(Acceptor::default(), tcp).await;
    hello.map_err(|error| Refused::from_handshake(&error))
}

fn read(chain: &Path, key: &Path) -> Result<Current, WebCertificateError> {
    let wrong = |reason: String| WebCertificateError { chain: chain.to_owned(), key: key.to_owned(), reason };
    let certificates = CertificateDer::pem_file_iter(chain).and_then(Iterator::collect);
    let certificates: Vec<_> = certificates.map_err(|error| wrong(error.to_string()))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(error.to_string()))?;
    let signer = any_supported_type(&secret).map_err(|error| wrong(error.to_string()))?;
    let certified = CertifiedKey::new(certificates, signer);
    certified.keys_match().map_err(|error| wrong(error.to_string()))?;
    let hosts = certified.cert.first().map(hosts).unwrap_or_default();
    Ok(Current { key: Arc::new(certified), hosts })
}

/// The names of hosts in a certificate.
fn hosts(leaf: &CertificateDer<'_>) -> BTreeSet<String> {
    let Ok((_, leaf)) = x509_parser::parse_x509_certificate(leaf) else { return BTreeSet::new() };
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return BTreeSet::new() };
    let host = |name: &GeneralName<'_>| {
        if let GeneralName::IPAddress(bytes) = name {
            return address(bytes).map(|address| address.to_string());
        }
        let GeneralName::DNSName(host) = name else { return None };
        Some(host.to_ascii_lowercase())
    };
    names.value.general_names.iter().filter_map(host).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// TLS 1.3 without a client certificate.
///
/// # Errors
/// Where the provider of cryptography does not have TLS 1.3.
pub(super) fn acceptor(resolver: Arc<dyn ResolvesServerCert>) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions =
        ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&version::TLS13])?;
    let mut config = versions.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
