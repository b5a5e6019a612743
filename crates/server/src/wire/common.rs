//! Fields that both generating routes share: sampling, structure of the answer, and what vLLM and Byzer-LLM add to
//! OpenAI's API.
//! The types are described in the OpenAPI document, so a field says here what it does.

use std::collections::BTreeMap;
use std::fmt;

use byzerllm_core::{Error, ResponseFormat, Result};
use schemars::JsonSchema;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::describe::{NoEffect, words};
use super::fields::{Capped, Given, Object, unsupported};
use super::schema::Schema;
use crate::limits;

/// A body of a generating route: its own fields, the shared ones, and the methods that read those.
macro_rules! generating_body {
    ($(#[$meta:meta])* $name:ident { $($own:tt)* }) => {
        #[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
        $(#[$meta])*
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            $($own)*
            /// Answer with server-sent events.
            #[serde(default)]
            stream: Option<bool>,
            /// What a stream carries beside text; only with `stream: true`.
            #[serde(default)]
            stream_options: Option<$crate::wire::fields::Object<$crate::wire::chat::StreamOptions>>,
            /// How many choices; 1 when absent.
            #[serde(default)]
            #[schemars(range(min = 1, max = $crate::limits::CHOICES))]
            n: Option<u32>,
            /// Make so many candidates, at least `n`, and keep the `n` likeliest.
            #[serde(default)]
            #[schemars(range(min = 1, max = $crate::limits::CHOICES))]
            best_of: Option<u32>,
            /// 0 always takes the likeliest token.
            #[serde(default)]
            #[schemars(range(min = 0.0))]
            temperature: Option<f32>,
            /// Keep the smallest set of tokens whose probability reaches this.
            #[serde(default)]
            #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
            top_p: Option<f32>,
            /// Keep the `k` likeliest tokens; -1 and 0 keep all.
            #[serde(default)]
            #[schemars(range(min = -1, max = u32::MAX))]
            top_k: Option<i64>,
            /// Keep tokens at least this fraction as likely as the likeliest one.
            #[serde(default)]
            #[schemars(range(min = 0.0, max = 1.0))]
            min_p: Option<f32>,
            /// Same seed, same text, whatever else runs.
            #[serde(default)]
            seed: Option<$crate::wire::fields::Seed>,
            /// New tokens at most; absent: up to the end of the context. 0 is for `echo` of /v1/completions.
            #[serde(default)]
            max_tokens: Option<u32>,
            /// No end and no stop string before so many new tokens.
            #[serde(default)]
            min_tokens: Option<u32>,
            /// Go on after the model's own end tokens.
            #[serde(default)]
            ignore_eos: Option<bool>,
            /// Texts that end the answer and are not part of it; their length is counted in bytes.
            #[serde(default)]
            stop: Option<$crate::wire::fields::TextOrList>,
            /// Tokens that end the answer, beside the model's own.
            #[serde(default)]
            stop_token_ids: Option<$crate::wire::fields::Capped<u32, { $crate::limits::STOP_TOKEN_IDS }>>,
            /// Subtracted once from the logit of a token that was generated.
            #[serde(default)]
            #[schemars(range(min = -2.0, max = 2.0))]
            presence_penalty: Option<f32>,
            /// Subtracted from a token's logit for each time it was generated.
            #[serde(default)]
            #[schemars(range(min = -2.0, max = 2.0))]
            frequency_penalty: Option<f32>,
            /// Makes tokens of prompt and answer less likely; 1 is off.
            #[serde(default)]
            #[schemars(range(max = 100.0), extend("exclusiveMinimum" = 0))]
            repetition_penalty: Option<f32>,
            /// Added to the logits of tokens, by id.
            #[serde(default)]
            logit_bias: Option<$crate::wire::common::LogitBias>,
            /// What the answer must look like; enforced while decoding. At most one of this and `guided_*` may ask for something.
            #[serde(default)]
            response_format: Option<$crate::wire::fields::Object<$crate::wire::common::WireFormat>>,
            /// The answer is JSON that this schema accepts; also the schema as text.
            #[serde(default)]
            guided_json: Option<$crate::wire::common::GuidedJson>,
            /// The answer matches this regular expression as a whole; its length is counted in bytes.
            #[serde(default)]
            #[schemars(length(max = $crate::limits::GRAMMAR_BYTES))]
            guided_regex: Option<String>,
            /// The answer is one of these texts.
            #[serde(default)]
            #[schemars(length(min = 1))]
            guided_choice: Option<$crate::wire::fields::Capped<String, { $crate::limits::GUIDED_CHOICES }>>,
            /// The answer derives from this grammar in Lark syntax; its length is counted in bytes.
            #[serde(default)]
            #[schemars(length(max = $crate::limits::GRAMMAR_BYTES))]
            guided_grammar: Option<String>,
            /// Beam search.
            #[serde(default)]
            use_beam_search: $crate::wire::fields::Given,
            /// Of beam search.
            #[serde(default)]
            early_stopping: $crate::wire::fields::Given,
            /// Keeping stop strings.
            #[serde(default)]
            include_stop_str_in_output: $crate::wire::fields::Given,
            /// Cutting prompts.
            #[serde(default)]
            truncate_prompt_tokens: $crate::wire::fields::Given,
            /// Restricting the vocabulary.
            #[serde(default)]
            allowed_token_ids: $crate::wire::fields::Given,
            /// `echo` with `logprobs` of /v1/completions tells them.
            #[serde(default)]
            #[schemars(with = "()", transform = $crate::wire::describe::only([(); 0]))]
            prompt_logprobs: Option<serde::de::IgnoredAny>,
            /// White space of guided JSON.
            #[serde(default)]
            guided_whitespace_pattern: $crate::wire::fields::Given,
            /// A priority.
            #[serde(default)]
            priority: $crate::wire::fields::Given,
            /// An id of the caller.
            #[serde(default)]
            request_id: $crate::wire::fields::Given,
            /// A template of the caller.
            #[serde(default)]
            prompt_template: $crate::wire::fields::Given,
            /// A nested body: put its fields at the top.
            #[serde(default)]
            extra_body: $crate::wire::fields::Given,
            /// Inserting text.
            #[serde(default)]
            suffix: $crate::wire::fields::Given,
            /// Of beam search.
            #[serde(default)]
            #[schemars(transform = $crate::wire::describe::only([1]))]
            length_penalty: Option<f64>,
            /// Special tokens are never part of the text.
            #[serde(default)]
            #[schemars(transform = $crate::wire::describe::only([true]))]
            skip_special_tokens: Option<bool>,
            /// Special tokens are never part of the text.
            #[serde(default, rename = "spaces_between_special_tokens")]
            _spaces_between_special_tokens: $crate::wire::describe::NoEffect<bool>,
            /// There is one.
            #[serde(default, rename = "guided_decoding_backend")]
            _guided_decoding_backend: $crate::wire::describe::NoEffect<String>,
            /// Who asks, in words of the caller.
            #[serde(default, rename = "user")]
            _user: $crate::wire::describe::NoEffect<String>,
        }

        impl $name {
            /// Refuses shared fields that would be ignored.
            fn check_shared(&self) -> byzerllm_core::Result<()> {
                $crate::wire::common::refuse(&[
                    ("use_beam_search", self.use_beam_search, "beam search is"),
                    ("early_stopping", self.early_stopping, "beam search is"),
                    ("include_stop_str_in_output", self.include_stop_str_in_output, "this is"),
                    ("truncate_prompt_tokens", self.truncate_prompt_tokens, "cutting prompts is"),
                    ("allowed_token_ids", self.allowed_token_ids, "this is"),
                    (
                        "prompt_logprobs",
                        $crate::wire::fields::Given(self.prompt_logprobs.is_some()),
                        "this is (`echo` with `logprobs` of /v1/completions tells them)",
                    ),
                    ("guided_whitespace_pattern", self.guided_whitespace_pattern, "this is"),
                    ("priority", self.priority, "a priority is"),
                    ("request_id", self.request_id, "an id of the caller is"),
                    ("prompt_template", self.prompt_template, "a template of the caller is"),
                    ("extra_body", self.extra_body, "a nested body is"),
                    ("suffix", self.suffix, "inserting text is"),
                    (
                        "length_penalty",
                        $crate::wire::fields::Given(self.length_penalty.is_some_and(|value| value != 1.0)),
                        "beam search is",
                    ),
                    (
                        "skip_special_tokens",
                        $crate::wire::fields::Given(self.skip_special_tokens == Some(false)),
                        "text with special tokens is",
                    ),
                ])
            }

            /// Takes the sampling parameters.
            fn sampling(
                &mut self,
                max_tokens: Option<u32>,
                logprobs: Option<u32>,
            ) -> byzerllm_core::Result<byzerllm_core::Sampling> {
                let sampling = byzerllm_core::Sampling {
                    temperature: self.temperature,
                    top_p: self.top_p,
                    top_k: $crate::wire::sampling::top_k(self.top_k)?,
                    min_p: self.min_p,
                    seed: self.seed.map(|seed| seed.0),
                    max_tokens,
                    stop: self.stop.take().map(|stop| stop.0),
                    stop_token_ids: self.stop_token_ids.take().map(|ids| ids.0),
                    presence_penalty: self.presence_penalty,
                    frequency_penalty: self.frequency_penalty,
                    repetition_penalty: self.repetition_penalty,
                    logit_bias: self.logit_bias.take().map(|bias| bias.0).filter(|bias| !bias.is_empty()),
                    ignore_end: self.ignore_eos,
                    min_tokens: self.min_tokens,
                    logprobs,
                };
                sampling.validate()?;
                Ok(sampling)
            }

            /// Takes the structure that the answer must have.
            fn format(&mut self) -> byzerllm_core::Result<byzerllm_core::ResponseFormat> {
                $crate::wire::common::format($crate::wire::common::Formats {
                    response_format: self.response_format.take(),
                    json: self.guided_json.take(),
                    regex: self.guided_regex.take(),
                    choice: self.guided_choice.take(),
                    grammar: self.guided_grammar.take(),
                })
            }
        }
    };
}
pub(crate) use generating_body;

/// Refuses the fields that ask for something.
pub(crate) fn refuse(fields: &[(&str, Given, &str)]) -> Result<()> {
    match fields.iter().find(|(_, given, _)| given.0) {
        Some((field, _, what)) => Err(unsupported(*field, what)),
        None => Ok(()),
    }
}

/// Token id, as the text that JSON demands of a key, to bias.
#[derive(Debug)]
pub(crate) struct LogitBias(pub(crate) BTreeMap<u32, f32>);

impl<'de> Deserialize<'de> for LogitBias {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Biases;
        impl<'de> Visitor<'de> for Biases {
            type Value = BTreeMap<u32, f32>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of token ids and biases")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let wrong = |text: fmt::Arguments<'_>| serde::de::Error::custom(text);
                let mut biases = BTreeMap::new();
                while let Some((id, bias)) = items.next_entry::<String, f32>()? {
                    if biases.len() == limits::LOGIT_BIAS {
                        return Err(wrong(format_args!("more than {} biases", limits::LOGIT_BIAS)));
                    }
                    let token = id.parse().map_err(|_| wrong(format_args!("'{id}' is no token id")))?;
                    biases.insert(token, bias);
                }
                Ok(biases)
            }
        }
        deserializer.deserialize_map(Biases).map(LogitBias)
    }
}

