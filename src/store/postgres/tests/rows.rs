//! What brokers read: of each other, of bad rows, and over connections that were cut.

use std::time::Duration;

use leasehold_law::quota::Holder;
use leasehold_law::revocation::Selector;
use leasehold_law::time::Span;

use super::world::Base;
use crate::store::suite::put;
use crate::store::suite::samples::{agent, draft, lease_change, minting, revocation, task, task_change};
use crate::store::{
    Aside, AsideFilter, AsideKind, BadRow, Ceiling, Change, Counted, DueLease, Foreign, LeaseFilter, Outcome,
    Store, StoreError, TaskFilter,
};

/// No test waits so long unless it fails.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_change_is_heard_by_the_other_brokers_and_not_by_its_own() {
    let base = Base::new().await;
    let (a, b) = (base.open("a").await, base.open("b").await);
    let (lease, task) = (minting(1, 1), task(1));
    let about = |task, lease, n| Change::Append(crate::store::Draft { task, lease, ..draft(n) });
    let (heard, ()) = futures::join!(tokio::time::timeout(PATIENCE, b.foreign_changes()), async {
        let (task_id, lease_id) = (Some(task.terms.id), Some(lease.terms.id));
        let changes = vec![task_change(&task), about(task_id, None, 1), about(task_id, lease_id, 2)];
        put(&a, [changes, vec![about(task_id, lease_id, 3), about(None, None, 4)]].concat()).await;
    });
    let expect = [Foreign::Task(task.terms.id), Foreign::Lease(lease.terms.id), Foreign::Other];
    assert_eq!(heard.unwrap(), expect, "each once");
    put(&b, vec![about(None, None, 5)]).await;
    assert_eq!(tokio::time::timeout(PATIENCE, a.foreign_changes()).await.unwrap(), [Foreign::Other]);
}

/// Whoever follows is woken by them alone here: nobody looks by the clock.
#[tokio::test]
async fn a_notification_wakes_the_other_brokers() {
    let base = Base::new().await;
    let (a, b) = (base.open("a").await, base.open("b").await);
    let told = tokio::time::timeout(PATIENCE, async {
        // Brokers begin to listen beside their start.
        for n in 1.. {
            put(&a, vec![Change::Append(draft(n))]).await;
            if tokio::time::timeout(PATIENCE / 50, b.wake.notified()).await.is_ok() {
                break;
            }
        }
    });
    told.await.expect("b is told");
}

/// A pooler may swallow notifications, and other engines have none.
#[tokio::test]
async fn a_change_is_heard_without_notifications() {
    let base = Base::new().await;
    let (a, b) = (base.open("a").await, base.open("b").await);
    a.herald.abort();
    b.herald.abort();
    let (heard, ()) = futures::join!(tokio::time::timeout(PATIENCE, b.foreign_changes()), async {
        base.sql("SELECT pg_sleep(0.1)").await;
        put(&a, vec![Change::Append(draft(1))]).await;
    });
    assert_eq!(heard.unwrap(), [Foreign::Other]);
}

#[tokio::test]
async fn what_was_written_before_is_no_news() {
    let base = Base::new().await;
    let a = base.open("a").await;
    put(&a, vec![Change::Append(draft(1))]).await;
    let b = base.open("b").await;
    put(&a, vec![Change::Append(crate::store::Draft { task: Some(task(1).terms.id), ..draft(2) })]).await;
    let heard = tokio::time::timeout(PATIENCE, b.foreign_changes()).await;
    assert_eq!(heard.unwrap(), [Foreign::Task(task(1).terms.id)]);
}

#[tokio::test]
async fn brokers_tell_each_other_whom_they_heard_from() {
    let base = Base::new().await;
    let (a, b) = (base.open("a").await, base.open("b").await);
    let [first, second, third] = [1, 2, 3].map(|n| task(n).terms.id);
    a.tell_heard(&[(first, Span::from_secs(50)), (second, Span::ZERO)]).await.unwrap();
    b.tell_heard(&[(first, Span::from_secs(5))]).await.unwrap();
    let heard = b.heard_elsewhere(&[first, third]).await.unwrap();
    let [(id, ago)] = heard[..] else { panic!("{heard:?}") };
    assert!(id == first && (50_000..60_000).contains(&ago.0), "{heard:?}");
    a.tell_heard(&[(second, Span::ZERO)]).await.unwrap();
    assert_eq!(
        b.heard_elsewhere(&[first]).await,
        Ok(vec![]),
        "each row is the whole of what its broker heard"
    );
    base.sql("UPDATE leasehold.heard SET at = at - interval '1 minute' WHERE broker = 'a'").await;
    let heard = b.heard_elsewhere(&[second]).await.unwrap();
    assert!(matches!(heard[..], [(id, ago)] if id == second && ago >= Span::from_secs(60)), "{heard:?}");
}

