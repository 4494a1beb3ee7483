//! The road from end to end, on the memory target.

use leasehold_proto::v1;

use crate::world::{World, eventually, reason};

#[tokio::test]
async fn a_lease_dies_with_its_task() {
    let mut world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let granted = agent.lease(&task, "orders.read@orders").await.unwrap();
    let lease = granted.lease.unwrap();
    assert_eq!(lease.state(), v1::LeaseState::Active);
    assert_eq!(World::principals(&world.orders), 1);
    let ended = agent.complete(&task).await.unwrap();
    assert_eq!(ended.pending, Vec::<String>::new());
    assert_eq!(World::principals(&world.orders), 0);
    let dead = agent.look(&lease.id).await;
    assert_eq!((dead.state(), dead.cause()), (v1::LeaseState::Revoked, v1::Cause::TaskCompleted));
    eventually("the task has ended", || async {
        let mut agent = agent.clone();
        let task = agent.tasks.get_task(v1::GetTaskRequest { task: task.id.clone() }).await.unwrap();
        task.into_inner().state() == v1::TaskState::Ended
    })
    .await;
    let refused = agent.lease(&task, "orders.read@orders").await.unwrap_err();
    assert_eq!(reason(&refused), "TASK_ENDED");
    world.stop().await;
}
