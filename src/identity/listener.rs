//! Accept loops: strangers in, proven callers out, everything that a stranger controls bounded.

use std::{
    collections::BTreeSet,
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use leasehold_law::{
    caller::{CallerId, ProvenBy},
    time::Timestamp,
};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;

use super::{
    Caller, ConnectInfo, Connected, Connection, Door, Each, Known, Now, Open, RefusalReason, Refusals,
    connection::{Io, Lasts, Slots},
    origin::{Origins, Place},
    refusal::Refused,
    share::Shares,
    spiffe::{OpenTls, Proven, ServerTls},
    unix::{self, Access},
    vouched::Vouched,
    web::{self, WebTls},
    welcome::Welcome,
};

/// Connections that wait for the server to pick them up.
const WAITING: usize = 128;
/// Rest after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds on what peers may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Handshakes at one time; further clients wait in the kernel's backlog.
    pub handshakes: usize,
    /// Of these, those of one peer address, or of one IPv6 /64; what comes beyond them is closed at once.
    pub handshakes_each: usize,
    /// The time a handshake may take.
    pub handshake_time: Duration,
    /// Open connections of proven callers.
    pub connections: usize,
    /// The hard end of a connection, open streams or not; the SVID's notAfter where that is earlier.
    pub connection_life: Duration,
    /// After this a peer is asked to leave, and earlier where its connection ends earlier.
    pub stay: Duration,
    /// What one caller may hold of a door.
    pub each: Each,
    /// Open connections of those who are proven and not known at the door, all together.
    pub visitors: usize,
    /// The hard end of such a connection: time to be told why, and no more.
    pub visitor_life: Duration,
    /// The hard end of a connection whose requests come with tokens, as long as none was of a caller who is known: time
    /// for an issuer to be asked for its keys.
    pub stranger_life: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 512,
            handshakes_each: 64,
            handshake_time: Duration::from_secs(5),
            connections: 10_000,
            connection_life: Duration::from_secs(3600),
            stay: Duration::from_secs(3600 - 60),
            each: Each::default(),
            visitors: 64,
            visitor_life: Duration::from_secs(10),
            stranger_life: Duration::from_secs(20),
        }
    }
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process has the port.
    #[error("port in use: `{addr}`")]
    PortInUse {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// A living process listens on the socket file.
    #[error("socket in use: `{}`", path.display())]
    SocketInUse {
        /// The socket file.
        path: PathBuf,
    },
    /// Something else lies where the socket file should go; it is not removed.
    #[error("`{}` exists and is not a socket", path.display())]
    NotASocket {
        /// What lies there.
        path: PathBuf,
    },
    /// The folder lets others in, so that they could swap the socket file.
    #[error("folder `{}` has mode {found:04o}: allowed is {allowed:04o}", path.display())]
    FolderTooOpen {
        /// The folder of the socket file.
        path: PathBuf,
        /// Its permission bits.
        found: u32,
        /// The widest permission bits that are accepted.
        allowed: u32,
    },
    /// The folder belongs to another user.
    #[error("folder `{}` belongs to uid {owner}, not to this process", path.display())]
    FolderOwner {
        /// The folder of the socket file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The system said no.
    #[error("cannot listen on `{at}`: {source}")]
    Io {
        /// Address or path.
        at: String,
        /// The system's words.
        source: io::Error,
    },
}

/// Opens a TCP port. TLS comes with [`Entrance::accept_tls`]; there is no plain TCP.
///
/// # Errors
/// [`ListenError::PortInUse`], or [`ListenError::Io`] for anything else.
pub async fn bind_tcp(addr: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(addr).await.map_err(|source| match source.kind() == io::ErrorKind::AddrInUse {
        true => ListenError::PortInUse { addr },
        false => ListenError::Io { at: addr.to_string(), source },
    })
}

/// Opens a unix socket; see [`Access`] for its modes. A stale socket file is replaced, a live one is not.
///
/// # Errors
/// As [`ListenError`] says.
pub async fn bind_unix(path: &std::path::Path, access: Access) -> Result<UnixListener, ListenError> {
    unix::bind(path, access).await
}

/// What a door asks, and where it tells whom it refused.
#[derive(Clone)]
pub struct Gate {
    /// The clock.
    pub now: Now,
    /// Where the refused are counted.
    pub refusals: Arc<Refusals>,
    /// Who is known at this door.
    pub known: Known,
}

/// One door's way in. Any number of listeners may feed it; all share its bounds.
#[derive(Clone)]
pub struct Entrance {
    door: Door,
    limits: Limits,
    gate: Gate,
    shares: Arc<Shares>,
    slots: Arc<Semaphore>,
    /// Apart, so that those who may do nothing never take the place of those who may.
    visitor_slots: Arc<Semaphore>,
    /// Apart, so that those who prove nobody by connecting never take the place of those who do.
    open_slots: Arc<Semaphore>,
    /// Apart, so that nobody on the network locks out those on the host.
    local_slots: Arc<Semaphore>,
    out: mpsc::Sender<io::Result<Connection>>,
}

impl fmt::Debug for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entrance")
            .field("door", &self.door)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The proven connections of one door, for `Server::serve_with_incoming`. Dropping it ends the accept loops;
/// it ends itself once every [`Entrance`] to it is gone.
pub struct Incoming(mpsc::Receiver<io::Result<Connection>>);

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

/// A handshake's place among all of its listener, and among those of its origin.
struct Turn {
    _all: OwnedSemaphorePermit,
    _own: Place,
}

/// Where a connection finds its place.
struct Room<'a> {
    each: Each,
    slots: &'a Arc<Semaphore>,
}

