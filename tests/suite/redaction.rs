//! No secret is to be found where it does not belong: a broker runs the whole flow and tells all it can, and every
//! place that outlives a call is searched.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use leasehold_proto::v1;
use rustix::process::Signal;

use crate::bearer::{Bearer, add_a_door, now, token};
use crate::child::{PAIR, Rig};
use crate::site::{ADMIN_PASSWORD, Site, login, login_config, works};
use crate::web::write_certificate;
use crate::world::{fresh_id, open_request, read, seconds};

/// What an agent says of its task: it is kept, and so it shows that the search finds what is kept.
const CANARY: &str = "canary-h7Wq2-in-the-purpose";

/// A secret in all the clothes that it could be found in.
struct Needle {
    what: String,
    forms: Vec<String>,
}

impl Needle {
    fn new(what: &str, secret: &[u8]) -> Self {
        assert!(secret.len() >= 8, "{what} is too short to be looked for");
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut forms = vec![characters(secret), hex.to_uppercase(), hex];
        forms.extend([STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD].map(|kind| kind.encode(secret)));
        // As a derived Debug prints bytes.
        forms.push(secret.iter().map(u8::to_string).collect::<Vec<_>>().join(", "));
        Self { what: what.to_owned(), forms }
    }

    fn is_in(&self, place: &Place) -> bool {
        self.forms.iter().any(|form| place.text.contains(form))
    }
}

/// Where to look, with something that must be found there.
struct Place {
    name: String,
    text: String,
    canary: &'static str,
}

impl Place {
    fn new(name: impl Into<String>, bytes: impl AsRef<[u8]>, canary: &'static str) -> Self {
        Self { name: name.into(), text: characters(bytes.as_ref()), canary }
    }
}

