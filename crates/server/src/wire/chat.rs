//! The request of `POST /v1/chat/completions`.
//!
//! Absent parameters come from the deployment, the checkpoint and at last OpenAI's own defaults: temperature 1,
//! top_p 1, and no token limit but the end of the context.
//!
//! Accepted without effect, because nothing observable depends on them here: `user`, `safety_identifier`,
//! `metadata`, `prompt_cache_key`, `prompt_cache_retention`, `store: false`, `service_tier: auto | default`,
//! `parallel_tool_calls` and `tool_choice: none | auto` without tools, `modalities: ["text"]`,
//! `stream_options.include_obfuscation`. Everything else that has no effect is refused by name.

use byzerllm_core::{ChatRequest, Error, FrontEnd, Input, Result, Sampling};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::fields::{Capped, Given, Object, Seed, TextOrList, Word, unsupported};
use super::message::WireMessage;
use super::sampling;
use crate::limits;

/// The body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatBody {
    model: String,
    messages: Capped<Object<WireMessage>, { limits::MESSAGES }>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<Object<StreamOptions>>,
    #[serde(default)]
    n: Option<u32>,
    #[serde(default)]
    temperature: Option<f32>,
    #[serde(default)]
    top_p: Option<f32>,
    #[serde(default)]
    top_k: Option<i64>,
    #[serde(default)]
    min_p: Option<f32>,
    #[serde(default)]
    seed: Option<Seed>,
    #[serde(default)]
    max_tokens: Option<u32>,
    #[serde(default)]
    max_completion_tokens: Option<u32>,
    #[serde(default)]
    stop: Option<TextOrList>,
    #[serde(default)]
    stop_token_ids: Option<Capped<u32, { limits::STOP_TOKEN_IDS }>>,
    #[serde(default)]
    logprobs: Option<bool>,
    #[serde(default)]
    top_logprobs: Option<u32>,

    #[serde(default)]
    tools: Given,
    #[serde(default)]
    functions: Given,
    #[serde(default)]
    logit_bias: Given,
    #[serde(default)]
    audio: Given,
    #[serde(default)]
    prediction: Given,
    #[serde(default)]
    web_search_options: Given,
    #[serde(default)]
    store: Given,
    #[serde(default)]
    tool_choice: Word,
    #[serde(default)]
    function_call: Word,
    #[serde(default)]
    reasoning_effort: Word,
    #[serde(default)]
    verbosity: Word,
    #[serde(default)]
    service_tier: Word,
    #[serde(default)]
    modalities: Option<Capped<String, 8>>,
    #[serde(default)]
    response_format: Option<Object<ResponseFormat>>,
    #[serde(default)]
    presence_penalty: Option<f64>,
    #[serde(default)]
    frequency_penalty: Option<f64>,
    #[serde(default)]
    repetition_penalty: Option<f64>,

    #[serde(default, rename = "user")]
    _user: Option<String>,
    #[serde(default, rename = "safety_identifier")]
    _safety_identifier: Option<String>,
    #[serde(default, rename = "metadata")]
    _metadata: Option<Metadata>,
    #[serde(default, rename = "prompt_cache_key")]
    _prompt_cache_key: Option<String>,
    #[serde(default, rename = "prompt_cache_retention")]
    _prompt_cache_retention: Option<String>,
    #[serde(default, rename = "parallel_tool_calls")]
    _parallel_tool_calls: Option<bool>,
}

type Metadata = std::collections::BTreeMap<String, IgnoredAny>;

/// What a stream carries beside text.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
    #[serde(default, rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResponseFormat {
    r#type: String,
    #[serde(default, rename = "json_schema")]
    _json_schema: Given,
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
    pub(crate) fn into_request(self) -> Result<Asked<ChatRequest>> {
        self.check_features()?;
        let stream = self.stream.unwrap_or(false);
        let include_usage = StreamOptions::include_usage(self.stream_options.as_ref(), stream)?;
        if self.messages.0.is_empty() {
            return Err(Error::invalid("messages", "`messages` must hold at least one message"));
        }
        let logprobs = match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (true, top) => Some(sampling::alternatives("top_logprobs", top.unwrap_or(0))?),
            (false, None | Some(0)) => None,
            (false, Some(_)) => {
                return Err(Error::invalid("top_logprobs", "`top_logprobs` needs `logprobs: true`"));
            }
        };
        let max_tokens = max_tokens(self.max_tokens, self.max_completion_tokens)?;
        let sampling = Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: sampling::top_k(self.top_k)?,
            min_p: self.min_p,
            seed: self.seed.map(|seed| seed.0),
            max_tokens,
            stop: self.stop.map(|stop| stop.0),
            stop_token_ids: self.stop_token_ids.map(|ids| ids.0),
            logprobs,
            ..Sampling::default()
        };
        sampling.validate()?;
        let n = sampling::choices(self.n)?;
        let messages: Result<Vec<_>> =
            self.messages.0.into_iter().enumerate().map(|(index, wire)| wire.0.into_message(index)).collect();
        let input = Input::Messages(messages?);
        let request =
            ChatRequest { n, sampling, front_end: FrontEnd::OpenAi, ..ChatRequest::new(self.model, input) };
        Ok(Asked { request, stream, include_usage })
    }

    /// Refuses what would be ignored.
    fn check_features(&self) -> Result<()> {
        let features = [
            ("tools", self.tools, "tool calling is"),
            ("functions", self.functions, "tool calling is"),
            ("logit_bias", self.logit_bias, "biasing tokens is"),
            ("audio", self.audio, "audio output is"),
            ("prediction", self.prediction, "predicted output is"),
            ("web_search_options", self.web_search_options, "web search is"),
            ("store", self.store, "storing completions is"),
        ];
        for (field, given, what) in features {
            if given.0 {
                return Err(unsupported(field, what));
            }
        }
        let words: [(&str, &Word, &[&str]); 5] = [
            ("tool_choice", &self.tool_choice, &["none", "auto"]),
            ("function_call", &self.function_call, &["none", "auto"]),
            ("reasoning_effort", &self.reasoning_effort, &["none"]),
            ("verbosity", &self.verbosity, &[]),
            ("service_tier", &self.service_tier, &["auto", "default"]),
        ];
        for (field, word, allowed) in words {
            if !word.is_one_of(allowed) {
                return Err(unsupported(field, "this value is"));
            }
        }
        if self.modalities.as_ref().is_some_and(|list| list.0.iter().any(|word| word != "text")) {
            return Err(unsupported("modalities", "output other than text is"));
        }
        if self.response_format.as_ref().is_some_and(|format| format.0.r#type != "text") {
            return Err(unsupported("response_format", "a format other than text is"));
        }
        sampling::neutral("presence_penalty", self.presence_penalty, 0.0)?;
        sampling::neutral("frequency_penalty", self.frequency_penalty, 0.0)?;
        sampling::neutral("repetition_penalty", self.repetition_penalty, 1.0)
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
