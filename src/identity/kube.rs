//! Service accounts of Kubernetes clusters, which come with the projected token of their pod (RULES R-20).

use async_trait::async_trait;
use leasehold_jose::{Claims, Peek, Rules};
use leasehold_law::caller::{CallerId, ProvenBy};
use leasehold_law::time::{Span, Timestamp};
use serde_json::{Map, Value};

use super::Now;
use super::bearer::{TokenKind, TokenRefused, Vouch};
use super::issuer::{Issuer, IssuerError, IssuerUrl, KeySource};

#[cfg(test)]
mod tests;

/// The claim that holds what a cluster says of a token.
const CLAIM: &str = "kubernetes.io";

/// A cluster: `[identity.kubernetes.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// What config calls it.
    pub name: String,
    /// Its service account issuer.
    pub url: IssuerUrl,
    /// Where its keys come from.
    pub keys: KeySource,
    /// The one audience of its tokens here.
    pub audience: String,
    /// How long its tokens may live.
    pub max_life: Span,
}

/// A service account that may ask: `[kube_accounts."NAMESPACE/ACCOUNT"]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The caller that it is.
    pub id: CallerId,
    /// Its cluster's name in config.
    pub cluster: String,
    /// `NAMESPACE/ACCOUNT`.
    pub name: String,
    /// Its uid, where an account of that name that is made anew is somebody else.
    pub uid: Option<String>,
}

/// The tokens of service accounts.
#[derive(Debug)]
pub struct KubeTokens(Vec<Source>);

/// A cluster with its accounts.
#[derive(Debug)]
struct Source {
    settings: Cluster,
    issuer: Issuer,
    accounts: Vec<Account>,
}

/// What a projected token says of its bearer.
struct Bearer<'a> {
    name: String,
    uid: &'a str,
}

impl KubeTokens {
    /// The tokens of these clusters, for these accounts. Dials nothing.
    ///
    /// # Errors
    /// Where an issuer could never be asked.
    pub fn new(clusters: &[Cluster], accounts: &[Account], now: &Now) -> Result<Self, IssuerError> {
        let source = |settings: &Cluster| {
            let issuer = Issuer::new(settings.url.clone(), &settings.keys, now.clone())?;
            let accounts = accounts.iter().filter(|account| account.cluster == settings.name);
            Ok(Source { settings: settings.clone(), issuer, accounts: accounts.cloned().collect() })
        };
        Ok(Self(clusters.iter().map(source).collect::<Result<_, _>>()?))
    }

    fn source(&self, peek: &Peek) -> Option<&Source> {
        self.0.iter().find(|source| peek.issuer.as_deref() == Some(source.settings.url.as_str()))
    }
}

#[async_trait]
impl TokenKind for KubeTokens {
    fn is_mine(&self, peek: &Peek) -> bool {
        self.source(peek).is_some()
    }

    async fn verify(&self, token: &str, peek: &Peek, now: Timestamp) -> Result<Vouch, TokenRefused> {
        let stranger = || TokenRefused::new("the token is of no cluster that is configured", NEXT);
        let source = self.source(peek).ok_or_else(stranger)?;
        let (audience, max_life) = (source.settings.audience.as_str(), source.settings.max_life);
        let rules = Rules { issuer: None, audience, max_life, access_token: false, now };
        let claims = source.issuer.verify(token, peek, rules).await?;
        let id = source.whose(&Bearer::read(&claims)?)?.clone();
        let (issued_at, expires_at) = (claims.issued_at(), claims.expires_at());
        Ok(Vouch { id, proven_by: ProvenBy::KubeToken, issued_at, expires_at, session: None })
    }
}

/// What an account that is not registered is told.
const NEXT: &str = "ask whoever runs this broker to register the account in [kube_accounts]";

impl Source {
    fn whose(&self, bearer: &Bearer<'_>) -> Result<&CallerId, TokenRefused> {
        let cluster = &self.settings.name;
        let Some(account) = self.accounts.iter().find(|account| account.name == bearer.name) else {
            let what =
                format!("the account `{}` of cluster `{cluster}` is not in [kube_accounts]", bearer.name);
            return Err(TokenRefused::new(what, NEXT));
        };
        match &account.uid {
            Some(uid) if uid != bearer.uid => {
                let what = format!(
                    "the account `{}` of cluster `{cluster}` was made anew: its uid is not the one in [kube_accounts]",
                    bearer.name
                );
                Err(TokenRefused::new(what, NEXT))
            }
            Some(_) | None => Ok(&account.id),
        }
    }
}

impl<'a> Bearer<'a> {
    /// Only a token that the kubelet projected into a pod counts: it ends with the pod, unlike those of Secrets.
    fn read(claims: &'a Claims) -> Result<Self, TokenRefused> {
        let kube = claims.claim(CLAIM).and_then(Value::as_object);
        let kube = kube.ok_or_else(|| unprojected("it has no `kubernetes.io`"))?;
        let namespace = kube.get("namespace").and_then(Value::as_str);
        let namespace = namespace.ok_or_else(|| unprojected("it names no namespace"))?;
        let (account, uid) =
            named(kube, "serviceaccount").ok_or_else(|| unprojected("it names no service account"))?;
        named(kube, "pod").ok_or_else(|| unprojected("it is bound to no pod"))?;
        if claims.subject() != format!("system:serviceaccount:{namespace}:{account}") {
            return Err(unprojected("`sub` and `kubernetes.io` are about two accounts"));
        }
        Ok(Self { name: format!("{namespace}/{account}"), uid })
    }
}

/// The name and the uid of a part.
fn named<'a>(kube: &'a Map<String, Value>, part: &str) -> Option<(&'a str, &'a str)> {
    let part = kube.get(part)?.as_object()?;
    let text = |name: &str| part.get(name)?.as_str().filter(|text| !text.is_empty());
    Some((text("name")?, text("uid")?))
}

fn unprojected(why: &str) -> TokenRefused {
    TokenRefused::new(
        format!("the token is not a projected one: {why}"),
        "mount one with `serviceAccountToken` in a `projected` volume of the pod, with this broker's audience",
    )
}
