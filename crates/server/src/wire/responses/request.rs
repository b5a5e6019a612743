//! The request of `POST /v1/responses`.
//!
//! Nothing is kept between requests: what refers to earlier ones is refused by name, and every answer says `store: false`.

use std::collections::BTreeMap;
use std::sync::Arc;

use byzerllm_core::{ChatRequest, Error, FrontEnd, Input, Result, Sampling, Tool};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::Echo;
use super::format::{WireText, shown_text, text};
use super::items::{WireInput, messages};
use super::tools::{ResponseChoice, WireTool, choice, shown_choice, shown_tool};
use crate::limits;
use crate::wire::common::refuse;
use crate::wire::describe::{NoEffect, only};
use crate::wire::fields::{Capped, Given, Object, Word, unsupported};
use crate::wire::tools;

/// A conversation to answer.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ResponseRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct ResponseBody {
    /// The deployment.
    model: String,
    /// The conversation. A text is what the user says.
    input: WireInput,
    /// Instructions that stand above the conversation.
    #[serde(default)]
    instructions: Option<String>,
    /// Answer with server-sent events.
    #[serde(default)]
    stream: Option<bool>,
    /// What a stream carries beside the answer; only with `stream: true`.
    #[serde(default)]
    stream_options: Option<Object<StreamOptions>>,
    /// New tokens at most; absent: up to the end of the context.
    #[serde(default)]
    #[schemars(range(min = 1))]
    max_output_tokens: Option<u32>,
    /// 0 always takes the likeliest token.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    temperature: Option<f32>,
    /// Keep the smallest set of tokens whose probability reaches this.
    #[serde(default)]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    top_p: Option<f32>,
    /// The functions that the model may call.
    #[serde(default)]
    tools: Option<Capped<Object<WireTool>, { limits::TOOLS }>>,
    /// Whether and which of them it must call; `auto` when absent.
    #[serde(default)]
    tool_choice: Option<ResponseChoice>,
    /// `false` limits an answer to one call; `true` when absent.
    #[serde(default)]
    parallel_tool_calls: Option<bool>,
    /// What the answer must look like; enforced while decoding.
    #[serde(default)]
    text: Option<Object<WireText>>,
    /// How much the model should think. Something only for models that have `reasoning_effort`.
    #[serde(default)]
    reasoning: Option<Object<WireReasoning>>,
    /// Words of the caller, which the answer gives back.
    #[serde(default)]
    #[schemars(extend("maxProperties" = limits::METADATA))]
    metadata: Option<BTreeMap<String, String>>,
    /// Further parts of the answer. Reasoning is told as it is, so that its encrypted form is not needed.
    #[serde(default)]
    #[schemars(transform = includable)]
    include: Option<Capped<String, 8>>,
    /// Nothing is kept.
    #[serde(default)]
    store: Given,
    /// Nothing is kept.
    #[serde(default)]
    previous_response_id: Given,
    /// Nothing is kept.
    #[serde(default)]
    conversation: Given,
    /// Nothing is kept.
    #[serde(default)]
    prompt: Given,
    /// Answers are waited for.
    #[serde(default)]
    background: Given,
    /// Only functions of the caller are called.
    #[serde(default)]
    max_tool_calls: Given,
    /// Log probabilities.
    #[serde(default)]
    top_logprobs: Given,
    /// Cutting the conversation.
    #[serde(default)]
    context_management: Given,
    /// Judging the conversation.
    #[serde(default)]
    moderation: Given,
    /// Cutting the conversation.
    #[serde(default)]
    #[schemars(transform = only(TRUNCATION))]
    truncation: Word,
    /// There is one.
    #[serde(default)]
    #[schemars(transform = only(SERVICE_TIER))]
    service_tier: Word,
    /// Common prefixes are found without it.
    #[serde(default, rename = "prompt_cache_key")]
    _prompt_cache_key: NoEffect<String>,
    /// The cache keeps what fits.
    #[serde(default, rename = "prompt_cache_retention")]
    _prompt_cache_retention: NoEffect<String>,
    /// Who asks, in words of the caller.
    #[serde(default, rename = "safety_identifier")]
    _safety_identifier: NoEffect<String>,
    /// Who asks, in words of the caller.
    #[serde(default, rename = "user")]
    _user: NoEffect<String>,
}

const TRUNCATION: &[&str] = &["disabled"];
const SERVICE_TIER: &[&str] = &["auto", "default"];
const INCLUDABLE: &str = "reasoning.encrypted_content";

fn includable(schema: &mut schemars::Schema) {
    schema.insert("items".to_owned(), json!({ "const": INCLUDABLE }));
    schema.insert(crate::wire::describe::NEUTRAL.to_owned(), true.into());
}

/// What a stream carries beside the answer.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ResponseStreamOptions")]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    /// Nothing is obfuscated.
    #[serde(default, rename = "include_obfuscation")]
    _include_obfuscation: NoEffect<bool>,
}

