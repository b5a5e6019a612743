//! What one operating-system process shares: an executor and, when nothing else serves, one embedded engine.
//!
//! A fork copies memory but not threads. Everything here belongs to the process whose id it carries; a child makes its
//! own and leaks what it inherited, because releasing it could wait for a thread that does not exist.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use byzerllm_core::{Error, ErrorKind};
use byzerllm_runtime::{Runtime, RuntimeOptions};
use pyo3::prelude::*;
use tokio::sync::OnceCell;
use tokio::task::AbortHandle;

use crate::error::exception;

/// How long Ctrl-C may go unnoticed.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// Requests are I/O and text; the engine has threads of its own.
const WORKERS: usize = 2;

/// The one global. It is locked only while the GIL is held, hence never at the moment of a fork by Python code; and
/// nothing that could release the GIL happens under the lock.
static CURRENT: Mutex<Option<Arc<Process>>> = Mutex::new(None);

/// What this process shares.
pub(crate) struct Process {
    id: u32,
    tokio: tokio::runtime::Runtime,
    embedded: OnceCell<Runtime>,
}

impl Process {
    /// The state of the current process, made at the first call and after a fork.
    pub(crate) fn current(py: Python<'_>) -> PyResult<Arc<Self>> {
        Self::current_or_new().map_err(|problem| {
            let message = format!("could not start threads: {problem}; raise the limit on processes");
            exception(py, &Error::new(ErrorKind::Unavailable, message))
        })
    }

    fn current_or_new() -> std::io::Result<Arc<Self>> {
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = current.as_ref().filter(|process| process.is_current()) {
            return Ok(Arc::clone(process));
        }
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("byzerllm-python")
            .enable_all()
            .build()?;
        let process = Arc::new(Self { id: std::process::id(), tokio, embedded: OnceCell::new() });
        if let Some(inherited) = current.replace(Arc::clone(&process)) {
            std::mem::forget(inherited);
        }
        Ok(process)
    }

    /// Whether this belongs to the running process rather than to the one it was forked from.
    pub(crate) fn is_current(&self) -> bool {
        self.id == std::process::id()
    }

    /// The error for something that a fork left behind.
    pub(crate) fn forked(py: Python<'_>) -> PyErr {
        exception(
            py,
            &Error::new(
                ErrorKind::Unavailable,
                "this process was forked from one that runs an engine, and the engine did not come along; start \
                 processes with multiprocessing's \"spawn\" method, or run `byzerllm serve` and let all of them use it",
            ),
        )
    }

    /// The error for an event loop that a fork left behind.
    pub(crate) fn forked_loop(py: Python<'_>) -> PyErr {
        let message = "this event loop belongs to the process that this one was forked from; start one here";
        exception(py, &Error::new(ErrorKind::Unavailable, message))
    }

    /// Starts work that nobody waits for in a thread.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.tokio.spawn(work).abort_handle()
    }

    /// The process-wide engine, started at the first call.
    pub(crate) async fn embedded(&self) -> byzerllm_core::Result<Runtime> {
        let open = || Runtime::open(RuntimeOptions::default());
        self.embedded.get_or_try_init(open).await.cloned()
    }

    /// Enters the executor, so that what is dropped can still use it.
    pub(crate) fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.tokio.enter()
    }

    /// Waits for `work` without the GIL. A signal's exception (Ctrl-C) drops the work and is returned.
    pub(crate) fn wait<T: Send>(&self, py: Python<'_>, work: impl Future<Output = T> + Send) -> PyResult<T> {
        let _entered = self.tokio.enter();
        let mut work = Box::pin(work);
        loop {
            let turn = py.detach(|| {
                self.tokio.block_on(async { tokio::time::timeout(SIGNAL_INTERVAL, work.as_mut()).await })
            });
            if let Ok(value) = turn {
                return Ok(value);
            }
            py.check_signals()?;
        }
    }

    /// [`Process::wait`] for work that can fail: its error becomes an exception.
    pub(crate) fn run<T: Send>(
        &self,
        py: Python<'_>,
        work: impl Future<Output = byzerllm_core::Result<T>> + Send,
    ) -> PyResult<T> {
        self.wait(py, work)?.map_err(|error| exception(py, &error))
    }
}
