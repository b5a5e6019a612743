//! `Call`: one answer in progress, as a whole (`result()`) or event by event (iteration).

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use byzerllm_core::{ChatResponse, Error, ErrorKind, Event, EventStream, Result, collect};
use futures::{FutureExt, StreamExt};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use tokio::sync::watch;

use crate::convert;
use crate::error::exception;
use crate::mailbox::Mailbox;
use crate::process::Process;

/// How many events an event loop is handed at a time.
const EVENTS_AT_ONCE: usize = 256;

/// An answer in progress. Dropping or cancelling it stops the work.
#[pyclass(frozen, module = "byzerllm._native")]
pub(crate) struct Call {
    process: Arc<Process>,
    answer: Arc<Answer>,
}

/// What is read of an answer, from Python or from a task of the executor.
pub(crate) struct Answer {
    stream: tokio::sync::Mutex<Option<EventStream>>,
    cancelled: watch::Sender<bool>,
    /// Whether the reader has been told the end, good or bad.
    told: AtomicBool,
    /// A failure behind events that were handed over together.
    failure: Mutex<Option<Error>>,
    deadline: Option<Instant>,
    clock: Arc<Mutex<Clock>>,
}

/// When things happened.
struct Clock {
    started: Instant,
    first: Option<Instant>,
    last: Option<Instant>,
}

/// The error of a call that its deadline ended.
pub(crate) fn too_late() -> Error {
    Error::new(ErrorKind::DeadlineExceeded, "the answer took longer than its timeout; raise timeout_s")
}

fn cancellation() -> Error {
    Error::new(ErrorKind::Cancelled, "the request was cancelled")
}

impl Answer {
    pub(crate) fn new(stream: EventStream, started: Instant, deadline: Option<Instant>) -> Self {
        let clock = Arc::new(Mutex::new(Clock { started, first: None, last: None }));
        let noting = Arc::clone(&clock);
        let stream = stream.inspect(move |event| note(&noting, event)).boxed();
        Self {
            stream: tokio::sync::Mutex::new(Some(stream)),
            cancelled: watch::Sender::new(false),
            told: AtomicBool::new(false),
            failure: Mutex::new(None),
            deadline,
            clock,
        }
    }

    /// Runs `work`; `cancel()` and the deadline end it.
    async fn guarded<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut cancelled = self.cancelled.subscribe();
        let deadline = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = cancelled.wait_for(|cancelled| *cancelled) => {
                Err(cancellation())
            }
            result = work => result,
            () = deadline => Err(too_late()),
        }
    }

    async fn next_event(&self) -> Result<Option<Event>> {
        let mut stream = self.stream.lock().await;
        let Some(open) = stream.as_mut() else {
            // Cancelled between two reads: what was read is not the whole answer, and the reader must know.
            let cancelled = *self.cancelled.borrow() && !self.told.swap(true, Ordering::Relaxed);
            return if cancelled { Err(cancellation()) } else { Ok(None) };
        };
        let next = self.guarded(async { open.next().await.transpose() }).await;
        if !matches!(next, Ok(Some(_))) {
            *stream = None;
            self.told.store(true, Ordering::Relaxed);
        }
        next
    }

    /// The next event and those that are there already; none at the end.
    async fn next_events(&self) -> Result<Vec<Event>> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(failure) = failure {
            return Err(failure);
        }
        let mut events: Vec<Event> = self.next_event().await?.into_iter().collect();
        while !events.is_empty() && events.len() < EVENTS_AT_ONCE {
            match self.next_event().now_or_never() {
                Some(Ok(Some(event))) => events.push(event),
                Some(Ok(None)) | None => break,
                Some(Err(failure)) => {
                    *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                    break;
                }
            }
        }
        Ok(events)
    }

    /// The end of the answer, all its events folded.
    pub(crate) async fn whole(&self) -> Result<ChatResponse> {
        let Some(open) = self.stream.lock().await.take() else {
            return Err(Error::new(ErrorKind::InvalidRequest, "this answer was read or cancelled already"));
        };
        self.told.store(true, Ordering::Relaxed);
        self.guarded(collect(open)).await
    }

    /// Milliseconds from the start to the first token, and to the last event.
    fn times<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (first, total) = self.clock.lock().unwrap_or_else(PoisonError::into_inner).milliseconds();
        let times = PyDict::new(py);
        times.set_item("first_token_ms", first)?;
        times.set_item("total_ms", total)?;
        Ok(times)
    }

    /// The Python form of the folded answer.
    pub(crate) fn show<'py>(&self, py: Python<'py>, response: &ChatResponse) -> PyResult<Bound<'py, PyAny>> {
        let shown = convert::serialized(py, response)?;
        shown.set_item("timing", self.times(py)?)?;
        Ok(shown)
    }
}

