//! The request of `POST /v1/chat/completions`.
//!
//! Absent parameters come from the deployment, the checkpoint and at last OpenAI's own defaults: temperature 1,
//! top_p 1, and no token limit but the end of the context.
//!
//! Accepted without effect, because nothing observable depends on them here: `user`, `safety_identifier`,
//! `metadata`, `prompt_cache_key`, `prompt_cache_retention`, `store: false`, `service_tier: auto | default`,
//! `parallel_tool_calls` and `tool_choice: none | auto` without tools, `modalities: ["text"]`,
//! `stream_options.include_obfuscation`, and those of [`super::common`]. Everything else that has no effect is
//! refused by name.

use byzerllm_core::{ChatRequest, Error, FrontEnd, Input, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::common::{generating_body, refuse};
use super::fields::{Capped, Given, Object, Word, unsupported};
use super::message::WireMessage;
use super::sampling;
use super::tools::{self, WireChoice, WireTools};
use crate::limits;

generating_body! {
    /// The body.
    ChatBody {
        model: String,
        messages: Capped<Object<WireMessage>, { limits::MESSAGES }>,
        #[serde(default)]
        max_completion_tokens: Option<u32>,
        #[serde(default)]
        logprobs: Option<bool>,
        #[serde(default)]
        top_logprobs: Option<u32>,
        #[serde(default)]
        tools: Option<WireTools>,
        #[serde(default)]
        tool_choice: Option<WireChoice>,
        #[serde(default)]
        parallel_tool_calls: Option<bool>,

        #[serde(default)]
        functions: Given,
        #[serde(default)]
        audio: Given,
        #[serde(default)]
        prediction: Given,
        #[serde(default)]
        web_search_options: Given,
        #[serde(default)]
        store: Given,
        #[serde(default)]
        echo: Given,
        #[serde(default)]
        continue_final_message: Given,
        #[serde(default)]
        add_special_tokens: Given,
        #[serde(default)]
        documents: Given,
        #[serde(default)]
        chat_template: Given,
        #[serde(default)]
        chat_template_kwargs: Given,
        #[serde(default)]
        add_generation_prompt: Option<bool>,
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

        #[serde(default, rename = "safety_identifier")]
        _safety_identifier: Option<String>,
        #[serde(default, rename = "metadata")]
        _metadata: Option<Metadata>,
        #[serde(default, rename = "prompt_cache_key")]
        _prompt_cache_key: Option<String>,
        #[serde(default, rename = "prompt_cache_retention")]
        _prompt_cache_retention: Option<String>,
    }
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

/// A request and how its answer travels.
#[derive(Debug)]
pub(crate) struct Asked<R> {
    pub(crate) request: R,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

impl ChatBody {
    /// The request in our words.
    pub(crate) fn into_request(mut self) -> Result<Asked<ChatRequest>> {
        self.check_features()?;
        self.check_shared()?;
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
        let sampling = self.sampling(max_tokens, logprobs)?;
        let n = sampling::choices(self.n)?;
        let best_of = sampling::best_of(self.best_of, n)?;
        let format = self.format()?;
        let (tools, tool_choice) = tools::tools(self.tools, self.tool_choice, self.parallel_tool_calls)?;
        let messages: Result<Vec<_>> =
            self.messages.0.into_iter().enumerate().map(|(index, wire)| wire.0.into_message(index)).collect();
        let input = Input::Messages(messages?);
        let request = ChatRequest {
            n,
            best_of,
            sampling,
            format,
            tools,
            tool_choice,
            front_end: FrontEnd::OpenAi,
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