/// One character a byte, so that what is no text can be searched as fast as text.
fn characters(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

#[test]
fn the_search_finds_each_form() {
    let needle = Needle::new("a secret", b"abc-secret");
    let forms = [
        "abc-secret",
        "6162632d736563726574",
        "6162632D736563726574",
        "YWJjLXNlY3JldA",
        "97, 98, 99, 45, 115, 101",
    ];
    for form in forms {
        let found = needle.is_in(&Place::new("text", format!("<{form}, 99, 114, 101, 116]"), ""));
        assert!(found, "{form}");
    }
    assert!(!needle.is_in(&Place::new("text", "abc-secre", "")));
}

#[tokio::test]
async fn no_secret_is_found_where_it_does_not_belong() {
    let site = Site::shared();
    let mut rig = Rig::new(site, site.port()).await;
    rig.setup = add_a_door(std::mem::take(&mut rig.setup));
    write_certificate(rig.world.dir.path());
    rig.start(&[("RUST_LOG", "trace,h2=trace,tokio_postgres=trace,rustls=trace,hyper=trace")]).await;
    let mut needles = vec![Needle::new("the broker's password", ADMIN_PASSWORD.as_bytes())];
    needles.extend(key_needles(&rig));
    let (leased, answers) = walk(&rig, site).await;
    needles.extend(leased);
    needles.extend(come_with_tokens(&rig).await);

    let mut places = Vec::from(process_places(&rig));
    places.push(Place::new("answers and refusals", answers, CANARY));
    places.push(Place::new("the journal", rig.journal().await, CANARY));
    places.push(store_place(&rig, "the store of a running broker"));
    rig.signal(Signal::TERM);
    assert!(rig.exit().await.success());
    places.push(store_place(&rig, "the store of a broker that has stopped"));
    places.push(Place::new("the log", rig.log(), "stopping"));
    for place in &places {
        assert!(place.text.contains(place.canary), "the search is blind in {}", place.name);
        for needle in &needles {
            assert!(!needle.is_in(place), "{} is in {}", needle.what, place.name);
        }
    }
}

fn key_needles(rig: &Rig) -> [Needle; 2] {
    let text = read(&rig.world.path("installation.key"));
    let digits = text.lines().nth(1).unwrap();
    let pairs = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
    let bytes: Vec<u8> = pairs.collect();
    assert_eq!(bytes.len(), 32);
    [Needle::new("the installation key", &bytes), Needle::new("the key's digits", digits.as_bytes())]
}

/// Everything that agents and operators do. Gives the secrets that were leased, and all that was said beside them.
async fn walk(rig: &Rig, site: &Site) -> (Vec<Needle>, String) {
    let mut agent = rig.agent().await;
    let mut said = Vec::new();
    let request = v1::OpenTaskRequest { purpose: CANARY.into(), ..open_request(&[PAIR]) };
    let task = agent.open_as(request).await.unwrap();
    said.push(format!("{task:?}"));
    let mut needles = Vec::new();
    let mut leases = Vec::new();
    for _ in 0..3 {
        let granted = agent.lease(&task, PAIR).await.unwrap();
        said.push(format!("{granted:?}"));
        let credential = granted.credential.unwrap();
        needles.push(Needle::new("a leased password", &credential.secret["password"]));
        assert!(works(&login(&login_config(&credential)).await.unwrap()).await);
        needles.extend(verifier_needles(site, &credential.public["user"]).await);
        leases.push(granted.lease.unwrap().id);
    }
    let renewal =
        v1::RenewLeaseRequest { lease: leases[0].clone(), ttl: seconds(900), request_id: fresh_id() };
    said.push(format!("{:?}", agent.leases.renew_lease(renewal).await.unwrap()));
    let release = v1::ReleaseLeaseRequest { lease: leases[1].clone(), wait: seconds(20) };
    said.push(format!("{:?}", agent.leases.release_lease(release).await.unwrap()));
    let gone = v1::RenewLeaseRequest { lease: leases[1].clone(), ttl: None, request_id: fresh_id() };
    said.push(format!("{:?}", agent.leases.renew_lease(gone).await.unwrap_err()));
    said.push(target_refuses(rig, site, &task).await);
    said.push(format!("{:?}", agent.complete(&task).await.unwrap()));
    said.push(format!("{:?}", agent.lease(&task, PAIR).await.unwrap_err()));
    said.push(format!("{:?} {:?}", rig.check_target().await, rig.leases().await));
    (needles, said.join("\n"))
}

/// A token that is accepted, one that is not, and a proof of each: none of them is anybody's to keep.
async fn come_with_tokens(rig: &Rig) -> Vec<Needle> {
    let log = rig.log();
    let door = log.split("bearer=\"").nth(1).unwrap().split('"').next().unwrap();
    let (world, bearer) = (&rig.world, Bearer::at(&rig.world, door).await);
    let good = token(world, |_| {});
    let bad = token(world, |claims| claims["aud"] = "other".into());
    assert!(bearer.come_with(&good, now(world)).await.is_ok());
    assert!(bearer.come_with(&bad, now(world)).await.is_err());
    // One that an agent brings, which is refused.
    let brought = token(world, |claims| claims["aud"] = "for-people".into());
    let on_behalf_of = Some(v1::OnBehalfOf { token: brought.clone() });
    let request = v1::OpenTaskRequest { on_behalf_of, ..open_request(&[PAIR]) };
    assert!(rig.agent().await.open_as(request).await.is_err());
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    [good, bad, brought].iter().map(|token| Needle::new("a token", signature(token).as_bytes())).collect()
}

/// What PostgreSQL keeps of a password: whoever has it can guess offline.
async fn verifier_needles(site: &Site, role: &str) -> Option<Needle> {
    let query = "SELECT rolpassword FROM pg_authid WHERE rolname = $1::text::name";
    let verifier: String = site.root().await.query_one(query, &[&role]).await.unwrap().get(0);
    assert!(verifier.starts_with("SCRAM-SHA-256$"), "no verifier");
    verifier.rsplit('$').next().map(|keys| Needle::new("a verifier's keys", keys.as_bytes()))
}

/// A mint that the server refuses in the middle, statement and all.
async fn target_refuses(rig: &Rig, site: &Site, task: &v1::Task) -> String {
    let root = site.root().await;
    // Whoever creates a role of this mark is refused: the mint fails when its settings are written.
    let locked = "BEGIN; LOCK TABLE pg_db_role_setting IN ACCESS EXCLUSIVE MODE";
    root.batch_execute(locked).await.unwrap();
    let refused = rig.agent().await.lease(task, PAIR).await.unwrap_err();
    root.batch_execute("ROLLBACK").await.unwrap();
    format!("{refused:?}")
}

fn process_places(rig: &Rig) -> [Place; 2] {
    let bytes = |name: &str| std::fs::read(format!("/proc/{}/{name}", rig.pid())).unwrap();
    [
        Place::new("the arguments", bytes("cmdline"), "--config"),
        Place::new("the environment", bytes("environ"), "RUST_LOG=trace"),
    ]
}

/// All files of the store, whatever they are called.
fn store_place(rig: &Rig, name: &str) -> Place {
    let mut bytes = Vec::new();
    for path in files(&rig.world.path("store")) {
        bytes.extend(std::fs::read(path).unwrap());
    }
    Place::new(name, bytes, CANARY)
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}
