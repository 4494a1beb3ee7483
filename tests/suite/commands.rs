//! What an operator types when something does not die, was forgotten or is lost, and what they read then.

use leasehold_memory::{Call, Fault, Rule};
use leasehold_proto::v1;

use crate::orphans::forgetful;
use crate::world::{Setup, World, eventually, login};

const READ: &str = "orders.read@orders";
/// The store's config, and that this is no production.
const BROKER: [&str; 3] = ["--config", "leasehold.toml", "--dev-trust"];

/// A command that must end with this code; gives what it said.
async fn typed(world: &World, args: &[&str], code: i32) -> String {
    let (ended, told) = world.command(args).await;
    assert_eq!(ended, Some(code), "{args:?}: {told}");
    told
}

fn says(told: &str, words: &[&str]) {
    for word in words {
        assert!(told.contains(word), "no `{word}` in\n{told}");
    }
}

#[tokio::test]
async fn what_cannot_be_killed_is_listed_until_it_is_dead() {
    let world = World::new().await;
    says(&typed(&world, &["lease", "stuck"], 0).await, &["nothing is stuck"]);
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let lease = agent.lease(&task, READ).await.unwrap().lease.unwrap();
    world.orders.faults.add(Rule::always(Call::Revoke, Fault::down()));
    let release = v1::ReleaseLeaseRequest { lease: lease.id.clone(), wait: None };
    agent.leases.release_lease(release).await.unwrap();
    eventually("its first try has failed", || {
        let (mut agent, id) = (agent.clone(), lease.id.clone());
        async move { !agent.look(&id).await.last_error.is_empty() }
    })
    .await;
    let told = typed(&world, &["lease", "stuck"], 1).await;
    says(&told, &["LAST ERROR", &lease.id, "orders", &lease.principal, "released", "took the answer"]);
    let told = typed(&world, &["--output", "json", "lease", "stuck"], 1).await;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["leases"][0]["id"], lease.id.as_str(), "{told}");
    world.orders.faults.clear();
    world.pass(6);
    agent.until_lease(&lease.id, v1::LeaseState::Revoked).await;
    says(&typed(&world, &["lease", "stuck"], 0).await, &["nothing is stuck"]);
}

#[tokio::test]
async fn a_sweep_by_hand_says_what_it_found_and_revokes_it() {
    let (world, granted) = forgetful(&Setup::default(), 1).await;
    let (orphan, _) = login(&granted[0]);
    says(&typed(&world, &["targets", "sweep", "orders"], 0).await, &["too young to say", "0 (at most"]);
    world.pass(61);
    let told = typed(&world, &["targets", "sweep", "orders", "--dry-run"], 0).await;
    says(&told, &["1 (at most 10 are revoked)", &format!("orphan: {orphan}")]);
    assert!(world.orders.accounts().contains_key(&orphan), "a dry run touches nothing");
    let told = typed(&world, &["targets", "sweep", "orders"], 0).await;
    says(&told, &["swept", &format!("orphan: {orphan}")]);
    eventually("the orphan is gone", || async { !world.orders.accounts().contains_key(&orphan) }).await;
    says(&typed(&world, &["targets", "sweep", "elsewhere"], 1).await, &["elsewhere"]);
}

#[tokio::test]
async fn a_store_is_backed_up_lost_and_put_back() {
    let mut world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[READ]).await.unwrap();
    let kept = agent.lease(&task, READ).await.unwrap();
    let back_up = [&["backup"], &BROKER[..], &["--to", "copy.db"]].concat();
    says(&typed(&world, &back_up, 0).await, &["copy.db: ", " bytes, chain suite/1 verified up to entry "]);
    typed(&world, &back_up, 1).await;
    let since = agent.lease(&task, READ).await.unwrap();
    world.stop().await;
    let restore = [&["restore"], &BROKER[..], &["--from", "copy.db"]].concat();
    says(&typed(&world, &restore, 1).await, &["--replace"]);
    let told = typed(&world, &[&restore[..], &["--replace"]].concat(), 0).await;
    says(
        &told,
        &["restored: chain suite/2 goes on from suite/1", "the store that was there is", "next: start"],
    );
    world.start(&Setup::default()).await.unwrap();
    eventually("what was minted since is gone", || async {
        !world.orders.accounts().contains_key(&login(&since).0)
    })
    .await;
    let (user, password) = login(&kept);
    assert!(world.orders.accepts(&user, &password), "what the backup knows lives on");
    let kept = kept.lease.unwrap().id;
    says(&typed(&world, &["lease", "show", &kept, "--admin"], 0).await, &[&kept, "active"]);
}
