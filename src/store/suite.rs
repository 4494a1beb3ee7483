//! What every store must do, whatever holds it: one function a rule, run by each store's own tests.

mod replay;
pub(crate) mod samples;

use std::sync::Arc;

use leasehold_law::cause::{Cause, Rank};
use leasehold_law::journal::{Hash, Line, verify};
use leasehold_law::lease::{Lease, LeaseEvent, Proof, Reached, Sessions};
use leasehold_law::quota::Holder;
use leasehold_law::registry::{Drift, Entry as Registered};
use leasehold_law::request::RequestId;
use leasehold_law::revocation::{Lifted, Selector};
use leasehold_law::subject::{Guard, Subject};
use leasehold_law::task::{Outcome as End, TaskEvent};
use leasehold_law::time::{Span, Timestamp};

use super::{
    Aside, AsideFilter, AsideKind, BadRow, Ceiling, Change, Counted, Counts, DueLease, Ended, LaneCounts,
    LeaseFilter, Outcome, Store, TaskFilter, TokenUse,
};
pub(crate) use replay::rows_are_what_the_journal_says;
use samples::{
    T0, active, agent, draft, lease, lease_change, minting, person, revocation, task, task_change, terms,
};

/// Makes a test of each rule. `$open` gives the store and whatever must outlive it.
macro_rules! store_suite {
    ($open:expr) => {
        $crate::store::suite::store_suite! { @each $open;
            rows_read_back_as_written,
            a_stale_guard_writes_nothing,
            versions_of_rows_are_compared,
            subjects_count_their_bumps,
            a_request_is_answered_by_its_latest_attempt,
            pages_run_newest_first,
            filters_narrow,
            a_task_is_due_when_its_person_s_session_is_over,
            due_rows_come_longest_overdue_first,
            what_was_put_off_too_far_is_found,
            no_target_and_no_lane_hides_what_is_due_in_another,
            handles_are_found_after_their_death,
            a_barrier_stands_until_it_is_lifted,
            a_registration_takes_the_place_of_what_was_kept_of_it,
            entries_are_found_by_what_they_are_about,
            concurrent_callers_keep_the_chain_whole,
            rows_are_what_the_journal_says,
            what_is_over_and_old_leaves_its_table_and_is_told_from_the_journal,
            what_is_set_aside_is_listed_until_it_is_gone,
            no_more_leases_live_than_a_ceiling_says,
            the_last_place_is_taken_once,
            a_token_keeps_its_first_key_for_as_long_as_any_clock_may_take_it,
        }
    };
    (@each $open:expr; $($rule:ident,)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $rule() {
            let (store, _kept) = $open;
            $crate::store::suite::$rule(store).await;
        })*
    };
}
pub(crate) use store_suite;

type AnyStore = Arc<dyn Store>;

/// Commits without guards, and must succeed.
pub(crate) async fn put(store: &dyn Store, changes: Vec<Change>) {
    assert_eq!(store.commit(changes, vec![]).await, Outcome::Committed);
}

fn next(before: &Lease, event: &LeaseEvent) -> Lease {
    before.apply(event).unwrap()
}

fn revoke(at: i64) -> LeaseEvent {
    LeaseEvent::RevokeStarted { cause: Cause::Operator, at: T0.shifted(at), handle: None }
}

fn tried(error: Option<&str>, next_try: i64) -> LeaseEvent {
    LeaseEvent::RevokeTried {
        reached: Reached::Disabled,
        sessions: Sessions::Unknown,
        error: error.map(str::to_owned),
        next_try: T0.shifted(next_try),
        handle: None,
    }
}

fn revoked(at: i64) -> LeaseEvent {
    LeaseEvent::Revoked { proof: Proof::ReadBack, at: T0.shifted(at), handle: None }
}

fn ids(leases: &[Lease]) -> Vec<String> {
    leases.iter().map(|lease| lease.terms.id.to_string()).collect()
}

pub(crate) async fn rows_read_back_as_written(store: AnyStore) {
    let (task, minting, revocation) = (task(1), minting(1, 1), revocation(1, Selector::Agent(agent(1))));
    let target = Subject::Target("orders-db".to_owned());
    let changes = vec![
        task_change(&task),
        lease_change(&minting),
        Change::Revocation(Box::new(revocation.clone())),
        Change::Digest(target.clone(), "abc".to_owned()),
        Change::Number("high_water".into(), -7),
    ];
    put(&*store, changes).await;
    let id = minting.terms.id;
    assert_eq!(store.lease(id).await, Ok(Some(minting.clone())));
    assert_eq!(store.lease_by_principal(minting.terms.principal.as_str()).await, Ok(Some(minting.clone())));
    assert_eq!(store.lease_by_principal("postgres").await, Ok(None));
    assert_eq!(store.task(task.terms.id).await, Ok(Some(task.clone())));
    assert_eq!(store.task_by_request(&agent(1), &task.terms.request_id).await, Ok(Some(task.clone())));
    assert_eq!(store.task_by_request(&agent(2), &task.terms.request_id).await, Ok(None));
    assert_eq!(store.revocation(revocation.id).await, Ok(Some(revocation)));
    assert_eq!(store.digests().await, Ok(vec![(target, "abc".to_owned())]));
    assert_eq!(store.number("high_water").await, Ok(Some(-7)));
    assert_eq!(store.number("low_water").await, Ok(None));
    let active = active(&minting);
    put(&*store, vec![lease_change(&active)]).await;
    assert_eq!(store.lease(id).await, Ok(Some(active)));
}

