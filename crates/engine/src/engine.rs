//! The engine's thread: receive, plan, compute, sample, commit, tell.
//!
//! It owns the network, the scheduler and every request in work. Nothing here touches text. A request that fails or is
//! cancelled gives its blocks back before the next step.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use byzerllm_core::{Error, ErrorDetail, ErrorKind, FinishReason};
use byzerllm_model::stages::{self, Stage, StepKind, stage};
use byzerllm_model::{Mask, Network, Output, PackedBatch, PromptContext, Rows, SequenceInput};
use tokio::sync::mpsc as updates;

use crate::adapters::{Lease, Slots};
use crate::adjust::{Adjustments, Counts, forbid};
use crate::constraint::Constraint;
use crate::error::EngineError;
use crate::intake::{Command, Life, Shared, Submission, Update};
use crate::metrics::add;
use crate::pace::Pace;
use crate::sampler::{NoToken, RawLogprob, Sampler, SamplerSettings};
use crate::scheduler::{Plan, Scheduler, Work};
use crate::sequence::{NewSequence, SequenceId};

/// A request in work.
struct Request {
    updates: updates::UnboundedSender<Update>,
    settings: SamplerSettings,
    adjustments: Adjustments,
    /// What each choice has generated as far as sampling depends on it. Preemption leaves it alone: tokens that were
    /// drawn stay drawn.
    states: Vec<ChoiceState>,
    max_tokens: usize,
    end_tokens: Vec<u32>,
    ignored_end: Vec<u32>,
    logprobs: Option<u32>,
    prompt_logprobs: Option<u32>,
    deadline: Option<Instant>,
    choices: u32,
    adapter: Option<Lease>,
    /// The sequences of the choices that have not finished. One until the prompt is computed.
    live: Vec<(u32, SequenceId)>,
    /// Whether it has left the queue.
    admitted: bool,
    prompt_rows: Vec<RawLogprob>,
    /// What of the prompt is read in both directions, by networks that do so. It holds for all choices and after
    /// preemptions.
    context: Option<PromptContext>,
}

/// What a choice's next token depends on beside the logits.
#[derive(Debug, Default)]
struct ChoiceState {
    counts: Counts,
    constraint: Option<Constraint>,
}

impl Request {
    fn tell(&self, update: Update) {
        // A receiver that is gone has sent a cancel, or will.
        let _ = self.updates.send(update);
    }
}

/// All that the engine's thread owns.
pub(crate) struct Engine {
    network: Box<dyn Network>,
    scheduler: Scheduler,
    requests: HashMap<u64, Request>,
    commands: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    sampler: Sampler,
    plan: Plan,
    batch: Batch,
    pace: Pace,
    position_width: usize,
    adapters: Slots,
}

/// The arrays of a step, kept to save allocations.
#[derive(Default)]
struct Batch {
    ids: Vec<u32>,
    positions: Vec<u32>,
    rows: Vec<u32>,
}

impl Engine {
    pub(crate) fn new(
        network: Box<dyn Network>,
        scheduler: Scheduler,
        commands: mpsc::Receiver<Command>,
        shared: Arc<Shared>,
    ) -> Self {
        let position_width = network.traits().position_width;
        shared.gauges.set_occupancy(scheduler.occupancy());
        Self {
            network,
            scheduler,
            requests: HashMap::new(),
            commands,
            shared,
            sampler: Sampler::default(),
            plan: Plan::default(),
            batch: Batch::default(),
            pace: Pace::default(),
            position_width,
            adapters: Slots::default(),
        }
    }

    /// Works until it is told to stop. A panic ends all requests and marks the engine as failed.
    pub(crate) fn run(mut self) {
        let ended = catch_unwind(AssertUnwindSafe(|| while self.turn() {}));
        let error: Error = match ended {
            Ok(()) => {
                self.shared.life.send_replace(Life::Stopped);
                Error::new(ErrorKind::Unavailable, "the model was stopped while it answered; try again later")
            }
            Err(_) => {
                tracing::error!("the engine's thread panicked");
                self.shared.life.send_replace(Life::Failed);
                Error::internal("the engine stopped unexpectedly; please report this")
            }
        };
        for request in self.requests.values() {
            request.tell(Update::Failed(error.duplicate()));
        }
    }

