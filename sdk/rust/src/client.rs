//! One connection to one door of a broker.

use std::{
    future::Future,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use spiffe::SpiffeId;
use tonic::{Response, Status};

use crate::{
    ClientError, Options, Platform, TaskBuilder, TokenSource, TokenSourceError,
    bearer::{Bearer, FileTokens, WorkloadTokens, connect_web},
    connect_spiffe, connect_unix,
    io::Io,
    line::Line,
    platform,
    retry::Patience,
    v1,
    v1::{
        admin_service_client::AdminServiceClient, agent_service_client::AgentServiceClient,
        audit_service_client::AuditServiceClient, identity_service_client::IdentityServiceClient,
        lease_service_client::LeaseServiceClient, revocation_service_client::RevocationServiceClient,
        target_service_client::TargetServiceClient, task_service_client::TaskServiceClient,
    },
};

/// A connection to a broker. Clones share it; it connects again by itself, with the newest SVID.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    io: Arc<Io>,
    channel: Line,
    options: Options,
    on_wait: OnceLock<Box<OnWait>>,
}

/// Who is told that a call waits.
type OnWait = dyn Fn(&ClientError, Duration) + Send + Sync;

impl Client {
    /// Connects to the agents' door by mutual TLS, with the SVID that the Workload API issues to this process.
    ///
    /// # Errors
    /// [`ClientError::Unset`] without a Workload API, [`ClientError::Connect`] when no connection comes about.
    pub async fn connect(options: Options) -> Result<Self, ClientError> {
        let addr = options.addr.clone();
        if options.takes_tokens() {
            let source = token_source(&options)?;
            return Self::connect_with(options, source).await;
        }
        Self::by_svid(options, addr).await
    }

    /// Connects to a door for tokens, with a source of them. Each call proves that its token is this client's
    /// (RFC 9449); the key for that lives as long as the client.
    ///
    /// # Errors
    /// [`ClientError::Connect`] when no connection comes about, [`ClientError::Token`] without a key.
    pub async fn connect_with(options: Options, source: Arc<dyn TokenSource>) -> Result<Self, ClientError> {
        let addr = options.addr.clone();
        Self::by_token(options, addr, source).await
    }

    /// As [`Client::connect_with`], to the admin door: `https://host:port`. It takes people's own tokens alone.
    ///
    /// # Errors
    /// As [`Client::connect_with`].
    pub async fn connect_admin_with(
        options: Options,
        source: Arc<dyn TokenSource>,
    ) -> Result<Self, ClientError> {
        let addr = options.admin_addr.clone();
        Self::by_token(options, addr, source).await
    }

    async fn by_token(
        options: Options,
        addr: String,
        source: Arc<dyn TokenSource>,
    ) -> Result<Self, ClientError> {
        let (ca_file, deadline) = (options.ca_file.clone(), options.dial_timeout);
        let bearer = Bearer::new(source, &addr).map_err(ClientError::Token)?;
        let connect = async move {
            let channel = connect_web(&addr, ca_file.as_deref(), deadline).await?;
            Ok(Line::with_token(channel, bearer))
        };
        Self::over(options, connect).await
    }

    /// [`Client::connect`] with [`Options::from_env`].
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn from_env() -> Result<Self, ClientError> {
        Self::connect(Options::from_env()).await
    }

