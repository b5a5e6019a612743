//! An answer in OpenAI's words, whole or in chunks, with what vendors do differently.

use std::collections::BTreeMap;

use byzerllm_core::{
    ChatRequest, Error, ErrorDetail, ErrorKind, FinishReason, Result, TokenLogprob, ToolCallDelta,
};
use serde_json::Value;

use super::chunk::{Chunk, Said, WireCall, WireChoice, WireLogprobs};
use super::{Meaning, Quirks, error};
use crate::{Decode, Delta, Frame};

/// The most calls of one choice; a stream with more is broken.
const MAX_CALLS: usize = 1024;

/// Reads chunks, or one whole answer.
pub(super) struct Decoder {
    vendor: &'static str,
    codes: &'static [(&'static str, Meaning)],
    whole: bool,
    /// The stop strings that were asked for.
    stops: Vec<String>,
    /// How many choices were asked for: others are an error.
    choices_asked: u32,
    id: Option<String>,
    choices: BTreeMap<u32, Choice>,
    over: bool,
}

#[derive(Default)]
struct Choice {
    finished: bool,
    refused: bool,
    spoke: bool,
    calls: Vec<Call>,
}

/// A call in progress.
struct Call {
    /// Its index on the wire, where the vendor sends one.
    wire: Option<u64>,
    id: Option<String>,
    named: bool,
    /// Arguments that came before the name.
    waiting: String,
    argued: bool,
}

impl Decoder {
    pub(super) fn new(quirks: &Quirks, request: &ChatRequest) -> Self {
        Self {
            vendor: quirks.vendor,
            codes: quirks.codes,
            whole: request.whole,
            stops: request.sampling.stop.clone().unwrap_or_default(),
            choices_asked: request.n.max(1),
            id: None,
            choices: BTreeMap::new(),
            over: false,
        }
    }

    fn broken(&self, what: &str) -> Error {
        let error = Error::new(ErrorKind::Upstream, format!("{} sent {what}; try again", self.vendor));
        match &self.id {
            Some(id) => error.with_vendor_request_id(id.clone()),
            None => error,
        }
    }

    fn chunk(&mut self, chunk: Chunk, out: &mut Vec<Delta>) -> Result<()> {
        let id = [chunk.request_id, chunk.id].into_iter().find_map(|id| match id {
            Value::String(id) if !id.is_empty() => Some(id),
            _ => None,
        });
        if let Some(id) = id
            && self.id.is_none()
        {
            self.id = Some(id.clone());
            out.push(Delta::RequestId(id));
        }
        let mut usage = chunk.usage;
        let choices = chunk.choices.unwrap_or_default();
        if self.whole && choices.is_empty() {
            return Err(self.broken("an answer without a choice"));
        }
        for mut choice in choices {
            usage = choice.usage.take().or(usage);
            self.choice(choice, out)?;
        }
        let spoke = self.choices.values().any(|choice| choice.spoke);
        if let Some(usage) = usage.and_then(|usage| usage.read(spoke)) {
            out.push(Delta::Usage(usage));
        }
        if self.whole {
            self.over = true;
            out.push(Delta::End);
        }
        Ok(())
    }

    fn choice(&mut self, wire: WireChoice, out: &mut Vec<Delta>) -> Result<()> {
        let number = wire.index.unwrap_or(0);
        if number >= self.choices_asked {
            return Err(self.broken("a choice that nobody asked for"));
        }
        let complete = wire.message.is_some();
        let said = wire.delta.or(wire.message).unwrap_or_default();
        let mut state = self.choices.remove(&number).unwrap_or_default();
        let result = self.said(number, &mut state, said, wire.logprobs, out);
        if let Value::String(stop) =
            if wire.stop_reason.is_null() { wire.matched_stop } else { wire.stop_reason }
            && result.is_ok()
            && !state.finished
            // Others say here in words of their own why they ended.
            && self.stops.contains(&stop)
        {
            out.push(Delta::Stop(number, stop));
        }
        let word = wire.finish_reason.filter(|word| !word.is_empty());
        if result.is_ok() && !state.finished && (word.is_some() || complete) {
            self.finish(number, &mut state, word.as_deref().unwrap_or("stop"), out);
        }
        self.choices.insert(number, state);
        result
    }

