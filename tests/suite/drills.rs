//! Drills (REQUIREMENTS REV-8): on targets that kill, on one that lies, on a real PostgreSQL, by hand and by schedule.

use leasehold_law::lease::Grade;
use leasehold_memory::{Call, Fault, Gate, Rule};
use leasehold_proto::v1;
use tonic::{Code, Status};

use crate::child::Rig;
use crate::site::Site;
use crate::world::{Client, Setup, World, detail, eventually, millis, reason, refused};

/// The steps that a drill takes.
const STEPS: [v1::DrillStep; 4] =
    [v1::DrillStep::Mint, v1::DrillStep::Use, v1::DrillStep::Revoke, v1::DrillStep::Refuse];

/// Drills a target to its end.
pub(crate) async fn drill(admin: &mut Client, target: &str) -> Result<v1::Drill, Status> {
    let mut told = begin(admin, target).await?;
    let mut last = v1::Drill::default();
    while let Some(progress) = told.message().await? {
        let drill = progress.drill.unwrap();
        assert!(drill.steps.len() >= last.steps.len(), "no step is taken back");
        last = drill;
    }
    Ok(last)
}

pub(crate) async fn begin(
    admin: &mut Client,
    target: &str,
) -> Result<tonic::Streaming<v1::DrillTargetResponse>, Status> {
    let request = v1::DrillTargetRequest { target: target.to_owned() };
    Ok(admin.targets.drill_target(request).await?.into_inner())
}

pub(crate) fn has_passed(drill: &v1::Drill) {
    assert_eq!((drill.state(), drill.why.as_str()), (v1::DrillState::Passed, ""), "{drill:?}");
    let steps: Vec<_> = drill.steps.iter().map(v1::DrillStepTime::step).collect();
    assert_eq!(steps, STEPS);
}

async fn status(admin: &mut Client) -> v1::StatusResponse {
    admin.admin.status(v1::StatusRequest {}).await.unwrap().into_inner()
}

async fn target(admin: &mut Client, name: &str) -> v1::Target {
    status(admin).await.targets.into_iter().find(|target| target.name == name).unwrap()
}

/// What the journal says of a task, in order.
async fn trace(admin: &mut Client, task: &str) -> Vec<v1::JournalEntry> {
    let subject = Some(v1::trace_request::Subject::Task(task.to_owned()));
    let request = v1::TraceRequest { subject, page_size: 1000, ..v1::TraceRequest::default() };
    admin.audit.trace(request).await.unwrap().into_inner().entries
}

#[tokio::test]
async fn a_drill_walks_the_road_of_any_lease_and_is_on_record() {
    let world = World::new().await;
    let mut admin = world.admin().await;
    let passed = drill(&mut admin, "orders").await.unwrap();
    has_passed(&passed);
    assert_eq!((passed.intent.as_str(), passed.target.as_str()), ("orders.read", "orders"));
    assert!(passed.by.starts_with("uid:"), "{}", passed.by);
    assert_eq!(World::principals(&world.orders), 0);
    let lease = admin.look(&passed.lease).await;
    assert_eq!((lease.state(), lease.proof()), (v1::LeaseState::Revoked, v1::Proof::ReadBack));
    assert_eq!((lease.agent.as_str(), lease.cause()), ("leasehold/drill", v1::Cause::Drill));
    let entries = trace(&mut admin, &passed.task).await;
    let kinds: Vec<_> = entries.iter().map(|entry| entry.kind.as_str()).collect();
    let road = [
        "task.opened",
        "lease.mint_started",
        "lease.minted",
        "lease.revoke_started",
        "task.end_started",
        "lease.revoked",
        "task.ended",
        "drill.passed",
    ];
    assert_eq!(kinds, road);
    let end = entries.last().unwrap();
    assert!(end.summary.contains("drill passed: mint ") && end.lease == passed.lease, "{}", end.summary);
    let find = v1::FindRequest { text: "drill=orders".into(), ..v1::FindRequest::default() };
    let hits = admin.audit.find(find).await.unwrap().into_inner().hits;
    assert_eq!((hits[0].task.as_str(), hits[0].owner.as_str()), (passed.task.as_str(), "leasehold"));
    let seen = target(&mut admin, "orders").await;
    assert_eq!((seen.last_drill, seen.drill_intent.as_str()), (Some(passed), "orders.read"));
    assert!(seen.next_drill.is_none(), "nobody asked for a schedule");
    assert_eq!(status(&mut admin).await.needs_person, Vec::<String>::new());
}

