use std::collections::{BTreeMap, BTreeSet};

use leasehold_law::caller::CallerId;
use leasehold_law::registry::{Entry as Kept, Rules, Terms};

use super::*;

const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000001";

fn terms() -> Terms {
    Terms {
        owner: "person:ana".parse().unwrap(),
        groups: BTreeSet::from(["soc".to_owned()]),
        autonomy: leasehold_law::catalog::Autonomy::Act,
        purpose: String::new(),
        status: leasehold_law::registry::Status::Active,
        reviewed: None,
        manifest: None,
    }
}

fn ground() -> (Catalog, Book) {
    let triage: CallerId = "spiffe://prod.example/agent/triage".parse().unwrap();
    let catalog = Catalog {
        people: BTreeMap::from([("ana".to_owned(), "https://idp.example|00u1ana".parse().unwrap())]),
        groups: BTreeMap::from([("oncall".to_owned(), BTreeSet::from(["ana".to_owned()]))]),
        agents: BTreeMap::from([(triage.clone(), terms().agent(triage))]),
        patterns: BTreeMap::from([("spiffe://prod.example/ci/*".parse().unwrap(), terms())]),
        rules: Rules { groups: BTreeSet::from(["late".to_owned()]), ..Rules::default() },
        reserved: BTreeSet::from(["spiffe://prod.example/ops/ana".parse().unwrap()]),
        ..Catalog::default()
    };
    let mut kept = Kept::of("spiffe://prod.example/x/a*".parse().unwrap());
    kept.terms = Some(terms());
    (catalog, Book::new([kept]))
}

fn apply(text: &str) -> Result<Vec<Registration>, Vec<String>> {
    let (catalog, book) = ground();
    let federated = BTreeSet::from(["partner.example".to_owned()]);
    let ground =
        Ground { catalog: &catalog, book: &book, trust_domain: Some("prod.example"), federated: &federated };
    let read = read_agents("agents.toml", text, &ground);
    read.map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn toml_and_json_say_the_same() {
    let toml = format!(
        "[agents.\"spiffe://prod.example/agent/new\"]\nowner = \"group:oncall\"\ngroups = [\"soc\", \"late\"]\n\
         autonomy = \"propose\"\npurpose = \"a \\\"b\\\"\"\nstatus = \"retired\"\nreviewed = \"2026-10-01\"\n\
         manifest = \"{DIGEST}\"\n"
    );
    let json = format!(
        r#"{{"agents": {{"spiffe://prod.example/agent/new": {{"owner": "group:oncall", "groups": ["soc", "late"],
        "autonomy": "propose", "purpose": "a \"b\"", "status": "retired", "reviewed": "2026-10-01",
        "manifest": "{DIGEST}"}}}}}}"#
    );
    let read = apply(&toml).unwrap();
    assert_eq!(read, apply(&json).unwrap());
    assert_eq!(
        apply(&toml.replace("\"2026-10-01\"", "2026-10-01")).unwrap(),
        read,
        "a day as TOML writes it"
    );
    assert_eq!(read[0].terms.reviewed.unwrap().to_string(), "2026-10-01T00:00:00.000Z");
    assert_eq!(read[0].terms.manifest.unwrap().to_string(), DIGEST);
}

