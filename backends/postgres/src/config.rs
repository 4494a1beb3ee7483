//! A target's table in config, checked whole.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use leasehold_backend::Problem;
use leasehold_law::time::Span;
use serde_json::{Map, Value};

use crate::fields::Fields;

/// Keys that every target has and that the broker itself reads.
const COMMON: [&str; 4] = ["backend", "owner", "labels", "groups"];
const PORT: u16 = 5432;
const DEFAULT_ESTATE: &str = "lh_estate";

/// How to reach one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// A host name, an address, or the folder of a unix socket.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
    /// The database.
    pub(crate) dbname: String,
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    /// The server proves its name under the configured roots.
    VerifyFull,
    /// Not at all: only where no wire is left to listen on.
    Disable,
}

/// What becomes of objects that an agent made and left (RULES R-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnOwned {
    /// They are dropped.
    Drop,
    /// They go to a role without power.
    Keep,
}

/// A target's table, checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The broker's route.
    pub(crate) connect: Route,
    /// The agents' route.
    pub(crate) agents: Route,
    /// How the broker's connections are protected.
    pub(crate) tls: Tls,
    /// How the agents' are.
    pub(crate) agents_tls: Tls,
    /// The roots that the server proves itself under.
    pub(crate) roots: Option<PathBuf>,
    /// The broker's own login.
    pub(crate) user: String,
    /// Where its password is; `None` on a unix socket that proves it by itself.
    pub(crate) password_file: Option<PathBuf>,
    /// Why the broker may log in as a superuser.
    pub(crate) accept_superuser: Option<String>,
    /// What becomes of what an agent leaves.
    pub(crate) on_owned: OnOwned,
    /// Who gets it, where it is kept.
    pub(crate) estate_role: String,
    /// Iterations of the verifier.
    pub(crate) scram_iterations: NonZeroU32,
    /// The longest that a mint may take.
    pub(crate) mint_window: Span,
    /// How long a login may stay half-way before a revocation ends it.
    pub(crate) limbo_wait: Span,
    /// Most connections for mints; revocations have their own.
    pub(crate) pool: usize,
}

impl Route {
    /// Whether the host is the folder of a unix socket.
    pub(crate) fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// Whether nobody on a wire can listen.
    fn is_local(&self) -> bool {
        let loopback = self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        self.is_socket() || loopback || self.host == "localhost"
    }
}

impl Tls {
    /// What libpq calls it.
    pub(crate) const fn sslmode(self) -> &'static str {
        match self {
            Self::VerifyFull => "verify-full",
            Self::Disable => "disable",
        }
    }
}

/// Reads a target's table.
///
/// # Errors
/// Every problem at once.
pub(crate) fn parse(table: &Map<String, Value>) -> Result<Settings, Vec<Problem>> {
    let mut fields = Fields::new(table);
    fields.ignore(&COMMON);
    let made = read(&mut fields);
    let problems = fields.finish();
    match made {
        Some(settings) if problems.is_empty() => Ok(settings),
        Some(_) | None => Err(problems),
    }
}

/// `None` only where a problem was noted.
fn read(fields: &mut Fields<'_>) -> Option<Settings> {
    let (connect, roots) = read_connect(fields);
    let agents = fields.table("agents", |inner| read_agents(inner, connect.as_ref()));
    let tls = read_tls(fields, connect.as_ref(), roots.as_ref());
    let admin = read_admin(fields, connect.as_ref());
    let accept_superuser = fields.text("accept_superuser").map(str::to_owned);
    let on_owned = fields.choice("on_owned", &[("drop", OnOwned::Drop), ("keep", OnOwned::Keep)]);
    let estate_role = read_estate(fields);
    let scram_iterations = fields.number("scram_iterations", 1..=1_000_000).and_then(NonZeroU32::new);
    let mint_window = fields.span("mint_window", Span::from_secs(1)..=Span::from_mins(1));
    let limbo_wait = fields.span("limbo_wait", Span(10)..=Span::from_secs(5));
    let pool = fields.number("pool", 1..=100);
    let connect = connect?;
    let (agents, agents_tls) = agents.unwrap_or_else(|| (connect.clone(), None));
    let (user, password_file) = admin?;
    Some(Settings {
        agents_tls: agents_tls.unwrap_or(if agents.is_socket() { Tls::Disable } else { tls }),
        agents,
        connect,
        tls,
        roots,
        user,
        password_file,
        accept_superuser,
        on_owned: on_owned.unwrap_or(OnOwned::Drop),
        estate_role,
        scram_iterations: scram_iterations.unwrap_or(NonZeroU32::MIN),
        mint_window: mint_window.unwrap_or(Span::from_secs(10)),
        limbo_wait: limbo_wait.unwrap_or(Span(250)),
        pool: pool.and_then(|n| usize::try_from(n).ok()).unwrap_or(8),
    })
}

