//! `[kube_accounts]`: the service accounts that may ask, each in its cluster.

use leasehold_law::caller::{CallerId, Vouched};
use leasehold_law::catalog::Agent;

use super::agents::{Facts, Owners};
use super::issuers::Issuers;
use super::names::Names;
use super::table::{Table, Value};
use crate::identity::kube::Account;

/// An account, and the agent that it is.
pub(super) struct KubeAccount {
    pub(super) account: Account,
    pub(super) agent: Agent,
}

pub(super) fn read(parts: &[Table<'_>], issuers: &Issuers, owners: &Owners<'_>) -> Names<KubeAccount> {
    Names::collect(parts, ("kube_accounts", "service account"), Table::entries, |name, value| {
        account(name, value, issuers, owners)
    })
}

fn account(name: &str, value: &Value<'_>, issuers: &Issuers, owners: &Owners<'_>) -> Option<KubeAccount> {
    value.read(|table| {
        let facts = Facts::read(table, owners);
        let uid = table.get("uid").and_then(|value| value.filled().map(str::to_owned));
        let cluster = table.need("cluster").and_then(|value| {
            let cluster = value.text()?;
            issuers.clusters.check(cluster, value.place(), value.context().report);
            Some(cluster)
        });
        let id = is_account(name).then(|| Vouched::new(cluster?, name).ok()).flatten();
        if id.is_none() && cluster.is_some() {
            value.problem(format!("`{name}` is not a service account: write it like `\"payments/worker\"`"));
        }
        let id = CallerId::KubeAccount(id?);
        let account = Account { id: id.clone(), cluster: cluster?.to_owned(), name: name.to_owned(), uid };
        Some(KubeAccount { account, agent: facts?.of(id) })
    })
}

/// `NAMESPACE/ACCOUNT`: a DNS label and a DNS subdomain, as Kubernetes has them.
fn is_account(name: &str) -> bool {
    let spelt = |text: &str, most: usize, also: &[u8]| {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || also.contains(&byte);
        !text.is_empty() && text.len() <= most && text.bytes().all(known)
    };
    name.split_once('/')
        .is_some_and(|(namespace, account)| spelt(namespace, 63, b"-") && spelt(account, 253, b"-."))
}