pub(crate) async fn a_token_keeps_its_first_key_for_as_long_as_any_clock_may_take_it(store: AnyStore) {
    let used = |token: &str, key: &str, until: i64, now: i64| {
        let (token, key) = (token.to_owned(), key.to_owned());
        Change::Token(TokenUse { token, key, until: T0.shifted(until), now: T0.shifted(now) })
    };
    put(&*store, vec![used("a", "first", 100, 0), used("a", "second", 100, 0)]).await;
    put(&*store, vec![used("a", "third", 900, 50), used("b", "other", 900, 50)]).await;
    assert_eq!(store.token_key("a").await, Ok(Some("first".to_owned())));
    assert_eq!(store.token_key("b").await, Ok(Some("other".to_owned())));
    assert_eq!(store.token_key("c").await, Ok(None));
    let kept = i64::try_from(TokenUse::KEPT.0).unwrap();
    put(&*store, vec![used("c", "late", kept, kept)]).await;
    assert_eq!(
        store.token_key("a").await,
        Ok(Some("first".to_owned())),
        "a broker whose clock is behind takes it still"
    );
    put(&*store, vec![used("d", "later", kept, kept + 101)]).await;
    assert_eq!(store.token_key("a").await, Ok(None), "it is over everywhere");
}

pub(crate) async fn a_stale_guard_writes_nothing(store: AnyStore) {
    put(&*store, vec![task_change(&task(1)), Change::Bump(Subject::Policy)]).await;
    let check = async |subject: Subject, version: u64, fits: bool| {
        let before = store.head().await.unwrap();
        let changes = vec![Change::Append(draft(1)), Change::Number("n".into(), i64::from(fits))];
        let outcome = store.commit(changes, vec![Guard { subject: subject.clone(), version }]).await;
        let expect = if fits { Outcome::Committed } else { Outcome::Stale(subject) };
        assert_eq!(outcome, expect);
        assert_eq!(store.head().await.unwrap().seq, before.seq + u64::from(fits));
    };
    check(Subject::Policy, 0, false).await;
    check(Subject::Policy, 2, false).await;
    check(Subject::Task(task(1).terms.id), 0, false).await;
    check(Subject::Freezes, 1, false).await;
    assert_eq!(store.number("n").await, Ok(None));
    check(Subject::Policy, 1, true).await;
    check(Subject::Task(task(1).terms.id), 1, true).await;
    check(Subject::Lease(minting(1, 1).terms.id), 0, true).await;
    check(Subject::Freezes, 0, true).await;
}

pub(crate) async fn versions_of_rows_are_compared(store: AnyStore) {
    let (minting, task) = (minting(1, 1), task(1));
    let (lease_id, task_id) = (Subject::Lease(minting.terms.id), Subject::Task(task.terms.id));
    let dying = next(&active(&minting), &revoke(5));
    let ending = task.apply(&TaskEvent::EndStarted { cause: Cause::TaskLost, at: T0 }).unwrap();
    let check = async |change: Change, expect: Outcome| {
        let before = store.head().await;
        let outcome = store.commit(vec![Change::Append(draft(1)), change], vec![]).await;
        assert_eq!(outcome, expect);
        assert_eq!(store.head().await != before, expect == Outcome::Committed);
    };
    check(lease_change(&dying), Outcome::Stale(lease_id.clone())).await;
    check(lease_change(&minting), Outcome::Committed).await;
    check(lease_change(&minting), Outcome::Stale(lease_id.clone())).await;
    check(lease_change(&dying), Outcome::Stale(lease_id.clone())).await;
    check(lease_change(&active(&minting)), Outcome::Committed).await;
    check(lease_change(&dying), Outcome::Committed).await;
    check(lease_change(&active(&minting)), Outcome::Stale(lease_id)).await;
    check(task_change(&ending), Outcome::Stale(task_id.clone())).await;
    check(task_change(&task), Outcome::Committed).await;
    check(task_change(&task), Outcome::Stale(task_id.clone())).await;
    check(task_change(&ending), Outcome::Committed).await;
    check(task_change(&ending), Outcome::Stale(task_id)).await;
}

pub(crate) async fn subjects_count_their_bumps(store: AnyStore) {
    let agent_1 = Subject::Agent(agent(1));
    put(&*store, vec![Change::Bump(agent_1.clone()), Change::Bump(Subject::Policy)]).await;
    put(&*store, vec![Change::Bump(agent_1.clone()), Change::Digest(agent_1.clone(), "d".to_owned())]).await;
    put(&*store, vec![task_change(&task(3))]).await;
    let subjects = [Subject::Policy, agent_1, Subject::Agent(agent(2)), Subject::Task(task(3).terms.id)];
    assert_eq!(store.versions(&subjects).await, Ok(vec![1, 2, 0, 1]));
    let moved = store.commit(vec![Change::Bump(Subject::Task(task(3).terms.id))], vec![]).await;
    assert!(matches!(moved, Outcome::Failed(_)), "a task's version moves only with its row: {moved:?}");
}

