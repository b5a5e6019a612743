//! The answer of `POST /v1/responses`.

use std::collections::BTreeMap;
use std::sync::Arc;

use byzerllm_core::{ChatResponse, Error, ErrorKind, FinishReason, RequestId, Result, ThinkingBlock, Usage};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::wire::chat_answer::choice_failed;
use crate::wire::describe::words;
use crate::wire::notes::Notes;
use crate::wire::now;

/// What an answer repeats of its request.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ResponseEcho")]
pub(crate) struct Echo {
    pub(crate) instructions: Option<String>,
    pub(crate) max_output_tokens: Option<u32>,
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) parallel_tool_calls: bool,
    #[schemars(extend("type" = ["string", "object"]))]
    pub(crate) tool_choice: Value,
    pub(crate) tools: Vec<Value>,
    #[schemars(extend("type" = "object"))]
    pub(crate) text: Value,
    #[schemars(extend("type" = "object"))]
    pub(crate) reasoning: Value,
    pub(crate) metadata: BTreeMap<String, String>,
    /// Always `false`: answers are waited for.
    pub(crate) background: bool,
    /// Always `false`: nothing is kept.
    pub(crate) store: bool,
    /// Always `null`: nothing is kept.
    pub(crate) previous_response_id: Option<()>,
    /// Always `disabled`.
    pub(crate) truncation: &'static str,
    /// Always `default`: there is one.
    pub(crate) service_tier: &'static str,
}

impl Default for Echo {
    fn default() -> Self {
        Self {
            instructions: None,
            max_output_tokens: None,
            temperature: None,
            top_p: None,
            parallel_tool_calls: true,
            tool_choice: "auto".into(),
            tools: Vec::new(),
            text: Value::Null,
            reasoning: Value::Null,
            metadata: BTreeMap::new(),
            background: false,
            store: false,
            previous_response_id: None,
            truncation: "disabled",
            service_tier: "default",
        }
    }
}

/// What every state of an answer repeats.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// The id of the request, which the ids of answer and items end with.
    pub(crate) request: RequestId,
    model: String,
    created_at: u64,
    echo: Arc<Echo>,
}

impl Head {
    pub(crate) fn new(request: RequestId, model: String, echo: Arc<Echo>) -> Self {
        Self { request, model, created_at: now(), echo }
    }
}

/// An answer, whole or on its way.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Response")]
pub(crate) struct ResponseAnswer {
    /// Behind the underscore the id of the request.
    id: String,
    object: &'static str,
    /// In seconds since 1970.
    created_at: u64,
    #[schemars(transform = words(&["in_progress", "completed", "incomplete", "failed"]))]
    status: &'static str,
    /// Why it failed.
    error: Option<ResponseError>,
    /// Why it is not complete.
    incomplete_details: Option<IncompleteDetails>,
    /// The deployment.
    model: String,
    output: Vec<Item>,
    usage: Option<ResponseUsage>,
    #[serde(flatten)]
    echo: Arc<Echo>,
    /// What there is to tell beside the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    byzerllm: Option<Notes>,
}

/// Why an answer failed.
#[derive(Debug, Serialize, JsonSchema)]
struct ResponseError {
    /// A stable word.
    code: &'static str,
    message: String,
}

/// Why an answer is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub(crate) struct IncompleteDetails {
    #[schemars(transform = words(&["max_output_tokens", "content_filter"]))]
    reason: &'static str,
}

/// An item of an answer.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ResponseOutputItem")]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Item {
    /// What the model said.
    Message {
        /// Its id.
        id: String,
        /// How far it is.
        status: Status,
        /// The model.
        role: &'static str,
        /// One part.
        content: Vec<Part>,
    },
    /// A call that the model wants made.
    FunctionCall {
        /// The item's id.
        id: String,
        /// How far it is.
        status: Status,
        /// The call's id.
        call_id: String,
        /// The function.
        name: String,
        /// JSON in a string.
        arguments: String,
    },
    /// What the model thought.
    Reasoning {
        /// Its id.
        id: String,
        /// How far it is.
        status: Status,
        /// Always empty: thoughts are told as they are.
        summary: Vec<Part>,
        /// One part.
        content: Vec<Part>,
        /// What the vendor wants to see again: its signature of the text, or, without text, what only it can read.
        #[serde(skip_serializing_if = "Option::is_none")]
        encrypted_content: Option<String>,
    },
}

/// How far an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    InProgress,
    Completed,
    Incomplete,
}

/// A part of an item.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ResponseContentPart")]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Part {
    /// Text of a message.
    OutputText {
        /// The text.
        text: String,
        /// Always empty.
        annotations: Vec<()>,
        /// Always empty.
        logprobs: Vec<()>,
    },
    /// Text of reasoning.
    ReasoningText {
        /// The text.
        text: String,
    },
}

impl Part {
    /// Text of a message.
    pub(crate) fn output(text: String) -> Self {
        Self::OutputText { text, annotations: Vec::new(), logprobs: Vec::new() }
    }
}

impl Item {
    pub(crate) fn message(place: usize, head: &Head, status: Status, content: Vec<Part>) -> Self {
        Self::Message { id: item_id("msg", place, head), status, role: "assistant", content }
    }

    pub(crate) fn reasoning(place: usize, head: &Head, status: Status, content: Vec<Part>) -> Self {
        Self::Reasoning {
            id: item_id("rs", place, head),
            status,
            summary: Vec::new(),
            content,
            encrypted_content: None,
        }
    }

    /// Reasoning that its vendor signed, or, without text, that only its vendor can read.
    pub(crate) fn signed(mut self, proof: Option<String>) -> Self {
        if let Self::Reasoning { encrypted_content, .. } = &mut self {
            *encrypted_content = proof;
        }
        self
    }

