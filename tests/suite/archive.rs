//! What is over leaves its table after its retention, and is still found.

use leasehold_proto::v1;

use crate::world::{Setup, World, eventually, open_request};

const READ: &str = "orders.read@orders";

fn rows(world: &World, table: &str) -> i64 {
    let store = rusqlite::Connection::open(world.path("store/leases.db")).unwrap();
    store.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn what_has_left_its_table_is_still_found_and_shown() {
    let setup = Setup::default()
        .replace("sqlite = \"store/leases.db\"", "sqlite = \"store/leases.db\"\nretention = \"1d\"");
    let world = World::with(setup).await;
    let mut agent = world.agent("triage").await;
    let request = open_request(&[READ]);
    let task = agent.open_as(request.clone()).await.unwrap();
    let lease = agent.lease(&task, READ).await.unwrap().lease.unwrap();
    assert_eq!(agent.open_as(request.clone()).await.unwrap().id, task.id, "the key lives with its task");
    agent.complete(&task).await.unwrap();
    let ended = agent.until_task(&task, v1::TaskState::Ended).await;
    let dead = agent.look(&lease.id).await;
    world.pass(23 * 3600);
    assert_eq!((rows(&world, "leases"), rows(&world, "tasks")), (1, 1), "it is not old enough");
    // Its own moment is a minute short of the day's end when the broker looks first.
    world.pass(2 * 3600);
    eventually("both have left", || async {
        world.pass(61);
        (rows(&world, "leases"), rows(&world, "tasks")) == (0, 0)
    })
    .await;
    let mut admin = world.admin().await;
    assert_eq!(admin.look(&lease.id).await, dead);
    assert_eq!(admin.task(&task).await, ended);
    let find = v1::FindRequest { text: lease.principal.clone(), ..v1::FindRequest::default() };
    let found = admin.audit.find(find).await.unwrap().into_inner();
    assert_eq!(found.hits.len(), 1, "a name in a log still leads to its lease");
    let subject = Some(v1::trace_request::Subject::Lease(lease.id));
    let trace = v1::TraceRequest { subject, ..v1::TraceRequest::default() };
    assert!(admin.audit.trace(trace).await.is_ok());
    assert_ne!(agent.open_as(request).await.unwrap().id, task.id, "the key went with its task");
}
