use super::*;
use crate::catalog::Autonomy;
use crate::manifest::Digest;
use crate::registry::{LoweredBy, Review, Rules, Ruling, Status};
use crate::time::Span;

const CI: &str = "spiffe://p.example/ci/*";
const BUILD: &str = "spiffe://p.example/ci/build";
const TRIAGE: &str = "spiffe://p.example/triage";

fn terms(owner: &str) -> Terms {
    Terms {
        owner: owner.parse().unwrap(),
        groups: BTreeSet::from(["soc".to_owned()]),
        autonomy: Autonomy::Act,
        purpose: String::new(),
        status: Status::Active,
        reviewed: None,
        manifest: None,
    }
}

fn digest(byte: &str) -> Digest {
    format!("sha256:{}", byte.repeat(32)).parse().unwrap()
}

/// Config has `triage`, and a pattern for pipelines.
fn catalog() -> Catalog {
    let id: CallerId = TRIAGE.parse().unwrap();
    Catalog {
        agents: BTreeMap::from([(id.clone(), terms("person:ana").agent(id))]),
        patterns: BTreeMap::from([(CI.parse().unwrap(), terms("person:ben"))]),
        ..Catalog::default()
    }
}

fn entry(who: &str) -> Entry {
    Entry::of(who.parse().unwrap())
}

fn ruling(status: Status) -> Option<Ruling> {
    Some(Ruling { status, by: "uid:0".into(), reason: "r".into(), at: Timestamp(1) })
}

fn agent(book: &Book, catalog: &Catalog, id: &str, claim: Claim) -> Agent {
    book.agent(catalog, &id.parse().unwrap(), Timestamp(1000), claim).unwrap()
}

#[test]
fn a_name_counts_before_a_pattern_and_config_before_what_was_applied() {
    let owner = |book: &Book, id: &str| {
        let catalog = catalog();
        let owner = book.owner(&catalog, &id.parse().unwrap()).map(ToString::to_string);
        let view = book.view(&catalog, &id.parse().unwrap());
        assert_eq!(view.map(|view| view.terms.owner.to_string()), owner, "{id}");
        owner
    };
    let book = Book::default();
    assert_eq!(owner(&book, BUILD).as_deref(), Some("person:ben"));
    assert_eq!(owner(&book, "spiffe://p.example/ci/build/x"), None);
    let applied = |who: &str| Entry { terms: Some(terms("person:eve")), ..entry(who) };
    let book = Book::new([applied(BUILD), applied(TRIAGE), applied("spiffe://p.example/x/*")]);
    assert_eq!(owner(&book, BUILD).as_deref(), Some("person:ben"), "nor what its patterns take in");
    assert_eq!(
        owner(&book, TRIAGE).as_deref(),
        Some("person:ana"),
        "apply never redefines what config defines"
    );
    assert_eq!(owner(&book, "spiffe://p.example/x/1").as_deref(), Some("person:eve"));
    let by_name = Entry { terms: Some(terms("person:mia")), ..entry("spiffe://p.example/x/1") };
    let book = Book::new([applied("spiffe://p.example/x/*"), by_name]);
    assert_eq!(owner(&book, "spiffe://p.example/x/1").as_deref(), Some("person:mia"));
    assert_eq!(owner(&book, "spiffe://p.example/x/2").as_deref(), Some("person:eve"));
}

#[test]
fn an_operator_is_no_agent_whatever_was_applied() {
    let reserved = BTreeSet::from([BUILD.parse().unwrap(), TRIAGE.parse().unwrap()]);
    let catalog = Catalog { reserved, agents: BTreeMap::new(), ..catalog() };
    let book = Book::new([Entry { terms: Some(terms("person:eve")), ..entry(TRIAGE) }]);
    for id in [BUILD, TRIAGE] {
        assert!(!book.knows(&catalog, &id.parse().unwrap()), "{id}");
        assert!(book.view(&catalog, &id.parse().unwrap()).is_none(), "{id}");
    }
}

#[test]
fn what_is_kept_of_a_stranger_registers_nobody() {
    let book = Book::new([Entry { ruling: ruling(Status::Active), ..entry("spiffe://p.example/x") }]);
    assert!(!book.knows(&catalog(), &"spiffe://p.example/x".parse().unwrap()));
    assert!(book.views(&catalog()).iter().all(|view| view.who.to_string() != "spiffe://p.example/x"));
}

#[test]
fn the_strictest_status_holds() {
    let of_pattern = Entry { ruling: ruling(Status::Suspended), ..entry(CI) };
    let status = |entries: &[Entry]| {
        let book = Book::new(entries.iter().cloned());
        agent(&book, &catalog(), BUILD, Claim::Unasked).standing.status
    };
    assert_eq!(status(&[]), Status::Active);
    assert_eq!(status(&[Entry { ruling: ruling(Status::Retired), ..entry(BUILD) }]), Status::Retired);
    assert_eq!(status(std::slice::from_ref(&of_pattern)), Status::Suspended);
    let own = Entry { ruling: ruling(Status::Active), ..entry(BUILD) };
    assert_eq!(status(&[of_pattern.clone(), own]), Status::Suspended, "one of them is not let out alone");
    let own = Entry { ruling: ruling(Status::Quarantined), ..entry(BUILD) };
    assert_eq!(status(&[of_pattern, own]), Status::Quarantined);
}