impl Call {
    pub(crate) fn new(process: Arc<Process>, answer: Answer) -> Self {
        Self { process, answer: Arc::new(answer) }
    }

    /// An answer cannot be read by a child of the process that asked for it.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        if self.process.is_current() {
            return Ok(());
        }
        let message = "this answer belongs to the process that this one was forked from; ask again here";
        Err(exception(py, &Error::new(ErrorKind::Unavailable, message)))
    }

    /// Waits for `work`. Ctrl-C and errors end the call.
    fn run<T: Send>(&self, py: Python<'_>, work: impl Future<Output = Result<T>> + Send) -> PyResult<T> {
        self.check(py)?;
        let result = self.process.run(py, work);
        if result.is_err() {
            self.stop();
        }
        result
    }

    /// Ends the work. In a forked child there is none to end, and touching it could wait forever.
    fn stop(&self) {
        if !self.process.is_current() {
            if let Ok(mut stream) = self.answer.stream.try_lock() {
                std::mem::forget(stream.take());
            }
            return;
        }
        self.answer.cancelled.send_replace(true);
        // Whoever reads at this moment holds the lock, sees the flag and drops the stream.
        if let Ok(mut stream) = self.answer.stream.try_lock() {
            let _entered = self.process.enter();
            drop(stream.take());
        }
    }
}

impl Clock {
    fn milliseconds(&self) -> (f64, f64) {
        let since = |moment: Option<Instant>| {
            moment.map_or(0.0, |moment| moment.duration_since(self.started).as_secs_f64() * 1000.0)
        };
        (since(self.first), since(self.last))
    }
}

fn note(clock: &Mutex<Clock>, event: &Result<Event>) {
    let mut clock = clock.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    clock.last = Some(now);
    if matches!(event, Ok(Event::Text { .. } | Event::Reasoning { .. } | Event::ToolCall { .. })) {
        clock.first.get_or_insert(now);
    }
}

#[pymethods]
impl Call {
    /// The whole answer: waits for its end and folds its events.
    fn result<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let response = self.run(py, self.answer.whole())?;
        self.answer.show(py, &response)
    }

    /// Stops the work, now. Harmless when the answer is complete.
    fn cancel(&self) {
        self.stop();
    }

    /// Milliseconds from the request to the first token and to the last event so far.
    fn timing<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.check(py)?;
        self.answer.times(py)
    }

    /// Delivers the next events as a list, which is empty at the end.
    fn events_later(&self, py: Python<'_>, mailbox: &Mailbox, ticket: u64) -> PyResult<()> {
        self.check(py)?;
        let answer = Arc::clone(&self.answer);
        mailbox.post(py, ticket, async move { answer.next_events().await }, |py, events| {
            let list = PyList::empty(py);
            for event in &events {
                list.append(convert::serialized(py, event)?)?;
            }
            Ok(list.into_any().unbind())
        })
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.run(py, self.answer.next_event())? {
            Some(event) => convert::serialized(py, &event).map(Some),
            None => Ok(None),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.stop();
    }
}
