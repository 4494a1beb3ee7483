//! Brokers that start on one store at the same moment, and what they divide while they run.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold::clock::{Clock, SystemTime};
use leasehold::ledger::{ConfigOnRecord, Ledger, LedgerError};
use leasehold::store::Stamp;
use leasehold::store::postgres::{Options, PostgresStore};
use leasehold_law::subject::Subject;

use crate::quotas::{PAIR, over_quota};
use crate::shared::{first, second, write_url};
use crate::site::Site;
use crate::world::{Setup, World, detail, eventually};

type Digests = BTreeMap<Subject, String>;

/// What a broker of this name starts with: its ledger, before it has looked at anything.
async fn ledger(world: &World, name: &str) -> Ledger {
    let options = Options {
        url_file: world.path("store.url"),
        sslrootcert: None,
        verify: false,
        broker: name.to_owned(),
        installation: "suite".to_owned(),
        holder: format!("process of {name}"),
        stamp: Stamp::Dev,
    };
    let store = Arc::new(PostgresStore::open(&options).await.unwrap());
    Ledger::new(store, Arc::new(Clock::new(Arc::new(SystemTime), None)))
}

/// An empty store.
async fn site() -> World {
    let world = World::prepare(&Setup::default()).await;
    write_url(&world, &Site::shared().store().await.1);
    world
}

fn orders() -> Subject {
    Subject::Target("orders".to_owned())
}

fn config(orders_digest: &str) -> Digests {
    BTreeMap::from([(Subject::Policy, "as ever".to_owned()), (orders(), orders_digest.to_owned())])
}

/// The versions that the store has now.
async fn current(ledger: &Ledger) -> BTreeMap<Subject, u64> {
    let subjects: Vec<_> = config("").into_keys().collect();
    let versions = ledger.store().versions(&subjects).await.unwrap();
    subjects.into_iter().zip(versions).collect()
}

/// Both look, then the first writes, then the second.
async fn interleaved(a: (&Ledger, &Digests), b: (&Ledger, &Digests)) -> [ConfigOnRecord; 2] {
    let (look_a, look_b) = (a.0.look_at_config(a.1).await.unwrap(), b.0.look_at_config(b.1).await.unwrap());
    let of_a = a.0.record_config(look_a).await.unwrap();
    let late = b.0.record_config(look_b).await;
    assert!(matches!(&late, Err(LedgerError::Stale(_))), "{late:?}");
    [of_a, b.0.settle_config(b.1).await.unwrap()]
}

/// RULES R-1: the other one must know that it is not, or it would issue by a config that is no longer.
#[tokio::test]
async fn of_two_configs_at_the_same_moment_one_is_the_current_one() {
    let world = site().await;
    let (a, b) = (ledger(&world, "a").await, ledger(&world, "b").await);
    let [of_a, of_b] = interleaved((&a, &config("of a")), (&b, &config("of b"))).await;
    assert_eq!(of_a.changed, [orders(), Subject::Policy]);
    assert_eq!(of_b.changed, [orders()], "what both say is written once");
    assert_eq!(current(&a).await, of_b.versions);
    assert_eq!((of_a.versions[&orders()], of_b.versions[&orders()]), (1, 2), "what rests on a's is stale");
    assert_eq!(of_a.versions[&Subject::Policy], of_b.versions[&Subject::Policy]);
    a.store().leave().await;
    b.store().leave().await;
}

#[tokio::test]
async fn the_same_config_at_the_same_moment_is_current_for_both() {
    let world = site().await;
    let (a, b) = (ledger(&world, "a").await, ledger(&world, "b").await);
    let same = config("of both");
    let [of_a, of_b] = interleaved((&a, &same), (&b, &same)).await;
    assert_eq!(of_b.changed, []);
    assert_eq!(of_a.versions, of_b.versions);
    assert_eq!(current(&b).await, of_b.versions);
    a.store().leave().await;
    b.store().leave().await;
}

/// However the two starts fall out, one of the brokers issues.
#[tokio::test]
async fn of_two_brokers_that_start_at_once_with_different_config_one_issues() {
    let world = site().await;
    let shorter = second(Setup::default()).replace("max = \"15m\"", "max = \"14m\"");
    let setup = first(Setup::default());
    let (a, b) = tokio::join!(world.start_another(&setup), world.start_another(&shorter));
    let (a, b) = (a.unwrap(), b.unwrap());
    let mut may = Vec::new();
    for broker in [&a, &b] {
        may.push(world.agent_at("triage", broker).await.open(&["orders.read@orders"]).await.is_ok());
    }
    may.sort_unstable();
    assert_eq!(may, [false, true]);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn rates_are_divided_among_the_brokers_that_live() {
    let world = site().await;
    let quotas = "[quotas]\nagent = { rate = \"1/h\", burst = 4 }\n[targets.orders]";
    let rated = || Setup::default().replace("[targets.orders]", quotas);
    let a = world.start_another(&first(rated())).await.unwrap();
    let b = world.start_another(&second(rated())).await.unwrap();
    assert_eq!(b.broker.live_brokers(), 2, "it knows from the start");
    eventually("the first knows of the second", || async { a.broker.live_brokers() == 2 }).await;
    for broker in [&a, &b] {
        let mut agent = world.agent_at("triage", broker).await;
        for _ in 0..2 {
            agent.open(&[PAIR]).await.unwrap();
        }
        let status = over_quota(agent.open(&[PAIR]).await);
        let why = "its quota is 1 in 1h, and 4 at once, and each of 2 brokers gives its part of it";
        assert_eq!(detail(&status, "why"), why);
    }
    b.stop().await;
    eventually("the first has it all again", || async { a.broker.live_brokers() == 1 }).await;
    let mut agent = world.agent_at("triage", &a).await;
    over_quota(agent.open(&[PAIR]).await);
    world.pass(3600);
    agent.open(&[PAIR]).await.unwrap();
    over_quota(agent.open(&[PAIR]).await);
    a.stop().await;
}