impl Entrance {
    /// A door with its bounds, and the stream of those who passed it.
    pub fn new(door: Door, limits: Limits, gate: Gate) -> (Self, Incoming) {
        let (out, incoming) = mpsc::channel(WAITING);
        let bound = |most| Arc::new(Semaphore::new(most));
        let entrance = Self {
            door,
            limits,
            gate,
            shares: Arc::default(),
            slots: bound(limits.connections),
            visitor_slots: bound(limits.visitors),
            open_slots: bound(limits.connections),
            local_slots: bound(limits.connections),
            out,
        };
        (entrance, Incoming(incoming))
    }

    /// Accepts mutual TLS on `listener` until the [`Incoming`] is dropped. Needs a tokio runtime.
    pub fn accept_tls(&self, listener: TcpListener, tls: ServerTls) {
        self.accept(listener, move |entrance, stream, peer| {
            let tls = tls.clone();
            async move { tls.prove(stream).await.and_then(|proven| entrance.admit_svid(proven, peer)) }
        });
    }

    fn accept<F>(
        &self,
        listener: TcpListener,
        greet: impl Fn(Self, TcpStream, SocketAddr) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<Connection, Refused>> + Send + 'static,
    {
        let entrance = self.clone();
        tokio::spawn(async move {
            let (turns, origins) = (Arc::new(Semaphore::new(entrance.limits.handshakes)), Origins::default());
            while let Some(turn) = entrance.turn(&turns).await {
                let Some((stream, peer)) = entrance.next(|| listener.accept()).await else { break };
                match origins.enter(peer.ip(), entrance.limits.handshakes_each) {
                    Some(own) => {
                        let turn = Turn { _all: turn, _own: own };
                        let greeted = greet(entrance.clone(), stream, peer);
                        tokio::spawn(entrance.clone().greet(greeted, peer, turn));
                    }
                    None => entrance.refuse(&too_many_handshakes(), peer),
                }
            }
        });
    }

    /// Accepts both on `listener` until the [`Incoming`] is dropped: mutual TLS, and, from clients that ask for the server
    /// by a name in its certificate for the web, TLS without a client's certificate. Needs a tokio runtime.
    pub fn accept_either(&self, listener: TcpListener, tls: ServerTls, web: WebTls) {
        self.accept(listener, move |entrance, stream, peer| {
            let (tls, web) = (tls.clone(), web.clone());
            async move {
                let hello = web::hello(stream).await?;
                if web.is_asked_for(&hello) {
                    return web.greet(hello).await.and_then(|stream| entrance.admit_open(stream, peer));
                }
                tls.prove_from(hello).await.and_then(|proven| entrance.admit_svid(proven, peer))
            }
        });
    }

    /// Accepts callers that come with tokens on `listener` until the [`Incoming`] is dropped. Needs a tokio runtime.
    pub fn accept_open(&self, listener: TcpListener, tls: OpenTls) {
        self.accept(listener, move |entrance, stream, peer| {
            let tls = tls.clone();
            async move { tls.greet(stream).await.and_then(|stream| entrance.admit_open(stream, peer)) }
        });
    }

    /// Accepts local users on `listener` until the [`Incoming`] is dropped. Needs a tokio runtime.
    pub fn accept_unix(&self, listener: UnixListener) {
        let entrance = self.clone();
        tokio::spawn(async move {
            while let Some((stream, _)) = entrance.next(|| listener.accept()).await {
                match entrance.admit_local(stream) {
                    Ok(connection) => entrance.pass(connection).await,
                    Err(refused) => entrance.refuse(&refused, "unix"),
                }
            }
        });
    }

    async fn turn(&self, turns: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            () = self.out.closed() => None,
            turn = turns.clone().acquire_owned() => turn.ok(),
        }
    }

