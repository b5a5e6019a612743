//! An answer of the Messages API, whole or as events.

use std::collections::BTreeMap;

use byzerllm_core::{Error, ErrorKind, FinishReason, Result, Signature, ToolCallDelta, Usage};
use serde_json::Value;

use super::NAME;
use crate::dialects::shared::{self, count_at, text_at};
use crate::{Decode, Delta, Frame};

/// Reads one answer.
#[derive(Default)]
pub(super) struct Reader {
    /// Blocks of calls by the API's index.
    calls: BTreeMap<u64, Call>,
    counts: Counts,
}

struct Call {
    index: u32,
    /// What the block came with, for a call whose arguments do not follow.
    input: String,
    has_arguments: bool,
}

#[derive(Default)]
struct Counts {
    input: u32,
    cache_read: u32,
    cache_written: u32,
    output: u32,
    thinking: u32,
}

impl Counts {
    /// Takes what an event reports; the numbers are cumulative, and those that are absent stand.
    fn update(&mut self, usage: &Value) {
        let take = |pointer: &str, count: &mut u32| {
            if let Some(new) = count_at(usage, pointer) {
                *count = new;
            }
        };
        take("/input_tokens", &mut self.input);
        take("/cache_read_input_tokens", &mut self.cache_read);
        take("/cache_creation_input_tokens", &mut self.cache_written);
        take("/output_tokens", &mut self.output);
        take("/output_tokens_details/thinking_tokens", &mut self.thinking);
    }

    /// The API counts what it read from and wrote to its cache apart from the rest of the prompt.
    fn usage(&self) -> Usage {
        let prompt = self.input.saturating_add(self.cache_read).saturating_add(self.cache_written);
        let mut usage = shared::reported(prompt, self.output);
        usage.cached_tokens = self.cache_read;
        usage.cache_written_tokens = self.cache_written;
        usage.reasoning_tokens = self.thinking;
        usage
    }
}

impl Decode for Reader {
    fn frame(&mut self, frame: Frame<'_>, out: &mut Vec<Delta>) -> Result<()> {
        let value = shared::json(NAME, frame.data)?;
        let index = value.get("index").and_then(Value::as_u64).unwrap_or_default();
        match text_at(&value, "/type") {
            "message" => self.whole(&value, out),
            "message_start" => {
                self.start(value.get("message").unwrap_or(&Value::Null), out);
                Ok(())
            }
            "content_block_start" => {
                self.block(index, value.get("content_block").unwrap_or(&Value::Null), out);
                Ok(())
            }
            "content_block_delta" => self.delta(index, value.get("delta").unwrap_or(&Value::Null), out),
            "content_block_stop" => {
                self.close(index, out);
                Ok(())
            }
            "message_delta" => {
                self.report(value.get("usage"), out);
                finish(value.get("delta").unwrap_or(&Value::Null), out);
                Ok(())
            }
            "message_stop" => {
                out.push(Delta::End);
                Ok(())
            }
            "error" => Err(super::error(0, &value, None, None)),
            // `ping`, and what the API adds: its versioning allows new events.
            _ => Ok(()),
        }
    }
}

impl Reader {
    fn start(&mut self, message: &Value, out: &mut Vec<Delta>) {
        let id = text_at(message, "/id");
        if !id.is_empty() {
            out.push(Delta::RequestId(id.to_owned()));
        }
        self.report(message.get("usage"), out);
    }

    fn report(&mut self, usage: Option<&Value>, out: &mut Vec<Delta>) {
        if let Some(usage) = usage.filter(|usage| usage.is_object()) {
            self.counts.update(usage);
            out.push(Delta::Usage(self.counts.usage()));
        }
    }

