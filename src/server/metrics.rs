//! What a monitoring system reads: `GET /metrics` in Prometheus' text format, on an address of its own.
//!
//! Counters and times are kept as things happen; what stands now is read from the store when it is asked for, so that
//! it is never older than the answer. It names targets, states and reasons: no agent, no task, no secret.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use leasehold_law::cause::Rank;
use leasehold_law::drill::Taken;
use leasehold_law::time::{Span, Timestamp};
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::broker::{Breaker, Broker, DrillStatus, Status, TargetStatus};
use crate::identity::{Standing, Trouble, spiffe::SpiffeIdentity};
use crate::meter;

/// How long the store may take to say what stands: longer than a write that is tried meanwhile, and shorter than a
/// scrape waits.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long one connection lasts: each is one question.
const CONNECTION: Duration = Duration::from_secs(15);
/// How soon another connection is taken after one could not be.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How many connections there may be; the others wait.
const CONNECTIONS: usize = 16;
/// How often what was counted is folded together where nobody asks.
const FOLD: Duration = Duration::from_secs(10);
/// The bounds of times in seconds: from a request on this host to a target that was down for an hour.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0];
/// The type of Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What answers.
#[derive(Clone)]
struct Exporter {
    counted: PrometheusHandle,
    broker: Broker,
    identity: SpiffeIdentity,
    /// One scrape at a time: each reads the store.
    turn: Arc<Semaphore>,
}

/// Starts to count, and answers whoever connects.
pub(super) fn serve(
    listener: TcpListener,
    broker: Broker,
    identity: SpiffeIdentity,
) -> Result<JoinHandle<()>, BuildError> {
    let counted = recorder()?;
    let turn = Arc::new(Semaphore::new(1));
    let exporter = Exporter { counted: counted.clone(), broker, identity, turn };
    let routes = axum::Router::new().route("/metrics", get(scrape)).with_state(exporter);
    Ok(tokio::spawn(async move {
        tokio::select! {
            () = answer(listener, routes) => {}
            () = fold(counted) => {}
        }
    }))
}

/// Nobody here has said who it is, so that connections are few and short. They end with the listener.
async fn answer(listener: TcpListener, routes: axum::Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let routes = routes.clone();
                open.spawn(async move {
                    drop(tokio::time::timeout(CONNECTION, converse(stream, routes)).await);
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics could not be taken");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, routes: axum::Router) {
    let mut http = auto::Builder::new(TokioExecutor::new()).http1_only();
    http.http1().keep_alive(false);
    let service = TowerToHyperService::new(routes);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error, "a connection for metrics ended badly");
    }
}

/// The process has one: counters are counted where things happen.
fn recorder() -> Result<PrometheusHandle, BuildError> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let recorder = builder()?.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_ok() {
        describe_counted();
    }
    Ok(HANDLE.get_or_init(|| handle).clone())
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)
}

async fn fold(handle: PrometheusHandle) {
    let mut beat = tokio::time::interval(FOLD);
    loop {
        beat.tick().await;
        handle.run_upkeep();
    }
}

async fn scrape(State(exporter): State<Exporter>) -> Response {
    let status = async {
        let _turn = exporter.turn.acquire().await;
        exporter.broker.status().await
    };
    match tokio::time::timeout(PATIENCE, status).await {
        Ok(Ok(status)) => {
            let standing = standing(&status, &exporter.identity.standing());
            ([(header::CONTENT_TYPE, TEXT)], exporter.counted.render() + &standing).into_response()
        }
        Ok(Err(refused)) => unavailable(&refused.what),
        Err(_) => unavailable("the store does not answer"),
    }
}

/// What stands, in a recorder of its own: what stands no more is not told again.
fn standing(status: &Status, identity: &Standing) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        describe_standing();
        show(status, identity);
    });
    recorder.handle().render()
}

fn unavailable(why: &str) -> Response {
    tracing::warn!(why, "metrics could not be read");
    (StatusCode::SERVICE_UNAVAILABLE, "what stands cannot be read now\n").into_response()
}

fn show(status: &Status, identity: &Standing) {
    let count = |name: &'static str, count: u64| gauge!(name).set(number(count));
    gauge!(meter::JOURNAL_UP).set(if status.journal_error.is_none() { 1.0 } else { 0.0 });
    gauge!(meter::CLOCK_BEHIND_SECONDS).set(seconds(status.clock.behind));
    count(meter::TASKS_OPEN, status.counts.open_tasks);
    count(meter::FREEZES, status.frozen as u64);
    show_identity(identity, status.clock.now);
    let needs = status.needs_person.len() + usize::from(identity.need(status.clock.now).is_some());
    count(meter::NEEDS_PERSON, needs as u64);
    status.targets.iter().for_each(|target| show_target(target, status.clock.now));
}

