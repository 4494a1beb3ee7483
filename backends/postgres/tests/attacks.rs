//! What was tried against brokers of this kind, and what servers do at their worst. Each on a real server.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::time::{Duration, Instant};

use leasehold_backend::conformance::{Bench, Failure, Harness as _, Leased, Outcome, Session as _, run};
use leasehold_backend::{Alive, BackendError, GrantView, RevokeOrder, RevokeReport};
use leasehold_law::lease::{Reached, Sessions};
use leasehold_law::scope::Pair;
use leasehold_law::time::Span;
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;
use tokio_postgres::Client;

use common::agent::{Delayed, Open, Trap, config, login};
use common::server::Server;
use common::{ADMIN_PASSWORD, GROUP, Site, open};

#[test]
fn all_of_it_on_postgresql_18() {
    common::run_again_on_18();
}

/// A revocation ends every login on the server that stays half-way, so these take turns.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Runs a case against a backend of the shared server.
async fn holds(server: Server, case: impl AsyncFnOnce(&Bench<'_>) -> Outcome) {
    run(&server, case).await.unwrap();
}

fn is_dead(report: &RevokeReport) -> bool {
    report.reached == Reached::Removed && report.sessions == Sessions::None && report.error.is_none()
}

async fn value(root: &Client, query: &str) -> String {
    root.query_one(query, &[]).await.unwrap().get(0)
}

/// Whether the server is one whose memberships have options.
async fn has_options(root: &Client) -> bool {
    value(root, "SHOW server_version_num").await.parse::<i32>().unwrap() >= 160_000
}

async fn agent(leased: &Leased) -> Client {
    login(config(&leased.issued.credential)).await.unwrap()
}

/// a login asleep past its check is ended with the rest, at the first try, long before it wakes.
async fn a_sleeper_dies(options: &str) {
    let _turn = turn().await;
    holds(Server::shared().await, async |bench| {
        let leased = bench.issue().await?;
        let sleeper = Delayed::start(&leased.issued.credential, 60, options).await;
        let report = bench.revoke(leased.revocation()).await?;
        assert!(is_dead(&report), "{report:?}");
        let woken = timeout(Duration::from_secs(10), sleeper.0).await.expect("it sleeps on").unwrap();
        if let Ok(client) = woken {
            assert!(!Open(client).works().await, "it outlived its role");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_login_asleep_past_its_check_is_ended() {
    a_sleeper_dies("").await;
}

#[tokio::test]
async fn a_login_asleep_as_its_group_is_ended() {
    if has_options(&Site::shared().root().await).await {
        return; // It cannot become its group: `a_member_uses_its_group_s_rights_and_cannot_become_it`.
    }
    a_sleeper_dies(&format!("-c role={GROUP}")).await;
}

#[tokio::test]
async fn a_session_whose_role_is_gone_is_reaped_by_its_oid() {
    let _turn = turn().await;
    holds(Server::shared().await, async |bench| {
        let leased = bench.issue().await?;
        let session = Open(agent(&leased).await);
        let root = Site::shared().root().await;
        root.batch_execute(&format!("DROP ROLE {}", leased.principal())).await?;
        assert!(session.works().await, "a dropped role cuts no session by itself");
        let handle = leased.issued.handle.clone().unwrap();
        let reaped = bench.backend.reap(&["no handle".to_owned(), handle.clone()]).await?;
        assert_eq!(reaped.iter().map(|r| (&r.handle, r.sessions)).collect::<Vec<_>>(), [(&handle, 1)]);
        assert!(!session.works().await, "it was not ended");
        let report = bench.revoke(leased.revocation()).await?;
        assert!(report.absent && is_dead(&report), "{report:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_gone_name_with_a_known_oid_loses_its_sessions() {
    let _turn = turn().await;
    holds(Server::shared().await, async |bench| {
        let leased = bench.issue().await?;
        let session = Open(agent(&leased).await);
        Site::shared().root().await.batch_execute(&format!("DROP ROLE {}", leased.principal())).await?;
        let report = bench.revoke(leased.revocation()).await?;
        assert!(report.absent && is_dead(&report), "{report:?}");
        assert!(!session.works().await, "the session outlived its role");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_role_that_somebody_renamed_is_found_by_its_oid() {
    let _turn = turn().await;
    holds(Server::shared().await, async |bench| {
        let leased = bench.issue().await?;
        let root = Site::shared().root().await;
        root.batch_execute(&format!("ALTER ROLE {} RENAME TO hidden", leased.principal())).await?;
        let report = bench.kill(leased.revocation()).await?;
        assert!(is_dead(&report), "{report:?}");
        assert_eq!(value(&root, "SELECT count(*)::text FROM pg_roles WHERE rolname = 'hidden'").await, "0");
        Ok(())
    })
    .await;
}

/// R-8, kept: without what runs by itself or with its owner's rights, and with an owner without power.
#[tokio::test]
async fn what_is_kept_has_no_teeth() {
    let _turn = turn().await;
    let server = Server::of(&Site::shared().with("on_owned", json!("keep")));
    holds(server, async |bench| {
        let leased = bench.issue().await?;
        Trap::lay(&leased.issued.credential).await;
        let report = bench.revoke(leased.revocation()).await?;
        assert!(is_dead(&report), "{report:?}");
        let root = Site::shared().root().await;
        let name = leased.principal();
        let count = |what: &str| format!("SELECT count(*)::text FROM {what}");
        assert_eq!(value(&root, &count(&format!("pg_proc WHERE proname = 'trap_{name}'"))).await, "0");
        assert_eq!(
            value(&root, &count(&format!("pg_trigger WHERE tgrelid = 'work.bait_{name}'::regclass"))).await,
            "0"
        );
        for kept in ["bait", "view"] {
            let owner = format!(
                "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'work.{kept}_{name}'::regclass"
            );
            assert_eq!(value(&root, &owner).await, "lh_estate");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_estate_with_power_gets_nothing() {
    let _turn = turn().await;
    let root = Site::shared().root().await;
    let mighty = "CREATE ROLE mighty NOLOGIN CREATEDB; GRANT mighty TO leasehold; GRANT CREATE ON SCHEMA work TO mighty";
    root.batch_execute(mighty).await.unwrap();
    let mut table = Site::shared().with("on_owned", json!("keep"));
    table.insert("estate_role".to_owned(), json!("mighty"));
    holds(Server::of(&table), async |bench| {
        let leased = bench.issue().await?;
        Trap::lay(&leased.issued.credential).await;
        let report = bench.revoke(leased.revocation()).await?;
        assert_eq!((report.reached, report.sessions), (Reached::Cut, Sessions::None), "{report:?}");
        assert!(report.remains.iter().any(|line| line.contains("without power")), "{report:?}");
        let dropper = Server::shared().await;
        let reports = dropper.backend.revoke(&[leased.revocation()]).await;
        assert!(reports.iter().all(is_dead), "{reports:?}");
        Ok(())
    })
    .await;
}

/// Whatever the holder makes, its revocation goes through.
#[tokio::test]
async fn what_a_holder_makes_does_not_stop_its_revocation() {
    let _turn = turn().await;
    let far = format!(
        "CREATE FOREIGN DATA WRAPPER far; CREATE SERVER far FOREIGN DATA WRAPPER far; \
        GRANT USAGE ON FOREIGN SERVER far TO {GROUP}"
    );
    Site::shared().root().await.batch_execute(&far).await.unwrap();
    for made in [
        "CREATE TEMP TABLE t(n int); INSERT INTO t VALUES (1)",
        "CREATE TABLE work.own(n int); GRANT SELECT ON work.own TO PUBLIC, boss",
        "CREATE FUNCTION work.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TYPE work.mood AS ENUM ('a')",
        "SELECT lo_create(0)",
        "CREATE FOREIGN TABLE work.far(n int) SERVER far; CREATE USER MAPPING FOR CURRENT_USER SERVER far",
        "SELECT pg_advisory_lock(7); LISTEN news; BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TEMP VIEW v AS SELECT pg_temp.f()",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO boss",
        "CREATE TABLE work.part(n int) PARTITION BY RANGE (n); CREATE INDEX ON work.part(n)",
        "BEGIN; LOCK TABLE orders IN ACCESS SHARE MODE; SELECT * FROM orders",
    ] {
        holds(Server::shared().await, async |bench| {
            let leased = bench.issue().await?;
            let client = agent(&leased).await;
            client.batch_execute(made).await?;
            let report = bench.revoke(leased.revocation()).await?;
            assert!(is_dead(&report), "{made}: {report:?}");
            assert!(!Open(client).works().await, "{made}");
            Ok(())
        })
        .await;
    }
}

/// A change of its own password that is never committed locks the role's row: ten such roles at once still die in one go.
#[tokio::test]
async fn holders_that_lock_their_own_row_die_all_the_same() {
    let _turn = turn().await;
    holds(Server::shared().await, async |bench| {
        let (mut orders, mut sessions) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            let leased = bench.issue().await?;
            let client = agent(&leased).await;
            client.batch_execute("BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'mine'").await?;
            orders.push(leased.revocation());
            sessions.push(Open(client));
        }
        let reports = bench.backend.revoke(&orders).await;
        assert!(reports.iter().all(is_dead), "{reports:?}");
        for session in sessions {
            assert!(!session.works().await, "a session goes on");
        }
        Ok(())
    })
    .await;
}

/// What others hang on a role keeps it from being dropped, and is named; the role is dead nevertheless.
#[tokio::test]
async fn a_role_that_cannot_be_dropped_stays_without_login_and_sessions() {
    let _turn = turn().await;
    let root = Site::shared().root().await;
    root.batch_execute("CREATE TABLE foreign_thing(n int)").await.unwrap();
    holds(Server::shared().await, async |bench| {
        let leased = bench.issue().await?;
        let session = Open(agent(&leased).await);
        root.batch_execute(&format!("GRANT SELECT ON foreign_thing TO {}", leased.principal())).await?;
        let report = bench.revoke(leased.revocation()).await?;
        assert_eq!((report.reached, report.sessions), (Reached::Cut, Sessions::None), "{report:?}");
        assert!(report.remains.iter().any(|what| what.contains("foreign_thing")), "{report:?}");
        assert!(report.error.is_none() && !report.absent && report.target_now.is_some(), "{report:?}");
        assert!(!session.works().await, "the session goes on");
        let found = bench.backend.lookup(leased.principal()).await?.unwrap();
        assert!(found.disabled && found.sessions == 0, "{found:?}");
        root.batch_execute(&format!("REVOKE SELECT ON foreign_thing FROM {}", leased.principal())).await?;
        assert!(is_dead(&bench.revoke(leased.revocation()).await?));
        Ok(())
    })
    .await;
}

/// a mint that is under way on the server is waited for, and does not outlive the revocation.
#[tokio::test]
async fn a_mint_that_is_half_done_is_waited_for_and_killed() {
    let _turn = turn().await;
    let server = Server::shared().await;
    let (minting, revoking) = (server.backend(), server.backend());
    holds(server, async |bench| {
        let order = bench.order(Span::from_mins(5)).await?;
        let revocation = RevokeOrder {
            principal: order.principal().clone(),
            handle: None,
            recipe: order.recipe().clone(),
        };
        let root = Site::shared().root().await;
        root.batch_execute("BEGIN; LOCK TABLE pg_auth_members IN SHARE MODE").await?;
        let mint = tokio::spawn(async move { minting.issue(&order).await.map(|issued| issued.handle) });
        let key = lock_key(revocation.principal.as_str());
        has_lock(key, true).await;
        let revoke = tokio::spawn(async move { revoking.revoke(&[revocation]).await.remove(0) });
        has_lock(key, false).await;
        root.batch_execute("ROLLBACK").await?;
        let (minted, report) = (mint.await?, revoke.await?);
        assert!(is_dead(&report) && !report.absent, "{report:?}");
        assert_eq!(minted.unwrap(), report.handle);
        Ok(())
    })
    .await;
}

/// Waits until somebody holds the lock, or waits for it.
async fn has_lock(key: i64, granted: bool) {
    let root = Site::shared().root().await;
    let query = format!(
        "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND granted = {granted} \
         AND ((classid::int8 << 32) | objid::int8) = '{key}'"
    );
    for _ in 0..1000 {
        if value(&root, &query).await != "0" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("nobody has the lock (granted: {granted})");
}

/// Any login may take any advisory lock, and the names of leases are no secret.
#[tokio::test]
async fn a_lock_held_by_an_agent_does_not_stop_the_proof() {
    let _turn = turn().await;
    holds(Server::shared().await, async |bench| {
        let (victim, squatter) = (bench.issue().await?, bench.issue().await?);
        let session = agent(&squatter).await;
        let key = lock_key(victim.principal().as_str());
        session.batch_execute(&format!("SELECT pg_advisory_lock('{key}')")).await?;
        let report = bench.revoke(victim.revocation()).await?;
        assert!(is_dead(&report), "{report:?}");
        Ok(())
    })
    .await;
}

fn lock_key(name: &str) -> i64 {
    let text = [b"leasehold.postgres.lock.v1\0".as_slice(), name.as_bytes()].concat();
    let digest = ring::digest::digest(&ring::digest::SHA256, &text);
    i64::from_be_bytes(digest.as_ref()[..8].try_into().unwrap())
}

/// without the right to end sessions nothing is called proven, and the statement that gives it is named.
#[tokio::test]
async fn a_missing_privilege_is_named_and_nothing_is_proven_without_it() {
    let _turn = turn().await;
    let root = Site::shared().root().await;
    let table = second_admin(&root, "blind").await;
    holds(Server::of(&table), async |bench| {
        let recipe = bench.harness.recipe();
        let health = bench.backend.health(&[bench.grant(&recipe)]).await?;
        let fix = "GRANT pg_signal_backend TO \"blind\";";
        assert!(health.missing_privileges.iter().any(|missing| missing.fix == fix), "{health:?}");
        let leased = bench.issue().await?;
        let report = bench.revoke(leased.revocation()).await?;
        assert_eq!((report.reached, report.sessions), (Reached::Disabled, Sessions::Unknown), "{report:?}");
        assert!(report.error.as_ref().is_some_and(|error| error.contains(fix)), "{report:?}");
        root.batch_execute("GRANT pg_signal_backend, pg_read_all_stats TO blind").await?;
        assert!(is_dead(&bench.revoke(leased.revocation()).await?));
        Ok(())
    })
    .await;
}

/// A login that may mint, and has no more than that.
async fn second_admin(root: &Client, name: &str) -> Map<String, Value> {
    let options = if has_options(root).await { "WITH ADMIN TRUE, INHERIT FALSE, SET FALSE" } else { "" };
    let make =
        format!("CREATE ROLE {name} LOGIN CREATEROLE PASSWORD 'second'; GRANT {GROUP} TO {name} {options}");
    root.batch_execute(&make).await.unwrap();
    let file = Site::shared().files.path().join(name);
    std::fs::write(&file, "second").unwrap();
    Site::shared().with("admin", json!({ "user": name, "password_file": file }))
}

#[tokio::test]
async fn a_login_that_may_not_make_roles_is_told_what_it_lacks() {
    let root = Site::shared().root().await;
    let table = second_admin(&root, "meek").await;
    root.batch_execute("ALTER ROLE meek NOCREATEROLE").await.unwrap();
    holds(Server::of(&table), async |bench| {
        let Err(BackendError::Refused { fix, .. }) = bench.issue_error().await? else {
            return Err(Failure::new("not refused"));
        };
        assert_eq!(fix.as_deref(), Some("ALTER ROLE \"meek\" CREATEROLE;"));
        Ok(())
    })
    .await;
}

/// Mints where it must not work, and gives the answer.
trait Refusing {
    async fn issue_error(&self) -> Result<Result<(), BackendError>, Failure>;
}

impl Refusing for Bench<'_> {
    async fn issue_error(&self) -> Result<Result<(), BackendError>, Failure> {
        let order = self.order(Span::from_mins(5)).await?;
        Ok(self.backend.issue(&order).await.map(drop))
    }
}

/// asked anew at each mint, through every membership in between.
#[tokio::test]
async fn a_group_that_reaches_power_is_refused() {
    let root = Site::shared().root().await;
    let make = "CREATE ROLE over SUPERUSER; CREATE ROLE makers CREATEROLE; CREATE ROLE a; CREATE ROLE b; CREATE ROLE c; \
        CREATE ROLE d; CREATE ROLE plain; GRANT over TO a; GRANT a TO b; GRANT makers TO c; GRANT pg_read_all_data TO d; \
        CREATE ROLE e; GRANT leasehold TO e";
    root.batch_execute(make).await.unwrap();
    for (group, reason) in [
        ("b", "the group `b` reaches `over`, which is a superuser"),
        ("c", "the group `c` reaches `makers`, which has CREATEROLE"),
        ("d", "the group `d` reaches `pg_read_all_data`, which is one of PostgreSQL's own roles"),
        ("e", "the group `e` reaches `leasehold`, which has CREATEROLE"),
    ] {
        let server = Server::shared().await.minting(&json!({ "member_of": ["plain", group] }));
        holds(server, async |bench| {
            let answer = bench.issue_error().await?;
            let Err(BackendError::Refused { what, .. }) = &answer else { panic!("{group}: {answer:?}") };
            assert!(what.contains(reason), "{group}: {what}");
            let recipe = bench.harness.recipe();
            let health = bench.backend.health(&[bench.grant(&recipe)]).await?;
            assert!(health.warnings.iter().any(|warning| warning.contains(reason)), "{health:?}");
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_the_server_does_not_have_is_the_recipe_s_fault() {
    for recipe in [
        json!({ "member_of": ["nobody_of_that_name"] }),
        json!({ "member_of": [GROUP], "settings": { "no_such_setting": "1" } }),
        json!({ "member_of": [GROUP], "settings": { "statement_timeout": "soon" } }),
    ] {
        holds(Server::shared().await.minting(&recipe), async |bench| {
            let answer = bench.issue_error().await?;
            assert!(matches!(answer, Err(BackendError::BadRecipe(_))), "{recipe}: {answer:?}");
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn odd_names_stay_names() {
    let _turn = turn().await;
    let group = "odd \"group'; $$ \\ %s {} ünï";
    let server = Server::shared().await.minting(&json!({
        "member_of": [group],
        "settings": { "application_name": "it's \\ \"$$\" %s", "jit": false },
    }));
    let recipe = server.recipe();
    let pair: Pair = "odd.read@orders".parse().unwrap();
    let grants = [GrantView { pair: &pair, recipe: &recipe }];
    let root = Site::shared().root().await;
    for statement in server.backend.setup(&grants).await.unwrap() {
        root.batch_execute(&statement.text).await.unwrap();
    }
    holds(server, async |bench| {
        let leased = bench.issue().await?;
        let client = agent(&leased).await;
        assert_eq!(value(&client, "SELECT current_setting('application_name')").await, "it's \\ \"$$\" %s");
        let member = "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = current_user::regrole";
        assert_eq!(value(&client, member).await, "\"odd \"\"group'; $$ \\ %s {} ünï\"");
        assert!(is_dead(&bench.revoke(leased.revocation()).await?));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_server_keeps_a_verifier_and_no_password() {
    let _turn = turn().await;
    for iterations in [1, 4096] {
        let server = Server::of(&Site::shared().with("scram_iterations", json!(iterations)));
        holds(server, async |bench| {
            let leased = bench.issue().await?;
            let root = Site::shared().root().await;
            let kept = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{}'", leased.principal());
            let kept = value(&root, &kept).await;
            assert!(kept.starts_with(&format!("SCRAM-SHA-256${iterations}:")), "{kept}");
            assert_eq!(value(&agent(&leased).await, "SELECT n::text FROM orders").await, "7");
            Ok(())
        })
        .await;
    }
}

/// what `setup` gives is enough, and what is wider than that is warned of.
#[tokio::test]
async fn the_least_depends_on_the_version() {
    let root = Site::shared().root().await;
    let has_options = has_options(&root).await;
    holds(Server::shared().await, async |bench| {
        let recipe = bench.harness.recipe();
        let statements = bench.backend.setup(&[bench.grant(&recipe)]).await?;
        let gives = |text: &str| statements.iter().any(|statement| statement.text.contains(text));
        assert!(gives("GRANT pg_signal_backend TO \"leasehold\""), "{statements:?}");
        assert_eq!(gives("GRANT pg_read_all_stats TO \"leasehold\""), has_options, "{statements:?}");
        assert_eq!(gives("WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"), has_options, "{statements:?}");
        assert!(!statements.iter().any(|s| s.text.contains("PASSWORD")), "{statements:?}");
        let health = bench.backend.health(&[bench.grant(&recipe)]).await?;
        let nearly_root = health.warnings.iter().any(|warning| warning.contains("up to PostgreSQL 15"));
        assert_eq!(nearly_root, !has_options, "{health:?}");
        assert!(health.missing_privileges.is_empty(), "{health:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_group_that_is_not_there_is_told_with_what_makes_it() {
    let server = Server::shared().await.minting(&json!({ "member_of": ["not yet"] }));
    holds(server, async |bench| {
        let recipe = bench.harness.recipe();
        let health = bench.backend.health(&[bench.grant(&recipe)]).await?;
        let fix = "CREATE ROLE \"not yet\" NOLOGIN;";
        assert!(health.missing_privileges.iter().any(|missing| missing.fix == fix), "{health:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_superuser_is_refused_unless_accepted() {
    let file = Site::shared().files.path().join("root");
    std::fs::write(&file, leasehold_postgres::throwaway::SUPERUSER_PASSWORD).unwrap();
    let mut table = Site::shared().with("admin", json!({ "user": "postgres", "password_file": file }));
    holds(Server::of(&table), async |bench| {
        let health = bench.backend.health(&[]).await?;
        assert!(
            health.missing_privileges.iter().any(|missing| missing.fix.contains("NOSUPERUSER")),
            "{health:?}"
        );
        let answer = bench.issue_error().await?;
        assert!(matches!(answer, Err(BackendError::Refused { .. })), "{answer:?}");
        Ok(())
    })
    .await;
    table.insert("accept_superuser".to_owned(), json!("a drill"));
    holds(Server::of(&table), async |bench| {
        let health = bench.backend.health(&[]).await?;
        assert!(health.missing_privileges.is_empty(), "{health:?}");
        assert!(health.warnings.iter().any(|warning| warning.contains("a drill")), "{health:?}");
        bench.issue().await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_of_the_broker_is_refused_and_says_whose() {
    let file = Site::shared().files.path().join("wrong");
    std::fs::write(&file, "not it").unwrap();
    let table = Site::shared().with("admin", json!({ "user": "leasehold", "password_file": file }));
    let told = open(&table).health(&[]).await.unwrap_err();
    let BackendError::Refused { what, fix } = &told else { panic!("{told:?}") };
    assert!(what.contains("orders-db") && what.contains("`leasehold`") && fix.is_some(), "{told:?}");
    assert!(!format!("{told:?}").contains("not it"), "the password shows");
    assert!(!format!("{told:?}").contains(ADMIN_PASSWORD), "the password shows");
}

#[tokio::test]
async fn a_server_that_is_down_is_named() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let table =
        Site::shared().with("connect", json!({ "host": "127.0.0.1", "port": port, "dbname": "postgres" }));
    let down = open(&table);
    let told = down.health(&[]).await.unwrap_err();
    let BackendError::Transient { target, .. } = &told else { panic!("{told:?}") };
    assert!(target.contains("orders-db") && target.contains(&port.to_string()), "{told:?}");
    holds(Server::shared().await, async |bench| {
        let leased = bench.issue().await?;
        let report = down.revoke(&[leased.revocation()]).await.remove(0);
        assert_eq!((report.reached, report.sessions), (Reached::None, Sessions::Unknown), "{report:?}");
        assert!(report.error.is_some_and(|error| error.contains("orders-db")));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn many_share_one_revocation() {
    let _turn = turn().await;
    holds(Server::shared().await, async |bench| {
        let mut orders = Vec::new();
        for _ in 0..150 {
            orders.push(bench.issue().await?.revocation());
        }
        let begun = Instant::now();
        let reports = bench.backend.revoke(&orders).await;
        println!("150 revoked in {:?}", begun.elapsed());
        assert_eq!(reports.len(), 150);
        assert!(reports.iter().all(is_dead), "{:?}", reports.iter().find(|report| !is_dead(report)));
        Ok(())
    })
    .await;
}

/// Certificates of a CA of one's own for a host, as PEM: the CA's, the server's, and the server's key.
fn certificates(host: &str) -> [String; 3] {
    let (ca_key, key) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
    [ca, params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem()]
}

/// Gives the running server a certificate.
async fn serve_tls(root: &Client, certificate: &str, key: &str) {
    let data = Site::shared().cluster.socket_dir().join("data");
    let owner = std::fs::metadata(&data).unwrap();
    for (name, text) in [("server.crt", certificate), ("server.key", key)] {
        let path = data.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    root.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    root.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    for _ in 0..400 {
        if value(&Site::shared().root().await, "SHOW ssl").await == "on" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the server does not take its certificate");
}

#[tokio::test]
async fn a_server_proves_its_name_or_is_not_spoken_to() {
    let _turn = turn().await;
    let [ca, certificate, key] = certificates("localhost");
    serve_tls(&Site::shared().root().await, &certificate, &key).await;
    let table = |host: &str, ca: &str| {
        let file = Site::shared().files.path().join("ca.pem");
        std::fs::write(&file, ca).unwrap();
        let port = Site::shared().cluster.port();
        let connect = json!({ "host": host, "port": port, "dbname": "postgres", "sslrootcert": file });
        let mut table = Site::shared().with("connect", connect);
        table.remove("tls");
        table
    };
    holds(Server::of(&table("localhost", &ca)), async |bench| {
        let leased = bench.issue().await?;
        assert_eq!(leased.issued.credential.public["sslmode"], "verify-full");
        assert_eq!(bench.backend.probe(&leased.issued).await?, Alive::Alive);
        let root = Site::shared().root().await;
        let secured = "SELECT bool_or(s.ssl)::text FROM pg_stat_ssl s JOIN pg_stat_activity USING (pid) \
            WHERE usename = 'leasehold'";
        assert_eq!(value(&root, secured).await, "true");
        assert!(is_dead(&bench.revoke(leased.revocation()).await?));
        Ok(())
    })
    .await;
    let [other_ca, ..] = certificates("localhost");
    for (host, ca) in [("localhost", &other_ca), ("127.0.0.1", &ca)] {
        let told = open(&table(host, ca)).health(&[]).await;
        assert!(matches!(told, Err(BackendError::Transient { .. })), "{host}: {told:?}");
    }
}
