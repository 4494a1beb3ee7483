//! The demo holds with PostgreSQL and without, fails where a claim does, and dev is what its next lines say.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Output, Stdio};
use std::time::Duration;

use leasehold::dev::demo::{self, Options};
use leasehold_postgres::throwaway;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

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
    let (good, text) = tell(Options { pg_bin: Some(pg_bin()), ..Options::default() }).await;
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
    let options =
        Options { only: Some(3), without_postgres: true, program: Some(liar), ..Options::default() };
    let (good, text) = tell(options).await;
    assert!(!good && text.contains("FAILED 4"), "{text}");
    assert!(last_line(&text).contains("failed: 4"), "{text}");
}

#[tokio::test]
async fn a_broker_that_does_not_start_fails_the_demo() {
    let options =
        Options { without_postgres: true, program: Some("/bin/false".into()), ..Options::default() };
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

/// `leasehold dev` in a folder.
struct Dev<'a> {
    dir: &'a Path,
    child: Child,
}

impl<'a> Dev<'a> {
    async fn start_in(dir: &'a Path, options: &[&str]) -> Self {
        let out = std::fs::File::create(dir.join("out")).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["dev", "--dir"]).arg(dir).args(options).stdin(Stdio::null()).stdout(out);
        let mut dev = Self { dir, child: command.kill_on_drop(true).spawn().unwrap() };
        for _ in 0..1500 {
            if dev.told().contains("audit trace --last") {
                return dev;
            }
            assert_eq!(dev.child.try_wait().unwrap(), None, "dev ended: {}", dev.told());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("dev never said what is next: {}", dev.told());
    }

    fn told(&self) -> String {
        std::fs::read_to_string(self.dir.join("out")).unwrap()
    }

    /// What a person types next, in a shell that evaluated the exports.
    async fn shell(&self, line: &str) -> Output {
        let dir = self.dir.display();
        let script = format!("eval \"$({PROGRAM} dev env triage --dir {dir})\" && {line}");
        Command::new("sh").args(["-c", &script]).output().await.unwrap()
    }

    async fn says(&self, line: &str) -> String {
        let output = self.shell(line).await;
        let (out, complaints) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
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
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start_in(dir.path(), &[]).await;
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
    let cluster = throwaway::start(&pg_bin()).unwrap();
    let root = login(&cluster.superuser_dsn("postgres")).await;
    root.batch_execute("CREATE TABLE app AS SELECT 7 AS n").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = ["--postgres", &cluster.superuser_dsn("postgres"), "--yes"];
    let dev = Dev::start_in(dir.path(), &options).await;
    let told = dev.told();
    assert!(
        told.contains("CREATE ROLE leasehold_read NOLOGIN") && told.contains("DROP ROLE leasehold;"),
        "{told}"
    );
    let user = dev.says(&format!("{PROGRAM} exec --lease db.read@local -- sh -c 'echo $PGUSER'")).await;
    assert!(user.starts_with("lh"), "{user}");
    dev.stop().await;
    let dev = Dev::start_in(dir.path(), &options).await;
    assert!(!dev.told().contains("CREATE ROLE"), "set up twice: {}", dev.told());
    dev.says(&format!("{PROGRAM} exec --lease db.read@local -- true")).await;
    dev.stop().await;
    let (_, undo) = told.split_once("no lease is left:\n").unwrap();
    let undo: String = undo.lines().take_while(|line| line.starts_with("  DROP ")).collect();
    // A session of the broker that has just ended may still hold what it made for itself.
    eventually("the roles can be taken back", || async { root.batch_execute(&undo).await.is_ok() }).await;
    let left = root.query("SELECT FROM pg_roles WHERE rolname ~ '^(leasehold|lh)'", &[]).await.unwrap();
    assert_eq!(left.len(), 0);
}

fn pg_bin() -> PathBuf {
    std::env::var_os("LEASEHOLD_PG_BIN").map_or_else(|| "/usr/lib/postgresql/15/bin".into(), PathBuf::from)
}

async fn login(dsn: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(dsn, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Nobody is asked where there is no terminal, and then nothing is run.
#[tokio::test]
async fn dev_touches_no_database_without_a_yes() {
    let cluster = throwaway::start(&pg_bin()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let dsn = cluster.superuser_dsn("postgres");
    let command = Command::new(PROGRAM)
        .args(["dev", "--postgres", &dsn, "--dir"])
        .arg(dir.path())
        .stdin(Stdio::null())
        .output();
    let output = command.await.unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && complaint.contains("nothing was run"), "{complaint}");
    let made =
        login(&dsn).await.query("SELECT FROM pg_roles WHERE rolname ~ '^leasehold'", &[]).await.unwrap();
    assert_eq!(made.len(), 0);
}
