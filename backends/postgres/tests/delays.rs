//! What holders and strangers do to keep others' revocations from their proof, and a broker that is short of
//! connections. Each on a real server.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold_backend::conformance::{Bench, Failure, Leased, Outcome, Session as _, run};
use leasehold_backend::{Backend, REVOKE_CALLS, RevokeOrder, RevokeReport};
use leasehold_law::lease::{Reached, Sessions};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config};

use common::agent::{Open, config, login};
use common::server::Server;
use common::{GROUP, Site};

#[test]
fn all_of_it_on_postgresql_18() {
    common::run_again_on_18();
}

/// What one test locks would hold up another, so these take turns.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

async fn holds(case: impl AsyncFnOnce(&Bench<'_>) -> Outcome) {
    run(&Server::shared().await, case).await.unwrap();
}

fn is_dead(report: &RevokeReport) -> bool {
    report.reached == Reached::Removed && report.sessions == Sessions::None && report.error.is_none()
}

fn lock_key(name: &str) -> i64 {
    let text = [b"leasehold.postgres.lock.v1\0".as_slice(), name.as_bytes()].concat();
    let digest = ring::digest::digest(&ring::digest::SHA256, &text);
    i64::from_be_bytes(digest.as_ref()[..8].try_into().unwrap())
}

/// Waits until this many sessions of the broker wait for a lock of this kind.
async fn wait_for(root: &Client, kind: &str, sessions: i64) {
    let query = "SELECT count(DISTINCT a.pid) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid \
        WHERE a.usename = 'leasehold' AND NOT l.granted AND l.locktype = $1";
    for _ in 0..2000 {
        if root.query_one(query, &[&kind]).await.unwrap().get::<_, i64>(0) >= sessions {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let count: i64 = root.query_one(query, &[&kind]).await.unwrap().get(0);
    assert!(count >= sessions, "only {count} sessions wait for a lock ({kind})");
}

/// Leases whose holders made a table each, and a session that has them all locked: a clean-up waits for as long as it
/// may.
async fn owners(bench: &Bench<'_>, count: usize) -> Result<(Vec<Leased>, Client), Failure> {
    let locker = Site::shared().root().await;
    locker.batch_execute("BEGIN").await?;
    let mut owners = Vec::new();
    for _ in 0..count {
        let leased = bench.issue().await?;
        let table = format!("work.owned_{}", leased.principal());
        let holder = login(config(&leased.issued.credential)).await?;
        holder.batch_execute(&format!("CREATE TABLE {table}(n int)")).await?;
        locker.batch_execute(&format!("LOCK TABLE {table}")).await?;
        owners.push(leased);
    }
    Ok((owners, locker))
}

fn orders(leases: &[Leased]) -> Vec<RevokeOrder> {
    leases.iter().map(Leased::revocation).collect()
}

fn revoke(backend: &Arc<dyn Backend>, orders: Vec<RevokeOrder>) -> JoinHandle<Vec<RevokeReport>> {
    let backend = backend.clone();
    tokio::spawn(async move { backend.revoke(&orders).await })
}

/// The clean-up of what one holder made is under way for as long as it likes: the others of the same call are proven
/// before, and stay so even where the connection is lost meanwhile.
#[tokio::test]
async fn what_one_owns_delays_nobody_else_s_proof() {
    let _turn = turn().await;
    holds(async |bench| {
        let (owners, locker) = owners(bench, 1).await?;
        let others = [bench.issue().await?, bench.issue().await?];
        let all = [orders(&owners), orders(&others)].concat();
        let call = revoke(&bench.backend, all);
        let root = Site::shared().root().await;
        wait_for(&root, "relation", 1).await;
        root.batch_execute(
            "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid \
             WHERE a.usename = 'leasehold' AND NOT l.granted AND l.locktype = 'relation'",
        )
        .await?;
        let reports = call.await?;
        assert!(reports[1..].iter().all(is_dead), "{reports:?}");
        assert_eq!((reports[0].reached, reports[0].sessions), (Reached::Cut, Sessions::None), "{reports:?}");
        locker.batch_execute("ROLLBACK").await?;
        assert!(is_dead(&bench.kill(owners[0].revocation()).await?));
        Ok(())
    })
    .await;
}

/// Ten clean-ups that each would wait for two seconds have one second together where others are in the call.
#[tokio::test]
async fn clean_ups_have_a_time_of_their_own_for_all_of_them() {
    let _turn = turn().await;
    holds(async |bench| {
        let (owners, locker) = owners(bench, 10).await?;
        let other = bench.issue().await?;
        let all = [orders(&owners), vec![other.revocation()]].concat();
        let begun = Instant::now();
        let reports = bench.backend.revoke(&all).await;
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(is_dead(&reports[10]), "{reports:?}");
        for report in &reports[..10] {
            assert_eq!((report.reached, report.sessions), (Reached::Cut, Sessions::None), "{report:?}");
            assert!(!report.remains.is_empty() && report.target_now.is_some(), "{report:?}");
        }
        locker.batch_execute("ROLLBACK").await?;
        for owner in &owners {
            assert!(is_dead(&bench.kill(owner.revocation()).await?));
        }
        Ok(())
    })
    .await;
}

/// Comes back as often as it is ended, and does the same again.
fn stubborn(config: Config, statements: String) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            if let Ok(client) = login(config.clone()).await
                && client.batch_execute(&statements).await.is_ok()
            {
                let session = Open(client);
                while session.works().await {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

/// A login of the server that is no lease's.
async fn stranger(name: &str) -> Config {
    let root = Site::shared().root().await;
    root.batch_execute(&format!("CREATE ROLE {name} LOGIN PASSWORD 'stranger'")).await.unwrap();
    let mut config = Config::new();
    config.host("127.0.0.1").port(Site::shared().cluster.port()).dbname("postgres");
    config.user(name).password("stranger");
    config
}

/// Any login may take any advisory lock, and the names of leases are no secret: one that sits on theirs, and comes back
/// whenever it is ended, costs none of them the two seconds after which a lock is given up.
#[tokio::test]
async fn a_stranger_that_sits_on_the_locks_delays_no_proof() {
    let _turn = turn().await;
    holds(async |bench| {
        let stranger = stranger("squatter").await;
        let leases = [bench.issue().await?, bench.issue().await?, bench.issue().await?];
        let keys: Vec<_> = leases.iter().map(|one| lock_key(one.principal().as_str()).to_string()).collect();
        let sit =
            format!("SELECT pg_advisory_lock(key) FROM unnest('{{{}}}'::int8[]) AS key", keys.join(","));
        let first = login(stranger.clone()).await?;
        first.batch_execute(&sit).await?;
        let squatter = stubborn(stranger, sit);
        let begun = Instant::now();
        let reports = bench.backend.revoke(&orders(&leases)).await;
        let took = begun.elapsed();
        squatter.abort();
        assert!(reports.iter().all(is_dead), "{reports:?}");
        assert!(took < Duration::from_secs(2), "a lock was waited for until it was given up: {took:?}");
        assert!(!Open(first).works().await, "the stranger stays on the locks");
        Ok(())
    })
    .await;
}

/// A grant to the role that is never committed holds the role itself.
#[tokio::test]
async fn a_stranger_that_grants_and_does_not_commit_delays_no_proof() {
    let _turn = turn().await;
    holds(async |bench| {
        let leased = bench.issue().await?;
        let granter = login(stranger("granter").await).await?;
        let name = leased.principal();
        granter
            .batch_execute(&format!("BEGIN; CREATE TEMP TABLE t(n int); GRANT SELECT ON t TO {name}"))
            .await?;
        let report = bench.backend.revoke(&[leased.revocation()]).await.remove(0);
        assert!(is_dead(&report), "{report:?}");
        assert!(!Open(granter).works().await, "the stranger stays");
        Ok(())
    })
    .await;
}

/// Leases, twenty of which are changed by a session that does not commit, and the others.
async fn changed(bench: &Bench<'_>, changer: &Client) -> Result<(Vec<Leased>, Vec<Leased>), Failure> {
    let (mut changed, mut others) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        changed.push(bench.issue().await?);
    }
    for _ in 0..4 {
        others.push(bench.issue().await?);
    }
    let root = Site::shared().root().await;
    let who: String = changer.query_one("SELECT current_user::text", &[]).await?.get(0);
    for leased in &changed {
        root.batch_execute(&format!("GRANT {} TO {who} WITH ADMIN OPTION", leased.principal())).await?;
    }
    changer.batch_execute("BEGIN").await?;
    for leased in &changed {
        changer.batch_execute(&format!("ALTER ROLE {} CONNECTION LIMIT 1", leased.principal())).await?;
    }
    Ok((changed, others))
}

/// A login with CREATEROLE may change any role up to 15, and those that it was given from 16 on.
#[tokio::test]
async fn a_stranger_that_changes_many_roles_and_does_not_commit_delays_no_proof() {
    let _turn = turn().await;
    holds(async |bench| {
        let config = stranger("changer").await;
        Site::shared().root().await.batch_execute("ALTER ROLE changer CREATEROLE").await?;
        let changer = login(config).await?;
        let (changed, others) = changed(bench, &changer).await?;
        let reports = bench.backend.revoke(&[orders(&changed), orders(&others)].concat()).await;
        assert!(reports.iter().all(is_dead), "{reports:?}");
        assert!(!Open(changer).works().await, "the stranger stays");
        Ok(())
    })
    .await;
}

/// Where whoever locks twenty roles cannot be ended, the others of the call are dead all the same, and in time.
#[tokio::test]
async fn roles_that_stay_locked_delay_the_others_of_their_call_by_seconds() {
    let _turn = turn().await;
    holds(async |bench| {
        let root = Site::shared().root().await;
        root.batch_execute("CREATE ROLE mighty_changer LOGIN SUPERUSER PASSWORD 'stranger'").await?;
        let mut config = Config::new();
        config.host("127.0.0.1").port(Site::shared().cluster.port()).dbname("postgres");
        let changer = login(config.user("mighty_changer").password("stranger").clone()).await?;
        let (changed, others) = changed(bench, &changer).await?;
        let begun = Instant::now();
        let reports = bench.backend.revoke(&[orders(&changed), orders(&others)].concat()).await;
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(25), "its caller gave it up: {took:?}");
        assert!(reports[20..].iter().all(is_dead), "{reports:?}");
        for report in &reports[..20] {
            assert_eq!(report.reached, Reached::None, "{report:?}");
            assert!(report.error.as_ref().unwrap().contains("its login could not be refused"), "{report:?}");
        }
        changer.batch_execute("ROLLBACK").await?;
        for leased in &changed {
            assert!(is_dead(&bench.kill(leased.revocation()).await?));
        }
        Ok(())
    })
    .await;
}

/// From 16 on whoever gives a group away holds it until the end of the transaction.
#[tokio::test]
async fn a_stranger_that_gives_the_group_away_and_does_not_commit_delays_no_proof() {
    let _turn = turn().await;
    holds(async |bench| {
        let config = stranger("giver").await;
        let give = format!("GRANT {GROUP} TO giver WITH ADMIN OPTION; CREATE TABLE hung_on(n int)");
        let root = Site::shared().root().await;
        root.batch_execute(&give).await?;
        let leases = [bench.issue().await?, bench.issue().await?, bench.issue().await?];
        // This one stays, and has its membership revoked for it.
        let name = leases[0].principal();
        root.batch_execute(&format!("GRANT SELECT ON hung_on TO {name}")).await?;
        let giver = login(config).await?;
        giver.batch_execute(&format!("BEGIN; GRANT {GROUP} TO boss")).await?;
        let reports = bench.backend.revoke(&orders(&leases)).await;
        assert!(reports[1..].iter().all(is_dead), "{reports:?}");
        assert_eq!((reports[0].reached, reports[0].sessions), (Reached::Cut, Sessions::None), "{reports:?}");
        let member = "SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member \
            JOIN pg_roles g ON g.oid = m.roleid WHERE r.rolname = $1::text AND g.rolname = $2::text";
        let left: i64 = root.query_one(member, &[&name.as_str(), &GROUP]).await?.get(0);
        assert_eq!(left, 0, "what stays is a member still");
        root.batch_execute("DROP TABLE hung_on").await?;
        assert!(is_dead(&bench.kill(leases[0].revocation()).await?));
        Ok(())
    })
    .await;
}

/// The calls that all lanes share take every connection but one, whatever becomes of them; and a call too many says that
/// the broker is short of connections, not that the target is away.
#[tokio::test]
async fn a_security_revocation_has_a_connection_while_the_others_are_used_up() {
    let _turn = turn().await;
    holds(async |bench| {
        let (mut lockers, mut calls, mut hung) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 1..REVOKE_CALLS {
            let (leases, locker) = owners(bench, 5).await?;
            calls.push(revoke(&bench.backend, orders(&leases)));
            lockers.push(locker);
            hung.extend(leases);
        }
        let others = i64::try_from(REVOKE_CALLS - 1)?;
        wait_for(&Site::shared().root().await, "relation", others).await;
        let security = bench.issue().await?;
        let report = bench.backend.revoke(&[security.revocation()]).await.remove(0);
        assert!(is_dead(&report), "{report:?}");
        assert!(calls.iter().all(|call| !call.is_finished()), "the others were to be under way");
        let (leases, locker) = owners(bench, 5).await?;
        calls.push(revoke(&bench.backend, orders(&leases)));
        wait_for(&Site::shared().root().await, "relation", others + 1).await;
        let late = bench.issue().await?;
        let too_many = bench.backend.revoke(&[late.revocation()]).await.remove(0);
        assert!(too_many.unasked && too_many.error.is_some(), "{too_many:?}");
        for locker in lockers.iter().chain([&locker]) {
            locker.batch_execute("ROLLBACK").await?;
        }
        for call in calls {
            let reports = call.await?;
            assert!(reports.iter().all(|report| !report.unasked), "{reports:?}");
        }
        for leased in hung.iter().chain(&leases).chain([&late]) {
            assert!(is_dead(&bench.kill(leased.revocation()).await?));
        }
        Ok(())
    })
    .await;
}
