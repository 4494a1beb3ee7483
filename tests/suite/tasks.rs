//! The ends of a task, and what watchers are told.

use leasehold_proto::v1;
use leasehold_proto::v1::watch_task_response::Event;
use tonic::{Code, Streaming};

use crate::world::{
    Client, PATIENCE, World, by_heartbeat, fresh_id, open_request, reason, refused, scope, seconds,
};

/// What a watcher is told, in words.
struct Watched(Streaming<v1::WatchTaskResponse>);

impl Watched {
    async fn of(agent: &mut Client, task: &v1::Task) -> Self {
        let request = v1::WatchTaskRequest { task: task.id.clone() };
        let mut watched = Self(agent.tasks.watch_task(request).await.unwrap().into_inner());
        assert_eq!(watched.next().await.as_deref(), Some("resync"));
        watched
    }

    async fn next(&mut self) -> Option<String> {
        let told = tokio::time::timeout(PATIENCE, self.0.message()).await.expect("the stream says something");
        told.unwrap().map(|told| words(told.event.unwrap()))
    }

    /// Reads on until something is said; gives all that came before it.
    async fn until(&mut self, wanted: &str) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(event) = self.next().await {
            if event == wanted {
                return told;
            }
            told.push(event);
        }
        panic!("never told {wanted}: {told:?}");
    }
}

fn words(event: Event) -> String {
    match event {
        Event::LeaseRevoked(event) => format!("revoked {:?}", event.lease.unwrap().cause()),
        Event::LeaseChanged(event) => format!("lease {:?}", event.lease.unwrap().state()),
        Event::ScopeChanged(event) => format!("scope of {}", event.scope.len()),
        Event::Ending(event) => format!("ending {:?}", event.cause()),
        Event::Ended(event) => format!("ended {:?} {:?}", event.cause(), event.outcome()),
        Event::DeadlineNear(_) => "deadline near".into(),
        Event::Silent(_) => "silent".into(),
        Event::ApprovalDecided(_) => "approval".into(),
        Event::Resync(event) => format!("resync{}", if event.fell_behind { " behind" } else { "" }),
    }
}

async fn beat(agent: &mut Client, task: &v1::Task) -> Result<v1::HeartbeatResponse, tonic::Status> {
    let request = v1::HeartbeatRequest { task: task.id.clone(), ..Default::default() };
    Ok(agent.tasks.heartbeat(request).await?.into_inner())
}

#[tokio::test]
async fn a_watcher_is_told_all_that_happens_and_then_let_go() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders", "stock.read@stock"]).await.unwrap();
    let mut watched = Watched::of(&mut agent, &task).await;
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    agent.renew(&lease.id, 700).await.unwrap();
    agent.change(&task, scope(&["stock.read@stock"])).await.unwrap();
    agent.complete(&task).await.unwrap();
    let mut told = Vec::new();
    while let Some(event) = watched.next().await {
        told.push(event);
    }
    let expect = [
        "lease Minting",
        "lease Active",
        "lease Renewing",
        "lease Active",
        "scope of 1",
        "revoked ScopeChanged",
        "lease Revoked",
        "ending TaskCompleted",
        "ended TaskCompleted Clean",
    ];
    assert_eq!(told, expect);
}

#[tokio::test]
async fn a_task_that_is_given_up_takes_its_leases_along() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders", "stock.read@stock"]).await.unwrap();
    let mut leases = Vec::new();
    for pair in ["orders.read@orders", "orders.read@orders", "stock.read@stock"] {
        leases.push(agent.lease(&task, pair).await.unwrap().lease.unwrap().id);
    }
    let request =
        v1::AbortTaskRequest { task: task.id.clone(), reason: "a dead end".into(), wait: seconds(20) };
    let ended = agent.tasks.abort_task(request.clone()).await.unwrap().into_inner();
    assert_eq!((ended.leases.len(), ended.pending), (3, Vec::new()));
    for lease in &leases {
        assert_eq!(agent.look(lease).await.cause(), v1::Cause::TaskAborted);
    }
    let ended = agent.until_task(&task, v1::TaskState::Ended).await;
    assert_eq!((ended.cause(), ended.outcome()), (v1::Cause::TaskAborted, v1::TaskOutcome::Clean));
    assert_eq!((World::principals(&world.orders), World::principals(&world.stock)), (0, 0));
    agent.tasks.abort_task(request).await.unwrap();
    agent.complete(&task).await.unwrap();
    assert_eq!(agent.task(&task).await, ended, "ending it again changes nothing");
}

/// An agent could fill the disk, outside every quota, by giving up one task again and again.
#[tokio::test]
async fn why_a_task_is_given_up_is_noted_while_it_is_open_and_not_again() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let request =
        v1::AbortTaskRequest { task: task.id.clone(), reason: "a dead end".into(), wait: seconds(20) };
    for _ in 0..3 {
        agent.tasks.abort_task(request.clone()).await.unwrap();
    }
    let store = rusqlite::Connection::open(world.path("store/leases.db")).unwrap();
    let noted = "SELECT count(*) FROM journal WHERE CAST(body AS TEXT) LIKE '%task given up%'";
    assert_eq!(store.query_row(noted, [], |row| row.get(0)), Ok(1));
}

