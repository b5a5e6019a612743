//! How many requests a deployment takes: so many run and begin per minute, so many wait, the rest is told when to come
//! back.

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

use crate::limits::{Rates, Ticket};

/// The gate of one deployment. Requests pass in the order they came.
pub(crate) struct Admission {
    running: Arc<Semaphore>,
    concurrency: u32,
    queue_limit: u32,
    rates: Option<Arc<Rates>>,
    waiting: AtomicU32,
    /// How long a request ran lately.
    pace: Mutex<Option<Duration>>,
}

impl Admission {
    pub(crate) fn new(concurrency: u32, queue_limit: u32, rates: Option<Arc<Rates>>) -> Self {
        let concurrency = concurrency.max(1);
        let permits = (concurrency as usize).min(Semaphore::MAX_PERMITS);
        Self {
            running: Arc::new(Semaphore::new(permits)),
            concurrency,
            queue_limit,
            rates,
            waiting: AtomicU32::new(0),
            pace: Mutex::new(None),
        }
    }

    /// Waits for a place, and for its minute, until the deadline passes or `stop` is cancelled. `tokens` says how many the
    /// request may have; it is asked only where tokens are limited.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        name: &str,
        deadline: Option<Instant>,
        stop: &CancellationToken,
        tokens: impl FnOnce() -> u64,
    ) -> Result<Permit> {
        let patience = Patience { name, deadline, stop };
        let mut waiting = None;
        let place = match Arc::clone(&self.running).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                waiting = Some(self.queue(name)?);
                let place = Arc::clone(&self.running).acquire_owned();
                patience.wait(place).await?.map_err(|closed| removed(name).with_source(closed))?
            }
        };
        let ticket = match &self.rates {
            None => None,
            Some(rates) => {
                let tokens = if rates.counts_tokens() { tokens() } else { 0 };
                match rates.try_pass(tokens) {
                    Some(ticket) => Some(ticket),
                    None => {
                        if waiting.is_none() {
                            waiting = Some(self.queue(name)?);
                        }
                        patience.check(rates.wait(tokens, 0))?;
                        Some(patience.wait(rates.pass(tokens)).await?)
                    }
                }
            }
        };
        drop(waiting);
        Ok(Permit { admission: Arc::clone(self), started: Instant::now(), ticket, _place: place })
    }

    /// Whether a request would begin at once.
    pub(crate) fn has_room(&self) -> bool {
        self.running.available_permits() > 0 && self.rates.as_ref().is_none_or(|rates| rates.has_room())
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
        let queue = Duration::from_secs_f64(seconds.clamp(1.0, 60.0).ceil());
        self.rates.as_ref().map_or(queue, |rates| queue.max(whole_seconds(rates.wait(0, waiting))))
    }
}

fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

/// How long a request may wait.
struct Patience<'a> {
    name: &'a str,
    deadline: Option<Instant>,
    stop: &'a CancellationToken,
}

impl Patience<'_> {
    async fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let name = self.name;
        let deadline_passed = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(removed(name)),
            done = work => Ok(done),
            () = deadline_passed => Err(Error::new(
                ErrorKind::DeadlineExceeded,
                format!("the deadline passed while the request waited for a place in '{name}'"),
            )),
        }
    }

    /// Refuses a request that will certainly wait for longer than it can.
    fn check(&self, wait: Duration) -> Result<()> {
        let Some(deadline) = self.deadline else { return Ok(()) };
        let start = tokio::time::Instant::now() + wait;
        if start <= tokio::time::Instant::from_std(deadline) {
            return Ok(());
        }
        let (name, seconds) = (self.name, whole_seconds(wait).as_secs());
        Err(Error::new(
            ErrorKind::RateLimited,
            format!(
                "'{name}' has begun as much as it may within a minute; the request could begin in {seconds} s, after its \
                 deadline"
            ),
        )
        .with_retry_after(whole_seconds(wait)))
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
    ticket: Option<Ticket>,
    _place: OwnedSemaphorePermit,
}

impl Permit {
    /// The request's place in its minute, where rates are limited.
    pub(crate) fn ticket(&self) -> Option<Ticket> {
        self.ticket.clone()
    }
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
    stop: CancellationToken,
    /// Once the answer was waited for.
    stopped: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Admitted {
    pub(crate) fn new(
        name: Arc<str>,
        stream: EventStream,
        permit: Permit,
        token: TaskTrackerToken,
        stop: CancellationToken,
    ) -> Self {
        Self { name, inner: Some((stream, permit, token)), stop, stopped: None }
    }
}

impl Stream for Admitted {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some((stream, ..)) = &mut this.inner else { return Poll::Ready(None) };
        let mut next = Poll::Pending;
        if !this.stop.is_cancelled() {
            next = stream.as_mut().poll_next(context);
        }
        if next.is_pending() {
            let stop = &this.stop;
            let stopped = this.stopped.get_or_insert_with(|| Box::pin(stop.clone().cancelled_owned()));
            std::task::ready!(stopped.as_mut().poll(context));
            this.inner = None;
            return Poll::Ready(Some(Err(removed(&this.name))));
        }
        let item = std::task::ready!(next);
        // The place is free as soon as the answer is over, also when the caller keeps the stream.
        if !matches!(&item, Some(Ok(event)) if !matches!(event, Event::Usage { .. })) {
            this.inner = None;
        }
        Poll::Ready(item)
    }
}
