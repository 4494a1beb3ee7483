//! What calls go over: a channel, and for a caller that comes with a token what proves it, with each call.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response, header};
use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;

use crate::bearer::Bearer;

/// An error of the transport, or of the token that was to come with a call.
pub(crate) type LineError = Box<dyn std::error::Error + Send + Sync>;

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

    fn call(&mut self, mut request: Request<Body>) -> Answer {
        // The channel that was polled ready is the one to call; the clone takes its place.
        let clone = self.channel.clone();
        let mut channel = std::mem::replace(&mut self.channel, clone);
        let bearer = self.bearer.clone();
        Box::pin(async move {
            if let Some(bearer) = bearer {
                let (token, proof) = bearer.prove(request.uri().path()).await?;
                let mut token = HeaderValue::try_from(format!("DPoP {}", token.as_str()))?;
                token.set_sensitive(true);
                request.headers_mut().insert(header::AUTHORIZATION, token);
                request.headers_mut().insert("dpop", HeaderValue::try_from(proof)?);
            }
            Ok(channel.call(request).await?)
        })
    }
}
