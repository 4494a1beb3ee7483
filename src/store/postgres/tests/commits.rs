//! Commits that meet each other, fail, or are cut off.

use leasehold_law::lease::Lease;
use leasehold_law::subject::{Guard, Subject};

use super::super::super::set::{Place, Set};
use super::super::batch::key;
use super::world::Base;
use crate::store::suite::samples::{
    active, agent, draft, lease, lease_change, minting, task, task_change, terms,
};
use crate::store::suite::{put, verify_export};
use crate::store::{Ceiling, Change, Counted, Outcome, Store, StoreError};

fn prepared(changes: Vec<Change>, guards: Vec<Guard>) -> Set {
    Set::prepare(changes, guards, vec![]).unwrap()
}

fn freeze() -> Subject {
    Subject::Freezes
}

fn unfrozen() -> Vec<Guard> {
    vec![Guard { subject: freeze(), version: 0 }]
}

/// A barrier that another broker is raising has no row yet that one could lock (RULES R-2).
#[tokio::test]
async fn a_barrier_that_is_being_raised_is_waited_for() {
    let base = Base::new().await;
    let a = base.open("a").await;
    let other = base.stranger().await;
    let place = Place::of(&freeze()).unwrap();
    let Place::Subject(text) = &place else { panic!("{place:?}") };
    other.batch_execute(&format!("BEGIN; SELECT pg_advisory_xact_lock({})", key(&place))).await.unwrap();
    other.execute("INSERT INTO leasehold.subjects (subject, version) VALUES ($1, 1)", &[text]).await.unwrap();
    let (written, ()) = futures::join!(a.commit(vec![lease_change(&minting(1, 1))], unfrozen()), async {
        base.until_waiting(1).await;
        other.batch_execute("COMMIT").await.unwrap();
    });
    assert_eq!(written, Outcome::Stale(freeze()));
    assert_eq!(a.lease(minting(1, 1).terms.id).await, Ok(None));
}

/// What was compared stands until the commit: the barrier comes behind it, and its list then holds the lease.
#[tokio::test]
async fn a_barrier_waits_for_whoever_has_compared_it() {
    let base = Base::new().await;
    let (a, b) = (base.open("a").await, base.open("b").await);
    let first = minting(1, 1);
    put(&a, vec![lease_change(&first)]).await;
    let other = base.stranger().await;
    other.batch_execute("BEGIN; SELECT 1 FROM leasehold.leases FOR UPDATE").await.unwrap();
    let active = vec![lease_change(&active(&first)), Change::Append(draft(1))];
    let barrier = vec![Change::Bump(freeze()), Change::Append(draft(2))];
    let (written, raised, ()) = futures::join!(
        a.commit(active, unfrozen()),
        async {
            base.until_waiting(1).await;
            b.commit(barrier, vec![]).await
        },
        async {
            base.until_waiting(2).await;
            other.batch_execute("COMMIT").await.unwrap();
        }
    );
    assert_eq!((written, raised), (Outcome::Committed, Outcome::Committed));
    let order = "SELECT (max(id) FILTER (WHERE chain = 'a/1') < max(id) FILTER (WHERE chain = 'b/1'))::int::int8 \
        FROM leasehold.journal";
    assert_eq!(base.count(order).await, 1);
    let late = a.commit(vec![Change::Append(draft(3))], unfrozen()).await;
    assert_eq!(late, Outcome::Stale(freeze()));
}

/// Brokers that write the same subjects and rows at once, in every order: each round has one winner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_race_have_one_winner() {
    const ROUNDS: u64 = 60;
    let base = Base::new().await;
    let brokers = [base.open("a").await, base.open("b").await, base.open("c").await];
    for round in 0..ROUNDS {
        let guards = |subject: Subject| vec![Guard { subject, version: round }];
        let bump = |n: usize| {
            let changes = match n % 2 {
                0 => vec![Change::Bump(Subject::Policy), Change::Bump(freeze())],
                _ => vec![Change::Bump(freeze()), Change::Bump(Subject::Policy)],
            };
            let guards = if n == 0 { guards(Subject::Policy) } else { guards(freeze()) };
            brokers[n].commit([changes, vec![Change::Append(draft(round))]].concat(), guards)
        };
        let outcomes = futures::future::join_all((0..3).map(bump)).await;
        let won = outcomes.iter().filter(|outcome| **outcome == Outcome::Committed).count();
        let stale = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Stale(_))).count();
        assert_eq!((won, stale), (1, 2), "{outcomes:?}");
    }
    let mut entries = 0;
    for broker in &brokers {
        entries += verify_export(broker).await;
    }
    assert_eq!(entries, ROUNDS);
}

