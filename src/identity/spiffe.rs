//! The broker's own SVID and trust bundles, live from a Workload API, and the proof of a peer's SVID.

mod life;
mod tls;

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use ::spiffe::{
    TrustDomain, X509Source, X509Svid,
    transport::Endpoint,
    workload_api::{WorkloadApiClient, WorkloadApiError},
    x509_source::{SvidPicker, X509SourceError},
};
use leasehold_law::{caller::SpiffeId, time::Timestamp, words::with_causes};
use spiffe_rustls::{TerminalSourcePolicy, TlsStatus, TrustDomainPolicy};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsAcceptor;

pub(super) use life::Life;
use life::{Warned, warn_of_long_life};
pub(super) use tls::Proven;
pub use tls::{OpenTls, ServerTls};

use super::standing::{Standing, Watch};

/// Rest between two looks at a Workload API that is not there yet.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Trust domains made by `leasehold dev` for trying things out: anybody who can read a file is anybody in them.
pub fn is_dev_trust_domain(name: &str) -> bool {
    name == "leasehold.test" || name.ends_with(".leasehold.test")
}

/// Where the broker's identity comes from (`[identity.spiffe]`).
#[derive(Clone, Debug)]
pub struct SpiffeSettings {
    /// The Workload API: `unix:/path` or `tcp:IP:PORT`.
    pub workload_api: String,
    /// Which SVID is the broker's, where several match the workload.
    pub id: SpiffeId,
    /// Accept dev trust domains (RULES R-19); only `--dev-trust` sets it.
    pub dev_trust: bool,
    /// The trust domains beside the broker's own whose SVIDs are accepted, once the Workload API has their bundles.
    pub federates_with: BTreeSet<String>,
    /// How long the Workload API may take to give the first SVID.
    pub sync_timeout: Duration,
}

/// Why the broker has no identity.
#[derive(Debug, thiserror::Error)]
pub enum SpiffeError {
    /// The endpoint cannot be read.
    #[error("`{endpoint}` is no Workload API endpoint: {reason}")]
    BadEndpoint {
        /// As configured.
        endpoint: String,
        /// The parser's words.
        reason: String,
    },
    /// The configured id cannot be read.
    #[error("`{id}` is no SPIFFE ID: {reason}")]
    BadId {
        /// As configured.
        id: String,
        /// The parser's words.
        reason: String,
    },
    /// A trust domain to federate with cannot be read.
    #[error("`{name}` is no trust domain: {reason}")]
    BadTrustDomain {
        /// As configured.
        name: String,
        /// The parser's words.
        reason: String,
    },
    /// Nobody answers at the Workload API.
    #[error("no Workload API answers at `{endpoint}`: {reason}")]
    NoSocket {
        /// As configured.
        endpoint: String,
        /// What the attempt ended with.
        reason: String,
    },
    /// The Workload API knows this process and gives it nothing.
    #[error("the Workload API at `{endpoint}` issued no identity to this process: is there an entry for it?")]
    NoIdentityIssued {
        /// As configured.
        endpoint: String,
    },
    /// SVIDs came, the broker's is not among them.
    #[error("the Workload API issued {}, but not `{expected}`", list(found))]
    IdMissing {
        /// The configured id.
        expected: String,
        /// The ids that came.
        found: Vec<String>,
    },
    /// A dev trust domain without `--dev-trust`.
    #[error("`{trust_domain}` is a dev trust domain; it is accepted only with --dev-trust")]
    DevTrustDomain {
        /// The trust domain of the configured id.
        trust_domain: String,
    },
    /// The Workload API answered with something unusable.
    #[error("the Workload API at `{endpoint}` failed: {reason}")]
    Unusable {
        /// As configured.
        endpoint: String,
        /// What went wrong.
        reason: String,
    },
}

fn list(ids: &[String]) -> String {
    ids.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ")
}

/// The broker's live identity: rotates by itself, refuses to serve once it is withdrawn or expired.
#[derive(Clone)]
pub struct SpiffeIdentity {
    source: X509Source,
    dev_trust: bool,
    accepted: BTreeSet<TrustDomain>,
    watch: Arc<Watch>,
}

