//! The border between callers and the engine's thread: submissions and cancels go in, updates come out.
//!
//! Callers hold a [`Ticket`] per request; dropping it cancels the request. Updates of one request are bounded by its
//! choices and `max_tokens`, so their channel needs no limit of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll};
use std::time::Instant;

use byzerllm_core::{Domain, Error, FinishReason, Result};
use byzerllm_model::{Adapter, AdapterId};
use tokio::sync::{mpsc as updates, oneshot, watch};

use crate::adapters::Lease;
use crate::adjust::Adjustments;
use crate::constraint::Constraint;
use crate::error::EngineError;
use crate::metrics::{Gauges, add};
use crate::sampler::{RawLogprob, SamplerSettings};

/// A validated request of ids.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) prompt: Vec<u32>,
    pub(crate) choices: u32,
    pub(crate) settings: SamplerSettings,
    pub(crate) adjustments: Adjustments,
    /// One for every choice, or none at all.
    pub(crate) constraints: Vec<Constraint>,
    /// Tokens to generate at most.
    pub(crate) max_tokens: u32,
    /// Tokens that end a choice and are not text, sorted.
    pub(crate) end_tokens: Vec<u32>,
    /// The model's own end tokens when they do not end a choice.
    pub(crate) ignored_end: Vec<u32>,
    pub(crate) logprobs: Option<u32>,
    pub(crate) prompt_logprobs: Option<u32>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) domain: Domain,
    /// The adapter that it uses.
    pub(crate) adapter: Option<Lease>,
}

/// What the engine tells of a request.
#[derive(Debug)]
pub(crate) enum Update {
    /// The prompt is computed. Log probabilities of all its tokens but the first.
    Prompt { cached: u32, logprobs: Vec<RawLogprob> },
    /// A choice's next token.
    Token { choice: u32, id: u32, logprob: Option<RawLogprob> },
    /// A choice is over; `end_token` when a generated token without text ended it, with its log probability.
    Finished { choice: u32, reason: FinishReason, end_token: bool, logprob: Option<f32> },
    /// The whole request failed.
    Failed(Error),
}

/// What callers send to the engine's thread.
#[derive(Debug)]
pub(crate) enum Command {
    Submit { serial: u64, submission: Box<Submission>, updates: updates::UnboundedSender<Update> },
    Cancel { serial: u64, choice: Option<u32> },
    LoadAdapter { adapter: Box<Adapter>, reply: mpsc::SyncSender<Result<AdapterId>> },
    UnloadAdapter { id: AdapterId, reply: oneshot::Sender<()> },
    Stop,
}

/// Whether the engine's thread lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    /// It was told to stop.
    Stopped,
    /// It panicked.
    Failed,
}

/// Requests that wait for their first step, and the choices of all requests.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) queued: AtomicUsize,
    pub(crate) choices: AtomicUsize,
}

struct Sender {
    commands: mpsc::Sender<Command>,
    next_serial: u64,
}

/// What callers and the engine's thread share.
pub(crate) struct Shared {
    name: String,
    sender: Mutex<Sender>,
    queue_limit: usize,
    max_sequences: usize,
    pub(crate) load: Load,
    pub(crate) gauges: Gauges,
    pub(crate) life: watch::Sender<Life>,
    /// Whether the thread is gone and the network's memory with it.
    pub(crate) gone: watch::Sender<bool>,
    /// Counts steps; when it last changed tells whether the engine makes progress.
    pub(crate) progress: watch::Sender<Option<Instant>>,
}

impl Shared {
    pub(crate) fn new(
        name: String,
        commands: mpsc::Sender<Command>,
        queue_limit: usize,
        max_sequences: usize,
    ) -> Self {
        Self {
            name,
            sender: Mutex::new(Sender { commands, next_serial: 0 }),
            queue_limit,
            max_sequences,
            load: Load::default(),
            gauges: Gauges::default(),
            life: watch::Sender::new(Life::Running),
            gone: watch::Sender::new(false),
            progress: watch::Sender::new(None),
        }
    }

