//! Answers of DashScope, and its errors.

use std::collections::BTreeMap;
use std::time::Duration;

use byzerllm_core::{Error, ErrorKind, FinishReason, Result, ToolCallDelta, Usage};
use serde_json::{Value, json};

use super::{CREDENTIALS, NAME};
use crate::dialects::openai::Meaning;
use crate::dialects::shared::{self, Growing, Refusal, count_at, text_at};
use crate::{Decode, Delta, Frame};

/// How the vendor's codes begin, in small letters.
const ERRORS: &[(&[&str], Meaning)] = &[
    (&["throttling", "limitrequests", "limit_requests", "allocationquota"], Meaning::RateLimited),
    (&["invalidapikey", "invalid_api_key", "invalid_access"], Meaning::Credential),
    (&["arrearage", "prepaidbilloverdue", "postpaidbilloverdue", "insufficient_quota"], Meaning::Balance),
    (
        &[
            "accessdenied",
            "access_denied",
            "model.accessdenied",
            "workspace.accessdenied",
            "commoditynotpurchased",
            "unpurchased",
        ],
        Meaning::Permission,
    ),
    (
        &[
            "datainspection",
            "data_inspection",
            "invalidparameter.datainspection",
            "ipinfringement",
            "faqruleblocked",
            "customroleblocked",
        ],
        Meaning::Filtered,
    ),
    (
        &["modelnotfound", "model_not_found", "workspacenotfound", "invalidparameter.notfound"],
        Meaning::NotFound,
    ),
    (&["badrequest.toolarge"], Meaning::TooLarge),
    (&["modelunavailable", "model_unavailable", "serviceunavailable", "systemoverload"], Meaning::Overloaded),
    (
        &[
            "internalerror",
            "internal_error",
            "requesttimeout",
            "responsetimeout",
            "systemerror",
            "modelserving",
            "modelservicefailed",
            "algo",
        ],
        Meaning::Failed,
    ),
    (&["unsupported", "notsupported"], Meaning::Unsupported),
    (&["invalid", "badrequest", "conflict"], Meaning::Invalid),
];

/// Maps an error body, of a whole answer or of a stream's frame.
pub(super) fn error(status: u16, value: &Value, id: Option<&str>, retry_after: Option<Duration>) -> Error {
    let (code, message) = (text_at(value, "/code"), text_at(value, "/message"));
    let lower = code.to_ascii_lowercase();
    let starts = |words: &[&str]| words.iter().any(|word| lower.starts_with(word));
    let listed = ERRORS.iter().find(|(words, _)| starts(words)).map(|(_, meaning)| *meaning);
    let meaning = if shared::is_too_long(message) && listed.is_none_or(|meaning| meaning == Meaning::Invalid)
    {
        Some(Meaning::TooLarge)
    } else {
        listed
    };
    let said = if code.is_empty() { message.to_owned() } else { format!("{code}: {message}") };
    let id = Some(text_at(value, "/request_id")).filter(|id| !id.is_empty()).or(id);
    Refusal {
        vendor: NAME,
        status,
        meaning,
        message: &said,
        credentials: CREDENTIALS,
        request_id: id,
        retry_after,
    }
    .error()
}

/// Reads an answer, whole or in pieces, cumulative or not.
pub(super) struct Reader {
    cumulative: bool,
    /// The number of the last event and what it held, to know it when it comes twice.
    last: Option<(String, String)>,
    choices: BTreeMap<u32, ChoiceState>,
}

impl Reader {
    /// For frames that each hold everything so far, when `cumulative`; else for pieces, or for one whole answer.
    pub(super) fn new(cumulative: bool) -> Self {
        Self { cumulative, last: None, choices: BTreeMap::new() }
    }
}

#[derive(Default)]
struct ChoiceState {
    text: Growing,
    reasoning: Growing,
    calls: BTreeMap<u32, CallState>,
    finished: bool,
}

#[derive(Default)]
struct CallState {
    started: bool,
    arguments: Growing,
}