fn read_connect(fields: &mut Fields<'_>) -> (Option<Route>, Option<PathBuf>) {
    if !fields.has("connect") {
        fields.problem(
            "connect",
            "is missing; write { host = \"...\", dbname = \"...\", sslrootcert = \"...\" }",
        );
    }
    let read = fields.table("connect", |inner| {
        let host = inner.required("host", "a host name, an address or the folder of a unix socket");
        let port = read_port(inner).unwrap_or(PORT);
        let dbname = inner.required("dbname", "the database that agents use");
        let roots = inner.text("sslrootcert").map(PathBuf::from);
        let route =
            host.zip(dbname).map(|(host, dbname)| Route { host: host.into(), port, dbname: dbname.into() });
        (route, roots)
    });
    read.unwrap_or_default()
}

fn read_port(fields: &mut Fields<'_>) -> Option<u16> {
    fields.number("port", 1..=65_535).and_then(|port| u16::try_from(port).ok())
}

/// The agents' route: what it leaves out is as on the broker's.
fn read_agents(fields: &mut Fields<'_>, connect: Option<&Route>) -> (Route, Option<Tls>) {
    let text = |found: Option<&str>, of: fn(&Route) -> &str| {
        found.or(connect.map(of)).map(str::to_owned).unwrap_or_default()
    };
    let host = text(fields.text("host"), |route| &route.host);
    let dbname = text(fields.text("dbname"), |route| &route.dbname);
    let port = read_port(fields).or(connect.map(|route| route.port)).unwrap_or(PORT);
    let route = Route { host, port, dbname };
    let tls = fields.choice("tls", &TLS);
    check_less(fields, tls, &route);
    (route, tls)
}

const TLS: [(&str, Tls); 2] = [("verify-full", Tls::VerifyFull), ("disable", Tls::Disable)];

fn read_tls(fields: &mut Fields<'_>, connect: Option<&Route>, roots: Option<&PathBuf>) -> Tls {
    let written = fields.choice("tls", &TLS);
    let Some(route) = connect else { return Tls::VerifyFull };
    check_less(fields, written, route);
    if route.is_socket() {
        return Tls::Disable;
    }
    let tls = written.unwrap_or(Tls::VerifyFull);
    if tls == Tls::VerifyFull && roots.is_none() {
        let what = "is missing: the file with the roots that the server's certificate is checked under";
        fields.problem("connect/sslrootcert", what);
    }
    tls
}

fn check_less(fields: &mut Fields<'_>, tls: Option<Tls>, route: &Route) {
    if tls == Some(Tls::Disable) && !route.is_local() {
        let what = format!("`disable` is for unix sockets and loopback, and `{}` is neither", route.host);
        fields.problem("tls", &what);
    }
}

fn read_admin(fields: &mut Fields<'_>, connect: Option<&Route>) -> Option<(String, Option<PathBuf>)> {
    if !fields.has("admin") {
        fields.problem("admin", "is missing; write { user = \"...\", password_file = \"...\" }");
    }
    fields.table("admin", |inner| {
        let user = inner.required("user", "the broker's own login");
        let file = inner.text("password_file").map(PathBuf::from);
        if !inner.has("password_file") && connect.is_some_and(|route| !route.is_socket()) {
            inner.problem("password_file", "is missing: only a unix socket can do without");
        }
        Some((user?.to_owned(), file))
    })?
}

fn read_estate(fields: &mut Fields<'_>) -> String {
    let name = fields.text("estate_role").unwrap_or(DEFAULT_ESTATE);
    if let Some(what) = role_problem(name) {
        fields.problem("estate_role", &what);
    }
    name.to_owned()
}

/// Most bytes of a name; PostgreSQL cuts off what is longer without a word.
pub(crate) const MAX_NAME_BYTES: usize = 63;

