//! Tasks, leases and entries to write: the same number always makes the same one.

use std::sync::Arc;

use leasehold_law::behalf::OnBehalfOf;
use leasehold_law::caller::{CallerId, ProvenBy, Vouched};
use leasehold_law::catalog::Recipe;
use leasehold_law::id::{DecisionId, LeaseId, RevocationId, TaskId};
use leasehold_law::lease::{Grade, Lease, LeaseEvent, LeaseState, LeaseTerms, LimitedBy};
use leasehold_law::param::Params;
use leasehold_law::principal::{InstallationKey, PrincipalName};
use leasehold_law::request::{Liveness, Refs, RequestDigest};
use leasehold_law::revocation::{Revocation, Selector};
use leasehold_law::scope::{Pair, Scope, ScopeEntry};
use leasehold_law::task::{Task, TaskEvent, TaskTerms};
use leasehold_law::time::{Span, Timestamp};
use zeroize::Zeroizing;

use crate::store::{Change, Draft};

/// When the samples begin.
pub(crate) const T0: Timestamp = Timestamp(1_795_000_000_000);
const SECOND: i64 = 1000;

fn moment(n: u64) -> Timestamp {
    T0.shifted(i64::try_from(n).unwrap() * 1000 * SECOND)
}

/// The installation key that the samples are minted under.
pub(crate) fn key() -> InstallationKey {
    InstallationKey::new(Zeroizing::new([7; InstallationKey::BYTES]))
}

pub(crate) fn agent(n: u64) -> CallerId {
    format!("spiffe://prod.example/agent/{n}").parse().unwrap()
}

pub(crate) fn person(n: u64) -> Vouched {
    Vouched::new("https://idp.example", &n.to_string()).unwrap()
}

fn pair() -> Pair {
    "orders.read@orders-db".parse().unwrap()
}

/// An open task of the agent with the same number, for the person with it.
pub(crate) fn task(n: u64) -> Task {
    let terms = TaskTerms {
        id: TaskId::derive(moment(n), n),
        agent: agent(n),
        purpose: "answer a ticket".to_owned(),
        liveness: Liveness::Deadline,
        deadline: moment(n) + Span::from_mins(30),
        refs: Refs::from([("ticket".to_owned(), format!("T-{n}"))]),
        opened_at: moment(n),
        request_id: format!("open-{n}").parse().unwrap(),
        request_digest: RequestDigest::derive(&n),
        manifest: None,
        on_behalf_of: Some(OnBehalfOf { person: person(n), until: None }),
    };
    Task::first(terms, Scope::new(vec![ScopeEntry::of(pair())]).unwrap(), &TaskEvent::Opened).unwrap()
}

/// The terms of a lease under a task.
pub(crate) fn terms(n: u64, of_task: u64) -> LeaseTerms {
    let id = LeaseId::derive(moment(n), n);
    let key = key();
    LeaseTerms {
        id,
        task: task(of_task).terms.id,
        agent: agent(of_task),
        proven_by: ProvenBy::X509Svid,
        on_behalf_of: Some(person(of_task)),
        pair: pair(),
        params: Params::new(),
        principal: PrincipalName::derive(id, &key),
        recipe: Recipe::default(),
        grade: Grade::Exact,
        window: Span::ZERO,
        created_at: moment(n),
        life_ends_at: moment(n) + Span::from_mins(60),
        limited_by: LimitedBy::Asked,
        request_id: format!("lease-{n}").parse().unwrap(),
        attempt: 1,
        request_digest: RequestDigest::derive(&n),
        decision: DecisionId::derive(moment(n), n),
        supersedes: None,
    }
}

pub(crate) fn mint_started(terms: &LeaseTerms) -> LeaseEvent {
    let due = terms.created_at + Span::from_secs(10);
    LeaseEvent::MintStarted { mint_by: due, due, expires_at: terms.created_at + Span::from_mins(15) }
}

/// A lease that is being minted on these terms.
pub(crate) fn lease(terms: LeaseTerms) -> Lease {
    let event = mint_started(&terms);
    Lease::first(Arc::new(terms), &event).unwrap()
}

/// A lease that is being minted under a task.
pub(crate) fn minting(n: u64, of_task: u64) -> Lease {
    lease(terms(n, of_task))
}

/// The same lease with a handle that tells its number.
pub(crate) fn active(minting: &Lease) -> Lease {
    let number = minting.terms.request_id.to_string().replace("lease-", "oid-");
    let expires_at = minting.state.expires_at().unwrap();
    minting.apply(&LeaseEvent::Minted { handle: Some(number), expires_at }).unwrap()
}

pub(crate) fn lease_change(lease: &Lease) -> Change {
    Change::Lease(Box::new(lease.clone()))
}

pub(crate) fn task_change(task: &Task) -> Change {
    Change::Task(Box::new(task.clone()))
}

/// Every version up to this lease: the store takes no jumps, and only the last one matters to the reader.
pub(crate) fn life(lease: &Lease) -> Vec<Change> {
    let state = |version| if version == lease.version { lease.state.clone() } else { early(lease) };
    let versions = 1..=lease.version;
    versions.map(|version| lease_change(&Lease { version, state: state(version), ..lease.clone() })).collect()
}

fn early(lease: &Lease) -> LeaseState {
    self::lease(LeaseTerms::clone(&lease.terms)).state
}

pub(crate) fn revocation(n: u64, selector: Selector) -> Revocation {
    Revocation {
        id: RevocationId::derive(moment(n), n),
        selector,
        by: agent(9),
        reason: "it asked for too much".to_owned(),
        at: moment(n),
        freeze: true,
        lifted: None,
        leases: vec![],
        tasks: Vec::new(),
        complete: false,
    }
}

pub(crate) fn without_freeze(revocation: Revocation) -> Revocation {
    Revocation { freeze: false, ..revocation }
}

/// An entry about nothing, about as long as a real one.
pub(crate) fn draft(n: u64) -> Draft {
    let body = format!(r#"{{"n":{n},"text":"{}"}}"#, "x".repeat(680));
    Draft { at: moment(n), task: None, lease: None, body: body.into_bytes() }
}