#[tokio::test]
async fn a_target_that_lies_about_a_revocation_is_an_alarm() {
    let mut world = World::new().await;
    let mut admin = world.admin().await;
    world.orders.faults.add(Rule::once(Call::Revoke, Fault::Lie));
    let failed = drill(&mut admin, "orders").await.unwrap();
    assert_eq!((failed.state(), failed.failed_step()), (v1::DrillState::Failed, v1::DrillStep::Refuse));
    assert!(failed.alive && failed.why.contains("still works"), "{failed:?}");
    let needs = status(&mut admin).await.needs_person;
    assert!(needs.iter().any(|line| line.contains("A REVOKED CREDENTIAL IS ALIVE")), "{needs:?}");
    let entries = trace(&mut admin, &failed.task).await;
    assert!(entries.iter().any(|entry| entry.kind == "drill.failed"), "{entries:?}");
    // What was called dead and lives is revoked anew.
    let dead = admin.until_lease(&failed.lease, v1::LeaseState::Revoked).await;
    eventually("its principal is gone", || async { World::principals(&world.orders) == 0 }).await;
    assert_eq!(admin.look(&dead.id).await.cause(), v1::Cause::Resurrected);
    world.restart(&Setup::default()).await;
    let mut admin = world.admin().await;
    let needs = status(&mut admin).await.needs_person;
    assert!(needs.iter().any(|line| line.contains("ALIVE")), "a restart forgets no alarm: {needs:?}");
    has_passed(&drill(&mut admin, "orders").await.unwrap());
    assert_eq!(status(&mut admin).await.needs_person, Vec::<String>::new(), "the alarm is over");
}

/// A refusal proves nothing: it takes no verdict's place, however many there are.
#[tokio::test]
async fn drills_that_are_refused_push_no_failed_one_out() {
    let forbid = r#"
@id("no-drills")
forbid (principal == Agent::"leasehold/drill", action, resource);
"#;
    let mut world = World::new().await;
    world.orders.faults.add(Rule::once(Call::Revoke, Fault::Lie));
    let failed = drill(&mut world.admin().await, "orders").await.unwrap();
    world.restart(&Setup::default().policy(forbid)).await;
    for _ in 0..20 {
        let denied = drill(&mut world.admin().await, "orders").await.unwrap_err();
        assert_eq!(reason(&denied), "FORBIDDEN");
    }
    world.restart(&Setup::default()).await;
    let mut admin = world.admin().await;
    assert_eq!(target(&mut admin, "orders").await.last_drill, Some(failed));
    assert!(status(&mut admin).await.needs_person.iter().any(|line| line.contains("ALIVE")));
    // The other target's verdict ends no alarm of this one.
    has_passed(&drill(&mut admin, "stock").await.unwrap());
    has_passed(&drill(&mut admin, "orders").await.unwrap());
    world.restart(&Setup::default()).await;
    assert_eq!(status(&mut world.admin().await).await.needs_person, Vec::<String>::new());
}

#[tokio::test]
async fn what_does_not_hold_is_named_by_its_step() {
    let world = World::new().await;
    let mut admin = world.admin().await;
    for (call, fault, step) in [
        (Call::Issue, Fault::refuse("it is read-only"), v1::DrillStep::Mint),
        (Call::Probe, Fault::down(), v1::DrillStep::Use),
    ] {
        world.orders.faults.add(Rule::once(call, fault));
        let failed = drill(&mut admin, "orders").await.unwrap();
        assert_eq!((failed.state(), failed.failed_step()), (v1::DrillState::Failed, step), "{failed:?}");
        assert!(!failed.alive && !failed.why.is_empty());
        world.pass(12);
        admin.until_lease(&failed.lease, v1::LeaseState::Revoked).await;
        let task = v1::Task { id: failed.task, ..v1::Task::default() };
        admin.until_task(&task, v1::TaskState::Ended).await;
    }
    assert_eq!(World::principals(&world.orders), 0);
    has_passed(&drill(&mut admin, "orders").await.unwrap());
}

/// What has ended by itself is refused too, killed or not.
#[tokio::test]
async fn a_refusal_at_the_credential_s_own_end_proves_nothing() {
    let world = World::new().await;
    let mut admin = world.admin().await;
    let gate = Gate::default();
    world.orders.faults.add(Rule::once(Call::Revoke, Fault::Hold(gate.clone())));
    let mut told = begin(&mut admin, "orders").await.unwrap();
    gate.arrival().await;
    world.pass(120);
    gate.open();
    let mut last = None;
    while let Some(progress) = told.message().await.unwrap() {
        last = progress.drill;
    }
    let drill = last.unwrap();
    assert_eq!((drill.state(), drill.failed_step()), (v1::DrillState::Failed, v1::DrillStep::Refuse));
    assert!(!drill.alive && drill.why.contains("proves nothing"), "{drill:?}");
    assert_eq!(World::principals(&world.orders), 0);
}

