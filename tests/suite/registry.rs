//! The registry of agents while the broker runs: applied, suspended, reviewed, offboarded, and by pattern.

use leasehold::dev::trust_domain::DevIdentity;
use leasehold_client::channel::connect_spiffe;
use leasehold_law::time::Timestamp;
use leasehold_proto::v1;
use tonic::{Code, Status};

use crate::shared::{first, second, write_url};
use crate::site::Site;
use crate::world::{Client, PATIENCE, Setup, WRITES, World, detail, eventually, reason, refused};

const READ: &str = "orders.read@orders";
const WRITE: &str = "orders.write@orders";
pub(crate) const TRIAGE: &str = "spiffe://suite.leasehold.test/agent/triage";
const NOBODY: &str = "spiffe://suite.leasehold.test/agent/nobody";
const CI: &str = "spiffe://suite.leasehold.test/agent/ci-*";
const PATTERN: &str = "[agents.\"spiffe://suite.leasehold.test/agent/ci-*\"]\nowner = \"person:ben\"\n\
                       groups = [\"soc\"]\nautonomy = \"act\"\n";

type Changed = Result<v1::ChangeAgentsResponse, Status>;

pub(crate) async fn set(admin: &mut Client, agent: &str, status: v1::AgentStatus) -> Changed {
    let (agent, reason) = (agent.to_owned(), "a test".to_owned());
    let request = v1::SetAgentStatusRequest { agent, status: status.into(), reason };
    Ok(admin.agents.set_agent_status(request).await?.into_inner())
}

pub(crate) async fn review(admin: &mut Client, agent: &str, manifest: &str) -> Changed {
    let (agent, manifest) = (agent.to_owned(), manifest.to_owned());
    let request = v1::ReviewAgentRequest { agent, manifest, reason: String::new() };
    Ok(admin.agents.review_agent(request).await?.into_inner())
}

async fn apply(admin: &mut Client, text: &str, dry_run: bool) -> Changed {
    let (file, text, reason) = ("team.toml".to_owned(), text.to_owned(), String::new());
    let request = v1::ApplyAgentsRequest { file, text, dry_run, reason };
    Ok(admin.agents.apply_agents(request).await?.into_inner())
}

pub(crate) async fn show(admin: &mut Client, agent: &str) -> v1::RegisteredAgent {
    admin.agents.get_agent(v1::GetAgentRequest { agent: agent.to_owned() }).await.unwrap().into_inner()
}

fn words(changed: Changed) -> Vec<(String, String)> {
    let changes = changed.unwrap().changes.into_iter();
    changes.map(|one| (one.agent.rsplit('/').next().unwrap().to_owned(), one.change)).collect()
}