    pub(crate) fn call(
        place: usize,
        head: &Head,
        status: Status,
        (call_id, name, arguments): (String, String, String),
    ) -> Self {
        Self::FunctionCall { id: item_id("fc", place, head), status, call_id, name, arguments }
    }

    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Message { id, .. } | Self::FunctionCall { id, .. } | Self::Reasoning { id, .. } => id,
        }
    }
}

fn item_id(kind: &str, place: usize, head: &Head) -> String {
    format!("{kind}_{place}_{}", head.request)
}

/// The tokens spent.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ResponseUsage {
    input_tokens: u64,
    input_tokens_details: InputDetails,
    output_tokens: u64,
    output_tokens_details: OutputDetails,
    total_tokens: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct InputDetails {
    /// Tokens that came from a cache.
    cached_tokens: u64,
    /// Tokens that a vendor wrote into its cache.
    cache_write_tokens: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct OutputDetails {
    /// Tokens that are reasoning.
    reasoning_tokens: u64,
}

impl From<&Usage> for ResponseUsage {
    fn from(usage: &Usage) -> Self {
        let (input, output) = (u64::from(usage.prompt_tokens), u64::from(usage.completion_tokens));
        Self {
            input_tokens: input,
            input_tokens_details: InputDetails {
                cached_tokens: usage.cached_tokens.into(),
                cache_write_tokens: usage.cache_written_tokens.into(),
            },
            output_tokens: output,
            output_tokens_details: OutputDetails { reasoning_tokens: usage.reasoning_tokens.into() },
            total_tokens: input + output,
        }
    }
}

/// Why an answer is not complete, if it is not.
///
/// # Errors
/// The failure that ended it.
pub(crate) fn incomplete_details(reason: &FinishReason) -> Result<Option<IncompleteDetails>> {
    match reason {
        FinishReason::Stop | FinishReason::ToolCalls => Ok(None),
        FinishReason::Length => Ok(Some(IncompleteDetails { reason: "max_output_tokens" })),
        FinishReason::ContentFilter => Ok(Some(IncompleteDetails { reason: "content_filter" })),
        FinishReason::Cancelled => Err(Error::new(ErrorKind::Cancelled, "the request was cancelled")),
        FinishReason::Error(detail) => Err(choice_failed(detail.clone())),
    }
}

impl ResponseAnswer {
    /// An answer that has begun.
    pub(crate) fn begun(head: &Head) -> Self {
        Self {
            id: format!("resp_{}", head.request),
            object: "response",
            created_at: head.created_at,
            status: "in_progress",
            error: None,
            incomplete_details: None,
            model: head.model.clone(),
            output: Vec::new(),
            usage: None,
            echo: Arc::clone(&head.echo),
            byzerllm: None,
        }
    }

    /// An answer that is over.
    pub(crate) fn over(
        head: &Head,
        output: Vec<Item>,
        details: Option<IncompleteDetails>,
        usage: &Usage,
        notes: Notes,
    ) -> Self {
        Self {
            status: if details.is_some() { "incomplete" } else { "completed" },
            incomplete_details: details,
            output,
            usage: Some(usage.into()),
            byzerllm: notes.some(),
            ..Self::begun(head)
        }
    }

    /// An answer that failed.
    pub(crate) fn failed(head: &Head, output: Vec<Item>, error: &Error, notes: Notes) -> Self {
        let shown = ResponseError { code: error.kind().code(), message: error.message().to_owned() };
        Self {
            status: "failed",
            error: Some(shown),
            output,
            usage: error.usage().map(ResponseUsage::from),
            byzerllm: notes.some(),
            ..Self::begun(head)
        }
    }

    /// The whole answer.
    pub(crate) fn new(head: &Head, response: ChatResponse, notes: Notes) -> Result<Self> {
        let Some(choice) = response.choices.into_iter().next() else {
            return Err(Error::internal("the answer has no choice; please report this"));
        };
        let details = incomplete_details(&choice.finish_reason)
            .map_err(|error| error.with_usage(response.usage.clone()))?;
        let status =
            |last: bool| if last && details.is_some() { Status::Incomplete } else { Status::Completed };
        let calls = choice.tool_calls.len();
        let mut output = Vec::new();
        let (mut thoughts, mut signed) = (Vec::new(), 0);
        for block in choice.signatures.blocks {
            thoughts.push(match block {
                ThinkingBlock::Thinking { thinking, signature } => {
                    signed += thinking.len();
                    (thinking, Some(signature))
                }
                ThinkingBlock::RedactedThinking { data } => (String::new(), Some(data)),
            });
        }
        if let Some(rest) = choice.reasoning.get(signed..).filter(|rest| !rest.is_empty()) {
            thoughts.push((rest.to_owned(), None));
        }
        let end = thoughts.len();
        for (place, (text, proof)) in thoughts.into_iter().enumerate() {
            let last = place + 1 == end && choice.text.is_empty() && calls == 0;
            let content = if text.is_empty() { Vec::new() } else { vec![Part::ReasoningText { text }] };
            output.push(Item::reasoning(output.len(), head, status(last), content).signed(proof));
        }
        if !choice.text.is_empty() || (output.is_empty() && calls == 0) {
            output.push(Item::message(
                output.len(),
                head,
                status(calls == 0),
                vec![Part::output(choice.text)],
            ));
        }
        for (place, call) in choice.tool_calls.into_iter().enumerate() {
            output.push(Item::call(output.len(), head, status(place + 1 == calls), call));
        }
        Ok(Self::over(head, output, details, &response.usage, notes))
    }
}
