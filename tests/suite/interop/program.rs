//! A running program that prints a line for each step.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::tools::Prepared;
use crate::world::{PATIENCE, World, read};

/// Dropped, it is killed.
pub(super) struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    work: Option<ChildStdin>,
    log: PathBuf,
}

impl Program {
    /// Starts it as this identity, on the broker of this world.
    pub(super) fn start(tool: &Prepared, world: &World, name: &str) -> Self {
        let (dir, log) = (world.domain.dir(), world.path("program.log"));
        let mut child = Command::new(&tool.program)
            .args(&tool.args)
            .envs(tool.env.iter().cloned())
            .env("SPIFFE_ENDPOINT_SOCKET", (tool.endpoint)(dir, &format!("{name}.sock")))
            .env("LEASEHOLD_ADDR", world.running().agents.to_string())
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let work = child.stdin.take();
        Self { child, lines, work, log }
    }

    /// The words after the name of the step that comes next.
    pub(super) async fn step(&mut self, name: &str) -> Vec<String> {
        let mut words = self.line(name).await;
        while name == "completed" && words.first().is_some_and(|word| word == "renewed") {
            words = self.line(name).await;
        }
        assert_eq!(words.remove(0), name, "{words:?}");
        words
    }

    async fn line(&mut self, name: &str) -> Vec<String> {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("no `{name}` in {PATIENCE:?}: {}", read(&self.log)));
        let line = line.unwrap().unwrap_or_else(|| panic!("it ended before `{name}`: {}", read(&self.log)));
        line.split_whitespace().map(str::to_owned).collect()
    }

    /// Ends its standard input, and so its work.
    pub(super) fn end_work(&mut self) {
        self.work = None;
    }

    /// Waits for a good end.
    pub(super) async fn succeeds(&mut self) {
        let status = timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}: {}", read(&self.log));
    }
}
