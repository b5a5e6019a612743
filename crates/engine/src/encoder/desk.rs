//! What callers and the encoder's thread share: the queue, its numbers, and whether the thread lives.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use byzerllm_core::{Error, Result};
use tokio::sync::{oneshot, watch};

use super::options::EncoderOptions;
use super::queue::{Queue, Reply, Sequence};
use crate::error::EngineError;
use crate::intake::Life;
use crate::metrics::{EngineMetrics, Gauges, add};

pub(super) struct Desk {
    name: String,
    pub(super) width: usize,
    options: EncoderOptions,
    state: Mutex<State>,
    wake: Condvar,
    pub(super) gauges: Gauges,
    pub(super) life: watch::Sender<Life>,
    /// Whether the thread is gone and the network's memory with it.
    pub(super) gone: watch::Sender<bool>,
    /// When the last step ended.
    pub(super) progress: watch::Sender<Option<Instant>>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) queue: Queue,
    pub(super) stop: bool,
}

impl Desk {
    pub(super) fn new(name: String, width: usize, options: EncoderOptions) -> Self {
        Self {
            name,
            width,
            options,
            state: Mutex::default(),
            wake: Condvar::new(),
            gauges: Gauges::default(),
            life: watch::Sender::new(Life::Running),
            gone: watch::Sender::new(false),
            progress: watch::Sender::new(None),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn options(&self) -> &EncoderOptions {
        &self.options
    }

    /// Refuses new work when the thread has ended.
    pub(super) fn alive(&self) -> Result<()> {
        match *self.life.borrow() {
            Life::Running => Ok(()),
            Life::Stopped | Life::Failed => Err(self.ending()),
        }
    }

    /// Why nothing comes any more.
    pub(super) fn ending(&self) -> Error {
        match *self.life.borrow() {
            Life::Failed => Error::internal(format!(
                "the engine of model {} stopped unexpectedly; deploy it again and please report this",
                self.name
            )),
            Life::Running | Life::Stopped => EngineError::Stopped { name: self.name.clone() }.into(),
        }
    }

    /// Puts a request into the queue.
    pub(super) fn submit(
        self: &Arc<Self>,
        sequences: Vec<Sequence>,
        deadline: Option<Instant>,
    ) -> Result<Ticket> {
        self.alive()?;
        let tokens: usize = sequences.iter().map(|sequence| sequence.ids.len()).sum();
        let (reply, answer) = oneshot::channel();
        let mut state = self.lock();
        if state.stop {
            return Err(self.ending());
        }
        let waiting = state.queue.len();
        let full = waiting >= self.options.queue_limit.max(1)
            || state.queue.tokens().saturating_add(tokens) > self.options.queue_tokens;
        if waiting > 0 && full {
            return Err(EngineError::QueueFull { waiting }.into());
        }
        let serial = state.queue.push(sequences, self.width, deadline, reply);
        self.gauges.waiting.store(state.queue.untouched(), Ordering::Relaxed);
        drop(state);
        self.wake.notify_one();
        add(&self.gauges.requests, 1);
        add(&self.gauges.prompt_tokens, tokens);
        Ok(Ticket { desk: Arc::clone(self), serial, answer: Some(answer) })
    }

    /// Waits until there is work or the thread is to end.
    pub(super) fn wait(&self) -> MutexGuard<'_, State> {
        let idle = |state: &mut State| !state.stop && !state.queue.has_work();
        self.wake.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_one();
    }

    /// Fails what is left, and whatever comes.
    pub(super) fn close(&self) {
        let ending = self.ending();
        let mut state = self.lock();
        state.stop = true;
        state.queue.fail_all(&ending);
    }

    pub(super) fn is_busy(&self) -> bool {
        self.lock().queue.len() > 0
    }

    pub(super) fn metrics(&self) -> EngineMetrics {
        let waiting = self.lock().queue.untouched();
        EngineMetrics { waiting, ..self.gauges.snapshot() }
    }
}

/// A request in the queue. Dropping it takes back what is left.
pub(super) struct Ticket {
    desk: Arc<Desk>,
    serial: u64,
    answer: Option<oneshot::Receiver<Reply>>,
}

impl Ticket {
    /// The rows, one after another.
    pub(super) async fn rows(mut self, deadline: Option<Instant>) -> Result<Vec<f32>> {
        let Some(answer) = &mut self.answer else { return Err(self.desk.ending()) };
        let outcome = match deadline {
            None => answer.await,
            Some(deadline) => match tokio::time::timeout_at(deadline.into(), answer).await {
                Ok(outcome) => outcome,
                // Dropping the ticket takes the request back.
                Err(_) => return Err(EngineError::Late.into()),
            },
        };
        self.answer = None;
        outcome.unwrap_or_else(|_| Err(self.desk.ending()))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.answer.is_some() {
            self.desk.lock().queue.cancel(self.serial);
        }
    }
}
