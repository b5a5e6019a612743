//! How many requests a deployment takes: so many run, so many wait, the rest is told when to come back.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use byzerllm_core::{Error, ErrorKind, Event, EventStream, Result};
use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The gate of one deployment. Requests pass in the order they came.
pub(crate) struct Admission {
    running: Arc<Semaphore>,
    concurrency: u32,
    queue_limit: u32,
    waiting: AtomicU32,
    /// How long a request ran lately.
    pace: Mutex<Option<Duration>>,
}

impl Admission {
    pub(crate) fn new(concurrency: u32, queue_limit: u32) -> Self {
        let concurrency = concurrency.max(1);
        let permits = (concurrency as usize).min(Semaphore::MAX_PERMITS);
        Self {
            running: Arc::new(Semaphore::new(permits)),
            concurrency,
            queue_limit,
            waiting: AtomicU32::new(0),
            pace: Mutex::new(None),
        }
    }

    /// Waits for a place until the deadline passes or `stop` is cancelled.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        name: &str,
        deadline: Option<Instant>,
        stop: &CancellationToken,
    ) -> Result<Permit> {
        if let Ok(place) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(self.permit(place));
        }
        let _waiting = self.queue(name)?;
        let place = Arc::clone(&self.running).acquire_owned();
        let deadline_passed = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(removed(name)),
            place = place => match place {
                Ok(place) => Ok(self.permit(place)),
                Err(closed) => Err(removed(name).with_source(closed)),
            },
            () = deadline_passed => Err(Error::new(
                ErrorKind::DeadlineExceeded,
                format!("the deadline passed while the request waited for a place in '{name}'"),
            )),
        }
    }

    fn permit(self: &Arc<Self>, place: OwnedSemaphorePermit) -> Permit {
        Permit { admission: Arc::clone(self), started: Instant::now(), _place: place }
    }

    fn queue(self: &Arc<Self>, name: &str) -> Result<Waiting> {
        let grown = self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |waiting| {
            (waiting < self.queue_limit).then_some(waiting + 1)
        });
        match grown {
            Ok(_) => Ok(Waiting(Arc::clone(self))),
            Err(waiting) => Err(Error::new(
                ErrorKind::Overloaded,
                format!(
                    "'{name}' is full: {} requests run and {waiting} wait; try again later",
                    self.concurrency
                ),
            )
            .with_retry_after(self.retry_after(waiting))),
        }
    }

    /// When the queue will have moved on, at the pace of the last requests; between 1 and 60 seconds.
    fn retry_after(&self, waiting: u32) -> Duration {
        let pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(Duration::from_secs(1));
        let seconds = pace.as_secs_f64() * f64::from(waiting + 1) / f64::from(self.concurrency);
        Duration::from_secs_f64(seconds.clamp(1.0, 60.0).ceil())
    }
}

struct Waiting(Arc<Admission>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A place among the running requests.
pub(crate) struct Permit {
    admission: Arc<Admission>,
    started: Instant,
    _place: OwnedSemaphorePermit,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let mut pace = self.admission.pace.lock().unwrap_or_else(PoisonError::into_inner);
        *pace = Some(pace.map_or(took, |pace| (pace * 7 + took) / 8));
    }
}

pub(crate) fn removed(name: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("'{name}' was removed before the answer was complete"))
}

/// What a request holds as long as its stream lives.
pub(crate) struct Admitted {
    name: Arc<str>,
    inner: Option<(EventStream, Permit, TaskTrackerToken)>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Admitted {
    pub(crate) fn new(
        name: Arc<str>,
        stream: EventStream,
        permit: Permit,
        token: TaskTrackerToken,
        stop: CancellationToken,
    ) -> Self {
        Self { name, inner: Some((stream, permit, token)), stopped: Box::pin(stop.cancelled_owned()) }
    }
}

impl Stream for Admitted {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some((stream, ..)) = &mut this.inner else { return Poll::Ready(None) };
        if this.stopped.as_mut().poll(context).is_ready() {
            this.inner = None;
            return Poll::Ready(Some(Err(removed(&this.name))));
        }
        let item = std::task::ready!(stream.as_mut().poll_next(context));
        // The place is free as soon as the answer is over, also when the caller keeps the stream.
        if !matches!(&item, Some(Ok(event)) if !matches!(event, Event::Usage { .. })) {
            this.inner = None;
        }
        Poll::Ready(item)
    }
}