#[tokio::test]
async fn what_is_frozen_or_cannot_be_drilled_is_refused_and_nothing_is_minted() {
    let setup =
        Setup::default().replace("labels = { env = \"prod\" }", "labels = { env = \"prod\" }\ndrill = false");
    let world = World::with(setup).await;
    let mut admin = world.admin().await;
    let stops =
        [v1::selector::Kind::Target("orders".into()), v1::selector::Kind::Agent("leasehold/drill".into())];
    for kind in stops {
        let request = v1::RevokeRequest {
            selector: Some(v1::Selector { kind: Some(kind) }),
            freeze: Some(true),
            reason: "maintenance".into(),
            ..v1::RevokeRequest::default()
        };
        let mut told = admin.revocations.revoke(request).await.unwrap().into_inner();
        let revocation = told.message().await.unwrap().unwrap().revocation.unwrap().id;
        let frozen = drill(&mut admin, "orders").await.unwrap_err();
        assert_eq!((frozen.code(), reason(&frozen)), (Code::PermissionDenied, "FROZEN".into()));
        assert!(frozen.message().contains(&revocation) || detail(&frozen, "revocation") == revocation);
        let lift = v1::LiftRevocationRequest { revocation, reason: "over".into() };
        admin.revocations.lift_revocation(lift).await.unwrap();
    }
    assert_eq!(refused(drill(&mut admin, "nowhere").await), (Code::NotFound, "NOT_FOUND".into()));
    assert_eq!(refused(drill(&mut admin, "stock").await).1, "NOT_SERVED");
    assert_eq!((world.orders.calls(Call::Issue), world.stock.calls(Call::Issue)), (0, 0));
    has_passed(&drill(&mut admin, "orders").await.unwrap());
    let coarse = World::with(Setup::default().grade(Grade::Coarse)).await;
    let told = drill(&mut coarse.admin().await, "orders").await.unwrap_err();
    assert_eq!(reason(&told), "NOT_SERVED");
    assert!(detail(&told, "why").contains("grade is coarse"), "{told:?}");
}

#[tokio::test]
async fn a_policy_that_forbids_drills_is_obeyed() {
    let forbid = r#"
@id("no-drills")
forbid (principal == Agent::"leasehold/drill", action, resource);
"#;
    let world = World::with(Setup::default().policy(forbid)).await;
    let denied = drill(&mut world.admin().await, "orders").await.unwrap_err();
    assert_eq!((denied.code(), reason(&denied)), (Code::PermissionDenied, "FORBIDDEN".into()));
    assert_eq!(world.orders.calls(Call::Issue), 0);
}

#[tokio::test]
async fn no_quota_of_agents_stops_a_drill_and_that_of_its_target_does() {
    let quotas = |text: &str| Setup::default().replace("[people]", &format!("[quotas]\n{text}\n[people]"));
    let world = World::with(quotas("agent = { live = 0 }\nowner = { live = 0 }")).await;
    has_passed(&drill(&mut world.admin().await, "orders").await.unwrap());
    let world = World::with(quotas("target = { live = 0 }")).await;
    let full = drill(&mut world.admin().await, "orders").await.unwrap_err();
    assert_eq!((full.code(), reason(&full)), (Code::ResourceExhausted, "QUOTA".into()));
}

#[tokio::test]
async fn drills_of_one_target_do_not_overlap() {
    let world = World::new().await;
    let mut admin = world.admin().await;
    let gate = Gate::default();
    world.orders.faults.add(Rule::once(Call::Issue, Fault::Hold(gate.clone())));
    let mut first = begin(&mut admin, "orders").await.unwrap();
    gate.arrival().await;
    assert_eq!(refused(drill(&mut admin, "orders").await), (Code::Aborted, "CONTENDED".into()));
    has_passed(&drill(&mut admin, "stock").await.unwrap());
    gate.open();
    let mut last = None;
    while let Some(told) = first.message().await.unwrap() {
        last = told.drill;
    }
    has_passed(&last.unwrap());
    has_passed(&drill(&mut admin, "orders").await.unwrap());
}

