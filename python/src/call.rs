//! `Call`: one answer in progress, as a whole (`result()`) or event by event (iteration).

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use byzerllm_core::{ChatResponse, Error, ErrorKind, Event, EventStream, Result, collect};
use futures::StreamExt;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::sync::watch;

use crate::convert;
use crate::error::exception;
use crate::process::Process;

/// An answer in progress. Dropping or cancelling it stops the work.
#[pyclass(frozen, module = "byzerllm._native")]
pub(crate) struct Call {
    process: Arc<Process>,
    stream: tokio::sync::Mutex<Option<EventStream>>,
    cancelled: watch::Sender<bool>,
    /// Whether the reader has been told the end, good or bad.
    told: AtomicBool,
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

impl Call {
    pub(crate) fn new(
        process: Arc<Process>,
        stream: EventStream,
        started: Instant,
        deadline: Option<Instant>,
    ) -> Self {
        let clock = Arc::new(Mutex::new(Clock { started, first: None, last: None }));
        let noting = Arc::clone(&clock);
        let stream = stream.inspect(move |event| note(&noting, event)).boxed();
        Self {
            process,
            stream: tokio::sync::Mutex::new(Some(stream)),
            cancelled: watch::Sender::new(false),
            told: AtomicBool::new(false),
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

    async fn whole(&self) -> Result<ChatResponse> {
        let Some(open) = self.stream.lock().await.take() else {
            return Err(Error::new(ErrorKind::InvalidRequest, "this answer was read or cancelled already"));
        };
        self.told.store(true, Ordering::Relaxed);
        self.guarded(collect(open)).await
    }

    /// Waits for `work`. Ctrl-C and errors end the call.
    fn run<T: Send>(&self, py: Python<'_>, work: impl Future<Output = Result<T>> + Send) -> PyResult<T> {
        if !self.process.is_current() {
            return Err(exception(
                py,
                &Error::new(
                    ErrorKind::Unavailable,
                    "this answer belongs to the process that this one was forked from; ask again here",
                ),
            ));
        }
        let result = self.process.run(py, work);
        if result.is_err() {
            self.stop();
        }
        result
    }

    /// Ends the work. In a forked child there is none to end, and touching it could wait forever.
    fn stop(&self) {
        if !self.process.is_current() {
            if let Ok(mut stream) = self.stream.try_lock() {
                std::mem::forget(stream.take());
            }
            return;
        }
        self.cancelled.send_replace(true);
        // Whoever reads at this moment holds the lock, sees the flag and drops the stream.
        if let Ok(mut stream) = self.stream.try_lock() {
            let _entered = self.process.enter();
            drop(stream.take());
        }
    }

    fn times<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (first, total) = self.clock.lock().unwrap_or_else(PoisonError::into_inner).milliseconds();
        let times = PyDict::new(py);
        times.set_item("first_token_ms", first)?;
        times.set_item("total_ms", total)?;
        Ok(times)
    }
}

impl Clock {
    /// From the start to the first token, and to the last event.
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
        let response = self.run(py, self.whole())?;
        let answer = convert::serialized(py, &response)?;
        answer.set_item("timing", self.times(py)?)?;
        Ok(answer)
    }

    /// Stops the work, now. Harmless when the answer is complete.
    fn cancel(&self) {
        self.stop();
    }

    /// Milliseconds from the request to the first token and to the last event so far.
    fn timing<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.times(py)
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.run(py, self.next_event())? {
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
