//! A server that fails as it is told, on a unix socket and a thread of its own.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use leasehold_client::{
    Client, Options, v1,
    v1::{
        lease_service_server::{LeaseService, LeaseServiceServer},
        task_service_server::{TaskService, TaskServiceServer},
        watch_task_response::{Event, LeaseRevoked},
    },
};
use tokio::{net::UnixListener, runtime::Runtime, sync::broadcast};
use tokio_stream::{Stream, StreamExt, wrappers::BroadcastStream, wrappers::UnixListenerStream};
use tonic::{Code, Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt};

/// What to answer, first to last, and what was asked. Where nothing is scripted, the call succeeds.
pub(crate) struct Script {
    pub(crate) open: VecDeque<Result<v1::OpenTaskResponse, Status>>,
    pub(crate) opened: Vec<v1::OpenTaskRequest>,
    pub(crate) request: VecDeque<Result<v1::RequestLeaseResponse, Status>>,
    pub(crate) requested: Vec<v1::RequestLeaseRequest>,
    pub(crate) renew: VecDeque<Result<v1::RenewLeaseResponse, Status>>,
    pub(crate) renewals: Vec<String>,
    pub(crate) heartbeat: Option<Result<v1::HeartbeatResponse, Status>>,
    pub(crate) grace: Duration,
    pub(crate) lifetime_ms: i64,
    pub(crate) revoke_while_minting: bool,
    beats: Option<mpsc::Sender<()>>,
    aborts: Option<mpsc::Sender<String>>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            open: VecDeque::new(),
            opened: Vec::new(),
            request: VecDeque::new(),
            requested: Vec::new(),
            renew: VecDeque::new(),
            renewals: Vec::new(),
            heartbeat: None,
            grace: Duration::from_secs(60),
            lifetime_ms: 600_000,
            revoke_while_minting: false,
            beats: None,
            aborts: None,
        }
    }
}

/// The running server. Dropped, it is gone, connections and all.
pub(crate) struct Fake {
    script: Arc<Mutex<Script>>,
    events: broadcast::Sender<v1::WatchTaskResponse>,
    socket: PathBuf,
    runtime: Option<Runtime>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("leasehold-{}-{number}.sock", std::process::id()));
        Self::serve(socket)
    }

    fn serve(socket: PathBuf) -> Self {
        drop(std::fs::remove_file(&socket));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (script, (events, _)) = (Arc::new(Mutex::new(Script::default())), broadcast::channel(16));
        let service = Service { script: Arc::clone(&script), events: events.clone() };
        let guard = runtime.enter();
        let listener = UnixListener::bind(&socket).unwrap();
        runtime.spawn(
            Server::builder()
                .add_service(TaskServiceServer::new(service.clone()))
                .add_service(LeaseServiceServer::new(service))
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        drop(guard);
        Self { script, events, socket, runtime: Some(runtime) }
    }

    /// Gone, and back on the same socket with a clean script.
    pub(crate) fn restart(mut self) -> Self {
        self.end();
        Self::serve(self.socket.clone())
    }

    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // In the background: the tests' own event loop must not wait for another's.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
            drop(std::fs::remove_file(&self.socket));
        }
    }

    pub(crate) fn options(&self) -> Options {
        let mut options = Options::default();
        options.admin_addr = format!("unix:{}", self.socket.display());
        options
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect_admin(self.options()).await.unwrap()
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    pub(crate) fn beats(&self) -> mpsc::Receiver<()> {
        let (sender, receiver) = mpsc::channel();
        self.script().beats = Some(sender);
        receiver
    }

    pub(crate) fn aborts(&self) -> mpsc::Receiver<String> {
        let (sender, receiver) = mpsc::channel();
        self.script().aborts = Some(sender);
        receiver
    }

    pub(crate) async fn revoke(&self) {
        revoke(&self.events).await;
    }
}

/// Tells all who watch, once somebody does.
async fn revoke(events: &broadcast::Sender<v1::WatchTaskResponse>) {
    while events.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    let lease = v1::Lease { cause: v1::Cause::Operator.into(), ..lease(v1::LeaseState::Revoking, 600_000) };
    let event = Some(Event::LeaseRevoked(LeaseRevoked { lease: Some(lease) }));
    events.send(v1::WatchTaskResponse { at: None, event }).unwrap();
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.end();
    }
}

/// A refusal as the broker sends it; `retry` in milliseconds.
pub(crate) fn refusal<T>(code: Code, reason: &str, retry: Option<u64>) -> Result<T, Status> {
    let mut details = ErrorDetails::with_error_info(reason, "leasehold.dev", HashMap::new());
    if let Some(retry) = retry {
        details.set_retry_info(Some(Duration::from_millis(retry)));
    }
    Err(Status::with_error_details(code, reason, details))
}

/// `ATTEMPT_SPENT`, naming the attempt to make next.
pub(crate) fn spent<T>(next: u32) -> Result<T, Status> {
    let told = HashMap::from([("next_attempt".to_owned(), next.to_string())]);
    let details = ErrorDetails::with_error_info("ATTEMPT_SPENT", "leasehold.dev", told);
    Err(Status::with_error_details(Code::FailedPrecondition, "spent", details))
}

pub(crate) fn lease(state: v1::LeaseState, expires_ms: i64) -> v1::Lease {
    let at = |ms: i64| {
        let nanos = i32::try_from(ms % 1000 * 1_000_000).unwrap();
        Some(prost_types::Timestamp { seconds: 1_800_000_000 + ms / 1000, nanos })
    };
    v1::Lease {
        id: "lease_1".to_owned(),
        state: state.into(),
        created_at: at(0),
        expires_at: at(expires_ms),
        life_ends_at: at(3_600_000),
        ..v1::Lease::default()
    }
}

