//! The demo holds with PostgreSQL and without, fails where a claim does, and dev is what its next lines say.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Output};
use std::time::Duration;

use leasehold::dev::demo::{self, Options};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::site::Site;
use crate::world::eventually;

const PROGRAM: &str = env!("CARGO_BIN_EXE_leasehold");
/// What the story is promised to take at most.
const MINUTE: Duration = Duration::from_secs(60);

async fn tell(options: Options) -> (bool, String) {
    let mut out = Vec::new();
    let program = options.program.clone().or(Some(PROGRAM.into()));
    let code = demo::run(&Options { program, ..options }, &mut out).await;
    let success = format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS);
    (success, String::from_utf8(out).unwrap())
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}

/// The time is not asserted under the load of the whole suite beyond what a person would wait.
#[tokio::test]
async fn the_demo_holds_on_postgresql() {
    let (good, text) = tell(Options::default()).await;
    assert!(good, "{text}");
    assert!(last_line(&text).starts_with("17 of 17 claims checked on PostgreSQL "), "{text}");
}

#[tokio::test]
async fn the_demo_holds_without_postgresql_and_says_what_it_left_out() {
    let (good, text) = tell(Options { without_postgres: true, ..Options::default() }).await;
    assert!(good, "{text}");
    let last = last_line(&text);
    assert!(last.starts_with("15 of 17 claims checked on the memory target in "), "{text}");
    assert!(last.contains("not checked: 6, 10.") && last.contains("apt-get install postgresql"), "{text}");
}

#[tokio::test]
async fn one_chapter_is_told_alone() {
    let (good, text) = tell(Options { only: Some(4), without_postgres: true, ..Options::default() }).await;
    assert!(good && last_line(&text).starts_with("2 of 2 claims"), "{text}");
    let (good, text) = tell(Options { only: Some(9), ..Options::default() }).await;
    assert!(!good && text.contains("chapters 1 to 8"), "{text}");
}

/// A broker that mints something else than it says: its own word would never show it.
#[tokio::test]
async fn the_demo_finds_out_a_broker_that_mints_something_else() {
    let dir = tempfile::tempdir().unwrap();
    let liar = script(dir.path(), "sed -i 's/role = \"orders_reader\"/role = \"stock_reader\"/' \"$4\"");
    let options = Options { only: Some(3), without_postgres: true, program: Some(liar), ..Options::default() };
    let (good, text) = tell(options).await;
    assert!(!good && text.contains("FAILED 4"), "{text}");
    assert!(last_line(&text).contains("failed: 4"), "{text}");
}

#[tokio::test]
async fn a_broker_that_does_not_start_fails_the_demo() {
    let options = Options { without_postgres: true, program: Some("/bin/false".into()), ..Options::default() };
    let (good, text) = tell(options).await;
    assert!(!good && text.contains("the demo cannot go on"), "{text}");
}

/// The program, after something else was done.
fn script(dir: &Path, before: &str) -> PathBuf {
    let path = dir.join("leasehold");
    std::fs::write(&path, format!("#!/bin/sh\n{before}\nexec {PROGRAM} \"$@\"\n")).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

/// `leasehold dev` in a folder of its own.
struct Dev {
    dir: tempfile::TempDir,
    child: Child,
}

impl Dev {
    async fn start(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["dev", "--dir"]).arg(dir.path()).args(options).kill_on_drop(true);
        let out = std::fs::File::create(dir.path().join("out")).unwrap();
        let child = command.stdin(std::process::Stdio::null()).stdout(out).spawn().unwrap();
        let dev = Self { dir, child };
        eventually("dev says what is next", || async { dev.told().contains("audit trace --last") }).await;
        dev
    }

    fn told(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("out")).unwrap()
    }

    /// What a person types next, in a shell that evaluated the exports.
    async fn shell(&self, line: &str) -> Output {
        let dir = self.dir.path().display();
        let script = format!("eval \"$({PROGRAM} dev env triage --dir {dir})\" && {line}");
        Command::new("sh").args(["-c", &script]).output().await.unwrap()
    }

    async fn says(&self, line: &str) -> String {
        let output = self.shell(line).await;
        let (out, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{line}: {out}{complaints}");
        out.into_owned()
    }

    async fn stop(mut self) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).unwrap())).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let ended = tokio::time::timeout(MINUTE, self.child.wait()).await.unwrap().unwrap();
        assert!(ended.success(), "{ended}");
    }
}

#[tokio::test]
async fn dev_in_memory_is_what_its_next_lines_say() {
    let dev = Dev::start(&[]).await;
    let who = dev.says(&format!("{PROGRAM} whoami")).await;
    assert!(who.contains("spiffe://dev.leasehold.test/agent/triage"), "{who}");
    let grants = dev.says(&format!("{PROGRAM} grants")).await;
    assert!(grants.contains("db.read@local"), "{grants}");
    dev.says(&format!("{PROGRAM} exec --lease db.read@local -- true")).await;
    dev.says(&format!("{PROGRAM} audit trace --last")).await;
    dev.stop().await;
}

/// On a database of one's own: what is run is shown, works, is not run twice, and can be taken back as it says.
#[tokio::test]
async fn dev_sets_up_a_database_and_says_how_to_take_it_back() {
    let cluster = Site::cluster().await;
    let url = cluster.superuser_dsn("postgres");
    let dev = Dev::start(&["--postgres", &url, "--yes"]).await;
    let told = dev.told();
    assert!(told.contains("CREATE ROLE leasehold_read NOLOGIN") && told.contains("DROP ROLE leasehold;"), "{told}");
    let user = dev.says(&format!("{PROGRAM} exec --lease db.read@local -- sh -c 'echo $PGUSER'")).await;
    assert!(user.starts_with("lh"), "{user}");
    dev.stop().await;
}
