//! The event stream of a request: ids become text, stop strings and log probabilities on the caller's task.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use byzerllm_core::{
    ErrorDetail, ErrorKind, Event, FinishReason, Notice, RequestId, Result, TokenLogprob, ToolCallDelta,
    Usage, UsageHook, UsageSource,
};
use byzerllm_model::StreamDecoder;
use futures::Stream;

use crate::detokenize::{ChoiceText, Piece};
use crate::intake::{Ticket, Update};
use crate::model::ModelText;
use crate::sampler::RawLogprob;
use crate::tools::{Format, Part, Reader, Reading};

/// What an answer needs to know of its request.
pub(crate) struct AnswerSetup {
    pub(crate) request_id: RequestId,
    pub(crate) choices: u32,
    /// Keep so many of the choices, the best ones, and tell of them only when all have finished.
    pub(crate) keep: Option<u32>,
    pub(crate) stops: Vec<String>,
    pub(crate) min_tokens: u32,
    pub(crate) logprobs: bool,
    pub(crate) prompt_logprobs: bool,
    /// The prompt's text, when it is to be sent first.
    pub(crate) echo: Option<String>,
    pub(crate) first_prompt_token: u32,
    pub(crate) prompt_tokens: u32,
    /// Decodes what follows the prompt.
    pub(crate) decoder: StreamDecoder,
    /// What its text holds beside text.
    pub(crate) reading: Reading,
    pub(crate) on_usage: Option<UsageHook>,
}

struct Choice {
    text: ChoiceText,
    over: bool,
    /// Its events, when only the best choices are told.
    held: Vec<Event>,
    score: Score,
    /// Takes calls and reasoning out of the text, where there may be any.
    reader: Option<Reader>,
}

/// The mean log probability of a choice's tokens, its end token included.
#[derive(Debug, Clone, Copy, Default)]
struct Score {
    sum: f64,
    tokens: u32,
    failed: bool,
}

impl Score {
    fn add(&mut self, logprob: Option<f32>) {
        if let Some(logprob) = logprob {
            self.sum += f64::from(logprob);
            self.tokens += 1;
        }
    }

    /// A choice that failed or has no tokens is worse than any other.
    fn value(&self) -> f64 {
        if self.failed || self.tokens == 0 { f64::NEG_INFINITY } else { self.sum / f64::from(self.tokens) }
    }
}

/// An answer in progress.
pub(crate) struct Answer {
    ticket: Ticket,
    text: Arc<ModelText>,
    queue: VecDeque<Event>,
    choices: Vec<Choice>,
    open: usize,
    keep: Option<u32>,
    format: Option<&'static Format>,
    usage: Usage,
    prompt_logprobs: bool,
    first_prompt_token: u32,
    echo: Option<String>,
    on_usage: Option<UsageHook>,
    over: bool,
}

impl Answer {
    pub(crate) fn new(ticket: Ticket, text: Arc<ModelText>, setup: AnswerSetup) -> Self {
        let choice = || Choice {
            text: ChoiceText::new(
                setup.decoder.clone(),
                setup.stops.clone(),
                setup.logprobs,
                setup.min_tokens,
            ),
            over: false,
            held: Vec::new(),
            score: Score::default(),
            reader: setup.reading.reader(),
        };
        let started = Event::Started { request_id: setup.request_id, vendor_request_id: None };
        Self {
            ticket,
            text,
            queue: VecDeque::from([started]),
            choices: (0..setup.choices).map(|_| choice()).collect(),
            open: setup.choices as usize,
            keep: setup.keep,
            format: setup.reading.format(),
            usage: Usage {
                prompt_tokens: setup.prompt_tokens,
                source: UsageSource::Counted,
                ..Usage::default()
            },
            prompt_logprobs: setup.prompt_logprobs,
            first_prompt_token: setup.first_prompt_token,
            echo: setup.echo,
            on_usage: setup.on_usage,
            over: false,
        }
    }

