//! Fields that both generating routes share: sampling, structure of the answer, and what vLLM and Byzer-LLM add to
//! OpenAI's API.
//!
//! | field | what it does |
//! |---|---|
//! | `temperature`, `top_p`, `top_k`, `min_p`, `seed`, `stop`, `stop_token_ids`, `n`, `best_of` | sampling |
//! | `presence_penalty`, `frequency_penalty`, `repetition_penalty`, `logit_bias`, `ignore_eos`, `min_tokens` | sampling |
//! | `response_format`, `guided_json`, `guided_regex`, `guided_choice`, `guided_grammar` | structure, one of them |
//! | `user`, `guided_decoding_backend`, `spaces_between_special_tokens` | no effect here |
//! | all others | accepted with the value that asks for nothing, else refused by name |

use std::collections::BTreeMap;
use std::fmt;

use byzerllm_core::{Error, ResponseFormat, Result};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::fields::{Capped, Given, Object, unsupported};
use super::schema::Schema;
use crate::limits;

/// A body of a generating route: its own fields, the shared ones, and the methods that read those.
macro_rules! generating_body {
    ($(#[$meta:meta])* $name:ident { $($own:tt)* }) => {
        $(#[$meta])*
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            $($own)*
            #[serde(default)]
            stream: Option<bool>,
            #[serde(default)]
            stream_options: Option<$crate::wire::fields::Object<$crate::wire::chat::StreamOptions>>,
            #[serde(default)]
            n: Option<u32>,
            #[serde(default)]
            best_of: Option<u32>,
            #[serde(default)]
            temperature: Option<f32>,
            #[serde(default)]
            top_p: Option<f32>,
            #[serde(default)]
            top_k: Option<i64>,
            #[serde(default)]
            min_p: Option<f32>,
            #[serde(default)]
            seed: Option<$crate::wire::fields::Seed>,
            #[serde(default)]
            max_tokens: Option<u32>,
            #[serde(default)]
            min_tokens: Option<u32>,
            #[serde(default)]
            ignore_eos: Option<bool>,
            #[serde(default)]
            stop: Option<$crate::wire::fields::TextOrList>,
            #[serde(default)]
            stop_token_ids:
                Option<$crate::wire::fields::Capped<u32, { $crate::limits::STOP_TOKEN_IDS }>>,
            #[serde(default)]
            presence_penalty: Option<f32>,
            #[serde(default)]
            frequency_penalty: Option<f32>,
            #[serde(default)]
            repetition_penalty: Option<f32>,
            #[serde(default)]
            logit_bias: Option<$crate::wire::common::LogitBias>,
            #[serde(default)]
            response_format: Option<$crate::wire::fields::Object<$crate::wire::common::WireFormat>>,
            #[serde(default)]
            guided_json: Option<$crate::wire::common::GuidedJson>,
            #[serde(default)]
            guided_regex: Option<String>,
            #[serde(default)]
            guided_choice: Option<$crate::wire::fields::Capped<String, { $crate::limits::GUIDED_CHOICES }>>,
            #[serde(default)]
            guided_grammar: Option<String>,

            #[serde(default)]
            use_beam_search: $crate::wire::fields::Given,
            #[serde(default)]
            early_stopping: $crate::wire::fields::Given,
            #[serde(default)]
            include_stop_str_in_output: $crate::wire::fields::Given,
            #[serde(default)]
            truncate_prompt_tokens: $crate::wire::fields::Given,
            #[serde(default)]
            allowed_token_ids: $crate::wire::fields::Given,
            #[serde(default)]
            prompt_logprobs: Option<serde::de::IgnoredAny>,
            #[serde(default)]
            guided_whitespace_pattern: $crate::wire::fields::Given,
            #[serde(default)]
            priority: $crate::wire::fields::Given,
            #[serde(default)]
            request_id: $crate::wire::fields::Given,
            #[serde(default)]
            prompt_template: $crate::wire::fields::Given,
            #[serde(default)]
            extra_body: $crate::wire::fields::Given,
            #[serde(default)]
            suffix: $crate::wire::fields::Given,
            #[serde(default)]
            length_penalty: Option<f64>,
            #[serde(default)]
            skip_special_tokens: Option<bool>,
            #[serde(default, rename = "spaces_between_special_tokens")]
            _spaces_between_special_tokens: Option<bool>,
            #[serde(default, rename = "guided_decoding_backend")]
            _guided_decoding_backend: Option<String>,
            #[serde(default, rename = "user")]
            _user: Option<String>,
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

/// `response_format`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireFormat {
    r#type: String,
    #[serde(default)]
    json_schema: Option<Object<WireSchema>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSchema {
    #[serde(default, rename = "name")]
    _name: Option<String>,
    #[serde(default, rename = "description")]
    _description: Option<String>,
    #[serde(default)]
    schema: Option<Schema<{ limits::SCHEMA_BYTES }>>,
    /// Always enforced.
    #[serde(default, rename = "strict")]
    _strict: Option<bool>,
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