#[tokio::test]
async fn the_high_water_mark_is_the_latest_of_all_brokers() {
    let base = Base::new().await;
    let (a, b) = (base.open("a").await, base.open("b").await);
    put(&a, vec![Change::Number("clock".into(), 7)]).await;
    put(&b, vec![Change::Number("clock".into(), 5)]).await;
    assert_eq!(b.number("clock").await, Ok(Some(7)));
    put(&b, vec![Change::Number("clock".into(), 9)]).await;
    assert_eq!(a.number("clock").await, Ok(Some(9)));
}

/// Law 9.
#[tokio::test]
async fn an_unreadable_row_is_set_aside_and_stops_nothing() {
    let base = Base::new().await;
    let store = base.open("a").await;
    put(&store, (1..=3).map(|n| lease_change(&minting(n, 1))).collect()).await;
    put(&store, vec![task_change(&task(1)), task_change(&task(2))]).await;
    let bad = minting(2, 1);
    base.sql(&format!(
        "UPDATE leasehold.leases SET handle = 'oid', body = '{{}}' WHERE id = '{}'",
        bad.terms.id
    ))
    .await;
    base.sql(&format!("UPDATE leasehold.tasks SET body = 'x' WHERE id = '{}'", task(1).terms.id)).await;
    let expect = vec![minting(3, 1), minting(1, 1)];
    assert_eq!(
        store.leases(&LeaseFilter::default(), 2).await,
        Ok(expect.clone()),
        "a full page all the same"
    );
    let due = store
        .due_leases("orders-db", leasehold_law::cause::Rank::TaskEnd, minting(9, 1).terms.created_at, 9)
        .await
        .unwrap();
    let [DueLease::Lease(first), DueLease::Bad(row), DueLease::Lease(last)] = &due[..] else {
        panic!("{due:?}");
    };
    assert_eq!((&**first, &**last), (&minting(1, 1), &minting(3, 1)));
    assert_eq!((row.id.as_str(), row.handle.as_deref()), (bad.terms.id.to_string().as_str(), Some("oid")));
    let live = LeaseFilter { agent: Some(agent(1)), live: true, ..LeaseFilter::default() };
    assert_eq!(store.leases(&live, usize::MAX).await, Ok(expect));
    assert!(matches!(store.lease(bad.terms.id).await, Err(StoreError::Unreadable(_))));
    assert_eq!(store.tasks(&TaskFilter::default(), 9).await, Ok(vec![task(2)]));
    assert_eq!(store.counts().await.unwrap().bad_rows, 2);
}

/// RULES R-2: what cannot be read is not passed over, or it would let through what was frozen.
#[tokio::test]
async fn a_barrier_that_cannot_be_read_lets_nothing_pass() {
    let base = Base::new().await;
    let store = base.open("a").await;
    let barriers = [1, 2].map(|n| revocation(n, Selector::Agent(agent(n))));
    put(&store, barriers.iter().map(|one| Change::Revocation(Box::new(one.clone()))).collect()).await;
    let [first, second] = &barriers;
    base.sql(&format!("UPDATE leasehold.revocations SET body = 'x' WHERE id = '{}'", first.id)).await;
    let read = store.revocations(true, None, usize::MAX).await;
    assert!(matches!(&read, Err(StoreError::Unreadable(_))), "{read:?}");
    assert_eq!(store.revocations(false, None, 9).await, Ok(vec![second.clone()]), "a list shows what it can");
    assert_eq!(store.unreadable(9).await.unwrap().len(), 1);
}

/// Whichever broker moves a bad row moves it once; its bytes are kept, and nobody's quota counts it any more.
#[tokio::test]
async fn a_bad_row_is_moved_once_and_counts_no_more() {
    let base = Base::new().await;
    let (a, b) = (base.open("a").await, base.open("b").await);
    let bad = minting(1, 1);
    put(&a, vec![lease_change(&bad), task_change(&task(1))]).await;
    base.sql("UPDATE leasehold.leases SET body = '{}'").await;
    base.sql("UPDATE leasehold.tasks SET body = 'x'").await;
    for store in [&a, &b] {
        assert!(store.lease(bad.terms.id).await.is_err() && store.task(task(1).terms.id).await.is_err());
    }
    let rows = a.unreadable(9).await.unwrap();
    let [lease, of_task] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((lease.kind, &lease.bytes[..]), (AsideKind::Lease, &b"{}"[..]));
    assert_eq!((of_task.kind, &of_task.task), (AsideKind::Task, &task(1).terms.id.to_string()));
    let other = BadRow { bytes: b"other".to_vec(), ..lease.clone() };
    let refused = a.commit(vec![aside(&other), Change::Append(draft(1))], vec![]).await;
    assert!(matches!(refused, Outcome::Failed(StoreError::Unreadable(_))), "{refused:?}");
    assert_eq!(full(&b).await, Outcome::Full(Box::new(ceiling())), "it may still be alive");
    let (first, second) =
        futures::join!(a.commit(vec![aside(lease)], vec![]), b.commit(vec![aside(lease)], vec![]));
    let moved = [&first, &second].into_iter().filter(|outcome| **outcome == Outcome::Committed).count();
    assert_eq!(moved, 1, "{first:?} {second:?}");
    put(&b, vec![aside(of_task)]).await;
    for store in [&a, &b] {
        assert_eq!(store.unreadable(9).await, Ok(vec![]), "what another broker moved is forgotten");
        let counts = store.counts().await.unwrap();
        assert_eq!((counts.live, counts.open_tasks, counts.bad_rows, counts.aside), (0, 0, 2, 2));
    }
    let kept = b.asides(&AsideFilter::default(), 9).await.unwrap();
    assert_eq!(kept.into_iter().map(|one| one.row).collect::<Vec<_>>(), [of_task.clone(), lease.clone()]);
    assert_eq!(full(&b).await, Outcome::Committed);
}