pub(crate) async fn a_request_is_answered_by_its_latest_attempt(store: AnyStore) {
    let attempt = |n: u64, attempt: u32| {
        let mut terms = terms(n, 1);
        terms.request_id = "same".parse().unwrap();
        terms.attempt = attempt;
        lease(terms)
    };
    // One lives at a time, and the last of them has not the latest id.
    let dead = |n, a| samples::life(&next(&next(&attempt(n, a), &revoke(5)), &revoked(6)));
    for changes in [dead(1, 1), dead(3, 2), vec![lease_change(&attempt(2, 3))]] {
        put(&*store, changes).await;
    }
    let request: RequestId = "same".parse().unwrap();
    let task_1 = task(1).terms.id;
    assert_eq!(store.lease_by_request(task_1, &request).await, Ok(Some(attempt(2, 3))));
    assert_eq!(store.lease_by_request(task_1, &"other".parse().unwrap()).await, Ok(None));
    assert_eq!(store.lease_by_request(task(2).terms.id, &request).await, Ok(None));
}

pub(crate) async fn pages_run_newest_first(store: AnyStore) {
    let leases: Vec<_> = (1..=5).map(|n| minting(n, 1)).collect();
    put(&*store, leases.iter().map(lease_change).chain((1..=5).map(|n| task_change(&task(n)))).collect())
        .await;
    let (mut filter, mut found) = (LeaseFilter::default(), vec![]);
    loop {
        let page = store.leases(&filter, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2);
        filter.before = Some(last.terms.id);
        found.extend(page);
    }
    assert_eq!(found, leases.into_iter().rev().collect::<Vec<_>>());
    let before = TaskFilter { before: Some(task(4).terms.id), ..TaskFilter::default() };
    assert_eq!(store.tasks(&before, 2).await, Ok(vec![task(3), task(2)]));
}

pub(crate) async fn filters_narrow(store: AnyStore) {
    let dying = next(&active(&minting(2, 1)), &revoke(5));
    let stuck = next(&next(&active(&minting(3, 2)), &revoke(5)), &tried(Some("no route"), 9));
    let dead = next(&next(&active(&minting(4, 2)), &revoke(5)), &revoked(6));
    for lease in [&minting(1, 1), &dying, &stuck, &dead] {
        put(&*store, samples::life(lease)).await;
    }
    let ending = task(2).apply(&TaskEvent::EndStarted { cause: Cause::TaskLost, at: T0 }).unwrap();
    let ended = ending.apply(&TaskEvent::Ended { outcome: End::Clean, at: T0 }).unwrap();
    put(&*store, [task(1), task(2), ending.clone(), ended, task(3)].iter().map(task_change).collect()).await;
    let check = async |filter: LeaseFilter, expect: &[u64]| {
        let expect: Vec<_> = expect.iter().map(|n| minting(*n, 1).terms.id.to_string()).collect();
        assert_eq!(ids(&store.leases(&filter, 10).await.unwrap()), expect, "{filter:?}");
    };
    let all = LeaseFilter::default;
    check(all(), &[4, 3, 2, 1]).await;
    check(LeaseFilter { live: true, ..all() }, &[3, 2, 1]).await;
    check(LeaseFilter { stuck: true, ..all() }, &[3]).await;
    check(LeaseFilter { agent: Some(agent(2)), ..all() }, &[4, 3]).await;
    check(LeaseFilter { agent: Some(agent(2)), live: true, ..all() }, &[3]).await;
    check(LeaseFilter { task: Some(task(1).terms.id), ..all() }, &[2, 1]).await;
    check(LeaseFilter { target: Some("orders-db".to_owned()), live: true, ..all() }, &[3, 2, 1]).await;
    check(LeaseFilter { target: Some("nowhere".to_owned()), ..all() }, &[]).await;
    check(LeaseFilter { id: Some(dying.terms.id), live: true, ..all() }, &[2]).await;
    check(LeaseFilter { id: Some(dead.terms.id), live: true, ..all() }, &[]).await;
    check(LeaseFilter { task: Some(task(1).terms.id), live: true, ..all() }, &[2, 1]).await;
    check(LeaseFilter { intent: Some("orders.read".to_owned()), live: true, ..all() }, &[3, 2, 1]).await;
    check(LeaseFilter { intent: Some("orders.write".to_owned()), ..all() }, &[]).await;
    check(LeaseFilter { since: Some(minting(3, 1).terms.created_at), ..all() }, &[4, 3]).await;
    let of_ref = |value: &str| Some(("ticket".to_owned(), value.to_owned()));
    check(LeaseFilter { reference: of_ref("T-1"), ..all() }, &[2, 1]).await;
    check(LeaseFilter { reference: of_ref("T-2"), live: true, ..all() }, &[3]).await;
    check(LeaseFilter { reference: of_ref("T-9"), ..all() }, &[]).await;
    check(LeaseFilter { person: Some(person(1)), ..all() }, &[2, 1]).await;
    check(LeaseFilter { person: Some(person(2)), live: true, ..all() }, &[3]).await;
    check(LeaseFilter { person: Some(person(9)), ..all() }, &[]).await;
    let check = async |filter: TaskFilter, expect: &[u64]| {
        let found = store.tasks(&filter, 10).await.unwrap();
        let found: Vec<_> = found.iter().map(|task| task.terms.id).collect();
        assert_eq!(found, expect.iter().map(|n| task(*n).terms.id).collect::<Vec<_>>(), "{filter:?}");
    };
    let all = TaskFilter::default;
    let reference = |value: &str| Some(("ticket".to_owned(), value.to_owned()));
    check(all(), &[3, 2, 1]).await;
    check(TaskFilter { live: true, ..all() }, &[3, 1]).await;
    check(TaskFilter { agent: Some(agent(2)), ..all() }, &[2]).await;
    check(TaskFilter { reference: reference("T-3"), ..all() }, &[3]).await;
    check(TaskFilter { reference: reference("T-9"), ..all() }, &[]).await;
    check(TaskFilter { person: Some(person(2)), ..all() }, &[2]).await;
    check(TaskFilter { person: Some(person(2)), live: true, ..all() }, &[]).await;
}

