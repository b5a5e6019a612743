//! The event stream: the one form in which answers travel.
//!
//! The contract of a stream, which [`crate::testing::conformance`] checks:
//!
//! 1. `Started` comes first and once; then prompt log probabilities if asked for; then any number of deltas.
//! 2. Every choice has exactly one `Finished`, after its last delta. It may be an error of that choice alone.
//! 3. Exactly one `Usage`, last.
//! 4. An `Err` item ends the stream at once and carries the usage known so far.
//! 5. Dropping the stream cancels the work and frees its resources within one engine step; the usage is still
//!    reported to [`crate::RequestContext::on_usage`].
//! 6. Text deltas are whole UTF-8 characters, never re-sent and never empty unless they carry log probabilities.
//! 7. Tool-call argument deltas of a call concatenate to valid JSON when its choice finished with `ToolCalls`.
//! 8. A signature of a tool call comes before the call's first delta; one of reasoning after the last piece of its block.

use std::collections::BTreeMap;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, RequestId, Result, Signature, Signatures, Usage};

/// Why a choice ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "reason", content = "detail", rename_all = "snake_case")]
pub enum FinishReason {
    /// An end token or a stop string.
    Stop,
    /// The token limit or the end of the context.
    Length,
    /// The model called tools.
    ToolCalls,
    /// A vendor's filter cut the answer.
    ContentFilter,
    /// The caller or a deadline ended it.
    Cancelled,
    /// This choice failed; the others go on.
    Error(ErrorDetail),
}

/// The client-safe part of an error that concerns one choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorDetail {
    /// What went wrong.
    pub kind: crate::ErrorKind,
    /// The client-safe message.
    pub message: String,
}

impl FinishReason {
    /// The word of the OpenAI API.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
            Self::Cancelled => "cancelled",
            Self::Error(_) => "error",
        }
    }
}

/// Something worth telling that is not an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "notice", rename_all = "snake_case")]
pub enum Notice {
    /// Input was cut because the caller allowed it.
    Truncated {
        /// Which input of the request, where it has several; counts from 0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<u32>,
        /// Tokens before.
        from: u32,
        /// Tokens after.
        to: u32,
    },
    /// A parameter had no effect.
    Ignored {
        /// Its name.
        parameter: String,
    },
    /// Another deployment took over: before the first token, after [`Notice::Restarted`], or, when neither is the case,
    /// from the text so far.
    FailedOver {
        /// The deployment that answers.
        to: String,
    },
    /// The answer started again from its beginning; what came before is void.
    Restarted,
    /// The answer is one that was kept from an earlier request; no model was asked.
    Cached {
        /// Whole seconds since it was made.
        age_seconds: u64,
    },
    /// Part of the prompt was served from the prefix cache.
    CacheHit {
        /// Tokens not computed again.
        tokens: u32,
    },
    /// Text that looked like a tool call is none, and was passed on as text.
    InvalidToolCall {
        /// Which choice.
        choice: u32,
        /// Why.
        reason: String,
    },
}

/// The log probability of one token, and of the most likely alternatives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenLogprob {
    /// The token; [`TokenLogprob::NO_ID`] where a vendor does not say.
    pub id: u32,
    /// The token's own bytes; may be part of a character.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability before temperature and truncation; `None` for a first prompt token.
    pub logprob: Option<f32>,
    /// The most likely tokens at this position, best first: id, bytes, log probability.
    pub top: Vec<(u32, Vec<u8>, f32)>,
}

impl TokenLogprob {
    /// The id of a token of which only the bytes are known.
    pub const NO_ID: u32 = u32::MAX;
}

/// A piece of a tool call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolCallDelta {
    /// Which call of the choice.
    pub index: u32,
    /// The call's id, in its first delta.
    pub id: Option<String>,
    /// The function's name, in its first delta.
    pub name: Option<String>,
    /// The next piece of the JSON arguments.
    pub arguments: String,
}

/// One item of an answer. The module says in which order items come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The request was accepted.
    Started {
        /// Its id.
        request_id: RequestId,
        /// The vendor's id of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vendor_request_id: Option<String>,
    },
    /// The log probabilities of the prompt's tokens.
    PromptLogprobs {
        /// One entry per prompt token.
        logprobs: Vec<TokenLogprob>,
    },
    /// Something worth telling.
    Notice {
        /// What.
        #[serde(flatten)]
        notice: Notice,
    },
    /// The next piece of text of a choice.
    Text {
        /// Which choice.
        choice: u32,
        /// Whole characters.
        text: String,
        /// The tokens that make up this piece, when log probabilities were asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        logprobs: Option<Vec<TokenLogprob>>,
    },
    /// The next piece of reasoning text of a choice.
    Reasoning {
        /// Which choice.
        choice: u32,
        /// Whole characters.
        text: String,
    },
    /// The next piece of a tool call.
    ToolCall {
        /// Which choice.
        choice: u32,
        /// The piece.
        delta: ToolCallDelta,
    },
    /// What the vendor wants to see again with the conversation.
    Signature {
        /// Which choice.
        choice: u32,
        /// What is signed, and how.
        #[serde(flatten)]
        signature: Signature,
    },
    /// A choice is over.
    Finished {
        /// Which choice.
        choice: u32,
        /// Why.
        #[serde(flatten)]
        reason: FinishReason,
        /// The stop string that ended it, where it was one and whoever answered says which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stop: Option<String>,
    },
    /// The tokens spent; the last event.
    Usage {
        /// The numbers.
        #[serde(flatten)]
        usage: Usage,
    },
}