/// How much the model should think.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ResponseReasoning")]
#[serde(deny_unknown_fields)]
struct WireReasoning {
    /// `none`, or for models that have `reasoning_effort` what they know.
    #[serde(default)]
    effort: Option<String>,
    /// Reasoning is told as it is.
    #[serde(default, rename = "summary")]
    _summary: NoEffect<String>,
    /// Reasoning is told as it is.
    #[serde(default, rename = "generate_summary")]
    _generate_summary: NoEffect<String>,
}

/// A request, what its answer repeats, and whether that is a stream.
#[derive(Debug)]
pub(crate) struct AskedResponse {
    pub(crate) request: ChatRequest,
    pub(crate) echo: Arc<Echo>,
    pub(crate) stream: bool,
}

impl ResponseBody {
    /// The deployment.
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// The request in our words. `declared` are the parameters that the model has beside ours.
    pub(crate) fn into_request(
        self,
        mut extra: Map<String, Value>,
        declared: &[&str],
    ) -> Result<AskedResponse> {
        self.check_features()?;
        let stream = self.stream.unwrap_or(false);
        if self.stream_options.is_some() && !stream {
            let message = "`stream_options` means something only with `stream: true`";
            return Err(Error::invalid("stream_options", message));
        }
        if self.max_output_tokens == Some(0) {
            return Err(Error::invalid("max_output_tokens", "`max_output_tokens` must be at least 1"));
        }
        let metadata = metadata(self.metadata)?;
        let (format, verbosity, shown_format) = text(self.text)?;
        let effort = self.reasoning.and_then(|Object(reasoning)| reasoning.effort);
        let words = [
            ("reasoning.effort", "reasoning_effort", effort.clone().filter(|word| word != "none")),
            ("text.verbosity", "verbosity", verbosity.clone()),
        ];
        for (field, parameter, word) in words {
            let Some(word) = word else { continue };
            if !declared.contains(&parameter) {
                return Err(unsupported(field, "this value is"));
            }
            extra.insert(parameter.to_owned(), word.into());
        }
        let wire = self.tools.map(|tools| tools.0).unwrap_or_default();
        let tools: Result<Vec<Tool>> =
            wire.into_iter().enumerate().map(|(index, Object(tool))| tool.into_tool(index)).collect();
        let tools = tools?;
        let tool_choice = choice(self.tool_choice)?;
        tools::check(&tools, &tool_choice, "")?;
        let sampling = Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            max_tokens: self.max_output_tokens,
            ..Sampling::default()
        };
        sampling.validate()?;
        let input = Input::Messages(messages(self.instructions.as_deref(), self.input)?);
        let parallel_tool_calls = self.parallel_tool_calls.unwrap_or(true);
        let echo = Echo {
            instructions: self.instructions,
            max_output_tokens: self.max_output_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            parallel_tool_calls,
            tool_choice: shown_choice(&tool_choice),
            tools: tools.iter().map(shown_tool).collect(),
            text: shown_text(&shown_format, verbosity),
            reasoning: json!({"effort": effort, "summary": null}),
            metadata,
            ..Echo::default()
        };
        let request = ChatRequest {
            sampling,
            tools,
            tool_choice,
            parallel_tool_calls,
            format,
            front_end: FrontEnd::OpenAi,
            whole: !stream,
            extra,
            ..ChatRequest::new(self.model, input)
        };
        Ok(AskedResponse { request, echo: Arc::new(echo), stream })
    }

    /// Refuses what would be ignored.
    fn check_features(&self) -> Result<()> {
        refuse(&[
            ("store", self.store, "keeping answers is"),
            ("previous_response_id", self.previous_response_id, "going on from an answer that was kept is"),
            ("conversation", self.conversation, "a conversation that is kept is"),
            ("prompt", self.prompt, "a prompt that is kept is"),
            ("background", self.background, "answering in the background is"),
            ("max_tool_calls", self.max_tool_calls, "calling tools of the vendor is"),
            ("top_logprobs", self.top_logprobs, "telling log probabilities here is"),
            ("context_management", self.context_management, "cutting the conversation is"),
            ("moderation", self.moderation, "judging the conversation is"),
        ])?;
        for (field, word, allowed) in
            [("truncation", &self.truncation, TRUNCATION), ("service_tier", &self.service_tier, SERVICE_TIER)]
        {
            if !word.is_one_of(allowed) {
                return Err(unsupported(field, "this value is"));
            }
        }
        if self.include.as_ref().is_some_and(|list| list.0.iter().any(|word| word != INCLUDABLE)) {
            return Err(unsupported("include", "telling this is"));
        }
        Ok(())
    }
}

fn metadata(metadata: Option<BTreeMap<String, String>>) -> Result<BTreeMap<String, String>> {
    let metadata = metadata.unwrap_or_default();
    let (entries, name, text) = (limits::METADATA, limits::METADATA_NAME, limits::METADATA_TEXT);
    let fits = metadata.iter().all(|(key, value)| key.len() <= name && value.len() <= text);
    if metadata.len() > entries || !fits {
        let message = format!(
            "`metadata` may hold {entries} entries, with names of at most {name} bytes and texts of at most {text}"
        );
        return Err(Error::invalid("metadata", message));
    }
    Ok(metadata)
}