pub(crate) async fn a_task_is_due_when_its_person_s_session_is_over(store: AnyStore) {
    let mut open = task(1);
    let due = leasehold_law::task::Task::ends_at;
    open.session_until = Some(open.terms.opened_at + Span::from_mins(5));
    put(&*store, vec![task_change(&open)]).await;
    assert_eq!(store.due_tasks(due(&open).shifted(-1), 9).await, Ok(vec![]));
    let until = open.terms.opened_at + Span::from_mins(15);
    let renewed = open.apply(&TaskEvent::SessionRenewed { until }).unwrap();
    put(&*store, vec![task_change(&renewed)]).await;
    assert_eq!(store.due_tasks(due(&open), 9).await, Ok(vec![]), "its person is still there");
    assert_eq!(store.due_tasks(due(&renewed), 9).await, Ok(vec![renewed]));
}

pub(crate) async fn due_rows_come_longest_overdue_first(store: AnyStore) {
    let due = |lease: &Lease| lease.state.due().unwrap();
    let [late, later] = [active(&minting(1, 1)), active(&minting(2, 1))];
    put(&*store, [samples::life(&later), samples::life(&late), vec![task_change(&task(1))]].concat()).await;
    let check = async |now: Timestamp, limit: usize, expect: &[&Lease]| {
        assert_eq!(due_in(&*store, "orders-db", Rank::Routine, now, limit).await, ids_of(expect));
    };
    check(due(&late).shifted(-1), 9, &[]).await;
    check(due(&late), 9, &[&late]).await;
    check(due(&later), 9, &[&late, &later]).await;
    check(due(&later), 1, &[&late]).await;
    let deadline = task(1).terms.deadline;
    assert_eq!(store.due_tasks(deadline.shifted(-1), 9).await, Ok(vec![]));
    assert_eq!(store.due_tasks(deadline, 9).await, Ok(vec![task(1)]));
    let ending = task(1).apply(&TaskEvent::EndStarted { cause: Cause::TaskLost, at: T0 }).unwrap();
    put(&*store, vec![task_change(&ending), task_change(&task(2))]).await;
    let due = store.due_tasks(task(2).terms.deadline, 1).await;
    assert_eq!(due, Ok(vec![task(2)]), "those that are ending hide none");
    let ending_ones = TaskFilter { ending: true, ..TaskFilter::default() };
    assert_eq!(store.tasks(&ending_ones, 9).await, Ok(vec![ending.clone()]));
    let ended = ending.apply(&TaskEvent::Ended { outcome: End::Clean, at: T0 }).unwrap();
    put(&*store, vec![task_change(&ended)]).await;
    assert_eq!(store.due_tasks(deadline, 9).await, Ok(vec![]));
    assert_eq!(store.tasks(&ending_ones, 9).await, Ok(vec![]));
}

/// A clock that was an hour ahead, and has been put back.
pub(crate) async fn what_was_put_off_too_far_is_found(store: AnyStore) {
    let [soon, far, arriving] = [1, 2, 3].map(|n| next(&active(&minting(n, 1)), &revoke(0)));
    let soon = next(&soon, &tried(Some("no route"), 60_000));
    let far = next(&far, &tried(Some("no route"), 3_600_000));
    let arriving = next(&arriving, &tried(None, 60_001));
    for lease in [&soon, &far, &arriving, &active(&minting(4, 1))] {
        put(&*store, samples::life(lease)).await;
    }
    let after = |at: i64| LeaseFilter { tried_after: Some(T0.shifted(at)), ..LeaseFilter::default() };
    let found = async |at| ids(&store.leases(&after(at), 9).await.unwrap());
    assert_eq!(found(60_000).await, ids_of(&[&arriving, &far]));
    assert_eq!(found(3_600_000).await, ids_of(&[]));
    let (live, end) = (active(&minting(4, 1)), active(&minting(4, 1)).state.due().unwrap());
    for (now, expect) in [(end.shifted(-1), vec![]), (end, vec![&live])] {
        let expired = LeaseFilter { expired: Some(now), ..LeaseFilter::default() };
        assert_eq!(ids(&store.leases(&expired, 9).await.unwrap()), ids_of(&expect));
    }
}

