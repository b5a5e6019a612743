//! The request of `POST /v1/chat/completions`.
//!
//! Absent parameters come from the deployment, the checkpoint and at last OpenAI's own defaults: temperature 1,
//! top_p 1, and no token limit but the end of the context.
//!
//! Fields of the type [`NoEffect`] are accepted because nothing observable depends on them here. Whatever else has no
//! effect is refused by name.

use std::collections::BTreeMap;

use byzerllm_core::{ChatRequest, Error, FrontEnd, Input, Result};
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::common::{generating_body, refuse};
use super::describe::{Anything, NEUTRAL, NoEffect, only};
use super::fields::{Capped, Given, Object, Word, unsupported};
use super::message::WireMessages;
use super::sampling;
use super::tools::{self, WireChoice, WireTools};
use crate::limits;

generating_body! {
    /// A conversation to answer.
    #[schemars(rename = "ChatCompletionRequest")]
    ChatBody {
        /// The deployment.
        model: String,
        /// The conversation. A text is a conversation of one message of the user.
        messages: WireMessages,
        /// The newer name of `max_tokens`.
        #[serde(default)]
        #[schemars(range(min = 1))]
        max_completion_tokens: Option<u32>,
        /// Report the log probabilities of the answer's tokens.
        #[serde(default)]
        logprobs: Option<bool>,
        /// And of so many alternatives; only with `logprobs: true`.
        #[serde(default)]
        #[schemars(range(max = limits::TOP_LOGPROBS))]
        top_logprobs: Option<u32>,
        /// The functions that the model may call.
        #[serde(default)]
        tools: Option<WireTools>,
        /// Whether and which of them it must call; `auto` when absent.
        #[serde(default)]
        tool_choice: Option<WireChoice>,
        /// `false` limits an answer to one call; `true` when absent.
        #[serde(default)]
        parallel_tool_calls: Option<bool>,
        /// The old form of tools.
        #[serde(default)]
        functions: Given,
        /// Audio output.
        #[serde(default)]
        audio: Given,
        /// Predicted output.
        #[serde(default)]
        prediction: Given,
        /// Web search.
        #[serde(default)]
        web_search_options: Given,
        /// Storing completions.
        #[serde(default)]
        store: Given,
        /// Only /v1/completions has it.
        #[serde(default)]
        echo: Given,
        /// Continuing a message.
        #[serde(default)]
        continue_final_message: Given,
        /// Adding tokens to the template's own.
        #[serde(default)]
        add_special_tokens: Given,
        /// Handing documents to the template.
        #[serde(default)]
        documents: Given,
        /// A template of the caller.
        #[serde(default)]
        chat_template: Given,
        /// Parameters of the template.
        #[serde(default)]
        chat_template_kwargs: Given,
        /// The model's turn is always begun.
        #[serde(default)]
        #[schemars(transform = only([true]))]
        add_generation_prompt: Option<bool>,
        /// The old form of `tool_choice`.
        #[serde(default)]
        #[schemars(transform = only(FUNCTION_CALL))]
        function_call: Word,
        /// How much the model should think.
        #[serde(default)]
        #[schemars(transform = only(REASONING_EFFORT))]
        reasoning_effort: Word,
        /// How long the answer should be.
        #[serde(default)]
        #[schemars(transform = only(VERBOSITY))]
        verbosity: Word,
        /// There is one.
        #[serde(default)]
        #[schemars(transform = only(SERVICE_TIER))]
        service_tier: Word,
        /// Text only.
        #[serde(default)]
        #[schemars(transform = text_only)]
        modalities: Option<Capped<String, 8>>,
        /// Who asks, in words of the caller.
        #[serde(default, rename = "safety_identifier")]
        _safety_identifier: NoEffect<String>,
        /// Words of the caller.
        #[serde(default, rename = "metadata")]
        _metadata: NoEffect<BTreeMap<String, Anything>>,
        /// Common prefixes are found without it.
        #[serde(default, rename = "prompt_cache_key")]
        _prompt_cache_key: NoEffect<String>,
        /// The cache keeps what fits.
        #[serde(default, rename = "prompt_cache_retention")]
        _prompt_cache_retention: NoEffect<String>,
    }
}

const FUNCTION_CALL: &[&str] = &["none", "auto"];
const REASONING_EFFORT: &[&str] = &["none"];
const VERBOSITY: &[&str] = &[];
const SERVICE_TIER: &[&str] = &["auto", "default"];

/// Of the list's words only one is accepted.
fn text_only(schema: &mut Schema) {
    schema.insert("items".to_owned(), json!({ "const": "text" }));
    schema.insert(NEUTRAL.to_owned(), true.into());
}