/// What an answer must look like.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ChatCompletionResponseFormat")]
#[serde(deny_unknown_fields)]
pub(crate) struct WireFormat {
    /// Anything, a JSON object, or JSON that `json_schema` accepts.
    #[schemars(transform = words(&["text", "json_object", "json_schema"]))]
    r#type: String,
    /// With the type `json_schema`, and only then.
    #[serde(default)]
    json_schema: Option<Object<WireSchema>>,
}

/// A schema and what OpenAI's API puts around it.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ChatCompletionJsonSchema")]
#[serde(deny_unknown_fields)]
struct WireSchema {
    /// What to call it.
    #[serde(default, rename = "name")]
    _name: NoEffect<String>,
    /// What it is for.
    #[serde(default, rename = "description")]
    _description: NoEffect<String>,
    /// The schema.
    #[schemars(required)]
    schema: Option<Schema<{ limits::SCHEMA_BYTES }>>,
    /// Always enforced.
    #[serde(default, rename = "strict")]
    _strict: NoEffect<bool>,
}

/// A schema, or one written as JSON in a string.
#[derive(Debug)]
pub(crate) struct GuidedJson(Value);

impl<'de> Deserialize<'de> for GuidedJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Schema(value) = Schema::<{ limits::SCHEMA_BYTES }>::deserialize(deserializer)?;
        match value {
            Value::String(text) => {
                serde_json::from_str::<Schema<{ limits::SCHEMA_BYTES }>>(&text).map(|schema| Self(schema.0))
            }
            .map_err(|error| serde::de::Error::custom(format_args!("the text is no schema: {error}"))),
            value => Ok(Self(value)),
        }
    }
}