async fn due_in(store: &dyn Store, target: &str, lane: Rank, now: Timestamp, limit: usize) -> Vec<String> {
    let found = store.due_leases(target, lane, now, limit).await.unwrap();
    let read = |row| if let DueLease::Lease(lease) = row { *lease } else { panic!("{row:?}") };
    ids(&found.into_iter().map(read).collect::<Vec<_>>())
}

fn ids_of(leases: &[&Lease]) -> Vec<String> {
    leases.iter().map(|lease| lease.terms.id.to_string()).collect()
}

fn on(target: &str, n: u64) -> Lease {
    let mut terms = terms(n, 1);
    terms.pair.target = target.to_owned();
    lease(terms)
}

pub(crate) async fn no_target_and_no_lane_hides_what_is_due_in_another(store: AnyStore) {
    let expired = active(&minting(1, 1));
    let cause = |cause| LeaseEvent::RevokeStarted { cause, at: T0, handle: None };
    let ended = next(&active(&minting(2, 1)), &cause(Cause::TaskCompleted));
    let risen = next(&next(&active(&minting(3, 1)), &cause(Cause::Expired)), &cause(Cause::Operator));
    let stuck = next(&next(&active(&minting(4, 1)), &revoke(0)), &tried(Some("no route"), 1));
    let elsewhere = next(&active(&on("archive", 5)), &revoke(0));
    let dead = next(&next(&active(&on("nowhere", 6)), &revoke(0)), &revoked(1));
    for lease in [&expired, &ended, &risen, &stuck, &elsewhere, &dead, &minting(7, 1)] {
        put(&*store, samples::life(lease)).await;
    }
    assert_eq!(store.live_targets().await, Ok(vec!["archive".to_owned(), "orders-db".to_owned()]));
    assert_eq!(store.live_agents().await, Ok(vec![agent(1)]));
    let now = minting(7, 1).state.due().unwrap().max(expired.state.due().unwrap());
    let check = async |target: &str, lane: Rank, expect: &[&Lease]| {
        assert_eq!(due_in(&*store, target, lane, now, 9).await, ids_of(expect), "{target} {lane:?}");
    };
    check("orders-db", Rank::Security, &[&risen, &stuck]).await;
    check("orders-db", Rank::TaskEnd, &[&ended, &minting(7, 1)]).await;
    check("orders-db", Rank::Routine, &[&expired]).await;
    check("archive", Rank::Security, &[&elsewhere]).await;
    check("nowhere", Rank::Security, &[]).await;
    let counts = |target: &str, lane, live, due, stuck| LaneCounts {
        target: target.to_owned(),
        lane,
        live,
        due,
        stuck,
    };
    let before = vec![
        counts("archive", Rank::Security, 1, 1, 0),
        counts("orders-db", Rank::Routine, 1, 0, 0),
        counts("orders-db", Rank::TaskEnd, 2, 1, 0),
        counts("orders-db", Rank::Security, 2, 2, 1),
    ];
    assert_eq!(store.counts_by_lane(T0).await, Ok(before));
    let after = store.counts_by_lane(now).await.unwrap();
    assert_eq!(
        after[1..3],
        [counts("orders-db", Rank::Routine, 1, 1, 0), counts("orders-db", Rank::TaskEnd, 2, 2, 0),]
    );
    let all = Counts { live: 6, revoking: 4, stuck: 1, ..Counts::default() };
    assert_eq!(store.counts().await, Ok(all));
}

