//! Leases of PostgreSQL roles, beside the bare statements in the same run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use leasehold_postgres::throwaway::{self, Cluster};
use leasehold_proto::v1;
use tokio_postgres::NoTls;

use crate::table::{Latencies, Table, millis};
use crate::world::{Client, Setup, World, lease_request, scope, seconds};

const RUN: Duration = Duration::from_secs(6);
/// To the server, for the bare statements and for the broker's.
const CONNECTIONS: usize = 8;
/// Callers who share these: a broker groups their commits, of which each request has two.
const MANY: usize = 32;
const PAIR: &str = "orders.read@orders";
const ENDS: usize = 40;
/// How many leases one revocation takes, and its share of the bare statements.
const STORM: u64 = 5_000;
const STORM_SHARE: f64 = 0.60;
/// As many connections as a target has for revocations.
const REVOKERS: usize = 4;

pub(crate) async fn run(table: &mut Table) {
    let Some(bin) = programs() else {
        println!("PostgreSQL's programs are not here: its rows are left out");
        return;
    };
    for (iterations, share) in [(1, 0.45), (4096, 0.80)] {
        let cluster = throwaway::start(&bin).unwrap();
        prepare(&cluster).await;
        let bare = bare_rate(&cluster, iterations).await;
        let mut world = World::with(setup(&cluster, iterations)).await;
        for callers in [CONNECTIONS, MANY] {
            wait_until_gone(&superuser(&cluster).await, "lh").await;
            let rate = lease_rate(&world, callers).await;
            table.row(
                format!("request, PostgreSQL, {callers} callers, {iterations} iterations"),
                format!(
                    "{rate:.0}/s beside {bare:.0}/s of the bare statements: {:.0} %",
                    100.0 * rate / bare
                ),
                &format!("{:.0} %", share * 100.0),
                rate >= share * bare,
            );
        }
        if iterations == 1 {
            ends(&world, &cluster, table).await;
            storm(&world, &cluster, table).await;
        }
        world.stop().await;
    }
}

fn programs() -> Option<PathBuf> {
    let named = std::env::var_os("LEASEHOLD_PG_BIN").map(PathBuf::from);
    let debian = Path::new("/usr/lib/postgresql");
    let newest = || std::fs::read_dir(debian).ok()?.flatten().map(|entry| entry.path().join("bin")).max();
    named.or_else(newest).filter(|bin| bin.join("initdb").exists())
}

async fn superuser(cluster: &Cluster) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(&cluster.superuser_dsn("postgres"), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn prepare(cluster: &Cluster) {
    let sql = "CREATE ROLE orders_reader NOLOGIN; CREATE TABLE orders(id int); GRANT SELECT ON orders TO orders_reader; \
        CREATE ROLE broker LOGIN CREATEROLE PASSWORD 'bench'; GRANT pg_signal_backend, pg_read_all_stats TO broker;";
    let root = superuser(cluster).await;
    root.batch_execute(sql).await.unwrap();
    // What a throwaway server leaves out and people's servers do: every commit is on disk, for the broker's statements
    // and for the bare ones.
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        root.batch_execute(&format!("ALTER SYSTEM SET {setting} = on")).await.unwrap();
    }
    root.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

/// The statements that make a role, each with a verifier of its own, from as many connections.
async fn bare_rate(cluster: &Cluster, iterations: u32) -> f64 {
    let next = Arc::new(AtomicU64::new(0));
    let mut running = Vec::new();
    for _ in 0..CONNECTIONS {
        let (client, next) = (superuser(cluster).await, next.clone());
        running.push(tokio::spawn(async move {
            let began = Instant::now();
            while began.elapsed() < RUN {
                let n = next.fetch_add(1, Ordering::Relaxed);
                client.batch_execute(&bare(n, &verifier(n, iterations))).await.unwrap();
            }
        }));
    }
    for connection in running {
        connection.await.unwrap();
    }
    let count = next.load(Ordering::Relaxed);
    drop_bare(cluster, count).await;
    count as f64 / RUN.as_secs_f64()
}

fn bare(n: u64, verifier: &str) -> String {
    format!(
        "BEGIN; CREATE ROLE bare_{n} LOGIN CONNECTION LIMIT 5 PASSWORD '{verifier}' VALID UNTIL '2031-01-01' \
         IN ROLE orders_reader; COMMENT ON ROLE bare_{n} IS 'bare'; COMMIT"
    )
}

async fn drop_bare(cluster: &Cluster, count: u64) {
    let client = superuser(cluster).await;
    for first in (0..count).step_by(50) {
        let drops: String = (first..count.min(first + 50)).map(|n| format!("DROP ROLE bare_{n};")).collect();
        client.batch_execute(&drops).await.unwrap();
    }
}

/// A SCRAM verifier of its own for each (RFC 5803), as a broker makes one for each lease.
fn verifier(n: u64, iterations: u32) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use ring::{digest, hmac, pbkdf2};
    let salt = [n.to_be_bytes(), n.to_le_bytes()].concat();
    let mut salted = [0; 32];
    let rounds = std::num::NonZeroU32::new(iterations).unwrap();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, &n.to_be_bytes(), &mut salted);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let stored = digest::digest(&digest::SHA256, hmac::sign(&key, b"Client Key").as_ref());
    let server = hmac::sign(&key, b"Server Key");
    let text = |bytes: &[u8]| STANDARD.encode(bytes);
    format!("SCRAM-SHA-256${iterations}:{}${}:{}", text(&salt), text(stored.as_ref()), text(server.as_ref()))
}