    fn take(&mut self, update: Update) -> Result<()> {
        match update {
            Update::Prompt { cached, logprobs } => self.take_prompt(cached, &logprobs),
            Update::Token { choice, id, logprob } => self.take_token(choice, id, logprob),
            Update::Finished { choice, reason, end_token, logprob } => {
                self.take_end(choice, reason, end_token, logprob);
            }
            Update::Failed(error) => {
                self.over = true;
                self.report();
                return Err(error.with_usage(self.usage.clone()));
            }
        }
        if self.open == 0 && !self.over {
            self.over = true;
            self.ticket.complete();
            self.tell_best();
            self.report();
            self.queue.push_back(Event::Usage { usage: self.usage.clone() });
        }
        Ok(())
    }

    fn take_prompt(&mut self, cached: u32, logprobs: &[RawLogprob]) {
        self.usage.cached_tokens = cached;
        if self.prompt_logprobs {
            let id = self.first_prompt_token;
            let first = TokenLogprob { id, bytes: self.bytes(id), logprob: None, top: Vec::new() };
            let logprobs =
                std::iter::once(first).chain(logprobs.iter().map(|raw| self.token_logprob(raw))).collect();
            self.queue.push_back(Event::PromptLogprobs { logprobs });
        }
        if cached > 0 {
            self.queue.push_back(Event::Notice { notice: Notice::CacheHit { tokens: cached } });
        }
        if let Some(text) = self.echo.take().filter(|text| !text.is_empty()) {
            for choice in 0..self.keep.unwrap_or(self.choices.len() as u32) {
                self.queue.push_back(Event::Text { choice, text: text.clone(), logprobs: None });
            }
        }
    }

    fn take_token(&mut self, choice: u32, id: u32, logprob: Option<RawLogprob>) {
        let probability = logprob.as_ref().map(|raw| raw.logprob);
        let logprob = logprob.map(|raw| self.token_logprob(&raw));
        let Some(state) = self.choices.get_mut(choice as usize).filter(|state| !state.over) else { return };
        self.usage.completion_tokens += 1;
        state.score.add(probability);
        let piece = state.text.push(id, logprob);
        let stopped = state.text.stopped();
        self.send(choice, piece);
        if stopped && !self.choices[choice as usize].over {
            self.ticket.cancel_choice(choice);
            self.finish(choice, FinishReason::Stop);
        }
    }

    fn take_end(&mut self, choice: u32, reason: FinishReason, end_token: bool, logprob: Option<f32>) {
        let Some(state) = self.choices.get_mut(choice as usize).filter(|state| !state.over) else { return };
        state.score.add(logprob);
        state.score.failed = matches!(reason, FinishReason::Error(_));
        self.usage.completion_tokens += u32::from(end_token);
        let piece = state.text.finish();
        let reason = if state.text.stopped() { FinishReason::Stop } else { reason };
        self.send(choice, piece);
        if !self.choices[choice as usize].over {
            self.finish(choice, reason);
        }
    }

    fn send(&mut self, choice: u32, piece: Piece) {
        if piece.is_empty() {
            return;
        }
        let Some(reader) = &mut self.choices[choice as usize].reader else {
            return self.tell(choice, Event::Text { choice, text: piece.text, logprobs: piece.logprobs });
        };
        self.usage.reasoning_tokens += u32::from(reader.thinks());
        let parts = reader.push(&piece.text);
        let last = reader.is_over();
        if let Some(logprobs) = piece.logprobs.filter(|logprobs| !logprobs.is_empty()) {
            // The text may be held back; its tokens are not.
            self.tell(choice, Event::Text { choice, text: String::new(), logprobs: Some(logprobs) });
        }
        self.tell_parts(choice, parts);
        if last && !self.choices[choice as usize].over {
            self.ticket.cancel_choice(choice);
            self.finish(choice, FinishReason::Stop);
        }
    }

    /// Ends a choice once what was held back is told.
    fn finish(&mut self, choice: u32, mut reason: FinishReason) {
        if let Some(mut reader) = self.choices[choice as usize].reader.take() {
            let parts = reader.finish(reason != FinishReason::Stop);
            self.tell_parts(choice, parts);
            if reason == FinishReason::Stop && reader.called() {
                reason = FinishReason::ToolCalls;
            }
        }
        if !self.choices[choice as usize].over {
            self.end(choice, reason);
        }
    }

