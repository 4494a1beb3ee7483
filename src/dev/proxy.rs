//! A stalling TCP proxy: it passes everything on until it is told some words; whoever sends them gets no answer.
//!
//! So a client can be killed at the one moment that matters: the server has done it, and the client does not know.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

const BUFFER: usize = 65_536;

/// A proxy on loopback. It ends when dropped; connections that it carries end with their peers.
#[derive(Debug)]
pub struct StallingProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    words: Mutex<Option<Vec<u8>>>,
    held: Semaphore,
}

impl StallingProxy {
    /// Opens a proxy to this address, on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// Where no port can be opened.
    pub async fn open(to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { to, words: Mutex::default(), held: Semaphore::new(0) });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { address, shared, accepting })
    }

    /// Where clients connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on a client that sends these words gets no more answers on that connection.
    pub fn hold_answers_to(&self, words: &str) {
        self.set(Some(words.as_bytes().to_vec()));
    }

    /// Holds nothing new.
    pub fn pass(&self) {
        self.set(None);
    }

    /// Waits until an answer is held.
    pub async fn held(&self) {
        // It is never closed; if it were, nothing would be held any more.
        if let Ok(permit) = self.shared.held.acquire().await {
            permit.forget();
        }
    }

    fn set(&self, words: Option<Vec<u8>>) {
        *self.shared.words.lock().unwrap_or_else(PoisonError::into_inner) = words;
    }
}

impl Drop for StallingProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    fn words(&self) -> Option<Vec<u8>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            // A peer that is gone is no business of the proxy's.
            let _ = carry(client, &shared).await;
        });
    }
}

async fn carry(client: TcpStream, shared: &Shared) -> io::Result<()> {
    let server = TcpStream::connect(shared.to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let (stall, stalled) = watch::channel(false);
    tokio::select! {
        ended = questions(from_client, to_server, shared, &stall) => ended,
        ended = answers(from_server, to_client, shared, stalled) => ended,
    }
}

/// Decides before it passes a question on, so that no answer can overtake the decision.
async fn questions(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    stall: &watch::Sender<bool>,
) -> io::Result<()> {
    let mut seen = Seen::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        let chunk = read(&mut from, &mut buffer).await?;
        if chunk.is_empty() {
            return Ok(());
        }
        if let Some(words) = shared.words()
            && seen.contains(chunk, &words)
        {
            stall.send_replace(true);
        }
        to.write_all(chunk).await?;
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    stalled: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let chunk = read(&mut from, &mut buffer).await?;
        if chunk.is_empty() {
            return Ok(());
        }
        if *stalled.borrow() {
            shared.held.add_permits(1);
            return std::future::pending().await;
        }
        to.write_all(chunk).await?;
    }
}

async fn read<'a>(from: &mut (impl AsyncRead + Unpin), buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let n = from.read(buffer).await?;
    Ok(buffer.get(..n).unwrap_or_default())
}

/// The end of what was sent before: words may be cut in two.
#[derive(Default)]
struct Seen(Vec<u8>);

impl Seen {
    fn contains(&mut self, chunk: &[u8], words: &[u8]) -> bool {
        self.0.extend_from_slice(chunk);
        let found = self.0.windows(words.len().max(1)).any(|window| window == words);
        let keep = self.0.len().min(words.len().saturating_sub(1));
        self.0.drain(..self.0.len() - keep);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_wherever_they_are_cut() {
        let check = |chunks: &[&str], expect: bool| {
            let mut seen = Seen::default();
            let found = chunks.iter().any(|chunk| seen.contains(chunk.as_bytes(), b"CREATE ROLE"));
            assert_eq!(found, expect, "{chunks:?}");
        };
        check(&["DO CREATE ROLE x"], true);
        check(&["DO CREA", "TE", " ROLE x"], true);
        check(&["CREATE", "ROLE"], false);
        check(&["CREATE ROL"], false);
        check(&[], false);
    }
}