    /// One turn: all commands that are there, then one step. False when told to stop.
    fn turn(&mut self) -> bool {
        if self.scheduler.is_idle() {
            self.shared.gauges.set_occupancy(self.scheduler.occupancy());
            let Ok(command) = self.commands.recv() else { return false };
            if !self.obey(command) {
                return false;
            }
        }
        loop {
            let go_on = match self.commands.try_recv() {
                Ok(command) => self.obey(command),
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => false,
            };
            if !go_on {
                return false;
            }
        }
        self.end_late_requests();
        if !self.scheduler.is_idle() {
            self.step();
        }
        self.shared.gauges.set_occupancy(self.scheduler.occupancy());
        true
    }

    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Submit { serial, submission, updates } => self.accept(serial, *submission, updates),
            Command::Cancel { serial, choice: None } => self.end_request(serial, None),
            Command::Cancel { serial, choice: Some(choice) } => self.cancel_choice(serial, choice),
            Command::LoadAdapter { adapter, reply } => {
                self.adapters.load(&mut *self.network, *adapter, &reply);
            }
            Command::UnloadAdapter { id, reply } => self.adapters.unload(&mut *self.network, id, reply),
            Command::Stop => return false,
        }
        true
    }

    fn accept(&mut self, serial: u64, submission: Submission, updates: updates::UnboundedSender<Update>) {
        if submission.adapter.as_ref().is_some_and(|lease| !self.adapters.enter(lease.slot)) {
            // Its name was taken away between the look and this turn.
            let _ = updates.send(Update::Failed(EngineError::AdapterGone.into()));
            self.shared.load.choices.fetch_sub(submission.choices as usize, Ordering::Relaxed);
            self.shared.load.queued.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        // Slots are never used again, so that a slot says all about what the blocks were computed with.
        let adapter = submission.adapter.as_ref().map(|lease| (lease.slot, 0));
        let context = self.network.prompt_context(&submission.prompt);
        let new = NewSequence {
            request: serial,
            root: self.scheduler.keys().root(submission.domain, adapter),
            choices: submission.choices,
            prompt_rows: submission.prompt_logprobs.is_some(),
            sample: submission.max_tokens > 0,
            prompt: submission.prompt,
        };
        let id = self.scheduler.add(new);
        let mut constraints = submission.constraints.into_iter();
        let states = (0..submission.choices)
            .map(|_| ChoiceState { counts: Counts::new(), constraint: constraints.next() })
            .collect();
        let request = Request {
            updates,
            settings: submission.settings,
            adjustments: submission.adjustments,
            states,
            max_tokens: submission.max_tokens as usize,
            end_tokens: submission.end_tokens,
            ignored_end: submission.ignored_end,
            logprobs: submission.logprobs,
            prompt_logprobs: submission.prompt_logprobs,
            deadline: submission.deadline,
            choices: submission.choices,
            adapter: submission.adapter,
            live: vec![(0, id)],
            admitted: false,
            prompt_rows: Vec::new(),
            context,
        };
        self.requests.insert(serial, request);
    }

    fn end_late_requests(&mut self) {
        if self.requests.values().all(|request| request.deadline.is_none()) {
            return;
        }
        let now = Instant::now();
        let late: Vec<u64> = self
            .requests
            .iter()
            .filter(|(_, request)| request.deadline.is_some_and(|deadline| now >= deadline))
            .map(|(&serial, _)| serial)
            .collect();
        for serial in late {
            self.end_request(serial, Some(EngineError::Late.into()));
        }
    }

    /// Ends all choices of a request at once.
    fn end_request(&mut self, serial: u64, error: Option<Error>) {
        let Some(request) = self.requests.remove(&serial) else { return };
        for &(_, id) in &request.live {
            self.scheduler.remove(id);
        }
        if let Some(error) = error {
            request.tell(Update::Failed(error));
        }
        self.account_for_end(&request);
    }

    fn account_for_end(&mut self, request: &Request) {
        if let Some(lease) = &request.adapter {
            self.adapters.leave(&mut *self.network, lease.slot);
        }
        self.shared.load.choices.fetch_sub(request.choices as usize, Ordering::Relaxed);
        if !request.admitted {
            self.shared.load.queued.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A stop string ended the choice, or its reader lost interest.
    fn cancel_choice(&mut self, serial: u64, choice: u32) {
        let Some(request) = self.requests.get_mut(&serial) else { return };
        // It may have finished in the meantime.
        let Some(place) = request.live.iter().position(|&(other, _)| other == choice) else { return };
        let (_, id) = request.live.swap_remove(place);
        self.scheduler.remove(id);
        if request.live.is_empty() {
            self.end_request(serial, None);
        }
    }

    fn step(&mut self) {
        stages::begin_step();
        let mut plan = std::mem::take(&mut self.plan);
        self.scheduler.set_prompt_budgets(self.pace.budgets());
        self.scheduler.plan(&mut plan);
        add(&self.shared.gauges.preemptions, plan.preempted);
        self.shared.gauges.set_occupancy(self.scheduler.occupancy());
        if plan.work.is_empty() {
            // The limits were checked when the requests were accepted, so this is a bug; do not spin on it.
            let serials: Vec<u64> = self.requests.keys().copied().collect();
            for serial in serials {
                self.end_request(
                    serial,
                    Some(Error::internal("the scheduler found nothing to do; please report this")),
                );
            }
        } else {
            self.note_admissions(&plan);
            self.compute(&plan);
        }
        let prompts = plan.work.iter().any(|work| work.count > 1);
        stages::end_step(if prompts { StepKind::Prompt } else { StepKind::Decode });
        self.plan = plan;
    }

    /// Requests that are planned for the first time leave the queue.
    fn note_admissions(&mut self, plan: &Plan) {
        for work in &plan.work {
            let sequence = self.scheduler.sequence(work.sequence);
            let Some(request) = self.requests.get_mut(&sequence.order.request) else { continue };
            if !request.admitted {
                request.admitted = true;
                self.shared.load.queued.fetch_sub(1, Ordering::Relaxed);
                add(&self.shared.gauges.prompt_tokens, sequence.prompt);
                add(&self.shared.gauges.prefix_hit_tokens, sequence.cached.unwrap_or(0));
            }
        }
    }

    fn compute(&mut self, plan: &Plan) {
        for copy in &plan.copies {
            self.network.copy_block(copy.group, copy.from, copy.to);
        }
        self.batch.fill(&self.scheduler, &self.requests, plan, self.position_width);
        let tables: Vec<&[u32]> = plan
            .work
            .iter()
            .flat_map(|work| self.scheduler.sequence(work.sequence).tables.iter().map(Vec::as_slice))
            .collect();
        let groups = tables.len() / plan.work.len();
        let mut start = 0;
        let mut sequences = Vec::with_capacity(plan.work.len());
        for (place, work) in plan.work.iter().enumerate() {
            let sequence = self.scheduler.sequence(work.sequence);
            let request = self.requests.get(&sequence.order.request);
            sequences.push(SequenceInput {
                start,
                count: work.count,
                past: sequence.computed,
                block_tables: &tables[place * groups..(place + 1) * groups],
                mask: request
                    .and_then(|request| request.context)
                    .map_or(Mask::Causal, |context| context.mask()),
                adapter: request.and_then(|request| request.adapter.as_ref()).map(|lease| lease.slot),
                cross_cache: None,
            });
            start += work.count;
        }
        let batch = PackedBatch {
            ids: &self.batch.ids,
            embeddings: None,
            positions: &self.batch.positions,
            sequences: &sequences,
            rows: &self.batch.rows,
            output: Output::Logits,
        };
        add(&self.shared.gauges.computed_tokens, start);
        let before = Instant::now();
        match self.network.forward(&batch) {
            Ok(rows) => {
                self.pace.observe(start, before.elapsed());
                stage(Stage::Sampling);
                let mut outcome = Outcome {
                    scheduler: &mut self.scheduler,
                    requests: &mut self.requests,
                    sampler: &mut self.sampler,
                    generated: 0,
                    over: Vec::new(),
                };
                outcome.take(plan, rows);
                let (generated, over) = (outcome.generated, outcome.over);
                add(&self.shared.gauges.generated_tokens, generated);
                add(&self.shared.gauges.steps, 1);
                for (serial, error) in over {
                    self.end_request(serial, error);
                }
                self.shared.progress.send_replace(Some(Instant::now()));
            }
            Err(error) => {
                tracing::error!(%error, source = ?std::error::Error::source(&error), "a step of the network failed");
                let mut serials: Vec<u64> = plan
                    .work
                    .iter()
                    .map(|work| self.scheduler.sequence(work.sequence).order.request)
                    .collect();
                serials.dedup();
                for serial in serials {
                    self.end_request(serial, Some(error.duplicate()));
                }
            }
        }
    }
}

impl Batch {
    fn fill(
        &mut self,
        scheduler: &Scheduler,
        requests: &HashMap<u64, Request>,
        plan: &Plan,
        position_width: usize,
    ) {
        self.ids.clear();
        self.positions.clear();
        self.rows.clear();
        for work in &plan.work {
            let sequence = scheduler.sequence(work.sequence);
            let places = sequence.computed..sequence.computed + work.count;
            let start = self.ids.len();
            self.rows.extend(work.rows.clone().map(|place| (start + place - places.start) as u32));
            self.ids.extend_from_slice(&sequence.tokens[places.clone()]);
            let context = requests.get(&sequence.order.request).and_then(|request| request.context);
            for place in places {
                let [first, second] = context.map_or([place as u32, 0], |context| context.position(place));
                self.positions.push(first);
                self.positions.extend(std::iter::repeat_n(second, position_width - 1));
            }
        }
    }
}

/// Turns the rows of a step into tokens and tells the requests.
struct Outcome<'a> {
    scheduler: &'a mut Scheduler,
    requests: &'a mut HashMap<u64, Request>,
    sampler: &'a mut Sampler,
    generated: usize,
    /// Requests to forget after the step, with the error that ended them.
    over: Vec<(u64, Option<Error>)>,
}

impl Outcome<'_> {
    fn take(&mut self, plan: &Plan, rows: Rows<'_>) {
        let mut first = 0;
        for work in &plan.work {
            self.scheduler.commit(work);
            self.take_work(work, rows, first);
            first += work.rows.len();
        }
    }

    fn take_work(&mut self, work: &Work, rows: Rows<'_>, first: usize) {
        let sequence = self.scheduler.sequence(work.sequence);
        let serial = sequence.order.request;
        let Some(request) = self.requests.get_mut(&serial) else { return };
        if request.live.is_empty() {
            return;
        }
        let mut last = None;
        for (row, place) in (first..).zip(work.rows.clone()) {
            if place + 1 >= sequence.prompt {
                last = Some(rows.row(row));
                continue;
            }
            let top = request.prompt_logprobs.unwrap_or(0);
            match self.sampler.logprob(rows.row(row), sequence.tokens[place + 1], top) {
                Some(logprob) => request.prompt_rows.push(logprob),
                None => return self.over.push((serial, Some(Error::internal(NOT_FINITE)))),
            }
        }
        if sequence.pending() > 0 {
            return;
        }
        if sequence.generated() == 0 {
            let cached = sequence.cached.unwrap_or(0) as u32;
            let logprobs = std::mem::take(&mut request.prompt_rows);
            request.tell(Update::Prompt { cached, logprobs });
            for choice in 1..sequence.slots {
                request.live.push((choice, self.scheduler.fork(work.sequence, choice)));
            }
            for (choice, id) in request.live.clone() {
                self.extend(serial, choice, id, last);
            }
        } else {
            let choice = sequence.order.choice;
            self.extend(serial, choice, work.sequence, last);
        }
    }

    /// Gives a choice its next token. Without a row none was wanted: the prompt alone was to be computed.
    fn extend(&mut self, serial: u64, choice: u32, id: SequenceId, logits: Option<&[f32]>) {
        let Some(request) = self.requests.get_mut(&serial) else { return };
        let step = self.scheduler.sequence(id).generated();
        let Some(logits) = logits else {
            return self.finish(serial, choice, id, FinishReason::Length, None);
        };
        let token = match request.next_token(self.sampler, logits, choice, step) {
            Ok(Some(token)) => token,
            Ok(None) => return self.finish(serial, choice, id, FinishReason::Stop, None),
            Err(detail) => return self.finish(serial, choice, id, FinishReason::Error(detail), None),
        };
        self.generated += 1;
        let logprob = request.logprobs.and_then(|top| self.sampler.logprob(logits, token, top));
        if request.end_tokens.binary_search(&token).is_ok() {
            let end = EndToken { logprob: logprob.map(|raw| raw.logprob) };
            return self.finish(serial, choice, id, FinishReason::Stop, Some(end));
        }
        request.tell(Update::Token { choice, id: token, logprob });
        match request.note(choice, token) {
            Ok(true) => self.finish(serial, choice, id, FinishReason::Stop, None),
            Ok(false) if step + 1 >= request.max_tokens => {
                self.finish(serial, choice, id, FinishReason::Length, None);
            }
            Ok(false) => self.scheduler.append(id, token),
            Err(detail) => self.finish(serial, choice, id, FinishReason::Error(detail), None),
        }
    }

    fn finish(
        &mut self,
        serial: u64,
        choice: u32,
        id: SequenceId,
        reason: FinishReason,
        end: Option<EndToken>,
    ) {
        self.scheduler.remove(id);
        let Some(request) = self.requests.get_mut(&serial) else { return };
        request.live.retain(|&(_, other)| other != id);
        // A grammar's memory is not kept until the last choice ends.
        if let Some(state) = request.states.get_mut(choice as usize) {
            *state = ChoiceState::default();
        }
        let (end_token, logprob) = (end.is_some(), end.and_then(|end| end.logprob));
        request.tell(Update::Finished { choice, reason, end_token, logprob });
        if request.live.is_empty() {
            self.over.push((serial, None));
        }
    }
}