fn setup(cluster: &Cluster, iterations: u32) -> Setup {
    let base = Setup::default();
    let memory =
        "[targets.orders]\nbackend = \"memory\"\nowner = \"group:data\"\nlabels = { env = \"test\" }";
    let password = cluster.socket_dir().join("broker-password");
    std::fs::write(&password, "bench").unwrap();
    let target = format!(
        "[targets.orders]\nbackend = \"postgres\"\nowner = \"group:data\"\nlabels = {{ env = \"test\" }}\n\
         connect = {{ host = \"127.0.0.1\", port = {}, dbname = \"postgres\" }}\ntls = \"disable\"\n\
         scram_iterations = {iterations}\npool = {CONNECTIONS}\n\
         admin = {{ user = \"broker\", password_file = \"{}\" }}",
        cluster.port(),
        password.display()
    );
    let roles = ["reader", "writer", "purger"];
    let config = base.config.replace(memory, &target);
    let config = roles.iter().fold(config, |config, role| {
        let orders = format!("targets = [\"orders\"]\nrecipe = {{ role = \"{role}\" }}");
        let allowed =
            format!("targets = [\"orders\"]\nallow = [\"agents:soc\"]\nrecipe = {{ role = \"{role}\" }}");
        let recipe = "recipe = { member_of = [\"orders_reader\"], connection_limit = 5 }";
        config
            .replace(&orders, &format!("targets = [\"orders\"]\n{recipe}"))
            .replace(&allowed, &format!("targets = [\"orders\"]\nallow = [\"agents:soc\"]\n{recipe}"))
    });
    Setup { config: config + "\n[quotas]\nagent = { live = 1000000 }\n", ..base }
}

async fn lease_rate(world: &World, callers: usize) -> f64 {
    let mut running = Vec::new();
    for _ in 0..callers {
        let client = world.agent("triage").await;
        running.push(tokio::spawn(request_only(client)));
    }
    let mut count = 0;
    for caller in running {
        count += caller.await.unwrap();
    }
    count as f64 / RUN.as_secs_f64()
}

async fn request_only(mut client: Client) -> usize {
    let task = client.open(&[PAIR]).await.unwrap();
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < RUN {
        client.leases.request_lease(lease_request(&task, PAIR)).await.unwrap();
        count += 1;
    }
    let ended = v1::CompleteTaskRequest { task: task.id, wait: None };
    client.tasks.complete_task(ended).await.unwrap();
    count
}