/// RULES R-5, across brokers.
#[tokio::test]
async fn a_request_has_one_attempt_at_a_time() {
    let base = Base::new().await;
    let (a, b) = (base.open("a").await, base.open("b").await);
    let attempt = |n: u64, attempt: u32| -> Lease {
        let mut terms = terms(n, 1);
        terms.request_id = "same".parse().unwrap();
        terms.attempt = attempt;
        lease(terms)
    };
    put(&a, vec![lease_change(&attempt(1, 1))]).await;
    for rival in [attempt(2, 1), attempt(3, 2)] {
        let outcome = b.commit(vec![lease_change(&rival), Change::Append(draft(1))], vec![]).await;
        assert_eq!(outcome, Outcome::Stale(Subject::Lease(rival.terms.id)));
    }
    put(&a, vec![task_change(&task(1))]).await;
    let mut rival = task(2);
    rival.terms.agent = agent(1);
    rival.terms.request_id = task(1).terms.request_id;
    let outcome = b.commit(vec![task_change(&rival)], vec![]).await;
    assert_eq!(outcome, Outcome::Stale(Subject::Task(rival.terms.id)));
    assert_eq!(verify_export(&b).await, 0);
}

/// REQUIREMENTS POL-9, across brokers: counts are sums over brokers, and whoever compares them does so alone.
#[tokio::test]
async fn the_last_place_is_taken_once_among_brokers() {
    let base = Base::new().await;
    let brokers = [base.open("a").await, base.open("b").await, base.open("c").await];
    let ceiling = Ceiling {
        holder: leasehold_law::quota::Holder::Agent(agent(1)),
        counted: Counted::Agents(vec![agent(1)]),
        most: 5,
    };
    let begin = |n: u64| {
        let broker = &brokers[usize::try_from(n % 3).unwrap()];
        broker.commit_below(vec![lease_change(&minting(n, 1))], vec![], vec![ceiling.clone()])
    };
    let outcomes = futures::future::join_all((1..=30).map(begin)).await;
    let full = Outcome::Full(Box::new(ceiling.clone()));
    let count = |wanted: &Outcome| outcomes.iter().filter(|outcome| *outcome == wanted).count();
    assert_eq!((count(&Outcome::Committed), count(&full)), (5, 25), "{outcomes:?}");
    assert_eq!(
        base.count("SELECT sum(leases)::int8 FROM leasehold.live_counts WHERE holder LIKE 'agent:%'").await,
        5
    );
}

#[tokio::test]
async fn a_bad_set_leaves_its_neighbours_alone() {
    let base = Base::new().await;
    let store = base.open("a").await;
    base.sql(
        "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''broken''; END';
         CREATE TRIGGER broken BEFORE INSERT ON leasehold.numbers FOR EACH ROW EXECUTE FUNCTION broken()",
    )
    .await;
    let stale = vec![Guard { subject: Subject::Policy, version: 7 }];
    let sets = [
        prepared(vec![lease_change(&minting(1, 1)), Change::Append(draft(1))], vec![]),
        prepared(vec![lease_change(&minting(2, 1)), Change::Append(draft(2))], stale),
        prepared(vec![Change::Append(draft(3)), Change::Number("n".into(), 1)], vec![]),
        prepared(vec![lease_change(&minting(1, 1)), Change::Append(draft(4))], vec![]),
        prepared(vec![lease_change(&minting(5, 1)), Change::Append(draft(5))], vec![]),
    ];
    let outcomes = base.batcher(&store).await.write(&sets).await;
    let failed = Outcome::Failed(StoreError::Unusable("broken (SQLSTATE P0001)".to_owned()));
    let duplicate = Outcome::Stale(Subject::Lease(minting(1, 1).terms.id));
    let stale = Outcome::Stale(Subject::Policy);
    assert_eq!(outcomes, [Outcome::Committed, stale, failed, duplicate, Outcome::Committed]);
    assert_eq!(verify_export(&store).await, 2);
    assert_eq!(store.counts().await.unwrap().live, 2);
}

