//! `--target NAME=postgres://...`: a target from the URL that people have at hand.

use std::net::IpAddr;
use std::str::FromStr;

use leasehold_law::scope::is_name;
use toml::Value;
use url::Url;

/// Where the roots of most certificates lie, for URLs that do not say.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
const DEFAULT_PORT: u16 = 5432;

/// A PostgreSQL target to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSpec {
    /// What it is called.
    pub name: String,
    /// A host name, an address, or the folder of a unix socket.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The database.
    pub dbname: String,
    /// The file with the roots that the server's certificate is checked under.
    pub sslrootcert: String,
}

/// Why a text is no target. Never repeats the URL: there may be a password in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetSpecError {
    /// There is no `=`, or no name before it.
    #[error(
        "a target is written NAME=postgres://HOST:PORT/DATABASE, its name in letters, digits, `.`, `-` and `_`"
    )]
    Shape,
    /// The URL cannot be parsed.
    #[error("the target's URL cannot be read: {0}")]
    Url(#[from] url::ParseError),
    /// It is of another kind.
    #[error("`{0}://` is no target that init knows; write `postgres://HOST:PORT/DATABASE`")]
    Scheme(String),
    /// There is a password in it.
    #[error(
        "the URL holds a password, which the shell's history and the process list now hold too: leave it out, and \
         put the password of the broker's own role into the password file that init names"
    )]
    Password,
    /// Something is missing or cannot be used.
    #[error("the target's URL needs {0}")]
    Needs(&'static str),
    /// A parameter that config has no key for.
    #[error(
        "init does not know the URL parameter `{0}`; it takes `host`, `port`, `dbname`, `sslmode` and `sslrootcert`"
    )]
    Parameter(String),
}

impl TargetSpec {
    /// The target that the example config has where none was named.
    pub(super) fn example() -> Self {
        Self {
            name: "example-db".to_owned(),
            host: "db.example".to_owned(),
            port: DEFAULT_PORT,
            dbname: "app".to_owned(),
            sslrootcert: SYSTEM_ROOTS.to_owned(),
        }
    }

    /// The inside of `connect = { ... }`.
    pub(super) fn connect(&self) -> String {
        let quoted = |text: &str| Value::from(text).to_string();
        let roots = match self.tls() {
            "verify-full" => format!(", sslrootcert = {}", quoted(&self.sslrootcert)),
            _ => String::new(),
        };
        let (host, dbname) = (quoted(&self.host), quoted(&self.dbname));
        format!("host = {host}, port = {}, dbname = {dbname}{roots}", self.port)
    }

    /// As strict as the route needs: less only where nobody can listen.
    pub(super) fn tls(&self) -> &'static str {
        let loopback = self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if loopback || self.host == "localhost" || self.host.starts_with('/') {
            "disable"
        } else {
            "verify-full"
        }
    }
}

impl FromStr for TargetSpec {
    type Err = TargetSpecError;
    fn from_str(text: &str) -> Result<Self, TargetSpecError> {
        let (name, url) = text.split_once('=').ok_or(TargetSpecError::Shape)?;
        if !is_name(name) {
            return Err(TargetSpecError::Shape);
        }
        let url = Url::parse(url)?;
        match url.scheme() {
            "postgres" | "postgresql" => from_url(name, &url),
            other => Err(TargetSpecError::Scheme(other.to_owned())),
        }
    }
}

fn from_url(name: &str, url: &Url) -> Result<TargetSpec, TargetSpecError> {
    if url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password") {
        return Err(TargetSpecError::Password);
    }
    let mut spec = TargetSpec {
        name: name.to_owned(),
        host: url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
        port: url.port().unwrap_or(DEFAULT_PORT),
        dbname: url.path().trim_start_matches('/').to_owned(),
        sslrootcert: SYSTEM_ROOTS.to_owned(),
    };
    for (key, value) in url.query_pairs() {
        match key.as_ref() {
            "host" => spec.host = value.into_owned(),
            "port" => spec.port = port(&value)?,
            "dbname" => spec.dbname = value.into_owned(),
            "sslrootcert" => spec.sslrootcert = value.into_owned(),
            // Config is as strict as the route needs, whatever people's own tools do.
            "sslmode" => {}
            other => return Err(TargetSpecError::Parameter(other.to_owned())),
        }
    }
    check(spec)
}

fn port(text: &str) -> Result<u16, TargetSpecError> {
    text.parse().map_err(|_| TargetSpecError::Needs("a port that is a number"))
}

fn check(spec: TargetSpec) -> Result<TargetSpec, TargetSpecError> {
    if spec.host.is_empty() {
        return Err(TargetSpecError::Needs("a host"));
    }
    if spec.dbname.is_empty() {
        return Err(TargetSpecError::Needs("a database, like `postgres://HOST:PORT/DATABASE`"));
    }
    if spec.host.contains('%') || spec.dbname.contains('%') {
        return Err(TargetSpecError::Needs("odd names in `?host=...&dbname=...`, not in its path"));
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_becomes_a_route() {
        let check = |text: &str, connect: &str, tls: &str| {
            let spec: TargetSpec = text.parse().unwrap();
            assert_eq!((spec.connect().as_str(), spec.tls()), (connect, tls), "{text}");
        };
        let roots = ", sslrootcert = \"/etc/ssl/certs/ca-certificates.crt\"";
        let remote = |rest: &str| format!("{rest}{roots}");
        check(
            "a=postgres://db1/app",
            &remote("host = \"db1\", port = 5432, dbname = \"app\""),
            "verify-full",
        );
        check(
            "a=postgresql://me@db1:6000/app?sslmode=require&sslrootcert=/ca.pem",
            "host = \"db1\", port = 6000, dbname = \"app\", sslrootcert = \"/ca.pem\"",
            "verify-full",
        );
        check("a=postgres://localhost/app", "host = \"localhost\", port = 5432, dbname = \"app\"", "disable");
        check("a=postgres://[::1]:1/app", "host = \"::1\", port = 1, dbname = \"app\"", "disable");
        check(
            "a=postgres:///app?host=/run/postgresql",
            "host = \"/run/postgresql\", port = 5432, dbname = \"app\"",
            "disable",
        );
    }

    #[test]
    fn what_is_no_target_says_what_to_write_and_never_the_password() {
        let check = |text: &str, expect: &str| {
            let said = text.parse::<TargetSpec>().unwrap_err().to_string();
            assert!(said.contains(expect), "{text}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        };
        check("postgres://db1/app", "NAME=postgres://");
        check("a b=postgres://db1/app", "NAME=postgres://");
        check("a=db1/app", "cannot be read");
        check("a=mysql://db1/app", "`mysql://` is no target");
        check("a=postgres://me:hunter2@db1/app", "the URL holds a password");
        check("a=postgres://db1/app?password=hunter2", "the URL holds a password");
        check("a=postgres://me:hunter2@db1:port/app", "cannot be read");
        check("a=postgres:///app", "needs a host");
        check("a=postgres://db1", "needs a database");
        check("a=postgres://db1/a%20b", "not in its path");
        check("a=postgres://db1/app?options=x", "parameter `options`");
    }
}