    /// Connects to the admin door: a unix socket, where the kernel says who calls, or mutual TLS.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_admin(options: Options) -> Result<Self, ClientError> {
        match options.admin_addr.strip_prefix("unix:").map(|path| path.trim_start_matches("//").to_owned()) {
            Some(path) => {
                let connect = async move { Ok(Line::proven(connect_unix(Path::new(&path)).await?)) };
                Self::over(options, connect).await
            }
            None => {
                let addr = options.admin_addr.clone();
                Self::by_svid(options, addr).await
            }
        }
    }

    async fn by_svid(options: Options, addr: String) -> Result<Self, ClientError> {
        let endpoint = options.workload_api.clone().ok_or(ClientError::Unset("SPIFFE_ENDPOINT_SOCKET"))?;
        let server = options.server_id.as_deref().map(parse_id).transpose()?;
        let deadline = options.dial_timeout;
        let connect =
            async move { Ok(Line::proven(connect_spiffe(&endpoint, &addr, server, deadline).await?)) };
        Self::over(options, connect).await
    }

    /// Everything that the channel spawns lands on the client's own thread, since it is made there.
    pub(crate) async fn over(
        options: Options,
        connect: impl Future<Output = Result<Line, ClientError>> + Send + 'static,
    ) -> Result<Self, ClientError> {
        let io = Io::start().map_err(|error| ClientError::Invalid(format!("no thread: {error}")))?;
        let channel = io.run(connect).await?;
        Ok(Self { inner: Arc::new(Inner { io, channel, options, on_wait: OnceLock::new() }) })
    }

    /// Begins a task.
    pub fn task(&self) -> TaskBuilder {
        TaskBuilder::new(self.clone())
    }

    /// What the broker knows of this caller.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn whoami(&self) -> Result<v1::WhoAmIResponse, ClientError> {
        self.persist(|| async { self.identity().who_am_i(v1::WhoAmIRequest {}).await }).await
    }

    /// Awaits one answer, no longer than the options allow. Repeats nothing.
    ///
    /// # Errors
    /// Any refusal, and [`ClientError::Broken`] or [`ClientError::Late`] when nobody knows what became of it.
    pub async fn call<T>(
        &self,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, ClientError> {
        let limit = self.options().call_timeout;
        let answer = tokio::time::timeout(limit, answer).await.map_err(|_| ClientError::Late(limit))?;
        Ok(answer?.into_inner())
    }

    /// As [`Client::call`], asking again while that may help and the options' patience lasts. For calls that are
    /// safe to repeat only: reads, and those that name themselves by a request id.
    ///
    /// # Errors
    /// As [`Client::call`], the last one.
    pub async fn persist<T, F>(&self, mut ask: impl FnMut() -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut patience = self.patience();
        loop {
            match self.call(ask()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.pause(&mut patience, error).await?,
            }
        }
    }

    /// The service that tells who is calling.
    #[must_use]
    pub fn identity(&self) -> IdentityServiceClient<Line> {
        IdentityServiceClient::new(self.inner.channel.clone())
    }

    /// The service of tasks.
    #[must_use]
    pub fn tasks(&self) -> TaskServiceClient<Line> {
        TaskServiceClient::new(self.inner.channel.clone())
    }

    /// The service of leases.
    #[must_use]
    pub fn leases(&self) -> LeaseServiceClient<Line> {
        LeaseServiceClient::new(self.inner.channel.clone())
    }

    /// The service of revocations. Admin door only.
    #[must_use]
    pub fn revocations(&self) -> RevocationServiceClient<Line> {
        RevocationServiceClient::new(self.inner.channel.clone())
    }

    /// The service of the registry of agents. Admin door only.
    #[must_use]
    pub fn agents(&self) -> AgentServiceClient<Line> {
        AgentServiceClient::new(self.inner.channel.clone())
    }

    /// The service of targets. Admin door only.
    #[must_use]
    pub fn targets(&self) -> TargetServiceClient<Line> {
        TargetServiceClient::new(self.inner.channel.clone())
    }

    /// The service of the journal. Admin door only.
    #[must_use]
    pub fn audit(&self) -> AuditServiceClient<Line> {
        AuditServiceClient::new(self.inner.channel.clone())
    }

    /// The service that looks after the broker. Admin door only.
    #[must_use]
    pub fn admin(&self) -> AdminServiceClient<Line> {
        AdminServiceClient::new(self.inner.channel.clone())
    }

    /// The options that it was connected with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    pub(crate) fn io(&self) -> &Arc<Io> {
        &self.inner.io
    }

    pub(crate) fn channel(&self) -> Line {
        self.inner.channel.clone()
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience::new(self.options().patience)
    }

    /// Has this told whenever a call waits to be asked again: why, and for how long. The first that is given stays.
    pub fn on_wait(&self, tell: impl Fn(&ClientError, Duration) + Send + Sync + 'static) {
        // Whoever came first is told.
        drop(self.inner.on_wait.set(Box::new(tell)));
    }

    /// Waits before the next try of a call; the error itself when there should be none.
    pub(crate) async fn pause(&self, patience: &mut Patience, error: ClientError) -> Result<(), ClientError> {
        let Some(pause) = patience.next(&error) else { return Err(error) };
        if let Some(tell) = self.inner.on_wait.get() {
            tell(&error, pause);
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// How long ending calls wait for the broker to confirm, unless told otherwise.
    pub(crate) const WAIT: Duration = Duration::from_secs(10);
}

/// Where the token of this process comes from.
fn token_source(options: &Options) -> Result<Arc<dyn TokenSource>, ClientError> {
    if let Some(file) = &options.token_file {
        return Ok(Arc::new(FileTokens::new(file, "LEASEHOLD_TOKEN_FILE")));
    }
    let audience = |usual: &str| options.audience.clone().unwrap_or_else(|| usual.to_owned());
    if let Some(endpoint) = &options.workload_api {
        return Ok(Arc::new(WorkloadTokens::new(endpoint, &audience(platform::WORKLOADS))));
    }
    if let Some(platform) = Platform::detect() {
        let audience = audience(platform.usual_audience());
        return Ok(platform.tokens(&audience));
    }
    Err(ClientError::Token(TokenSourceError {
        what: format!("`{}` is a door for tokens, and this process has none", options.addr),
        next:
            "run it in a job of GitHub Actions or GitLab CI, or in a pod; else set LEASEHOLD_TOKEN_FILE, or \
               SPIFFE_ENDPOINT_SOCKET for JWT-SVIDs"
                .to_owned(),
    }))
}

fn parse_id(text: &str) -> Result<SpiffeId, ClientError> {
    SpiffeId::new(text).map_err(|error| ClientError::Invalid(format!("`{text}` is not a SPIFFE ID: {error}")))
}
