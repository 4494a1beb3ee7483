//! What operators stop by: each selector takes its own and leaves the rest, shows it before, freezes it, and is lifted.

use leasehold_proto::v1;
use leasehold_proto::v1::selector::Kind;
use tonic::Code;

use crate::stopping::{lift, revoke, run};
use crate::world::{Client, World, detail, open_request, reason, refused};

const TRIAGE: &str = "spiffe://suite.leasehold.test/agent/triage";
const OTHER: &str = "spiffe://suite.leasehold.test/agent/other";
const READ: &str = "orders.read@orders";
const STOCK: &str = "stock.read@stock";

/// An agent with a task over both targets and a lease on each.
struct Worker {
    agent: Client,
    task: v1::Task,
    leases: Vec<String>,
}

impl Worker {
    /// `run` is what its task refers to.
    async fn of(world: &World, name: &str, run: &str) -> Self {
        let mut agent = world.agent(name).await;
        let refs = [("run".to_owned(), run.to_owned())].into();
        let request = v1::OpenTaskRequest { refs, ..open_request(&[READ, STOCK]) };
        let task = agent.open_as(request).await.unwrap();
        let mut worker = Self { agent, task, leases: Vec::new() };
        worker.ask_again().await;
        worker
    }

    /// A new lease on each target, for those that it has.
    async fn ask_again(&mut self) {
        for lease in self.leases.drain(..) {
            self.agent.release(&lease).await.unwrap();
        }
        for pair in [READ, STOCK] {
            self.leases.push(self.agent.lease(&self.task, pair).await.unwrap().lease.unwrap().id);
        }
    }

    /// Whether each lease is usable, the one on orders first.
    async fn usable(&mut self) -> [bool; 2] {
        let mut usable = [false; 2];
        for (usable, lease) in usable.iter_mut().zip(&self.leases) {
            *usable = self.agent.look(lease).await.state() == v1::LeaseState::Active;
        }
        usable
    }

    /// Whether it may ask for each, and is otherwise told which revocation stands in its way.
    async fn may_ask(&mut self, revocation: &str) -> [bool; 2] {
        let mut may = [false; 2];
        for (may, pair) in may.iter_mut().zip([READ, STOCK]) {
            match self.agent.lease(&self.task, pair).await {
                Ok(granted) => {
                    *may = true;
                    self.agent.release(&granted.lease.unwrap().id).await.unwrap();
                }
                Err(status) => {
                    assert_eq!((status.code(), reason(&status)), (Code::PermissionDenied, "FROZEN".into()));
                    assert_eq!(detail(&status, "revocation"), revocation);
                }
            }
        }
        may
    }
}

fn reference(value: &str) -> Kind {
    Kind::Ref(v1::Ref { key: "run".into(), value: value.into() })
}

/// What stays of the leases of `triage` and of `other`, on orders and on stock each.
type Left = [[bool; 2]; 2];

#[tokio::test]
async fn each_selector_takes_its_own_and_freezes_it_until_it_is_lifted() {
    let world = World::new().await;
    let (mut revoker, mut admin) = (world.operator("revoker").await, world.admin().await);
    let mut triage = Worker::of(&world, "triage", "1").await;
    let mut other = Worker::of(&world, "other", "2").await;
    let cases: [(Kind, Left); 8] = [
        (Kind::Agent(OTHER.into()), [[true; 2], [false; 2]]),
        (Kind::Owner("person:ana".into()), [[false; 2], [true; 2]]),
        (Kind::Owner("group:data".into()), [[true; 2], [true; 2]]),
        (Kind::Target("stock".into()), [[true, false], [true, false]]),
        (Kind::Intent("orders.read".into()), [[false, true], [false, true]]),
        (reference("2"), [[true; 2], [false; 2]]),
        (reference("3"), [[true; 2], [true; 2]]),
        (Kind::All(v1::All {}), [[false; 2], [false; 2]]),
    ];
    for (kind, left) in cases {
        let taken = left.concat().iter().filter(|left| !**left).count();
        let request = revoke(kind.clone());
        let dry = v1::RevokeRequest { dry_run: true, ..request.clone() };
        let radius = run(&mut revoker, dry).await.unwrap().remove(0).revocation.unwrap();
        assert_eq!((radius.outcomes.len(), radius.frozen, radius.id.as_str()), (taken, true, ""), "{kind:?}");
        assert_eq!([triage.usable().await, other.usable().await], [[true; 2]; 2], "a dry run takes nothing");

        let told = run(&mut revoker, request).await.unwrap();
        let last = told.last().unwrap();
        let revocation = last.revocation.clone().unwrap();
        let counts = revocation.counts.unwrap();
        assert!(last.done && revocation.frozen, "{kind:?}");
        assert_eq!((counts.total as usize, counts.confirmed as usize), (taken, taken), "{kind:?}");
        assert_eq!(revocation.selector.unwrap().kind, Some(kind.clone()));
        assert_eq!([triage.usable().await, other.usable().await], left, "{kind:?}");
        let may = [triage.may_ask(&revocation.id).await, other.may_ask(&revocation.id).await];
        assert_eq!(may, left, "{kind:?}: nothing new is issued to what it froze, and all else goes on");

        lift(&mut admin, &revocation.id).await.unwrap();
        triage.ask_again().await;
        other.ask_again().await;
    }
}

#[tokio::test]
async fn a_wide_selector_may_leave_no_barrier() {
    let world = World::new().await;
    let mut revoker = world.operator("revoker").await;
    let mut triage = Worker::of(&world, "triage", "1").await;
    let request = v1::RevokeRequest { freeze: Some(false), ..revoke(Kind::All(v1::All {})) };
    run(&mut revoker, request).await.unwrap();
    assert_eq!(triage.usable().await, [false; 2]);
    triage.ask_again().await;
}

