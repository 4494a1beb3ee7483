//! `[listen]`: the doors.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::table::{Table, Value};
use super::trust::Trust;
use crate::identity::{Each, listener::Limits};

/// The longest path of a unix socket that Linux binds, in bytes.
const MAX_SOCKET_PATH: usize = 107;

/// No caller may hold more than this of a door: a door's own bounds are not much higher.
const MOST_PER_CALLER: usize = 10_000;

/// `[listen]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The agents' door: mutual TLS.
    pub agents: SocketAddr,
    /// The operators' doors.
    pub admin: Vec<AdminAddr>,
    /// The group that may open the unix sockets: 0660 in 0750. Without it 0600 in 0700.
    pub admin_group: Option<String>,
    /// What one caller may hold of a door.
    pub per_caller: Each,
    /// Handshakes at one time of one peer address; a proxy or NAT in front makes one of many.
    pub handshakes_per_address: Option<usize>,
    /// Where callers come that bring a token with each request.
    pub bearer: Option<SocketAddr>,
    /// What such a door shows of itself; without it the broker's SVID.
    pub certificate: Option<WebFiles>,
    /// What callers with tokens call the broker beside the names of that certificate: the name of a hop that ends TLS.
    pub hosts: BTreeSet<String>,
    /// Where monitoring reads; it asks for no identity.
    pub metrics: Option<SocketAddr>,
}

impl Listen {
    /// Whether operators who are people can come over TCP: they know the broker by its certificate.
    #[must_use]
    pub fn has_people_s_door(&self) -> bool {
        self.certificate.is_some() && self.admin.iter().any(|door| matches!(door, AdminAddr::Tcp(_)))
    }
}

/// A certificate chain and its key, both as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebFiles {
    /// The file with the chain, leaf first.
    pub certificate: PathBuf,
    /// The file with the key.
    pub key: PathBuf,
}

/// One door for operators (RULES R-19).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminAddr {
    /// A unix socket, with the kernel's word for who calls.
    Unix(PathBuf),
    /// Mutual TLS; with `[identity.people]` and a certificate, people with tokens as well.
    Tcp(SocketAddr),
}

pub(super) fn read(root: &Table<'_>, trust: Trust) -> Option<Listen> {
    root.need("listen")?.read(|table| {
        let agents = table.need("agents").and_then(|value| tcp(&value, trust));
        let admin = table.need("admin").map(|value| doors(&value, trust));
        let admin_group = table.get("admin_group").and_then(|value| value.filled().map(str::to_owned));
        let per_caller = table.get("per_caller").map_or_else(Each::default, |value| per_caller(&value));
        let handshakes_per_address = table.get("handshakes_per_address").and_then(|value| handshakes(&value));
        let metrics = table.get("metrics").and_then(|value| metrics(&value, trust));
        let bearer = table.get("bearer").and_then(|value| tcp(&value, trust));
        let certificate = web_files(table);
        let hosts = table.texts("hosts").iter().map(|(host, _)| host.to_ascii_lowercase()).collect();
        let (agents, admin) = (agents?, admin?);
        let listen = Listen {
            agents,
            admin,
            admin_group,
            per_caller,
            handshakes_per_address,
            bearer,
            certificate,
            hosts,
            metrics,
        };
        if listen.admin.contains(&AdminAddr::Tcp(listen.agents)) && listen.agents.port() != 0 {
            let what = format!("`{}` is the agents' door; operators need another", listen.agents);
            table.context().report.problem(table.place(), what);
        }
        Some(listen)
    })
}

/// Whoever reaches it reads it: names of targets, counts and times, and nothing else.
fn metrics(value: &Value<'_>, trust: Trust) -> Option<SocketAddr> {
    let address = tcp(value, trust)?;
    if !address.ip().is_loopback() {
        let what = format!(
            "`{address}` answers whoever reaches it, and asks for no identity: keep it to your monitoring"
        );
        value.context().report.warning(value.place(), what);
    }
    Some(address)
}

fn web_files(table: &Table<'_>) -> Option<WebFiles> {
    let path = |key| {
        let value = table.get(key)?;
        value.filled().map(|path| table.context().source.resolve(path))
    };
    match (path("certificate"), path("key")) {
        (Some(certificate), Some(key)) => Some(WebFiles { certificate, key }),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            let what = "`certificate` and `key` go together: name both files, or neither";
            table.context().report.problem(table.place(), what);
            None
        }
    }
}

fn per_caller(value: &Value<'_>) -> Each {
    let default = Each::default();
    let read = value.read(|table| {
        let most = |key, default| table.get(key).and_then(|value| bound(&value)).unwrap_or(default);
        Some(Each {
            connections: most("connections", default.connections),
            calls: most("calls", default.calls),
            streams: most("streams", default.streams),
        })
    });
    read.unwrap_or(default)
}

fn handshakes(value: &Value<'_>) -> Option<usize> {
    let most = Limits::default().handshakes;
    let number = value.int()?;
    let bound = usize::try_from(number).ok().filter(|bound| (1..=most).contains(bound));
    if bound.is_none() {
        value
            .problem(format!("handshakes of one address are 1 to {most}, as many as a door takes at a time"));
    }
    bound
}

fn bound(value: &Value<'_>) -> Option<usize> {
    let number = value.int()?;
    let bound = usize::try_from(number).ok().filter(|bound| (1..=MOST_PER_CALLER).contains(bound));
    if bound.is_none() {
        value.problem(format!("a bound per caller is 1 to {MOST_PER_CALLER}; this is {number}"));
    }
    bound
}

fn doors(list: &Value<'_>, trust: Trust) -> Vec<AdminAddr> {
    let items = list.items();
    if items.is_empty() && list.raw().is_array() {
        list.problem("operators need a door: write `admin = [\"unix:/run/leasehold/admin.sock\"]`");
    }
    items.iter().filter_map(|item| door(item, trust)).collect()
}

fn door(item: &Value<'_>, trust: Trust) -> Option<AdminAddr> {
    let Some(path) = item.text()?.strip_prefix("unix:") else {
        return tcp(item, trust).map(AdminAddr::Tcp);
    };
    unix_socket(item, path).map(AdminAddr::Unix)
}

/// The path of a unix socket, relative to the config's folder.
pub(super) fn unix_socket(value: &Value<'_>, path: &str) -> Option<PathBuf> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.ends_with('/') {
        value.problem("the path of the socket is missing: write it like `unix:/run/leasehold/admin.sock`");
        return None;
    }
    let path = value.context().source.resolve(path);
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        value.problem(format!(
            "the path of a socket has at most {MAX_SOCKET_PATH} bytes; this one has {length}"
        ));
        return None;
    }
    Some(path)
}

fn tcp(value: &Value<'_>, trust: Trust) -> Option<SocketAddr> {
    let text = value.text()?;
    let Ok(address) = text.parse::<SocketAddr>() else {
        value.problem(format!("`{text}` is not an address: write an IP and a port, like `0.0.0.0:8443`"));
        return None;
    };
    if trust == Trust::Dev && !address.ip().is_loopback() {
        value.problem(format!(
            "`--dev-trust` opens doors on loopback only; write `127.0.0.1:{}`",
            address.port()
        ));
    }
    Some(address)
}
