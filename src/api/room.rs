//! How much a door does at one time. What is more is refused at once, before it costs a decision or a commit; each door
//! has its own room, so that agents cannot keep operators waiting.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

use crate::authority::Lane;
use crate::broker::Refused;
use crate::identity::Share;

/// How long a request may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(10);

/// What a door does at one time, for all callers together.
#[derive(Clone)]
pub struct Room {
    calls: Arc<Semaphore>,
    returns: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// A place in the room, and in the caller's share of it, until it is dropped.
pub(super) struct Place {
    _own: Option<OwnedSemaphorePermit>,
    _shared: OwnedSemaphorePermit,
}

impl Room {
    /// With those that give back, fewer than the store's queue has places, so that revoking always finds one.
    const CALLS: usize = 2048;
    /// Calls that keep alive or give back.
    const RETURNS: usize = 1024;
    /// Answers that stay open cost a task and a few kilobytes each.
    const STREAMS: usize = 16_384;

    /// The room of one door.
    #[must_use]
    pub fn of_a_door() -> Self {
        Self::with(Self::CALLS, Self::RETURNS, Self::STREAMS)
    }

    fn with(calls: usize, returns: usize, streams: usize) -> Self {
        let bound = |most| Arc::new(Semaphore::new(most));
        Self { calls: bound(calls), returns: bound(returns), streams: bound(streams) }
    }

    /// A place for a call.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED where there is none.
    pub(super) fn enter(&self, share: Option<&Share>, call: &str) -> Result<Place, Refused> {
        let (all, share, what) = match Lane::of(call) {
            Lane::Asks => (&self.calls, share.map(Share::call), "you have too many calls open"),
            Lane::GivesBack => (&self.returns, share.map(Share::giving_back), "you have too many calls open"),
            Lane::StaysOpen => (&self.streams, share.map(Share::stream), "you have too many streams open"),
        };
        let own = match share {
            Some(None) => return Err(Refused::overloaded(what)),
            Some(Some(own)) => Some(own),
            None => None,
        };
        let shared = all.clone().try_acquire_owned();
        let shared = shared.map_err(|_| Refused::overloaded("the broker has too much to do"))?;
        Ok(Place { _own: own, _shared: shared })
    }
}

/// A request's body, which must have arrived within ten seconds: a place is not held by a request that never ends. One
/// that goes both ways stays open.
pub(super) fn arriving(body: Body, call: &str) -> Body {
    match Lane::of(call) {
        Lane::StaysOpen => body,
        Lane::Asks | Lane::GivesBack => Body::new(Arriving { body, end: Box::pin(sleep(ARRIVAL)) }),
    }
}

struct Arriving {
    body: Body,
    end: Pin<Box<Sleep>>,
}

impl http_body::Body for Arriving {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        ready!(self.end.as_mut().poll(cx));
        Poll::Ready(Some(Err(Status::deadline_exceeded("the request did not arrive within 10 s"))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use leasehold_law::reason::Reason;

    use super::*;

    const CALL: &str = "leasehold.v1.LeaseService/RequestLease";
    const STREAM: &str = "leasehold.v1.TaskService/WatchTask";
    const RETURN: &str = "leasehold.v1.TaskService/Heartbeat";

    #[test]
    fn a_place_is_given_back_and_no_lane_takes_from_another() {
        let room = Room::with(1, 1, 1);
        let held = [STREAM, CALL, RETURN].map(|call| room.enter(None, call).unwrap());
        for call in [STREAM, CALL, RETURN] {
            let refused = room.enter(None, call).err().unwrap();
            assert_eq!(refused.reason, Reason::Quota);
            assert!(refused.retry_after.is_some());
        }
        drop(held);
        assert!(room.enter(None, CALL).is_ok() && room.enter(None, STREAM).is_ok());
    }

    struct Silent;

    impl http_body::Body for Silent {
        type Data = tonic::codegen::Bytes;
        type Error = Status;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_ends_is_given_up() {
        let mut body = arriving(Body::new(Silent), CALL);
        let frame = std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await;
        let Some(Err(status)) = frame else { panic!("it went on waiting") };
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    }
}