fn said(word: &str) -> Vec<(String, String)> {
    word.split(' ').filter_map(|one| one.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect()
}

/// An agent with a path of its own. It holds its identity for as long as it is kept.
async fn newcomer(world: &World, path: &str) -> (DevIdentity, Client) {
    let identity = world.domain.serve(&path.replace('/', "-"), &format!("/agent/{path}")).await.unwrap();
    let address = world.running().agents.to_string();
    let channel = connect_spiffe(&identity.endpoint(), &address, None, PATIENCE).await.unwrap();
    (identity, Client::new(channel))
}

fn table(id: &str, groups: &str) -> String {
    format!("[agents.\"{id}\"]\nowner = \"person:ana\"\ngroups = [{groups}]\nautonomy = \"act\"\n")
}

#[tokio::test]
async fn a_suspended_agent_gets_nothing_and_may_give_back() {
    let world = World::new().await;
    let (mut agent, mut admin) = (world.agent("triage").await, world.operator("admin").await);
    let task = agent.open(&[READ]).await.unwrap();
    let lease = agent.lease(&task, READ).await.unwrap().lease.unwrap().id;
    let done = set(&mut admin, TRIAGE, v1::AgentStatus::Suspended).await.unwrap();
    assert_eq!(done.leases_ended, 1);
    assert_eq!(words(Ok(done)), said("triage=suspended"));
    let ended = agent.until_lease(&lease, v1::LeaseState::Revoked).await;
    assert_eq!(ended.cause(), v1::Cause::AgentChanged);

    let denied = agent.lease(&task, READ).await.unwrap_err();
    assert_eq!((denied.code(), reason(&denied).as_str()), (Code::PermissionDenied, "AGENT_STOPPED"));
    let why = detail(&denied, "why");
    let by = "by spiffe://suite.leasehold.test/operator/admin: \"a test\"";
    assert!(why.starts_with(&format!("{TRIAGE} is suspended since ")) && why.ends_with(by), "{why}");
    let next = format!("an admin lets it work again with: leasehold agents resume {TRIAGE} --reason R");
    assert_eq!(detail(&denied, "next"), next);
    assert_eq!(refused(agent.open(&[READ]).await).1, "AGENT_STOPPED");

    assert_eq!(agent.look(&lease).await.state(), v1::LeaseState::Revoked, "it may read");
    assert_eq!(agent.complete(&task).await.unwrap().pending, [] as [String; 0], "and give back");
    let mut other = world.agent("other").await;
    other.open(&[READ]).await.unwrap();

    assert_eq!(words(set(&mut admin, TRIAGE, v1::AgentStatus::Suspended).await), said("triage="));
    assert_eq!(words(set(&mut admin, TRIAGE, v1::AgentStatus::Active).await), said("triage=resumed"));
    let task = agent.open(&[READ]).await.unwrap();
    agent.lease(&task, READ).await.unwrap();
}

#[tokio::test]
async fn who_is_in_quarantine_is_reviewed_before_it_works_again() {
    let world = World::new().await;
    let (mut agent, mut admin) = (world.agent("triage").await, world.admin().await);
    set(&mut admin, TRIAGE, v1::AgentStatus::Quarantined).await.unwrap();
    let weaker = set(&mut admin, TRIAGE, v1::AgentStatus::Suspended).await.unwrap_err();
    assert_eq!((weaker.code(), reason(&weaker).as_str()), (Code::FailedPrecondition, "REGISTRATION_STANDS"));
    assert_eq!(detail(&weaker, "why"), "it is quarantined, which is stricter than suspended");
    let early = set(&mut admin, TRIAGE, v1::AgentStatus::Active).await.unwrap_err();
    assert!(detail(&early, "why").ends_with("and nobody has reviewed it since"), "{early:?}");
    assert_eq!(detail(&early, "next"), format!("leasehold agents review {TRIAGE} --reason R, then again"));
    world.pass(1);
    review(&mut admin, TRIAGE, "").await.unwrap();
    assert_eq!(refused(agent.open(&[READ]).await).1, "AGENT_STOPPED", "a review alone resumes nobody");
    set(&mut admin, TRIAGE, v1::AgentStatus::Active).await.unwrap();
    agent.open(&[READ]).await.unwrap();
}

#[tokio::test]
async fn a_retired_agent_only_observes() {
    let world = World::with(Setup::default().policy(WRITES)).await;
    let (mut agent, mut admin) = (world.agent("triage").await, world.admin().await);
    let task = agent.open(&[READ, WRITE]).await.unwrap();
    let reading = agent.lease(&task, READ).await.unwrap().lease.unwrap().id;
    let writing = agent.lease(&task, WRITE).await.unwrap().lease.unwrap().id;
    assert_eq!(set(&mut admin, TRIAGE, v1::AgentStatus::Retired).await.unwrap().leases_ended, 1);
    agent.until_lease(&writing, v1::LeaseState::Revoked).await;
    assert_eq!(agent.look(&reading).await.state(), v1::LeaseState::Active);
    let denied = agent.lease(&task, WRITE).await.unwrap_err();
    assert_eq!((denied.code(), reason(&denied).as_str()), (Code::PermissionDenied, "BEYOND_AUTONOMY"));
    assert_eq!(detail(&denied, "why"), format!("{TRIAGE} is retired: it may only do what is read-only"));
    agent.lease(&task, READ).await.unwrap();
    let shown = show(&mut admin, TRIAGE).await;
    assert_eq!(
        (shown.status(), shown.lowered),
        (v1::AgentStatus::Retired, vec!["observe: is retired".into()])
    );
}

#[tokio::test]
async fn an_agent_that_nobody_reviews_only_observes() {
    let setup =
        Setup::default().policy(WRITES).replace("[people]", "[registry]\nreview_every = \"1d\"\n[people]");
    let world = World::with(setup).await;
    let (mut agent, mut admin) = (world.agent("triage").await, world.admin().await);
    agent.open(&[READ]).await.unwrap();
    let never = agent.open(&[WRITE]).await.unwrap_err();
    assert_eq!(reason(&never), "BEYOND_AUTONOMY");
    assert_eq!(
        detail(&never, "why"),
        format!("{TRIAGE} was never reviewed: it may only do what is read-only")
    );
    assert_eq!(words(review(&mut admin, TRIAGE, "").await), said("triage=reviewed"));
    agent.open(&[WRITE]).await.unwrap();
    world.pass(25 * 3600);
    let late = agent.open(&[WRITE]).await.unwrap_err();
    assert!(detail(&late, "why").starts_with(&format!("{TRIAGE} was to be reviewed by 2")), "{late:?}");
    assert_eq!(
        detail(&late, "next"),
        format!("person:ana has it reviewed: leasehold agents review {TRIAGE}")
    );
}

#[tokio::test]
async fn what_an_agent_holds_beyond_observe_ends_when_its_review_falls_due() {
    let setup =
        Setup::default().policy(WRITES).replace("[people]", "[registry]\nreview_every = \"1d\"\n[people]");
    let world = World::with(setup).await;
    let (mut agent, mut admin) = (world.agent("triage").await, world.admin().await);
    review(&mut admin, TRIAGE, "").await.unwrap();
    world.pass(24 * 3600 - 120);
    let task = agent.open(&[READ, WRITE]).await.unwrap();
    let read = agent.lease(&task, READ).await.unwrap().lease.unwrap().id;
    let write = agent.lease(&task, WRITE).await.unwrap().lease.unwrap().id;
    assert_eq!(agent.look(&write).await.state(), v1::LeaseState::Active);
    world.pass(121);
    let ended = agent.until_lease(&write, v1::LeaseState::Revoked).await;
    assert_eq!(ended.cause(), v1::Cause::AgentChanged);
    assert_eq!(agent.look(&read).await.state(), v1::LeaseState::Active, "it may observe");
    review(&mut admin, TRIAGE, "").await.unwrap();
    agent.lease(&task, WRITE).await.unwrap();
}

#[tokio::test]
async fn levels_of_autonomy_bound_what_policy_permits() {
    let level = |level: &str| {
        let agent = "[agents.\"spiffe://suite.leasehold.test/agent/triage\"]\nowner = \"person:ana\"\n\
                     groups = [\"soc\"]\nautonomy = ";
        let (from, to) = (format!("{agent}\"act\""), format!("{agent}\"{level}\""));
        Setup::default().policy(WRITES).replace(&from, &to)
    };
    let world = World::with(level("observe")).await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    agent.lease(&task, READ).await.unwrap();
    let denied = agent.open(&[WRITE]).await.unwrap_err();
    let why = format!("{TRIAGE} is registered with autonomy observe: it may only do what is read-only");
    assert_eq!((reason(&denied).as_str(), detail(&denied, "why")), ("BEYOND_AUTONOMY", why));

    let world = World::with(level("propose")).await;
    let mut agent = world.agent("triage").await;
    let (intent, target) = ("orders.write".into(), "orders".into());
    let propose = v1::ProposeRequest { intent, target, ..v1::ProposeRequest::default() };
    let told = agent.leases.propose(propose).await.unwrap().into_inner().decision.unwrap();
    assert_eq!(told.outcome(), v1::decision::Outcome::Allow);
    let task = agent.open(&[READ, WRITE]).await.unwrap();
    let denied = agent.lease(&task, READ).await.unwrap_err();
    let why = format!("{TRIAGE} is registered with autonomy propose: it may propose, and holds nothing");
    assert_eq!((reason(&denied).as_str(), detail(&denied, "why")), ("BEYOND_AUTONOMY", why));
}

#[tokio::test]
async fn a_file_of_agents_is_applied_whole_and_once() {
    let setup = Setup::default().policy(WRITES);
    let mut world = World::with(setup).await;
    let mut admin = world.admin().await;
    let mut agent = world.agent("nobody").await;
    let file = table(NOBODY, "\"soc\"");
    assert_eq!(words(apply(&mut admin, &file, true).await), said("nobody=registered"));
    assert_eq!(refused(agent.open(&[READ]).await).1, "UNKNOWN_AGENT", "a dry run registers nobody");
    assert_eq!(words(apply(&mut admin, &file, false).await), said("nobody=registered"));
    let task = agent.open(&[READ]).await.unwrap();
    let lease = agent.lease(&task, READ).await.unwrap().lease.unwrap().id;
    assert_eq!(words(apply(&mut admin, &file, false).await), said("nobody="), "nothing is changed twice");

    let fields = refused_file(&mut admin, &(table(NOBODY, "") + &table(TRIAGE, ""))).await;
    let line =
        format!("team.toml:5:9: the config defines `{TRIAGE}`: change it there, and restart the broker");
    assert_eq!(fields, [line]);
    let three = format!("{}[registry]\n[operators]\n", table(TRIAGE, ""));
    assert_eq!(refused_file(&mut admin, &three).await.len(), 3, "all at once");
    let file = world.path("three.toml");
    std::fs::write(&file, &three).unwrap();
    let (exit, told) = world.command(&["agents", "apply", file.to_str().unwrap()]).await;
    assert_eq!(exit, Some(2), "{told}");
    for said in
        ["3 problems in that file, and nothing was applied", "the config defines", "`registry` belongs in"]
    {
        assert!(told.contains(said), "{said}: {told}");
    }
    assert_eq!(show(&mut admin, NOBODY).await.groups, ["soc"], "all of a file, or nothing");

    world.stop().await;
    world.start(&Setup::default().policy(WRITES)).await.unwrap();
    let (mut admin, mut agent) = (world.admin().await, world.agent("nobody").await);
    let shown = show(&mut admin, NOBODY).await;
    assert_eq!((shown.source(), shown.owner.as_str()), (v1::AgentSource::Applied, "person:ana"));
    assert!(shown.reviewed_at.is_some(), "who applies it has looked at it");
    assert_eq!(agent.look(&lease).await.state(), v1::LeaseState::Active, "a restart changes nothing");
    let done = apply(&mut admin, &table(NOBODY, ""), false).await.unwrap();
    assert_eq!((done.leases_ended, done.changes[0].change.as_str()), (1, "changed"));
    let ended = agent.until_lease(&lease, v1::LeaseState::Revoked).await;
    assert_eq!(ended.cause(), v1::Cause::AgentChanged);
    world.stop().await;
}

async fn refused_file(admin: &mut Client, text: &str) -> Vec<String> {
    use tonic_types::StatusExt as _;
    let status = apply(admin, text, false).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "BAD_REQUEST"));
    let fields = status.get_details_bad_request().unwrap().field_violations;
    fields.into_iter().map(|field| field.description).collect()
}

