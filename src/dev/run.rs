//! `leasehold dev`: a trust domain and a broker in one process and one folder, on loopback, for developing.

mod config;
#[cfg(feature = "postgres")]
mod database;

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

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
    /// No such identity.
    #[error("there is no dev identity `{name}`: there is {known}")]
    NoIdentity {
        /// As given.
        name: String,
        /// What there is instead.
        known: String,
    },
    /// Dev does not run.
    #[error("nobody serves in {dir}: start `leasehold dev` first", dir = dir.display())]
    NotServing {
        /// Where it was looked for.
        dir: PathBuf,
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
            | Self::NoIdentity { .. }
            | Self::NotServing { .. } => 1,
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

/// How long one look at a broker may take, and the rest between two.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

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

/// What a shell evaluates to become one of the dev identities. A dev that is just starting is waited for, and `out` is
/// told so.
///
/// # Errors
/// Where dev serves no such identity, or does not serve in that folder within `patience`.
pub async fn env(
    name: &str,
    dir: Option<&Path>,
    patience: Duration,
    out: &mut dyn Write,
) -> Result<String, RunError> {
    let dir = folder(dir)?;
    if !served().any(|known| known == name) {
        return Err(RunError::NoIdentity {
            name: name.to_owned(),
            known: served().collect::<Vec<_>>().join(", "),
        });
    }
    let socket = dir.join("dev").join(format!("{name}.sock"));
    let address = match serving(&dir, &socket).await {
        Some(address) => address,
        None => {
            // Nobody may be left to hear it.
            drop(writeln!(out, "leasehold: waiting for `leasehold dev` in {}", dir.display()));
            until_serving(&dir, &socket, patience).await.ok_or(RunError::NotServing { dir: dir.clone() })?
        }
    };
    let exports = [
        ("SPIFFE_ENDPOINT_SOCKET", format!("unix:{}", socket.display())),
        ("LEASEHOLD_ADDR", address),
        ("LEASEHOLD_ADMIN_ADDR", format!("unix:{}", dir.join("admin/admin.sock").display())),
    ];
    Ok(exports.iter().map(|(key, value)| format!("export {key}={}\n", quoted(value))).collect())
}

/// Who can be become: everybody but the broker.
fn served() -> impl Iterator<Item = &'static str> {
    IDENTITIES.into_iter().map(|(name, _)| name).skip(1)
}

/// The address of the agents' door, once somebody answers there. Files alone say nothing: a dev that is gone left them.
async fn serving(dir: &Path, socket: &Path) -> Option<String> {
    let address = std::fs::read_to_string(dir.join(ADDRESS)).ok()?.trim().to_owned();
    let answer = tokio::time::timeout(LOOK, TcpStream::connect(&address)).await;
    (socket.exists() && matches!(answer, Ok(Ok(_)))).then_some(address)
}

async fn until_serving(dir: &Path, socket: &Path, patience: Duration) -> Option<String> {
    let look = async {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            if let Some(address) = serving(dir, socket).await {
                return address;
            }
        }
    };
    tokio::time::timeout(patience, look).await.ok()
}

/// For a shell: nothing in it means anything.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
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

    const PATIENCE: Duration = Duration::from_secs(30);

    /// What `dev env triage` says of a dev that begins to serve while it is asked.
    async fn asked_too_early(dir: &Path) -> (String, String) {
        let mut noted = Vec::new();
        let starting = async {
            tokio::task::yield_now().await;
            let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            std::fs::create_dir_all(dir.join("dev")).unwrap();
            std::fs::write(dir.join("dev/triage.sock"), "").unwrap();
            std::fs::write(dir.join(ADDRESS), format!("{}\n", door.local_addr().unwrap())).unwrap();
            door
        };
        let (exports, _door) = tokio::join!(env("triage", Some(dir), PATIENCE, &mut noted), starting);
        (exports.unwrap(), String::from_utf8(noted).unwrap())
    }

    #[tokio::test]
    async fn a_dev_that_is_starting_is_waited_for_and_its_exports_can_be_evaluated() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("it's here");
        let (exports, noted) = asked_too_early(&at).await;
        assert!(noted.starts_with("leasehold: waiting for `leasehold dev` in "), "{noted}");
        let script = format!("{exports}printf %s \"$SPIFFE_ENDPOINT_SOCKET $LEASEHOLD_ADDR\"");
        let told = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let address = std::fs::read_to_string(at.join(ADDRESS)).unwrap();
        let expect = format!("unix:{}/dev/triage.sock {}", at.display(), address.trim());
        assert_eq!(String::from_utf8(told.stdout).unwrap(), expect);
    }

    #[tokio::test]
    async fn an_identity_that_is_not_there_is_told_with_those_that_are() {
        let dir = tempfile::tempdir().unwrap();
        let check = async |name: &str, expect: &str| {
            let told =
                env(name, Some(dir.path()), Duration::ZERO, &mut Vec::new()).await.unwrap_err().to_string();
            assert!(told.contains(expect), "{told}");
        };
        check("triage", "start `leasehold dev` first").await;
        // What a dev that is gone left behind is no dev.
        std::fs::write(dir.path().join(ADDRESS), "127.0.0.1:1").unwrap();
        check("triage", "start `leasehold dev` first").await;
        check("nobody", "there is triage, report, operator").await;
        check("../triage", "no dev identity").await;
    }
}
