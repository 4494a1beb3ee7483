//! Changing the scope of a task: narrower kills what no longer fits and nothing else, wider is decided first.

use leasehold_proto::v1;
use tonic::Code;

use crate::quotas::over_quota;
use crate::stopping::{revoke, run};
use crate::world::{Setup, WRITES, World, login, open_request, reason, refused, scope, seconds};

const BOTH: &[&str] = &["orders.read@orders", "stock.read@stock"];

#[tokio::test]
async fn a_narrower_scope_kills_only_what_no_longer_fits() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(BOTH).await.unwrap();
    let orders = agent.lease(&task, "orders.read@orders").await.unwrap();
    let stock = agent.lease(&task, "stock.read@stock").await.unwrap();
    let (user, password) = login(&orders);
    let session = world.orders.login(&user, &password).unwrap();
    let (user, password) = login(&stock);
    let kept = world.stock.login(&user, &password).unwrap();
    let (orders, stock) = (orders.lease.unwrap(), stock.lease.unwrap());
    let changed = agent.change(&task, scope(&["stock.read@stock"])).await.unwrap();
    assert_eq!(changed.pending, Vec::<String>::new());
    assert_eq!(changed.decisions, [], "nothing is wider");
    let killed: Vec<_> = changed.leases.iter().map(|lease| (lease.lease.as_str(), lease.state())).collect();
    assert_eq!(killed, [(orders.id.as_str(), v1::LeaseState::Revoked)]);
    assert_eq!(agent.look(&orders.id).await.cause(), v1::Cause::ScopeChanged);
    assert!(!world.orders.serves(session), "the open session is cut");
    assert_eq!(agent.look(&stock.id).await, stock, "the other is not touched");
    assert!(world.stock.serves(kept));
    let refused = agent.lease(&task, "orders.read@orders").await.unwrap_err();
    assert_eq!(reason(&refused), "OUT_OF_SCOPE");
}

#[tokio::test]
async fn a_lease_must_fit_the_new_limits_of_its_own_pair() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    for (max_ttl, fits) in [(700, true), (60, false)] {
        let task = agent.open(&["orders.read@orders"]).await.unwrap();
        let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
        let mut narrower = scope(&["orders.read@orders"]);
        narrower[0].max_ttl = seconds(max_ttl);
        agent.change(&task, narrower).await.unwrap();
        let state = agent.look(&lease.id).await.state();
        assert_eq!(state == v1::LeaseState::Active, fits, "{max_ttl} s: {state:?}");
    }
}

#[tokio::test]
async fn a_wider_scope_is_decided_and_a_denied_pair_refuses_all() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders"]).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    let denied = scope(&["stock.read@stock", "orders.write@orders"]);
    assert_eq!(refused(agent.change(&task, denied).await), (Code::PermissionDenied, "NO_PERMIT".into()));
    let untouched = agent.task(&task).await;
    assert_eq!((&untouched.scope, untouched.version), (&task.scope, task.version));
    assert_eq!(agent.look(&lease.id).await, lease);
    let changed = agent.change(&task, scope(BOTH)).await.unwrap();
    let decided: Vec<_> = changed.decisions.iter().map(|pair| pair.intent.as_str()).collect();
    assert_eq!(decided, ["stock.read"], "only what is wider is decided");
    assert_eq!(agent.look(&lease.id).await, lease);
    agent.lease(&task, "stock.read@stock").await.unwrap();
}

/// A freeze stops what is new. Giving up a part of what one has is not.
#[tokio::test]
async fn an_agent_behind_a_barrier_may_narrow_its_scope_and_not_widen_it() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(BOTH).await.unwrap();
    let kind = v1::selector::Kind::Agent("spiffe://suite.leasehold.test/agent/triage".into());
    run(&mut world.operator("revoker").await, revoke(kind)).await.unwrap();
    let mut narrower = scope(&["stock.read@stock"]);
    agent.change(&task, narrower.clone()).await.unwrap();
    assert_eq!(refused(agent.change(&task, scope(BOTH)).await).1, "FROZEN");
    let swapped = agent.change(&task, scope(&["orders.read@orders"])).await;
    assert_eq!(refused(swapped).1, "FROZEN", "less of one and more of another is wider");
    narrower[0].max_ttl = seconds(60);
    agent.change(&task, narrower.clone()).await.unwrap();
    assert_eq!(agent.task(&task).await.scope, narrower);
}

