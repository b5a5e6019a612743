//! The requests of `POST /v1/messages` and `POST /v1/messages/count_tokens`.

use byzerllm_core::{
    ChatRequest, Error, FrontEnd, Input, ResponseFormat, Result, Sampling, Tool, ToolChoice,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::content::{Blocks, WireTurn, messages};
use crate::limits;
use crate::wire::common::refuse;
use crate::wire::describe::{Anything, NoEffect, only, words};
use crate::wire::fields::{Capped, Given, Object, Word, unsupported};
use crate::wire::schema::Schema;
use crate::wire::tools;

/// A conversation to answer.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct MessagesBody {
    /// The deployment.
    pub(crate) model: String,
    /// The conversation.
    messages: Capped<Object<WireTurn>, { limits::MESSAGES }>,
    /// New tokens at most.
    #[schemars(range(min = 1))]
    max_tokens: u32,
    /// Instructions that stand above the conversation.
    #[serde(default)]
    system: Option<Blocks>,
    /// Answer with server-sent events.
    #[serde(default)]
    stream: Option<bool>,
    /// 0 always takes the likeliest token.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    temperature: Option<f32>,
    /// Keep the smallest set of tokens whose probability reaches this.
    #[serde(default)]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    top_p: Option<f32>,
    /// Keep the `k` likeliest tokens.
    #[serde(default)]
    top_k: Option<u32>,
    /// Texts that end the answer and are not part of it; their length is counted in bytes.
    #[serde(default)]
    stop_sequences: Option<Capped<String, { limits::STOP }>>,
    /// The functions that the model may call.
    #[serde(default)]
    tools: Option<Capped<Object<WireTool>, { limits::TOOLS }>>,
    /// Whether and which of them it must call; `auto` when absent.
    #[serde(default)]
    tool_choice: Option<Object<WireChoice>>,
    /// Whether the model thinks first. Other than `disabled` only for models that have this parameter.
    #[serde(default)]
    thinking: Option<Object<Thinking>>,
    /// What the answer must look like; enforced while decoding.
    #[serde(default)]
    output_config: Option<Object<OutputConfig>>,
    /// Who asks, in words of the caller.
    #[serde(default, rename = "metadata")]
    _metadata: NoEffect<Object<Metadata>>,
    /// There is one.
    #[serde(default)]
    #[schemars(transform = only(SERVICE_TIER))]
    service_tier: Word,
    /// There is one.
    #[serde(default)]
    #[schemars(transform = only(SPEED))]
    speed: Word,
    /// Common prefixes are found without it.
    #[serde(default, rename = "cache_control")]
    _cache_control: NoEffect<Anything>,
    /// Programs of the vendor.
    #[serde(default)]
    container: Given,
    /// Servers that the vendor asks.
    #[serde(default)]
    mcp_servers: Given,
    /// Cutting the conversation.
    #[serde(default)]
    context_management: Given,
    /// Where the vendor computes.
    #[serde(default)]
    inference_geo: Given,
}

/// A conversation to count.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "CountTokensRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct CountBody {
    /// The deployment.
    pub(crate) model: String,
    /// The conversation.
    messages: Capped<Object<WireTurn>, { limits::MESSAGES }>,
    /// Instructions that stand above the conversation.
    #[serde(default)]
    system: Option<Blocks>,
    /// The functions that the model may call.
    #[serde(default)]
    tools: Option<Capped<Object<WireTool>, { limits::TOOLS }>>,
    /// Whether and which of them it must call; `auto` when absent.
    #[serde(default)]
    tool_choice: Option<Object<WireChoice>>,
    /// Whether the model thinks first. Other than `disabled` only for models that have this parameter.
    #[serde(default)]
    thinking: Option<Object<Thinking>>,
    /// What the answer must look like.
    #[serde(default)]
    output_config: Option<Object<OutputConfig>>,
    /// Common prefixes are found without it.
    #[serde(default, rename = "cache_control")]
    _cache_control: NoEffect<Anything>,
}

const SERVICE_TIER: &[&str] = &["auto", "standard_only"];
const SPEED: &[&str] = &["standard"];

/// Who asks.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesMetadata")]
#[serde(deny_unknown_fields)]
struct Metadata {
    #[serde(default, rename = "user_id")]
    _user_id: NoEffect<String>,
}

