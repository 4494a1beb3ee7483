//! The process: hardened, private, stopped by a signal, and choosy about what it starts on (RULES ).

use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold::clock::{Clock, SystemTime};
use leasehold::config::{KeyKind, write_installation_key};
use leasehold::entropy::SystemEntropy;
use rustix::process::Signal;

use crate::child::{PAIR, Rig, serve};
use crate::proxy::{Hold, Wire};
use crate::site::{Site, login, login_config, works};
use crate::world::eventually;

/// An account without rights that every system has.
const NOBODY: u32 = 65_534;

async fn rig() -> Rig {
    let site = Site::shared();
    Rig::new(site, site.port()).await
}

/// Whose a process is in /proc: root's, where it may not be dumped, and else its own user's.
fn owner(pid: u32) -> u32 {
    std::fs::metadata(format!("/proc/{pid}/maps")).unwrap().uid()
}

/// How large a core file may be: now, and at most.
fn core_limits(pid: u32) -> Vec<String> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    core.split_whitespace().take(2).map(str::to_owned).collect()
}

/// Only another user's process shows whether it may be dumped, so root starts it as nobody.
fn as_another(command: &mut Command) -> &mut Command {
    if rustix::process::getuid().is_root() { command.uid(NOBODY).gid(NOBODY) } else { command }
}

fn give_away(path: &Path) {
    if !rustix::process::getuid().is_root() {
        return;
    }
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| give_away(&entry.unwrap().path()));
    }
}

#[tokio::test]
async fn the_process_leaves_no_core_and_cannot_be_dumped() {
    let mut rig = rig().await;
    let config = rig.world.write_config(&rig.setup);
    give_away(rig.world.dir.path());
    rig.spawn_with(as_another(serve(&config).arg("--dev-trust")));
    eventually("it is hardened", || async { owner(rig.pid()) == 0 }).await;
    assert_eq!(core_limits(rig.pid()), ["0", "0"]);

    let mut other = as_another(Command::new("sleep").arg("60")).spawn().unwrap();
    let others = (owner(other.id()), core_limits(other.id()));
    other.kill().unwrap();
    other.wait().unwrap();
    assert_ne!(others.0, 0, "the look at /proc proves nothing");
    assert_ne!(
        others.1,
        ["0", "0"],
        "no process has core files here: `ulimit -c unlimited` lets this test prove something"
    );
}

#[tokio::test]
async fn files_and_sockets_are_private() {
    let mut rig = rig().await;
    rig.start(&[]).await;
    let mut agent = rig.agent().await;
    let task = agent.open(&[PAIR]).await.unwrap();
    let check = |path: &Path, expect: u32| {
        let mode = std::fs::symlink_metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode, expect, "{} has {mode:04o}", path.display());
    };
    for folder in ["store", "admin"] {
        check(&rig.world.path(folder), 0o700);
        let inside = std::fs::read_dir(rig.world.path(folder)).unwrap().map(|entry| entry.unwrap().path());
        let inside: Vec<_> = inside.collect();
        assert!(!inside.is_empty(), "{folder} is empty");
        inside.iter().for_each(|path| check(path, 0o600));
    }
    check(&rig.world.path("store/leases.db-wal"), 0o600);
    agent.complete(&task).await.unwrap();
}

/// What is under way ends, its answer arrives, and the exit is clean.
#[tokio::test]
async fn a_signal_drains() {
    let site = Site::shared();
    let wire = Wire::lay(site.port()).await;
    let mut rig = Rig::new(site, wire.port).await;
    rig.start(&[]).await;
    let mut agent = rig.agent().await;
    let task = agent.open(&[PAIR]).await.unwrap();
    wire.hold(Hold::Answer("SCRAM-SHA-256$"));
    let minting = tokio::spawn(async move { agent.lease(&task, PAIR).await });
    wire.holds().await;
    let asked = Instant::now();
    rig.signal(Signal::TERM);
    eventually("it heard", || async { rig.log().contains("stopping") }).await;
    wire.let_go();
    let granted = minting.await.unwrap().unwrap();
    assert!(works(&login(&login_config(&granted.credential.unwrap())).await.unwrap()).await);
    assert_eq!(rig.exit().await.code(), Some(0), "{}", rig.log());
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    // The role of a lease that was answered lives on: the next start has it on its books.
    rig.start(&[]).await;
    let lease = rig.leases().await.remove(0);
    assert_eq!(site.roles(&rig.mark).await, [lease.principal]);
    let mut agent = rig.agent().await;
    let ended = agent.tasks.complete_task(leasehold_proto::v1::CompleteTaskRequest {
        task: lease.task,
        wait: crate::world::seconds(20),
    });
    assert_eq!(ended.await.unwrap().into_inner().pending, Vec::<String>::new());
}

