//! The server side of TLS, by the broker's SVID: who the peer proves to be.

use std::{fmt, io, sync::Arc};

use ::spiffe::X509Source;
use leasehold_law::{
    caller::{CallerIdError, SpiffeId},
    time::Timestamp,
};
use rustls::{ProtocolVersion, pki_types::CertificateDer};
use spiffe_rustls::TlsStatus;
use tokio::net::TcpStream;
use tokio_rustls::{StartHandshake, TlsAcceptor, server::TlsStream};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

use super::{
    SpiffeError,
    life::{Life, Warned, warn_of},
    unusable,
};
use crate::identity::{
    refusal::{RefusalReason, Refused},
    vouched::{Bundles, Vouched},
    web,
};

/// Mutual TLS 1.3 with X.509-SVIDs; each handshake sees the newest SVID and bundles.
#[derive(Clone)]
pub struct ServerTls {
    pub(super) acceptor: TlsAcceptor,
    pub(super) source: X509Source,
    pub(super) status: TlsStatus,
    pub(super) warned: Warned,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("status", &self.status).finish_non_exhaustive()
    }
}

/// TLS 1.3 without a client's certificate: whoever comes this way brings a token with each request.
#[derive(Clone)]
pub struct OpenTls(TlsAcceptor);

impl fmt::Debug for OpenTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenTls").finish_non_exhaustive()
    }
}

impl OpenTls {
    /// With the certificates that a resolver gives.
    ///
    /// # Errors
    /// Where the provider of cryptography does not have TLS 1.3.
    pub fn new(resolver: Arc<dyn rustls::server::ResolvesServerCert>) -> Result<Self, SpiffeError> {
        web::acceptor(resolver).map(Self).map_err(|error| unusable(&error))
    }

    /// Runs one handshake. The caller sets the deadline.
    pub(in crate::identity) async fn greet(
        &self,
        tcp: TcpStream,
    ) -> Result<Box<TlsStream<TcpStream>>, Refused> {
        tcp.set_nodelay(true).map_err(|error| Refused::new(RefusalReason::Other, error.to_string()))?;
        let stream = self.0.accept(tcp).await.map_err(|error| Refused::from_handshake(&error))?;
        Ok(Box::new(stream))
    }
}

/// A peer that proved an SVID.
pub(in crate::identity) struct Proven {
    pub(in crate::identity) id: SpiffeId,
    pub(in crate::identity) not_after: Timestamp,
    pub(in crate::identity) vouched: Vouched,
    pub(in crate::identity) stream: Box<TlsStream<TcpStream>>,
}

impl ServerTls {
    /// Runs one handshake. The caller sets the deadline.
    pub(in crate::identity) async fn prove(&self, tcp: TcpStream) -> Result<Proven, Refused> {
        let unusable = |error: io::Error| Refused::new(RefusalReason::Other, error.to_string());
        tcp.set_nodelay(true).map_err(unusable)?;
        self.settled().await;
        let bundles = Bundles::now(&self.source);
        self.proven(self.acceptor.accept(tcp).await, bundles)
    }

    /// As [`ServerTls::prove`], from a handshake whose first message was read.
    pub(in crate::identity) async fn prove_from(
        &self,
        hello: StartHandshake<TcpStream>,
    ) -> Result<Proven, Refused> {
        self.settled().await;
        let bundles = Bundles::now(&self.source);
        self.proven(hello.into_stream(self.acceptor.config().clone()).await, bundles)
    }

    fn proven(
        &self,
        accepted: io::Result<TlsStream<TcpStream>>,
        bundles: Bundles,
    ) -> Result<Proven, Refused> {
        let stream = accepted.map_err(|error| Refused::from_handshake(&error))?;
        let (_, session) = stream.get_ref();
        // The SPIFFE library builds its config for 1.2 as well and lets nobody narrow it.
        if session.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return Err(Refused::new(RefusalReason::OldTls, format!("{:?}", session.protocol_version())));
        }
        let (id, life) = peer_of(session.peer_certificates())?;
        if life.is_long() && self.warned.is_first(&id) {
            warn_of(&id, life);
        }
        let not_a_svid = |error: CallerIdError| Refused::new(RefusalReason::NotASvid, error.to_string());
        let not_after = Timestamp(life.not_after.saturating_mul(1000));
        let vouched = bundles.of(&id);
        let id = id.to_string().parse().map_err(not_a_svid)?;
        Ok(Proven { id, not_after, vouched, stream: Box::new(stream) })
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
}

fn is_pending(status: &TlsStatus) -> bool {
    let error = status.current().error;
    error.is_some_and(|error| matches!(*error, spiffe_rustls::Error::PendingRevision { .. }))
}

/// Reads the proven leaf. The verifier has checked it, so a failure here is a disagreement, and refuses.
fn peer_of(chain: Option<&[CertificateDer<'_>]>) -> Result<(::spiffe::SpiffeId, Life), Refused> {
    let none = || Refused::new(RefusalReason::NoCertificate, "no certificate");
    let leaf = chain.and_then(<[_]>::first).ok_or_else(none)?;
    let id = ::spiffe::cert::spiffe_id_from_der(leaf)
        .map_err(|error| Refused::new(RefusalReason::NotASvid, error.to_string()))?;
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|error| Refused::new(RefusalReason::NotASvid, error.to_string()))?;
    if !is_spelled(&id, &certificate) {
        let what = "the SPIFFE ID is not spelled as SPIFFE-ID section 2 has it";
        return Err(Refused::new(RefusalReason::NotASvid, what));
    }
    Ok((id, Life::read(&certificate)))
}

/// Whether the certificate says the id letter by letter: the library lowers a scheme and a trust domain in upper case.
fn is_spelled(id: &::spiffe::SpiffeId, certificate: &X509Certificate<'_>) -> bool {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
    let id = id.to_string();
    names.value.general_names.iter().any(|name| matches!(name, GeneralName::URI(uri) if *uri == id))
}