#[tokio::test]
async fn an_ended_task_takes_nothing_more() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    agent.complete(&task).await.unwrap();
    let ended = || (Code::FailedPrecondition, "TASK_ENDED".to_owned());
    assert_eq!(refused(agent.lease(&task, "orders.read@orders").await), ended());
    assert_eq!(refused(agent.change(&task, scope(&["orders.read@orders"])).await), ended());
    assert_eq!(refused(beat(&mut agent, &task).await), ended());
}

#[tokio::test]
async fn a_silent_agent_is_warned_and_then_loses_its_task() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let mut open = open_request(&["orders.read@orders"]);
    open.liveness = by_heartbeat(30);
    let task = agent.open_as(open).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    let mut watched = Watched::of(&mut agent, &task).await;
    let broker = &world.running().broker;
    world.live_through(broker, 16).await;
    assert_eq!(watched.until("silent").await, Vec::<String>::new());
    assert!(agent.task(&task).await.silent);
    let pulse = beat(&mut agent, &task).await.unwrap();
    assert_eq!(pulse.state(), v1::TaskState::Open);
    assert!(!agent.task(&task).await.silent, "a heartbeat is heard at once");
    world.live_through(broker, 20).await;
    assert!(agent.task(&task).await.silent);
    assert_eq!(agent.look(&lease.id).await.state(), v1::LeaseState::Active, "silent is not lost");
    world.live_through(broker, 15).await;
    let told = watched.until("ended TaskLost Clean").await;
    assert!(told.contains(&"revoked TaskLost".to_owned()), "{told:?}");
    assert_eq!(agent.look(&lease.id).await.cause(), v1::Cause::TaskLost);
    assert_eq!(World::principals(&world.orders), 0);
    let status = agent.lease(&task, "orders.read@orders").await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::FailedPrecondition, "TASK_LOST".into()));
}

/// RULES R-23: a broker that was paused, or whose clock was put on, heard nobody meanwhile.
#[tokio::test]
async fn a_pause_and_a_clock_that_is_put_on_are_nobody_s_silence() {
    let suspended = |world: &World| world.pass(61);
    let put_on = |world: &World| world.time.step_wall(61_000);
    for jump in [&suspended as &dyn Fn(&World), &put_on] {
        let world = World::new().await;
        let broker = &world.running().broker;
        let mut agent = world.agent("triage").await;
        let mut open = open_request(&["orders.read@orders"]);
        open.liveness = by_heartbeat(60);
        let task = agent.open_as(open).await.unwrap();
        world.live_through(broker, 5).await;
        jump(&world);
        broker.sweep_once(0).await;
        assert_eq!(agent.task(&task).await.state(), v1::TaskState::Open, "nobody could hear its agent");
        world.live_through(broker, 30).await;
        assert_eq!(agent.task(&task).await.state(), v1::TaskState::Open, "nor is its grace over");
        world.live_through(broker, 30).await;
        assert_eq!(agent.until_task(&task, v1::TaskState::Ended).await.cause(), v1::Cause::TaskLost);
    }
}

#[tokio::test]
async fn heartbeats_hold_a_task_past_many_graces() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let mut open = open_request(&["orders.read@orders"]);
    open.liveness = by_heartbeat(30);
    let task = agent.open_as(open).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    for _ in 0..5 {
        world.live_through(&world.running().broker, 20).await;
        beat(&mut agent, &task).await.unwrap();
    }
    assert_eq!(agent.look(&lease.id).await.state(), v1::LeaseState::Active);
}

#[tokio::test]
async fn a_task_ends_at_its_deadline_and_says_so_before() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let mut open = open_request(&["orders.read@orders"]);
    open.deadline = seconds(300);
    let task = agent.open_as(open).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap();
    assert_eq!(lease.limited_by, i32::from(v1::Limit::TaskDeadline));
    let mut watched = Watched::of(&mut agent, &task).await;
    world.pass(245);
    assert_eq!(watched.until("deadline near").await, Vec::<String>::new());
    world.pass(60);
    watched.until("ended TaskExpired Clean").await;
    let dead = agent.look(&lease.lease.unwrap().id).await;
    assert!([v1::Cause::TaskExpired, v1::Cause::Expired].contains(&dead.cause()), "{:?}", dead.cause());
    assert_eq!(World::principals(&world.orders), 0);
}

#[tokio::test]
async fn opening_with_the_same_request_id_gives_the_same_task() {
    let world = World::new().await;
    let (mut agent, mut other) = (world.agent("triage").await, world.agent("other").await);
    let request = v1::OpenTaskRequest { request_id: fresh_id(), ..open_request(&["orders.read@orders"]) };
    let first = agent.open_as(request.clone()).await.unwrap();
    let again = agent.open_as(request.clone()).await.unwrap();
    assert_eq!(again.id, first.id);
    let elsewhere = other.open_as(request.clone()).await.unwrap();
    assert_ne!(elsewhere.id, first.id, "request ids are the caller's own");
    let changed = v1::OpenTaskRequest { purpose: "another".into(), ..request.clone() };
    assert_eq!(refused(agent.open_as(changed).await), (Code::AlreadyExists, "REQUEST_ID_REUSED".into()));
    agent.complete(&first).await.unwrap();
    assert_eq!(agent.open_as(request).await.unwrap().id, first.id, "even when it has ended");
    assert_eq!(refused(other.tasks.get_task(v1::GetTaskRequest { task: first.id }).await).0, Code::NotFound);
}