pub(crate) async fn what_is_over_and_old_leaves_its_table_and_is_told_from_the_journal(store: AnyStore) {
    let open = task(1);
    let ending = open.apply(&TaskEvent::EndStarted { cause: Cause::TaskCompleted, at: T0 }).unwrap();
    let ended = ending.apply(&TaskEvent::Ended { outcome: End::Clean, at: T0 }).unwrap();
    let minting = minting(1, 1);
    let at = minting.terms.created_at;
    let steps = [
        LeaseEvent::Minted { handle: Some("oid-1".to_owned()), expires_at: T0.shifted(9) },
        revoke(5),
        revoked(6),
    ];
    let begun = samples::mint_started(&minting.terms);
    put(&*store, vec![task_change(&open), replay::task_entry(&open, TaskEvent::Opened)]).await;
    put(&*store, vec![lease_change(&minting), replay::entry(&minting, begun, at)]).await;
    let mut dead = minting.clone();
    for step in steps {
        dead = next(&dead, &step);
        put(&*store, vec![lease_change(&dead), replay::entry(&dead, step, at)]).await;
    }
    let alive = active(&samples::minting(2, 2));
    put(&*store, [samples::life(&alive), vec![task_change(&task(2))]].concat()).await;
    let late = task(9).terms.opened_at;
    assert_eq!(store.ended(late, 9).await, Ok(vec![]), "its task is open, and may ask with the same key");
    for (task, step) in [
        (&ending, TaskEvent::EndStarted { cause: Cause::TaskCompleted, at: T0 }),
        (&ended, TaskEvent::Ended { outcome: End::Clean, at: T0 }),
    ] {
        put(&*store, vec![task_change(task), replay::task_entry(task, step)]).await;
    }
    assert_eq!(store.ended(T0, 9).await, Ok(vec![]), "it is not old yet");
    let lease = Ended::Lease(dead.terms.id);
    assert_eq!(store.ended(late, 9).await, Ok(vec![lease]), "a task leaves after its leases");
    put(&*store, vec![Change::Archive(lease), Change::Archive(Ended::Lease(alive.terms.id))]).await;
    assert_eq!(store.leases(&LeaseFilter::default(), 9).await, Ok(vec![alive.clone()]), "what lives stays");
    let gone = Ended::Task(ended.terms.id);
    assert_eq!(store.ended(late, 9).await, Ok(vec![gone]));
    put(&*store, vec![Change::Archive(gone)]).await;
    assert_eq!(store.tasks(&TaskFilter::default(), 9).await, Ok(vec![task(2)]));
    assert_eq!(store.lease(dead.terms.id).await, Ok(Some(dead.clone())));
    assert_eq!(store.lease_by_principal(dead.terms.principal.as_str()).await, Ok(Some(dead)));
    assert_eq!(store.task(ended.terms.id).await, Ok(Some(ended)));
    assert_eq!(store.ended(late, 9).await, Ok(vec![]));
}

pub(crate) async fn what_is_set_aside_is_listed_until_it_is_gone(store: AnyStore) {
    let row = BadRow {
        kind: AsideKind::Orphan,
        id: "lh1".to_owned(),
        task: String::new(),
        target: "orders-db".to_owned(),
        principal: "lh1".to_owned(),
        handle: Some("oid-7".to_owned()),
        bytes: vec![0xff, 0],
        error: "nobody knows it".to_owned(),
    };
    let aside = Aside { row, at: T0, due: Some(T0), tries: 0, last_error: None, gone_at: None };
    put(&*store, vec![Change::SetAside(Box::new(aside.clone()))]).await;
    let alive = AsideFilter { alive: true, ..AsideFilter::default() };
    let due = |at: i64| AsideFilter { due: Some(T0.shifted(at)), ..alive.clone() };
    let elsewhere = AsideFilter { target: Some("stock".to_owned()), ..alive.clone() };
    assert_eq!(store.asides(&due(0), 9).await, Ok(vec![aside.clone()]));
    assert_eq!(store.asides(&due(-1), 9).await, Ok(vec![]));
    assert_eq!(store.asides(&due(-60_000), 9).await, Ok(vec![]), "the longest wait");
    assert_eq!(store.asides(&due(-60_001), 9).await, Ok(vec![aside.clone()]), "a clock was put back");
    assert_eq!(store.asides(&elsewhere, 9).await, Ok(vec![]));
    assert_eq!(store.counts().await.unwrap().aside, 1);
    let gone = Aside { due: None, gone_at: Some(T0.shifted(5)), ..aside };
    put(&*store, vec![Change::Aside(Box::new(gone.clone()))]).await;
    assert_eq!(store.asides(&alive, 9).await, Ok(vec![]));
    assert_eq!(store.asides(&AsideFilter::default(), 9).await, Ok(vec![gone]));
    let handles = vec!["oid-7".to_owned()];
    let found = async |target, since| store.revoked_handles(target, &handles, T0.shifted(since)).await;
    assert_eq!(found("orders-db", 5).await, Ok(handles.clone()), "the reaper still looks for it");
    assert_eq!(found("orders-db", 6).await, Ok(vec![]));
    assert_eq!(found("stock", 5).await, Ok(vec![]));
    let lost = BadRow { kind: AsideKind::Lease, id: "lease_x".to_owned(), ..elsewhere_row() };
    let lost = Aside { row: lost, at: T0, due: Some(T0), tries: 0, last_error: None, gone_at: None };
    let outcome =
        store.commit(vec![Change::SetAside(Box::new(lost)), Change::Append(draft(1))], vec![]).await;
    assert!(matches!(outcome, Outcome::Failed(_)), "a row that is not there cannot be moved: {outcome:?}");
    assert_eq!(store.counts().await.unwrap().aside, 0, "and nothing of it is written");
}

fn elsewhere_row() -> BadRow {
    BadRow {
        kind: AsideKind::Lease,
        id: String::new(),
        task: String::new(),
        target: "orders-db".to_owned(),
        principal: String::new(),
        handle: None,
        bytes: vec![1],
        error: "spoiled".to_owned(),
    }
}

