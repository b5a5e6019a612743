//! The text of one choice: tokens in, pieces of text with their log probabilities out.
//!
//! Runs on the caller's task. A token's log probability travels with the piece in which its first character appears,
//! so that a client can put tokens and text side by side; tokens of a stop string are left out with its text.

use std::collections::VecDeque;

use byzerllm_core::TokenLogprob;
use byzerllm_model::StreamDecoder;

use crate::stop::StopMatcher;

/// The next piece of text of a choice.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) logprobs: Option<Vec<TokenLogprob>>,
}

impl Piece {
    /// Whether there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.logprobs.as_ref().is_none_or(Vec::is_empty)
    }
}

/// Turns one choice's tokens into text.
#[derive(Debug)]
pub(crate) struct ChoiceText {
    decoder: StreamDecoder,
    stop: StopMatcher,
    /// Tokens to come in whose text no stop string is looked for.
    unstoppable: u32,
    /// Bytes of text that were decoded, and bytes that were sent.
    decoded: usize,
    sent: usize,
    /// Where each token begins, with its log probability; `None` when none were asked for.
    waiting: Option<VecDeque<(usize, TokenLogprob)>>,
    scratch: String,
}

impl ChoiceText {
    /// No stop string ends the text of the first `min_tokens` tokens.
    pub(crate) fn new(decoder: StreamDecoder, stops: Vec<String>, logprobs: bool, min_tokens: u32) -> Self {
        Self {
            decoder,
            stop: StopMatcher::new(stops),
            unstoppable: min_tokens,
            decoded: 0,
            sent: 0,
            waiting: logprobs.then(VecDeque::new),
            scratch: String::new(),
        }
    }

    /// Whether a stop string was found.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.stopped()
    }

    /// The stop string that was found.
    pub(crate) fn stop(&self) -> Option<&str> {
        self.stop.found()
    }

    /// Adds a token.
    pub(crate) fn push(&mut self, id: u32, logprob: Option<TokenLogprob>) -> Piece {
        if let (Some(waiting), Some(logprob)) = (&mut self.waiting, logprob) {
            waiting.push_back((self.decoded, logprob));
        }
        self.scratch.clear();
        self.decoder.push_to(id, &mut self.scratch);
        self.decoded += self.scratch.len();
        let text = if self.unstoppable > 0 {
            self.unstoppable -= 1;
            std::mem::take(&mut self.scratch)
        } else {
            self.stop.push(&self.scratch)
        };
        self.piece(text)
    }

    /// Ends the text: what was held back is sent after all.
    pub(crate) fn finish(&mut self) -> Piece {
        if self.stopped() {
            return Piece::default();
        }
        let mut text = String::new();
        if let Some(rest) = self.decoder.finish() {
            self.decoded += rest.len();
            text = self.stop.push(&rest);
        }
        if !self.stopped() {
            text.push_str(&self.stop.finish());
        }
        let mut piece = self.piece(text);
        if !self.stopped()
            && let (Some(logprobs), Some(waiting)) = (&mut piece.logprobs, &mut self.waiting)
        {
            logprobs.extend(waiting.drain(..).map(|(_, logprob)| logprob));
        }
        piece
    }

    fn piece(&mut self, text: String) -> Piece {
        self.sent += text.len();
        let sent = self.sent;
        let logprobs = self.waiting.as_mut().map(|waiting| {
            let count = waiting.iter().take_while(|(start, _)| *start < sent).count();
            waiting.drain(..count).map(|(_, logprob)| logprob).collect()
        });
        Piece { text, logprobs }
    }
}
