//! An open connection with its caller and its end: when the time comes the IO fails, whatever streams are open.
//!
//! tonic's own connection age is the same for all and a held stream keeps such a connection alive. So the end is here,
//! and whoever serves a connection is told in good time to ask the peer to leave ([`Departure`]).

use std::{
    future::pending,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, sleep_until},
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::server::Connected;

use super::{
    ConnectInfo,
    vouched::{Lost, Vouched},
    welcome::Welcome,
};

/// How long before its end a peer is asked to leave, where the connection lasts long enough: a quarter of it at most.
const NOTICE: Duration = Duration::from_secs(60);
/// What is left to a peer of which one authority was withdrawn: it may be honest, and has a newer SVID then.
const LAST_CALLS: Duration = Duration::from_secs(5);

/// How long what a peer still sends is read and thrown away once nothing more is said to it. A connection that is closed
/// with something unread is reset, which may reach the peer before our last words, GOAWAY among them.
const LINGER: Duration = Duration::from_secs(1);

/// The transport under a connection.
pub(super) enum Io {
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// One accepted connection of a proven caller.
pub struct Connection {
    io: Io,
    info: ConnectInfo,
    end: BoxFuture<'static, ()>,
    leave: Instant,
    gone: DropGuard,
    lingers: Option<BoxFuture<'static, ()>>,
    _slots: Slots,
}

/// How long a connection lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lasts {
    whole: Duration,
    stay: Duration,
}

impl Lasts {
    /// `whole` in all, of which its peer is asked to leave after `stay`, or in good time before the end.
    pub(super) fn of(whole: Duration, stay: Duration) -> Self {
        Self { whole, stay: stay.min(whole - NOTICE.min(whole / 4)) }
    }
}

/// A connection's place at its door, and in its caller's share of it.
pub(super) struct Slots {
    pub(super) _door: OwnedSemaphorePermit,
    pub(super) _own: Option<OwnedSemaphorePermit>,
}

impl Connection {
    pub(super) fn new(io: Io, info: ConnectInfo, lasts: Lasts, slots: Slots) -> Self {
        let now = Instant::now();
        let end = Box::pin(ended(now + lasts.whole, info.vouched(), info.welcome()));
        let leave = now + lasts.stay;
        let gone = CancellationToken::new().drop_guard();
        Self { io, info, end, leave, gone, lingers: None, _slots: slots }
    }

    /// When its peer should be asked to leave; to be asked for before the connection is served.
    pub fn departure(&self) -> Departure {
        let gone = self.gone.token().clone();
        Departure { leave: self.leave, gone, vouched: self.info.vouched() }
    }

    /// Fails once the end has come. Reads and writes both ask, since either may be the only one polled.
    fn check_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::TimedOut, "the connection reached its end")),
        }
    }

    /// Reads until the peer has closed as well, or [`LINGER`] is over.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut unread = [0; 1024];
        loop {
            let mut unread = ReadBuf::new(&mut unread);
            let read = match &mut self.io {
                Io::Tls(io) => Pin::new(io).poll_read(cx, &mut unread),
                Io::Unix(io) => Pin::new(io).poll_read(cx, &mut unread),
            };
            let lingers = self.lingers.get_or_insert_with(|| Box::pin(sleep(LINGER)));
            match read {
                Poll::Ready(Ok(())) if !unread.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return lingers.as_mut().poll(cx),
            }
            if lingers.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
        }
    }
}

async fn ended(at: Instant, vouched: Option<Vouched>, welcome: Option<Welcome>) {
    tokio::select! {
        () = sleep_until(at) => {}
        () = outstayed(welcome) => {}
        lost = lost(vouched.as_ref()) => match lost {
            Lost::TrustDomain => {}
            Lost::Authority => sleep(LAST_CALLS).await,
        },
    }
}

async fn outstayed(welcome: Option<Welcome>) {
    match welcome {
        Some(welcome) => welcome.outstayed().await,
        None => pending().await,
    }
}

async fn lost(vouched: Option<&Vouched>) -> Lost {
    match vouched {
        Some(vouched) => vouched.until_lost().await,
        None => pending().await,
    }
}

/// When a connection's peer should be asked to leave, so that it goes elsewhere before its end cuts it off.
pub struct Departure {
    leave: Instant,
    gone: CancellationToken,
    vouched: Option<Vouched>,
}

impl Departure {
    /// Waits for that moment, or until the connection is gone.
    pub async fn due(self) {
        tokio::select! {
            () = sleep_until(self.leave) => {}
            () = self.gone.cancelled() => {}
            _lost = lost(self.vouched.as_ref()) => {}
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_end(cx)?;
        match &mut self.io {
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Io::Unix(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_end(cx)?;
        match &mut self.io {
            Io::Tls(io) => Pin::new(io).poll_write(cx, buf),
            Io::Unix(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_end(cx)?;
        match &mut self.io {
            Io::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Io::Unix(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Tls(io) => io.is_write_vectored(),
            Io::Unix(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_end(cx)?;
        match &mut self.io {
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
            Io::Unix(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_end(cx)?;
        if self.lingers.is_none() {
            ready!(match &mut self.io {
                Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
                Io::Unix(io) => Pin::new(io).poll_shutdown(cx),
            })?;
        }
        self.poll_linger(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_asked_to_leave_in_good_time() {
        let check = |whole, stay, expect| {
            let lasts = Lasts::of(Duration::from_secs(whole), Duration::from_secs(stay));
            assert_eq!(lasts.stay, Duration::from_secs(expect), "{whole} s, stay {stay} s");
        };
        check(3600, 3540, 3540);
        check(1800, 3540, 1740);
        check(80, 3540, 60);
        check(20, 3540, 15);
        check(3600, 1, 1);
        check(0, 3540, 0);
    }
}
