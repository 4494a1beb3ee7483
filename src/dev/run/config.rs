//! The config that dev writes for itself at each start.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use super::DOMAIN;

/// The config's name in the folder.
pub(super) const CONFIG: &str = "leasehold.toml";
/// Where the address of the agents' door is written, for `dev env`.
pub(super) const ADDRESS: &str = "agents.address";
/// What clients try where nobody tells them otherwise.
const PREFERRED: u16 = 8443;

/// What is leased on.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// In the broker's own memory.
    Memory,
    /// A database on this host.
    #[cfg(feature = "postgres")]
    Postgres {
        /// A name, an address, or the folder of a socket.
        host: String,
        /// Its port.
        port: u16,
        /// The database.
        dbname: String,
        /// Where the password of the broker's own login is.
        password_file: PathBuf,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("in memory (`--postgres URL` takes a database of yours)"),
            #[cfg(feature = "postgres")]
            Self::Postgres { host, port, dbname, .. } => {
                write!(f, "PostgreSQL, database {dbname} on {host}:{port}")
            }
        }
    }
}

impl Target {
    /// A command that uses it.
    pub(super) const fn example(&self) -> &'static str {
        match self {
            Self::Memory => "env",
            #[cfg(feature = "postgres")]
            Self::Postgres { .. } => "psql -c 'select current_user, now()'",
        }
    }

    /// Stores are apart: leases of one target are nothing to another.
    const fn store(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            #[cfg(feature = "postgres")]
            Self::Postgres { .. } => "postgres",
        }
    }

    /// What follows `[targets.local]`, and the recipe of its grant.
    fn toml(&self) -> (String, &'static str) {
        match self {
            Self::Memory => ("backend = \"memory\"\n".to_owned(), "{ role = \"leasehold_read\" }"),
            #[cfg(feature = "postgres")]
            Self::Postgres { host, port, dbname, password_file } => {
                let quoted = |text: &str| toml::Value::from(text).to_string();
                let file = quoted(&password_file.display().to_string());
                let text = format!(
                    "backend = \"postgres\"\nconnect = {{ host = {}, port = {port}, dbname = {} }}\ntls = \"disable\"\n\
                     admin = {{ user = \"leasehold\", password_file = {file} }}\n",
                    quoted(host),
                    quoted(dbname)
                );
                (text, "{ member_of = [\"leasehold_read\"], connection_limit = 5 }")
            }
        }
    }
}

/// Writes the config and the address.
pub(super) fn write(dir: &Path, target: &Target) -> Result<(), (PathBuf, io::Error)> {
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|error| (path, error))
    };
    let address = address().map_err(|error| (dir.to_owned(), error))?;
    put(ADDRESS, &address)?;
    put(
        "conf.d/README.toml",
        "# People, groups, agents, targets, intents and grants of your own; never overwritten but this file.\n",
    )?;
    put(CONFIG, &text(&address, target))
}

/// The well-known port, or any where it is taken.
fn address() -> io::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PREFERRED))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    Ok(listener.local_addr()?.to_string())
}

fn text(address: &str, target: &Target) -> String {
    let uid = rustix::process::getuid().as_raw();
    let (table, recipe) = target.toml();
    let store = target.store();
    let agent = |name: &str| {
        format!(
            "[agents.\"spiffe://{DOMAIN}/agent/{name}\"]\nowner = \"person:dev\"\ngroups = [\"dev\"]\nautonomy = \"act\"\n\n"
        )
    };
    format!(
        "# Written by `leasehold dev` at each start: what you change here is lost. Your own goes into conf.d/*.toml.\n\
         include = [\"conf.d/*.toml\"]\n\n\
         [broker]\nname = \"dev\"\ntrust_domain = \"{DOMAIN}\"\ninstallation_key = \"installation.key\"\n\n\
         [listen]\nagents = \"{address}\"\nadmin = [\"unix:admin/admin.sock\"]\n\n\
         [operators]\n\"uid:{uid}\" = [\"admin\"]\n\"spiffe://{DOMAIN}/operator/admin\" = [\"admin\"]\n\n\
         [identity.spiffe]\nworkload_api = \"unix:dev/leasehold.sock\"\n\n\
         [store]\nsqlite = \"store-{store}/leases.db\"\n\n\
         [people]\ndev = {{ issuer = \"https://idp.example\", subject = \"dev\" }}\n\n\
         [groups]\ndevelopers = [\"dev\"]\n\n\
         [targets.local]\nowner = \"group:developers\"\nlabels = {{ env = \"dev\" }}\n{table}\n\
         [intents.\"db.read\"]\nclass = \"read-only\"\n\n\
         [[grants]]\nintent = \"db.read\"\ntargets = [\"local\"]\nallow = [\"agents:dev\"]\nrecipe = {recipe}\n\
         ttl = {{ default = \"10m\", max = \"15m\", life = \"1h\" }}\n\n{}{}",
        agent("triage"),
        agent("report"),
    )
}
