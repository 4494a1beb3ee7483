//! Server-authenticated TLS 1.3, for callers that come with a token.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use tokio_rustls::TlsAcceptor;

/// A certificate chain and its key, as PEM files; read again when told to, so that a renewed one needs no restart.
pub struct WebCertificate {
    chain: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
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

impl ResolvesServerCert for WebCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read(chain: &Path, key: &Path) -> Result<CertifiedKey, WebCertificateError> {
    let wrong = |reason: String| WebCertificateError { chain: chain.to_owned(), key: key.to_owned(), reason };
    let certificates = CertificateDer::pem_file_iter(chain).and_then(Iterator::collect);
    let certificates: Vec<_> = certificates.map_err(|error| wrong(error.to_string()))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(error.to_string()))?;
    let signer = any_supported_type(&secret).map_err(|error| wrong(error.to_string()))?;
    let certified = CertifiedKey::new(certificates, signer);
    certified.keys_match().map_err(|error| wrong(error.to_string()))?;
    Ok(certified)
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
