//! A wire between a broker and its target that can be held at one message, or cut.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// What is held: the first message to the target with these words in it, or the answer to that.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hold {
    /// The target has not heard of it.
    Question(&'static str),
    /// The target has done it, and nobody knows.
    Answer(&'static str),
}

impl Hold {
    fn matches(self, bytes: &[u8]) -> bool {
        let (Self::Question(words) | Self::Answer(words)) = self;
        bytes.windows(words.len()).any(|window| window == words.as_bytes())
    }
}

/// A wire to a port of this host.
pub(crate) struct Wire {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    armed: Mutex<Option<Hold>>,
    held: Semaphore,
    passing: Semaphore,
    /// Answers to what was held and let go.
    answered: Semaphore,
    cut: watch::Sender<bool>,
}

impl Wire {
    /// Lays it, whole.
    pub(crate) async fn lay(to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            armed: Mutex::default(),
            held: Semaphore::new(0),
            passing: Semaphore::new(0),
            answered: Semaphore::new(0),
            cut: watch::Sender::new(false),
        });
        tokio::spawn(accept(listener, to, shared.clone()));
        Self { port, shared }
    }

    /// Holds the next message that matches.
    pub(crate) fn hold(&self, hold: Hold) {
        *self.shared.armed.lock().unwrap() = Some(hold);
    }

    /// Waits until something is held.
    pub(crate) async fn holds(&self) {
        let held = tokio::time::timeout(crate::world::PATIENCE, self.shared.held.acquire()).await;
        held.expect("nothing was held").unwrap().forget();
    }

    /// Lets it go, whether or not its sender is still there.
    pub(crate) fn let_go(&self) {
        self.shared.passing.add_permits(1);
    }

    /// Waits until the target has answered a question that was let go, or has closed.
    pub(crate) async fn answered(&self) {
        let answered = tokio::time::timeout(crate::world::PATIENCE, self.shared.answered.acquire()).await;
        answered.expect("the target does not answer").unwrap().forget();
    }

    /// Ends every connection, and refuses new ones.
    pub(crate) fn cut(&self) {
        self.shared.cut.send_replace(true);
    }

    /// Takes connections again.
    pub(crate) fn mend(&self) {
        self.shared.cut.send_replace(false);
    }
}

async fn accept(listener: TcpListener, to: u16, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        if *shared.cut.borrow() {
            continue;
        }
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
            let mut cut = shared.cut.subscribe();
            tokio::select! {
                () = connect(client, server, &shared) => {}
                _ = cut.wait_for(|cut| *cut) => {}
            }
        });
    }
}

async fn connect(client: TcpStream, server: TcpStream, shared: &Shared) {
    let ((from, back), (answers, on)) = (client.into_split(), server.into_split());
    let caught = watch::Sender::new(None);
    tokio::join!(questions(from, on, shared, &caught), replies(answers, back, shared, caught.subscribe()));
}

async fn questions(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    caught: &watch::Sender<Option<Hold>>,
) {
    let mut buffer = vec![0; 65_536];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let hit = shared.armed.lock().unwrap().take_if(|hold| hold.matches(&buffer[..n]));
        if let Some(hold) = hit {
            if let Hold::Question(_) = hold {
                shared.held.add_permits(1);
                shared.passing.acquire().await.unwrap().forget();
            }
            caught.send_replace(Some(hold));
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
    _ = to.shutdown().await;
}

async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    caught: watch::Receiver<Option<Hold>>,
) {
    let mut buffer = vec![0; 65_536];
    loop {
        let read = from.read(&mut buffer).await;
        match *caught.borrow() {
            Some(Hold::Question(_)) => shared.answered.add_permits(1),
            Some(Hold::Answer(_)) | None => {}
        }
        let answer = matches!(*caught.borrow(), Some(Hold::Answer(_)));
        if answer {
            shared.held.add_permits(1);
            shared.passing.acquire().await.unwrap().forget();
        }
        let Ok(n @ 1..) = read else { break };
        // A sender that is gone hears no answers; the target is read on all the same.
        _ = to.write_all(&buffer[..n]).await;
    }
    _ = to.shutdown().await;
}
