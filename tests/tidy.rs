//! The house keeps its own rules: who may name whom, who reads the clock, where a secret is opened, how long a file is,
//! and that each invariant of ARCHITECTURE.md has its test. The rules are the tables; rooms that do not exist break none.

#[path = "tidy/bites.rs"]
mod bites;
#[path = "tidy/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::{fs, io};

use source::{Source, finds};

/// A room that never names something.
struct Never {
    room: &'static str,
    names: &'static [&'static str],
    except: &'static [&'static str],
    why: &'static str,
}

const NEVER: &[Never] = &[
    Never {
        room: "law/src",
        names: &[
            "tokio",
            "tonic",
            "rusqlite",
            "std::fs",
            "std::net",
            "std::process",
            "std::env",
            "std::thread",
            "std::time::SystemTime",
            "std::time::Instant",
            "rand",
        ],
        except: &[],
        why: "the law is pure: keys, now and random bits come in as arguments",
    },
    Never {
        room: "src/identity",
        names: &["leasehold_law::policy", "crate::store", "crate::ledger", "crate::registry", "cedar_policy"],
        except: &[],
        why: "who asks is proven before anything is looked up or decided",
    },
    Never {
        room: "src/store",
        names: &["crate::api", "crate::broker", "crate::vault_door", "leasehold_backend", "leasehold_proto"],
        except: &[],
        why: "the store knows no backend and no caller",
    },
    Never {
        room: "src/api",
        names: &["crate::store", "crate::vault_door", "leasehold_backend", ".store()", ".commit("],
        except: &[],
        why: "the door asks the broker, which answers with views",
    },
    Never {
        room: "src/broker",
        names: &["crate::api", "crate::identity", "crate::server", "leasehold_proto", "tonic", "rusqlite"],
        except: &[],
        why: "the road knows neither the wire nor a database",
    },
    Never {
        room: "src",
        names: &["crate::store::sqlite", "crate::store::postgres", "leasehold_memory", "leasehold_postgres"],
        except: &["src/server", "src/dev", "src/store"],
        why: "only server.rs and dev/ name concrete parts",
    },
    Never {
        room: "src",
        names: &["dyn Backend"],
        except: &["src/vault_door", "src/server", "src/dev", "src/config"],
        why: "the vault door is the only holder of backends; config and server hand them to it",
    },
    Never {
        room: "src",
        names: &["Recorded("],
        except: &["src/ledger.rs", "src/ledger/leases.rs"],
        why: "only the ledger makes evidence that something is durable",
    },
    Never { room: "src", names: &["rusqlite"], except: &["src/store/sqlite"], why: "SQL stays in its file" },
];

/// A room that names, of some family, nothing but what is listed.
struct Only {
    room: &'static str,
    family: &'static str,
    may: &'static [&'static str],
    why: &'static str,
}

const ONLY: &[Only] = &[
    Only { room: "law/src", family: "leasehold_", may: &[], why: "the law depends on nothing here" },
    Only {
        room: "law/src",
        family: "ring::",
        may: &["ring::digest", "ring::hmac"],
        why: "the law digests; it draws no random bits and seals nothing",
    },
    Only {
        room: "src/cli",
        family: "crate::",
        may: &["crate::cli"],
        why: "the CLI is a client like any other",
    },
    Only {
        room: "src/cli",
        family: "leasehold_",
        may: &[
            "leasehold_client",
            "leasehold_law::journal",
            "leasehold_law::time",
            "leasehold_law::words",
            "leasehold_jose",
        ],
        why: "the CLI speaks through the SDK; only an export and a person's own token are verified here",
    },
    Only {
        room: "src/main.rs",
        family: "leasehold::",
        may: &[
            "leasehold::cli",
            "leasehold::server",
            "leasehold::init",
            "leasehold::dev",
            "leasehold::telemetry",
            "leasehold::config::Trust",
        ],
        why: "the binary sends a command to its room and does nothing itself",
    },
];

/// Which of our crates a crate may build on.
const CRATES: &[(&str, &[&str])] = &[
    ("law", &[]),
    ("jose", &["leasehold-law"]),
    ("proto", &[]),
    ("backends/contract", &["leasehold-law"]),
    ("backends/memory", &["leasehold-law", "leasehold-backend"]),
    ("backends/postgres", &["leasehold-law", "leasehold-backend"]),
    ("sdk/rust", &["leasehold-proto", "leasehold-jose", "leasehold-law"]),
];