#[test]
fn all_that_is_wrong_in_a_file_is_told_at_once() {
    let text = "[agents.\"spiffe://prod.example/agent/triage\"]\nowner = \"person:ana\"\nautonomy = \"act\"\n\
        [agents.\"spiffe://other.example/a\"]\nowner = \"person:eve\"\nautonomy = \"reign\"\n\
        [agents.\"spiffe://prod.example/b\"]\ngroups = [\"so\"]\nowner = \"person:ana\"\nautonomy = \"act\"\n\
        [registry]\nreview_every = \"180d\"\n";
    insta::assert_snapshot!(apply(text).unwrap_err().join("\n"), @r#"
    agents.toml:1:9: the config defines `spiffe://prod.example/agent/triage`: change it there, and restart the broker
    agents.toml:4:9: `spiffe://other.example/a` is in trust domain `other.example`; this broker serves `prod.example`; to accept its agents write `federates_with = ["other.example"]` in [identity.spiffe]
    agents.toml:5:9: no person `eve` is defined; there is ana
    agents.toml:6:12: `reign` is no value of `agents.spiffe://other.example/a.autonomy`; there is act, observe, propose
    agents.toml:7:9: the config knows no group of agents `so`; did you mean `soc`?; [registry] groups names those for applied agents
    agents.toml:11:2: `registry` belongs in the broker's config, and takes a restart; a file to apply holds [agents."..."] alone
    "#);
}

/// Each file, and the whole of what is said of it.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "spiffe://prod.example/agent/triage",
        "",
        "agents.toml:1:9: the config defines `spiffe://prod.example/agent/triage`: change it there, and restart the \
         broker",
    ),
    (
        "spiffe://prod.example/ci/build",
        "",
        "agents.toml:1:9: `spiffe://prod.example/ci/build` is registered by the config's \
         `spiffe://prod.example/ci/*`: give it a table of its own there",
    ),
    (
        "spiffe://prod.example/ci/*",
        "",
        "agents.toml:1:9: the config defines `spiffe://prod.example/ci/*`: change it there, and restart the broker",
    ),
    (
        "spiffe://prod.example/ci/a-*",
        "",
        "agents.toml:1:9: `spiffe://prod.example/ci/a-*` and `spiffe://prod.example/ci/*` take in the same \
         identities: one of them must be narrower, or go",
    ),
    (
        "spiffe://prod.example/x/*",
        "",
        "agents.toml:1:9: `spiffe://prod.example/x/*` and `spiffe://prod.example/x/a*` take in the same identities: \
         one of them must be narrower, or go",
    ),
    (
        "spiffe://prod.example/ops/ana",
        "",
        "agents.toml:1:9: `spiffe://prod.example/ops/ana` is an operator or the broker itself: one identity is never \
         that and an agent",
    ),
    (
        "spiffe://prod.example/ops/*",
        "",
        "agents.toml:1:9: `spiffe://prod.example/ops/ana` is an operator or the broker itself: one identity is never \
         that and an agent",
    ),
    (
        "spiffe://other.example/a",
        "",
        "agents.toml:1:9: `spiffe://other.example/a` is in trust domain `other.example`; this broker serves \
         `prod.example`",
    ),
    (
        "spiffe://other.example/*",
        "",
        "agents.toml:1:9: `spiffe://other.example/*` is in trust domain `other.example`; this broker serves \
         `prod.example`",
    ),
    (
        "spiffe://prod.example/a/*/b",
        "",
        "agents.toml:1:9: `spiffe://prod.example/a/*/b`: a pattern has one `*`, as the end of its last segment, like \
         `spiffe://prod.example/agent/ci-*`",
    ),
    (
        "oidc:https://idp.example|1",
        "",
        "agents.toml:1:9: `oidc:https://idp.example|1` is not a SPIFFE ID: write it like \
         `spiffe://prod.example/agent/triage`",
    ),
    (
        "spiffe://prod.example/a",
        "owner = \"person:eve\"",
        "agents.toml:2:9: no person `eve` is defined; there is ana",
    ),
    (
        "spiffe://prod.example/a",
        "groups = [\"so\"]",
        "agents.toml:1:9: the config knows no group of agents `so`; did you mean `soc`?; [registry] groups names \
         those for applied agents",
    ),
    (
        "spiffe://prod.example/a",
        "manifest = \"sha256:1\"",
        "agents.toml:2:12: a manifest's digest is `sha256:` and 64 lower-case hexadecimal digits; print it with: \
         leasehold agents digest FILE",
    ),
    (
        "spiffe://prod.example/a",
        "reviewed = \"soon\"",
        "agents.toml:2:12: `soon` is not a day; write it like `2026-10-01`",
    ),
    (
        "spiffe://prod.example/a",
        "status = \"actve\"",
        "agents.toml:2:10: `actve` is no value of `agents.spiffe://prod.example/a.status`; did you mean `active`?",
    ),
    (
        "spiffe://prod.example/a",
        "sudo = true",
        "agents.toml:2:1: unknown key `agents.spiffe://prod.example/a.sudo`",
    ),
];

#[test]
fn what_may_not_be_applied_is_named_with_its_line() {
    for (id, line, said) in REFUSED {
        let owner = if line.starts_with("owner") { "" } else { "owner = \"person:ana\"\n" };
        let text = format!("[agents.\"{id}\"]\n{line}\n{owner}autonomy = \"act\"\n");
        let problems = apply(&text).unwrap_err();
        assert!(problems[0].starts_with(said) && problems.len() == 1, "{id} {line}: {problems:#?}");
    }
}

#[test]
fn agents_of_a_federated_trust_domain_are_taken() {
    let one = |id: &str| format!("[agents.\"{id}\"]\nowner = \"person:ana\"\nautonomy = \"act\"\n");
    let text = one("spiffe://partner.example/agent/a") + &one("spiffe://partner.example/ci/*");
    assert_eq!(apply(&text).unwrap().len(), 2);
}

#[test]
fn two_patterns_of_one_file_do_not_overlap() {
    let one = |id: &str| format!("[agents.\"{id}\"]\nowner = \"person:ana\"\nautonomy = \"act\"\n");
    let text = one("spiffe://prod.example/y/*") + &one("spiffe://prod.example/y/b*");
    assert!(apply(&text).unwrap_err()[0].contains("take in the same identities"));
    let text = one("spiffe://prod.example/y/c*") + &one("spiffe://prod.example/y/b*");
    assert_eq!(apply(&text).unwrap().len(), 2);
}

#[test]
fn what_is_no_file_of_agents_is_refused() {
    let check = |text: &str, said: &str| {
        let problems = apply(text).unwrap_err();
        assert!(problems[0].contains(said), "{text}: {problems:?}");
    };
    check("", "`agents` is missing");
    check("{", "this is no JSON");
    check("{\"agents\": null, \"operators\": {}}", "`operators` belongs in the broker's config");
    check("[agents]\n[operators]\n", "agents.toml:2:2: `operators` belongs in the broker's config");
    check("[agents]\n[registry]\n", "`registry` belongs in the broker's config, and takes a restart");
    check("[agents]\n[[grants]]\n", "`grants` belongs in the broker's config");
    check("[agents]\n[agent]\n", "unknown key `agent`; did you mean `agents`?");
    check("[agents.\"spiffe://prod.example/a\"]\nowner = \"person:ana\"\nautonomy = ", "");
    check("{\"agents\": {\"spiffe://prod.example/a\": {\"owner\": \"person:ana\"}}}", "autonomy` is missing");
}
