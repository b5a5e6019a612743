//! `Mailbox`: where an event loop receives what the executor has finished.
//!
//! Work runs as tasks of the executor and never waits for the GIL: an outcome is put into the mailbox, a byte on its
//! socket wakes the event loop, and the loop's own thread turns outcomes into Python objects (`drain`). So no thread
//! waits per call, and no thread of ours touches an interpreter that is shutting down.

use std::collections::HashMap;
use std::future::Future;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use byzerllm_core::{Error, ErrorKind, Result};
use futures::FutureExt;
use pyo3::prelude::*;
use tokio::task::AbortHandle;

use crate::error::exception;
use crate::process::Process;

/// An outcome that becomes a Python object in the event loop's thread.
type Letter = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// What an event loop is told: the ticket, and either a value or an exception.
type Delivered = (u64, Option<Py<PyAny>>, Option<Py<PyAny>>);

/// The outcomes for one event loop.
#[pyclass(frozen, module = "byzerllm._native")]
pub(crate) struct Mailbox {
    process: Arc<Process>,
    reader: UnixStream,
    shared: Arc<Shared>,
}

struct Shared {
    writer: UnixStream,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    letters: Vec<(u64, Letter)>,
    running: HashMap<u64, AbortHandle>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, ticket: u64, letter: Letter) {
        let first = {
            let mut state = self.state();
            if state.running.remove(&ticket).is_none() {
                return; // abandoned in this moment
            }
            state.letters.push((ticket, letter));
            state.letters.len() == 1
        };
        if first {
            // The socket is full only when it holds a byte that wakes the loop anyway.
            let _ = (&self.writer).write(&[0]);
        }
    }
}

impl Mailbox {
    /// Runs `work` on the executor; `show` makes its value a Python object when the event loop asks.
    pub(crate) fn post<T: Send + 'static>(
        &self,
        py: Python<'_>,
        ticket: u64,
        work: impl Future<Output = Result<T>> + Send + 'static,
        show: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> PyResult<()> {
        if !self.process.is_current() {
            return Err(Process::forked_loop(py));
        }
        let shared = Arc::clone(&self.shared);
        // Registered under the lock that the delivery takes, so that it cannot come first.
        let mut state = self.shared.state();
        let task = self.process.spawn(async move {
            let outcome = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Internal, "a task of the executor ended without a result"))
            });
            let letter: Letter = Box::new(move |py| match outcome {
                Ok(value) => show(py, value),
                Err(error) => Err(exception(py, &error)),
            });
            shared.deliver(ticket, letter);
        });
        state.running.insert(ticket, task);
        Ok(())
    }
}

#[pymethods]
impl Mailbox {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        let process = Process::current(py)?;
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let shared = Arc::new(Shared { writer, state: Mutex::default() });
        Ok(Self { process, reader, shared })
    }

    /// The descriptor that is readable when something waits.
    fn fileno(&self) -> i32 {
        self.reader.as_raw_fd()
    }

    /// Everything that is finished: tickets with a value or an exception.
    fn drain(&self, py: Python<'_>) -> PyResult<Vec<Delivered>> {
        if !self.process.is_current() {
            return Err(Process::forked_loop(py));
        }
        let mut bytes = [0; 64];
        while matches!((&self.reader).read(&mut bytes), Ok(count) if count == bytes.len()) {}
        let letters = std::mem::take(&mut self.shared.state().letters);
        let open = |(ticket, letter): (u64, Letter)| match letter(py) {
            Ok(value) => (ticket, Some(value), None),
            Err(error) => (ticket, None, Some(error.into_value(py).into_any())),
        };
        Ok(letters.into_iter().map(open).collect())
    }

    /// Ends the work of a ticket, or throws its outcome away.
    fn abandon(&self, ticket: u64) {
        if !self.process.is_current() {
            return;
        }
        let (task, letter) = {
            let mut state = self.shared.state();
            let place = state.letters.iter().position(|(number, _)| *number == ticket);
            (state.running.remove(&ticket), place.map(|place| state.letters.swap_remove(place)))
        };
        if let Some(task) = task {
            task.abort();
        }
        let _entered = self.process.enter();
        drop(letter);
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        // A forked child must not wait for a lock that a thread held at the moment of the fork.
        if !self.process.is_current() {
            std::mem::forget(Arc::clone(&self.shared));
            return;
        }
        let State { letters, running } = std::mem::take(&mut *self.shared.state());
        for task in running.into_values() {
            task.abort();
        }
        let _entered = self.process.enter();
        drop(letters);
    }
}
