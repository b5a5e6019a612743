//! Bodies of our own routes.

use std::path::PathBuf;

use byzerllm_core::{
    ChatRequest, FrontEnd, Input, Message, ModelInfo, ResponseFormat, Sampling, Tool, ToolChoice,
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::describe::described;
use super::fields::{Capped, Object};
use super::schema::Schema;
use crate::limits;

/// A [`ChatRequest`] whose lists and schemas are bounded while they are read.
pub(crate) struct NativeChat(pub(crate) ChatRequest);

described!(NativeChat, "NativeChat", |generator| generator.subschema_for::<ChatRequest>());

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NativeFields {
    model: String,
    input: Input,
    #[serde(default)]
    echo: bool,
    #[serde(default)]
    prompt_logprobs: Option<u32>,
    #[serde(default)]
    n: Option<u32>,
    #[serde(default)]
    best_of: Option<u32>,
    #[serde(default)]
    sampling: Sampling,
    #[serde(default)]
    format: BoundedFormat,
    #[serde(default)]
    tools: Option<Capped<Object<NativeTool>, { limits::TOOLS }>>,
    #[serde(default)]
    tool_choice: ToolChoice,
    #[serde(default = "yes")]
    parallel_tool_calls: bool,
    #[serde(default)]
    front_end: FrontEnd,
    #[serde(default)]
    clip_max_tokens: bool,
    #[serde(default)]
    whole: bool,
    #[serde(default)]
    extra: Option<Schema<{ limits::EXTRA_BYTES }>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NativeFormat {
    kind: String,
    #[serde(default)]
    value: Option<Schema<{ limits::SCHEMA_BYTES }>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NativeTool {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    parameters: Option<Schema<{ limits::TOOL_BYTES }>>,
    #[serde(default)]
    strict: bool,
}

#[derive(Default)]
struct BoundedFormat(ResponseFormat);

impl<'de> Deserialize<'de> for BoundedFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Object::<NativeFormat>::deserialize(deserializer)?.0.into_format().map(Self)
    }
}

impl NativeFormat {
    fn into_format<E: serde::de::Error>(self) -> Result<ResponseFormat, E> {
        let value = self.value.map(|Schema(value)| value).filter(|value| !value.is_null());
        let text = |value: Option<Value>| match value {
            Some(Value::String(text)) if text.len() <= limits::GRAMMAR_BYTES => Ok(text),
            Some(Value::String(text)) => {
                let max = limits::GRAMMAR_BYTES;
                Err(E::custom(format_args!("`value` must have at most {max} bytes, got {}", text.len())))
            }
            _ => Err(E::custom("`value` must be a string")),
        };
        Ok(match (self.kind.as_str(), value) {
            ("text", None) => ResponseFormat::Text,
            ("json_object", None) => ResponseFormat::JsonObject,
            ("json_schema", Some(schema)) => ResponseFormat::JsonSchema(schema),
            ("regex", value) => ResponseFormat::Regex(text(value)?),
            ("grammar", value) => ResponseFormat::Grammar(text(value)?),
            ("choice", Some(Value::Array(choices))) => {
                let max = limits::GUIDED_CHOICES;
                if choices.len() > max {
                    return Err(E::custom(format_args!("at most {max} choices are allowed")));
                }
                let choices = choices.into_iter().map(|choice| text(Some(choice)));
                ResponseFormat::Choice(choices.collect::<Result<_, E>>()?)
            }
            ("text" | "json_object" | "json_schema" | "choice", _) => {
                return Err(E::custom("`value` does not fit `kind`"));
            }
            _ => {
                let known = "text, json_object, json_schema, regex, grammar or choice";
                return Err(E::custom(format_args!("`kind` must be {known}")));
            }
        })
    }
}

impl<'de> Deserialize<'de> for NativeChat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = NativeFields::deserialize(deserializer)?;
        let tool = |Object(tool): Object<NativeTool>| Tool {
            name: tool.name,
            description: tool.description,
            parameters: tool.parameters.map(|Schema(value)| value),
            strict: tool.strict,
        };
        let extra = match fields.extra.map(|Schema(extra)| extra) {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(extra)) => extra,
            Some(_) => return Err(serde::de::Error::custom("`extra` must be an object")),
        };
        Ok(Self(ChatRequest {
            model: fields.model,
            input: fields.input,
            echo: fields.echo,
            prompt_logprobs: fields.prompt_logprobs,
            n: fields.n.unwrap_or(1),
            best_of: fields.best_of,
            sampling: fields.sampling,
            format: fields.format.0,
            tools: fields.tools.map(|tools| tools.0.into_iter().map(tool).collect()).unwrap_or_default(),
            tool_choice: fields.tool_choice,
            parallel_tool_calls: fields.parallel_tool_calls,
            front_end: fields.front_end,
            clip_max_tokens: fields.clip_max_tokens,
            whole: fields.whole,
            extra,
        }))
    }
}

/// A conversation to render.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "TemplateRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct TemplateBody {
    /// The deployment.
    pub(crate) model: String,
    /// The conversation.
    pub(crate) messages: Capped<Message, { limits::MESSAGES }>,
    /// Begin the model's turn.
    #[serde(default = "yes")]
    pub(crate) add_generation_prompt: bool,
}

fn yes() -> bool {
    true
}

/// The rendered conversation.
#[derive(Serialize, JsonSchema)]
pub(crate) struct TemplateAnswer {
    pub(crate) text: String,
}

/// A text to turn into tokens.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NativeTokenizeRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizeBody {
    /// The deployment.
    pub(crate) model: String,
    /// Whose special tokens are parsed.
    pub(crate) text: String,
}

/// The token ids.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NativeTokenizeAnswer")]
pub(crate) struct TokenizeAnswer {
    pub(crate) ids: Vec<u32>,
}

/// What is known of a deployment by those who may ask it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ModelAnswer {
    pub(crate) name: String,
    pub(crate) info: Option<ModelInfo>,
    pub(crate) labels: Map<String, Value>,
    pub(crate) created: u64,
}

/// A checkpoint to look at.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "InspectRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct InspectBody {
    /// An absolute path on the server's machine.
    pub(crate) path: PathBuf,
}

/// The deployment that is gone.
#[derive(Serialize, JsonSchema)]
pub(crate) struct UndeployAnswer {
    pub(crate) name: String,
    pub(crate) deleted: bool,
}
