//! Room for connections, and who leaves when there is none.
//!
//! A connection without a request in work is quiet: it has not sent its first request, dawdles over one's head, or
//! idles after an answer. When the room is full, the one that has been quiet for longest makes place for a new one,
//! so that those who send nothing cannot keep out those who ask. A request in work is never cut for this.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, HttpBody as _};
use futures::future::BoxFuture;
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper::{Request, Response};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::turns::Pieces;

/// File descriptors for everything but connections.
const OTHER_DESCRIPTORS: u64 = 256;

/// How many connections the process can hold, `wanted` at most. Raises the soft limit of descriptors where the hard one
/// allows it: many systems start programs with 1024.
pub(crate) fn affordable(wanted: usize) -> usize {
    let need = (wanted as u64).saturating_add(OTHER_DESCRIPTORS);
    let limit = getrlimit(Resource::Nofile);
    let mut current = limit.current.unwrap_or(u64::MAX);
    if current < need {
        let raised = limit.maximum.map_or(need, |maximum| maximum.min(need));
        match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }) {
            Ok(()) => current = current.max(raised),
            Err(error) => tracing::debug!(%error, "the limit of open files stays as it is"),
        }
    }
    let room = usize::try_from(current.saturating_sub(OTHER_DESCRIPTORS)).unwrap_or(usize::MAX);
    if room < wanted {
        tracing::warn!(
            connections = room.max(1),
            "the limit of open files allows fewer connections than {wanted}; raise it with ulimit -n"
        );
    }
    wanted.min(room.max(1))
}

/// All connections.
pub(crate) struct Crowd {
    room: Arc<Semaphore>,
    /// The server ends.
    closing: CancellationToken,
    quiet: Mutex<Quiet>,
    /// Someone has become quiet.
    hushed: Notify,
}

#[derive(Default)]
struct Quiet {
    next: u64,
    /// Longest first.
    seats: BTreeMap<u64, CancellationToken>,
}

impl Crowd {
    /// Room for so many. When `closing` is cancelled, everyone leaves.
    pub(crate) fn new(room: usize, closing: CancellationToken) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { room, closing, quiet: Mutex::default(), hushed: Notify::new() })
    }

    fn quiet(&self) -> std::sync::MutexGuard<'_, Quiet> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for a new connection; none is only given back when the server ends.
    pub(crate) async fn seat(self: &Arc<Self>) -> Option<Seat> {
        loop {
            if let Ok(permit) = self.room.clone().try_acquire_owned() {
                return Some(Seat::new(self, permit));
            }
            let longest = self.quiet().seats.pop_first();
            if let Some((_, leave)) = longest {
                leave.cancel();
                return Some(Seat::new(self, self.room.clone().acquire_owned().await.ok()?));
            }
            tokio::select! {
                permit = self.room.clone().acquire_owned() => return Some(Seat::new(self, permit.ok()?)),
                () = self.hushed.notified() => {}
            }
        }
    }
}

/// The place of one connection.
pub(crate) struct Seat(Arc<Place>);

struct Place {
    crowd: Arc<Crowd>,
    leave: CancellationToken,
    pieces: Pieces,
    /// Since when it is quiet.
    since: Mutex<Option<u64>>,
    _permit: OwnedSemaphorePermit,
}

impl Seat {
    fn new(crowd: &Arc<Crowd>, permit: OwnedSemaphorePermit) -> Self {
        let place = Place {
            crowd: crowd.clone(),
            // One token for both reasons: each is asked for whenever anything happens on the connection.
            leave: crowd.closing.child_token(),
            pieces: Pieces::default(),
            since: Mutex::new(None),
            _permit: permit,
        };
        place.hush();
        Self(Arc::new(place))
    }

    /// Completes when the connection has to leave: to make place, or because the server ends.
    pub(crate) async fn left(&self) {
        self.0.leave.cancelled().await;
    }

    /// Whether the connection is quiet while others wait for its place. One that began a request meanwhile is not.
    pub(crate) fn is_in_the_way(&self) -> bool {
        !self.0.crowd.closing.is_cancelled() && self.0.since().is_some()
    }

    /// Whether the connection writes pieces of a stream at present.
    pub(crate) fn pieces(&self) -> Pieces {
        self.0.pieces.clone()
    }

    /// The service of this connection.
    pub(crate) fn service(&self, router: Router) -> Seated {
        Seated { router, place: self.0.clone() }
    }
}

impl Place {
    fn since(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hush(&self) {
        let mut since = self.since();
        let mut quiet = self.crowd.quiet();
        let place = quiet.next;
        quiet.next += 1;
        quiet.seats.insert(place, self.leave.clone());
        if let Some(before) = since.replace(place) {
            quiet.seats.remove(&before);
        }
        drop(quiet);
        self.crowd.hushed.notify_one();
    }

    fn speak(&self) {
        if let Some(place) = self.since().take() {
            self.crowd.quiet().seats.remove(&place);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.speak();
    }
}

/// Answers the requests of one connection.
pub(crate) struct Seated {
    router: Router,
    place: Arc<Place>,
}

impl Service<Request<Incoming>> for Seated {
    type Response = Response<Work>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let busy = Busy::new(&self.place);
        let answer = self.router.clone().oneshot(request);
        Box::pin(async move {
            let answer = answer.await?;
            busy.0.pieces.set(answer.body().size_hint().exact().is_none());
            Ok(answer.map(|body| Work { body, _busy: busy }))
        })
    }
}

/// A request in work.
struct Busy(Arc<Place>);

impl Busy {
    fn new(place: &Arc<Place>) -> Self {
        place.speak();
        Self(place.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.hush();
    }
}

/// A body, in work until it is sent or dropped.
pub(crate) struct Work {
    body: Body,
    _busy: Busy,
}

impl hyper::body::Body for Work {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
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
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_connection_in_work_is_in_nobodys_way() {
        let closing = CancellationToken::new();
        let crowd = Crowd::new(1, closing.clone());
        let first = crowd.seat().await.unwrap();
        assert!(first.left().now_or_never().is_none());
        // Another one waits for the place, and at the same time a request begins.
        let mut second = Box::pin(crowd.seat());
        assert!(second.as_mut().now_or_never().is_none());
        let busy = Busy::new(&first.0);
        first.left().await;
        assert!(!first.is_in_the_way());
        drop(busy);
        assert!(first.is_in_the_way());
        drop(first);
        let second = second.await.unwrap();
        assert!(second.left().now_or_never().is_none());
        closing.cancel();
        second.left().await;
        assert!(!second.is_in_the_way());
    }
}
