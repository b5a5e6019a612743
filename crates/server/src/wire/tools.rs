//! `tools` and `tool_choice` of the OpenAI API.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use byzerllm_core::{Error, Result, Tool, ToolChoice};
use schemars::{JsonSchema, json_schema};
use serde::de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::describe::{described, words};
use super::fields::{Capped, Object, unsupported};
use super::schema::Schema;
use crate::limits;

/// The tools of a request.
pub(crate) type WireTools = Capped<Object<WireTool>, { limits::TOOLS }>;

/// One tool.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ChatCompletionTool")]
#[serde(deny_unknown_fields)]
pub(crate) struct WireTool {
    #[schemars(transform = words(&["function"]))]
    r#type: String,
    /// The function.
    #[schemars(required)]
    function: Option<Object<WireFunction>>,
}

/// A function that the model may call.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ChatCompletionFunction")]
#[serde(deny_unknown_fields)]
struct WireFunction {
    /// Unique among the tools.
    #[schemars(length(min = 1, max = 64), pattern(r"^[A-Za-z0-9_-]+$"))]
    name: String,
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
}

/// A word, or the name of a tool.
#[derive(Debug)]
pub(crate) enum WireChoice {
    Word(String),
    Function(String),
}

/// A call of this function.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ChatCompletionNamedToolChoice")]
#[serde(deny_unknown_fields)]
struct NamedChoice {
    #[schemars(transform = words(&["function"]))]
    r#type: String,
    function: Object<NamedFunction>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
struct NamedFunction {
    name: String,
}

described!(WireChoice, "WireChoice", |generator| {
    let named = generator.subschema_for::<NamedChoice>();
    json_schema!({ "anyOf": [{ "type": "string", "enum": ["none", "auto", "required"] }, named] })
});

/// An object that names a function to call, as one of OpenAI's interfaces writes it.
pub(crate) trait Named: DeserializeOwned {
    /// Its `type`, and the function.
    fn into_parts(self) -> (String, String);
}

impl Named for NamedChoice {
    fn into_parts(self) -> (String, String) {
        (self.r#type, self.function.0.name)
    }
}

impl<'de> Deserialize<'de> for WireChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read::<NamedChoice, D>(deserializer)
    }
}

impl WireChoice {
    /// A word, or an object of this form.
    pub(crate) fn read<'de, N: Named, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choice<N>(PhantomData<N>);
        impl<'de, N: Named> Visitor<'de> for Choice<N> {
            type Value = WireChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("'none', 'auto', 'required' or a function")
            }

            fn visit_str<E>(self, word: &str) -> Result<WireChoice, E> {
                Ok(WireChoice::Word(word.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<WireChoice, A::Error> {
                let (kind, name) = N::deserialize(MapAccessDeserializer::new(fields))?.into_parts();
                if kind != "function" {
                    return Err(serde::de::Error::custom("the type must be 'function'"));
                }
                Ok(WireChoice::Function(name))
            }
        }
        deserializer.deserialize_any(Choice::<N>(PhantomData))
    }

    /// The choice in our words; `auto` when nothing is said.
    pub(crate) fn into_choice(choice: Option<Self>) -> Result<ToolChoice> {
        match choice {
            None => Ok(ToolChoice::Auto),
            Some(Self::Function(name)) => Ok(ToolChoice::Named(name)),
            Some(Self::Word(word)) => match word.as_str() {
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
}

/// Tools and choice in our words.
pub(crate) fn tools(tools: Option<WireTools>, choice: Option<WireChoice>) -> Result<(Vec<Tool>, ToolChoice)> {
    let wire = tools.map(|tools| tools.0).unwrap_or_default();
    let choice = WireChoice::into_choice(choice)?;
    let tools: Result<Vec<Tool>> =
        wire.into_iter().enumerate().map(|(index, tool)| tool.0.into_tool(index)).collect();
    let tools = tools?;
    check(&tools, &choice, "function.")?;
    Ok((tools, choice))
}

/// Checks names and numbers. `below` is what stands between a tool and its fields in paths.
pub(crate) fn check(tools: &[Tool], choice: &ToolChoice, below: &str) -> Result<()> {
    if tools.len() > limits::TOOLS {
        let (max, got) = (limits::TOOLS, tools.len());
        return Err(Error::invalid("tools", format!("at most {max} tools are allowed, got {got}")));
    }
    let mut names = HashSet::new();
    for (index, tool) in tools.iter().enumerate() {
        let field = format!("tools[{index}].{below}name");
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !(1..=64).contains(&tool.name.len()) || !tool.name.chars().all(valid) {
            let message = format!("`{field}` must have 1 to 64 letters, digits, dashes or underscores");
            return Err(Error::invalid(field, message));
        }
        if !names.insert(tool.name.as_str()) {
            let message = format!("`{field}`: there is a tool '{}' already", tool.name);
            return Err(Error::invalid(field, message));
        }
        if tool
            .parameters
            .as_ref()
            .is_some_and(|schema| !matches!(schema, Value::Object(_) | Value::Bool(true)))
        {
            let field = format!("tools[{index}].{below}parameters");
            return Err(Error::invalid(field.clone(), format!("`{field}` must be a JSON Schema")));
        }
    }
    match choice {
        ToolChoice::Required if tools.is_empty() => {
            Err(Error::invalid("tool_choice", "`tool_choice` 'required' needs `tools`"))
        }
        ToolChoice::Named(name) if !names.contains(name.as_str()) => {
            let name: String = name.chars().take(64).collect();
            Err(Error::invalid(
                "tool_choice",
                format!("`tool_choice` names '{name}', which is none of `tools`"),
            ))
        }
        _ => Ok(()),
    }
}

impl WireTool {
    fn into_tool(self, index: usize) -> Result<Tool> {
        let path = |field: &str| format!("tools[{index}].{field}");
        if self.r#type != "function" {
            return Err(unsupported(path("type"), "a tool that is no function is"));
        }
        let Some(Object(function)) = self.function else {
            let field = path("function");
            return Err(Error::invalid(field.clone(), format!("the field `{field}` is missing")));
        };
        Ok(Tool {
            name: function.name,
            description: function.description,
            parameters: function.parameters.map(|schema| schema.0),
            strict: function.strict.unwrap_or(false),
        })
    }
}
