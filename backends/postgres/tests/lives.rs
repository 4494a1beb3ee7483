//! What happens to leases while they live: renewals, locks that others hold, a broker whose password changes, and what a
//! holder makes where the broker cannot go. Each on a real server.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use leasehold_backend::conformance::{Bench, Leased, Outcome, Session as _, run};
use leasehold_backend::{BackendError, Claim, Missing, RevokeReport};
use leasehold_law::lease::{Reached, Sessions};
use leasehold_law::time::Span;
use leasehold_postgres::throwaway::{self, Cluster, SUPERUSER};
use serde_json::{Map, Value, json};
use tokio_postgres::{Client, NoTls};

use common::agent::{Open, config, login};
use common::server::Server;
use common::{GROUP, Site, bin_dir, open};

#[test]
fn all_of_it_on_postgresql_18() {
    common::run_again_on_18();
}

async fn holds(server: Server, case: impl AsyncFnOnce(&Bench<'_>) -> Outcome) {
    run(&server, case).await.unwrap();
}

fn is_dead(report: &RevokeReport) -> bool {
    report.reached == Reached::Removed && report.sessions == Sessions::None && report.error.is_none()
}

async fn agent(leased: &Leased) -> Client {
    login(config(&leased.issued.credential)).await.unwrap()
}

async fn value(client: &Client, query: &str) -> String {
    client.query_one(query, &[]).await.unwrap().get(0)
}

fn lock_key(name: &str) -> i64 {
    let text = [b"leasehold.postgres.lock.v1\0".as_slice(), name.as_bytes()].concat();
    let digest = ring::digest::digest(&ring::digest::SHA256, &text);
    i64::from_be_bytes(digest.as_ref()[..8].try_into().unwrap())
}

/// Any login may take any advisory lock, and must not keep another's lease from being renewed.
#[tokio::test]
async fn a_stranger_on_its_lock_does_not_stop_a_renewal() {
    holds(Server::shared().await, async |bench| {
        let (leased, squatter) = (bench.issue().await?, bench.issue().await?);
        let session = agent(&squatter).await;
        let key = lock_key(leased.principal().as_str());
        session.batch_execute(&format!("SELECT pg_advisory_lock('{key}')")).await?;
        let renewal = bench.renewal(&leased, Span::from_mins(30)).await?;
        let renewed = bench.backend.renew(&renewal).await?;
        assert!(renewed.ttl > Span::from_mins(29), "{renewed:?}");
        assert!(!Open(session).works().await, "the stranger stays on the lock");
        Ok(())
    })
    .await;
}

/// RULES R-11: what another server does not hold is not dead, and nothing is minted there.
#[tokio::test]
async fn no_connection_is_used_that_leads_to_another_server() {
    holds(Server::shared().await, async |bench| {
        let broker = &bench.backend;
        let leased = bench.issue().await?;
        let mine = Claim { installation: "lives".to_owned(), incarnation: 1, term: 70 };
        broker.claim(&mine, broker.owner().await?.as_ref()).await?;
        broker.expect(&mine);
        let second = bench.issue().await?;
        let next = Claim { term: 90, ..mine.clone() };
        broker.claim(&next, Some(&mine)).await?;
        for elsewhere in [
            Claim { installation: "another".to_owned(), ..mine.clone() },
            Claim { incarnation: 2, ..mine.clone() },
            Claim { term: 91, ..mine.clone() },
        ] {
            broker.expect(&elsewhere);
            let told = broker.lookup(leased.principal()).await.unwrap_err();
            assert!(told.to_string().contains("not the one that the broker has claimed"), "{told}");
            let report = broker.revoke(&[leased.revocation()]).await.remove(0);
            assert!(!report.absent && report.error.is_some(), "{report:?}");
            assert!(bench.issue().await.is_err(), "nothing is minted");
            assert_eq!(broker.owner().await?.as_ref(), Some(&next), "and whose it is can still be asked");
        }
        broker.expect(&mine);
        for leased in [leased, second] {
            assert!(is_dead(&bench.kill(leased.revocation()).await?));
        }
        Ok(())
    })
    .await;
}

/// A server that says that somebody has a lock has answered, and did nothing.
#[tokio::test]
async fn a_lock_that_cannot_be_had_is_no_server_that_is_down() {
    holds(Server::shared().await, async |bench| {
        let leased = bench.issue().await?;
        let root = Site::shared().root().await;
        root.batch_execute(&format!("BEGIN; ALTER ROLE {} CONNECTION LIMIT 3", leased.principal())).await?;
        let renewal = bench.renewal(&leased, Span::from_mins(30)).await?;
        let told = bench.backend.renew(&renewal).await.unwrap_err();
        assert!(matches!(&told, BackendError::Refused { what, .. } if what.contains("lock")), "{told:?}");
        assert!(!told.outcome_unknown());
        root.batch_execute("ROLLBACK").await?;
        bench.backend.renew(&bench.renewal(&leased, Span::from_mins(30)).await?).await?;
        Ok(())
    })
    .await;
}

/// From 16 on a lease has its group's rights and cannot become the group, so that nothing it makes is the group's.
#[tokio::test]
async fn a_member_uses_its_group_s_rights_and_cannot_become_it() {
    let root = Site::shared().root().await;
    let has_options = value(&root, "SHOW server_version_num").await.parse::<i32>().unwrap() >= 160_000;
    holds(Server::shared().await, async |bench| {
        let leased = bench.issue().await?;
        let client = agent(&leased).await;
        assert_eq!(value(&client, "SELECT n::text FROM orders").await, "7");
        assert_eq!(client.batch_execute(&format!("SET ROLE {GROUP}")).await.is_err(), has_options);
        let mut as_group = config(&leased.issued.credential);
        as_group.options(format!("-c role={GROUP}"));
        assert_eq!(login(as_group).await.is_err(), has_options);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_group_that_owns_something_is_warned_of() {
    let root = Site::shared().root().await;
    root.batch_execute("CREATE ROLE owning; CREATE TABLE owned(n int); ALTER TABLE owned OWNER TO owning")
        .await
        .unwrap();
    holds(Server::shared().await.minting(&json!({ "member_of": ["owning", GROUP] })), async |bench| {
        let recipe = bench.harness.recipe();
        let warnings = bench.backend.health(&[bench.grant(&recipe)]).await?.warnings;
        let warned =
            |group: &str| warnings.iter().any(|told| told.contains(&format!("`{group}` owns objects")));
        assert!(warned("owning") && !warned(GROUP), "{warnings:?}");
        Ok(())
    })
    .await;
}

/// A database that the broker may not enter holds what the role owns: disabled, cut, and what remains is told. The
/// others of the batch are dead.
#[tokio::test]
async fn what_is_owned_where_the_broker_cannot_go_stops_no_other() {
    let root = Site::shared().root().await;
    root.batch_execute("CREATE DATABASE elsewhere").await.unwrap();
    let (there, connection) =
        tokio_postgres::connect(&Site::shared().cluster.superuser_dsn("elsewhere"), NoTls).await.unwrap();
    tokio::spawn(connection);
    there.batch_execute(&format!("GRANT CREATE ON SCHEMA public TO {GROUP}")).await.unwrap();
    holds(Server::shared().await, async |bench| {
        let (owner, other) = (bench.issue().await?, bench.issue().await?);
        let mut config = config(&owner.issued.credential);
        let session = login(config.dbname("elsewhere").clone()).await?;
        session.batch_execute("CREATE TABLE far(n int)").await?;
        session.batch_execute("BEGIN; LOCK TABLE far").await?;
        root.batch_execute("REVOKE CONNECT ON DATABASE elsewhere FROM PUBLIC").await?;
        let reports = bench.backend.revoke(&[owner.revocation(), other.revocation()]).await;
        assert_eq!((reports[0].reached, reports[0].sessions), (Reached::Cut, Sessions::None), "{reports:?}");
        assert!(reports[0].remains.iter().any(|what| what.contains("`elsewhere`")), "{reports:?}");
        assert!(reports[0].error.is_none() && is_dead(&reports[1]), "{reports:?}");
        assert!(!Open(session).works().await, "the session goes on");
        there.batch_execute("DROP TABLE far").await?;
        assert!(is_dead(&bench.revoke(owner.revocation()).await?));
        Ok(())
    })
    .await;
}

/// A login of the broker that may mint, and has a password of its own.
async fn mover(root: &Client) -> Map<String, Value> {
    let has_options = value(root, "SHOW server_version_num").await.parse::<i32>().unwrap() >= 160_000;
    let options = if has_options { "WITH ADMIN TRUE, INHERIT FALSE, SET FALSE" } else { "" };
    let make = format!(
        "CREATE ROLE mover LOGIN CREATEROLE PASSWORD 'old'; GRANT {GROUP} TO mover {options}; \
         GRANT pg_signal_backend, pg_read_all_stats TO mover"
    );
    root.batch_execute(&make).await.unwrap();
    let file = Site::shared().files.path().join("mover");
    std::fs::write(&file, "old").unwrap();
    Site::shared().with("admin", json!({ "user": "mover", "password_file": file }))
}

/// The broker's password is changed while leases live: it is refused until its file says the new one, and then goes on.
#[tokio::test]
async fn a_new_password_of_the_broker_is_taken_from_its_file() {
    let root = Site::shared().root().await;
    let table = mover(&root).await;
    holds(Server::of(&table), async |bench| {
        let leased = bench.issue().await?;
        let change = "ALTER ROLE mover PASSWORD 'new'; \
            SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'mover'";
        root.batch_execute(change).await?;
        let told = open(&table).health(&[]).await.unwrap_err();
        assert!(matches!(&told, BackendError::Refused { what, .. } if what.contains("`mover`")), "{told:?}");
        std::fs::write(Site::shared().files.path().join("mover"), "new\n").unwrap();
        bench.kill(leased.revocation()).await?;
        bench.issue().await.map(drop)
    })
    .await;
}

/// The functions that mint lie in a temporary schema, which a database may forbid.
#[tokio::test]
async fn a_login_that_may_make_nothing_temporary_is_told_what_it_lacks() {
    let root = Site::shared().root().await;
    root.batch_execute("CREATE DATABASE strict").await.unwrap();
    root.batch_execute("REVOKE TEMPORARY ON DATABASE strict FROM PUBLIC").await.unwrap();
    let port = Site::shared().cluster.port();
    let connect = json!({ "host": "127.0.0.1", "port": port, "dbname": "strict" });
    holds(Server::of(&Site::shared().with("connect", connect)), async |bench| {
        let grant = "GRANT TEMPORARY ON DATABASE \"strict\" TO \"leasehold\";";
        let missing = bench.backend.health(&[]).await?.missing_privileges;
        assert!(missing.iter().any(|missing| missing.fix == grant), "{missing:?}");
        assert!(bench.backend.setup(&[]).await?.iter().any(|statement| statement.text == grant));
        let told = bench.backend.issue(&bench.order(Span::from_mins(5)).await?).await.unwrap_err();
        assert!(matches!(&told, BackendError::Refused { fix: Some(fix), .. } if fix == grant), "{told:?}");
        root.batch_execute(grant).await?;
        bench.issue().await.map(drop)
    })
    .await;
}

/// Restarts a server with this many prepared transactions allowed, and gives what the broker lacks on it.
async fn lacks_with(cluster: &mut Cluster, prepared: u32) -> Vec<Missing> {
    let (root, connection) =
        tokio_postgres::connect(&cluster.superuser_dsn("postgres"), NoTls).await.unwrap();
    tokio::spawn(connection);
    root.batch_execute(&format!("ALTER SYSTEM SET max_prepared_transactions = {prepared}")).await.unwrap();
    cluster.halt().unwrap();
    cluster.resume().unwrap();
    let table = json!({
        "backend": "postgres",
        "connect": { "host": "127.0.0.1", "port": cluster.port(), "dbname": "postgres" },
        "tls": "disable",
        "admin": { "user": SUPERUSER, "password_file": cluster.socket_dir().join("password") },
        "accept_superuser": "nothing lies in it",
    });
    open(table.as_object().unwrap()).health(&[]).await.unwrap().missing_privileges
}

/// What a lease has prepared keeps its role locked, with no session to end: where that may be, nothing is to be minted.
#[tokio::test]
async fn a_server_that_takes_prepared_transactions_is_not_minted_in() {
    let mut cluster = throwaway::start(&bin_dir()).unwrap();
    let lacks = lacks_with(&mut cluster, 5).await;
    assert_eq!(lacks.len(), 1, "{lacks:?}");
    assert!(lacks[0].what.contains("`max_prepared_transactions` allows 5"), "{lacks:?}");
    assert!(lacks[0].fix.starts_with("ALTER SYSTEM SET max_prepared_transactions = 0;"), "{lacks:?}");
    assert_eq!(lacks_with(&mut cluster, 0).await.len(), 0);
}
