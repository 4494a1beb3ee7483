//! Agents that nobody here wrote the libraries of: Go on go-spiffe and grpc-go, Python on py-spiffe and grpcio. Each
//! is a program in tests/interop, built here with stubs from proto/, and watched from outside.

mod program;
pub(crate) mod tools;

use std::time::Duration;

use leasehold::identity::listener::Limits;
use leasehold_proto::v1;
use tokio::time::timeout;

use crate::world::{PATIENCE, Setup, World};
use program::Program;
use tools::{Prepared, go, python, skip};

/// Short, so that a program outlives its first SVID, and long enough for a busy machine to connect in.
const SVID_LIFE: Duration = Duration::from_secs(12);
/// After this each connection is asked to leave: often, while a program works.
const STAY: Duration = Duration::from_millis(300);
/// The identity that the programs run under.
const AGENT: &str = "triage";
const ID: &str = "spiffe://suite.leasehold.test/agent/triage";

#[tokio::test]
#[ignore = "builds programs from package registries, for minutes: tests/run interop"]
async fn a_go_agent_works_through_a_rotation() {
    match go().await {
        Ok(tool) => works_through_a_rotation(&tool).await,
        Err(missing) => skip("Go", &missing),
    }
}

#[tokio::test]
#[ignore = "builds programs from package registries, for minutes: tests/run interop"]
async fn a_python_agent_works_through_a_rotation() {
    match python().await {
        Ok(tool) => works_through_a_rotation(&tool).await,
        Err(missing) => skip("Python", &missing),
    }
}

/// It connects, opens, leases, renews until its first SVID is long gone, and completes; no call of it fails.
async fn works_through_a_rotation(tool: &Prepared) {
    let limits = Limits { stay: STAY, ..Setup::default().limits };
    let setup = Setup { svid_life: SVID_LIFE, limits, ..Setup::default() };
    let mut world = World::with(setup).await;
    let mut program = Program::start(tool, &world, AGENT);
    let mut admin = world.admin().await;

    let connected = program.step("connected").await;
    assert_eq!(connected[0], ID);
    let task = program.step("opened").await.remove(0);
    let leased = program.step("leased").await;
    let (lease, principal) = (&leased[0], &leased[1]);
    assert_eq!(leased[2], "true", "a secret came with it");
    let held = admin.look(lease).await;
    assert_eq!((&held.task, &held.principal, held.agent.as_str()), (&task, principal, ID));
    assert!(is_alive(&held), "{held:?}");
    assert!(holds(&world, principal), "{principal} is not in the target");

    let renewals = timeout(PATIENCE, until_rotated(&mut program, &connected[1])).await;
    let renewals = renewals.unwrap_or_else(|_| panic!("it kept its SVID longer than {SVID_LIFE:?}"));
    let renewed = admin.look(lease).await;
    assert!(is_alive(&renewed) && renewed.expires_at.unwrap().seconds > held.expires_at.unwrap().seconds);
    assert!(renewals > 1 && holds(&world, principal));

    program.end_work();
    assert_eq!(program.step("completed").await, [task, "0".to_owned()]);
    program.succeeds().await;
    let dead = admin.look(lease).await;
    assert_eq!((dead.state(), dead.cause()), (v1::LeaseState::Revoked, v1::Cause::TaskCompleted));
    assert_eq!(World::principals(&world.orders), 0);
    world.stop().await;
}

/// Reads renewals until one was asked for with a later SVID, and gives its number.
async fn until_rotated(program: &mut Program, first: &str) -> u32 {
    loop {
        let renewed = program.step("renewed").await;
        if renewed[1] != first {
            return renewed[0].parse().unwrap();
        }
    }
}

fn is_alive(lease: &v1::Lease) -> bool {
    matches!(lease.state(), v1::LeaseState::Active | v1::LeaseState::Renewing)
}

fn holds(world: &World, principal: &str) -> bool {
    world.orders.accounts().contains_key(principal)
}
