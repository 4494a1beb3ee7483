//! A person's terminal: the program itself, with folders and an environment of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use super::issuer::Provider;

/// What one command may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Terminal {
    pub(crate) dir: TempDir,
    pub(crate) env: Vec<(&'static str, String)>,
}

/// A command that runs.
pub(crate) struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    err: String,
}

/// A command that has ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Terminal {
    /// One whose `client.toml` names the provider.
    pub(crate) fn new(provider: &Provider) -> Self {
        Self::at(&provider.url, &provider.ca)
    }

    /// One whose `client.toml` names the issuer of this URL.
    pub(crate) fn at(url: &str, ca: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config/leasehold");
        std::fs::create_dir_all(&config).unwrap();
        let text = format!(
            "issuer = \"{url}\"\nclient_id = \"leasehold\"\nca_file = \"{}\"\nscopes = [\"groups\"]\n",
            ca.display()
        );
        std::fs::write(config.join("client.toml"), text).unwrap();
        Self { dir, env: Vec::new() }
    }

    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
        let path = |name: &str| self.dir.path().join(name);
        command.args(args).env_clear().env("HOME", self.dir.path());
        command.env("XDG_CONFIG_HOME", path("config")).env("XDG_STATE_HOME", path("state"));
        command.env("LEASEHOLD_ADMIN_ADDR", format!("unix:{}", path("nobody.sock").display()));
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Running { child, lines, err: String::new() }
    }

    /// The files of all sessions.
    pub(crate) fn sessions(&self) -> Vec<PathBuf> {
        let Ok(folder) = std::fs::read_dir(self.dir.path().join("state/leasehold/sessions")) else {
            return Vec::new();
        };
        let files = folder.map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|word| word == "json")).collect()
    }

    /// The one session, as it lies there.
    pub(crate) fn session(&self) -> String {
        let [file] = &self.sessions()[..] else { panic!("not one session") };
        std::fs::read_to_string(file).unwrap()
    }
}

impl Running {
    /// What stands behind these words in the first line of the error stream that has them.
    pub(crate) async fn reads(&mut self, words: &str) -> String {
        let look = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                self.err.push_str(&format!("{line}\n"));
                if let Some((_, rest)) = line.split_once(words) {
                    return rest.to_owned();
                }
            }
            panic!("it never said `{words}`: {}", self.err)
        };
        timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("no `{words}` in time"))
    }

    pub(crate) async fn ends(mut self) -> Ended {
        let end = async {
            let mut out = String::new();
            self.child.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
            while let Some(line) = self.lines.next_line().await.unwrap() {
                self.err.push_str(&format!("{line}\n"));
            }
            Ended { code: self.child.wait().await.unwrap().code(), out, err: self.err }
        };
        timeout(PATIENCE, end).await.expect("the command does not end")
    }

    /// The report of a command that succeeds.
    pub(crate) async fn succeeds(self) -> String {
        let ended = self.ends().await;
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        ended.out
    }
}
