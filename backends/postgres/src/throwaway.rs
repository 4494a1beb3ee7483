//! A PostgreSQL of one's own, for tests and the demo: made in a temporary folder, gone when dropped. Never for data.
//!
//! A shell stands between: it ends the server when its own input closes, and so also when this process was killed.

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fmt, fs, io, thread};

use tempfile::TempDir;

/// The superuser of a throwaway server.
pub const SUPERUSER: &str = "postgres";
/// Its password. Nothing that is kept lies behind it.
pub const SUPERUSER_PASSWORD: &str = "throwaway";

const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
/// The server's own, under its folder.
const PID_FILE: &str = "data/postmaster.pid";
/// An account without rights that every system has.
const NOBODY: (u32, u32) = (65_534, 65_534);
/// Nothing has to outlive the server.
const SETTINGS: &str = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nshared_buffers = 32MB\n\
    max_connections = 100\nautovacuum = off\nlog_min_messages = fatal\nlog_connections = off\n";

/// A throwaway server. It runs, unless it was halted.
#[derive(Debug)]
pub struct Cluster {
    keeper: Child,
    /// While it is open, the server lives.
    life: Option<ChildStdin>,
    port: u16,
    socket_dir: PathBuf,
    bin_dir: PathBuf,
    /// Removed last: fields are dropped in order.
    _folder: TempDir,
}

/// Why there is no throwaway server.
#[derive(Debug)]
pub struct ThrowawayError(String);

impl fmt::Display for ThrowawayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ThrowawayError {}

/// Starts a server out of the programs in a folder, e.g. `/usr/lib/postgresql/15/bin`, on a free port of 127.0.0.1 and
/// on a unix socket. It takes seconds; every login needs a password.
///
/// # Errors
/// Where the programs are not there, or the server does not come up within a minute; says what to install.
pub fn start(bin_dir: &Path) -> Result<Cluster, ThrowawayError> {
    check_programs(bin_dir)?;
    let folder = TempDir::with_prefix("leasehold-pg-").map_err(wrong("no temporary folder"))?;
    let account = account(folder.path()).map_err(wrong(HANDED_OVER))?;
    init(bin_dir, folder.path(), account)?;
    Cluster::on(bin_dir, folder, account)
}

const HANDED_OVER: &str = "the temporary folder cannot be handed over";

impl Cluster {
    /// Starts a server on the data that a folder holds.
    fn on(bin_dir: &Path, folder: TempDir, account: Option<(u32, u32)>) -> Result<Self, ThrowawayError> {
        let port = free_port().map_err(wrong("no free port"))?;
        let mut keeper =
            serve(bin_dir, folder.path(), account, port).map_err(wrong("postgres cannot be started"))?;
        let (socket_dir, bin_dir) = (folder.path().to_owned(), bin_dir.to_owned());
        let life = keeper.stdin.take();
        let mut cluster = Self { keeper, life, port, socket_dir, bin_dir, _folder: folder };
        cluster.await_ready()?;
        Ok(cluster)
    }

    /// A copy that follows this server, read-only until somebody promotes it. This server waits for it once its
    /// `synchronous_standby_names` says so.
    ///
    /// # Errors
    /// Where the copy cannot be made or does not come up.
    pub fn standby(&self) -> Result<Self, ThrowawayError> {
        let wrong = wrong("the server cannot be copied");
        let folder = TempDir::with_prefix("leasehold-pg-").map_err(&wrong)?;
        let account = account(folder.path()).map_err(&wrong)?;
        let copied = program(&self.bin_dir, "pg_basebackup", folder.path(), account)
            .args(["-h", "127.0.0.1", "-U", SUPERUSER, "-X", "stream", "-c", "fast", "--no-sync", "-R"])
            .args(["-p", &self.port.to_string(), "-D"])
            .arg(folder.path().join("data"))
            .env("PGPASSWORD", SUPERUSER_PASSWORD)
            .output()
            .map_err(&wrong)?;
        if !copied.status.success() {
            return Err(wrong(io::Error::other(String::from_utf8_lossy(&copied.stderr))));
        }
        Self::on(&self.bin_dir, folder, account)
    }