#[tokio::test]
async fn each_agent_of_a_pattern_is_its_own() {
    let setup = Setup::default().replace(
        "[agents.\"spiffe://suite.leasehold.test/agent/triage\"]",
        &(PATTERN.to_owned() + "[agents.\"spiffe://suite.leasehold.test/agent/triage\"]"),
    );
    let world = World::with(setup).await;
    let mut admin = world.admin().await;
    let (_seven, mut seven) = newcomer(&world, "ci-7").await;
    let (_eight, mut eight) = newcomer(&world, "ci-8").await;
    let (_clever, mut clever) = newcomer(&world, "ci-7/admin").await;
    assert_eq!(refused(clever.open(&[READ]).await).1, "UNKNOWN_AGENT");
    let id = CI.replace('*', "7");
    let task = seven.open(&[READ]).await.unwrap();
    let lease = seven.lease(&task, READ).await.unwrap().lease.unwrap();
    assert_eq!(task.agent, id, "rows hold the identity, not the pattern");
    assert_eq!(
        refused(eight.leases.get_lease(v1::GetLeaseRequest { lease: lease.id.clone() }).await).1,
        "NOT_FOUND"
    );
    let shown = show(&mut admin, &id).await;
    assert_eq!((shown.source(), shown.pattern.as_str()), (v1::AgentSource::Pattern, CI));
    let find = v1::FindRequest { text: "person:ben".into(), ..v1::FindRequest::default() };
    let found = admin.audit.find(find).await.unwrap().into_inner().hits;
    assert!(found.iter().any(|hit| hit.agent == id), "an owner leads to an agent of a pattern: {found:?}");

    assert_eq!(set(&mut admin, &id, v1::AgentStatus::Suspended).await.unwrap().leases_ended, 1);
    assert_eq!(refused(seven.open(&[READ]).await).1, "AGENT_STOPPED");
    let task = eight.open(&[READ]).await.unwrap();
    let lease = eight.lease(&task, READ).await.unwrap().lease.unwrap().id;
    assert_eq!(set(&mut admin, CI, v1::AgentStatus::Suspended).await.unwrap().leases_ended, 1);
    eight.until_lease(&lease, v1::LeaseState::Revoked).await;
    let alone = set(&mut admin, &CI.replace('*', "8"), v1::AgentStatus::Active).await.unwrap_err();
    assert_eq!(detail(&alone, "why"), format!("every agent of `{CI}` is suspended"));
    set(&mut admin, CI, v1::AgentStatus::Active).await.unwrap();
    eight.open(&[READ]).await.unwrap();
    assert_eq!(refused(seven.open(&[READ]).await).1, "AGENT_STOPPED", "it was suspended by itself too");
}

