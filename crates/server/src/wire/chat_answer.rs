//! The answers of `POST /v1/chat/completions`: one body, or chunks.

use std::collections::BTreeMap;
use std::sync::Arc;

use byzerllm_core::{
    ChatResponse, Error, ErrorDetail, Event, FinishReason, Notice, Result, Signature, Signatures,
    ThinkingBlock, ToolCallDelta, Usage, extra_content,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::describe::words;
use super::logprobs::ChatLogprobs;
use super::notes::Notes;
use super::{FINGERPRINT, WireUsage, now};

/// Why an answer ended.
pub(crate) const FINISH_REASONS: &[&str] =
    &["stop", "length", "tool_calls", "content_filter", "cancelled", "error"];

/// What every part of an answer repeats.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Head {
    /// The id of the answer; behind the dash the id of the request.
    id: String,
    #[schemars(transform = words(&["chat.completion", "chat.completion.chunk", "text_completion"]))]
    object: &'static str,
    /// In seconds since 1970.
    created: u64,
    /// The deployment.
    model: String,
    /// The version of the server.
    system_fingerprint: &'static str,
}

impl Head {
    pub(crate) fn new(id: String, object: &'static str, model: String) -> Self {
        Self { id, object, created: now(), model, system_fingerprint: FINGERPRINT }
    }
}

/// Why one choice of several failed. OpenAI's API has no such thing, so it stands beside `finish_reason: "error"`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChoiceError {
    message: String,
    code: &'static str,
}

impl ChoiceError {
    pub(crate) fn of(reason: &FinishReason) -> Option<Self> {
        match reason {
            FinishReason::Error(detail) => {
                Some(Self { message: detail.message.clone(), code: detail.kind.code() })
            }
            _ => None,
        }
    }
}

impl ChoiceError {
    /// Why text that looked like a tool call is none. The choice is complete all the same.
    fn invalid_call(reason: &str) -> Self {
        let message = format!("the text holds a tool call that is none: {reason}");
        Self { message, code: "invalid_tool_call" }
    }
}

pub(crate) fn choice_failed(detail: ErrorDetail) -> Error {
    Error::new(detail.kind, detail.message)
}

/// When every choice failed, so did the request.
pub(crate) fn all_failed<'a>(reasons: impl Iterator<Item = &'a FinishReason>) -> Option<Error> {
    let mut first = None;
    for reason in reasons {
        let FinishReason::Error(detail) = reason else { return None };
        first.get_or_insert(detail);
    }
    first.cloned().map(choice_failed)
}

/// The whole answer.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChatCompletion")]
pub(crate) struct ChatAnswer {
    #[serde(flatten)]
    head: Head,
    choices: Vec<AnswerChoice>,
    usage: WireUsage,
    /// What there is to tell beside the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    byzerllm: Option<Notes>,
}

/// One of the answers.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChatCompletionChoice")]
struct AnswerChoice {
    index: usize,
    message: AnswerMessage,
    logprobs: Option<ChatLogprobs>,
    #[schemars(transform = words(FINISH_REASONS))]
    finish_reason: &'static str,
    /// The stop string that ended it, where the model or its vendor says which.
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ChoiceError>,
}

