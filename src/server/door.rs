//! Serves the connections of one door, each by itself: it is asked to leave before its own end, not before a common one.

use std::time::Duration;

use futures::{StreamExt as _, stream::once};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};
use tokio_stream::pending;
use tonic::{service::Routes, transport::Server};
use tower::layer::util::{Identity, Stack};

use crate::{
    api::layers::DoorLayer,
    identity::{Connection, listener::Incoming},
};

/// How often a quiet connection is asked whether its other end is there.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Streams that one connection may hold at a time.
const STREAMS: u32 = 256;
/// What a connection may send before it is read: the largest request, and not that for each of its streams.
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// What one stream may send before it is read.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The headers of a request, in bytes.
const HEADERS: u32 = 16 * 1024;

type Transport = Server<Stack<DoorLayer, Identity>>;

/// Serves until told to stop; then until every connection has ended.
pub(super) async fn serve(
    layer: DoorLayer,
    routes: Routes,
    mut incoming: Incoming,
    stopped: watch::Receiver<bool>,
) {
    let (transport, routes) = (transport(layer), routes.prepare());
    let mut open = JoinSet::new();
    let mut stop = Box::pin(stop(stopped.clone()));
    loop {
        while open.try_join_next().is_some() {}
        let next = tokio::select! {
            next = incoming.next() => next,
            () = &mut stop => None,
        };
        let Some(Ok(connection)) = next else { break };
        open.spawn(converse(transport.clone(), routes.clone(), connection, stopped.clone()));
    }
    drop(incoming);
    while open.join_next().await.is_some() {}
}

fn transport(layer: DoorLayer) -> Transport {
    Server::builder()
        .max_concurrent_streams(STREAMS)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .http2_max_header_list_size(HEADERS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .layer(layer)
}

/// One connection. When it should leave, or the broker stops, its peer gets GOAWAY (RFC 9113 section 6.8): what is under
/// way ends here, and what is new goes over another connection.
async fn converse(
    transport: Transport,
    routes: Routes,
    connection: Connection,
    stopped: watch::Receiver<bool>,
) {
    let departure = connection.departure();
    let (taken, is_taken) = oneshot::channel();
    let alone = once(async move {
        // Nobody listens where the broker is gone.
        let _ = taken.send(());
        Ok::<_, std::io::Error>(connection)
    });
    // The end of the stream of connections would count as the signal.
    let alone = Box::pin(alone.chain(pending()));
    let leave = async {
        // A signal that came first would drop the connection without a word.
        let _ = is_taken.await;
        tokio::select! {
            () = departure.due() => {}
            () = stop(stopped) => {}
        }
    };
    if let Err(error) = transport.serve_with_incoming_shutdown(routes, alone, leave).await {
        tracing::warn!(%error, "a connection could not be served");
    }
}

/// Waits for the word. A sender that is gone stops the door as well.
async fn stop(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}
