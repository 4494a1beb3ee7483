//! What the program says where something stands in the way: where it points is where the way goes on.

use serde_json::Value;
use tokio::process::Command;

use crate::world::World;

/// The exit code, and all that was said.
async fn said(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().await.unwrap();
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code(), told.concat())
}

fn check(case: &str, (code, told): (Option<i32>, String), expect: i32, words: &[&str]) {
    assert_eq!(code, Some(expect), "{case}: {told}");
    words.iter().for_each(|word| assert!(told.contains(word), "{case} without {word}: {told}"));
}

#[tokio::test]
async fn a_hint_points_where_the_way_goes_on() {
    let world = World::new().await;
    for list in ["lease", "task"] {
        let operator = world.program(Some("admin"), &[list, "list"]);
        check(list, said(operator).await, 3, &["UNKNOWN_AGENT", "an operator asks with --admin"]);
    }
    let pair = "orders.read@orders,ttl=1000h";
    let long = world.program(Some("triage"), &["exec", "--lease", pair, "--", "true"]);
    check("ttl", said(long).await, 2, &["`1000h` is more than 1d"]);
    let mut lost = world.program(None, &["status"]);
    lost.env("LEASEHOLD_ADMIN_ADDR", format!("unix:{}", world.path("nobody.sock").display()));
    check("socket", said(lost).await, 5, &["no socket at", "`leasehold serve`", "`listen.admin`"]);
    check("target", world.command(&["targets", "check", "stok"]).await, 1, &["did you mean `stock`?"]);
}

#[tokio::test]
async fn what_may_not_be_overwritten_is_said_with_what_to_do_first() {
    let world = World::new().await;
    let (config, backup) = (world.path("leasehold.toml"), world.path("backup.db"));
    let [config, backup] = [&config, &backup].map(|path| path.to_str().unwrap());
    let restore = ["restore", "--config", config, "--from", backup, "--dev-trust"];
    let told = world.command(&restore).await;
    check("restore", told, 1, &["a broker serves from", "next: stop it, restore"]);
    let folder = world.path("made");
    let init = ["init", folder.to_str().unwrap()];
    check("init", world.command(&init).await, 0, &["wrote"]);
    let told = world.command(&init).await;
    check("init again", told, 1, &["nothing was written", "next: leasehold check --config"]);
}

#[tokio::test]
async fn programs_are_told_of_every_failure_in_json() {
    let world = World::new().await;
    let folder = world.path("made");
    let init = ["init", folder.to_str().unwrap(), "--output", "json"];
    world.command(&init).await;
    let lines: [&[&str]; 3] = [&["statsu", "--output=json"], &["revoke", "--output", "json"], &init];
    for (line, exit) in lines.into_iter().zip([2, 2, 1]) {
        let (code, told) = world.command(line).await;
        let told: Value =
            serde_json::from_str(&told).unwrap_or_else(|error| panic!("{line:?}: {error}: {told}"));
        assert_eq!((code, &told["error"]["exit"]), (Some(exit), &exit.into()), "{line:?}: {told}");
    }
    let (_, told) = world.command(&["version", "--output", "json"]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    assert!(told.get("commit").is_some(), "it may be null: {told}");
}

#[tokio::test]
async fn a_folder_without_its_key_is_told_once_and_with_how_to_get_one() {
    let world = World::new().await;
    let folder = world.path("made");
    check("init", world.command(&["init", folder.to_str().unwrap()]).await, 0, &["wrote"]);
    let config = folder.join("leasehold.toml");
    let config = config.to_str().unwrap();
    let counts = "1 target, 1 grant, 1 agent\n";
    check("whole", world.command(&["check", "--config", config]).await, 0, &[counts]);
    std::fs::remove_file(folder.join("installation.key")).unwrap();
    let (code, told) = world.command(&["check", "--config", config]).await;
    assert_eq!((code, told.matches("installation.key").count()), (Some(0), 1), "{told}");
    let refused = world.command(&["serve", "--config", config]).await;
    let shape = ["there is no installation key at", "  why:  the names of all", "  next: where this store"];
    check("serve", refused, 1, &shape);
}
