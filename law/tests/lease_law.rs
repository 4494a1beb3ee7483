//! The law of leases and tasks: the whole table, and what holds on every road through it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail loudly")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use leasehold_law::caller::ProvenBy;
use leasehold_law::cause::Cause;
use leasehold_law::id::{DecisionId, LeaseId, TaskId};
use leasehold_law::lease::{
    Grade, Lease, LeaseEvent, LeaseState, LeaseTerms, LimitedBy, Proof, Reached, Refusal, Sessions,
};
use leasehold_law::param::Params;
use leasehold_law::principal::{InstallationKey, PrincipalName};
use leasehold_law::request::RequestDigest;
use leasehold_law::scope::{Scope, ScopeEntry};
use leasehold_law::task::{Outcome, TaskEvent, TaskState};
use leasehold_law::time::{Span, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

const T: Timestamp = Timestamp(1_795_000_000_000);

fn terms() -> Arc<LeaseTerms> {
    let id = LeaseId::derive(T, 7);
    let key = InstallationKey::new([1; InstallationKey::BYTES].into());
    Arc::new(LeaseTerms {
        id,
        task: TaskId::derive(T, 7),
        agent: "spiffe://prod.example/agent/triage".parse().unwrap(),
        proven_by: ProvenBy::X509Svid,
        on_behalf_of: None,
        pair: "orders.read@orders-db".parse().unwrap(),
        params: Params::new(),
        principal: PrincipalName::derive(id, &key),
        recipe: leasehold_law::catalog::Recipe::default(),
        grade: Grade::Exact,
        window: Span::ZERO,
        created_at: T,
        life_ends_at: T + Span::from_mins(60),
        limited_by: LimitedBy::Asked,
        request_id: "run-1".parse().unwrap(),
        attempt: 1,
        request_digest: RequestDigest::derive(&1),
        decision: DecisionId::derive(T, 7),
        supersedes: None,
    })
}

fn revoke(cause: Cause) -> LeaseEvent {
    LeaseEvent::RevokeStarted { cause, at: T, handle: None }
}

/// One event of each kind, and a revocation of each rank and for resurrection.
fn lease_events() -> Vec<LeaseEvent> {
    let reached = Reached::Disabled;
    vec![
        LeaseEvent::Refused { refusal: Refusal::Denied },
        LeaseEvent::MintStarted { mint_by: T, due: T, expires_at: T },
        LeaseEvent::Minted { handle: Some("16384".into()), expires_at: T },
        LeaseEvent::RenewStarted { until: T, due: T },
        LeaseEvent::Renewed { expires_at: T },
        revoke(Cause::Expired),
        revoke(Cause::TaskCompleted),
        revoke(Cause::Operator),
        revoke(Cause::Resurrected),
        LeaseEvent::RevokeTried {
            reached,
            sessions: Sessions::Unknown,
            error: None,
            next_try: T,
            handle: None,
        },
        LeaseEvent::Revoked { proof: Proof::ReadBack, at: T, handle: None },
        LeaseEvent::LeftResidual { until: T, reached },
        LeaseEvent::Lapsed { at: T },
    ]
}

/// Every state, each reached by a road of events; Revoking under a cause of each rank.
fn lease_states() -> Vec<LeaseState> {
    let [minting, minted] = [1, 2].map(|n| lease_events()[n].clone());
    let residual = LeaseEvent::LeftResidual { until: T, reached: Reached::None };
    let revoked = LeaseEvent::Revoked { proof: Proof::ReadBack, at: T, handle: None };
    let begun = |cause| vec![minting.clone(), minted.clone(), revoke(cause)];
    let then = |mut road: Vec<_>, more: &[LeaseEvent]| {
        road.extend(more.iter().cloned());
        road
    };
    let roads = [
        vec![],
        vec![lease_events()[0].clone()],
        vec![minting.clone()],
        vec![minting.clone(), minted.clone()],
        vec![minting.clone(), minted.clone(), lease_events()[3].clone()],
        begun(Cause::Expired),
        begun(Cause::TaskCompleted),
        begun(Cause::Operator),
        then(begun(Cause::TaskCompleted), std::slice::from_ref(&residual)),
        then(begun(Cause::TaskCompleted), &[revoked]),
        then(begun(Cause::TaskCompleted), &[residual, LeaseEvent::Lapsed { at: T }]),
    ];
    let walk = |road: Vec<_>| road.iter().fold(LeaseState::New, |state, event| state.next(event).unwrap());
    roads.map(walk).into()
}

fn lease_cause(state: &LeaseState) -> Option<Cause> {
    match state {
        LeaseState::Revoking { progress, .. } => Some(progress.cause),
        LeaseState::Residual { cause, .. }
        | LeaseState::Revoked { cause, .. }
        | LeaseState::Lapsed { cause, .. } => Some(*cause),
        LeaseState::New
        | LeaseState::Refused { .. }
        | LeaseState::Minting { .. }
        | LeaseState::Active { .. }
        | LeaseState::Renewing { .. } => None,
    }
}

fn label(name: &str, cause: Option<Cause>) -> String {
    cause.map_or_else(|| name.to_owned(), |cause| format!("{name} ({cause:?})"))
}

/// For each state, what each event makes of it; `-` where the law knows no such step.
fn table<S, E>(
    states: &[S],
    events: &[E],
    name: impl Fn(&S) -> String,
    kind: impl Fn(&E) -> String,
    next: impl Fn(&S, &E) -> Option<S>,
) -> String {
    let mut text = String::new();
    for state in states {
        let _ = writeln!(text, "{}", name(state));
        for event in events {
            let to = next(state, event).map_or_else(|| "-".to_owned(), |to| name(&to));
            let _ = writeln!(text, "    {:<42} {to}", kind(event));
        }
    }
    text
}

#[test]
fn the_table_of_leases() {
    let kind = |event: &LeaseEvent| {
        let LeaseEvent::RevokeStarted { cause, .. } = event else { return event.kind().to_owned() };
        label(event.kind(), Some(*cause))
    };
    let name = |state: &LeaseState| label(state.name(), lease_cause(state));
    let leases = table(&lease_states(), &lease_events(), name, kind, |state, event| state.next(event).ok());
    insta::assert_snapshot!(leases);
}

fn task_events() -> Vec<TaskEvent> {
    let entry = ScopeEntry::of("orders.read@orders-db".parse().unwrap());
    vec![
        TaskEvent::Opened,
        TaskEvent::Refused,
        TaskEvent::ScopeChanged { scope: Scope::new(vec![entry]).unwrap() },
        TaskEvent::SessionRenewed { until: T },
        TaskEvent::EndStarted { cause: Cause::TaskCompleted, at: T },
        TaskEvent::Ended { outcome: Outcome::Clean, at: T },
        TaskEvent::Ended { outcome: Outcome::WithResidue, at: T },
    ]
}

fn task_states() -> Vec<TaskState> {
    let ending = TaskState::Ending { cause: Cause::TaskLost, at: T };
    let ended = TaskState::Ended { cause: Cause::TaskLost, outcome: Outcome::Clean, at: T };
    vec![TaskState::New, TaskState::Refused, TaskState::Open, ending, ended]
}

#[test]
fn the_table_of_tasks() {
    let kind = |event: &TaskEvent| {
        let TaskEvent::Ended { outcome, .. } = event else { return event.kind().to_owned() };
        format!("{} ({outcome:?})", event.kind())
    };
    let name = |state: &TaskState| label(state.name(), state.cause());
    let tasks = table(&task_states(), &task_events(), name, kind, |state, event| state.next(event).ok());
    insta::assert_snapshot!(tasks);
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    (0..1_000_000_i64).prop_map(|offset| T.shifted(offset))
}

fn any_handle() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[0-9]{1,6}")
}