/// Ends whoever waits for a key lock in this database: other tests use the same server.
const CUT_OFF: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
    WHERE datname = current_database() AND wait_event = 'advisory'";

/// A deferred trigger makes the server wait in the middle of its commit; there the connection is cut.
#[tokio::test]
async fn a_commit_that_is_cut_off_is_unknown_to_all_in_it() {
    let base = Base::new().await;
    let store = base.open("a").await;
    put(&store, vec![Change::Append(draft(1))]).await;
    base.sql(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END';
         CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON leasehold.numbers DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION wait();
         SELECT pg_advisory_lock(42)",
    )
    .await;
    let stale = vec![Guard { subject: Subject::Policy, version: 7 }];
    let sets = [
        prepared(vec![Change::Append(draft(2))], vec![]),
        prepared(vec![Change::Number("n".into(), 1)], vec![]),
        prepared(vec![Change::Append(draft(3))], stale),
    ];
    let mut batcher = base.batcher(&store).await;
    let (outcomes, ()) = futures::join!(batcher.write(&sets), async {
        base.until_waiting(1).await;
        assert_eq!(base.count(CUT_OFF).await, 1);
    });
    assert!(matches!(&outcomes[..2], [Outcome::Unknown(_), Outcome::Unknown(_)]), "{outcomes:?}");
    assert_eq!(outcomes[2], Outcome::Stale(Subject::Policy));
    base.sql("SELECT pg_advisory_unlock(42); DROP TRIGGER wait ON leasehold.numbers").await;
    let again = [prepared(vec![Change::Append(draft(2))], vec![])];
    assert_eq!(batcher.write(&again).await, [Outcome::Committed]);
    assert_eq!(verify_export(&store).await, 2);
}

/// Before the commit was sent nothing can have been written, and that is known.
#[tokio::test]
async fn a_connection_that_is_cut_before_the_commit_has_written_nothing() {
    let base = Base::new().await;
    let store = base.open("a").await;
    let policy = key(&Place::of(&Subject::Policy).unwrap());
    base.sql(&format!("SELECT pg_advisory_lock({policy})")).await;
    let guards = vec![Guard { subject: Subject::Policy, version: 0 }];
    let (outcome, ()) = futures::join!(store.commit(vec![Change::Append(draft(1))], guards), async {
        base.until_waiting(1).await;
        assert_eq!(base.count(CUT_OFF).await, 1);
    });
    assert!(matches!(outcome, Outcome::Failed(StoreError::Unusable(_))), "{outcome:?}");
    base.sql("SELECT pg_advisory_unlock_all()").await;
    put(&store, vec![Change::Append(draft(1))]).await;
    assert_eq!(verify_export(&store).await, 1);
}

/// A lock that nobody gives back costs a set its deadline, and nobody else anything.
#[tokio::test]
async fn more_than_the_queue_holds_is_turned_away_at_once() {
    let base = Base::new().await;
    let store = base.open("a").await;
    let policy = key(&Place::of(&Subject::Policy).unwrap());
    base.sql(&format!("SELECT pg_advisory_lock({policy})")).await;
    let mut waiting = vec![];
    let turned_away = loop {
        let guards = vec![Guard { subject: Subject::Policy, version: 0 }];
        let mut commit = store.commit(vec![Change::Number("n".into(), 1)], guards);
        match futures::poll!(&mut commit) {
            std::task::Poll::Pending => waiting.push(commit),
            std::task::Poll::Ready(outcome) => break outcome,
        }
        assert!(waiting.len() < 5000, "the queue is bounded");
    };
    assert_eq!(turned_away, Outcome::Failed(StoreError::Busy));
    assert_eq!(store.number("n").await, Ok(None), "reads go on");
    base.sql("SELECT pg_advisory_unlock_all()").await;
    let outcomes = futures::future::join_all(waiting).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Committed));
}