impl fmt::Debug for SpiffeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpiffeIdentity").field("dev_trust", &self.dev_trust).finish_non_exhaustive()
    }
}

impl SpiffeIdentity {
    /// Fetches the first SVID and follows the Workload API from then on.
    ///
    /// # Errors
    /// As [`SpiffeError`] says, at the latest after `sync_timeout`.
    pub async fn connect(settings: &SpiffeSettings) -> Result<Self, SpiffeError> {
        let id = parse_id(&settings.id)?;
        let trust_domain = id.trust_domain().as_str();
        if is_dev_trust_domain(trust_domain) && !settings.dev_trust {
            return Err(SpiffeError::DevTrustDomain { trust_domain: trust_domain.to_owned() });
        }
        let deadline = Instant::now() + settings.sync_timeout;
        let accepted = accepted(&id, &settings.federates_with)?;
        await_svid(settings, &id, deadline).await?;
        let source = X509Source::builder()
            .endpoint(&settings.workload_api)
            .picker(ById(id.clone()))
            .initial_sync_timeout(settings.sync_timeout)
            .build()
            .await
            .map_err(|error| source_error(settings, &error))?;
        warn_of_long_life(&source);
        let watch = Arc::new(Watch::new(settings.workload_api.clone(), &id));
        Ok(Self { source, dev_trust: settings.dev_trust, accepted, watch })
    }

    /// Whether the broker can prove itself right now. A withdrawal may be brief: no reason to exit.
    pub fn is_ready(&self) -> bool {
        self.source.state().is_usable()
    }

    /// Looks at the identity and at the Workload API behind it, as of `now`.
    pub async fn look(&self, now: Timestamp) -> Standing {
        self.watch.look(&self.source, now).await
    }

    /// As [`SpiffeIdentity::look`] found it last.
    pub fn standing(&self) -> Standing {
        self.watch.standing()
    }

    /// The server side of TLS without a client's certificate, by the broker's own SVID. Needs a tokio runtime.
    ///
    /// # Errors
    /// As [`SpiffeIdentity::server_tls`].
    pub fn open_tls(&self) -> Result<OpenTls, SpiffeError> {
        let (config, _) = self.server_config()?;
        OpenTls::new(config.cert_resolver)
    }

    /// The server side of mutual TLS. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`SpiffeError::Unusable`] where there is no SVID or no bundle at this moment.
    pub fn server_tls(&self) -> Result<ServerTls, SpiffeError> {
        let (config, status) = self.server_config()?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(ServerTls { acceptor, source: self.source.clone(), status, warned: Warned::default() })
    }

    fn server_config(&self) -> Result<(rustls::ServerConfig, TlsStatus), SpiffeError> {
        let dev_trust = self.dev_trust;
        // Who may do what is for the registry and the authority table. Here only: which trust domains count at all.
        let authorizer = move |peer: &::spiffe::SpiffeId| is_welcome(peer, dev_trust);
        spiffe_rustls::mtls_server(self.source.clone())
            .authorize(authorizer)
            .trust_domain_policy(TrustDomainPolicy::AllowList(self.accepted.clone()))
            .terminal_source_policy(TerminalSourcePolicy::FailClosed)
            .with_alpn_protocols([b"h2"])
            .build_with_status()
            .map_err(|error| unusable(&error))
    }
}

fn unusable(error: &dyn fmt::Display) -> SpiffeError {
    SpiffeError::Unusable { endpoint: "x509 source".into(), reason: error.to_string() }
}

/// A federated dev trust domain counts no more than one's own.
fn is_welcome(peer: &::spiffe::SpiffeId, dev_trust: bool) -> bool {
    dev_trust || !is_dev_trust_domain(peer.trust_domain().as_str())
}

/// Picks the broker's SVID where several match: SPIRE sorts them by entry id, which says nothing.
#[derive(Debug)]
struct ById(::spiffe::SpiffeId);

impl SvidPicker for ById {
    fn pick_svid(&self, svids: &[Arc<X509Svid>]) -> Option<usize> {
        svids.iter().position(|svid| *svid.spiffe_id() == self.0)
    }
}