    fn block(&mut self, index: u64, block: &Value, out: &mut Vec<Delta>) {
        match text_at(block, "/type") {
            "text" => push_text(text_at(block, "/text"), out),
            "thinking" => {
                push_reasoning(text_at(block, "/thinking"), out);
                push_signature(text_at(block, "/signature"), out);
            }
            "redacted_thinking" => {
                let data = text_at(block, "/data").to_owned();
                out.push(Delta::Signature(0, Signature::Hidden { data }));
            }
            // Sent twice, it is still one call.
            "tool_use" if self.calls.contains_key(&index) => {}
            "tool_use" => {
                let number = u32::try_from(self.calls.len()).unwrap_or(u32::MAX);
                let input = block.get("input").filter(|input| input.is_object()).map(Value::to_string);
                let input = input.unwrap_or_else(|| "{}".to_owned());
                self.calls.insert(index, Call { index: number, input, has_arguments: false });
                out.push(Delta::ToolCall(
                    0,
                    ToolCallDelta {
                        index: number,
                        id: Some(text_at(block, "/id").to_owned()),
                        name: Some(text_at(block, "/name").to_owned()),
                        arguments: String::new(),
                    },
                ));
            }
            // Tools that the vendor runs itself, and their results, are no text of the answer.
            _ => {}
        }
    }

    fn delta(&mut self, index: u64, delta: &Value, out: &mut Vec<Delta>) -> Result<()> {
        match text_at(delta, "/type") {
            "text_delta" => push_text(text_at(delta, "/text"), out),
            "thinking_delta" => push_reasoning(text_at(delta, "/thinking"), out),
            "signature_delta" => push_signature(text_at(delta, "/signature"), out),
            "input_json_delta" => {
                let arguments = text_at(delta, "/partial_json");
                // Tools that the vendor runs itself have arguments, too.
                if let Some(call) = self.calls.get_mut(&index).filter(|_| !arguments.is_empty()) {
                    call.has_arguments = true;
                    let delta = ToolCallDelta {
                        index: call.index,
                        id: None,
                        name: None,
                        arguments: arguments.to_owned(),
                    };
                    out.push(Delta::ToolCall(0, delta));
                }
            }
            "" => return Err(Error::new(ErrorKind::Upstream, format!("{NAME} sent a delta without a type"))),
            // Citations.
            _ => {}
        }
        Ok(())
    }

    /// A call without arguments still has an object of them.
    fn close(&mut self, index: u64, out: &mut Vec<Delta>) {
        if let Some(call) = self.calls.get_mut(&index).filter(|call| !call.has_arguments) {
            call.has_arguments = true;
            let arguments = std::mem::take(&mut call.input);
            out.push(Delta::ToolCall(
                0,
                ToolCallDelta { index: call.index, id: None, name: None, arguments },
            ));
        }
    }

    fn whole(&mut self, message: &Value, out: &mut Vec<Delta>) -> Result<()> {
        self.start(message, out);
        let blocks = message.get("content").and_then(Value::as_array);
        let blocks = blocks.ok_or_else(|| {
            Error::new(ErrorKind::Upstream, format!("{NAME} sent an answer without content"))
        })?;
        for (index, block) in (0_u64..).zip(blocks) {
            self.block(index, block, out);
            self.close(index, out);
        }
        finish(message, out);
        out.push(Delta::End);
        Ok(())
    }
}

fn push_text(text: &str, out: &mut Vec<Delta>) {
    if !text.is_empty() {
        out.push(Delta::Text(0, text.to_owned()));
    }
}

fn push_reasoning(text: &str, out: &mut Vec<Delta>) {
    if !text.is_empty() {
        out.push(Delta::Reasoning(0, text.to_owned()));
    }
}

/// A signature ends its block; it comes in one piece.
fn push_signature(signature: &str, out: &mut Vec<Delta>) {
    if !signature.is_empty() {
        let signature = signature.to_owned();
        out.push(Delta::Signature(0, Signature::Reasoning { signature }));
    }
}

/// Reads `stop_reason` and `stop_sequence`.
fn finish(message: &Value, out: &mut Vec<Delta>) {
    let stop = text_at(message, "/stop_sequence");
    let reason = match text_at(message, "/stop_reason") {
        "" => return,
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        "tool_use" => FinishReason::ToolCalls,
        "refusal" => FinishReason::ContentFilter,
        _ => FinishReason::Stop,
    };
    if !stop.is_empty() {
        out.push(Delta::Stop(0, stop.to_owned()));
    }
    out.push(Delta::Finished(0, reason));
}
