//! `[identity]`: where the broker's own SVID comes from, and whom it trusts.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use leasehold_law::caller::{CallerId, SpiffeId};
use leasehold_law::time::Span;

use super::issuers::Issuers;
use super::listen::unix_socket;
use super::operators::foreign;
use super::people_issuers::{self, PeopleIssuer};
use super::table::{Table, Value};
use super::trust::{Trust, trust_domain};
use crate::identity::ci::CiIssuer;
use crate::identity::kube::Cluster;

/// `[identity]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `[identity.spiffe]`.
    pub spiffe: Spiffe,
    /// `[identity.ci]`.
    pub ci: Vec<CiIssuer>,
    /// `[identity.kubernetes]`.
    pub kubernetes: Vec<Cluster>,
    /// `[identity.people]`: whose sign-ins are accepted.
    pub people: Vec<PeopleIssuer>,
}

/// `[identity.spiffe]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spiffe {
    /// The socket of the Workload API.
    pub workload_api: PathBuf,
    /// Which SVID is the broker's, where it gets several.
    pub id: Option<SpiffeId>,
    /// The trust domains beside the broker's own whose agents may be registered. Their bundles come from the Workload
    /// API; none is accepted that is not listed.
    pub federates_with: BTreeSet<String>,
    /// The JWT-SVIDs that `listen.bearer` accepts, if any.
    pub jwt: Option<JwtSvid>,
}

/// Whose workloads can prove who they are here.
#[derive(Clone, Copy)]
pub(super) struct TrustDomains<'a> {
    /// The broker's own, where it is known.
    pub(super) own: Option<&'a str>,
    /// Those it federates with.
    pub(super) federated: &'a BTreeSet<String>,
}

impl TrustDomains<'_> {
    /// What is wrong with an agent's id of another trust domain: its handshake would be refused.
    pub(super) fn foreign(&self, id: &CallerId) -> Option<String> {
        let CallerId::Agent(spiffe) = id else { return None };
        self.elsewhere(id, spiffe.trust_domain())
    }

    /// The same of whatever names agents in a trust domain.
    pub(super) fn elsewhere(&self, what: &impl fmt::Display, domain: &str) -> Option<String> {
        let ours = self.own.filter(|own| *own != domain && !self.federated.contains(domain))?;
        Some(format!(
            "`{what}` is in trust domain `{domain}`; this broker serves `{ours}`; to accept its agents write \
             `federates_with = [\"{domain}\"]` in [identity.spiffe]"
        ))
    }
}

impl Identity {
    /// Whether any kind of token is accepted.
    #[must_use]
    pub fn takes_tokens(&self) -> bool {
        self.takes_automation() || !self.people.is_empty()
    }

    /// Whether people are the only ones who come with tokens.
    #[must_use]
    pub fn takes_only_people(&self) -> bool {
        !self.takes_automation() && !self.people.is_empty()
    }

    /// Whether agents may act for the people of every issuer.
    #[must_use]
    pub fn agents_act_for_people(&self) -> bool {
        self.people.iter().all(|issuer| issuer.on_behalf_of.is_some())
    }

    fn takes_automation(&self) -> bool {
        self.spiffe.jwt.is_some() || !self.ci.is_empty() || !self.kubernetes.is_empty()
    }
}

/// `[identity.spiffe] jwt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSvid {
    /// The one audience.
    pub audience: String,
    /// The longest that one may live.
    pub max_life: Span,
}

/// The audience of workloads, where none is given.
const AUDIENCE: &str = "leasehold";
/// The longest life of a JWT-SVID where none is given, and the longest that may be. SPIRE makes them for five minutes.
pub(super) const LIFE: (Span, Span) = (Span::from_mins(60), Span::from_mins(24 * 60));

pub(super) fn read(root: &Table<'_>, own: Option<&str>, trust: Trust) -> (Option<Identity>, Issuers) {
    let Some(table) = root.need("identity").and_then(|value| value.table()) else {
        return (None, Issuers::none());
    };
    let spiffe = table.need("spiffe").and_then(|value| value.read(|table| spiffe(table, own, trust)));
    let workloads = spiffe.as_ref().and_then(|spiffe| spiffe.jwt.as_ref());
    let issuers = Issuers::read(&table, workloads.map(|jwt| jwt.audience.as_str()));
    let people = table.get("people").map(|value| people_issuers::read(&value)).unwrap_or_default();
    let ci = issuers.ci.values.values().cloned().collect();
    let kubernetes = issuers.clusters.values.values().cloned().collect();
    let identity = spiffe.map(|spiffe| Identity { spiffe, ci, kubernetes, people });
    identity.iter().for_each(|identity| people_issuers::are_apart(&table, identity));
    table.finish();
    (identity, issuers)
}

fn spiffe(table: &Table<'_>, own: Option<&str>, trust: Trust) -> Option<Spiffe> {
    let workload_api = table.need("workload_api").and_then(|value| workload_api(&value));
    let id = table.get("id").and_then(|value| own_id(&value, own));
    let federates_with = federates_with(table, own, trust);
    let jwt = table.get("jwt").and_then(|value| jwt(&value));
    Some(Spiffe { workload_api: workload_api?, id, federates_with, jwt })
}

fn federates_with(table: &Table<'_>, own: Option<&str>, trust: Trust) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for value in table.get("federates_with").iter().flat_map(Value::items) {
        let Some(name) = trust_domain(&value, trust) else { continue };
        if own == Some(&name) {
            value.problem(format!("`{name}` is the broker's own trust domain, which needs no federation"));
        }
        names.insert(name);
    }
    names
}

fn jwt(value: &Value<'_>) -> Option<JwtSvid> {
    value.read(|table| {
        let audience = table.get("audience").and_then(|value| value.filled().map(str::to_owned));
        let max_life = table.get("max_life").and_then(|value| life(&value));
        let audience = audience.unwrap_or_else(|| AUDIENCE.to_owned());
        Some(JwtSvid { audience, max_life: max_life.unwrap_or(LIFE.0) })
    })
}

/// How long a token may live.
pub(super) fn life(value: &Value<'_>) -> Option<Span> {
    let life: Span = value.parsed()?;
    if life == Span::ZERO || life > LIFE.1 {
        value.problem(format!("a token lives for more than 0 s and at most {}; this is {life}", LIFE.1));
    }
    Some(life)
}

fn workload_api(value: &Value<'_>) -> Option<PathBuf> {
    let text = value.text()?;
    let Some(path) = text.strip_prefix("unix:") else {
        value.problem(format!("`{text}` is not a unix socket: write it like `unix:/run/spire/agent.sock`"));
        return None;
    };
    unix_socket(value, path)
}

fn own_id(value: &Value<'_>, own: Option<&str>) -> Option<SpiffeId> {
    let id: SpiffeId = value.parsed()?;
    foreign(&CallerId::Agent(id.clone()), own).into_iter().for_each(|what| value.problem(what));
    Some(id)
}