/// A function that the model may call.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesTool")]
#[serde(deny_unknown_fields)]
struct WireTool {
    #[serde(default)]
    #[schemars(transform = words(&["custom"]))]
    r#type: Option<String>,
    /// Unique among the tools.
    #[schemars(length(min = 1, max = 64), pattern(r"^[A-Za-z0-9_-]+$"))]
    name: String,
    /// What it does, for the model.
    #[serde(default)]
    description: Option<String>,
    /// The schema of its arguments.
    #[schemars(required, extend("type" = "object"))]
    input_schema: Option<Schema<{ limits::TOOL_BYTES }>>,
    /// Enforce the schema where the model decides to call; where a call is demanded it is enforced anyway.
    #[serde(default)]
    strict: Option<bool>,
    /// Common prefixes are found without it.
    #[serde(default, rename = "cache_control")]
    _cache_control: NoEffect<Anything>,
    /// Arguments always travel as they come.
    #[serde(default, rename = "eager_input_streaming")]
    _eager_input_streaming: NoEffect<bool>,
    #[serde(default)]
    input_examples: Given,
    #[serde(default)]
    defer_loading: Given,
}

/// Whether and which tools the model must call.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesToolChoice")]
#[serde(deny_unknown_fields)]
struct WireChoice {
    #[schemars(transform = words(&["auto", "any", "tool", "none"]))]
    r#type: String,
    /// Of `tool`.
    #[serde(default)]
    name: Option<String>,
    /// `true` limits an answer to one call.
    #[serde(default)]
    disable_parallel_tool_use: Option<bool>,
}

/// Whether the model thinks first.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesThinking")]
#[serde(deny_unknown_fields)]
struct Thinking {
    #[schemars(transform = words(&["disabled"]))]
    r#type: String,
    #[serde(default, rename = "budget_tokens")]
    _budget_tokens: NoEffect<u64>,
    #[serde(default, rename = "display")]
    _display: NoEffect<String>,
}

/// What the answer must look like.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesOutputConfig")]
#[serde(deny_unknown_fields)]
struct OutputConfig {
    /// JSON that a schema accepts.
    #[serde(default)]
    format: Option<Object<OutputFormat>>,
    /// How much the model should think.
    #[serde(default)]
    effort: Given,
}

/// JSON that a schema accepts.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesOutputFormat")]
#[serde(deny_unknown_fields)]
struct OutputFormat {
    #[schemars(transform = words(&["json_schema"]))]
    r#type: String,
    /// The schema.
    #[schemars(required)]
    schema: Option<Schema<{ limits::SCHEMA_BYTES }>>,
}

/// What both routes read.
struct Prompt {
    model: String,
    system: Option<Blocks>,
    turns: Vec<Object<WireTurn>>,
    tools: Option<Capped<Object<WireTool>, { limits::TOOLS }>>,
    choice: Option<Object<WireChoice>>,
    thinking: Option<Object<Thinking>>,
    output: Option<Object<OutputConfig>>,
    /// What makes the model go on from a last message of the assistant.
    continuation: Option<&'static str>,
}

impl MessagesBody {
    /// The request in our words, and whether its answer is a stream. `continuation` is what makes the model go on from a
    /// last message of the assistant.
    pub(crate) fn into_request(
        self,
        extra: Map<String, Value>,
        continuation: Option<&'static str>,
    ) -> Result<(ChatRequest, bool)> {
        refuse(&[
            ("container", self.container, "a container is"),
            ("mcp_servers", self.mcp_servers, "asking other servers is"),
            ("context_management", self.context_management, "cutting the conversation is"),
            ("inference_geo", self.inference_geo, "choosing a place is"),
        ])?;
        for (field, word, allowed) in
            [("service_tier", &self.service_tier, SERVICE_TIER), ("speed", &self.speed, SPEED)]
        {
            if !word.is_one_of(allowed) {
                return Err(unsupported(field, "this value is"));
            }
        }
        if self.max_tokens == 0 {
            return Err(Error::invalid("max_tokens", "`max_tokens` must be at least 1"));
        }
        let sampling = Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            max_tokens: Some(self.max_tokens),
            stop: self.stop_sequences.map(|stop| stop.0),
            ..Sampling::default()
        };
        sampling.validate().map_err(|error| match error.param() {
            Some("stop") => {
                let message = error.message().replacen("stop", "stop_sequences", 1);
                Error::invalid("stop_sequences", message)
            }
            _ => error,
        })?;
        let stream = self.stream.unwrap_or(false);
        let prompt = Prompt {
            model: self.model,
            system: self.system,
            turns: self.messages.0,
            tools: self.tools,
            choice: self.tool_choice,
            thinking: self.thinking,
            output: self.output_config,
            continuation,
        };
        let request = ChatRequest { sampling, whole: !stream, extra, ..prompt.into_request()? };
        Ok((request, stream))
    }
}

