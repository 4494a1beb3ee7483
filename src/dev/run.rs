//! `leasehold dev`: a trust domain and a broker in one process and one folder, on loopback, for developing.

mod config;
#[cfg(feature = "postgres")]
mod database;

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::DevError;
use super::trust_domain::{DEFAULT_TTL, DevIdentity, DevTrustDomain};
use crate::clock::{SystemTime, TimeSource};
use crate::config::{KeyError, KeyKind, Trust, write_installation_key};
use crate::server::{self, Start, StartError};
use config::{ADDRESS, CONFIG, Target};

/// How dev is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A database on this host to lease on, as its superuser reaches it; the memory target otherwise.
    pub postgres: Option<String>,
    /// Where everything is kept; `$XDG_STATE_HOME/leasehold/dev` otherwise.
    pub dir: Option<PathBuf>,
    /// Sets the database up without asking.
    pub yes: bool,
}

/// Why dev does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no folder to be in.
    #[error("there is no folder for dev: give `--dir`, or set XDG_STATE_HOME or HOME")]
    NoFolder,
    /// A file or folder is in the way.
    #[error("`{path}`: {error}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// Nothing can be said any more.
    #[error("the standard output is gone: {0}")]
    Output(io::Error),
    /// The signals cannot be listened for.
    #[error("cannot wait for a signal: {0}")]
    Signal(io::Error),
    /// The trust domain.
    #[error(transparent)]
    TrustDomain(#[from] DevError),
    /// The installation key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The broker.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The database, or the answer to the question whether to set it up.
    #[error("{0}")]
    Database(String),
    /// No such identity, or dev does not run.
    #[error("there is no dev identity `{name}` in {dir}: {known}", dir = dir.display())]
    NoIdentity {
        /// As given.
        name: String,
        /// Where it was looked for.
        dir: PathBuf,
        /// What there is instead.
        known: String,
    },
}

impl RunError {
    /// The exit code: 78 for bad config (sysexits.h), 1 for everything else.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Start(error) => error.exit_code(),
            Self::NoFolder
            | Self::Io { .. }
            | Self::Output(_)
            | Self::Signal(_)
            | Self::TrustDomain(_)
            | Self::Key(_)
            | Self::Database(_)
            | Self::NoIdentity { .. } => 1,
        }
    }
}

/// The dev trust domain.
const DOMAIN: &str = "dev.leasehold.test";
/// Who is served, and as what: agents, and an operator for tools that speak TLS.
const IDENTITIES: [(&str, &str); 4] = [
    ("leasehold", "/leasehold"),
    ("triage", "/agent/triage"),
    ("report", "/agent/report"),
    ("operator", "/operator/admin"),
];

/// Runs until a signal says to stop.
///
/// # Errors
/// Whatever stands in the way, before anything is served.
pub async fn dev(options: &Options, out: &mut dyn Write) -> Result<(), RunError> {
    server::harden();
    let dir = folder(options.dir.as_deref())?;
    for folder in [dir.clone(), dir.join("conf.d")] {
        make_private(&folder).map_err(|error| RunError::Io { path: folder, error })?;
    }
    let target = target(options, &dir, out).await?;
    let (domain, identities) = trust_domain(&dir).await?;
    make_key(&dir.join("installation.key"))?;
    config::write(&dir, &target).map_err(|(path, error)| RunError::Io { path, error })?;
    let running = server::start(&dir.join(CONFIG), Start::on_host(Trust::Dev)).await?;
    greet(&dir, &target, running.agents, out).map_err(RunError::Output)?;
    server::stop_signal().await.map_err(RunError::Signal)?;
    running.stop().await;
    drop((identities, domain));
    Ok(())
}

/// What a shell evaluates to become one of the dev identities.
///
/// # Errors
/// Where dev has not served that identity in that folder.
pub fn env(name: &str, dir: Option<&Path>) -> Result<String, RunError> {
    let dir = folder(dir)?;
    let socket = dir.join("dev").join(format!("{name}.sock"));
    let address = std::fs::read_to_string(dir.join(ADDRESS));
    let plain = !name.contains('/') && socket.exists();
    let (true, Ok(address)) = (plain, address) else { return Err(no_identity(name, dir)) };
    let exports = [
        ("SPIFFE_ENDPOINT_SOCKET", format!("unix:{}", socket.display())),
        ("LEASEHOLD_ADDR", address.trim().to_owned()),
        ("LEASEHOLD_ADMIN_ADDR", format!("unix:{}", dir.join("admin/admin.sock").display())),
    ];
    Ok(exports.iter().map(|(key, value)| format!("export {key}={}\n", quoted(value))).collect())
}