    fn sender(&self) -> MutexGuard<'_, Sender> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why there are no more updates.
    pub(crate) fn ending(&self) -> Error {
        match *self.life.borrow() {
            Life::Failed => Error::internal(format!(
                "the engine of model {} stopped unexpectedly; deploy it again and please report this",
                self.name
            )),
            Life::Running | Life::Stopped => EngineError::Stopped { name: self.name.clone() }.into(),
        }
    }

    /// Refuses new work when the engine's thread has ended.
    pub(crate) fn alive(&self) -> Result<(), EngineError> {
        if *self.life.borrow() == Life::Running {
            Ok(())
        } else {
            Err(EngineError::Stopped { name: self.name.clone() })
        }
    }

    /// Hands a request to the engine. A request that could run at once is never refused, whatever the queue's limit.
    pub(crate) fn submit(self: &Arc<Self>, submission: Submission) -> Result<Ticket, EngineError> {
        self.alive()?;
        let choices = submission.choices as usize;
        let mut sender = self.sender();
        let waiting = self.load.queued.load(Ordering::Relaxed);
        if waiting >= self.queue_limit
            && self.load.choices.load(Ordering::Relaxed) + choices > self.max_sequences
        {
            return Err(EngineError::QueueFull { waiting });
        }
        let serial = sender.next_serial;
        sender.next_serial += 1;
        let (updates_in, updates_out) = updates::unbounded_channel();
        self.load.queued.fetch_add(1, Ordering::Relaxed);
        self.load.choices.fetch_add(choices, Ordering::Relaxed);
        let command = Command::Submit { serial, submission: Box::new(submission), updates: updates_in };
        if sender.commands.send(command).is_err() {
            return Err(EngineError::Stopped { name: self.name.clone() });
        }
        add(&self.gauges.requests, 1);
        Ok(Ticket { shared: self.clone(), serial, updates: updates_out, over: false })
    }

    /// Sends the engine's thread a command that is no request.
    pub(crate) fn command(&self, command: Command) -> Result<(), EngineError> {
        self.alive()?;
        let sent = self.sender().commands.send(command);
        sent.map_err(|_| EngineError::Stopped { name: self.name.clone() })
    }

    /// Requests that have not had their first step.
    pub(crate) fn queued(&self) -> usize {
        self.load.queued.load(Ordering::Relaxed)
    }

    /// Whether any request is in the engine.
    pub(crate) fn is_busy(&self) -> bool {
        self.load.choices.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn stop(&self) {
        // An engine that has ended already needs no telling.
        let _ = self.sender().commands.send(Command::Stop);
    }
}

/// A request in the engine. Dropping it cancels what is left.
pub(crate) struct Ticket {
    shared: Arc<Shared>,
    serial: u64,
    updates: updates::UnboundedReceiver<Update>,
    over: bool,
}

impl Ticket {
    /// The next update. [`Update::Failed`] when the engine's thread has ended.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Update> {
        self.updates.poll_recv(context).map(|update| self.seen(update))
    }

    /// An update that is there already.
    pub(crate) fn ready(&mut self) -> Option<Update> {
        self.updates.try_recv().ok()
    }

    fn seen(&mut self, update: Option<Update>) -> Update {
        let update = update.unwrap_or_else(|| Update::Failed(self.shared.ending()));
        self.over |= matches!(update, Update::Failed(_));
        update
    }

    /// Every choice has finished: there is nothing to cancel.
    pub(crate) fn complete(&mut self) {
        self.over = true;
    }

    pub(crate) fn cancel_choice(&self, choice: u32) {
        let _ =
            self.shared.sender().commands.send(Command::Cancel { serial: self.serial, choice: Some(choice) });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.over {
            let _ = self.shared.sender().commands.send(Command::Cancel { serial: self.serial, choice: None });
        }
    }
}