/// What is wrong with the name of a role.
pub(crate) fn role_problem(name: &str) -> Option<String> {
    match name {
        "" => Some("must not be empty".to_owned()),
        _ if name.len() > MAX_NAME_BYTES => Some(format!("`{name}` is longer than {MAX_NAME_BYTES} bytes")),
        _ if name.contains('\0') => Some("must not hold a NUL".to_owned()),
        _ if name.starts_with("pg_") => Some(format!("`{name}` is one of PostgreSQL's own roles")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({
            "backend": "postgres", "owner": "group:data", "labels": {},
            "connect": { "host": "db1", "dbname": "orders", "sslrootcert": "/ca.pem" },
            "admin": { "user": "leasehold", "password_file": "/run/pw" },
        })
    }

    fn with(path: &str, value: Value) -> Value {
        let mut table = good();
        let (parent, key) = path.rsplit_once('/').unwrap();
        table.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
        table
    }

    fn problems(table: &Value) -> Vec<String> {
        let problems = parse(table.as_object().unwrap()).err().unwrap_or_default();
        problems.into_iter().map(|problem| problem.pointer).collect()
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let settings = parse(good().as_object().unwrap()).unwrap();
        let route = Route { host: "db1".into(), port: 5432, dbname: "orders".into() };
        assert_eq!((&settings.connect, &settings.agents), (&route, &route));
        assert_eq!((settings.tls, settings.agents_tls), (Tls::VerifyFull, Tls::VerifyFull));
        assert_eq!((settings.on_owned, settings.estate_role.as_str()), (OnOwned::Drop, "lh_estate"));
        assert_eq!(settings.scram_iterations, NonZeroU32::MIN);
        assert_eq!((settings.mint_window, settings.limbo_wait), (Span::from_secs(10), Span(250)));
        assert_eq!((settings.pool, settings.accept_superuser), (8, None));
    }

    #[test]
    fn agents_may_go_another_way() {
        let table = with("/agents", json!({ "host": "pgbouncer", "port": 6432 }));
        let settings = parse(table.as_object().unwrap()).unwrap();
        let route = Route { host: "pgbouncer".into(), port: 6432, dbname: "orders".into() };
        assert_eq!((settings.agents, settings.agents_tls), (route, Tls::VerifyFull));
    }

    #[test]
    fn a_unix_socket_needs_neither_tls_nor_a_password() {
        let table = json!({ "connect": { "host": "/run/pg", "dbname": "d" }, "admin": { "user": "u" } });
        let settings = parse(table.as_object().unwrap()).unwrap();
        assert_eq!((settings.tls, settings.password_file), (Tls::Disable, None));
    }

    #[test]
    fn each_problem_is_told_where_it_is() {
        let check = |table: Value, expect: &[&str]| assert_eq!(problems(&table), expect, "{table}");
        check(good(), &[]);
        check(json!({}), &["/connect", "/admin"]);
        check(with("/conect", json!(1)), &["/conect"]);
        check(with("/connect/prot", json!(1)), &["/connect/prot"]);
        check(with("/connect/port", json!(0)), &["/connect/port"]);
        check(with("/connect/port", json!("5432")), &["/connect/port"]);
        check(with("/connect/host", json!("")), &["/connect/host"]);
        check(with("/connect", json!({ "host": "db1" })), &["/connect/dbname"]);
        check(with("/connect", json!({ "host": "db1", "dbname": "d" })), &["/connect/sslrootcert"]);
        check(with("/connect", json!("db1")), &["/connect"]);
        check(with("/tls", json!("disable")), &["/tls"]);
        check(with("/tls", json!("require")), &["/tls"]);
        check(with("/agents", json!({ "tls": "disable" })), &["/agents/tls"]);
        check(with("/admin", json!({ "user": "u" })), &["/admin/password_file"]);
        check(
            with("/admin", json!({ "password_file": "/f", "password": "x" })),
            &["/admin/user", "/admin/password"],
        );
        check(with("/on_owned", json!("hand over")), &["/on_owned"]);
        check(with("/estate_role", json!("pg_monitor")), &["/estate_role"]);
        check(with("/scram_iterations", json!(0)), &["/scram_iterations"]);
        check(with("/limbo_wait", json!("1h")), &["/limbo_wait"]);
        check(with("/mint_window", json!("soon")), &["/mint_window"]);
        check(with("/pool", json!(0)), &["/pool"]);
        check(with("/accept_superuser", json!(true)), &["/accept_superuser"]);
    }

    #[test]
    fn loopback_may_do_without_tls() {
        for host in ["127.0.0.1", "::1", "localhost", "/run/pg"] {
            let mut table = with("/connect", json!({ "host": host, "dbname": "d" }));
            table.as_object_mut().unwrap().insert("tls".to_owned(), json!("disable"));
            assert_eq!(problems(&table), Vec::<String>::new(), "{host}");
        }
    }
}