/// A caller that goes away as soon as it has asked leaves no task behind that would keep the next drill waiting.
#[tokio::test]
async fn a_drill_whose_caller_hangs_up_at_once_goes_on_and_ends() {
    let world = World::new().await;
    let mut admin = world.admin().await;
    let broker = &world.running().broker;
    for polls in 1..4 {
        let mut asked = Box::pin(broker.drill("orders", None));
        for _ in 0..polls {
            let _ = futures::poll!(&mut asked);
        }
        drop(asked);
        eventually("it can be drilled again", || {
            let mut admin = admin.clone();
            async move { drill(&mut admin, "orders").await.is_ok() }
        })
        .await;
    }
    let states = vec![v1::TaskState::Open.into(), v1::TaskState::Ending.into()];
    let left = v1::ListTasksRequest { states, ..v1::ListTasksRequest::default() };
    assert_eq!(admin.tasks.list_tasks(left).await.unwrap().into_inner().tasks, []);
}

#[tokio::test]
async fn an_operator_s_revocation_in_the_middle_is_no_alarm() {
    let world = World::new().await;
    let mut admin = world.admin().await;
    let gate = Gate::default();
    world.orders.faults.add(Rule::once(Call::Probe, Fault::Hold(gate.clone())));
    let mut told = begin(&mut admin, "orders").await.unwrap();
    gate.arrival().await;
    let kind = v1::selector::Kind::Target("orders".into());
    let selector = Some(v1::Selector { kind: Some(kind) });
    let request = v1::RevokeRequest {
        selector,
        freeze: Some(false),
        reason: "an incident".into(),
        wait: crate::world::seconds(20),
        ..v1::RevokeRequest::default()
    };
    let mut progress = admin.revocations.revoke(request).await.unwrap().into_inner();
    while !progress.message().await.unwrap().expect("it is confirmed").done {}
    gate.open();
    let stopped = loop {
        match told.message().await {
            Ok(told) => assert!(told.is_some(), "it says how it ended"),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&stopped), "CONTENDED");
    assert_eq!(World::principals(&world.orders), 0);
    assert_eq!(status(&mut admin).await.needs_person, Vec::<String>::new());
}

/// Waits until a target has been drilled later than `after`, in milliseconds.
async fn drilled_after(admin: &Client, name: &str, after: i64) -> v1::Target {
    let at = |seen: &v1::Target| seen.last_drill.as_ref().map_or(0, |drill| millis(drill.at));
    eventually("it is drilled", || {
        let mut admin = admin.clone();
        async move { at(&target(&mut admin, name).await) > after }
    })
    .await;
    target(&mut admin.clone(), name).await
}

#[tokio::test]
async fn the_schedule_runs_by_the_broker_s_clock() {
    let setup = || Setup::default().replace("[people]", "[drill]\nevery = \"1h\"\n[people]");
    let mut world = World::with(setup()).await;
    let admin = world.admin().await;
    world.pass(61);
    drilled_after(&admin, "stock", 0).await;
    let first = drilled_after(&admin, "orders", 0).await;
    let drill = first.last_drill.unwrap();
    has_passed(&drill);
    assert_eq!(drill.by, "", "nobody asked for it");
    assert_eq!(millis(first.next_drill) - millis(drill.at), 3_600_000);
    assert_eq!(world.orders.calls(Call::Issue), 1, "not before its time");
    world.restart(&setup()).await;
    let mut admin = world.admin().await;
    let after = target(&mut admin, "orders").await;
    assert_eq!((after.last_drill, after.next_drill), (Some(drill.clone()), first.next_drill));
    world.orders.faults.add(Rule::once(Call::Revoke, Fault::Lie));
    world.pass(3600);
    let failed = drilled_after(&admin, "orders", millis(drill.at)).await;
    let at = millis(failed.last_drill.as_ref().unwrap().at);
    assert!(failed.last_drill.unwrap().alive);
    assert_eq!(millis(failed.next_drill) - at, 600_000, "an alarm is looked at again soon");
    eventually("its principal is gone", || async { World::principals(&world.orders) == 0 }).await;
    world.pass(601);
    has_passed(&drilled_after(&admin, "orders", at).await.last_drill.unwrap());
    assert_eq!(status(&mut admin).await.needs_person, Vec::<String>::new());
}