pub(crate) async fn handles_are_found_after_their_death(store: AnyStore) {
    let dead = |n: u64, at: i64| next(&next(&active(&minting(n, 1)), &revoke(1)), &revoked(at));
    for lease in [&dead(1, 10), &dead(2, 20), &active(&minting(3, 1))] {
        put(&*store, samples::life(lease)).await;
    }
    let check = async |target: &str, among: &[&str], since: i64, expect: &[&str]| {
        let owned = |handles: &[&str]| handles.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>();
        let found = store.revoked_handles(target, &owned(among), T0.shifted(since)).await;
        assert_eq!(found, Ok(owned(expect)));
    };
    let all = ["oid-1", "oid-2", "oid-3", "a stranger's"];
    check("orders-db", &all, 10, &["oid-1", "oid-2"]).await;
    check("orders-db", &all, 11, &["oid-2"]).await;
    check("orders-db", &all, 21, &[]).await;
    check("orders-db", &["oid-2"], 10, &["oid-2"]).await;
    check("orders-db", &[], 10, &[]).await;
    check("other-db", &all, 10, &[]).await;
}

pub(crate) async fn a_barrier_stands_until_it_is_lifted(store: AnyStore) {
    let select = |n| Selector::Agent(agent(n));
    let [first, second] = [revocation(1, select(1)), revocation(2, select(2))];
    let soft = samples::without_freeze(revocation(3, select(1)));
    put(&*store, [&first, &second, &soft].map(|r| Change::Revocation(Box::new(r.clone()))).to_vec()).await;
    assert_eq!(store.revocations(true, None, 9).await, Ok(vec![second.clone(), first.clone()]));
    assert_eq!(store.revocations(false, Some(soft.id), 1).await, Ok(vec![second.clone()]));
    let mut lifted = first.clone();
    lifted.lifted = Some(Lifted { by: agent(9), reason: "over".to_owned(), at: T0 });
    put(&*store, vec![Change::Revocation(Box::new(lifted.clone()))]).await;
    assert_eq!(store.revocations(true, None, 9).await, Ok(vec![second]));
    assert_eq!(store.revocation(first.id).await, Ok(Some(lifted)));
}

pub(crate) async fn a_registration_takes_the_place_of_what_was_kept_of_it(store: AnyStore) {
    let one = Registered::of("spiffe://prod.example/agent/a".parse().unwrap());
    let each = Registered::of("spiffe://prod.example/agent/ci-*".parse().unwrap());
    assert_eq!(store.registered().await, Ok(vec![]));
    let change = |entry: &Registered| Change::Agents(Box::new(entry.clone()));
    put(&*store, vec![change(&one), change(&each), Change::Bump(Subject::Agents)]).await;
    assert_eq!(store.registered().await, Ok(vec![one.clone(), each.clone()]));
    assert_eq!(store.versions(&[Subject::Agents]).await, Ok(vec![1]));
    let drift = Drift { claimed: None, task: task(1).terms.id, at: T0 };
    let one = Registered { drift: vec![drift], ..one };
    let stale = vec![Guard { subject: Subject::Agents, version: 0 }];
    let outcome = store.commit(vec![change(&one)], stale).await;
    assert_eq!(outcome, Outcome::Stale(Subject::Agents));
    put(&*store, vec![change(&one)]).await;
    assert_eq!(store.registered().await, Ok(vec![one, each]));
}

pub(crate) async fn entries_are_found_by_what_they_are_about(store: AnyStore) {
    let task_1 = task(1).terms.id;
    let lease_1 = minting(1, 1).terms.id;
    let mut drafts: Vec<_> = (0..6).map(draft).collect();
    drafts[1].task = Some(task_1);
    drafts[3].task = Some(task_1);
    drafts[3].lease = Some(lease_1);
    // Taken before its neighbour, written after it.
    drafts[4].at = drafts[2].at;
    put(&*store, drafts.into_iter().map(Change::Append).collect()).await;
    let seqs = |entries: Result<Vec<_>, _>| -> Vec<u64> {
        entries.unwrap().iter().map(|entry: &leasehold_law::journal::Entry| entry.seq).collect()
    };
    assert_eq!(seqs(store.entries(3, 2).await), [3, 4]);
    assert_eq!(seqs(store.entries(7, 2).await), [] as [u64; 0]);
    assert_eq!(seqs(store.entries_of_task(task_1, 9).await), [2, 4]);
    assert_eq!(seqs(store.entries_of_task(task_1, 1).await), [2]);
    let at = |n| draft(n).at;
    assert_eq!(seqs(store.entries_with("", at(1), at(3), 9).await), [2, 3, 5]);
    assert_eq!(seqs(store.entries_with("", at(2), at(3), 1).await), [3]);
    assert_eq!(seqs(store.entries_with("", at(6), at(9), 9).await), [] as [u64; 0]);
    let body = String::from_utf8(draft(2).body).unwrap();
    assert_eq!(seqs(store.entries_with(&body, at(0), at(9), 9).await), [3]);
    assert_eq!(
        seqs(store.entries_with("%", at(0), at(9), 9).await),
        [] as [u64; 0],
        "the text is no pattern"
    );
}

