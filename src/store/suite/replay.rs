//! The journal tells the rows: random lives are written, then told again from the entries alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold_law::cause::Cause;
use leasehold_law::id::LeaseId;
use leasehold_law::journal::{Aims, Body, Event};
use leasehold_law::lease::{Lease, LeaseEvent, LeaseTerms, Proof, Reached, Refusal, Sessions};
use leasehold_law::task::{Task, TaskEvent};
use leasehold_law::time::Timestamp;

use super::samples::{T0, agent, lease_change, mint_started, terms};
use super::{put, verify_export};
use crate::store::{Change, Draft, LeaseFilter, Store};

const LEASES: u64 = 24;
const STEPS: i64 = 600;

/// A small generator (xorshift64): the same seed gives the same lives.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

pub(crate) async fn rows_are_what_the_journal_says(store: Arc<dyn Store>) {
    let mut dice = Dice(0x1ea5_e401);
    let mut live: BTreeMap<u64, Lease> = BTreeMap::new();
    for step in 0..STEPS {
        let n = 1 + dice.roll(LEASES);
        let at = T0.shifted(step);
        let event = any_event(&mut dice, &terms(n, 1), at);
        let after = match live.get(&n) {
            Some(before) => before.apply(&event),
            None => Lease::first(Arc::new(terms(n, 1)), &event),
        };
        // What the law refuses is never written.
        let Ok(after) = after else { continue };
        put(&*store, vec![lease_change(&after), entry(&after, event, at)]).await;
        live.insert(n, after);
    }
    let told = replay(&*store).await;
    let found = store.leases(&LeaseFilter::default(), usize::MAX).await.unwrap();
    assert!(found.iter().filter(|lease| lease.version > 3).count() > 5, "the lives are long enough to tell");
    assert_eq!(found.iter().map(|lease| (lease.terms.id, lease.clone())).collect::<BTreeMap<_, _>>(), told);
    let live = told.values().filter(|lease| lease.state.is_live()).count();
    assert_eq!(store.counts().await.unwrap().live, u64::try_from(live).unwrap(), "due is null unless live");
    verify_export(&*store).await;
}

fn any_event(dice: &mut Dice, terms: &LeaseTerms, at: Timestamp) -> LeaseEvent {
    let later = at.shifted(60_000);
    match dice.roll(12) {
        0 | 1 => mint_started(terms),
        2 | 3 => LeaseEvent::Minted { handle: Some(format!("oid-{}", at.0)), expires_at: later },
        4 => LeaseEvent::RenewStarted { until: later, due: at },
        5 => LeaseEvent::Renewed { expires_at: later },
        6 => LeaseEvent::RevokeStarted { cause: Cause::Expired, at, handle: None },
        7 => LeaseEvent::RevokeTried {
            reached: Reached::Cut,
            sessions: Sessions::Reaping,
            error: (dice.roll(2) == 0).then(|| "no route to host".to_owned()),
            next_try: later,
            handle: None,
        },
        8 => LeaseEvent::Revoked { proof: Proof::ReadBack, at, handle: None },
        9 => LeaseEvent::RevokeStarted { cause: Cause::Resurrected, at, handle: None },
        10 if dice.roll(4) == 0 => LeaseEvent::LeftResidual { until: later, reached: Reached::Disabled },
        10 => LeaseEvent::Lapsed { at },
        _ if dice.roll(8) == 0 => LeaseEvent::Refused { refusal: Refusal::Denied },
        _ => mint_started(terms),
    }
}

pub(super) fn entry(after: &Lease, step: LeaseEvent, at: Timestamp) -> Change {
    let text = || "none".to_owned();
    let aims = Aims {
        agent: agent(1).to_string(),
        delegated_subject: text(),
        resource: after.terms.pair.target.clone(),
        action_decision: text(),
        time_correlation: at.to_string(),
        posture: text(),
        remediation: text(),
    };
    let (task, lease) = (Some(after.terms.task), Some(after.terms.id));
    let body = Body {
        v: 1,
        kind: step.kind().to_owned(),
        at,
        subject: format!("lease:{}", after.terms.id),
        subject_version: after.version,
        task,
        lease,
        aims,
        event: Event::Lease {
            terms: (after.version == 1).then(|| after.terms.clone()),
            decision: None,
            step,
        },
    };
    Change::Append(Draft { at, task, lease, body: body.to_bytes().unwrap() })
}

/// As [`entry`], for a task.
pub(super) fn task_entry(after: &Task, step: TaskEvent) -> Change {
    let text = || "none".to_owned();
    let aims = Aims {
        agent: agent(1).to_string(),
        delegated_subject: text(),
        resource: text(),
        action_decision: text(),
        time_correlation: text(),
        posture: text(),
        remediation: text(),
    };
    let first = after.version == 1;
    let body = Body {
        v: 1,
        kind: step.kind().to_owned(),
        at: T0,
        subject: after.terms.id.to_string(),
        subject_version: after.version,
        task: Some(after.terms.id),
        lease: None,
        aims,
        event: Event::Task {
            terms: first.then(|| Box::new(after.terms.clone())),
            scope: first.then(|| after.scope.clone()),
            decisions: vec![],
            step,
        },
    };
    Change::Append(Draft { at: T0, task: body.task, lease: None, body: body.to_bytes().unwrap() })
}

async fn replay(store: &dyn Store) -> BTreeMap<LeaseId, Lease> {
    let mut told: BTreeMap<LeaseId, Lease> = BTreeMap::new();
    for entry in store.entries(1, usize::MAX).await.unwrap() {
        let body = Body::parse(&entry.body).unwrap();
        let Event::Lease { terms, step, .. } = body.event else { panic!("{}", body.kind) };
        let id = body.lease.unwrap();
        let after = match terms {
            Some(terms) => Lease::first(terms, &step).unwrap(),
            None => told.get(&id).unwrap().apply(&step).unwrap(),
        };
        assert_eq!(after.version, body.subject_version);
        told.insert(id, after);
    }
    told
}