/// For a shell: nothing in it means anything.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn no_identity(name: &str, dir: PathBuf) -> RunError {
    let known: Vec<_> = IDENTITIES.iter().skip(1).map(|(name, _)| *name).collect();
    let known = match dir.join(ADDRESS).exists() {
        true => format!("it serves {}", known.join(", ")),
        false => "start `leasehold dev` first".to_owned(),
    };
    RunError::NoIdentity { name: name.to_owned(), dir, known }
}

/// The folder asked for, or the one of this user; absolute, since others are told of it.
fn folder(asked: Option<&Path>) -> Result<PathBuf, RunError> {
    let found = asked.map(Path::to_owned).or_else(own_folder).ok_or(RunError::NoFolder)?;
    std::path::absolute(&found).map_err(|error| RunError::Io { path: found, error })
}

/// XDG Base Directory Specification 0.8: state is what outlives a restart and is worth no backup.
fn own_folder() -> Option<PathBuf> {
    let set = |key: &str| std::env::var_os(key).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    Some(state.join("leasehold/dev"))
}

fn make_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(feature = "postgres")]
async fn target(options: &Options, dir: &Path, out: &mut dyn Write) -> Result<Target, RunError> {
    match &options.postgres {
        Some(url) => database::set_up(url, dir, options.yes, out).await,
        None => Ok(Target::Memory),
    }
}

#[cfg(not(feature = "postgres"))]
async fn target(options: &Options, _: &Path, _: &mut dyn Write) -> Result<Target, RunError> {
    match options.postgres {
        Some(_) => Err(RunError::Database("this build has no PostgreSQL in it".to_owned())),
        None => Ok(Target::Memory),
    }
}

async fn trust_domain(dir: &Path) -> Result<(DevTrustDomain, Vec<DevIdentity>), RunError> {
    let now: crate::identity::Now = Arc::new(|| SystemTime.wall());
    let domain = DevTrustDomain::open(&dir.join("dev"), DOMAIN, DEFAULT_TTL, now)?;
    let mut identities = Vec::new();
    for (name, path) in IDENTITIES {
        identities.push(domain.serve(name, path).await?);
    }
    Ok((domain, identities))
}

fn make_key(path: &Path) -> Result<(), RunError> {
    if path.exists() {
        return Ok(());
    }
    Ok(write_installation_key(path, KeyKind::Dev, server::entropy().as_ref())?)
}

fn greet(dir: &Path, target: &Target, agents: std::net::SocketAddr, out: &mut dyn Write) -> io::Result<()> {
    let at = if dir == own_folder().unwrap_or_default() {
        String::new()
    } else {
        format!(" --dir {}", quoted(&dir.display().to_string()))
    };
    writeln!(out, "leasehold dev: agents on {agents}, operators on unix:{}/admin/admin.sock", dir.display())?;
    writeln!(out, "  target `local`: {target}; grant db.read@local for triage and report")?;
    writeln!(
        out,
        "  config {}/{CONFIG}, written at each start; put your own into {}/conf.d/*.toml",
        dir.display(),
        dir.display()
    )?;
    writeln!(out, "next, in another shell:")?;
    writeln!(out, "  eval \"$(leasehold dev env triage{at})\"")?;
    writeln!(out, "  leasehold whoami && leasehold grants")?;
    writeln!(out, "  leasehold exec --lease db.read@local -- {}", target.example())?;
    writeln!(out, "  leasehold audit trace --last")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_can_be_evaluated() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("it's here");
        std::fs::create_dir_all(at.join("dev")).unwrap();
        std::fs::write(at.join("dev/triage.sock"), "").unwrap();
        std::fs::write(at.join(ADDRESS), "127.0.0.1:8443\n").unwrap();
        let script = format!(
            "{}printf %s \"$SPIFFE_ENDPOINT_SOCKET $LEASEHOLD_ADDR\"",
            env("triage", Some(&at)).unwrap()
        );
        let told = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let expect = format!("unix:{}/dev/triage.sock 127.0.0.1:8443", at.display());
        assert_eq!(String::from_utf8(told.stdout).unwrap(), expect);
    }

    #[test]
    fn an_identity_that_is_not_there_is_told_with_those_that_are() {
        let dir = tempfile::tempdir().unwrap();
        let check = |name: &str, expect: &str| {
            let told = env(name, Some(dir.path())).unwrap_err().to_string();
            assert!(told.contains(expect), "{told}");
        };
        check("triage", "start `leasehold dev` first");
        std::fs::write(dir.path().join(ADDRESS), "127.0.0.1:1").unwrap();
        check("nobody", "it serves triage, report, operator");
        check("../triage", "no dev identity");
    }
}