fn show_identity(identity: &Standing, now: Timestamp) {
    if let Some(end) = identity.not_after {
        gauge!(meter::IDENTITY_ENDS).set(seconds(end.since(Timestamp(0))));
    }
    for trouble in Trouble::ALL {
        let since =
            identity.trouble.filter(|(found, _)| *found == trouble).map(|(_, since)| now.since(since));
        gauge!(meter::IDENTITY_TROUBLE_SECONDS, "what" => trouble.name())
            .set(seconds(since.unwrap_or(Span::ZERO)));
    }
}

fn show_target(target: &TargetStatus, now: Timestamp) {
    let gauge = |name: &'static str| gauge!(name, "target" => target.name.clone());
    gauge(meter::LEASES_LIVE).set(number(target.live));
    gauge(meter::LEASES_STUCK).set(number(target.stuck));
    let unreached = match target.breaker {
        Breaker::Closed => Span::ZERO,
        Breaker::Open { since, .. } | Breaker::HalfOpen { since, .. } => now.since(since),
    };
    gauge(meter::UNREACHED_SECONDS).set(seconds(unreached));
    for lane in Rank::ALL {
        let due = target.due.get(&lane).copied().unwrap_or_default();
        gauge!(meter::LEASES_DUE, "target" => target.name.clone(), "lane" => lane.name()).set(number(due));
    }
    show_drills(&target.name, &target.drill);
}

fn show_drills(target: &str, drills: &DrillStatus) {
    let gauge = |name: &'static str| gauge!(name, "target" => target.to_owned());
    if let Some(at) = drills.passed_at {
        gauge(meter::DRILL_PASSED_AT).set(seconds(at.since(Timestamp(0))));
    }
    let Some(last) = &drills.last else { return };
    gauge(meter::DRILL_PASSED).set(if last.has_passed() { 1.0 } else { 0.0 });
    for Taken { step, took } in &last.steps {
        gauge!(meter::DRILL_STEP_SECONDS, "target" => target.to_owned(), "step" => step.name())
            .set(seconds(*took));
    }
}

fn seconds(span: Span) -> f64 {
    span.as_duration().as_secs_f64()
}

/// Counts far beyond what a store holds are told as that many.
fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn describe_counted() {
    describe_counter!(meter::RPCS, "Calls answered, by method and gRPC code");
    describe_histogram!(
        meter::RPC_SECONDS,
        Unit::Seconds,
        "How long calls took until their answer began, by method"
    );
    describe_counter!(meter::REFUSALS, "Calls refused, by reason");
    describe_counter!(meter::STRANGERS_REFUSED, "Handshakes and tokens refused, by reason");
    describe_counter!(meter::LEASES, "Leases that came into a state, by target and state");
    describe_histogram!(
        meter::REVOCATION_SECONDS,
        Unit::Seconds,
        "From the record that condemns a lease to the proof that it is dead, by target"
    );
}

fn describe_standing() {
    for (name, what) in [
        (meter::LEASES_LIVE, "Leases that may be alive, by target"),
        (meter::LEASES_STUCK, "Leases whose revocation has failed at least once, by target"),
        (meter::LEASES_DUE, "Leases that are being revoked or are due to be, by target and lane"),
        (meter::UNREACHED_SECONDS, "How long a target has not answered its revocations; 0 while it does"),
        (meter::TASKS_OPEN, "Tasks that are open"),
        (meter::FREEZES, "Freezes that stand"),
        (meter::JOURNAL_UP, "Whether the journal takes entries: 1 or 0"),
        (
            meter::CLOCK_BEHIND_SECONDS,
            "How far the wall clock is behind the broker's; above 5 nothing is issued",
        ),
        (meter::IDENTITY_ENDS, "The end of the broker's own SVID, in seconds since 1970"),
        (
            meter::IDENTITY_TROUBLE_SECONDS,
            "How long something has been wrong with the broker's identity, by what; 0 while nothing is",
        ),
        (
            meter::DRILL_PASSED_AT,
            "When the last drill of a target began that has passed, in seconds since 1970",
        ),
        (meter::DRILL_PASSED, "Whether the last drill of a target that came to its end has passed: 1 or 0"),
        (meter::DRILL_STEP_SECONDS, "How long each step of the last drill of a target took"),
        (meter::NEEDS_PERSON, "How many things need a person, as leasehold status lists them"),
    ] {
        describe_gauge!(name, what);
    }
}
