//! Who judges callers that come with tokens: the kinds that the config names, over the store that remembers first keys.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_jose::Thumbprint;
use leasehold_law::time::Timestamp;

use super::{IDENTITY_WAIT, StartError, known_agents, now_of};
use crate::broker::Broker;
use crate::config::{Config, Trust};
use crate::identity::Refusals;
use crate::identity::bearer::{BearerSettings, Bearers, Bindings, TokenKind};
use crate::identity::jwt_svid::{JwtSvidSettings, JwtSvids};
use crate::identity::spiffe::{OpenTls, SpiffeIdentity};
use crate::identity::web::WebCertificate;
use crate::store::{Change, Outcome, RESTORED, TokenUse};

/// How often a certificate is read again from its files.
const RELOAD: Duration = Duration::from_secs(600);

/// A judge of every kind of token that the config names; none where it names no door for them.
pub(super) async fn bearers(
    config: &Config,
    trust: Trust,
    broker: &Broker,
    refusals: &Arc<Refusals>,
) -> Result<Option<Arc<Bearers>>, StartError> {
    if config.listen.bearer.is_none() {
        return Ok(None);
    }
    let restored = broker.ledger().store().number(RESTORED).await?.map(Timestamp);
    Ok(Some(Arc::new(Bearers::new(BearerSettings {
        kinds: kinds(config, trust).await?,
        bindings: Arc::new(StoreBindings(broker.clone())),
        issued_since: restored,
        each: config.listen.per_caller,
        known: known_agents(broker),
        now: now_of(broker),
        refusals: refusals.clone(),
    }))))
}

async fn kinds(config: &Config, trust: Trust) -> Result<Vec<Arc<dyn TokenKind>>, StartError> {
    let mut kinds: Vec<Arc<dyn TokenKind>> = Vec::new();
    if let Some(jwt) = &config.identity.spiffe.jwt {
        let settings = JwtSvidSettings {
            workload_api: format!("unix:{}", config.identity.spiffe.workload_api.display()),
            audience: jwt.audience.clone(),
            max_life: jwt.max_life,
            trust_domains: vec![config.broker.trust_domain.clone()],
            dev_trust: trust == Trust::Dev,
            sync_timeout: IDENTITY_WAIT,
        };
        kinds.push(Arc::new(JwtSvids::connect(settings).await?));
    }
    Ok(kinds)
}

/// What a door for tokens shows of itself: the certificate that the config names, or the broker's own SVID.
pub(super) fn tls(config: &Config, identity: &SpiffeIdentity) -> Result<OpenTls, StartError> {
    let Some(files) = &config.listen.certificate else { return Ok(identity.open_tls()?) };
    let certificate = WebCertificate::load(&files.certificate, &files.key);
    let certificate = Arc::new(certificate.map_err(|error| StartError::Host(error.to_string()))?);
    tokio::spawn(keep_fresh(Arc::downgrade(&certificate)));
    Ok(OpenTls::new(certificate)?)
}

/// A renewed certificate needs no restart.
async fn keep_fresh(certificate: std::sync::Weak<WebCertificate>) {
    loop {
        tokio::time::sleep(RELOAD).await;
        let Some(certificate) = certificate.upgrade() else { return };
        if let Err(error) = certificate.reload() {
            tracing::error!(%error, "the old certificate stays");
        }
    }
}

struct StoreBindings(Broker);

#[async_trait]
impl Bindings for StoreBindings {
    async fn first_key(
        &self,
        token: &str,
        key: &Thumbprint,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<String, String> {
        if let Some(first) = self.known(token).await? {
            return Ok(first);
        }
        let (token, key) = (token.to_owned(), key.to_string());
        let used = TokenUse { token: token.clone(), key, until, now };
        match self.0.ledger().store().commit(vec![Change::Token(used)], Vec::new()).await {
            // Whoever was first is read back: another broker may have been.
            Outcome::Committed => self.known(&token).await?.ok_or_else(|| "it was not written".to_owned()),
            other => Err(format!("{other:?}")),
        }
    }
}

impl StoreBindings {
    async fn known(&self, token: &str) -> Result<Option<String>, String> {
        self.0.ledger().store().token_key(token).await.map_err(|error| error.to_string())
    }
}