fn credential() -> v1::Credential {
    let public = [("host", "db1"), ("user", "lh1"), ("dbname", "orders")];
    let public = public.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    v1::Credential {
        kind: "postgres".to_owned(),
        public,
        secret: [("password".to_owned(), b"s3cret".to_vec())].into(),
    }
}

#[derive(Clone)]
struct Service {
    script: Arc<Mutex<Script>>,
    events: broadcast::Sender<v1::WatchTaskResponse>,
}

type Answer<T> = Result<Response<T>, Status>;

fn unserved<T>() -> Answer<T> {
    Err(Status::unimplemented("not part of any fault"))
}

impl Service {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    fn task(&self) -> v1::Task {
        use v1::liveness::{Heartbeat, Kind};
        let grace = prost_types::Duration::try_from(self.script().grace).ok();
        let liveness = Some(v1::Liveness { kind: Some(Kind::Heartbeat(Heartbeat { grace })) });
        v1::Task {
            id: "task_1".to_owned(),
            state: v1::TaskState::Open.into(),
            liveness,
            ..v1::Task::default()
        }
    }
}

#[tonic::async_trait]
impl TaskService for Service {
    async fn open_task(&self, request: Request<v1::OpenTaskRequest>) -> Answer<v1::OpenTaskResponse> {
        let scripted = {
            let mut script = self.script();
            script.opened.push(request.into_inner());
            script.open.pop_front()
        };
        let opened = || Ok(v1::OpenTaskResponse { task: Some(self.task()), decisions: Vec::new() });
        scripted.unwrap_or_else(opened).map(Response::new)
    }

    async fn get_task(&self, _: Request<v1::GetTaskRequest>) -> Answer<v1::Task> {
        Ok(Response::new(self.task()))
    }

    async fn list_tasks(&self, _: Request<v1::ListTasksRequest>) -> Answer<v1::ListTasksResponse> {
        unserved()
    }

    async fn change_scope(&self, _: Request<v1::ChangeScopeRequest>) -> Answer<v1::ChangeScopeResponse> {
        unserved()
    }

    type WatchTaskStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<v1::WatchTaskResponse, Status>> + Send>>;

    async fn watch_task(&self, _: Request<v1::WatchTaskRequest>) -> Answer<Self::WatchTaskStream> {
        let events = BroadcastStream::new(self.events.subscribe());
        Ok(Response::new(Box::pin(events.filter_map(Result::ok).map(Ok))))
    }

    async fn heartbeat(&self, _: Request<v1::HeartbeatRequest>) -> Answer<v1::HeartbeatResponse> {
        let script = self.script();
        // The test may have seen enough, and gone.
        let _seen = script.beats.as_ref().map(|beats| beats.send(()));
        let alive =
            v1::HeartbeatResponse { state: v1::TaskState::Open.into(), ..v1::HeartbeatResponse::default() };
        script.heartbeat.clone().unwrap_or(Ok(alive)).map(Response::new)
    }

    async fn complete_task(&self, _: Request<v1::CompleteTaskRequest>) -> Answer<v1::CompleteTaskResponse> {
        let outcome =
            |lease: &str| v1::LeaseOutcome { lease: lease.to_owned(), ..v1::LeaseOutcome::default() };
        let leases = vec![outcome("lease_1"), outcome("lease_2")];
        let pending = vec!["lease_2".to_owned()];
        Ok(Response::new(v1::CompleteTaskResponse { task: Some(self.task()), leases, pending }))
    }

    async fn abort_task(&self, request: Request<v1::AbortTaskRequest>) -> Answer<v1::AbortTaskResponse> {
        if let Some(aborts) = &self.script().aborts {
            drop(aborts.send(request.into_inner().task));
        }
        Ok(Response::new(v1::AbortTaskResponse::default()))
    }
}

#[tonic::async_trait]
impl LeaseService for Service {
    async fn list_grants(&self, _: Request<v1::ListGrantsRequest>) -> Answer<v1::ListGrantsResponse> {
        unserved()
    }

    async fn propose(&self, _: Request<v1::ProposeRequest>) -> Answer<v1::ProposeResponse> {
        unserved()
    }

    async fn request_lease(
        &self,
        request: Request<v1::RequestLeaseRequest>,
    ) -> Answer<v1::RequestLeaseResponse> {
        if self.script().revoke_while_minting {
            revoke(&self.events).await;
        }
        let mut script = self.script();
        script.requested.push(request.into_inner());
        let lifetime = script.lifetime_ms;
        let minted = || {
            Ok(v1::RequestLeaseResponse {
                lease: Some(lease(v1::LeaseState::Active, lifetime)),
                credential: Some(credential()),
                ..v1::RequestLeaseResponse::default()
            })
        };
        script.request.pop_front().unwrap_or_else(minted).map(Response::new)
    }

    async fn renew_lease(&self, request: Request<v1::RenewLeaseRequest>) -> Answer<v1::RenewLeaseResponse> {
        let mut script = self.script();
        script.renewals.push(request.into_inner().request_id);
        script.renew.pop_front().unwrap_or_else(|| Err(Status::internal("not scripted"))).map(Response::new)
    }

    async fn release_lease(&self, _: Request<v1::ReleaseLeaseRequest>) -> Answer<v1::ReleaseLeaseResponse> {
        unserved()
    }

    async fn get_lease(&self, _: Request<v1::GetLeaseRequest>) -> Answer<v1::Lease> {
        Ok(Response::new(lease(v1::LeaseState::Active, self.script().lifetime_ms)))
    }

    async fn list_leases(&self, _: Request<v1::ListLeasesRequest>) -> Answer<v1::ListLeasesResponse> {
        unserved()
    }
}
