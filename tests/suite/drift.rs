//! Manifests: what an agent says that it runs may only lower what it may do (RULES R-18).

use leasehold_law::time::Timestamp;
use leasehold_proto::v1;
use tonic::Code;

use crate::registry::{TRIAGE, review, show};
use crate::world::{Client, Setup, WRITES, World, detail, open_request, reason, refused};

const READ: &str = "orders.read@orders";
const WRITE: &str = "orders.write@orders";

pub(crate) fn digest(byte: &str) -> String {
    format!("sha256:{}", byte.repeat(32))
}

/// `triage` is registered with the manifest `01..`.
pub(crate) fn setup() -> Setup {
    let agent = "[agents.\"spiffe://suite.leasehold.test/agent/triage\"]\n";
    let with = format!("{agent}manifest = \"{}\"\n", digest("01"));
    Setup::default().policy(WRITES).replace(agent, &with)
}

async fn open(agent: &mut Client, pairs: &[&str], manifest: Option<&str>) -> Result<v1::Task, tonic::Status> {
    let manifest = manifest.map(|byte| v1::Manifest { fingerprint: digest(byte) });
    agent.open_as(v1::OpenTaskRequest { manifest, ..open_request(pairs) }).await
}

async fn drifts_on_record(world: &World) -> usize {
    let store = world.running().broker.ledger().store();
    store.entries_with("agent.drifted", Timestamp(0), Timestamp(i64::MAX), 99).await.unwrap().len()
}

#[tokio::test]
async fn what_runs_something_else_than_was_reviewed_only_observes() {
    let world = World::with(setup()).await;
    let (mut agent, mut admin) = (world.agent("triage").await, world.admin().await);
    let task = open(&mut agent, &[READ, WRITE], Some("01")).await.unwrap();
    agent.lease(&task, WRITE).await.unwrap();
    assert_eq!((task.manifest.clone(), task.drift, drifts_on_record(&world).await), (digest("01"), false, 0));

    let denied = open(&mut agent, &[READ, WRITE], Some("02")).await.unwrap_err();
    assert_eq!((denied.code(), reason(&denied).as_str()), (Code::PermissionDenied, "BEYOND_AUTONOMY"));
    let (one, two) = (digest("01"), digest("02"));
    let why =
        format!("{TRIAGE} says that it runs {two}, and {one} was reviewed: it may only do what is read-only");
    assert_eq!(detail(&denied, "why"), why);
    let next = format!("person:ana has it reviewed: leasehold agents review {TRIAGE} --manifest {two}");
    assert_eq!(detail(&denied, "next"), next);
    let task = open(&mut agent, &[READ], Some("02")).await.unwrap();
    assert_eq!((task.manifest.clone(), task.drift), (digest("02"), true));
    agent.lease(&task, READ).await.unwrap();
    assert_eq!(drifts_on_record(&world).await, 1, "once for each manifest, not for each task");

    let silent = open(&mut agent, &[WRITE], None).await.unwrap_err();
    let why = format!(
        "{TRIAGE} does not say what it runs, and {one} was reviewed: it may only do what is read-only"
    );
    assert_eq!(detail(&silent, "why"), why);
    assert_eq!(drifts_on_record(&world).await, 2);

    let shown: Vec<_> = show(&mut admin, TRIAGE).await.drift.into_iter().map(|drift| drift.claimed).collect();
    assert_eq!(shown, [digest("02"), String::new()]);
    let status = admin.admin.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert!(status.drifting[0].starts_with(&format!("{TRIAGE} says that it runs nothing since ")));
    let who = agent.identity.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!((who.status.as_str(), who.drift.len()), ("active", 2));
}