/// An answer in progress. Dropping it cancels the work.
pub type EventStream = BoxStream<'static, Result<Event>>;

/// One finished choice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The answer.
    pub text: String,
    /// Reasoning that preceded it.
    pub reasoning: String,
    /// The tool calls: id, name, JSON arguments.
    pub tool_calls: Vec<(String, String, String)>,
    /// Log probabilities of all tokens, when asked for.
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The stop string that ended it, where it was one and whoever answered says which.
    #[serde(default)]
    pub stop: Option<String>,
    /// What the vendor wants to see again with the conversation.
    #[serde(default)]
    pub signatures: Signatures,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            text: String::new(),
            reasoning: String::new(),
            tool_calls: Vec::new(),
            logprobs: None,
            finish_reason: FinishReason::Stop,
            stop: None,
            signatures: Signatures::default(),
        }
    }
}

/// A whole answer: the fold of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatResponse {
    /// The request's id.
    pub request_id: RequestId,
    /// The choices in order.
    pub choices: Vec<Choice>,
    /// Log probabilities of the prompt, when asked for.
    pub prompt_logprobs: Option<Vec<TokenLogprob>>,
    /// What was worth telling.
    pub notices: Vec<Notice>,
    /// The tokens spent.
    pub usage: Usage,
}

/// Folds a stream into a whole answer.
///
/// # Errors
/// The stream's own error; [`crate::ErrorKind::Internal`] when the stream ends without its `Usage`.
pub async fn collect(mut stream: impl Stream<Item = Result<Event>> + Unpin) -> Result<ChatResponse> {
    let mut response = ChatResponse {
        request_id: RequestId(String::new()),
        choices: Vec::new(),
        prompt_logprobs: None,
        notices: Vec::new(),
        usage: Usage::default(),
    };
    let mut choices: BTreeMap<u32, Choice> = BTreeMap::new();
    // Where the reasoning of each choice begins that no signature covers yet.
    let mut unsigned: BTreeMap<u32, usize> = BTreeMap::new();
    let mut complete = false;
    while let Some(event) = stream.next().await {
        match event? {
            Event::Started { request_id, .. } => response.request_id = request_id,
            Event::PromptLogprobs { logprobs } => response.prompt_logprobs = Some(logprobs),
            Event::Notice { notice: Notice::Restarted } => {
                choices.clear();
                unsigned.clear();
            }
            Event::Notice { notice } => response.notices.push(notice),
            Event::Text { choice, text, logprobs } => {
                let entry = choices.entry(choice).or_default();
                entry.text.push_str(&text);
                if let Some(logprobs) = logprobs {
                    entry.logprobs.get_or_insert_default().extend(logprobs);
                }
            }
            Event::Reasoning { choice, text } => choices.entry(choice).or_default().reasoning.push_str(&text),
            Event::ToolCall { choice, delta } => {
                let calls = &mut choices.entry(choice).or_default().tool_calls;
                let index = delta.index as usize;
                if calls.len() <= index {
                    calls.resize_with(index + 1, Default::default);
                }
                let call = &mut calls[index];
                call.0.extend(delta.id);
                call.1.extend(delta.name);
                call.2.push_str(&delta.arguments);
            }
            Event::Signature { choice, signature } => {
                let entry = choices.entry(choice).or_default();
                let mut reasoning = String::new();
                if matches!(signature, Signature::Reasoning { .. }) {
                    let start = unsigned.insert(choice, entry.reasoning.len()).unwrap_or_default();
                    reasoning.push_str(entry.reasoning.get(start..).unwrap_or_default());
                }
                entry.signatures.take(signature, reasoning);
            }
            Event::Finished { choice, reason, stop } => {
                let entry = choices.entry(choice).or_default();
                entry.finish_reason = reason;
                entry.stop = stop;
            }
            Event::Usage { usage } => {
                response.usage = usage;
                complete = true;
            }
        }
    }
    if !complete {
        return Err(Error::internal("the answer ended without its usage record; please report this"));
    }
    response.choices = choices.into_values().collect();
    Ok(response)
}
