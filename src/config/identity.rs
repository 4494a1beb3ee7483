//! `[identity]`: where the broker's own SVID comes from, and whom it trusts.

use std::collections::BTreeSet;
use std::path::PathBuf;

use leasehold_law::caller::{CallerId, SpiffeId};

use super::listen::unix_socket;
use super::operators::foreign;
use super::table::{Table, Value};
use super::trust::{Trust, trust_domain};

/// `[identity]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `[identity.spiffe]`.
    pub spiffe: Spiffe,
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
        if self.federated.contains(spiffe.trust_domain()) {
            return None;
        }
        let what = foreign(id, self.own)?;
        let name = spiffe.trust_domain();
        Some(format!(
            "{what}; to accept its agents write `federates_with = [\"{name}\"]` in [identity.spiffe]"
        ))
    }
}

pub(super) fn read(root: &Table<'_>, own: Option<&str>, trust: Trust) -> Option<Identity> {
    root.need("identity")?.read(|identity| {
        let spiffe = identity.need("spiffe")?.read(|table| {
            let workload_api = table.need("workload_api").and_then(|value| workload_api(&value));
            let id = table.get("id").and_then(|value| own_id(&value, own));
            let federates_with = federates_with(table, own, trust);
            Some(Spiffe { workload_api: workload_api?, id, federates_with })
        });
        Some(Identity { spiffe: spiffe? })
    })
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
