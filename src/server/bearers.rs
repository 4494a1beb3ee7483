//! Who judges callers that come with tokens: the kinds that the config names, over the store that remembers first keys.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_law::time::Timestamp;

use super::{IDENTITY_WAIT, StartError, known_agents, now_of};
use crate::authority::Operators;
use crate::broker::Broker;
use crate::config::{Config, PeopleIssuer, Trust};
use crate::identity::bearer::{BearerSettings, Bearers, Bindings, TokenKind};
use crate::identity::ci::CiTokens;
use crate::identity::issuer::IssuerError;
use crate::identity::jwt_svid::{JwtSvidSettings, JwtSvids};
use crate::identity::kube::KubeTokens;
use crate::identity::on_behalf_of::SubjectTokens;
use crate::identity::people::{PeopleSettings, PeopleTokens};
use crate::identity::spiffe::{OpenTls, SpiffeIdentity};
use crate::identity::web::{WebCertificate, WebTls};
use crate::identity::{Known, Now, Refusals};
use crate::store::{Change, Outcome, RESTORED, TokenUse};

/// How often a certificate is read again from its files.
const RELOAD: Duration = Duration::from_secs(600);

/// Who judges tokens.
pub(super) struct Judges {
    /// Those of callers; none where the config names no door for them.
    pub(super) bearers: Option<Arc<Bearers>>,
    /// Those of people that agents act for.
    pub(super) subjects: Arc<SubjectTokens>,
    /// The certificate that the config names, if any.
    pub(super) certificate: Option<Arc<WebCertificate>>,
}

/// Judges of every kind of token that the config names.
pub(super) async fn judges(
    config: &Config,
    trust: Trust,
    broker: &Broker,
    refusals: &Arc<Refusals>,
) -> Result<Judges, StartError> {
    let restored = broker.ledger().store().number(RESTORED).await?.map(Timestamp);
    let people = people(config, &now_of(broker))?;
    let subjects = Arc::new(SubjectTokens::new(people.clone(), restored, now_of(broker)));
    let certificate = certificate(config)?;
    if config.listen.bearer.is_none() && config.identity.people.is_empty() {
        return Ok(Judges { bearers: None, subjects, certificate });
    }
    let bearers = Some(Arc::new(Bearers::new(BearerSettings {
        kinds: kinds(config, trust, people, &now_of(broker)).await?,
        bindings: Arc::new(StoreBindings(broker.clone())),
        is_ours: hosts(config, certificate.clone()),
        issued_since: restored,
        each: config.listen.per_caller,
        known: welcome(broker, config),
        now: now_of(broker),
        refusals: refusals.clone(),
    })));
    Ok(Judges { bearers, subjects, certificate })
}

/// What the broker is called: by its certificate and by the config. An SVID says no name of a host, so that a door that
/// shows one is held to what the config says, if it says anything.
fn hosts(
    config: &Config,
    certificate: Option<Arc<WebCertificate>>,
) -> Arc<dyn Fn(&str) -> bool + Send + Sync> {
    let named = config.listen.hosts.clone();
    Arc::new(move |host| match &certificate {
        Some(certificate) => certificate.is_for(host) || named.contains(&host.to_ascii_lowercase()),
        None => named.is_empty() || named.contains(&host.to_ascii_lowercase()),
    })
}

/// Registered agents, and operators by name: the others' bearers get far less of a door.
fn welcome(broker: &Broker, config: &Config) -> Known {
    let (agents, operators) = (known_agents(broker), operators(config));
    Arc::new(move |id| agents(id) || operators.names(id))
}