    fn tell_parts(&mut self, choice: u32, parts: Vec<Part>) {
        let call = |index, id, name, arguments| {
            let delta = ToolCallDelta { index, id, name, arguments };
            Event::ToolCall { choice, delta }
        };
        for part in parts {
            let event = match part {
                Part::Text(text) => Event::Text { choice, text, logprobs: None },
                Part::Reasoning(text) => Event::Reasoning { choice, text },
                Part::Start { index, name } => {
                    call(index, self.format.map(Format::id), Some(name), String::new())
                }
                Part::Arguments { index, text } => call(index, None, None, text),
                Part::Broken { reason, sent: false } => {
                    Event::Notice { notice: Notice::InvalidToolCall { choice, reason } }
                }
                Part::Broken { reason, sent: true } => {
                    // A part of the call is out; only an error can take it back.
                    let message = format!("the model began a tool call that is none: {reason}; try again");
                    let detail = ErrorDetail { kind: ErrorKind::Upstream, message };
                    self.choices[choice as usize].score.failed = true;
                    self.ticket.cancel_choice(choice);
                    return self.end(choice, FinishReason::Error(detail));
                }
            };
            self.tell(choice, event);
        }
    }

    fn tell(&mut self, choice: u32, event: Event) {
        match self.keep {
            Some(_) => self.choices[choice as usize].held.push(event),
            None => self.queue.push_back(event),
        }
    }

    /// Tells of the best choices, best first, of equals the earlier one.
    fn tell_best(&mut self) {
        let Some(keep) = self.keep else { return };
        let mut order: Vec<usize> = (0..self.choices.len()).collect();
        let score = |place: usize| self.choices[place].score.value();
        order.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
        for (place, rank) in order.into_iter().zip(0..keep) {
            for mut event in std::mem::take(&mut self.choices[place].held) {
                if let Event::Text { choice, .. }
                | Event::Reasoning { choice, .. }
                | Event::ToolCall { choice, .. }
                | Event::Signature { choice, .. }
                | Event::Notice { notice: Notice::InvalidToolCall { choice, .. } }
                | Event::Finished { choice, .. } = &mut event
                {
                    *choice = rank;
                }
                self.queue.push_back(event);
            }
        }
    }

    fn end(&mut self, choice: u32, reason: FinishReason) {
        self.choices[choice as usize].over = true;
        self.open -= 1;
        let found = self.choices[choice as usize].text.stop().filter(|_| reason == FinishReason::Stop);
        let stop = found.map(str::to_owned);
        self.tell(choice, Event::Finished { choice, reason, stop });
    }

    fn bytes(&self, id: u32) -> Vec<u8> {
        self.text.tokenizer.token_bytes(id).unwrap_or_default().to_vec()
    }

    fn token_logprob(&self, raw: &RawLogprob) -> TokenLogprob {
        TokenLogprob {
            id: raw.id,
            bytes: self.bytes(raw.id),
            logprob: Some(raw.logprob),
            top: raw.top.iter().map(|&(id, logprob)| (id, self.bytes(id), logprob)).collect(),
        }
    }

    /// Tells the usage once.
    fn report(&mut self) {
        if let Some(hook) = self.on_usage.take() {
            hook(&self.usage);
        }
    }
}

impl Stream for Answer {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.over {
                return Poll::Ready(None);
            }
            let Poll::Ready(update) = self.ticket.poll(context) else { return Poll::Pending };
            if let Err(error) = self.take(update) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl Drop for Answer {
    /// Tokens that were made but not read were spent all the same.
    fn drop(&mut self) {
        if self.over {
            return;
        }
        while let Some(update) = self.ticket.ready() {
            match update {
                Update::Prompt { cached, .. } => self.usage.cached_tokens = cached,
                Update::Token { choice, .. } if !self.choices[choice as usize].over => {
                    self.usage.completion_tokens += 1;
                }
                Update::Finished { choice, end_token: true, .. } if !self.choices[choice as usize].over => {
                    self.usage.completion_tokens += 1;
                }
                Update::Token { .. } | Update::Finished { .. } => {}
                Update::Failed(_) => break,
            }
        }
        self.report();
    }
}