/// What the model said.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChatCompletionAnswerMessage")]
struct AnswerMessage {
    role: &'static str,
    content: Option<String>,
    refusal: Option<()>,
    /// What the model thought first, for models that do.
    #[serde(skip_serializing_if = "String::is_empty")]
    reasoning_content: String,
    /// The same block by block with the vendor's signatures, which it wants to see again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    thinking_blocks: Vec<ThinkingBlock>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

/// A call that the model wants made.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChatCompletionToolCall")]
struct ToolCall {
    id: String,
    r#type: &'static str,
    function: Function,
    /// The vendor's signature of the call, which it wants to see again.
    #[serde(skip_serializing_if = "Option::is_none")]
    extra_content: Option<Value>,
}

/// What is called.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChatCompletionToolCallFunction")]
struct Function {
    name: String,
    arguments: String,
}

impl ChatAnswer {
    pub(crate) fn new(head: Head, response: ChatResponse, notes: Notes) -> Result<Self> {
        if let Some(error) = all_failed(response.choices.iter().map(|choice| &choice.finish_reason)) {
            return Err(error.with_usage(response.usage));
        }
        let usage = WireUsage::sum([&response.usage]);
        let notices = response.notices;
        let invalid_call = |place: usize| {
            notices.iter().find_map(|notice| match notice {
                Notice::InvalidToolCall { choice, reason } if *choice as usize == place => {
                    Some(ChoiceError::invalid_call(reason))
                }
                _ => None,
            })
        };
        let choices = response
            .choices
            .into_iter()
            .enumerate()
            .map(|(index, choice)| {
                let Signatures { blocks, calls: signatures } = choice.signatures;
                let calls: Vec<ToolCall> = (0..)
                    .zip(choice.tool_calls)
                    .map(|(call, (id, name, arguments))| ToolCall {
                        id,
                        r#type: "function",
                        function: Function { name, arguments },
                        extra_content: signatures.get(&call).map(|signature| extra_content(signature)),
                    })
                    .collect();
                let content = (!choice.text.is_empty() || calls.is_empty()).then_some(choice.text);
                AnswerChoice {
                    index,
                    message: AnswerMessage {
                        role: "assistant",
                        content,
                        refusal: None,
                        reasoning_content: choice.reasoning,
                        thinking_blocks: blocks,
                        tool_calls: calls,
                    },
                    logprobs: choice.logprobs.map(ChatLogprobs::from),
                    finish_reason: choice.finish_reason.as_str(),
                    stop_reason: choice.stop,
                    error: ChoiceError::of(&choice.finish_reason).or_else(|| invalid_call(index)),
                }
            })
            .collect();
        Ok(Self { head, choices, usage, byzerllm: notes.some() })
    }
}

/// One chunk of a stream.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChatCompletionChunk")]
pub(crate) struct ChatChunk {
    #[serde(flatten)]
    head: Arc<Head>,
    choices: Vec<ChunkChoice>,
    /// `null` in all chunks but the last when usage was asked for, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<WireUsage>>,
    /// What there is to tell beside the answer, in the first chunk after it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    byzerllm: Option<Notes>,
}

/// A piece of one of the answers.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChatCompletionChunkChoice")]
struct ChunkChoice {
    index: u32,
    delta: Delta,
    logprobs: Option<ChatLogprobs>,
    #[schemars(transform = words(FINISH_REASONS))]
    finish_reason: Option<&'static str>,
    /// The stop string that ended it, where the model or its vendor says which.
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ChoiceError>,
}

/// What is added to the message.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(rename = "ChatCompletionDelta")]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    /// A whole block of the reasoning that came before, with the vendor's signature, which it wants to see again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    thinking_blocks: Vec<ThinkingBlock>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[DeltaCall; 1]>,
}

/// A piece of a call.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChatCompletionDeltaToolCall")]
struct DeltaCall {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: DeltaFunction,
    /// The vendor's signature of the call, which it wants to see again.
    #[serde(skip_serializing_if = "Option::is_none")]
    extra_content: Option<Value>,
}

/// A piece of what is called.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChatCompletionDeltaFunction")]
struct DeltaFunction {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

impl From<ToolCallDelta> for DeltaCall {
    fn from(delta: ToolCallDelta) -> Self {
        Self {
            index: delta.index,
            r#type: delta.id.is_some().then_some("function"),
            id: delta.id,
            function: DeltaFunction { name: delta.name, arguments: delta.arguments },
            extra_content: None,
        }
    }
}

/// Turns the events of one request into chunks.
pub(crate) struct ChatChunks {
    head: Arc<Head>,
    n: u32,
    include_usage: bool,
    /// Whether the client throws away what it has when a chunk says that the answer begins again.
    restarts: bool,
    /// Whether the client has seen anything that a restart would make void.
    said_something: bool,
    /// What the next chunk tells beside its text.
    notes: Notes,
    /// Why a choice's text holds a tool call that is none.
    invalid_calls: BTreeMap<u32, ChoiceError>,
    /// The reasoning of each choice that no signature covers yet.
    unsigned: BTreeMap<u32, String>,
    /// Signatures of calls that have not begun, by choice and call.
    signatures: BTreeMap<(u32, u32), String>,
    usage: Option<Usage>,
}

impl ChatChunks {
    pub(crate) fn new(head: Head, n: u32, include_usage: bool, restarts: bool) -> Self {
        Self {
            head: Arc::new(head),
            n,
            include_usage,
            restarts,
            said_something: false,
            notes: Notes::default(),
            invalid_calls: BTreeMap::new(),
            unsigned: BTreeMap::new(),
            signatures: BTreeMap::new(),
            usage: None,
        }
    }

