//! JWT-SVIDs: workloads behind a hop that ends TLS.

use std::fmt;
use std::time::Duration;

use ::spiffe::{JwtBundle, JwtSource, TrustDomain};
use async_trait::async_trait;
use leasehold_jose::{Keys, Peek, Rules, token};
use leasehold_law::caller::{CallerId, ProvenBy, SpiffeId};
use leasehold_law::time::{Span, Timestamp};

use super::bearer::{TokenKind, TokenRefused, Vouch};
use super::spiffe::{SpiffeError, is_dev_trust_domain};

/// Which JWT-SVIDs are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSvidSettings {
    /// The Workload API that gives the bundles.
    pub workload_api: String,
    /// The one audience.
    pub audience: String,
    /// The longest that one may live: the specification sets no bound.
    pub max_life: Span,
    /// The trust domains that count: our own, and those that it federates with.
    pub trust_domains: Vec<String>,
    /// Accept dev trust domains (RULES R-19).
    pub dev_trust: bool,
    /// How long the Workload API may take to give the first bundles.
    pub sync_timeout: Duration,
}

/// JWT-SVIDs of one audience (JWT-SVID section 3), by the live bundles of their own trust domains.
pub struct JwtSvids {
    source: JwtSource,
    settings: JwtSvidSettings,
}

impl fmt::Debug for JwtSvids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSvids").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl JwtSvids {
    /// Fetches the first bundles, and follows the Workload API from then on.
    ///
    /// # Errors
    /// [`SpiffeError::Unusable`] where there are none in time.
    pub async fn connect(settings: JwtSvidSettings) -> Result<Self, SpiffeError> {
        let source = JwtSource::builder()
            .endpoint(&settings.workload_api)
            .initial_sync_timeout(settings.sync_timeout)
            .build()
            .await;
        let source = source.map_err(|error| SpiffeError::Unusable {
            endpoint: settings.workload_api.clone(),
            reason: format!("no JWT bundles: {error}"),
        })?;
        Ok(Self { source, settings })
    }

    fn bundle(&self, of: &SpiffeId) -> Result<std::sync::Arc<JwtBundle>, TokenRefused> {
        let name = of.trust_domain();
        let counts = self.settings.trust_domains.iter().any(|known| known == name);
        let welcome = counts && (self.settings.dev_trust || !is_dev_trust_domain(name));
        let domain = TrustDomain::new(name).ok().filter(|_| welcome);
        let bundle = domain.and_then(|domain| self.source.try_bundle_for_trust_domain(&domain));
        bundle.ok_or_else(|| {
            let next = "ask whoever runs the broker whether it federates with your trust domain";
            TokenRefused::new(format!("no bundle vouches for the trust domain `{name}`"), next)
        })
    }
}

#[async_trait]
impl TokenKind for JwtSvids {
    fn is_mine(&self, peek: &Peek) -> bool {
        peek.subject.as_deref().is_some_and(|subject| subject.starts_with("spiffe://"))
    }

    async fn verify(&self, token: &str, peek: &Peek, now: Timestamp) -> Result<Vouch, TokenRefused> {
        let not_a_svid = || {
            TokenRefused::new("the token's `sub` is not a SPIFFE ID", "fetch it from your Workload API again")
        };
        let id: SpiffeId = peek.subject.as_deref().unwrap_or_default().parse().map_err(|_| not_a_svid())?;
        let keys = keys_of(&*self.bundle(&id)?);
        let (audience, max_life) = (&self.settings.audience, self.settings.max_life);
        let rules = Rules { issuer: None, audience, max_life, access_token: false, now };
        let claims = token::read(token, &keys, &rules)?;
        if claims.subject() != id.as_str() {
            return Err(not_a_svid());
        }
        Ok(Vouch {
            id: CallerId::Agent(id),
            proven_by: ProvenBy::JwtSvid,
            issued_at: claims.issued_at(),
            expires_at: claims.expires_at(),
            session: None,
        })
    }

    /// As an open connection ends whose trust domain is withdrawn (REQUIREMENTS ID-2).
    fn holds(&self, id: &CallerId) -> bool {
        matches!(id, CallerId::Agent(id) if self.bundle(id).is_ok())
    }
}

/// The keys of a trust domain, each read by itself: one that cannot be used takes none of the others away.
fn keys_of(bundle: &JwtBundle) -> Keys {
    let one = |jwk: &[u8]| Keys::parse(&[br#"{"keys":["#, jwk, b"]}"].concat());
    let keys = bundle.jwt_authorities().filter_map(|authority| one(authority.jwk_json()).ok());
    keys.fold(Keys::default(), |all, keys| all.with(&keys))
}
