//! The rules themselves, tried on small houses: each finds what it is for, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::source::{self, Source};
use super::{LONGEST, clock, crates, invariants, long, never, only, opened, sleeping};

/// Each rule is shown something that it must find: a rule that finds nothing anywhere would look the same as order.
#[test]
fn each_rule_bites() {
    let rules =
        |house: &[Source]| [never, only, clock, sleeping, opened, long].map(|rule| rule(house)).concat();
    let check = |path: &str, text: &str, expect: &str| {
        let found = rules(&[Source::new(path, text)]);
        assert!(found.iter().any(|line| line.contains(expect)), "{path}: {text}: {expect}: {found:?}");
    };
    check("law/src/id.rs", "use std::fs;", "`std::fs`");
    check("law/src/id.rs", "fn f(p: leasehold_proto::v1::Lease) {}", "`leasehold_proto::v1::Lease`");
    check("law/src/id.rs", "let r = ring::rand::SystemRandom::new();", "`ring::rand::SystemRandom::new`");
    check("src/api/lease.rs", "fn f(s: &dyn crate::store::Store) {}", "`crate::store`");
    check("src/api/lease.rs", "let l = ledger.store().lease(id);", "`.store()`");
    check("src/api/lease.rs", "use super::super::store::Store;", "`crate::store`");
    check("src/api.rs", "use super::store::Store;", "`crate::store`");
    check("src/api.rs", "use crate::{\n clock::Clock,\n store::{Store, sqlite},\n};", "`crate::store`");
    check("src/identity.rs", "use leasehold_law::{id, policy::{Engine, Permit}};", "`leasehold_law::policy`");
    check("src/identity/spiffe.rs", "use leasehold_law::policy::Engine;", "`leasehold_law::policy`");
    check("src/store/sqlite.rs", "use leasehold_backend::Found;", "`leasehold_backend`");
    check("src/broker/issue.rs", "let s = crate::store::sqlite::open();", "`crate::store::sqlite`");
    check("src/broker/issue.rs", "let r = Recorded(order);", "`Recorded(`");
    check("src/ledger/entry.rs", "let r = Recorded(order);", "`Recorded(`");
    check("src/cli/lease.rs", "use crate::broker::Broker;", "`crate::broker::Broker`");
    check("src/cli/lease.rs", "use leasehold_law::id::LeaseId;", "`leasehold_law::id::LeaseId`");
    check("src/main.rs", "leasehold::store::open();", "`leasehold::store::open`");
    check("src/broker/sweep.rs", "let now = Instant::now();", "sweep.rs:1 reads the clock");
    check("src/broker.rs", "\n\nlet now = chrono::Utc::now();", "broker.rs:3 reads the clock");
    check("tests/suite/main.rs", "std::thread::sleep(second);", "sleeps");
    check(
        "src/broker.rs",
        "#[cfg(test)]\nmod tests {\n tokio::time::sleep(second).await;\n}",
        "broker.rs:3 (in",
    );
    check("src/broker.rs", "let bytes = secret.expose();", "opens secrets 1 times");
    check("src/broker.rs", &"let a = 1;\n".repeat(LONGEST + 1), "has 601 lines");
}

/// And it must not see what is not there.
#[test]
fn words_and_tests_are_not_code() {
    let check = |path: &str, text: &str| {
        let house = [Source::new(path, text)];
        let found = [never, only, clock, opened].map(|rule| rule(&house)).concat();
        assert!(found.is_empty(), "{text}: {found:?}");
    };
    check("src/api.rs", "// see crate::store\n/* crate::store */");
    check("src/api.rs", "let text = \"crate::store \\\" crate::store\";");
    check("src/api.rs", "let text = r#\"a \" crate::store\"#; let c = '\"'; // crate::store");
    check("src/api.rs", "use crate::{broker::{store, Broker}, clock::Clock};");
    check("src/api.rs", "use crate::store_room::Shelf;");
    check("src/api.rs", "fn f<'a>(x: &'a str) -> char { '\\'' } // Instant::now");
    check("src/api.rs", "#[cfg(test)]\nmod tests {\n use crate::store::Store;\n}");
    check("src/api/lease.rs", "use super::status;");
    check("src/broker/issue.rs", "fn f(r: NotRecorded(u8)) {}");
    check("src/dev/demo.rs", "let s = crate::store::sqlite::open();");
    check("src/ledger.rs", "let r = Recorded(order);");
    check("src/cli/audit.rs", "use leasehold_law::journal::verify;");
}

#[test]
fn an_invariant_names_a_test_that_exists() {
    let tests = BTreeSet::from(["it_holds".to_owned()]);
    let check = |text: &str, expect: usize| assert_eq!(invariants(text, &tests).len(), expect, "{text}");
    check("- Invariant: nothing is lost: `it_holds`.", 0);
    check("Invariant: nothing of `Kind` is lost: `it_holds`", 0);
    check("Invariant: nothing is lost: `it_held`.", 1);
    check("Invariant: nothing is lost.", 1);
    check("Nothing is lost.", 1);
}

#[test]
fn a_crate_above_is_found_in_a_manifest() {
    let check = |folder: &'static str, text: &str, expect: usize| {
        assert_eq!(crates(&[(folder, text.to_owned())]).len(), expect, "{folder}: {text}");
    };
    check("law", "[dependencies]\nleasehold-backend.workspace = true", 1);
    check("backends/postgres", "[dependencies]\nleasehold-memory = { path = \"../memory\" }", 1);
    check("backends/postgres", "[dependencies]\nleasehold-law.workspace = true\nserde = \"1\"", 0);
    check("sdk/rust", "[target.'cfg(unix)'.dependencies]\nleasehold = { path = \"../..\" }", 1);
    check("sdk/rust", "[dev-dependencies]\nleasehold = { path = \"../..\" }", 0);
}

#[test]
fn files_of_test_modules_are_tests() {
    let folder = std::env::temp_dir().join(format!("leasehold-tidy-{}", std::process::id()));
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        fs::write(path, text).unwrap();
    };
    write("src/store.rs", "mod sqlite;\n#[cfg(test)]\nmod suite;\n");
    write("src/store/suite.rs", "#[test]\nfn it_holds() {}\n");
    write("src/store/suite/replay.rs", "fn help() {}\n");
    write("src/store/sqlite.rs", "fn open() {}\n");
    let house = source::read(&folder).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let shipped: BTreeSet<_> = house
        .iter()
        .filter(|source| !source.code.trim().is_empty())
        .map(|source| source.path.as_str())
        .collect();
    assert_eq!(shipped, BTreeSet::from(["src/store.rs", "src/store/sqlite.rs"]));
    assert!(house.iter().any(|source| source.test_names.contains("it_holds")));
}
