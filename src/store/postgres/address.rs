//! Where the server is: a URL out of a file that nobody else reads, and how the connection is protected.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use zeroize::Zeroizing;

use super::{Options, StoreError};

const CONNECT: Duration = Duration::from_secs(5);
const MAX_BYTES: u64 = 4096;
const PORT: u16 = 5432;
/// How the file is written.
const EXAMPLE: &str = "write postgres://USER:PASSWORD@HOST/DATABASE";

/// What every session sets, whatever the server, the database or the role set: deadlines, commits that are on disk
/// (and on the synchronous standby, where there is one), and one way to write and read values.
const SESSION: &str = "-c statement_timeout=6000 -c lock_timeout=3000 -c idle_in_transaction_session_timeout=5000 \
    -c search_path=leasehold,pg_catalog,pg_temp -c synchronous_commit=on -c default_transaction_read_only=off \
    -c default_transaction_isolation=read\\ committed -c standard_conforming_strings=on -c timezone=UTC \
    -c datestyle=ISO -c client_min_messages=error -c jit=off";

/// One server that the URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A name, an address, or the folder of a unix socket.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database.
    pub dbname: String,
}

/// How to connect. Never shown: there is a password in it.
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) places: Vec<Place>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.port, self.dbname)
    }
}

impl Place {
    /// Whether nobody on a wire can listen.
    fn is_local(&self) -> bool {
        let loopback = self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        self.is_socket() || loopback || self.host == "localhost"
    }

    fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// Whether both are the same database, as far as names tell: every way to this host is one.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let host = self.host == other.host || (self.is_local() && other.is_local());
        host && self.port == other.port && self.dbname == other.dbname
    }
}

impl Address {
    /// Reads the URL and the roots; dials nothing.
    ///
    /// # Errors
    /// Where a file may be read by others or holds something else, or the wire would be open to listeners.
    pub(super) fn read(options: &Options) -> Result<Self, StoreError> {
        let path = &options.url_file;
        let problem = |what: &str| StoreError::Unusable(format!("`{}`: {what}", path.display()));
        let url = read_private(path).map_err(|what| problem(&what))?;
        // The parser's words may repeat the URL, and there may be a password in it.
        let mut config: Config = url
            .trim()
            .parse()
            .map_err(|_| problem(&format!("cannot be read as a URL; {EXAMPLE}, and `tls` in the config")))?;
        if config.get_ssl_mode() != SslMode::Prefer || !config.get_hostaddrs().is_empty() {
            return Err(problem("must not name `sslmode` or `hostaddr`: the config's `tls` says how"));
        }
        let places = places(&config).map_err(|what| problem(&what))?;
        let tls = tls(options, &places)?;
        let mode = if tls.is_some() { SslMode::Require } else { SslMode::Disable };
        let wanted = config.get_options().map(|wanted| format!("{wanted} ")).unwrap_or_default();
        config.ssl_mode(mode).options(format!("{wanted}{SESSION}")).connect_timeout(CONNECT);
        config.application_name("leasehold store").target_session_attrs(TargetSessionAttrs::ReadWrite);
        config.keepalives_idle(Duration::from_secs(10)).tcp_user_timeout(Duration::from_secs(15));
        Ok(Self { config, tls, places })
    }
}

fn read_private(path: &Path) -> Result<Zeroizing<String>, String> {
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mode = file.metadata().map_err(|error| error.to_string())?.mode() & 0o7777;
    if mode & 0o177 != 0 {
        return Err(format!("has mode {mode:04o}, and a password may be in it: chmod 0600"));
    }
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(MAX_BYTES).unwrap_or_default()));
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(|error| format!("cannot be read: {error}"))?;
    Ok(text)
}

/// tokio-postgres gives either no port, one for all hosts, or one for each.
fn places(config: &Config) -> Result<Vec<Place>, String> {
    let Some(dbname) = config.get_dbname() else { return Err(format!("names no database; {EXAMPLE}")) };
    if config.get_hosts().is_empty() {
        return Err(format!("names no host; {EXAMPLE}"));
    }
    let ports = config.get_ports();
    let place = |(index, host): (usize, &Host)| Place {
        host: match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        },
        port: ports.get(index).or(ports.first()).copied().unwrap_or(PORT),
        dbname: dbname.to_owned(),
    };
    Ok(config.get_hosts().iter().enumerate().map(place).collect())
}