/// The tokens of each issuer of people.
fn people(config: &Config, now: &Now) -> Result<Vec<Arc<PeopleTokens>>, StartError> {
    let of = |issuer: &PeopleIssuer| {
        let settings = PeopleSettings {
            issuer: issuer.issuer.clone(),
            client_id: issuer.client_id.clone(),
            ca_file: issuer.ca_file.clone(),
            max_life: issuer.max_life,
            groups: issuer.claim.clone().map(|claim| (claim, issuer.roles.keys().cloned().collect())),
            on_behalf_of: issuer.on_behalf_of.clone(),
        };
        PeopleTokens::new(settings, now.clone()).map(Arc::new).map_err(unusable)
    };
    config.identity.people.iter().map(of).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn unusable(error: IssuerError) -> StartError {
    StartError::Host(error.to_string())
}

async fn kinds(
    config: &Config,
    trust: Trust,
    people: Vec<Arc<PeopleTokens>>,
    now: &Now,
) -> Result<Vec<Arc<dyn TokenKind>>, StartError> {
    let mut kinds: Vec<Arc<dyn TokenKind>> = Vec::new();
    if let Some(jwt) = &config.identity.spiffe.jwt {
        let (own, spiffe) = (&config.broker.trust_domain, &config.identity.spiffe);
        let settings = JwtSvidSettings {
            workload_api: format!("unix:{}", config.identity.spiffe.workload_api.display()),
            audience: jwt.audience.clone(),
            max_life: jwt.max_life,
            trust_domains: spiffe.federates_with.iter().chain([own]).cloned().collect(),
            dev_trust: trust == Trust::Dev,
            sync_timeout: IDENTITY_WAIT,
        };
        kinds.push(Arc::new(JwtSvids::connect(settings).await?));
    }
    let identity = &config.identity;
    // Before jobs: some issuer may vouch for both, and only people have an audience beside it.
    kinds.extend(people.into_iter().map(|people| people as Arc<dyn TokenKind>));
    kinds.push(Arc::new(CiTokens::new(&identity.ci, &config.ci_jobs, now).map_err(unusable)?));
    let accounts = &config.kube_accounts;
    kinds.push(Arc::new(KubeTokens::new(&identity.kubernetes, accounts, now).map_err(unusable)?));
    Ok(kinds)
}

/// Who operators are: those that the config names, and the groups of people that their issuers name.
pub(super) fn operators(config: &Config) -> Operators {
    let groups = config.identity.people.iter().flat_map(|issuer| {
        let name = issuer.issuer.as_str().to_owned();
        issuer.roles.iter().map(move |(group, roles)| ((name.clone(), group.clone()), roles.clone()))
    });
    Operators::new(config.operators.clone(), groups.collect())
}

/// The certificate that the config names, if any.
fn certificate(config: &Config) -> Result<Option<Arc<WebCertificate>>, StartError> {
    let Some(files) = &config.listen.certificate else { return Ok(None) };
    let certificate = WebCertificate::load(&files.certificate, &files.key);
    let certificate = Arc::new(certificate.map_err(|error| StartError::Host(error.to_string()))?);
    tokio::spawn(keep_fresh(Arc::downgrade(&certificate)));
    Ok(Some(certificate))
}

/// What a door for tokens shows of itself: that certificate, or the broker's own SVID.
pub(super) fn tls(
    certificate: Option<&Arc<WebCertificate>>,
    identity: &SpiffeIdentity,
) -> Result<OpenTls, StartError> {
    Ok(certificate.map_or_else(|| identity.open_tls(), |certificate| OpenTls::new(certificate.clone()))?)
}

/// What operators' door over TCP shows to people, where there are any and a certificate to show them.
pub(super) fn people_s(
    config: &Config,
    certificate: Option<&Arc<WebCertificate>>,
) -> Result<Option<WebTls>, StartError> {
    let certificate = certificate.filter(|_| !config.identity.people.is_empty());
    let tls = certificate.map(|certificate| WebTls::new(certificate.clone())).transpose();
    tls.map_err(|error| StartError::Host(error.to_string()))
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
        key: &str,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<String, String> {
        if let Some(first) = self.known(token).await? {
            return Ok(first);
        }
        let (token, key) = (token.to_owned(), key.to_owned());
        let used = TokenUse { token: token.clone(), key, until, now };
        match self.0.ledger().store().commit(vec![Change::Token(used)], Vec::new()).await {
            // Whoever was first is read back: another broker may have been.
            Outcome::Committed => self.known(&token).await?.ok_or_else(|| "it was not written".to_owned()),
            other @ (Outcome::Stale(_) | Outcome::Full(_) | Outcome::Failed(_) | Outcome::Unknown(_)) => {
                Err(format!("{other:?}"))
            }
        }
    }
}

impl StoreBindings {
    async fn known(&self, token: &str) -> Result<Option<String>, String> {
        self.0.ledger().store().token_key(token).await.map_err(|error| error.to_string())
    }
}