#[tokio::test]
async fn who_leaves_takes_the_agents_along() {
    let setup = Setup::default().replace(
        "[agents.\"spiffe://suite.leasehold.test/agent/triage\"]",
        &(PATTERN.to_owned() + "[agents.\"spiffe://suite.leasehold.test/agent/triage\"]"),
    );
    let world = World::with(setup).await;
    let (mut triage, mut other, mut admin) =
        (world.agent("triage").await, world.agent("other").await, world.admin().await);
    let (_seven, mut seven) = newcomer(&world, "ci-7").await;
    let mut leases = Vec::new();
    for agent in [&mut triage, &mut other, &mut seven] {
        let task = agent.open(&[READ]).await.unwrap();
        leases.push(agent.lease(&task, READ).await.unwrap().lease.unwrap().id);
    }
    let leave = |owner: &str| v1::OffboardOwnerRequest { owner: owner.to_owned(), reason: "left".to_owned() };
    let done = admin.agents.offboard_owner(leave("person:ben")).await.unwrap().into_inner();
    assert_eq!(done.leases_ended, 2);
    assert_eq!(words(Ok(done)), said("other=suspended ci-*=suspended"));
    other.until_lease(&leases[1], v1::LeaseState::Revoked).await;
    seven.until_lease(&leases[2], v1::LeaseState::Revoked).await;
    assert_eq!(triage.look(&leases[0]).await.state(), v1::LeaseState::Active);
    assert_eq!(refused(seven.open(&[READ]).await).1, "AGENT_STOPPED");
    let stranger = refused(admin.agents.offboard_owner(leave("person:eve")).await);
    assert_eq!(stranger, (Code::NotFound, "NOT_FOUND".into()));
    let list = v1::ListAgentsRequest { owner: "person:ben".into(), ..v1::ListAgentsRequest::default() };
    let listed = admin.agents.list_agents(list).await.unwrap().into_inner().agents;
    assert!(listed.iter().all(|agent| agent.status() == v1::AgentStatus::Suspended), "{listed:?}");
}