/// What a stream carries beside text.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    /// End the stream with a chunk of the tokens spent.
    #[serde(default)]
    include_usage: Option<bool>,
    /// Nothing is obfuscated.
    #[serde(default, rename = "include_obfuscation")]
    _include_obfuscation: NoEffect<bool>,
}

impl StreamOptions {
    /// Whether the stream ends with a usage chunk. Options without a stream are a mistake.
    pub(crate) fn include_usage(options: Option<&Object<Self>>, stream: bool) -> Result<bool> {
        if options.is_some() && !stream {
            let message = "`stream_options` means something only with `stream: true`";
            return Err(Error::invalid("stream_options", message));
        }
        Ok(options.and_then(|options| options.0.include_usage).unwrap_or(false))
    }
}

/// A request and how its answer travels.
#[derive(Debug)]
pub(crate) struct Asked<R> {
    pub(crate) request: R,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

impl ChatBody {
    /// The request in our words.
    pub(crate) fn into_request(mut self, extra: Map<String, Value>) -> Result<Asked<ChatRequest>> {
        self.check_features()?;
        self.check_shared()?;
        let stream = self.stream.unwrap_or(false);
        let include_usage = StreamOptions::include_usage(self.stream_options.as_ref(), stream)?;
        let logprobs = match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (true, top) => Some(sampling::alternatives("top_logprobs", top.unwrap_or(0))?),
            (false, None | Some(0)) => None,
            (false, Some(_)) => {
                return Err(Error::invalid("top_logprobs", "`top_logprobs` needs `logprobs: true`"));
            }
        };
        let max_tokens = max_tokens(self.max_tokens, self.max_completion_tokens)?;
        let sampling = self.sampling(max_tokens, logprobs)?;
        let n = sampling::choices(self.n)?;
        let best_of = sampling::best_of(self.best_of, n)?;
        let format = self.format()?;
        let (tools, tool_choice) = tools::tools(self.tools, self.tool_choice)?;
        let input = Input::Messages(self.messages.into_messages()?);
        let request = ChatRequest {
            n,
            best_of,
            sampling,
            format,
            tools,
            tool_choice,
            parallel_tool_calls: self.parallel_tool_calls.unwrap_or(true),
            front_end: FrontEnd::OpenAi,
            whole: !stream,
            extra,
            ..ChatRequest::new(self.model, input)
        };
        Ok(Asked { request, stream, include_usage })
    }

    /// Refuses what would be ignored.
    fn check_features(&self) -> Result<()> {
        refuse(&[
            ("functions", self.functions, "the old form of tool calls is"),
            ("audio", self.audio, "audio output is"),
            ("prediction", self.prediction, "predicted output is"),
            ("web_search_options", self.web_search_options, "web search is"),
            ("store", self.store, "storing completions is"),
            ("echo", self.echo, "this is"),
            ("continue_final_message", self.continue_final_message, "continuing a message is"),
            ("add_special_tokens", self.add_special_tokens, "adding tokens to the template's own is"),
            ("documents", self.documents, "handing documents to the template is"),
            ("chat_template", self.chat_template, "a template of the caller is"),
            ("chat_template_kwargs", self.chat_template_kwargs, "this is"),
            ("add_generation_prompt", Given(self.add_generation_prompt == Some(false)), "leaving it out is"),
        ])?;
        let words: [(&str, &Word, &[&str]); 4] = [
            ("function_call", &self.function_call, FUNCTION_CALL),
            ("reasoning_effort", &self.reasoning_effort, REASONING_EFFORT),
            ("verbosity", &self.verbosity, VERBOSITY),
            ("service_tier", &self.service_tier, SERVICE_TIER),
        ];
        for (field, word, allowed) in words {
            if !word.is_one_of(allowed) {
                return Err(unsupported(field, "this value is"));
            }
        }
        if self.modalities.as_ref().is_some_and(|list| list.0.iter().any(|word| word != "text")) {
            return Err(unsupported("modalities", "output other than text is"));
        }
        Ok(())
    }
}

/// The old and the new name of the same limit.
fn max_tokens(old: Option<u32>, new: Option<u32>) -> Result<Option<u32>> {
    if let (Some(old), Some(new)) = (old, new)
        && old != new
    {
        let message =
            format!("`max_tokens` ({old}) and `max_completion_tokens` ({new}) contradict each other");
        return Err(Error::invalid("max_completion_tokens", message));
    }
    let field = if new.is_some() { "max_completion_tokens" } else { "max_tokens" };
    match new.or(old) {
        Some(0) => Err(Error::invalid(field, format!("`{field}` must be at least 1"))),
        limit => Ok(limit),
    }
}