#[tokio::test]
async fn a_schedule_that_cannot_be_kept_needs_a_person() {
    let setup = Setup::default().replace("[people]", "[drill]\nevery = \"1h\"\n[people]");
    let world = World::with(setup).await;
    let mut admin = world.admin().await;
    world.orders.faults.add(Rule::always(Call::Health, Fault::down()));
    world.pass(61);
    drilled_after(&admin, "stock", 0).await;
    eventually("it is said", || {
        let mut admin = admin.clone();
        async move { !target(&mut admin, "orders").await.not_drilled.is_empty() }
    })
    .await;
    let needs = status(&mut admin).await.needs_person;
    assert!(needs.iter().any(|line| line.contains("orders: was never drilled")), "{needs:?}");
    world.orders.faults.clear();
    world.pass(601);
    drilled_after(&admin, "orders", 0).await;
    assert_eq!(status(&mut admin).await.needs_person, Vec::<String>::new());
}

#[tokio::test]
async fn the_command_says_how_it_went_by_its_exit_code() {
    let world = World::new().await;
    let check = async |args: &[&str], code: i32, words: &[&str]| {
        let (found, told) = world.command(&[&["drill"], args].concat()).await;
        assert_eq!(found, Some(code), "{args:?}: {told}");
        words.iter().for_each(|word| assert!(told.contains(word), "{args:?} without {word}: {told}"));
    };
    let all = [
        "orders.read@orders",
        "stock.read@stock",
        "the target refuses the credential",
        "2 of 2 drills passed",
    ];
    check(&["run"], 0, &all).await;
    check(&["run", "--target", "stock", "--output", "json"], 0, &["\"state\":\"passed\"", "\"refuse\":"])
        .await;
    world.orders.faults.add(Rule::once(Call::Revoke, Fault::Lie));
    check(&["run"], 1, &["FAILED to refuse: A REVOKED CREDENTIAL IS ALIVE", "1 of 2 drills passed"]).await;
    check(&["list"], 0, &["failed", "passed"]).await;
    let kind = v1::selector::Kind::Target("stock".into());
    let request = v1::RevokeRequest {
        selector: Some(v1::Selector { kind: Some(kind) }),
        reason: "maintenance".into(),
        ..v1::RevokeRequest::default()
    };
    let mut told = world.admin().await.revocations.revoke(request).await.unwrap().into_inner();
    told.message().await.unwrap().unwrap();
    check(&["run", "--target", "stock"], 3, &["FROZEN", "leasehold revocations lift rev_"]).await;
    check(&["run", "--target", "nowhere"], 1, &["no target `nowhere`", "leasehold targets list"]).await;
    check(&["run", "--target", "order"], 1, &["did you mean `orders`?"]).await;
}

#[tokio::test]
async fn on_postgresql_a_drill_logs_in_and_is_refused() {
    let site = Site::shared();
    let mut rig = Rig::new(site, site.port()).await;
    rig.start(&[]).await;
    let mut admin = rig.admin().await;
    let passed = drill(&mut admin, "db").await.unwrap();
    has_passed(&passed);
    assert_eq!(passed.intent, "db.count", "of two alike, the first by name");
    assert_eq!(site.roles(&rig.mark).await, Vec::<String>::new());
    let lease = admin.look(&passed.lease).await;
    assert_eq!((lease.state(), lease.proof()), (v1::LeaseState::Revoked, v1::Proof::ReadBack));
    assert!(rig.journal().await.contains("drill.passed"));
    assert!(rig.log().contains("a drill has passed"));
}

#[cfg(feature = "fault-points")]
#[tokio::test]
async fn a_broker_killed_in_the_middle_of_a_drill_leaves_nothing() {
    let site = Site::shared();
    let mut rig = Rig::new(site, site.port()).await;
    for point in ["Minted", "Activated", "TaskCondemned", "Killed"] {
        rig.start(&[("LEASEHOLD_FAULT_POINT", point)]).await;
        let mut admin = rig.admin().await;
        assert!(drill(&mut admin, "db").await.is_err(), "it told how it ended, and died at {point}");
        rig.exit().await;
        rig.start(&[]).await;
        let lease = rig.leases().await.pop().unwrap();
        assert_eq!(lease.agent, "leasehold/drill");
        let admin = rig.admin().await;
        admin.until_lease(&lease.id, v1::LeaseState::Revoked).await;
        let task = v1::Task { id: lease.task, ..v1::Task::default() };
        admin.until_task(&task, v1::TaskState::Ended).await;
        assert_eq!(site.roles(&rig.mark).await, Vec::<String>::new(), "at {point}");
        has_passed(&drill(&mut rig.admin().await, "db").await.unwrap());
        rig.kill().await;
    }
}