#[tokio::test]
async fn an_owner_s_revocation_takes_the_leases_of_patterns() {
    let setup = Setup::default().replace(
        "[agents.\"spiffe://suite.leasehold.test/agent/triage\"]",
        &(PATTERN.to_owned() + "[agents.\"spiffe://suite.leasehold.test/agent/triage\"]"),
    );
    let world = World::with(setup).await;
    let (mut triage, mut admin) = (world.agent("triage").await, world.admin().await);
    let (_seven, mut seven) = newcomer(&world, "ci-7").await;
    let mut leases = Vec::new();
    for agent in [&mut triage, &mut seven] {
        let task = agent.open(&[READ]).await.unwrap();
        leases.push(agent.lease(&task, READ).await.unwrap().lease.unwrap().id);
    }
    let selector = Some(v1::Selector { kind: Some(v1::selector::Kind::Owner("person:ben".into())) });
    let revoke = v1::RevokeRequest { selector, reason: "a test".into(), ..v1::RevokeRequest::default() };
    admin.revocations.revoke(revoke).await.unwrap().into_inner().message().await.unwrap().unwrap();
    seven.until_lease(&leases[1], v1::LeaseState::Revoked).await;
    assert_eq!(triage.look(&leases[0]).await.state(), v1::LeaseState::Active);
}