    fn said(
        &self,
        number: u32,
        state: &mut Choice,
        said: Said,
        logprobs: Option<WireLogprobs>,
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        let before = out.len();
        // vLLM and OpenRouter send both names at once.
        let reasoning = said.reasoning_content.or(said.reasoning).map(|text| text.0).unwrap_or_default();
        if !reasoning.is_empty() {
            out.push(Delta::Reasoning(number, reasoning));
        }
        let text = said.content.map(|text| text.0).unwrap_or_default();
        if !text.is_empty() {
            out.push(Delta::Text(number, text));
        }
        if let Some(logprobs) = logprobs.and_then(|logprobs| logprobs.content)
            && !logprobs.is_empty()
        {
            out.push(Delta::Logprobs(number, logprobs.into_iter().map(TokenLogprob::from).collect()));
        }
        let refusal = said.refusal.map(|text| text.0).unwrap_or_default();
        if !refusal.is_empty() {
            state.refused = true;
            out.push(Delta::Text(number, refusal));
        }
        // The old form has one call, without an id or an index.
        let old = said.function_call.map(|function| WireCall {
            index: Some(0),
            id: None,
            function: Some(function),
        });
        for call in said.tool_calls.into_iter().flatten().chain(old) {
            self.call(number, state, call, out)?;
        }
        if out.len() > before {
            if state.finished {
                out.truncate(before);
                return Err(self.broken("more of an answer after its end"));
            }
            state.spoke = true;
        }
        Ok(())
    }

    fn call(&self, number: u32, state: &mut Choice, wire: WireCall, out: &mut Vec<Delta>) -> Result<()> {
        let function = wire.function.unwrap_or_default();
        let id = wire.id.filter(|id| !id.is_empty());
        let name = function.name.filter(|name| !name.is_empty());
        let arguments = function.arguments.text();
        let known = match wire.index {
            Some(_) => state.calls.iter().rposition(|call| call.wire == wire.index),
            None => state.calls.len().checked_sub(1),
        };
        // A call with an id and a name of its own is a new one, whatever index it claims; without an index, so is one
        // that brings a name again.
        let known = known.filter(|&place| {
            let call = &state.calls[place];
            let other_id = id.is_some() && call.id.is_some() && id != call.id;
            let again = call.named && name.is_some();
            !(again && (other_id || (wire.index.is_none() && id.is_none())))
        });
        let place = match known {
            Some(place) => place,
            None if id.is_none() && name.is_none() && arguments.is_empty() => return Ok(()),
            None if state.calls.len() == MAX_CALLS => return Err(self.broken("more tool calls than can be")),
            None => {
                state.calls.push(Call {
                    wire: wire.index,
                    id: None,
                    named: false,
                    waiting: String::new(),
                    argued: false,
                });
                state.calls.len() - 1
            }
        };
        let call = &mut state.calls[place];
        if call.id.is_none() {
            call.id = id;
        }
        call.argued |= !arguments.is_empty();
        let index = u32::try_from(place).unwrap_or(u32::MAX);
        let delta = match name {
            Some(name) if !call.named => {
                call.named = true;
                // Some vendors send no id; an answer to the call needs one.
                let id = call.id.get_or_insert_with(|| {
                    format!("call_{}_{number}_{index}", self.id.as_deref().unwrap_or("0"))
                });
                let arguments = std::mem::take(&mut call.waiting) + &arguments;
                ToolCallDelta { index, id: Some(id.clone()), name: Some(name), arguments }
            }
            _ if !call.named => {
                call.waiting.push_str(&arguments);
                return Ok(());
            }
            _ if arguments.is_empty() => return Ok(()),
            _ => ToolCallDelta { index, id: None, name: None, arguments },
        };
        out.push(Delta::ToolCall(number, delta));
        Ok(())
    }