impl Decode for Reader {
    fn frame(&mut self, frame: Frame<'_>, out: &mut Vec<Delta>) -> Result<()> {
        let value = shared::json(NAME, frame.data)?;
        if frame.event == "error" || !text_at(&value, "/code").is_empty() {
            return Err(error(0, &value, None, None));
        }
        if !frame.id.is_empty() {
            if self.last.as_ref().is_some_and(|(id, data)| id == frame.id && data == frame.data) {
                return Ok(());
            }
            self.last = Some((frame.id.to_owned(), frame.data.to_owned()));
        }
        let id = text_at(&value, "/request_id");
        if !id.is_empty() {
            out.push(Delta::RequestId(id.to_owned()));
        }
        let output = value.get("output").ok_or_else(|| unexpected("a frame without output"))?;
        match output.get("choices").and_then(Value::as_array) {
            Some(choices) => {
                for (position, choice) in choices.iter().enumerate() {
                    let index = count_at(choice, "/index")
                        .or_else(|| u32::try_from(position).ok())
                        .unwrap_or_default();
                    self.choice(
                        index,
                        choice.get("message").unwrap_or(&Value::Null),
                        choice.get("finish_reason"),
                        out,
                    )?;
                }
            }
            // Models that know no messages.
            None => {
                let message = json!({"content": text_at(output, "/text")});
                self.choice(0, &message, output.get("finish_reason"), out)?;
            }
        }
        if let Some(usage) = value.get("usage").and_then(usage) {
            out.push(Delta::Usage(usage));
        }
        Ok(())
    }
}

impl Reader {
    fn choice(
        &mut self,
        index: u32,
        message: &Value,
        reason: Option<&Value>,
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        let cumulative = self.cumulative;
        let state = self.choices.entry(index).or_default();
        let reason = finish_reason(reason.and_then(Value::as_str).unwrap_or_default());
        if state.finished {
            return Ok(());
        }
        let last = reason.is_some();
        let next = |growing: &mut Growing, text: String| {
            if cumulative { growing.advance(NAME, &text, last) } else { Ok(text) }
        };
        let reasoning = next(&mut state.reasoning, text_at(message, "/reasoning_content").to_owned())?;
        if !reasoning.is_empty() {
            out.push(Delta::Reasoning(index, reasoning));
        }
        let text = next(&mut state.text, content(message.get("content")))?;
        if !text.is_empty() {
            out.push(Delta::Text(index, text));
        }
        for (position, call) in
            message.get("tool_calls").and_then(Value::as_array).into_iter().flatten().enumerate()
        {
            let number =
                count_at(call, "/index").or_else(|| u32::try_from(position).ok()).unwrap_or_default();
            let known = state.calls.entry(number).or_default();
            let arguments = next(&mut known.arguments, text_at(call, "/function/arguments").to_owned())?;
            let name = text_at(call, "/function/name");
            let start = !known.started && !name.is_empty();
            known.started |= start;
            if start || !arguments.is_empty() {
                let first = |text: &str| (start && !text.is_empty()).then(|| text.to_owned());
                let (id, name) = (first(text_at(call, "/id")), first(name));
                out.push(Delta::ToolCall(index, ToolCallDelta { index: number, id, name, arguments }));
            }
        }
        if let Some(reason) = reason {
            state.finished = true;
            out.push(Delta::Finished(index, reason));
        }
        Ok(())
    }
}

/// The text of a content, which models of pictures write as a list of parts.
fn content(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().map(|part| text_at(part, "/text")).collect(),
        _ => String::new(),
    }
}

fn finish_reason(word: &str) -> Option<FinishReason> {
    match word {
        "" | "null" => None,
        "length" => Some(FinishReason::Length),
        "tool_calls" => Some(FinishReason::ToolCalls),
        "content_filter" => Some(FinishReason::ContentFilter),
        _ => Some(FinishReason::Stop),
    }
}

fn usage(value: &Value) -> Option<Usage> {
    let prompt = count_at(value, "/input_tokens")?;
    let mut usage = shared::reported(prompt, count_at(value, "/output_tokens").unwrap_or_default());
    let first = |pointers: [&str; 2]| {
        pointers.iter().find_map(|pointer| count_at(value, pointer)).unwrap_or_default()
    };
    usage.cached_tokens =
        first(["/prompt_tokens_details/cached_tokens", "/input_tokens_details/cached_tokens"]);
    usage.cache_written_tokens = first([
        "/prompt_tokens_details/cache_creation_input_tokens",
        "/input_tokens_details/cache_creation_input_tokens",
    ]);
    usage.reasoning_tokens =
        first(["/output_tokens_details/reasoning_tokens", "/completion_tokens_details/reasoning_tokens"]);
    Some(usage)
}

fn unexpected(what: &str) -> Error {
    Error::new(ErrorKind::Upstream, format!("{NAME} sent {what}"))
}
