//! The one thread on which a client's connections, heartbeats and renewals run.
//!
//! An agent may block its own event loop for minutes; its task must not be lost for that. The thread lives as long
//! as somebody holds the [`Io`], spawned farewells included.

use std::{future::Future, io, sync::Arc, thread};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    task::JoinHandle,
};

use crate::ClientError;

/// A handle on the thread. The last one to be dropped ends it.
pub(crate) struct Io {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl Io {
    pub(crate) fn start() -> io::Result<Arc<Self>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new().name("leasehold-client".to_owned()).spawn(move || {
            // The sender is never used: its drop is the sign to stop.
            drop(runtime.block_on(stopped));
        })?;
        Ok(Arc::new(Self { handle, _stop: stop }))
    }

    /// Runs a future on the thread until its guard is dropped.
    pub(crate) fn keep(&self, future: impl Future<Output = ()> + Send + 'static) -> Guard {
        Guard(self.handle.spawn(future))
    }

    /// Runs a future on the thread to its end, whoever waits for it or not.
    pub(crate) fn detach(self: &Arc<Self>, future: impl Future<Output = ()> + Send + 'static) {
        let alive = Arc::clone(self);
        self.handle.spawn(async move {
            future.await;
            drop(alive);
        });
    }

    /// Runs a future on the thread and waits for it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, ClientError>> + Send + 'static,
    ) -> Result<T, ClientError> {
        self.handle.spawn(future).await.unwrap_or_else(|_| Err(ClientError::Stopped))
    }
}

/// Stops what it guards when dropped.
pub(crate) struct Guard(JoinHandle<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_blocked_caller_does_not_stop_the_thread() {
        let io = Io::start().unwrap();
        let (sender, receiver) = mpsc::channel();
        let _guard = io.keep(async move {
            for beat in 0..3 {
                tokio::task::yield_now().await;
                sender.send(beat).unwrap();
            }
        });
        // This thread blocks without any event loop; the beats come all the same.
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn a_farewell_outlives_its_client() {
        let io = Io::start().unwrap();
        let (sender, receiver) = mpsc::channel();
        let (go, wait) = oneshot::channel::<()>();
        io.detach(async move {
            wait.await.unwrap();
            sender.send(()).unwrap();
        });
        drop(io);
        go.send(()).unwrap();
        receiver.recv().unwrap();
    }
}