    fn finish(&self, number: u32, state: &mut Choice, word: &str, out: &mut Vec<Delta>) {
        state.finished = true;
        let mut reason = reason(self.vendor, word);
        if state.calls.iter().any(|call| !call.named) {
            let message = format!("{} sent a tool call without a name", self.vendor);
            reason = FinishReason::Error(ErrorDetail { kind: ErrorKind::Upstream, message });
        } else if reason == FinishReason::Stop && !state.calls.is_empty() {
            reason = FinishReason::ToolCalls;
        } else if reason == FinishReason::Stop && state.refused {
            reason = FinishReason::ContentFilter;
        }
        if reason == FinishReason::ToolCalls {
            // Arguments of a finished call are JSON, also where a function takes none.
            for (place, _) in state.calls.iter().enumerate().filter(|(_, call)| !call.argued) {
                let index = u32::try_from(place).unwrap_or(u32::MAX);
                let delta = ToolCallDelta { index, id: None, name: None, arguments: "{}".to_owned() };
                out.push(Delta::ToolCall(number, delta));
            }
        }
        out.push(Delta::Finished(number, reason));
    }
}

impl Decode for Decoder {
    fn frame(&mut self, frame: Frame<'_>, out: &mut Vec<Delta>) -> Result<()> {
        let data = frame.data.trim();
        if self.over || data.is_empty() {
            return Ok(());
        }
        if data == "[DONE]" {
            self.over = true;
            out.push(Delta::End);
            return Ok(());
        }
        let with_id = |error: Error, id: &Option<String>| match id {
            Some(id) if error.vendor_request_id().is_none() => error.with_vendor_request_id(id.clone()),
            _ => error,
        };
        let chunk: Chunk = match serde_json::from_str(data) {
            Ok(chunk) => chunk,
            Err(cause) => {
                let said = error::inside(self.vendor, self.codes, data.as_bytes());
                let error =
                    said.unwrap_or_else(|| self.broken("a frame that cannot be read").with_source(cause));
                return Err(with_id(error, &self.id));
            }
        };
        // OpenRouter sends an error beside a choice that is over.
        if (frame.event == "error" || chunk.choices.is_none() || !chunk.error.is_null())
            && let Some(error) = error::inside(self.vendor, self.codes, data.as_bytes())
        {
            return Err(with_id(error, &self.id));
        }
        self.chunk(chunk, out)
    }
}

/// Why a choice ended, in the words of all vendors of this dialect. A word that nobody knows means that the answer
/// ended as the vendor wanted it to.
fn reason(vendor: &str, word: &str) -> FinishReason {
    let failed = |kind, what: &str| {
        FinishReason::Error(ErrorDetail { kind, message: format!("{vendor} broke off the answer: {what}") })
    };
    match word {
        "length" | "max_tokens" | "max_output_tokens" | "model_context_window_exceeded" | "model_length" => {
            FinishReason::Length
        }
        "tool_calls" | "function_call" | "tool_use" => FinishReason::ToolCalls,
        "content_filter" | "sensitive" | "safety" | "recitation" | "refusal" | "risk" => {
            FinishReason::ContentFilter
        }
        "insufficient_system_resource" => failed(ErrorKind::Overloaded, "it has no resources left"),
        "abort" | "aborted" | "cancelled" => failed(ErrorKind::Upstream, "it was aborted"),
        word if word.contains("error") || word.contains("fail") => {
            let shown: String = word.chars().take(64).flat_map(char::escape_debug).collect();
            failed(ErrorKind::Upstream, &shown)
        }
        _ => FinishReason::Stop,
    }
}
