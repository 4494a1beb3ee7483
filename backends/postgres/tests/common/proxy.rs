//! A wire that can be held: what a client sends from some words on does not arrive until it is let go.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// A wire to a port of this host.
pub(crate) struct Wire {
    pub(crate) port: u16,
    held: Arc<Semaphore>,
    passing: Arc<Semaphore>,
}

impl Wire {
    /// Lays it; it holds what begins with these words.
    pub(crate) async fn lay(to: u16, words: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (held, passing) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let wire = Self { port, held: Arc::clone(&held), passing: Arc::clone(&passing) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                let ((from, back), (answers, on)) = (client.into_split(), server.into_split());
                tokio::spawn(carry(from, on, Some((words, Arc::clone(&held), Arc::clone(&passing)))));
                tokio::spawn(carry(answers, back, None));
            }
        });
        wire
    }

    /// Waits until something is held.
    pub(crate) async fn holds(&self) {
        self.held.acquire().await.unwrap().forget();
    }

    /// Lets it go.
    pub(crate) fn let_go(&self) {
        self.passing.add_permits(1);
    }
}

type Hold = (&'static str, Arc<Semaphore>, Arc<Semaphore>);

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, hold: Option<Hold>) {
    let mut buffer = vec![0; 65_536];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if let Some((words, held, passing)) = &hold
            && buffer[..n].windows(words.len()).any(|window| window == words.as_bytes())
        {
            held.add_permits(1);
            passing.acquire().await.unwrap().forget();
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
    _ = to.shutdown().await;
}