/// The end of a task with ten leases, each with an open session: refused and cut, then confirmed.
async fn ends(world: &World, cluster: &Cluster, table: &mut Table) {
    let mut client = world.agent("triage").await;
    let watcher = superuser(cluster).await;
    wait_until_gone(&watcher, "lh").await;
    let (mut cut, mut confirmed) = (Vec::new(), Vec::new());
    for _ in 0..ENDS {
        let open = v1::OpenTaskRequest { scope: scope(&[PAIR]), ..crate::world::open_request(&[PAIR]) };
        let task = client.open_as(open).await.unwrap();
        for _ in 0..10 {
            client.lease(&task, PAIR).await.unwrap();
        }
        let began = Instant::now();
        let ended = v1::CompleteTaskRequest { task: task.id.clone(), wait: None };
        client.tasks.complete_task(ended).await.unwrap();
        wait_for(&watcher, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'lh%' AND rolcanlogin").await;
        cut.push(began.elapsed());
        wait_until_gone(&watcher, "lh").await;
        confirmed.push(began.elapsed());
    }
    let (cut, confirmed) = (Latencies::of(cut), Latencies::of(confirmed));
    for (what, times, limit) in [("login refused", cut, 250), ("gone", confirmed, 800)] {
        let p99 = times.percentile(99);
        table.row(
            format!("end of a task with 10 leases: {what}"),
            format!("p50 {} p99 {}", millis(times.percentile(50)), millis(p99)),
            &format!("p99 under {limit} ms"),
            p99 < Duration::from_millis(limit),
        );
    }
}

/// Every lease of an agent revoked at once, beside the bare statements that disable, cut and drop as many roles.
async fn storm(world: &World, cluster: &Cluster, table: &mut Table) {
    let bare = bare_revocations(cluster).await;
    issue_many(world).await;
    let began = Instant::now();
    let revocation = revoke_agent(world).await;
    let rate = STORM as f64 / began.elapsed().as_secs_f64();
    let counts = revocation.counts.unwrap();
    let counted = (u64::from(counts.total), u64::from(counts.confirmed));
    assert_eq!(counted, (STORM, STORM), "all of them, and no more");
    wait_until_gone(&superuser(cluster).await, "lh").await;
    table.row(
        format!("{STORM} PostgreSQL leases revoked by agent"),
        format!("{rate:.0}/s beside {bare:.0}/s of the bare statements: {:.0} %", 100.0 * rate / bare),
        &format!("{:.0} %", STORM_SHARE * 100.0),
        rate >= STORM_SHARE * bare,
    );
}

/// NOLOGIN, committed; then whatever sessions there are; then the role.
async fn bare_revocations(cluster: &Cluster) -> f64 {
    let root = superuser(cluster).await;
    for n in 0..STORM {
        root.batch_execute(&bare(n, &verifier(n, 1))).await.unwrap();
    }
    let (next, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut running = Vec::new();
    for _ in 0..REVOKERS {
        let (client, next) = (superuser(cluster).await, next.clone());
        running.push(tokio::spawn(async move {
            while let n @ ..STORM = next.fetch_add(1, Ordering::Relaxed) {
                client.batch_execute(&format!("ALTER ROLE bare_{n} NOLOGIN")).await.unwrap();
                let cut = format!(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'bare_{n}'; \
                     DROP ROLE bare_{n}"
                );
                client.batch_execute(&cut).await.unwrap();
            }
        }));
    }
    for connection in running {
        connection.await.unwrap();
    }
    STORM as f64 / began.elapsed().as_secs_f64()
}

async fn issue_many(world: &World) {
    let left = Arc::new(AtomicU64::new(0));
    let mut running = Vec::new();
    for _ in 0..CONNECTIONS {
        let (mut client, left) = (world.agent("triage").await, left.clone());
        running.push(tokio::spawn(async move {
            let task = client.open(&[PAIR]).await.unwrap();
            while left.fetch_add(1, Ordering::Relaxed) < STORM {
                client.leases.request_lease(lease_request(&task, PAIR)).await.unwrap();
            }
        }));
    }
    for caller in running {
        caller.await.unwrap();
    }
}

async fn revoke_agent(world: &World) -> v1::Revocation {
    let agent = world.agent("triage").await.open(&[PAIR]).await.unwrap().agent;
    let request = v1::RevokeRequest {
        selector: Some(v1::Selector { kind: Some(v1::selector::Kind::Agent(agent)) }),
        reason: "a storm".into(),
        wait: seconds(30),
        ..v1::RevokeRequest::default()
    };
    let mut client = world.admin().await;
    let mut progress = client.revocations.revoke(request).await.unwrap().into_inner();
    let mut id = String::new();
    loop {
        match progress.message().await.unwrap() {
            Some(told) if told.done => return told.revocation.unwrap(),
            Some(told) => id = told.revocation.unwrap().id,
            // The stream ends with its wait; a watch goes on until all is confirmed.
            None => {
                let watch = v1::WatchRevocationRequest { revocation: id.clone() };
                progress = client.revocations.watch_revocation(watch).await.unwrap().into_inner();
            }
        }
    }
}

async fn wait_until_gone(watcher: &tokio_postgres::Client, prefix: &str) {
    wait_for(
        watcher,
        &format!("SELECT count(*) FROM pg_roles WHERE rolname LIKE '{prefix}%' AND length(rolname) = 32"),
    )
    .await;
}

async fn wait_for(watcher: &tokio_postgres::Client, count: &str) {
    let began = Instant::now();
    while watcher.query_one(count, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "leases do not die");
    }
}