#[tokio::test]
async fn an_idle_broker_stops_at_once_for_either_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut rig = rig().await;
        rig.start(&[]).await;
        let asked = Instant::now();
        rig.signal(signal);
        assert_eq!(rig.exit().await.code(), Some(0));
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    }
}

/// Edits the config, serves on it, and gives the exit code and what was said.
async fn refused(rig: &mut Rig, args: &[&str], edits: &[(&str, &str)]) -> (Option<i32>, String) {
    for (from, to) in edits {
        assert!(rig.setup.config.contains(from), "no {from}");
        rig.setup.config = rig.setup.config.replace(from, to);
    }
    let config = rig.world.write_config(&rig.setup);
    rig.spawn_with(serve(&config).args(args));
    (rig.exit().await.code(), rig.log())
}

#[tokio::test]
async fn bad_config_ends_with_78_and_tells_every_problem_with_its_place() {
    let edits = [
        ("agents = \"127.0.0.1:0\"", "agents = \"nowhere\""),
        ("class = \"read-only\"", "class = \"harmless\""),
        ("owner = \"person:ana\"", "owner = \"person:nobody\""),
    ];
    let mut rig = rig().await;
    let (code, said) = refused(&mut rig, &["--dev-trust"], &edits).await;
    assert_eq!(code, Some(78), "{said}");
    for word in ["nowhere", "harmless", "nobody"] {
        let place = said.lines().any(|line| line.contains(word) && line.contains("leasehold.toml:"));
        assert!(place, "{word}: {said}");
    }
    assert!(!rig.world.path("store").exists() && !rig.world.path("admin").exists(), "it began all the same");
}

const DEV: &str = "suite.leasehold.test";
const REAL: &str = "prod.example";

#[tokio::test]
async fn a_dev_trust_domain_needs_the_flag() {
    let (code, said) = refused(&mut rig().await, &[], &[]).await;
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains(DEV) && said.contains("--dev-trust"), "{said}");
}

#[tokio::test]
async fn the_memory_target_needs_the_flag() {
    let table = "[targets.toy]\nbackend = \"memory\"\nowner = \"person:ana\"\n[intents.\"db.read\"]";
    let edits = [(DEV, REAL), ("[intents.\"db.read\"]", table)];
    let (code, said) = refused(&mut rig().await, &[], &edits).await;
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("memory") && said.contains("--dev-trust"), "{said}");
}

#[tokio::test]
async fn a_dev_key_needs_the_flag() {
    let (code, said) = refused(&mut rig().await, &[], &[(DEV, REAL)]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("dev key") && said.contains("--dev-trust"), "{said}");
}

#[tokio::test]
async fn a_dev_store_needs_the_flag() {
    let mut rig = rig().await;
    rig.start(&[]).await;
    rig.kill().await;
    let key = rig.world.path("installation.key");
    std::fs::remove_file(&key).unwrap();
    let entropy = SystemEntropy::new(Arc::new(Clock::new(Arc::new(SystemTime), None)));
    write_installation_key(&key, KeyKind::Production, entropy.as_ref()).unwrap();
    let (code, said) = refused(&mut rig, &[], &[(DEV, REAL)]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("store") && said.contains("--dev-trust"), "{said}");
}

#[tokio::test]
async fn the_flag_opens_doors_on_loopback_only() {
    let edits = [("agents = \"127.0.0.1:0\"", "agents = \"0.0.0.0:0\"")];
    let (code, said) = refused(&mut rig().await, &["--dev-trust"], &edits).await;
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("loopback"), "{said}");
}

/// Only a build that asks for them has fault points.
#[test]
fn a_binary_has_fault_points_only_where_it_was_built_with_them() {
    let binary = std::fs::read(env!("CARGO_BIN_EXE_leasehold")).unwrap();
    let text: String = binary.into_iter().map(char::from).collect();
    assert!(text.contains("--dev-trust"), "the search is blind");
    assert_eq!(text.contains("LEASEHOLD_FAULT_POINT"), cfg!(feature = "fault-points"));
}
