//! The answers of `POST /v1/chat/completions`: one body, or chunks.

use byzerllm_core::{
    ChatResponse, Error, ErrorDetail, Event, FinishReason, Notice, Result, ToolCallDelta, Usage,
};
use serde::Serialize;

use super::logprobs::ChatLogprobs;
use super::{FINGERPRINT, WireUsage, now};

/// What every part of an answer repeats.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Head {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    system_fingerprint: &'static str,
}

impl Head {
    pub(crate) fn new(id: String, object: &'static str, model: String) -> Self {
        Self { id, object, created: now(), model, system_fingerprint: FINGERPRINT }
    }
}

/// Why one choice of several failed. OpenAI's API has no such thing, so it stands beside `finish_reason: "error"`.
#[derive(Debug, Serialize)]
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
#[derive(Debug, Serialize)]
pub(crate) struct ChatAnswer {
    #[serde(flatten)]
    head: Head,
    choices: Vec<AnswerChoice>,
    usage: WireUsage,
}

#[derive(Debug, Serialize)]
struct AnswerChoice {
    index: usize,
    message: AnswerMessage,
    logprobs: Option<ChatLogprobs>,
    finish_reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ChoiceError>,
}

#[derive(Debug, Serialize)]
struct AnswerMessage {
    role: &'static str,
    content: Option<String>,
    refusal: Option<()>,
    #[serde(skip_serializing_if = "String::is_empty")]
    reasoning_content: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

#[derive(Debug, Serialize)]
struct ToolCall {
    id: String,
    r#type: &'static str,
    function: Function,
}

#[derive(Debug, Serialize)]
struct Function {
    name: String,
    arguments: String,
}

impl ChatAnswer {
    pub(crate) fn new(head: Head, response: ChatResponse) -> Result<Self> {
        if let Some(error) = all_failed(response.choices.iter().map(|choice| &choice.finish_reason)) {
            return Err(error.with_usage(response.usage));
        }
        let usage = WireUsage::sum([&response.usage]);
        let choices = response
            .choices
            .into_iter()
            .enumerate()
            .map(|(index, choice)| {
                let calls: Vec<ToolCall> = choice
                    .tool_calls
                    .into_iter()
                    .map(|(id, name, arguments)| ToolCall {
                        id,
                        r#type: "function",
                        function: Function { name, arguments },
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
                        tool_calls: calls,
                    },
                    logprobs: choice.logprobs.map(ChatLogprobs::from),
                    finish_reason: choice.finish_reason.as_str(),
                    error: ChoiceError::of(&choice.finish_reason),
                }
            })
            .collect();
        Ok(Self { head, choices, usage })
    }
}

/// One chunk of a stream.
#[derive(Debug, Serialize)]
pub(crate) struct ChatChunk {
    #[serde(flatten)]
    head: Head,
    choices: Vec<ChunkChoice>,
    /// `null` in all chunks but the last when usage was asked for, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<WireUsage>>,
}

#[derive(Debug, Serialize)]
struct ChunkChoice {
    index: u32,
    delta: Delta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ChoiceError>,
}

#[derive(Debug, Default, Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[DeltaCall; 1]>,
}

#[derive(Debug, Serialize)]
struct DeltaCall {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: DeltaFunction,
}

#[derive(Debug, Serialize)]
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
        }
    }
}

/// Turns the events of one request into chunks.
pub(crate) struct ChatChunks {
    head: Head,
    n: u32,
    include_usage: bool,
    /// Whether the client has seen anything that a restart would make void.
    said_something: bool,
    usage: Option<Usage>,
}

impl ChatChunks {
    pub(crate) fn new(head: Head, n: u32, include_usage: bool) -> Self {
        Self { head, n, include_usage, said_something: false, usage: None }
    }

    fn chunk(&self, choices: Vec<ChunkChoice>) -> ChatChunk {
        ChatChunk { head: self.head.clone(), choices, usage: self.include_usage.then_some(None) }
    }

    fn delta(&mut self, index: u32, delta: Delta, logprobs: Option<ChatLogprobs>) -> Vec<ChatChunk> {
        self.said_something = true;
        vec![self.chunk(vec![ChunkChoice { index, delta, logprobs, finish_reason: None, error: None }])]
    }
}

impl crate::sse::Encode for ChatChunks {
    type Chunk = ChatChunk;

    fn event(&mut self, _prompt: usize, event: Event) -> Result<Vec<ChatChunk>> {
        Ok(match event {
            Event::Started { .. } => (0..self.n)
                .map(|index| {
                    let delta =
                        Delta { role: Some("assistant"), content: Some(String::new()), ..Delta::default() };
                    self.chunk(vec![ChunkChoice {
                        index,
                        delta,
                        logprobs: None,
                        finish_reason: None,
                        error: None,
                    }])
                })
                .collect(),
            Event::Notice { notice: Notice::Restarted } if self.said_something => return Err(restarted()),
            Event::Notice { .. } | Event::PromptLogprobs { .. } => Vec::new(),
            Event::Text { choice, text, logprobs } => {
                let delta = Delta { content: Some(text), ..Delta::default() };
                self.delta(choice, delta, logprobs.map(ChatLogprobs::from))
            }
            Event::Reasoning { choice, text } => {
                let delta = Delta { reasoning_content: Some(text), ..Delta::default() };
                self.delta(choice, delta, None)
            }
            Event::ToolCall { choice, delta } => {
                let delta = Delta { tool_calls: Some([delta.into()]), ..Delta::default() };
                self.delta(choice, delta, None)
            }
            Event::Finished { reason: FinishReason::Error(detail), .. } if self.n == 1 => {
                return Err(choice_failed(detail));
            }
            Event::Finished { choice, reason } => vec![self.chunk(vec![ChunkChoice {
                index: choice,
                delta: Delta::default(),
                logprobs: None,
                finish_reason: Some(reason.as_str()),
                error: ChoiceError::of(&reason),
            }])],
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
        Ok(vec![ChatChunk { head: self.head.clone(), choices: Vec::new(), usage }])
    }
}

/// A stream of this API cannot take back what it said.
pub(crate) fn restarted() -> Error {
    let message =
        "the model started its answer again, which this stream cannot express; send the request again";
    Error::new(byzerllm_core::ErrorKind::Upstream, message)
}

/// The same words as those of the fold.
pub(crate) fn incomplete() -> Error {
    Error::internal("the answer ended without its usage record; please report this")
}