#[tokio::test]
async fn an_agent_over_its_rate_may_narrow_its_scope_and_not_widen_it() {
    let quotas = "[quotas]\nagent = { rate = \"1/h\", burst = 2 }\n[targets.orders]";
    let world = World::with(Setup::default().replace("[targets.orders]", quotas)).await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(BOTH).await.unwrap();
    let lease = agent.lease(&task, "orders.read@orders").await.unwrap().lease.unwrap();
    over_quota(agent.change(&task, scope(&["orders.read@orders", "stock.write@stock"])).await);
    agent.change(&task, scope(&["stock.read@stock"])).await.unwrap();
    assert_eq!(agent.look(&lease.id).await.cause(), v1::Cause::ScopeChanged);
    over_quota(agent.change(&task, scope(BOTH)).await);
    let mut shorter = scope(&["stock.read@stock"]);
    shorter[0].max_ttl = seconds(60);
    over_quota(agent.change(&task, shorter).await);
    let elsewhere = v1::Task { id: "task_00000000000000000000".into(), ..task };
    over_quota(agent.change(&elsewhere, scope(&["stock.read@stock"])).await);
}

/// What operators took back since is no reason to keep the rest as wide as it was.
#[tokio::test]
async fn a_scope_narrows_though_a_pair_in_it_is_granted_no_more() {
    let setup = || Setup::default().policy(WRITES);
    let mut world = World::with(setup()).await;
    let mut agent = world.agent("triage").await;
    let both = ["orders.write@orders", "stock.read@stock"];
    let task = agent.open(&both).await.unwrap();
    let grant = "[[grants]]\nintent = \"orders.write\"\ntargets = [\"orders\"]\nrecipe = { role = \"writer\" }\n\
                 ttl = { default = \"5m\", max = \"10m\", life = \"10m\" }\n";
    world.restart(&setup().replace(grant, "")).await;
    let mut agent = world.agent("triage").await;
    let mut narrower = scope(&both);
    narrower[0].max_ttl = seconds(60);
    agent.change(&task, narrower).await.unwrap();
    agent.change(&task, scope(&["orders.write@orders"])).await.unwrap_err();
    assert_eq!(refused(agent.lease(&task, "orders.write@orders").await).1, "NO_PERMIT");
}

#[tokio::test]
async fn a_denied_pair_refuses_the_whole_task_and_is_named() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let status = agent.open(&["orders.read@orders", "orders.write@orders"]).await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::PermissionDenied, "NO_PERMIT".into()));
    assert!(status.message().contains("orders.write@orders"), "{}", status.message());
    let open = agent.tasks.list_tasks(v1::ListTasksRequest::default()).await.unwrap().into_inner().tasks;
    let states: Vec<_> = open.iter().map(v1::Task::state).collect();
    assert_eq!(states, [v1::TaskState::Refused]);
}

#[tokio::test]
async fn fixed_parameters_hold_every_lease_of_the_pair() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let text = |value: &str| v1::ParamValue { kind: Some(v1::param_value::Kind::StringValue(value.into())) };
    let mut request = open_request(&["orders.read@orders"]);
    request.scope[0].params.insert("reason".into(), text("audit"));
    let task = agent.open_as(request).await.unwrap();
    for (value, word) in [(Some("triage"), "OUT_OF_SCOPE"), (None, "OUT_OF_SCOPE"), (Some("audit"), "")] {
        let mut wanted = crate::world::lease_request(&task, "orders.read@orders");
        wanted.params.extend(value.map(|value| ("reason".to_owned(), text(value))));
        let said =
            agent.leases.request_lease(wanted).await.map_or_else(|status| reason(&status), |_| String::new());
        assert_eq!(said, word, "{value:?}");
    }
}

#[tokio::test]
async fn a_scope_that_changes_in_the_middle_of_a_request_is_obeyed() {
    use leasehold_memory::{Call, Fault, Gate, Rule};
    let world = World::with(Setup::default().policy(WRITES)).await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders", "orders.write@orders"]).await.unwrap();
    let mut request = crate::world::lease_request(&task, "orders.read@orders");
    agent.leases.request_lease(request.clone()).await.unwrap();
    // The next attempt waits for the death of the first; meanwhile its pair leaves the scope.
    let gate = Gate::default();
    world.orders.faults.add(Rule::once(Call::Revoke, Fault::Hold(gate.clone())));
    request.attempt = 2;
    let mut second = agent.clone();
    let second = tokio::spawn(async move { second.leases.request_lease(request).await });
    gate.arrival().await;
    let narrower =
        v1::ChangeScopeRequest { task: task.id.clone(), scope: scope(&["orders.write@orders"]), wait: None };
    agent.tasks.change_scope(narrower).await.unwrap();
    gate.open();
    assert_eq!(refused(second.await.unwrap()), (Code::PermissionDenied, "OUT_OF_SCOPE".into()));
    assert_eq!(World::principals(&world.orders), 0);
    assert_eq!(world.orders.calls(Call::Issue), 1);
}
