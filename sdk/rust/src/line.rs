//! What calls go over: a channel, and for a caller that comes with a token what proves it, with each call.

use std::error::Error as StdError;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::transport::Channel;
use tower::{Service, ServiceExt as _};

use crate::bearer::Bearer;

/// An error of the transport, or of the token that was to come with a call.
pub(crate) type LineError = Box<dyn StdError + Send + Sync>;

/// Connections that one request may miss, one after another.
const TRIES: usize = 5;

type Answer = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, LineError>> + Send>>;

/// A channel that may carry a token.
#[derive(Clone)]
pub struct Line {
    channel: Channel,
    bearer: Option<Arc<Bearer>>,
}

impl Line {
    /// A channel that has proven its caller by itself.
    pub(crate) fn proven(channel: Channel) -> Self {
        Self { channel, bearer: None }
    }

    /// A channel over which each call is proven by a token.
    pub(crate) fn with_token(channel: Channel, bearer: Bearer) -> Self {
        Self { channel, bearer: Some(Arc::new(bearer)) }
    }
}

impl Service<Request<Body>> for Line {
    type Response = Response<Body>;
    type Error = LineError;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LineError>> {
        self.channel.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        // The channel that was polled ready is the one to call; the clone takes its place.
        let clone = self.channel.clone();
        let channel = std::mem::replace(&mut self.channel, clone);
        let bearer = self.bearer.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let request = Request::from_parts(head, Full::new(body.collect().await?.to_bytes()));
            send(channel, bearer.as_deref(), request).await
        })
    }
}

/// Sends it: over the next connection where the one that was ready ends and the request was not looked at.
async fn send(
    mut channel: Channel,
    bearer: Option<&Bearer>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Body>, LineError> {
    for _ in 1..TRIES {
        let error = match channel.call(proven(bearer, &request).await?).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if !is_untouched(&error) {
            return Err(error.into());
        }
        channel.ready().await?;
    }
    Ok(channel.call(proven(bearer, &request).await?).await?)
}

/// The request with what proves its caller, where the channel does not.
async fn proven(bearer: Option<&Bearer>, request: &Request<Full<Bytes>>) -> Result<Request<Body>, LineError> {
    let mut request = request.clone().map(Body::new);
    let Some(bearer) = bearer else { return Ok(request) };
    let (token, proof) = bearer.prove(request.uri().path()).await?;
    let mut token = HeaderValue::try_from(format!("DPoP {}", token.as_str()))?;
    token.set_sensitive(true);
    request.headers_mut().insert(header::AUTHORIZATION, token);
    request.headers_mut().insert("dpop", HeaderValue::try_from(proof)?);
    Ok(request)
}

/// Whether the server cannot have done anything about a request: so whatever was asked may be asked again, for a
/// credential too.
///
/// hyper says "canceled" over HTTP/2 of a request that still waits in its queue when the connection ends, and of no other.
/// After GOAWAY without an error h2 says so of streams that the server will not look at, and of such whose message was
/// not sent (RFC 9113 section 6.8); a stream that the server took goes on to its end.
fn is_untouched(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    /// Its last stream is 0: nothing was looked at.
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const HEADERS: u8 = 1;
    const PREFACE: usize = 24;

    /// Why a request failed whose server has its say once the headers are there.
    async fn failure(says: &[u8]) -> hyper::Error {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let connect = http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(near));
        let serve = async {
            far.write_all(&SETTINGS).await.unwrap();
            far.read_exact(&mut [0; PREFACE]).await.unwrap();
            until_headers(&mut far).await;
            far.write_all(says).await.unwrap();
            drop(far);
        };
        let ask = async {
            let (mut sender, connection) = connect.await.unwrap();
            tokio::spawn(connection);
            let request = Request::post("http://leasehold.invalid/").body(Full::new(Bytes::from("x")));
            sender.send_request(request.unwrap()).await.unwrap_err()
        };
        tokio::join!(serve, ask).1
    }

    async fn until_headers(far: &mut DuplexStream) {
        loop {
            let mut head = [0; 9];
            far.read_exact(&mut head).await.unwrap();
            if head[3] == HEADERS {
                return;
            }
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            far.read_exact(&mut vec![0; length]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_a_leaving_server_never_looked_at_is_untouched() {
        assert!(is_untouched(&failure(&GOAWAY).await));
    }

    #[tokio::test]
    async fn what_a_server_may_have_done_before_it_vanished_is_not() {
        let error = failure(&[]).await;
        assert!(!is_untouched(&error), "{error:?}");
        assert!(!is_untouched(&std::io::Error::other("something else")));
    }

    #[tokio::test]
    async fn what_comes_after_the_end_of_a_connection_is_untouched() {
        let (near, _far) = tokio::io::duplex(1024);
        let connect = http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(near));
        let (mut sender, connection) = connect.await.unwrap();
        drop(connection);
        let request = Request::post("http://leasehold.invalid/").body(Full::new(Bytes::from("x")));
        assert!(is_untouched(&sender.send_request(request.unwrap()).await.unwrap_err()));
    }
}