#[tokio::test]
async fn a_review_accepts_what_runs_now_and_ends_what_ran_before() {
    let world = World::with(setup()).await;
    let (mut agent, mut admin) = (world.agent("triage").await, world.admin().await);
    let old = open(&mut agent, &[READ, WRITE], Some("01")).await.unwrap();
    let reading = agent.lease(&old, READ).await.unwrap().lease.unwrap().id;
    let writing = agent.lease(&old, WRITE).await.unwrap().lease.unwrap().id;
    refused(open(&mut agent, &[WRITE], Some("02")).await);
    assert_eq!(agent.look(&writing).await.state(), v1::LeaseState::Active, "its task runs what was reviewed");

    assert_eq!(review(&mut admin, TRIAGE, &digest("02")).await.unwrap().leases_ended, 1);
    let ended = agent.until_lease(&writing, v1::LeaseState::Revoked).await;
    assert_eq!(ended.cause(), v1::Cause::AgentChanged);
    assert_eq!(agent.look(&reading).await.state(), v1::LeaseState::Active, "what drifts may observe");
    assert!(agent.task(&old).await.drift);
    let new = open(&mut agent, &[WRITE], Some("02")).await.unwrap();
    agent.lease(&new, WRITE).await.unwrap();
    let shown = show(&mut admin, TRIAGE).await;
    assert_eq!((shown.manifest, shown.drift.len()), (digest("02"), 0));

    refused(open(&mut agent, &[WRITE], Some("03")).await);
    assert_eq!(drifts_on_record(&world).await, 2);
}

#[tokio::test]
async fn on_drift_says_how_far_an_agent_drops_and_it_never_rises() {
    let to =
        |level: &str| setup().replace("[people]", &format!("[registry]\non_drift = \"{level}\"\n[people]"));
    let world = World::with(to("propose")).await;
    let mut agent = world.agent("triage").await;
    let task = open(&mut agent, &[READ], Some("02")).await.unwrap();
    let denied = agent.lease(&task, READ).await.unwrap_err();
    assert!(detail(&denied, "why").ends_with("it may propose, and holds nothing"), "{denied:?}");

    let from = "groups = [\"soc\"]\nautonomy = \"act\"\n[agents";
    let observer = to("act").replace(from, "groups = [\"soc\"]\nautonomy = \"observe\"\n[agents");
    let world = World::with(observer).await;
    let mut agent = world.agent("triage").await;
    let denied = open(&mut agent, &[WRITE], Some("02")).await.unwrap_err();
    assert!(detail(&denied, "why").contains("is registered with autonomy observe"), "{denied:?}");
}

#[tokio::test]
async fn a_manifest_says_nothing_of_an_agent_that_none_is_registered_for() {
    let world = World::with(Setup::default().policy(WRITES)).await;
    let mut agent = world.agent("triage").await;
    let task = open(&mut agent, &[WRITE], Some("02")).await.unwrap();
    agent.lease(&task, WRITE).await.unwrap();
    assert_eq!((task.manifest, task.drift, drifts_on_record(&world).await), (digest("02"), false, 0));
}

#[tokio::test]
async fn an_agent_that_makes_up_manifests_fills_no_journal() {
    let world = World::with(setup()).await;
    let mut agent = world.agent("triage").await;
    for byte in 0x10..0x24 {
        open(&mut agent, &[READ], Some(&format!("{byte:02x}"))).await.unwrap();
    }
    assert_eq!(drifts_on_record(&world).await, 16);
}

#[tokio::test]
async fn what_is_no_digest_is_refused() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    for bad in ["", "sha256:01", "0101", &digest("0A"), &format!("{} ", digest("01"))] {
        let manifest = Some(v1::Manifest { fingerprint: bad.to_owned() });
        let answer = agent.open_as(v1::OpenTaskRequest { manifest, ..open_request(&[READ]) }).await;
        let status = answer.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, "BAD_REQUEST"),
            "{bad}"
        );
        assert_eq!(
            status.message(),
            "field manifest.fingerprint: a manifest's digest is `sha256:` and 64 lower-case hexadecimal digits; \
             print it with: leasehold agents digest FILE"
        );
    }
}