impl CountBody {
    /// The request in our words.
    pub(crate) fn into_request(
        self,
        extra: Map<String, Value>,
        continuation: Option<&'static str>,
    ) -> Result<ChatRequest> {
        let prompt = Prompt {
            model: self.model,
            system: self.system,
            turns: self.messages.0,
            tools: self.tools,
            choice: self.tool_choice,
            thinking: self.thinking,
            output: self.output_config,
            continuation,
        };
        Ok(ChatRequest { extra, ..prompt.into_request()? })
    }
}

impl Prompt {
    fn into_request(self) -> Result<ChatRequest> {
        if self.thinking.is_some_and(|Object(thinking)| thinking.r#type != "disabled") {
            return Err(unsupported("thinking", "asking this model to think is"));
        }
        let tools = self.tools.map(|tools| tools.0).unwrap_or_default();
        let tools: Result<Vec<Tool>> =
            tools.into_iter().enumerate().map(|(index, Object(tool))| tool.into_tool(index)).collect();
        let tools = tools?;
        let (tool_choice, parallel_tool_calls) = choice(self.choice)?;
        tools::check(&tools, &tool_choice, "")?;
        let format = format(self.output)?;
        let input = Input::Messages(messages(self.system, self.turns, self.continuation)?);
        Ok(ChatRequest {
            tools,
            tool_choice,
            parallel_tool_calls,
            format,
            front_end: FrontEnd::OpenAi,
            ..ChatRequest::new(self.model, input)
        })
    }
}

/// What must be called, and whether several calls are allowed.
fn choice(choice: Option<Object<WireChoice>>) -> Result<(ToolChoice, bool)> {
    let Some(Object(wire)) = choice else { return Ok((ToolChoice::Auto, true)) };
    let parallel = !wire.disable_parallel_tool_use.unwrap_or(false);
    if wire.name.is_some() != (wire.r#type == "tool") {
        let message = "`tool_choice.name`: the type 'tool' needs one, and no other type has one";
        return Err(Error::invalid("tool_choice.name", message));
    }
    let choice = match (wire.r#type.as_str(), wire.name) {
        ("auto", _) => ToolChoice::Auto,
        ("any", _) => ToolChoice::Required,
        ("none", _) => ToolChoice::None,
        ("tool", Some(name)) => ToolChoice::Named(name),
        _ => {
            let message = "`tool_choice.type` must be 'auto', 'any', 'tool' or 'none'";
            return Err(Error::invalid("tool_choice.type", message));
        }
    };
    Ok((choice, parallel))
}

fn format(config: Option<Object<OutputConfig>>) -> Result<ResponseFormat> {
    let Some(Object(config)) = config else { return Ok(ResponseFormat::Text) };
    if config.effort.0 {
        return Err(unsupported("output_config.effort", "how much to think is"));
    }
    let Some(Object(format)) = config.format else { return Ok(ResponseFormat::Text) };
    if format.r#type != "json_schema" {
        return Err(unsupported("output_config.format.type", "a type other than json_schema is"));
    }
    match format.schema {
        Some(Schema(schema)) => Ok(ResponseFormat::JsonSchema(schema)),
        None => {
            let field = "output_config.format.schema";
            Err(Error::invalid(field, format!("the field `{field}` is missing")))
        }
    }
}

impl WireTool {
    fn into_tool(self, index: usize) -> Result<Tool> {
        let path = |field: &str| format!("tools[{index}].{field}");
        if self.r#type.as_deref().is_some_and(|kind| kind != "custom") {
            return Err(unsupported(path("type"), "a tool of the vendor's own is"));
        }
        for (field, given) in [("input_examples", self.input_examples), ("defer_loading", self.defer_loading)]
        {
            if given.0 {
                return Err(unsupported(path(field), "this is"));
            }
        }
        let Some(Schema(parameters)) = self.input_schema else {
            let field = path("input_schema");
            return Err(Error::invalid(field.clone(), format!("the field `{field}` is missing")));
        };
        if !parameters.is_object() {
            let field = path("input_schema");
            return Err(Error::invalid(field.clone(), format!("`{field}` must be a JSON Schema")));
        }
        Ok(Tool {
            name: self.name,
            description: self.description,
            parameters: Some(parameters),
            strict: self.strict.unwrap_or(false),
        })
    }
}