fn any_reached() -> impl Strategy<Value = Reached> {
    prop_oneof![Just(Reached::None), Just(Reached::Disabled), Just(Reached::Cut), Just(Reached::Removed)]
}

fn any_try() -> impl Strategy<Value = LeaseEvent> {
    let sessions = prop_oneof![Just(Sessions::Unknown), Just(Sessions::Reaping), Just(Sessions::None)];
    (any_reached(), sessions, proptest::option::of("[a-z ]{0,12}"), any_time()).prop_map(
        |(reached, sessions, error, next_try)| LeaseEvent::RevokeTried {
            reached,
            sessions,
            error,
            next_try,
            handle: None,
        },
    )
}

fn any_event() -> impl Strategy<Value = LeaseEvent> {
    let cause = proptest::sample::select(Cause::ALL.to_vec());
    let refusal = prop_oneof![Just(Refusal::Denied), Just(Refusal::Unasked)];
    let proof = prop_oneof![Just(Proof::ReadBack), Just(Proof::NeverMinted), Just(Proof::DenyReadBack)];
    prop_oneof![
        1 => refusal.prop_map(|refusal| LeaseEvent::Refused { refusal }),
        3 => (any_time(), any_time(), any_time())
            .prop_map(|(mint_by, due, expires_at)| LeaseEvent::MintStarted { mint_by, due, expires_at }),
        3 => (any_handle(), any_time())
            .prop_map(|(handle, expires_at)| LeaseEvent::Minted { handle, expires_at }),
        2 => (any_time(), any_time()).prop_map(|(until, due)| LeaseEvent::RenewStarted { until, due }),
        2 => any_time().prop_map(|expires_at| LeaseEvent::Renewed { expires_at }),
        3 => (cause, any_time(), any_handle())
            .prop_map(|(cause, at, handle)| LeaseEvent::RevokeStarted { cause, at, handle }),
        2 => any_try(),
        1 => (proof, any_time()).prop_map(|(proof, at)| LeaseEvent::Revoked { proof, at, handle: None }),
        1 => (any_time(), any_reached())
            .prop_map(|(until, reached)| LeaseEvent::LeftResidual { until, reached }),
        1 => any_time().prop_map(|at| LeaseEvent::Lapsed { at }),
    ]
}