/// What the law is built of. miette only carries the places of Cedar's complaints.
const LAW_IS_BUILT_OF: &[&str] =
    &["cedar-policy", "chrono", "miette", "ring", "serde", "serde_json", "thiserror", "zeroize"];

/// How the clock is read.
const CLOCK_READS: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "Utc::now",
    "Local::now",
    "OffsetDateTime::now_utc",
    "clock_gettime",
];

/// Who may read it. Time is injected everywhere else (law 10).
const MAY_READ_THE_CLOCK: &[(&str, &str)] = &[
    ("src/clock.rs", "it is the clock"),
    ("src/broker/wait.rs", "the end of a wait, on the runtime's clock, which tests pause"),
    ("src/store/sqlite/writer.rs", "the pace of a thread's batches; the simulation has no such thread"),
    ("src/meter.rs", "how long calls take, on the runtime's clock"),
    ("src/identity", "deadlines of handshakes and connections, on the runtime's clock"),
    ("src/dev", "signs the short certificates of a throwaway trust domain"),
    ("src/cli", "tells people how long ago something was"),
    ("sdk/rust", "the agent's own process: when to renew, when to give up"),
    ("backends/postgres/src/sessions.rs", "how long a live server is looked at"),
    ("backends/postgres/src/revoke.rs", "how long a call sees to what roles own, on the runtime's clock"),
    ("backends/postgres/src/throwaway.rs", "how long a throwaway server may take to start"),
    ("benches", "measures"),
];

/// How a test would sleep, and who may: only to look again, with a bound, at a real process (law 10).
const SLEEPS: &[&str] = &["sleep(", "sleep_until("];
const MAY_SLEEP: &[(&str, &str)] = &[
    ("src/identity/tests/world.rs", "looks again whether a real connection has changed, with a bound"),
    ("backends/postgres/tests/common", "looks again at a real server, with a bound"),
    ("backends/postgres/tests/attacks.rs", "looks again at a real server's locks and settings, with a bound"),
    ("backends/postgres/tests/delays.rs", "looks again at a real server's locks, with a bound"),
    ("backends/postgres/tests/conformance.rs", "lets a real server's own clock pass the end of a lease"),
    ("tests/simulation", "lets time pass on a runtime whose clock is paused"),
    ("tests/suite/demo.rs", "looks again at what a real program has printed, with a bound"),
];

/// Where a secret is opened, how often, and what for. A new place is a decision.
const OPENED: &[(&str, usize, &str)] = &[
    ("backends/contract/src/conformance/issue.rs", 1, "checks that no part of an answer shows it"),
    ("backends/memory/src/http/client.rs", 1, "the broker's own token, into a header"),
    (
        "backends/memory/src/http/server.rs",
        7,
        "the target's side: it checks passwords and hands out minted ones",
    ),
    ("backends/memory/src/target.rs", 1, "the target's side: what it keeps is a digest"),
    ("backends/postgres/src/lib.rs", 1, "the probe of a drill logs in as the agent would"),
    ("backends/postgres/src/scram.rs", 1, "the verifier that the server gets instead"),
    ("src/api/write.rs", 1, "step 8 of the road: into the wire's encoder, for the caller alone"),
    ("sdk/rust/src/credential.rs", 1, "the agent's side: into a connection string"),
    ("examples/agent.rs", 1, "the agent's side: into its PostgreSQL client"),
    ("src/cli/exec/vars.rs", 1, "the agent's side: into the file or variable of the command that exec runs"),
    ("src/dev/demo/lease.rs", 1, "the demo's agent: it looks for the bytes where they must not be"),
    ("src/dev/demo/memory.rs", 1, "the demo's agent: into its client"),
    ("src/dev/demo/postgres.rs", 1, "the demo's agent: into its PostgreSQL client"),
    ("src/cli/login/browser.rs", 1, "the person's side: a code, to the issuer that gave it"),
    ("src/cli/login/issuer.rs", 3, "the person's side: tokens, to the issuer that gave them"),
    ("src/cli/login/kept.rs", 1, "the person's side: the session's key, to sign with"),
    ("src/cli/login/tokens.rs", 1, "the person's side: the token, into the client that comes with it"),
    ("src/cli/deliver.rs", 2, "the agent's side: into the file or descriptor that was asked for"),
];

