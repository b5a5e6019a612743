//! What callers, reservations and the writer share.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, mpsc};
use std::time::{SystemTime, UNIX_EPOCH};

use byzerllm_core::{Error, ErrorKind, Result};
use rusqlite::Connection;

use super::attempt::{Record, Source};
use super::database::Place;
use super::live::Budgets;
use super::price::Prices;
use super::writer::Inbox;

pub(crate) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// What callers, reservations and the writer share.
pub(crate) struct Shared {
    pub(crate) place: Place,
    pub(crate) inbox: Inbox,
    pub(crate) clock: Clock,
    pub(crate) next: AtomicI64,
    pub(crate) waiting: AtomicU64,
    pub(crate) closed: AtomicBool,
    pub(crate) failing: AtomicBool,
    pub(crate) failure: Mutex<Option<Error>>,
    pub(crate) prices: RwLock<Arc<Prices>>,
    pub(crate) budgets: RwLock<Arc<Budgets>>,
    pub(crate) reported: AtomicU64,
    pub(crate) counted: AtomicU64,
    pub(crate) estimated: AtomicU64,
    pub(crate) without_cost: AtomicU64,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn now_ms(&self) -> i64 {
        let since = (self.clock)().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    pub(crate) fn now(&self) -> i64 {
        self.now_ms() / 1000
    }

    pub(crate) fn next_id(&self) -> i64 {
        self.next.load(Ordering::SeqCst)
    }

    pub(crate) fn prices(&self) -> Arc<Prices> {
        Arc::clone(&self.prices.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn budgets(&self) -> Arc<Budgets> {
        Arc::clone(&self.budgets.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::SeqCst)
    }

    /// Records cannot be written.
    pub(crate) fn failed(&self, error: &Error) {
        let mut failure = lock(&self.failure);
        if failure.is_none() {
            tracing::error!(%error, "attempts are refused until the ledger can be written");
        }
        *failure = Some(error.duplicate());
        self.failing.store(true, Ordering::SeqCst);
    }

    /// They can, again.
    pub(crate) fn mended(&self) {
        if self.is_failing() {
            *lock(&self.failure) = None;
            self.failing.store(false, Ordering::SeqCst);
            tracing::info!("the ledger is written again");
        }
    }

    pub(crate) fn recorded(&self, records: &[Record]) {
        for record in records {
            let counter = match record.outcome.source {
                Source::Reported => &self.reported,
                Source::Counted => &self.counted,
                Source::Estimated => &self.estimated,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            if record.outcome.cost.is_none() {
                self.without_cost.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.waiting.fetch_sub(records.len() as u64, Ordering::SeqCst);
    }

    /// Whether attempts are accounted for at present.
    pub(crate) fn check(&self) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        if self.is_failing() {
            let failure = lock(&self.failure);
            return Err(failure.as_ref().map_or_else(closed, Error::duplicate));
        }
        Ok(())
    }

    /// Has the writer work on the database, and waits for it.
    pub(crate) fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        let (send, receive) = mpsc::channel();
        let place = self.place.clone();
        self.inbox.work(Box::new(move |connection| {
            let done =
                connection.and_then(|connection| work(connection).map_err(|error| place.error(error).into()));
            // Nobody waits any more for what was done all the same.
            let _gone = send.send(done);
        }));
        receive.recv().map_err(|_| closed())?
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the server is shutting down")
}