#[test]
fn retired_unreviewed_and_drifted_agents_are_lowered() {
    let mut catalog = catalog();
    let lowered = |catalog: &Catalog, entry: Entry, claim| {
        let agent = agent(&Book::new([entry]), catalog, TRIAGE, claim);
        (agent.level(), agent.standing.lowered.into_iter().map(|one| one.by).collect::<Vec<_>>())
    };
    let retired = Entry { ruling: ruling(Status::Retired), ..entry(TRIAGE) };
    assert_eq!(lowered(&catalog, retired, Claim::Unasked), (Autonomy::Observe, vec![LoweredBy::Retired]));

    catalog.rules = Rules { review_every: Some(Span(600)), ..Rules::default() };
    let never = vec![LoweredBy::Unreviewed { since: Timestamp(0) }];
    assert_eq!(lowered(&catalog, entry(TRIAGE), Claim::Unasked), (Autonomy::Observe, never));
    let reviewed = |at: i64, manifest| {
        let review = Review { at: Timestamp(at), by: "uid:0".into(), manifest, over: None };
        Entry { review: Some(review), ..entry(TRIAGE) }
    };
    let late = vec![LoweredBy::Unreviewed { since: Timestamp(1000) }];
    assert_eq!(lowered(&catalog, reviewed(400, None), Claim::Unasked), (Autonomy::Observe, late));
    assert_eq!(lowered(&catalog, reviewed(401, None), Claim::Unasked), (Autonomy::Act, vec![]));

    catalog.rules = Rules { on_drift: Autonomy::Propose, ..Rules::default() };
    let (one, other) = (digest("01"), digest("02"));
    let drift = |claimed| vec![LoweredBy::Drift { claimed, reviewed: one }];
    let after = |claim| lowered(&catalog, reviewed(1, Some(one)), claim);
    assert_eq!(after(Claim::Unasked), (Autonomy::Act, vec![]));
    assert_eq!(after(Claim::Of(Some(one))), (Autonomy::Act, vec![]));
    assert_eq!(after(Claim::Of(Some(other))), (Autonomy::Propose, drift(Some(other))));
    assert_eq!(after(Claim::Of(None)), (Autonomy::Propose, drift(None)), "saying nothing is a difference");
    assert_eq!(lowered(&catalog, entry(TRIAGE), Claim::Of(Some(one))), (Autonomy::Act, vec![]));
}

#[test]
fn a_review_holds_until_the_registration_names_another_manifest() {
    let (old, new, newest) = (digest("01"), digest("02"), digest("03"));
    let mut catalog = catalog();
    let mut put = |manifest| {
        let id: CallerId = TRIAGE.parse().unwrap();
        let terms = Terms { manifest: Some(manifest), ..terms("person:ana") };
        catalog.agents.insert(id.clone(), terms.agent(id));
        catalog.clone()
    };
    let review = Review { at: Timestamp(5), by: "uid:0".into(), manifest: Some(new), over: Some(old) };
    let book = Book::new([Entry { review: Some(review), ..entry(TRIAGE) }]);
    let manifest = |catalog: &Catalog| agent(&book, catalog, TRIAGE, Claim::Unasked).standing.manifest;
    assert_eq!(manifest(&put(old)), Some(new));
    assert_eq!(manifest(&put(newest)), Some(newest));
}

#[test]
fn patterns_that_overlap_are_found_wherever_they_come_from() {
    let (book, catalog) = (Book::default(), catalog());
    let check = |book: &Book, text: &str, expect: Option<&str>| {
        let found = book.overlapping(&catalog, &text.parse().unwrap()).map(ToString::to_string);
        assert_eq!(found.as_deref(), expect, "{text}");
    };
    check(&book, CI, None);
    check(&book, "spiffe://p.example/ci/a-*", Some(CI));
    let book = Book::new([Entry { terms: Some(terms("person:eve")), ..entry("spiffe://p.example/x/a*") }]);
    check(&book, "spiffe://p.example/x/*", Some("spiffe://p.example/x/a*"));
    check(&book, "spiffe://p.example/x/b*", None);
}

#[test]
fn the_broker_s_own_agent_is_nobody_s_to_review() {
    let mut catalog = catalog();
    catalog.agents.insert(CallerId::Drill, Agent::drill());
    catalog.rules = Rules { review_every: Some(Span(600)), ..Rules::default() };
    let book = Book::default();
    let drill = book.agent(&catalog, &CallerId::Drill, Timestamp(1000), Claim::Of(None)).unwrap();
    assert_eq!((drill.level(), drill.standing.lowered), (Autonomy::Act, vec![]));
    assert!(book.views(&catalog).iter().all(|view| view.who != Who::One(CallerId::Drill)));
}