#[tokio::test]
async fn the_kill_switch_stops_tasks_dry_runs_and_renewals_too() {
    let world = World::new().await;
    let (mut revoker, mut admin) = (world.operator("revoker").await, world.admin().await);
    let mut triage = Worker::of(&world, "triage", "1").await;
    let told = run(&mut revoker, revoke(Kind::Target("stock".into()))).await.unwrap();
    let stock = told.last().unwrap().revocation.clone().unwrap().id;
    let lease = triage.leases[0].clone();
    triage.agent.renew(&lease, 700).await.unwrap();
    let told = run(&mut revoker, revoke(Kind::All(v1::All {}))).await.unwrap();
    let all = told.last().unwrap().revocation.clone().unwrap().id;
    let frozen = (Code::PermissionDenied, "FROZEN".to_owned());
    assert_eq!(refused(triage.agent.open(&[READ]).await), frozen);
    let propose = v1::ProposeRequest {
        intent: "orders.read".into(),
        target: "orders".into(),
        ..v1::ProposeRequest::default()
    };
    assert_eq!(refused(triage.agent.leases.propose(propose).await), frozen);
    let me = triage.agent.identity.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(me.frozen.unwrap().revocation, all, "the agent is told, whatever it asks for");
    let frozen = v1::ListRevocationsRequest { frozen: true, ..v1::ListRevocationsRequest::default() };
    let listed = admin.revocations.list_revocations(frozen).await.unwrap().into_inner().revocations;
    assert_eq!(listed.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), [all.as_str(), &stock]);
    lift(&mut admin, &all).await.unwrap();
    triage.agent.lease(&triage.task, READ).await.unwrap();
    assert_eq!(refused(triage.agent.lease(&triage.task, STOCK).await).1, "FROZEN", "the narrower one stands");
}

#[tokio::test]
async fn a_barrier_outlives_a_restart_and_names_its_agent_by_today_s_owner() {
    let mut world = World::new().await;
    let setup = crate::world::Setup::default();
    let mut revoker = world.operator("revoker").await;
    run(&mut revoker, revoke(Kind::Owner("person:ana".into()))).await.unwrap();
    world.restart(&setup).await;
    assert_eq!(refused(world.agent("triage").await.open(&[READ]).await).1, "FROZEN");
    let moved = setup.replace("owner = \"person:ana\"\ngroups", "owner = \"person:ben\"\ngroups");
    world.restart(&moved).await;
    world.agent("triage").await.open(&[READ]).await.unwrap();
}

#[tokio::test]
async fn what_nobody_defined_is_not_said_to_be_dead() {
    let world = World::new().await;
    let mut revoker = world.operator("revoker").await;
    for kind in [
        Kind::Owner("person:nobody".into()),
        Kind::Target("ordres".into()),
        Kind::Intent("orders.raed".into()),
    ] {
        for dry_run in [true, false] {
            let request = v1::RevokeRequest { dry_run, ..revoke(kind.clone()) };
            assert_eq!(refused(run(&mut revoker, request).await).1, "NOT_FOUND", "{kind:?}");
        }
    }
    for kind in [Kind::Owner("ana".into()), Kind::Target(String::new()), Kind::Agent(TRIAGE[1..].into())] {
        assert_eq!(refused(run(&mut revoker, revoke(kind.clone())).await).1, "BAD_REQUEST", "{kind:?}");
    }
}

/// RULES: a barrier that is none of its business does not cost a mint its life.
#[tokio::test]
async fn a_mint_outlives_the_freeze_of_something_else() {
    use leasehold_memory::{Call, Fault, Gate, Rule};
    let world = World::new().await;
    let mut revoker = world.operator("revoker").await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let gate = Gate::default();
    world.orders.faults.add(Rule::once(Call::Issue, Fault::Hold(gate.clone())));
    let (mut asking, asked_in) = (agent.clone(), task.clone());
    let asked = tokio::spawn(async move { asking.lease(&asked_in, READ).await });
    gate.arrival().await;
    run(&mut revoker, revoke(Kind::Target("stock".into()))).await.unwrap();
    run(&mut revoker, revoke(Kind::Agent(OTHER.into()))).await.unwrap();
    gate.open();
    let lease = asked.await.unwrap().unwrap().lease.unwrap();
    assert_eq!(agent.look(&lease.id).await.state(), v1::LeaseState::Active);
}

#[tokio::test]
async fn an_agent_that_nobody_knows_is_not_stopped_by_a_slip_of_the_finger() {
    let world = World::new().await;
    let triag = "spiffe://suite.leasehold.test/agent/triag";
    let revoke = async |agent: &str, more: &[&str]| {
        world.command(&[&["revoke", "--agent", agent, "--reason", "INC-1"], more].concat()).await
    };
    for more in [&["--yes"] as &[&str], &["--dry-run"], &[]] {
        let (code, told) = revoke(triag, more).await;
        assert_eq!(code, Some(1), "{more:?}: {told}");
        assert!(told.contains("no lease matches") && told.contains(TRIAGE), "{told}");
    }
    let mut admin = world.admin().await;
    let list = v1::ListRevocationsRequest::default();
    let raised = admin.revocations.list_revocations(list).await.unwrap().into_inner().revocations;
    assert_eq!(raised, [], "nothing was frozen");
    // Ahead of time, and on purpose.
    let (code, told) = revoke(triag, &["--freeze", "--yes"]).await;
    assert_eq!(code, Some(0), "{told}");
    // One that is registered holds nothing, and is no slip.
    let (code, told) = revoke(OTHER, &["--yes"]).await;
    assert_eq!(code, Some(0), "{told}");
}
