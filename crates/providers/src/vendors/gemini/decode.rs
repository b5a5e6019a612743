//! An answer of `generateContent`: one body, or the same again and again with the next piece.

use std::collections::BTreeMap;

use byzerllm_core::{ErrorDetail, ErrorKind, FinishReason, Result, Signature, ToolCallDelta, Usage};
use serde_json::Value;

use super::{NAME, OWN_ID};
use crate::dialects::shared::{self, count_at, text_at};
use crate::{Decode, Delta, Frame};

/// Reads one answer.
pub(super) struct Reader {
    choices: u32,
    id: String,
    /// How many calls each choice has made.
    calls: BTreeMap<u32, u32>,
}

impl Reader {
    pub(super) fn new(choices: u32) -> Self {
        Self { choices, id: String::new(), calls: BTreeMap::new() }
    }

    fn candidate(&mut self, index: u32, candidate: &Value, out: &mut Vec<Delta>) {
        for part in candidate.pointer("/content/parts").and_then(Value::as_array).into_iter().flatten() {
            let text = text_at(part, "/text");
            if !text.is_empty() {
                let thought = part.get("thought").and_then(Value::as_bool) == Some(true);
                out.push(if thought {
                    Delta::Reasoning(index, text.to_owned())
                } else {
                    Delta::Text(index, text.to_owned())
                });
            }
            if let Some(call) = part.get("functionCall") {
                let delta = self.call(index, call);
                let signature = text_at(part, "/thoughtSignature").to_owned();
                out.push(Delta::Signature(index, Signature::ToolCall { index: delta.index, signature }));
                out.push(Delta::ToolCall(index, delta));
            }
        }
        if let Some(reason) = self.finish(index, candidate) {
            out.push(Delta::Finished(index, reason));
        }
    }

    /// Calls come whole, and not always with an id.
    fn call(&mut self, choice: u32, call: &Value) -> ToolCallDelta {
        let count = self.calls.entry(choice).or_default();
        let index = *count;
        *count += 1;
        let id = match text_at(call, "/id") {
            "" => format!("{OWN_ID}{}-{choice}-{index}", self.id),
            id => id.to_owned(),
        };
        let arguments = call
            .get("args")
            .filter(|args| args.is_object())
            .map_or_else(|| "{}".to_owned(), Value::to_string);
        ToolCallDelta { index, id: Some(id), name: Some(text_at(call, "/name").to_owned()), arguments }
    }

    fn finish(&self, choice: u32, candidate: &Value) -> Option<FinishReason> {
        let word = text_at(candidate, "/finishReason");
        Some(match word {
            "" | "FINISH_REASON_UNSPECIFIED" => return None,
            "STOP" if self.calls.contains_key(&choice) => FinishReason::ToolCalls,
            "STOP" => FinishReason::Stop,
            "MAX_TOKENS" => FinishReason::Length,
            "SAFETY"
            | "RECITATION"
            | "BLOCKLIST"
            | "PROHIBITED_CONTENT"
            | "SPII"
            | "LANGUAGE"
            | "IMAGE_SAFETY"
            | "IMAGE_PROHIBITED_CONTENT"
            | "IMAGE_RECITATION"
            | "MODEL_ARMOR" => FinishReason::ContentFilter,
            _ => {
                let said = text_at(candidate, "/finishMessage");
                let said = if said.is_empty() { String::new() } else { format!(": {said}") };
                let word: String = word.chars().take(64).collect();
                let message = format!("{NAME} broke its answer off with {word}{said}");
                FinishReason::Error(ErrorDetail { kind: ErrorKind::Upstream, message })
            }
        })
    }
}

impl Decode for Reader {
    fn frame(&mut self, frame: Frame<'_>, out: &mut Vec<Delta>) -> Result<()> {
        let value = shared::json(NAME, frame.data)?;
        if value.get("error").is_some() {
            return Err(super::error(0, &value, None, None));
        }
        let id = text_at(&value, "/responseId");
        if !id.is_empty() {
            self.id = id.to_owned();
            out.push(Delta::RequestId(id.to_owned()));
        }
        for candidate in value.get("candidates").and_then(Value::as_array).into_iter().flatten() {
            self.candidate(count_at(candidate, "/index").unwrap_or_default(), candidate, out);
        }
        if !text_at(&value, "/promptFeedback/blockReason").is_empty() {
            // The prompt was stopped by a filter: no candidate comes.
            out.extend((0..self.choices).map(|choice| Delta::Finished(choice, FinishReason::ContentFilter)));
        }
        if let Some(usage) = value.get("usageMetadata").and_then(usage) {
            out.push(Delta::Usage(usage));
        }
        Ok(())
    }
}

/// The API counts thoughts, and the prompts of its own tools, apart.
fn usage(value: &Value) -> Option<Usage> {
    let count = |pointer: &str| count_at(value, pointer).unwrap_or_default();
    let prompt = count_at(value, "/promptTokenCount")?.saturating_add(count("/toolUsePromptTokenCount"));
    let thoughts = count("/thoughtsTokenCount");
    let mut usage = shared::reported(prompt, count("/candidatesTokenCount").saturating_add(thoughts));
    usage.cached_tokens = count("/cachedContentTokenCount");
    usage.reasoning_tokens = thoughts;
    Some(usage)
}