    /// The next connection of a listener; none once the server is gone.
    async fn next<T, F: Future<Output = io::Result<T>>>(&self, accept: impl Fn() -> F) -> Option<T> {
        loop {
            let accepted = tokio::select! {
                () = self.out.closed() => return None,
                accepted = accept() => accepted,
            };
            match accepted {
                Ok(connection) => return Some(connection),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn greet(
        self,
        greeted: impl Future<Output = Result<Connection, Refused>>,
        peer: SocketAddr,
        turn: Turn,
    ) {
        let greeted = timeout(self.limits.handshake_time, greeted).await;
        drop(turn);
        match greeted.unwrap_or_else(|_| Err(Refused::new(RefusalReason::Timeout, "too slow"))) {
            Ok(connection) => self.pass(connection).await,
            Err(refused) => self.refuse(&refused, peer),
        }
    }

    fn admit_svid(&self, proven: Proven, peer: SocketAddr) -> Result<Connection, Refused> {
        let left = time_left(proven.not_after, (self.gate.now)())?;
        let caller = Caller {
            id: CallerId::Agent(proven.id),
            proof: ProvenBy::X509Svid,
            not_after: Some(proven.not_after),
            door: self.door,
            login_uid: None,
            peer: Some(peer),
            groups: BTreeSet::new(),
        };
        let (io, vouched) = (Io::Tls(proven.stream), Some(proven.vouched));
        if (self.gate.known)(&caller.id) {
            let room = Room { each: self.limits.each, slots: &self.slots };
            self.connection(io, (caller, vouched), left, &room)
        } else {
            let room = Room { each: Each::OF_A_VISITOR, slots: &self.visitor_slots };
            self.connection(io, (caller, vouched), left.min(self.limits.visitor_life), &room)
        }
    }

    /// Whose a token is shows with each request: until the first of a known caller the connection is a stranger's, and does
    /// not last. Behind a hop that ends TLS all come from one address, which therefore bounds nobody.
    fn admit_open(&self, stream: Box<TlsStream<TcpStream>>, peer: SocketAddr) -> Result<Connection, Refused> {
        let place = self.open_slots.clone().try_acquire_owned().map_err(|_| too_many("of this door"))?;
        let lasts = Lasts::of(self.limits.connection_life, self.limits.stay);
        let welcome = Welcome::within(self.limits.stranger_life);
        let info = ConnectInfo(Connected::Open(Open { door: self.door, peer, welcome }));
        Ok(Connection::new(Io::Tls(stream), info, lasts, Slots { _door: place, _own: None }))
    }

    fn admit_local(&self, stream: UnixStream) -> Result<Connection, Refused> {
        let user = unix::user_of(&stream).map_err(|e| Refused::new(RefusalReason::Other, e.to_string()))?;
        let caller = Caller {
            id: CallerId::LocalUser(user.uid),
            proof: ProvenBy::PeerCredentials,
            not_after: None,
            door: self.door,
            login_uid: user.login_uid,
            peer: None,
            groups: BTreeSet::new(),
        };
        let room = Room { each: self.limits.each, slots: &self.local_slots };
        self.connection(Io::Unix(stream), (caller, None), Duration::MAX, &room)
    }

    fn connection(
        &self,
        io: Io,
        (caller, vouched): (Caller, Option<Vouched>),
        left: Duration,
        room: &Room<'_>,
    ) -> Result<Connection, Refused> {
        let share = self.shares.of(&caller.id, room.each);
        let own = share.connection().ok_or_else(|| too_many(&format!("of {}", caller.id)))?;
        let door = room.slots.clone().try_acquire_owned().map_err(|_| too_many("of this door"))?;
        let lasts = Lasts::of(left.min(self.limits.connection_life), self.limits.stay);
        let info = ConnectInfo(Connected::As(caller, share, vouched));
        Ok(Connection::new(io, info, lasts, Slots { _door: door, _own: Some(own) }))
    }

    async fn pass(&self, connection: Connection) {
        // An error means that the server has gone; the connection goes with it.
        let _ = self.out.send(Ok(connection)).await;
    }

    fn refuse(&self, refused: &Refused, peer: impl fmt::Display) {
        self.gate.refusals.note(refused, peer, (self.gate.now)());
    }
}

fn too_many_handshakes() -> Refused {
    Refused::new(RefusalReason::TooManyConnections, "the bound on handshakes of one address is reached")
}

fn too_many(whose: &str) -> Refused {
    Refused::new(
        RefusalReason::TooManyConnections,
        format!("the bound on open connections {whose} is reached"),
    )
}

/// What is left of an SVID by the broker's own clock, which may differ from the TLS library's.
fn time_left(not_after: Timestamp, now: Timestamp) -> Result<Duration, Refused> {
    let left = u64::try_from(not_after.0.saturating_sub(now.0)).ok().filter(|left| *left > 0);
    left.map(Duration::from_millis).ok_or_else(|| Refused::new(RefusalReason::Expired, "past its notAfter"))
}