#[tokio::test]
async fn what_config_says_of_a_status_is_changed_there() {
    let setup = Setup::default().replace(
        "groups = [\"soc\"]\nautonomy = \"act\"\n[agents",
        "groups = [\"soc\"]\nautonomy = \"act\"\nstatus = \"suspended\"\n[agents",
    );
    let world = World::with(setup).await;
    let (mut agent, mut admin) = (world.agent("triage").await, world.admin().await);
    let denied = agent.open(&[READ]).await.unwrap_err();
    assert_eq!(detail(&denied, "why"), format!("{TRIAGE} is registered as suspended"));
    assert_eq!(detail(&denied, "next"), "person:ana registered it, and can say why");
    let stands = set(&mut admin, TRIAGE, v1::AgentStatus::Active).await.unwrap_err();
    assert_eq!(reason(&stands), "REGISTRATION_STANDS");
    assert_eq!(detail(&stands, "next"), format!("change status under [agents.\"{TRIAGE}\"] in the config"));
    for unknown in [NOBODY, "leasehold/drill", CI] {
        let answer = refused(set(&mut admin, unknown, v1::AgentStatus::Suspended).await);
        assert_eq!(answer, (Code::NotFound, "NOT_FOUND".into()), "{unknown}");
    }
}

#[tokio::test]
async fn what_is_done_to_a_registration_is_on_record_with_who_did_it() {
    let world = World::new().await;
    let mut admin = world.operator("admin").await;
    apply(&mut admin, &table(NOBODY, ""), false).await.unwrap();
    set(&mut admin, NOBODY, v1::AgentStatus::Retired).await.unwrap();
    review(&mut admin, NOBODY, "").await.unwrap();
    let store = world.running().broker.ledger().store();
    for kind in ["agent.registered", "agent.retired", "agent.reviewed"] {
        let found = store.entries_with(kind, Timestamp(0), Timestamp(i64::MAX), 9).await.unwrap();
        let body = String::from_utf8(found[0].body.clone()).unwrap();
        assert_eq!(found.len(), 1, "{kind}");
        assert!(body.contains("operator/admin") && body.contains(NOBODY), "{body}");
    }
}

#[tokio::test]
async fn brokers_of_one_store_have_one_registry() {
    let world = World::prepare(&Setup::default()).await;
    let (_, url) = Site::shared().store().await;
    write_url(&world, &url);
    let a = world.start_another(&first(Setup::default())).await.unwrap();
    let b = world.start_another(&second(Setup::default())).await.unwrap();
    let (mut agent, mut admin) = (world.agent_at("triage", &a).await, world.operator_at("admin", &b).await);
    let task = agent.open(&[READ]).await.unwrap();
    let lease = agent.lease(&task, READ).await.unwrap().lease.unwrap().id;
    assert_eq!(set(&mut admin, TRIAGE, v1::AgentStatus::Suspended).await.unwrap().leases_ended, 1);
    let denied = refused(agent.lease(&task, READ).await);
    assert_eq!(denied.1, "AGENT_STOPPED", "the other broker decides by it from the next request on");
    agent.until_lease(&lease, v1::LeaseState::Revoked).await;
    apply(&mut admin, &table(NOBODY, "\"soc\""), false).await.unwrap();
    let newcomer = world.agent_at("nobody", &a).await;
    eventually("the other broker hears of a new agent", || {
        let mut newcomer = newcomer.clone();
        async move { newcomer.open(&[READ]).await.is_ok() }
    })
    .await;
    a.stop().await;
    b.stop().await;
}