/// A row that disagrees with its columns cannot be trusted with either.
#[tokio::test]
async fn a_row_that_contradicts_itself_is_bad() {
    let base = Base::new().await;
    let store = base.open("a").await;
    put(&store, vec![lease_change(&minting(1, 1))]).await;
    base.sql("UPDATE leasehold.leases SET handle = 'another'").await;
    let (lane, now) = (leasehold_law::cause::Rank::TaskEnd, minting(9, 1).terms.created_at);
    let due = store.due_leases("orders-db", lane, now, 9).await.unwrap();
    assert!(matches!(&due[..], [DueLease::Bad(row)] if row.error.contains("handle")), "{due:?}");
    assert_eq!(store.unreadable(9).await.unwrap().len(), 1);
    base.sql("UPDATE leasehold.leases SET handle = NULL").await;
    assert_eq!(store.unreadable(9).await, Ok(vec![]), "it was mended");
}

fn aside(row: &BadRow) -> Change {
    let at = task(1).terms.opened_at;
    let aside = Aside { row: row.clone(), at, due: Some(at), tries: 0, last_error: None, gone_at: None };
    Change::SetAside(Box::new(aside))
}

fn ceiling() -> Ceiling {
    let agent = agent(1);
    Ceiling { holder: Holder::Agent(agent.clone()), counted: Counted::Agents(vec![agent]), most: 1 }
}

async fn full(store: &dyn Store) -> Outcome {
    store.commit_below(vec![lease_change(&minting(2, 1))], vec![], vec![ceiling()]).await
}

#[tokio::test]
async fn readers_whose_connections_were_cut_connect_again() {
    let base = Base::new().await;
    let store = base.open("a").await;
    put(&store, vec![lease_change(&minting(1, 1))]).await;
    for _ in 0..4 {
        store.counts().await.unwrap();
    }
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    assert!(base.count(cut).await >= 5, "writer, readers");
    for _ in 0..8 {
        assert_eq!(store.counts().await.unwrap().live, 1);
    }
}

/// Rows are few here, so that the planner is told to take an index wherever there is a fit one.
#[tokio::test]
async fn hot_queries_use_their_indexes() {
    let base = Base::new().await;
    base.open("a").await.leave().await;
    base.sql("SET search_path = leasehold; SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off")
        .await;
    let check = async |query: &str, index: &str| {
        let rows = base.root.query(&format!("EXPLAIN {query}"), &[]).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(plan.contains(index) && !plan.contains("Seq Scan"), "{query}\n{plan}");
    };
    check(
        "SELECT body FROM leases WHERE target = 't' AND lane = 2 AND due <= 5 ORDER BY due, id LIMIT 9",
        "leases_due",
    )
    .await;
    check(
        "SELECT body FROM leases WHERE agent = 'a' AND due IS NOT NULL ORDER BY id DESC",
        "leases_live_agent",
    )
    .await;
    check(
        "SELECT body FROM leases WHERE target = 't' AND due IS NOT NULL ORDER BY id DESC",
        "leases_live_target",
    )
    .await;
    check("SELECT body FROM leases WHERE state = 'revoking' AND stuck ORDER BY id DESC", "leases_revoking")
        .await;
    let request =
        "SELECT body FROM leases WHERE task = 't' AND request_id = 'r' ORDER BY attempt DESC LIMIT 1";
    check(request, "leases_request").await;
    check("SELECT body FROM journal WHERE chain = 'c' AND seq >= 5 ORDER BY seq LIMIT 9", "journal_chain")
        .await;
    check("SELECT body FROM journal WHERE task = 't' ORDER BY id LIMIT 9", "journal_task").await;
    check("SELECT body FROM journal WHERE at >= 1 AND at < 2 ORDER BY at, id LIMIT 9", "journal_at").await;
    let barrier = "SELECT body FROM revocations WHERE freezing ORDER BY id DESC";
    check(barrier, "revocations_freezing").await;
}