    /// Ends the server and all of its sessions at once, as `pg_ctl stop -m immediate` does. What it has written stays.
    ///
    /// # Errors
    /// Where it does not end.
    pub fn halt(&mut self) -> Result<(), ThrowawayError> {
        fs::write(self.halted(), "").map_err(wrong("the server cannot be halted"))?;
        self.signal("QUIT", &[self.server()?])?;
        let (server, deadline) = (self.socket_dir.join("server"), Instant::now() + STOP);
        while server.exists() {
            if Instant::now() > deadline {
                return Err(ThrowawayError(format!("postgres did not stop within {STOP:?}")));
            }
            thread::sleep(LOOK);
        }
        // What it may have left would look like one that is ready.
        _ = fs::remove_file(self.socket_dir.join(PID_FILE));
        Ok(())
    }

    /// Starts a server that was halted, on the same port.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn resume(&mut self) -> Result<(), ThrowawayError> {
        fs::remove_file(self.halted()).map_err(wrong("the server was not halted"))?;
        self.await_ready()
    }

    /// Stops the server and all of its sessions where they are, as a machine that hangs: connections stay open, and
    /// nobody answers.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn freeze(&self) -> Result<(), ThrowawayError> {
        let server = self.server()?;
        // The server first, so that it starts no more sessions while they are listed.
        self.signal("STOP", &[server])?;
        self.signal("STOP", &children(server))
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn thaw(&self) -> Result<(), ThrowawayError> {
        let server = self.server()?;
        self.signal("CONT", &children(server))?;
        self.signal("CONT", &[server])
    }

    /// While it is there, the keeper does not start the server again.
    fn halted(&self) -> PathBuf {
        self.socket_dir.join("halted")
    }

    fn server(&self) -> Result<u32, ThrowawayError> {
        let text = fs::read_to_string(self.socket_dir.join("server"));
        let text = text.map_err(wrong("postgres does not run"))?;
        text.trim().parse().map_err(|_| ThrowawayError(format!("`{}` is no process id", text.trim())))
    }

    fn signal(&self, signal: &str, processes: &[u32]) -> Result<(), ThrowawayError> {
        if processes.is_empty() {
            return Ok(());
        }
        // A session may have ended meanwhile, which is no failure.
        let script = "signal=$1; shift; kill -s \"$signal\" \"$@\" 2>/dev/null; exit 0";
        let mut command = program(Path::new("/bin"), "sh", &self.socket_dir, None);
        command.args(["-c", script, "kill", signal]).args(processes.iter().map(u32::to_string));
        command.status().map(drop).map_err(wrong("no signal can be sent"))
    }

    /// The folder of the unix socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The port, on 127.0.0.1 and in the name of the unix socket.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// A connection string for the superuser and a database, e.g. `postgres`.
    #[must_use]
    pub fn superuser_dsn(&self, dbname: &str) -> String {
        let port = self.port;
        format!("host=127.0.0.1 port={port} user={SUPERUSER} password={SUPERUSER_PASSWORD} dbname={dbname}")
    }

    /// The server writes its process file in full once it takes logins.
    fn await_ready(&mut self) -> Result<(), ThrowawayError> {
        let deadline = Instant::now() + START;
        let pid_file = self.socket_dir.join(PID_FILE);
        while Instant::now() < deadline {
            if fs::read_to_string(&pid_file).is_ok_and(|text| text.lines().any(|line| line.trim() == "ready"))
            {
                return Ok(());
            }
            if let Ok(Some(status)) = self.keeper.try_wait() {
                let log = fs::read_to_string(self.socket_dir.join("log")).unwrap_or_default();
                return Err(ThrowawayError(format!("postgres ended with {status}: {log}")));
            }
            thread::sleep(LOOK);
        }
        Err(ThrowawayError(format!("postgres was not ready within {START:?}")))
    }

    /// The keeper ends the server at once, frozen or not, which loses nothing that anybody wants.
    fn stop(&mut self) {
        drop(self.life.take());
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline {
            if matches!(self.keeper.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            thread::sleep(LOOK);
        }
        _ = self.keeper.kill();
        _ = self.keeper.wait();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

fn wrong(what: &'static str) -> impl Fn(io::Error) -> ThrowawayError {
    move |error| ThrowawayError(format!("{what}: {error}"))
}

fn check_programs(bin_dir: &Path) -> Result<(), ThrowawayError> {
    let missing = ["initdb", "postgres"].into_iter().find(|program| !bin_dir.join(program).is_file());
    let Some(program) = missing else { return Ok(()) };
    let dir = bin_dir.display();
    Err(ThrowawayError(format!(
        "no `{program}` in `{dir}`; install it, e.g. `apt-get install postgresql-15`"
    )))
}

/// PostgreSQL refuses to run as root: then the folder is handed to an account without rights.
fn account(folder: &Path) -> io::Result<Option<(u32, u32)>> {
    if fs::metadata(folder)?.uid() != 0 {
        return Ok(None);
    }
    chown(folder, Some(NOBODY.0), Some(NOBODY.1))?;
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    Ok(Some(NOBODY))
}

fn init(bin_dir: &Path, folder: &Path, account: Option<(u32, u32)>) -> Result<(), ThrowawayError> {
    let wrong = wrong("initdb failed");
    let password = folder.join("password");
    fs::write(&password, SUPERUSER_PASSWORD).map_err(&wrong)?;
    let done = program(bin_dir, "initdb", folder, account)
        .args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"])
        .args(["--username", SUPERUSER, "--pwfile"])
        .arg(&password)
        .arg("--pgdata")
        .arg(folder.join("data"))
        .output()
        .map_err(&wrong)?;
    if !done.status.success() {
        return Err(ThrowawayError(format!("initdb failed: {}", String::from_utf8_lossy(&done.stderr))));
    }
    let config = File::options().append(true).open(folder.join("data/postgresql.conf"));
    config.and_then(|mut file| file.write_all(SETTINGS.as_bytes())).map_err(wrong)
}

/// Starts the server, again after each halt, and ends it and removes its folder when the input closes or the server is
/// gone by itself.
const KEEPER: &str = r#"
(cat >/dev/null; : >"$2/over"; read -r pid <"$2/server" && kill -QUIT $pid; kill -CONT $pid) <&3 2>/dev/null & watch=$!
while [ ! -e "$2/over" ]; do
    "$1" -D "$2/data" -k "$2" -h 127.0.0.1 -p "$3" & server=$!
    echo $server >"$2/server"
    [ -e "$2/over" ] && kill -QUIT $server
    wait $server; status=$?
    # Looked at first: whoever halted it goes on, and may resume it, as soon as the process file is gone.
    [ -e "$2/halted" ] && again=yes || again=no
    rm -f "$2/server"
    [ $again = yes ] || break
    while [ -e "$2/halted" ] && [ ! -e "$2/over" ]; do sleep 0.05; done
done
kill $watch 2>/dev/null
rm -rf "$2" 2>/dev/null
exit $status
"#;

fn serve(bin_dir: &Path, folder: &Path, account: Option<(u32, u32)>, port: u16) -> io::Result<Child> {
    let log = File::create(folder.join("log"))?;
    let script = format!("exec 3<&0 </dev/null{KEEPER}");
    program(Path::new("/bin"), "sh", folder, account)
        .args(["-c", &script, "keeper"])
        .arg(bin_dir.join("postgres"))
        .arg(folder)
        .arg(port.to_string())
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
}

fn program(bin_dir: &Path, name: &str, folder: &Path, account: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(bin_dir.join(name));
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C");
    if let Some((uid, gid)) = account {
        command.uid(uid).gid(gid);
    }
    command
}

/// The processes that one has started.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// `pid (name) state parent ...`, where the name may hold anything.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

/// A port that nobody has now. Somebody may take it before the server does; then the server ends and says so.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_are_told_with_what_to_install() {
        let told = start(Path::new("/nowhere/bin")).unwrap_err().to_string();
        assert!(told.contains("`initdb` in `/nowhere/bin`") && told.contains("postgresql-15"), "{told}");
    }
}
