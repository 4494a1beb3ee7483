//! `[identity.people]`: where people sign in, and the roles that groups of their issuer bring.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use leasehold_law::caller::CallerId;
use leasehold_law::registry::Registration;
use leasehold_law::time::Span;

use super::identity::{Identity, LIFE, life};
use super::names::Names;
use super::operators;
use super::roles::Role;
use super::table::{Table, Value};
use crate::identity::issuer::IssuerUrl;
use crate::identity::on_behalf_of::Delegation;

/// The longest name of a claim or of a group, in bytes.
const MAX_NAME: usize = 256;

/// One issuer of people's sign-ins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeopleIssuer {
    /// The issuer, to the letter.
    pub issuer: IssuerUrl,
    /// What the CLI is called there, and so the audience of the tokens that it brings.
    pub client_id: String,
    /// Whom its certificate must be from, instead of the system's roots.
    pub ca_file: Option<PathBuf>,
    /// The longest that a token may live.
    pub max_life: Span,
    /// The tokens with which agents act for people, if any are taken.
    pub on_behalf_of: Option<Delegation>,
    /// The claim that lists a person's groups.
    pub claim: Option<String>,
    /// What a group brings.
    pub roles: BTreeMap<String, BTreeSet<Role>>,
}

/// One issuer, or several, each under a name: `[identity.people.NAME]`.
pub(super) fn read(value: &Value<'_>) -> Vec<PeopleIssuer> {
    let issuers: Vec<_> = each(value).iter().filter_map(|one| one.read(issuer)).collect();
    let mut seen = BTreeSet::new();
    for issuer in &issuers {
        if !seen.insert(&issuer.issuer) {
            value.problem(format!("`{}` is named twice", issuer.issuer));
        }
    }
    issuers
}

/// The table of each issuer.
fn each<'a>(value: &Value<'a>) -> Vec<Value<'a>> {
    let Some(table) = value.table() else { return Vec::new() };
    let is_one = table.entries().iter().any(|entry| !entry.value.raw().is_table());
    if is_one { vec![value.clone()] } else { table.named().into_iter().map(|entry| entry.value).collect() }
}

fn inside<'a>(value: &Value<'a>, key: &'static str) -> Option<Value<'a>> {
    value.table()?.get(key)
}

/// Warns of those who may act for people and are not registered: they are refused whatever they bring.
pub(super) fn warn_unregistered(root: &Table<'_>, agents: &Names<Registration>) {
    let people = root.get("identity").and_then(|value| inside(&value, "people"));
    let issuers = people.iter().flat_map(each);
    let clients = issuers.filter_map(|issuer| inside(&inside(&issuer, "on_behalf_of")?, "clients"));
    let entries = clients.filter_map(|value| value.table()).flat_map(|table| table.entries());
    for item in entries.flat_map(|entry| entry.value.items()) {
        let Some(id) = item.raw().as_str().and_then(|text| text.parse::<CallerId>().ok()) else { continue };
        if !agents.values.values().any(|one| one.who.takes_in(&id)) {
            item.context().report.warning(
                item.place(),
                format!(
                    "`{id}` may act for people, and nobody registered it: it is refused until it is, here or by \
                     `leasehold agents apply`"
                ),
            );
        }
    }
}

/// One audience for each use (RULES R-20): a token for one never does for another, whoever made it.
pub(super) fn are_apart(table: &Table<'_>, identity: &Identity) {
    let jobs = identity.ci.iter().map(|issuer| &issuer.audience);
    let pods = identity.kubernetes.iter().map(|cluster| &cluster.audience);
    let workloads = identity.spiffe.jwt.iter().map(|jwt| &jwt.audience);
    let others: BTreeSet<_> = jobs.chain(pods).chain(workloads).collect();
    let sign_ins: BTreeSet<_> = identity.people.iter().map(|issuer| &issuer.client_id).collect();
    let problem = |what: String| table.context().report.problem(table.place(), what);
    for issuer in &identity.people {
        if others.contains(&issuer.client_id) {
            problem(format!(
                "`{}` is the audience of workloads or jobs; people need another `client_id`, or a token for one use would \
                 do for the other",
                issuer.client_id
            ));
        }
        let taken = issuer.on_behalf_of.as_ref().map(|taken| &taken.audience);
        if let Some(audience) = taken.filter(|taken| others.contains(taken) || sign_ins.contains(taken)) {
            problem(format!(
                "`{audience}` is the audience of sign-ins, workloads or jobs; `on_behalf_of` needs another `audience`, or a \
                 token for one use would do for the other"
            ));
        }
    }
}

fn issuer(table: &Table<'_>) -> Option<PeopleIssuer> {
    let issuer = table.need("issuer").and_then(|value| value.parsed());
    let client_id = table.need("client_id").and_then(|value| value.filled().map(str::to_owned));
    let ca_file = table.get("ca_file").and_then(|value| value.filled().map(str::to_owned));
    let max_life = table.get("max_life").and_then(|value| life(&value)).unwrap_or(LIFE.0);
    let on_behalf_of = table.get("on_behalf_of").and_then(|value| value.read(delegation));
    let (claim, roles) = table.get("operators").and_then(|value| value.read(groups)).unzip();
    Some(PeopleIssuer {
        issuer: issuer?,
        client_id: client_id?,
        ca_file: ca_file.map(|path| table.context().source.resolve(&path)),
        max_life,
        on_behalf_of,
        claim,
        roles: roles.unwrap_or_default(),
    })
}

/// `on_behalf_of = { audience = "…", clients = { CLIENT = [AGENT] } }`.
fn delegation(table: &Table<'_>) -> Option<Delegation> {
    let audience = table.need("audience").and_then(|value| value.filled().map(str::to_owned));
    let clients = table.get("clients").and_then(|value| value.table());
    let entries = clients.map(|clients| clients.entries()).unwrap_or_default();
    let agents = |value: &Value<'_>| value.items().iter().filter_map(agent).collect();
    let clients = entries.iter().map(|entry| (entry.name.to_owned(), agents(&entry.value))).collect();
    Some(Delegation { audience: audience?, clients })
}

/// One that may act for people: people's own agents act in their session, and operators for nobody.
fn agent(value: &Value<'_>) -> Option<CallerId> {
    let id: CallerId = value.parsed()?;
    match id {
        CallerId::Agent(_) | CallerId::CiJob(_) | CallerId::KubeAccount(_) => Some(id),
        CallerId::LocalUser(_) | CallerId::PersonalAgent(_) | CallerId::Person(_) | CallerId::Drill => {
            value.problem(format!("`{id}` is not a workload, and acts for nobody"));
            None
        }
    }
}

/// `operators = { claim = "groups", roles = { GROUP = [ROLE] } }`.
fn groups(table: &Table<'_>) -> Option<(String, BTreeMap<String, BTreeSet<Role>>)> {
    let claim = table.need("claim").and_then(|value| value.filled().map(str::to_owned));
    let named = table.need("roles").and_then(|value| value.table())?;
    let mut roles = BTreeMap::new();
    for entry in named.entries() {
        if entry.name.is_empty() || entry.name.len() > MAX_NAME {
            table.context().report.problem(&entry.place, "this is not the name of a group");
        }
        roles.insert(entry.name.to_owned(), operators::roles(&entry.value));
    }
    Some((claim?, roles))
}