fn tls(options: &Options, places: &[Place]) -> Result<Option<Arc<ClientConfig>>, StoreError> {
    if places.iter().all(Place::is_socket) {
        return Ok(None);
    }
    if !options.verify {
        return match places.iter().find(|place| !place.is_local()) {
            None => Ok(None),
            Some(far) => Err(StoreError::Unusable(format!(
                "`tls = \"disable\"` is for unix sockets and loopback, and `{}` is neither",
                far.host
            ))),
        };
    }
    let Some(path) = &options.sslrootcert else {
        let what = "a store over TCP needs `sslrootcert`, the file with the roots that the server's certificate is \
                    checked under";
        return Err(StoreError::Unusable(what.to_owned()));
    };
    roots(path).map(Some).map_err(|what| StoreError::Unusable(format!("`{}`: {what}", path.display())))
}

fn roots(path: &Path) -> Result<Arc<ClientConfig>, String> {
    let pem = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let der = certificate.map_err(|error| format!("holds something else: {error}"))?;
        roots.add(der).map_err(|error| format!("holds something else: {error}"))?;
    }
    if roots.is_empty() {
        return Err("holds no certificate".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::Stamp;
    use super::*;

    fn read(url: &str, verify: bool, mode: u32) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let url_file = folder.path().join("store.url");
        std::fs::write(&url_file, url).unwrap();
        std::fs::set_permissions(&url_file, std::fs::Permissions::from_mode(mode)).unwrap();
        let options = Options {
            url_file,
            sslrootcert: None,
            verify,
            broker: "b".to_owned(),
            installation: "i".to_owned(),
            holder: "h".to_owned(),
            stamp: Stamp::Dev,
        };
        let read = Address::read(&options).map_err(|error| error.to_string());
        read.map(|address| address.places.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_url_says_where_and_the_config_how() {
        let check =
            |url: &str, verify: bool, expect: Result<&[&str], &str>| match (read(url, verify, 0o600), expect)
            {
                (Ok(found), Ok(expect)) => assert_eq!(found, expect, "{url}"),
                (Err(told), Err(expect)) => {
                    assert!(told.contains(expect) && !told.contains("hunter2"), "{url}: {told}");
                }
                (found, expect) => panic!("{url}: {found:?}, not {expect:?}"),
            };
        check("postgres://me:hunter2@127.0.0.1/store\n", false, Ok(&["127.0.0.1:5432/store"]));
        check("host=/run/pg dbname=store user=me", true, Ok(&["/run/pg:5432/store"]));
        let two = "postgres://me:hunter2@localhost:6000,[::1]:6001/store?target_session_attrs=read-write";
        check(two, false, Ok(&["localhost:6000/store", "::1:6001/store"]));
        check("postgres://me:hunter2@db1/store", true, Err("needs `sslrootcert`"));
        check("postgres://me:hunter2@127.0.0.1/store", true, Err("needs `sslrootcert`"));
        check("postgres://me:hunter2@localhost,db1/store", false, Err("`db1` is neither"));
        check("postgres://me:hunter2@db1/store?sslmode=disable", true, Err("must not name `sslmode`"));
        check("postgres://me:hunter2@db1/store?sslmode=verify-full", true, Err("`tls` in the config"));
        check(
            "postgres://me:hunter2@localhost/store?hostaddr=10.0.0.1",
            false,
            Err("must not name `sslmode` or `hostaddr`"),
        );
        check("postgres://me:hunter2@localhost:port/store", false, Err("cannot be read as a URL"));
        check("postgres://me:hunter2@localhost", false, Err("names no database"));
        check("postgres:///store", false, Err("names no host"));
    }

    #[test]
    fn a_url_that_others_may_read_is_refused() {
        let told = read("postgres://me:hunter2@127.0.0.1/store", false, 0o640).unwrap_err();
        assert!(told.contains("chmod 0600") && told.contains("store.url"), "{told}");
    }

    #[test]
    fn every_way_to_this_host_is_one() {
        let place = |host: &str, port| Place { host: host.to_owned(), port, dbname: "d".to_owned() };
        assert!(place("127.0.0.1", 5).is_same(&place("/run/pg", 5)));
        assert!(place("db1", 5).is_same(&place("db1", 5)));
        assert!(!place("db1", 5).is_same(&place("db2", 5)));
        assert!(!place("db1", 5).is_same(&place("db1", 6)));
    }
}
