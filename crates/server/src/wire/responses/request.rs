//! The request of `POST /v1/responses`.
//!
//! Nothing is kept between requests: what refers to earlier ones is refused by name, and every answer says `store: false`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use byzerllm_core::{
    ChatRequest, Error, FrontEnd, Input, ResponseFormat, Result, Sampling, Tool, ToolChoice,
};
use schemars::{JsonSchema, json_schema};
use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::answer::Echo;
use super::items::{WireInput, messages};
use crate::limits;
use crate::wire::common::refuse;
use crate::wire::describe::{NoEffect, described, only, words};
use crate::wire::fields::{Capped, Given, Object, Word, unsupported};
use crate::wire::schema::Schema;
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
    tool_choice: Option<WireChoice>,
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

/// A function that the model may call.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ResponseTool")]
#[serde(deny_unknown_fields)]
struct WireTool {
    #[schemars(transform = words(&["function"]))]
    r#type: String,
    /// Unique among the tools.
    #[schemars(required, length(min = 1, max = 64), pattern(r"^[A-Za-z0-9_-]+$"))]
    name: Option<String>,
    /// What it does, for the model.
    #[serde(default)]
    description: Option<String>,
    /// The schema of its arguments; absent means an object with any members.
    #[serde(default)]
    #[schemars(extend("type" = ["object", "boolean", "null"]))]
    parameters: Option<Schema<{ limits::TOOL_BYTES }>>,
    /// Enforce the schema where the model decides to call; where a call is demanded it is enforced anyway.
    #[serde(default)]
    strict: Option<bool>,
    #[serde(default)]
    defer_loading: Given,
}

/// A word, or the name of a tool.
#[derive(Debug)]
enum WireChoice {
    Word(String),
    Function(String),
}

/// A call of this function.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ResponseNamedToolChoice")]
#[serde(deny_unknown_fields)]
struct NamedChoice {
    #[schemars(transform = words(&["function"]))]
    r#type: String,
    name: String,
}

described!(WireChoice, "WireChoice", |generator| {
    let named = generator.subschema_for::<NamedChoice>();
    json_schema!({ "anyOf": [{ "type": "string", "enum": ["none", "auto", "required"] }, named] })
});

impl<'de> Deserialize<'de> for WireChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choice;
        impl<'de> Visitor<'de> for Choice {
            type Value = WireChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("'none', 'auto', 'required' or a function")
            }

            fn visit_str<E>(self, word: &str) -> Result<WireChoice, E> {
                Ok(WireChoice::Word(word.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<WireChoice, A::Error> {
                let choice = NamedChoice::deserialize(MapAccessDeserializer::new(fields))?;
                if choice.r#type != "function" {
                    return Err(serde::de::Error::custom("the type must be 'function'"));
                }
                Ok(WireChoice::Function(choice.name))
            }
        }
        deserializer.deserialize_any(Choice)
    }
}

/// What the answer must look like.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ResponseText")]
#[serde(deny_unknown_fields)]
struct WireText {
    #[serde(default)]
    format: Option<Object<WireFormat>>,
    /// How long the answer should be. Something only for models that have `verbosity`.
    #[serde(default)]
    verbosity: Option<String>,
}

/// Text, a JSON object, or JSON that a schema accepts.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ResponseTextFormat")]
#[serde(deny_unknown_fields)]
struct WireFormat {
    #[schemars(transform = words(&["text", "json_object", "json_schema"]))]
    r#type: String,
    /// With the type `json_schema`: what to call it.
    #[serde(default)]
    name: Option<String>,
    /// With the type `json_schema`: what it is for.
    #[serde(default, rename = "description")]
    _description: NoEffect<String>,
    /// With the type `json_schema`.
    #[serde(default)]
    schema: Option<Schema<{ limits::SCHEMA_BYTES }>>,
    /// Always enforced.
    #[serde(default, rename = "strict")]
    _strict: NoEffect<bool>,
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
            text: shown_text(shown_format, verbosity),
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

/// What the answer must look like, how long it should be, and the format as the answer shows it.
fn text(text: Option<Object<WireText>>) -> Result<(ResponseFormat, Option<String>, Value)> {
    let plain = || json!({"type": "text"});
    let Some(Object(text)) = text else { return Ok((ResponseFormat::Text, None, plain())) };
    let Some(Object(format)) = text.format else {
        return Ok((ResponseFormat::Text, text.verbosity, plain()));
    };
    if format.r#type != "json_schema" && format.schema.is_some() {
        let field = "text.format.schema";
        return Err(Error::invalid(field, format!("`{field}` needs the type 'json_schema'")));
    }
    let (wanted, shown) = match (format.r#type.as_str(), format.schema) {
        ("text", _) => (ResponseFormat::Text, plain()),
        ("json_object", _) => (ResponseFormat::JsonObject, json!({"type": "json_object"})),
        ("json_schema", Some(Schema(schema))) => {
            let name = format.name.unwrap_or_default();
            let shown = json!({"type": "json_schema", "name": name, "schema": schema, "strict": true});
            (ResponseFormat::JsonSchema(schema), shown)
        }
        ("json_schema", None) => {
            let field = "text.format.schema";
            return Err(Error::invalid(field, format!("the field `{field}` is missing")));
        }
        _ => {
            let what = "a type other than text, json_object and json_schema is";
            return Err(unsupported("text.format.type", what));
        }
    };
    Ok((wanted, text.verbosity, shown))
}

fn choice(choice: Option<WireChoice>) -> Result<ToolChoice> {
    match choice {
        None => Ok(ToolChoice::Auto),
        Some(WireChoice::Function(name)) => Ok(ToolChoice::Named(name)),
        Some(WireChoice::Word(word)) => match word.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" => Ok(ToolChoice::Required),
            _ => {
                let message = "`tool_choice` must be 'none', 'auto', 'required' or a function";
                Err(Error::invalid("tool_choice", message))
            }
        },
    }
}

fn shown_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => "auto".into(),
        ToolChoice::None => "none".into(),
        ToolChoice::Required => "required".into(),
        ToolChoice::Named(name) => json!({"type": "function", "name": name}),
    }
}

fn shown_tool(tool: &Tool) -> Value {
    json!({
        "type": "function", "name": tool.name, "description": tool.description, "parameters": tool.parameters,
        "strict": tool.strict
    })
}

fn shown_text(format: Value, verbosity: Option<String>) -> Value {
    match verbosity {
        Some(word) => json!({"format": format, "verbosity": word}),
        None => json!({"format": format}),
    }
}

impl WireTool {
    fn into_tool(self, index: usize) -> Result<Tool> {
        let path = |field: &str| format!("tools[{index}].{field}");
        if self.r#type != "function" {
            return Err(unsupported(path("type"), "a tool that is no function is"));
        }
        if self.defer_loading.0 {
            return Err(unsupported(path("defer_loading"), "this is"));
        }
        let Some(name) = self.name else {
            let field = path("name");
            return Err(Error::invalid(field.clone(), format!("the field `{field}` is missing")));
        };
        Ok(Tool {
            name,
            description: self.description,
            parameters: self.parameters.map(|Schema(schema)| schema).filter(|schema| !schema.is_null()),
            strict: self.strict.unwrap_or(false),
        })
    }
}