/// Lines of what ships in one file.
const LONGEST: usize = 600;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn house() -> io::Result<Vec<Source>> {
    source::read(&root())
}

/// Prints all that is wrong, not just the first.
fn assert_clean(found: &[String]) {
    assert!(found.is_empty(), "{} untidy:\n  {}", found.len(), found.join("\n  "));
}

fn never(house: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for rule in NEVER {
        let lies_there =
            |source: &&Source| source.is_in(rule.room) && !rule.except.iter().any(|room| source.is_in(room));
        for source in house.iter().filter(lies_there) {
            let code = from_the_root(source);
            for name in rule.names {
                let places = finds(&source.path, &code, name);
                found.extend(places.iter().map(|at| format!("{at} names `{name}`: {}", rule.why)));
            }
        }
    }
    found
}

fn only(house: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for rule in ONLY {
        for source in house.iter().filter(|source| source.is_in(rule.room)) {
            let code = from_the_root(source);
            let strange =
                paths(&code, rule.family).filter(|path| !rule.may.iter().any(|may| leads_to(path, may)));
            found.extend(strange.map(|path| format!("{} names `{path}`: {}", source.path, rule.why)));
        }
    }
    found
}

fn leads_to(path: &str, room: &str) -> bool {
    path.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The paths in code that begin with a family's name.
fn paths<'a>(code: &'a str, family: &str) -> impl Iterator<Item = &'a str> {
    let in_path = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    code.split(move |letter: char| !in_path(letter))
        .filter(move |path| path.starts_with(family))
        .map(|path| path.trim_end_matches(':'))
        .collect::<Vec<_>>()
        .into_iter()
}

/// The code with `super::super::room` written as `crate::room`, where it climbs that far.
fn from_the_root(source: &Source) -> String {
    let below = source.path.split_once("src/").map_or("", |(_, below)| below);
    let depth = if ["lib.rs", "main.rs"].contains(&below) { 0 } else { below.split('/').count() };
    source.code.replace(&"super::".repeat(depth.max(1)), "crate::")
}

fn crates(manifests: &[(&str, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (folder, may) in CRATES {
        let manifest = manifests.iter().find(|(path, _)| path == folder).map(|(_, text)| text.as_str());
        let ours = manifest.map(our_dependencies).unwrap_or_default();
        let strange = ours.iter().filter(|name| !may.contains(&name.as_str()));
        found.extend(strange.map(|name| format!("{folder}/Cargo.toml depends on `{name}`")));
    }
    found
}

/// Our crates that one builds on; what only its tests need does not count.
fn our_dependencies(manifest: &str) -> BTreeSet<String> {
    let mut section = "";
    let mut ours = BTreeSet::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        }
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        if section != "[dev-dependencies]"
            && section.ends_with("dependencies]")
            && name.starts_with("leasehold")
        {
            ours.insert(name.to_owned());
        }
    }
    ours
}

fn clock(house: &[Source]) -> Vec<String> {
    let bound = house.iter().filter(|source| !MAY_READ_THE_CLOCK.iter().any(|(room, _)| source.is_in(room)));
    let reads = bound.flat_map(|source| CLOCK_READS.iter().flat_map(|read| source.finds(read)));
    reads.map(|at| format!("{at} reads the clock: take `now` as an argument, or a clock")).collect()
}

fn sleeping(house: &[Source]) -> Vec<String> {
    let bound = house.iter().filter(|source| !MAY_SLEEP.iter().any(|(room, _)| source.is_in(room)));
    let naps = bound.flat_map(|source| SLEEPS.iter().flat_map(|nap| finds(&source.path, &source.tests, nap)));
    naps.map(|at| format!("{at} (in its tests) sleeps: wait for the condition itself, or pause the clock"))
        .collect()
}

