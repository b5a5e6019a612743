//! Tools of the Responses API, which are flat.

use byzerllm_core::{Error, Result, Tool, ToolChoice};
use schemars::{JsonSchema, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::limits;
use crate::wire::describe::{described, words};
use crate::wire::fields::{Given, unsupported};
use crate::wire::schema::Schema;
use crate::wire::tools;

/// A function that the model may call.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ResponseTool")]
#[serde(deny_unknown_fields)]
pub(super) struct WireTool {
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
pub(super) struct ResponseChoice(tools::WireChoice);

/// A call of this function.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ResponseNamedToolChoice")]
#[serde(deny_unknown_fields)]
struct NamedChoice {
    #[schemars(transform = words(&["function"]))]
    r#type: String,
    name: String,
}

described!(ResponseChoice, "WireChoice", |generator| {
    let named = generator.subschema_for::<NamedChoice>();
    json_schema!({ "anyOf": [{ "type": "string", "enum": ["none", "auto", "required"] }, named] })
});

impl tools::Named for NamedChoice {
    fn into_parts(self) -> (String, String) {
        (self.r#type, self.name)
    }
}

impl<'de> Deserialize<'de> for ResponseChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        tools::WireChoice::read::<NamedChoice, D>(deserializer).map(Self)
    }
}

/// What must be called.
pub(super) fn choice(choice: Option<ResponseChoice>) -> Result<ToolChoice> {
    tools::WireChoice::into_choice(choice.map(|choice| choice.0))
}

/// The same as an answer shows it.
pub(super) fn shown_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => "auto".into(),
        ToolChoice::None => "none".into(),
        ToolChoice::Required => "required".into(),
        ToolChoice::Named(name) => json!({"type": "function", "name": name}),
    }
}

/// A tool as an answer shows it.
pub(super) fn shown_tool(tool: &Tool) -> Value {
    json!({
        "type": "function", "name": tool.name, "description": tool.description, "parameters": tool.parameters,
        "strict": tool.strict
    })
}

impl WireTool {
    /// The tool in our words; `index` is its place, for errors.
    pub(super) fn into_tool(self, index: usize) -> Result<Tool> {
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
