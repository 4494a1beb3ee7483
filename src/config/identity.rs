//! `[identity]`: where the broker's own SVID comes from, and whom it trusts.

use std::path::PathBuf;

use leasehold_law::caller::{CallerId, SpiffeId};

use super::listen::unix_socket;
use super::operators::foreign;
use super::table::{Table, Value};

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
}

pub(super) fn read(root: &Table<'_>, trust_domain: Option<&str>) -> Option<Identity> {
    root.need("identity")?.read(|identity| {
        let spiffe = identity.need("spiffe")?.read(|table| {
            let workload_api = table.need("workload_api").and_then(|value| workload_api(&value));
            let id = table.get("id").and_then(|value| own_id(&value, trust_domain));
            Some(Spiffe { workload_api: workload_api?, id })
        });
        Some(Identity { spiffe: spiffe? })
    })
}

fn workload_api(value: &Value<'_>) -> Option<PathBuf> {
    let text = value.text()?;
    let Some(path) = text.strip_prefix("unix:") else {
        value.problem(format!("`{text}` is not a unix socket: write it like `unix:/run/spire/agent.sock`"));
        return None;
    };
    unix_socket(value, path)
}

fn own_id(value: &Value<'_>, trust_domain: Option<&str>) -> Option<SpiffeId> {
    let id: SpiffeId = value.parsed()?;
    foreign(&CallerId::Agent(id.clone()), trust_domain).into_iter().for_each(|what| value.problem(what));
    Some(id)
}