/// A generated token that has no text.
#[derive(Debug, Clone, Copy)]
struct EndToken {
    logprob: Option<f32>,
}

impl Request {
    /// Draws a choice's next token. `None` when a constraint leaves nothing to add to a text that is complete.
    fn next_token(
        &mut self,
        sampler: &mut Sampler,
        logits: &[f32],
        choice: u32,
        step: usize,
    ) -> Result<Option<u32>, ErrorDetail> {
        let state = &mut self.states[choice as usize];
        let mask = match &mut state.constraint {
            Some(constraint) => Some(constraint.mask()?),
            None if self.adjustments.is_off(step) => {
                return sampler
                    .sample(logits, &self.settings, choice, step)
                    .map(Some)
                    .map_err(|_| detail(NOT_FINITE));
            }
            None => None,
        };
        let drawn = sampler.sample_changed(logits, &self.settings, choice, step, |row| {
            self.adjustments.apply(row, &state.counts, step, &self.end_tokens);
            if let Some(mask) = &mask {
                mask.apply(row);
            }
            // An end token that does not end the answer is no text either: a constraint has no place for it.
            if mask.is_some() || self.adjustments.too_early(step) {
                forbid(row, &self.ignored_end);
            }
        });
        match drawn {
            Ok(token) => Ok(Some(token)),
            Err(NoToken::NotFinite) => Err(detail(NOT_FINITE)),
            Err(NoToken::Forbidden) => {
                let complete = state.constraint.as_mut().is_some_and(Constraint::is_complete);
                if complete { Ok(None) } else { Err(detail(ALL_FORBIDDEN)) }
            }
        }
    }

    /// Takes note of a token. True when a constraint allows nothing after it.
    fn note(&mut self, choice: u32, token: u32) -> Result<bool, ErrorDetail> {
        let counts = self.adjustments.counts();
        let state = &mut self.states[choice as usize];
        if counts {
            *state.counts.entry(token).or_default() += 1;
        }
        state.constraint.as_mut().map_or(Ok(false), |constraint| constraint.advance(token))
    }
}

fn detail(message: &str) -> ErrorDetail {
    ErrorDetail { kind: ErrorKind::Internal, message: message.to_owned() }
}

const ALL_FORBIDDEN: &str = "every token is forbidden at this place of the answer; allow some more";
const NOT_FINITE: &str = "the model computed numbers that are not finite; check the checkpoint, or deploy it with compute \"exact\"";