    fn chunk(&mut self, choices: Vec<ChunkChoice>) -> ChatChunk {
        let byzerllm = std::mem::take(&mut self.notes).some();
        let usage = self.include_usage.then_some(None);
        ChatChunk { head: Arc::clone(&self.head), choices, usage, byzerllm }
    }

    /// A chunk per choice that begins its message.
    fn beginnings(&mut self) -> Vec<ChatChunk> {
        (0..self.n)
            .map(|index| {
                let delta =
                    Delta { role: Some("assistant"), content: Some(String::new()), ..Delta::default() };
                self.chunk(vec![ChunkChoice {
                    index,
                    delta,
                    logprobs: None,
                    finish_reason: None,
                    stop_reason: None,
                    error: None,
                }])
            })
            .collect()
    }

    /// A block of reasoning is told once it is whole; the signature of a call with the call.
    fn signature(&mut self, index: u32, signature: Signature) -> Vec<ChatChunk> {
        let mut all = Signatures::default();
        match signature {
            Signature::ToolCall { index: call, signature } => {
                self.signatures.insert((index, call), signature);
                return Vec::new();
            }
            Signature::Reasoning { .. } => {
                all.take(signature, self.unsigned.remove(&index).unwrap_or_default());
            }
            Signature::Hidden { .. } => all.take(signature, String::new()),
        }
        self.delta(index, Delta { thinking_blocks: all.blocks, ..Delta::default() }, None)
    }

    fn delta(&mut self, index: u32, delta: Delta, logprobs: Option<ChatLogprobs>) -> Vec<ChatChunk> {
        self.said_something = true;
        vec![self.chunk(vec![ChunkChoice {
            index,
            delta,
            logprobs,
            finish_reason: None,
            stop_reason: None,
            error: None,
        }])]
    }
}

impl crate::sse::Encode for ChatChunks {
    type Chunk = ChatChunk;

    fn event(&mut self, _prompt: usize, event: Event) -> Result<Vec<ChatChunk>> {
        self.notes.see(&event);
        Ok(match event {
            Event::Started { .. } => self.beginnings(),
            Event::Notice { notice: Notice::Restarted } if self.said_something => {
                if !self.restarts {
                    return Err(restarted());
                }
                self.said_something = false;
                self.invalid_calls.clear();
                self.unsigned.clear();
                self.signatures.clear();
                self.beginnings()
            }
            Event::Notice { notice: Notice::InvalidToolCall { choice, reason } } => {
                self.invalid_calls.entry(choice).or_insert_with(|| ChoiceError::invalid_call(&reason));
                Vec::new()
            }
            Event::Notice { .. } | Event::PromptLogprobs { .. } => Vec::new(),
            Event::Text { choice, text, logprobs } => {
                let delta = Delta { content: Some(text), ..Delta::default() };
                self.delta(choice, delta, logprobs.map(ChatLogprobs::from))
            }
            Event::Reasoning { choice, text } => {
                self.unsigned.entry(choice).or_default().push_str(&text);
                let delta = Delta { reasoning_content: Some(text), ..Delta::default() };
                self.delta(choice, delta, None)
            }
            Event::Signature { choice, signature } => self.signature(choice, signature),
            Event::ToolCall { choice, delta } => {
                let signature = self.signatures.remove(&(choice, delta.index));
                let mut call = DeltaCall::from(delta);
                call.extra_content = signature.as_deref().map(extra_content);
                let delta = Delta { tool_calls: Some([call]), ..Delta::default() };
                self.delta(choice, delta, None)
            }
            Event::Finished { reason: FinishReason::Error(detail), .. } if self.n == 1 => {
                return Err(choice_failed(detail));
            }
            Event::Finished { choice, reason, stop } => {
                let error = ChoiceError::of(&reason).or_else(|| self.invalid_calls.remove(&choice));
                let (delta, finish_reason) = (Delta::default(), Some(reason.as_str()));
                vec![self.chunk(vec![ChunkChoice {
                    index: choice,
                    delta,
                    logprobs: None,
                    finish_reason,
                    stop_reason: stop,
                    error,
                }])]
            }
            Event::Usage { usage } => {
                self.usage = Some(usage);
                Vec::new()
            }
        })
    }

