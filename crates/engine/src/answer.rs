//! The event stream of a request: ids become text, stop strings and log probabilities on the caller's task.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use byzerllm_core::{
    Event, FinishReason, Notice, RequestId, Result, TokenLogprob, Usage, UsageHook, UsageSource,
};
use byzerllm_model::StreamDecoder;
use futures::Stream;

use crate::detokenize::{ChoiceText, Piece};
use crate::intake::{Ticket, Update};
use crate::model::ModelText;
use crate::sampler::RawLogprob;

/// What an answer needs to know of its request.
pub(crate) struct AnswerSetup {
    pub(crate) request_id: RequestId,
    pub(crate) choices: u32,
    pub(crate) stops: Vec<String>,
    pub(crate) logprobs: bool,
    pub(crate) prompt_logprobs: bool,
    /// The prompt's text, when it is to be sent first.
    pub(crate) echo: Option<String>,
    pub(crate) first_prompt_token: u32,
    pub(crate) prompt_tokens: u32,
    /// Decodes what follows the prompt.
    pub(crate) decoder: StreamDecoder,
    pub(crate) on_usage: Option<UsageHook>,
}

struct Choice {
    text: ChoiceText,
    over: bool,
}

/// An answer in progress.
pub(crate) struct Answer {
    ticket: Ticket,
    text: Arc<ModelText>,
    queue: VecDeque<Event>,
    choices: Vec<Choice>,
    open: usize,
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
            text: ChoiceText::new(setup.decoder.clone(), setup.stops.clone(), setup.logprobs),
            over: false,
        };
        let started = Event::Started { request_id: setup.request_id, vendor_request_id: None };
        Self {
            ticket,
            text,
            queue: VecDeque::from([started]),
            choices: (0..setup.choices).map(|_| choice()).collect(),
            open: setup.choices as usize,
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
            Update::Finished { choice, reason, end_token } => self.take_end(choice, reason, end_token),
            Update::Failed(error) => {
                self.over = true;
                self.report();
                return Err(error.with_usage(self.usage.clone()));
            }
        }
        if self.open == 0 && !self.over {
            self.over = true;
            self.ticket.complete();
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
            for choice in 0..self.choices.len() as u32 {
                self.queue.push_back(Event::Text { choice, text: text.clone(), logprobs: None });
            }
        }
    }

    fn take_token(&mut self, choice: u32, id: u32, logprob: Option<RawLogprob>) {
        let logprob = logprob.map(|raw| self.token_logprob(&raw));
        let Some(state) = self.choices.get_mut(choice as usize).filter(|state| !state.over) else { return };
        self.usage.completion_tokens += 1;
        let piece = state.text.push(id, logprob);
        let stopped = state.text.stopped();
        self.send(choice, piece);
        if stopped {
            self.ticket.cancel_choice(choice);
            self.end(choice, FinishReason::Stop);
        }
    }

    fn take_end(&mut self, choice: u32, reason: FinishReason, end_token: bool) {
        let Some(state) = self.choices.get_mut(choice as usize).filter(|state| !state.over) else { return };
        self.usage.completion_tokens += u32::from(end_token);
        let piece = state.text.finish();
        let reason = if state.text.stopped() { FinishReason::Stop } else { reason };
        self.send(choice, piece);
        self.end(choice, reason);
    }

    fn send(&mut self, choice: u32, piece: Piece) {
        if !piece.is_empty() {
            self.queue.push_back(Event::Text { choice, text: piece.text, logprobs: piece.logprobs });
        }
    }

    fn end(&mut self, choice: u32, reason: FinishReason) {
        self.choices[choice as usize].over = true;
        self.open -= 1;
        self.queue.push_back(Event::Finished { choice, reason });
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
