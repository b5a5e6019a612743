//! Answers of the first API, and its errors.

use std::time::Duration;

use byzerllm_core::{Error, ErrorKind, FinishReason, Result, ToolCallDelta, Usage};
use serde_json::Value;

use super::first::{CREDENTIALS, NAME};
use crate::dialects::openai::Meaning;
use crate::dialects::shared::{self, Refusal, count_at, text_at};
use crate::{Decode, Delta, Frame};

/// Maps `{"error_code", "error_msg", "id"}`, which comes with status 200, and the token exchange's `{"error"}`.
pub(super) fn error(
    status: u16,
    value: &Value,
    exchanged: bool,
    id: Option<&str>,
    retry_after: Option<Duration>,
) -> Error {
    let code = value.get("error_code").and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()));
    let message = ["/error_msg", "/error_description"]
        .iter()
        .map(|at| text_at(value, at))
        .find(|text| !text.is_empty());
    let message = message.unwrap_or_default();
    let request_id = Some(text_at(value, "/id")).filter(|id| !id.is_empty()).or(id);
    if exchanged && matches!(code, Some(110 | 111)) {
        // A token that was taken back: it is fetched again.
        let error = Error::new(
            ErrorKind::Unauthenticated,
            format!("{NAME} calls the token of this deployment wrong; check its {CREDENTIALS}"),
        );
        return match request_id {
            Some(id) => error.with_vendor_request_id(id),
            None => error,
        };
    }
    let meaning = match code {
        _ if matches!(text_at(value, "/error"), "invalid_client" | "unauthorized_client") => {
            Some(Meaning::Credential)
        }
        None => None,
        Some(2 | 336_100 | 336_200) => Some(Meaning::Overloaded),
        Some(3 | 336_005) => Some(Meaning::NotFound),
        Some(4 | 17 | 18 | 336_501 | 336_502) => Some(Meaning::RateLimited),
        Some(19) => Some(Meaning::Balance),
        Some(6 | 336_004 | 336_120) => Some(Meaning::Permission),
        Some(13 | 14 | 100 | 110 | 111) => Some(Meaning::Credential),
        Some(336_103) => Some(Meaning::TooLarge),
        Some(336_001..=336_099 | 336_101..=336_199) if shared::is_too_long(message) => {
            Some(Meaning::TooLarge)
        }
        Some(336_001..=336_099 | 336_101..=336_199) => Some(Meaning::Invalid),
        Some(_) => Some(Meaning::Failed),
    };
    let said = match code {
        Some(code) => format!("{code}: {message}"),
        None => message.to_owned(),
    };
    let credentials =
        if exchanged { CREDENTIALS } else { "saas.api_key, saas.secret_key and saas.access_token" };
    Refusal { vendor: NAME, status, meaning, message: &said, credentials, request_id, retry_after }.error()
}

/// Reads an answer, whole or in pieces.
pub(super) struct Reader {
    whole: bool,
    exchanged: bool,
    /// The number of the last piece and its frame, to know it when it comes twice.
    last: Option<(u64, String)>,
    over: bool,
}

impl Reader {
    /// For an answer in one piece when `whole`, to a message whose token is fetched anew when it is wrong if `exchanged`.
    pub(super) fn new(whole: bool, exchanged: bool) -> Self {
        Self { whole, exchanged, last: None, over: false }
    }
}

impl Decode for Reader {
    fn frame(&mut self, frame: Frame<'_>, out: &mut Vec<Delta>) -> Result<()> {
        let value = shared::json(NAME, frame.data)?;
        if value.get("error_code").is_some() {
            return Err(error(0, &value, self.exchanged, None, None));
        }
        let number = value.get("sentence_id").and_then(Value::as_u64);
        let again =
            self.last.as_ref().is_some_and(|(last, data)| number == Some(*last) && data == frame.data);
        if self.over || again {
            return Ok(());
        }
        self.last = number.map(|number| (number, frame.data.to_owned()));
        let id = text_at(&value, "/id");
        if !id.is_empty() {
            out.push(Delta::RequestId(id.to_owned()));
        }
        let text = text_at(&value, "/result");
        if !text.is_empty() {
            out.push(Delta::Text(0, text.to_owned()));
        }
        let call = value.get("function_call").filter(|call| call.is_object());
        if call.is_none() && value.get("result").is_none() {
            return Err(Error::new(ErrorKind::Upstream, format!("{NAME} sent a frame without a result")));
        }
        if let Some(call) = call {
            // It comes whole and without an id.
            let arguments = text_at(call, "/arguments");
            let arguments = if arguments.is_empty() { "{}" } else { arguments }.to_owned();
            let delta = ToolCallDelta {
                index: 0,
                id: Some(format!("call-{}", if id.is_empty() { "0" } else { id })),
                name: Some(text_at(call, "/name").to_owned()),
                arguments,
            };
            out.push(Delta::ToolCall(0, delta));
        }
        let flag = |name: &str| value.get(name).and_then(Value::as_bool) == Some(true);
        if self.whole || flag("is_end") {
            self.over = true;
            let reason = match text_at(&value, "/finish_reason") {
                "content_filter" => FinishReason::ContentFilter,
                // The vendor found the conversation unsafe.
                _ if flag("need_clear_history") => FinishReason::ContentFilter,
                "length" => FinishReason::Length,
                "function_call" => FinishReason::ToolCalls,
                _ if call.is_some() => FinishReason::ToolCalls,
                _ if flag("is_truncated") => FinishReason::Length,
                _ => FinishReason::Stop,
            };
            out.push(Delta::Finished(0, reason));
            // What frames before the last one count is a part.
            if let Some(usage) = value.get("usage").and_then(usage) {
                out.push(Delta::Usage(usage));
            }
            out.push(Delta::End);
        }
        Ok(())
    }
}

fn usage(value: &Value) -> Option<Usage> {
    let prompt = count_at(value, "/prompt_tokens")?;
    let completion = count_at(value, "/completion_tokens");
    let completion =
        completion.or_else(|| count_at(value, "/total_tokens")?.checked_sub(prompt)).unwrap_or_default();
    Some(shared::reported(prompt, completion))
}