    fn end(&mut self) -> Result<Vec<ChatChunk>> {
        let Some(usage) = &self.usage else { return Err(incomplete()) };
        if !self.include_usage {
            return Ok(Vec::new());
        }
        let usage = Some(Some(WireUsage::sum([usage])));
        let byzerllm = std::mem::take(&mut self.notes).some();
        Ok(vec![ChatChunk { head: Arc::clone(&self.head), choices: Vec::new(), usage, byzerllm }])
    }
}

/// A stream of this API cannot take back what it said.
pub(crate) fn restarted() -> Error {
    let message = "the model started its answer again, which this stream cannot express; send the request again, with \
                   `X-Byzerllm-Takeover: restart` where the client can throw away what it has";
    Error::new(byzerllm_core::ErrorKind::Upstream, message)
}

/// The same words as those of the fold.
pub(crate) fn incomplete() -> Error {
    Error::internal("the answer ended without its usage record; please report this")
}

#[cfg(test)]
mod tests {
    use byzerllm_core::{Choice, ErrorKind, RequestId};
    use serde_json::{Value, json};

    use super::*;
    use crate::sse::Encode;

    fn chunks(n: u32, events: Vec<Event>) -> Result<Vec<Value>> {
        let mut encoder =
            ChatChunks::new(Head::new("x".to_owned(), "chunk", "m".to_owned()), n, false, false);
        let mut all = Vec::new();
        for event in events {
            all.extend(encoder.event(0, event)?);
        }
        all.extend(encoder.end()?);
        Ok(all.into_iter().map(|chunk| serde_json::to_value(chunk).unwrap()["choices"][0].take()).collect())
    }

    fn failed(choice: u32) -> Event {
        let detail = ErrorDetail { kind: ErrorKind::Unavailable, message: "gone".to_owned() };
        Event::Finished { choice, reason: FinishReason::Error(detail), stop: None }
    }

    fn text(text: &str) -> Event {
        Event::Text { choice: 0, text: text.to_owned(), logprobs: None }
    }

    fn usage() -> Event {
        Event::Usage { usage: Usage::default() }
    }

    #[test]
    fn tool_calls_and_reasoning_have_their_own_deltas() {
        let delta = |id: Option<&str>, arguments: &str| Event::ToolCall {
            choice: 0,
            delta: ToolCallDelta {
                index: 0,
                id: id.map(str::to_owned),
                name: id.map(|_| "f".to_owned()),
                arguments: arguments.to_owned(),
            },
        };
        let thought = Event::Reasoning { choice: 0, text: "hm".to_owned() };
        let end = Event::Finished { choice: 0, reason: FinishReason::ToolCalls, stop: None };
        let got = chunks(1, vec![thought, delta(Some("c1"), "{"), delta(None, "}"), end, usage()]).unwrap();
        assert_eq!(got[0]["delta"], json!({"reasoning_content": "hm"}));
        let first =
            json!({"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{"}});
        assert_eq!(got[1]["delta"]["tool_calls"], json!([first]));
        assert_eq!(got[2]["delta"]["tool_calls"], json!([{"index": 0, "function": {"arguments": "}"}}]));
        assert_eq!(got[3]["finish_reason"], "tool_calls");
    }

    #[test]
    fn a_call_that_is_none_is_told_beside_its_choice() {
        let notice = || Notice::InvalidToolCall { choice: 0, reason: "it has no name".to_owned() };
        let end = Event::Finished { choice: 0, reason: FinishReason::Stop, stop: None };
        let events = vec![text("<tool_call>"), Event::Notice { notice: notice() }, end, usage()];
        let got = chunks(1, events).unwrap();
        assert_eq!(
            (got[1]["finish_reason"].as_str(), got[1]["error"]["code"].as_str()),
            (Some("stop"), Some("invalid_tool_call"))
        );
        let response = ChatResponse {
            request_id: RequestId("r".to_owned()),
            choices: vec![Choice { text: "<tool_call>".to_owned(), ..Choice::default() }],
            prompt_logprobs: None,
            notices: vec![notice()],
            usage: Usage::default(),
        };
        let answer =
            ChatAnswer::new(Head::new("x".to_owned(), "answer", "m".to_owned()), response, Notes::default())
                .unwrap();
        let answer = serde_json::to_value(answer).unwrap();
        assert_eq!(answer["choices"][0]["error"]["code"], "invalid_tool_call");
        assert_eq!(answer["choices"][0]["message"]["content"], "<tool_call>");
    }