/// The broker's own trust domain and those it federates with; any other's bundle counts for nothing.
fn accepted(
    own: &::spiffe::SpiffeId,
    federates_with: &BTreeSet<String>,
) -> Result<BTreeSet<TrustDomain>, SpiffeError> {
    let parsed = federates_with.iter().map(|name| {
        let bad = |error: ::spiffe::SpiffeIdError| SpiffeError::BadTrustDomain {
            name: name.clone(),
            reason: error.to_string(),
        };
        TrustDomain::new(name).map_err(bad)
    });
    parsed.chain([Ok(own.trust_domain().clone())]).collect()
}

fn parse_id(id: &SpiffeId) -> Result<::spiffe::SpiffeId, SpiffeError> {
    let id = id.as_str().to_owned();
    ::spiffe::SpiffeId::new(&id).map_err(|error| SpiffeError::BadId { id, reason: error.to_string() })
}

/// Asks until the broker's SVID is there. The source would do so too, but forgets why it had to wait.
async fn await_svid(
    settings: &SpiffeSettings,
    id: &::spiffe::SpiffeId,
    deadline: Instant,
) -> Result<(), SpiffeError> {
    let endpoint = Endpoint::parse(&settings.workload_api).map_err(|error| SpiffeError::BadEndpoint {
        endpoint: settings.workload_api.clone(),
        reason: error.to_string(),
    })?;
    loop {
        let look = timeout_at(deadline, look_for(settings, endpoint.clone(), id)).await;
        let error = match look {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_elapsed) => return Err(no_socket(settings, "no answer in time")),
        };
        if Instant::now() + RETRY_PAUSE >= deadline {
            return Err(error);
        }
        tracing::debug!(%error, "waiting for an identity");
        sleep(RETRY_PAUSE).await;
    }
}

async fn look_for(
    settings: &SpiffeSettings,
    endpoint: Endpoint,
    id: &::spiffe::SpiffeId,
) -> Result<(), SpiffeError> {
    let client = WorkloadApiClient::connect(endpoint)
        .await
        .map_err(|error| no_socket(settings, &with_causes(&error)))?;
    let context = client.fetch_x509_context().await.map_err(|error| api_error(settings, &error))?;
    if context.svids().iter().any(|svid| svid.spiffe_id() == id) {
        return Ok(());
    }
    let found = context.svids().iter().map(|svid| svid.spiffe_id().to_string()).collect();
    Err(SpiffeError::IdMissing { expected: id.to_string(), found })
}

fn no_socket(settings: &SpiffeSettings, reason: &str) -> SpiffeError {
    SpiffeError::NoSocket { endpoint: settings.workload_api.clone(), reason: reason.to_owned() }
}

fn api_error(settings: &SpiffeSettings, error: &WorkloadApiError) -> SpiffeError {
    let endpoint = settings.workload_api.clone();
    if matches!(error, WorkloadApiError::NoIdentityIssued) {
        return SpiffeError::NoIdentityIssued { endpoint };
    }
    SpiffeError::Unusable { endpoint, reason: with_causes(error) }
}

fn source_error(settings: &SpiffeSettings, error: &X509SourceError) -> SpiffeError {
    SpiffeError::Unusable { endpoint: settings.workload_api.clone(), reason: with_causes(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dev_trust_domains_are_known_by_name() {
        let check = |name: &str, dev: bool| assert_eq!(is_dev_trust_domain(name), dev, "{name}");
        check("leasehold.test", true);
        check("dev.leasehold.test", true);
        check("prod.example", false);
        check("leasehold.test.example", false);
        check("notleasehold.test", false);
    }

    #[test]
    fn a_federated_dev_peer_needs_dev_trust_too() {
        let check = |peer: &str, dev_trust, expect| {
            let peer = ::spiffe::SpiffeId::new(peer).unwrap();
            assert_eq!(is_welcome(&peer, dev_trust), expect, "{peer} with dev_trust {dev_trust}");
        };
        check("spiffe://prod.example/a", false, true);
        check("spiffe://dev.leasehold.test/a", false, false);
        check("spiffe://dev.leasehold.test/a", true, true);
    }
}
