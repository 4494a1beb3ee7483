//! What callers are not told: what they may not ask for, and where targets are.

use std::collections::BTreeMap;

use leasehold_backend::BackendError;
use leasehold_memory::{Call, Fault, Rule};
use leasehold_proto::v1;
use tonic::Code;

use crate::quotas::PAIR;
use crate::world::{Setup, World, lease_request, open_request, reason, refused};

#[tokio::test]
async fn what_an_intent_declares_is_told_to_those_who_may_ask_for_it() {
    let writes = "class = \"reversible\"\nparams = { ticket = { pattern = \"T-*\" } }";
    let world = World::with(Setup::default().replace("class = \"reversible\"", writes)).await;
    let mut agent = world.agent("triage").await;
    let text = |text: &str| v1::ParamValue { kind: Some(v1::param_value::Kind::StringValue(text.into())) };
    let odd = || BTreeMap::from([("ticket".to_owned(), text("x")), ("nope".to_owned(), text("y"))]);
    let propose = |intent: &str| v1::ProposeRequest {
        intent: intent.into(),
        target: "orders".into(),
        params: odd(),
        ..v1::ProposeRequest::default()
    };
    let denied = agent.leases.propose(propose("orders.write")).await.unwrap().into_inner();
    assert_eq!(denied.decision.unwrap().outcome(), v1::decision::Outcome::Deny);
    assert_eq!(
        refused(agent.leases.propose(propose("orders.read")).await),
        (Code::InvalidArgument, "BAD_REQUEST".into())
    );
    for (pair, word) in [("orders.write@orders", "NO_PERMIT"), (PAIR, "BAD_REQUEST")] {
        let mut open = open_request(&[pair]);
        open.scope[0].params = odd();
        assert_eq!(refused(agent.open_as(open).await).1, word, "{pair}");
    }
    let task = agent.open(&["stock.read@stock"]).await.unwrap();
    for pair in ["orders.write@orders", "nothing.at.all@nowhere"] {
        let request = v1::RequestLeaseRequest { params: odd(), ..lease_request(&task, pair) };
        assert_eq!(refused(agent.leases.request_lease(request).await).1, "OUT_OF_SCOPE", "{pair}");
    }
}

#[tokio::test]
async fn a_target_s_address_is_not_told_to_agents() {
    let world = World::new().await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&[PAIR]).await.unwrap();
    let what = "no route to leasehold_admin@10.0.0.7:5432".to_owned();
    let down = Fault::Before(BackendError::Transient { target: "orders".into(), what });
    world.orders.faults.add(Rule::once(Call::Issue, down));
    let status = agent.lease(&task, PAIR).await.unwrap_err();
    assert_eq!(reason(&status), "TARGET_DOWN");
    assert!(!format!("{status:?}").contains("10.0.0.7"), "{status:?}");
    let mut viewer = world.operator("viewer").await;
    let shown = viewer.admin.status(v1::StatusRequest::default()).await.unwrap().into_inner();
    assert!(format!("{shown:?}").contains("10.0.0.7"), "operators see why");
}