    #[test]
    fn a_failed_choice_fails_the_request_only_when_it_is_alone() {
        assert_eq!(chunks(1, vec![failed(0), usage()]).unwrap_err().kind(), ErrorKind::Unavailable);
        let end = Event::Finished { choice: 0, reason: FinishReason::Stop, stop: None };
        let got = chunks(2, vec![end, failed(1), usage()]).unwrap();
        assert_eq!(got[1]["finish_reason"], "error");
        assert_eq!(got[1]["error"], json!({"message": "gone", "code": "unavailable"}));

        let Event::Finished { reason, .. } = failed(0) else { unreachable!() };
        let bad = Choice { finish_reason: reason, ..Choice::default() };
        let answer = |choices: Vec<Choice>| {
            let response = ChatResponse {
                request_id: RequestId("r".to_owned()),
                choices,
                prompt_logprobs: None,
                notices: Vec::new(),
                usage: Usage::default(),
            };
            ChatAnswer::new(Head::new("x".to_owned(), "answer", "m".to_owned()), response, Notes::default())
        };
        assert_eq!(answer(vec![bad.clone(), bad.clone()]).unwrap_err().kind(), ErrorKind::Unavailable);
        let mixed = serde_json::to_value(answer(vec![Choice::default(), bad]).unwrap()).unwrap();
        assert_eq!(mixed["choices"][1]["error"]["message"], "gone");
        assert_eq!(mixed["choices"][0]["finish_reason"], "stop");
    }

    #[test]
    fn a_restart_is_an_error_only_once_something_was_said() {
        let restart = || Event::Notice { notice: Notice::Restarted };
        let end = || Event::Finished { choice: 0, reason: FinishReason::Stop, stop: None };
        assert!(chunks(1, vec![restart(), text("a"), end(), usage()]).is_ok());
        assert_eq!(chunks(1, vec![text("a"), restart()]).unwrap_err().kind(), ErrorKind::Upstream);
    }

    #[test]
    fn who_can_throw_away_what_it_has_is_told_of_a_restart() {
        let head = Head::new("x".to_owned(), "chunk", "m".to_owned());
        let mut encoder = ChatChunks::new(head, 2, false, true);
        encoder.event(0, text("a")).unwrap();
        let chunks = encoder.event(0, Event::Notice { notice: Notice::Restarted }).unwrap();
        let chunks: Vec<Value> =
            chunks.into_iter().map(|chunk| serde_json::to_value(chunk).unwrap()).collect();
        assert_eq!(chunks[0]["byzerllm"], json!({"notices": [{"notice": "restarted"}]}));
        assert_eq!((chunks.len(), chunks[1].get("byzerllm")), (2, None));
        for chunk in &chunks {
            assert_eq!(chunk["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
        }
    }

    #[test]
    fn what_happened_on_the_way_is_told_with_the_next_chunk() {
        let started = Event::Started {
            request_id: RequestId("r".to_owned()),
            vendor_request_id: Some("v-1".to_owned()),
        };
        let notice = |notice| Event::Notice { notice };
        let head = Head::new("x".to_owned(), "chunk", "m".to_owned());
        let mut encoder = ChatChunks::new(head, 1, true, false);
        let estimated = Usage { source: byzerllm_core::UsageSource::Estimated, ..Usage::default() };
        let end = Event::Finished { choice: 0, reason: FinishReason::Stop, stop: None };
        let mut told = Vec::new();
        for event in [
            started,
            notice(Notice::FailedOver { to: "b".to_owned() }),
            notice(Notice::CacheHit { tokens: 3 }),
            text("a"),
            text("b"),
            end,
            Event::Usage { usage: estimated },
        ] {
            told.extend(encoder.event(0, event).unwrap());
        }
        told.extend(encoder.end().unwrap());
        let told: Vec<Value> =
            told.into_iter().map(|chunk| serde_json::to_value(chunk).unwrap()["byzerllm"].take()).collect();
        assert_eq!(
            told,
            [
                json!({"vendor_request_id": "v-1"}),
                json!({"notices": [{"notice": "failed_over", "to": "b"}]}),
                Value::Null,
                Value::Null,
                json!({"usage_source": "estimated"})
            ]
        );
    }

    #[test]
    fn a_stream_without_usage_is_an_error() {
        assert_eq!(chunks(1, vec![text("a")]).unwrap_err().kind(), ErrorKind::Internal);
    }
}
