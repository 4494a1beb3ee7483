//! What every request passes before its service: who, whether there is room, whether it may, and, on the way back,
//! whether a secret arrived.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::request::Parts;
use http_body::{Frame, SizeHint};
use leasehold_law::reason::Reason;
use tonic::Code;
use tonic::body::Body;
use tower::{Layer, Service};

use super::room::{self, Place, Room};
use super::status;
use crate::authority::{self, Operators, Standing};
use crate::broker::{Broker, Delivery, Refused};
use crate::identity::bearer::{BearerRefused, Bearers};
use crate::identity::{Caller, Presented, Share};
use crate::meter;

/// Who makes a request, and as what.
#[derive(Clone, Debug)]
pub struct Identified {
    /// The proven caller.
    pub caller: Caller,
    /// What it may.
    pub standing: Standing,
}

/// Lets proven and authorised callers through.
#[derive(Clone)]
pub struct DoorLayer {
    broker: Broker,
    operators: Arc<Operators>,
    bearers: Option<Arc<Bearers>>,
    room: Room,
}

impl DoorLayer {
    /// A layer over a broker's registry and these operators, with a room of its own. `bearers` judges those that come with
    /// a token.
    #[must_use]
    pub fn new(broker: Broker, operators: Arc<Operators>, bearers: Option<Arc<Bearers>>) -> Self {
        Self { broker, operators, bearers, room: Room::of_a_door() }
    }
}

impl<S> Layer<S> for DoorLayer {
    type Service = DoorService<S>;
    fn layer(&self, inner: S) -> Self::Service {
        DoorService { door: self.clone(), inner }
    }
}

/// A service behind the door.
#[derive(Clone)]
pub struct DoorService<S> {
    door: DoorLayer,
    inner: S,
}

impl<S> Service<http::Request<Body>> for DoorService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The service that was polled ready is the one to call; the clone takes its place.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let door = self.door.clone();
        let call = request.uri().path().trim_start_matches('/').to_owned();
        Box::pin(measured(call.clone(), async move {
            let (mut parts, body) = request.into_parts();
            match door.admit(&parts, &call).await {
                Ok((identified, place)) => {
                    parts.extensions.insert(identified);
                    let request = http::Request::from_parts(parts, room::arriving(body, &call));
                    inner.call(request).await.map(|response| track(response, place))
                }
                Err(refused) => Ok(status::of(&refused).into_http()),
            }
        }))
    }
}

/// Counts an answer. A call that failed says so in its headers; of a stream it is how it began.
async fn measured<E>(
    call: String,
    answer: impl Future<Output = Result<http::Response<Body>, E>>,
) -> Result<http::Response<Body>, E> {
    let rpc = meter::Rpc::begin();
    let answer = answer.await;
    if let (Some(method), Ok(response)) = (authority::method(&call), &answer) {
        let code =
            response.headers().get("grpc-status").map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
        rpc.answered(method, code);
    }
    answer
}

impl DoorLayer {
    /// Identity holds for a request, not for a connection (ID-2); then authority. Refusals are on record (law 12).
    async fn admit(&self, request: &Parts, call: &str) -> Result<(Identified, Place), Refused> {
        let (caller, share) = self.caller(request).await?;
        let place = self.room.enter(Some(&share), call)?;
        let registry = self.broker.registry();
        match authority::check(call, &caller, &self.operators, &registry) {
            Ok(standing) => {
                self.record_act(&caller, call);
                Ok((Identified { caller, standing }, place))
            }
            Err(refused) => Err(self.broker.turn_away(caller.id(), call, refused).await),
        }
    }

    async fn caller(&self, request: &Parts) -> Result<(Caller, Arc<Share>), Refused> {
        match Presented::of(&request.extensions, self.broker.now()) {
            Presented::Proven(caller, share) => Ok((caller, share)),
            Presented::NotPresented => Err(nobody()),
            Presented::Open(open) => {
                let bearers = self.bearers.as_ref().ok_or_else(nobody)?;
                bearers.prove(request, open.door, open.peer).await.map_err(no_bearer)
            }
            Presented::Rejected(rejection) => {
                Err(Refused::new(Reason::NoIdentity, rejection.to_string()).next(rejection.next()))
            }
        }
    }

    /// An operator on the host is recorded with the uid that logged in, which `sudo` does not change (RULES R-19). No
    /// record ever stops an operator, or keeps one waiting.
    fn record_act(&self, caller: &Caller, call: &str) {
        let Some(login) = caller.login_uid().filter(|_| authority::acts(call)) else { return };
        let (broker, by, call) = (self.broker.clone(), caller.id().to_string(), call.to_owned());
        tokio::spawn(async move {
            let details = BTreeMap::from([
                ("by".to_owned(), by.clone()),
                ("login uid".to_owned(), login.to_string()),
                ("call".to_owned(), call.clone()),
            ]);
            if let Err(error) = broker.ledger().note_broker("operator acts", details).await {
                tracing::error!(by, login, call, %error, "an operator's call is not on record");
            }
        });
    }
}

fn nobody() -> Refused {
    Refused::new(Reason::NoIdentity, "no identity was presented")
        .next("connect with an X.509-SVID from your Workload API")
}

pub(super) fn no_bearer(why: BearerRefused) -> Refused {
    match why {
        BearerRefused::Missing(what) => Refused::new(Reason::NoIdentity, what)
            .next("send `authorization: DPoP TOKEN` and a `dpop` proof with each request (RFC 9449)"),
        BearerRefused::Token(refused) if refused.is_ours => {
            Refused::new(Reason::IssuerDown, refused.what).next(refused.next)
        }
        BearerRefused::Token(refused) => Refused::new(Reason::NoIdentity, refused.what).next(refused.next),
        BearerRefused::Busy => Refused::overloaded("the broker has too many tokens to judge"),
    }
}

/// A delivery on its way through a response's extensions, to be confirmed when the body has left.
#[derive(Clone)]
pub(super) struct Receipt(Arc<Mutex<Option<Delivery>>>);

impl Receipt {
    pub(super) fn new(delivery: Delivery) -> Self {
        Self(Arc::new(Mutex::new(Some(delivery))))
    }

    fn take(&self) -> Option<Delivery> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A response keeps its place until its body has left. One that carries a receipt confirms it then (RULES R-3); a body
/// that is dropped before its end, because the client reset its stream, drops the delivery with it: the lease is revoked
/// as undelivered.
fn track(mut response: http::Response<Body>, place: Place) -> http::Response<Body> {
    let delivery = response.extensions_mut().remove::<Receipt>().and_then(|receipt| receipt.take());
    response.map(|body| Body::new(Tracked { body, delivery, _place: place }))
}

struct Tracked {
    body: Body,
    delivery: Option<Delivery>,
    _place: Place,
}

impl http_body::Body for Tracked {
    type Data = <Body as http_body::Body>::Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let ended = match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if ended && let Some(delivery) = self.delivery.take() {
            delivery.confirm();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