/// Applies what is legal, as a broker does, and keeps the lease after each step with the event behind it.
fn live(events: &[LeaseEvent]) -> Vec<(LeaseEvent, Lease)> {
    let mut steps: Vec<(LeaseEvent, Lease)> = Vec::new();
    for event in events {
        let next = match steps.last() {
            None => Lease::first(terms(), event),
            Some((_, lease)) => lease.apply(event),
        };
        steps.extend(next.ok().map(|lease| (event.clone(), lease)));
    }
    steps
}

fn round_trip<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    serde_json::from_slice(&serde_json::to_vec(value).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replay_makes_the_row(events in vec(any_event(), 1..60)) {
        let steps = live(&events);
        // As from the journal: only the legal events, each read back from its bytes.
        let journal: Vec<LeaseEvent> = steps.iter().map(|(event, _)| round_trip(event)).collect();
        let replayed = journal.iter().try_fold(None::<Lease>, |lease, event| match lease {
            None => Lease::first(terms(), event).map(Some),
            Some(lease) => lease.apply(event).map(Some),
        });
        prop_assert_eq!(replayed.unwrap(), steps.last().map(|(_, lease)| lease.clone()));
        for (place, (_, lease)) in steps.iter().enumerate() {
            prop_assert_eq!(lease.version, place as u64 + 1);
            prop_assert_eq!(&round_trip(lease), lease);
        }
    }

    #[test]
    fn a_cause_never_falls_in_rank(events in vec(any_event(), 1..60)) {
        let steps = live(&events);
        for pair in steps.windows(2) {
            let [(_, before), (_, after)] = pair else { unreachable!("windows of two") };
            if let (Some(old), Some(new)) = (lease_cause(&before.state), lease_cause(&after.state)) {
                prop_assert!(new.rank() >= old.rank(), "{old:?} fell to {new:?}");
            }
        }
    }

    #[test]
    fn the_dead_were_condemned_first(events in vec(any_event(), 1..60)) {
        let steps = live(&events);
        let mut before = "new";
        for (event, lease) in &steps {
            if lease.state.name() == "revoked" {
                prop_assert!(["revoking", "residual"].contains(&before), "{before} is dead by {}", event.kind());
            }
            before = lease.state.name();
        }
    }

    #[test]
    fn what_is_live_is_due(events in vec(any_event(), 1..60)) {
        for (_, lease) in live(&events) {
            prop_assert_eq!(lease.state.is_live(), lease.state.due().is_some());
            prop_assert_eq!(lease.state.is_live(), lease.state.expires_at().is_some());
            prop_assert!(lease.state.is_live() || !lease.state.is_usable());
        }
    }
}

#[test]
fn the_roads_visit_every_state() {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for state in lease_states() {
        *seen.entry(state.name()).or_default() += 1;
        assert_eq!(round_trip(&state), state);
    }
    for state in task_states() {
        assert_eq!(round_trip(&state), state);
    }
    let names: Vec<_> = seen.into_keys().collect();
    let every =
        ["active", "lapsed", "minting", "new", "refused", "renewing", "residual", "revoked", "revoking"];
    assert_eq!(names, every);
}