/// Both ways: a place that is gone leaves the list, so that nothing new hides behind it.
fn opened(house: &[Source]) -> Vec<String> {
    let counted: BTreeMap<&str, usize> = OPENED.iter().map(|(path, count, _)| (*path, *count)).collect();
    let mut found = Vec::new();
    for source in house {
        let now = source.finds(".expose()").len();
        let listed = counted.get(source.path.as_str()).copied().unwrap_or(0);
        if now != listed {
            found.push(format!(
                "{} opens secrets {now} times; the list in tests/tidy.rs says {listed}",
                source.path
            ));
        }
    }
    found
}

fn long(house: &[Source]) -> Vec<String> {
    let length = |source: &Source| source.code.trim_end().lines().count();
    let long = house.iter().filter(|source| length(source) > LONGEST);
    long.map(|source| format!("{} has {} lines; {LONGEST} is the most", source.path, length(source)))
        .collect()
}

/// `Invariant: nothing of the kind happens: `name_of_the_test`.`
fn invariants(architecture: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut count = 0;
    for line in
        architecture.lines().filter(|line| line.trim_start_matches(['-', ' ', '*']).starts_with("Invariant:"))
    {
        count += 1;
        match line.trim_end_matches(['.', ' ']).strip_suffix('`').and_then(|line| line.rsplit('`').next()) {
            Some(test) if tests.contains(test) => {}
            Some(test) => found.push(format!("no test is called `{test}`: {line}")),
            None => found.push(format!("the line does not end with the name of its test: {line}")),
        }
    }
    if count == 0 {
        found.push("ARCHITECTURE.md has no line that begins with `Invariant:`".to_owned());
    }
    found
}

/// Paths that a text names, without what stands around them; patterns such as `backends/*` are none.
fn paths_named(text: &str) -> BTreeSet<&str> {
    let around = |letter: char| letter.is_whitespace() || "`(),;|".contains(letter);
    let words = text.split(around).map(|word| word.trim_end_matches(['.', ':']));
    let ours = |word: &&str| {
        source::FOLDERS
            .iter()
            .any(|folder| word.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
    };
    words.filter(ours).collect()
}

#[test]
fn no_room_names_what_it_must_not_know() {
    assert_clean(&never(&house().unwrap()));
}

#[test]
fn no_room_leaves_its_circle() {
    assert_clean(&only(&house().unwrap()));
}

#[test]
fn no_crate_builds_on_one_above_it() {
    let read = |(folder, _): &(&'static str, _)| {
        (*folder, fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap())
    };
    assert_clean(&crates(&CRATES.iter().map(read).collect::<Vec<_>>()));
}

#[test]
fn the_law_is_built_of_few_crates() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let question =
        ["tree", "--package", "leasehold-law", "--depth", "1", "--edges", "normal", "--prefix", "none"];
    let answer = Command::new(cargo).args(question).args(["--locked"]).current_dir(root()).output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let lines = String::from_utf8(answer.stdout).unwrap();
    let names: BTreeSet<_> = lines.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    let strange: Vec<_> = names.iter().filter(|name| !LAW_IS_BUILT_OF.contains(name)).collect();
    assert!(names.contains("cedar-policy"), "the answer was not understood: {lines}");
    assert!(strange.is_empty(), "law depends on {strange:?}");
}

#[test]
fn no_room_but_the_clock_reads_the_time() {
    assert_clean(&clock(&house().unwrap()));
}

#[test]
fn no_test_sleeps() {
    assert_clean(&sleeping(&house().unwrap()));
}

#[test]
fn no_secret_is_opened_in_a_place_that_is_not_listed() {
    assert_clean(&opened(&house().unwrap()));
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    assert_clean(&long(&house().unwrap()));
}

#[test]
fn no_invariant_is_without_its_test() {
    let house = house().unwrap();
    let tests = house.iter().flat_map(|source| source.test_names.iter().cloned()).collect();
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert_clean(&invariants(&architecture, &tests));
}

#[test]
fn no_path_in_the_map_leads_nowhere() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let named = paths_named(&map);
    let lost: Vec<_> = named.iter().filter(|path| !root().join(path).exists()).collect();
    assert!(named.len() > 20, "the map was not understood: {named:?}");
    assert!(lost.is_empty(), "ARCHITECTURE.md names what is not there: {lost:?}");
}