/// A lease of an agent, written where fewer than `most` of those that are counted are live.
async fn begin(store: &dyn Store, n: u64, of: u64, counted: Counted, most: u64) -> bool {
    let ceiling = Ceiling { holder: Holder::Agent(agent(of)), counted, most };
    let changes = vec![lease_change(&minting(n, of)), Change::Append(draft(n))];
    let outcome = store.commit_below(changes, vec![], vec![ceiling.clone()]).await;
    let found = store.lease(minting(n, of).terms.id).await.unwrap();
    assert_eq!(found.is_some(), outcome == Outcome::Committed);
    if found.is_none() {
        assert_eq!(outcome, Outcome::Full(Box::new(ceiling)));
    }
    found.is_some()
}

pub(crate) async fn no_more_leases_live_than_a_ceiling_says(store: AnyStore) {
    let agents = |of: &[u64]| Counted::Agents(of.iter().map(|n| agent(*n)).collect());
    let target = |name: &str| Counted::Target(name.to_owned());
    let check = async |n, of, counted: Counted, most, expect| {
        assert_eq!(begin(&*store, n, of, counted.clone(), most).await, expect, "{n} {counted:?} {most}");
    };
    check(1, 1, agents(&[1]), 0, false).await;
    check(1, 1, agents(&[1]), 1, true).await;
    check(2, 1, agents(&[1]), 1, false).await;
    check(2, 2, target("orders-db"), 1, false).await;
    check(2, 2, target("stock"), 1, true).await;
    check(3, 2, target("orders-db"), 2, false).await;
    check(3, 2, agents(&[1, 2]), 2, false).await;
    check(3, 2, agents(&[1, 2, 3]), 3, true).await;
    let dying = next(&active(&minting(1, 1)), &revoke(5));
    put(&*store, vec![lease_change(&active(&minting(1, 1))), lease_change(&dying)]).await;
    check(4, 1, agents(&[1]), 1, false).await;
    let dead = next(&dying, &revoked(6));
    put(&*store, vec![lease_change(&dead)]).await;
    check(4, 1, agents(&[1]), 1, true).await;
    let again = LeaseEvent::RevokeStarted { cause: Cause::Resurrected, at: T0.shifted(7), handle: None };
    let returned = next(&dead, &again);
    put(&*store, vec![lease_change(&returned)]).await;
    check(5, 1, agents(&[1]), 2, false).await;
    check(5, 1, agents(&[1]), 3, true).await;
    check(6, 4, target("orders-db"), 6, true).await;
}

pub(crate) async fn the_last_place_is_taken_once(store: AnyStore) {
    const CALLERS: u64 = 32;
    let mut callers = tokio::task::JoinSet::new();
    for n in 1..=CALLERS {
        let store = Arc::clone(&store);
        callers.spawn(async move { begin(&*store, n, 1, Counted::Agents(vec![agent(1)]), 1).await });
    }
    let began = callers.join_all().await;
    assert_eq!(began.into_iter().filter(|began| *began).count(), 1);
}

/// 64 callers at once; every fourth set is stale and must neither be written nor harm its neighbours.
pub(crate) async fn concurrent_callers_keep_the_chain_whole(store: AnyStore) {
    const CALLERS: u64 = 64;
    const SETS: u64 = 4;
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let store = Arc::clone(&store);
        callers.spawn(async move {
            for set in 0..SETS {
                let n = 1 + caller * SETS + set;
                let guard = Guard { subject: Subject::Policy, version: u64::from(set == 3) };
                let changes = vec![lease_change(&minting(n, 1)), Change::Append(draft(n))];
                let outcome = store.commit(changes, vec![guard]).await;
                let stale = Outcome::Stale(Subject::Policy);
                assert_eq!(outcome, if set == 3 { stale } else { Outcome::Committed });
                let found = store.lease(minting(n, 1).terms.id).await.unwrap();
                assert_eq!(found.is_some(), set != 3, "a read sees what was acknowledged, and nothing else");
            }
        });
    }
    callers.join_all().await;
    let head = verify_export(&*store).await;
    assert_eq!(head, CALLERS * (SETS - 1));
    assert_eq!(store.counts().await.unwrap().live, CALLERS * (SETS - 1));
}

/// Verifies the whole chain as an auditor would, and gives the number of its entries.
pub(crate) async fn verify_export(store: &dyn Store) -> u64 {
    let head = store.head().await.unwrap();
    let begin = Line::Begin { chain: head.chain.clone(), first_seq: 1, prev: Hash::GENESIS };
    let mut lines = vec![serde_json::to_string(&begin).unwrap()];
    let mut prev = Hash::GENESIS;
    for entry in store.entries(1, usize::MAX).await.unwrap() {
        assert_eq!(std::mem::replace(&mut prev, entry.hash), entry.prev);
        let body = String::from_utf8(entry.body).unwrap();
        let line = Line::Entry { seq: entry.seq, body, hash: entry.hash };
        lines.push(serde_json::to_string(&line).unwrap());
    }
    assert_eq!(verify(lines.iter().map(String::as_str)).as_ref(), Ok(&head));
    head.seq
}