/// The fields that say what an answer must look like.
pub(crate) struct Formats {
    pub(crate) response_format: Option<Object<WireFormat>>,
    pub(crate) json: Option<GuidedJson>,
    pub(crate) regex: Option<String>,
    pub(crate) choice: Option<Capped<String, { limits::GUIDED_CHOICES }>>,
    pub(crate) grammar: Option<String>,
}

/// At most one of them.
pub(crate) fn format(fields: Formats) -> Result<ResponseFormat> {
    let mut asked: Vec<(&'static str, ResponseFormat)> = Vec::new();
    if let Some(Object(format)) = fields.response_format {
        match response_format(format)? {
            ResponseFormat::Text => {}
            format => asked.push(("response_format", format)),
        }
    }
    if let Some(GuidedJson(schema)) = fields.json {
        asked.push(("guided_json", ResponseFormat::JsonSchema(schema)));
    }
    if let Some(regex) = fields.regex {
        check_length("guided_regex", &regex)?;
        asked.push(("guided_regex", ResponseFormat::Regex(regex)));
    }
    if let Some(Capped(choices)) = fields.choice {
        if choices.is_empty() {
            return Err(Error::invalid("guided_choice", "`guided_choice` must hold at least one text"));
        }
        asked.push(("guided_choice", ResponseFormat::Choice(choices)));
    }
    if let Some(grammar) = fields.grammar {
        check_length("guided_grammar", &grammar)?;
        asked.push(("guided_grammar", ResponseFormat::Grammar(grammar)));
    }
    if let [(first, _), (second, _), ..] = &asked[..] {
        let message = format!("`{first}` and `{second}` contradict each other; send one of them");
        return Err(Error::invalid(*second, message));
    }
    Ok(asked.pop().map(|(_, format)| format).unwrap_or_default())
}

fn check_length(field: &'static str, text: &str) -> Result<()> {
    let max = limits::GRAMMAR_BYTES;
    if text.len() > max {
        return Err(Error::invalid(
            field,
            format!("`{field}` must have at most {max} bytes, got {}", text.len()),
        ));
    }
    Ok(())
}

fn response_format(format: WireFormat) -> Result<ResponseFormat> {
    match (format.r#type.as_str(), format.json_schema) {
        ("text", None) => Ok(ResponseFormat::Text),
        ("json_object", None) => Ok(ResponseFormat::JsonObject),
        ("text" | "json_object", Some(_)) => {
            let field = "response_format.json_schema";
            Err(Error::invalid(field, format!("`{field}` needs the type 'json_schema'")))
        }
        ("json_schema", schema) => {
            let field = "response_format.json_schema.schema";
            let schema = schema.and_then(|Object(wire)| wire.schema);
            let Schema(schema) =
                schema.ok_or_else(|| Error::invalid(field, format!("the field `{field}` is missing")))?;
            Ok(ResponseFormat::JsonSchema(schema))
        }
        _ => {
            Err(unsupported("response_format.type", "a type other than text, json_object and json_schema is"))
        }
    }
}
