//! What a request's tools mean for one model: the format of calls, and the grammar that enforces them.

use std::collections::HashSet;

use byzerllm_core::{ChatRequest, Error, ErrorKind, Input, ResponseFormat, Result, Tool, ToolChoice};
use byzerllm_model::{ChatTemplate, Tokenizer};
use serde_json::{Value, json};

use super::{Format, Shape};
use crate::constraint::{ConstraintSpec, with_short_spaces};

/// How the calls of an answer are written; none when calls are text like any other. Refuses what the model cannot do.
pub(crate) fn format_of(
    request: &ChatRequest,
    template: Option<&ChatTemplate>,
) -> Result<Option<&'static Format>> {
    check(&request.tools, &request.tool_choice)?;
    if request.tools.is_empty() {
        return Ok(None);
    }
    if !matches!(request.input, Input::Messages(_)) {
        return Err(Error::invalid("tools", "tools need a conversation; send messages instead of a prompt"));
    }
    let source = template.map(ChatTemplate::source).unwrap_or_default();
    let unsupported = |message: &'static str| Error::new(ErrorKind::Unsupported, message).with_param("tools");
    if !source.contains("tools") {
        return Err(unsupported(
            "this model's chat template knows no tools; leave them out or use another model",
        ));
    }
    if request.tool_choice == ToolChoice::None {
        return Ok(None);
    }
    if request.format != ResponseFormat::Text {
        let message =
            "a response format leaves no room for tool calls; send tool_choice \"none\" or no format";
        return Err(Error::invalid("response_format", message));
    }
    let format = Format::of(source).ok_or_else(|| {
        unsupported(
            "this model writes tool calls in a format that is not known here; use tool_choice \"none\"",
        )
    })?;
    Ok(Some(format))
}

/// The grammar behind `required` and named functions.
pub(crate) fn constraint(
    format: &Format,
    request: &ChatRequest,
    tokenizer: &Tokenizer,
) -> Result<Option<ConstraintSpec>> {
    let tools: Vec<&Tool> = match &request.tool_choice {
        ToolChoice::None | ToolChoice::Auto => return Ok(None),
        ToolChoice::Required => request.tools.iter().collect(),
        ToolChoice::Named(name) => request.tools.iter().filter(|tool| tool.name == *name).collect(),
    };
    let calls: Vec<Value> = tools.iter().map(|tool| call_schema(tool, format.arguments)).collect();
    let call = format!("call: %json {}\n", with_short_spaces(json!({"anyOf": calls})));
    let start = match format.shape {
        Shape::Marked { open, close } => format!("start: {} call {}\n", json!(open), json!(close)),
        Shape::Bare => "start: call\n".to_owned(),
        Shape::List { open } => {
            // The marker is one token, which only its number names.
            let ids = tokenizer.encode(open, false)?;
            match ids[..] {
                [id] => format!("start: <[{id}]> \"[\" call \"]\"\n"),
                _ => format!("start: {} call \"]\"\n", json!(format!("{open}["))),
            }
        }
    };
    Ok(Some(ConstraintSpec::Lark(start + &call)))
}

fn call_schema(tool: &Tool, arguments: &str) -> Value {
    let parameters = match &tool.parameters {
        Some(parameters @ Value::Object(_)) => {
            let mut parameters = parameters.clone();
            // Arguments are an object, whatever a schema leaves open.
            if let Some(fields) = parameters.as_object_mut()
                && !fields.contains_key("type")
            {
                fields.insert("type".to_owned(), "object".into());
            }
            parameters
        }
        _ => json!({"type": "object"}),
    };
    let mut properties = serde_json::Map::new();
    properties.insert("name".to_owned(), json!({"const": tool.name}));
    properties.insert(arguments.to_owned(), parameters);
    json!({
        "type": "object",
        "properties": properties,
        "required": ["name", arguments],
        "additionalProperties": false
    })
}

fn check(tools: &[Tool], choice: &ToolChoice) -> Result<()> {
    let mut names = HashSet::new();
    for tool in tools {
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !(1..=64).contains(&tool.name.len()) || !tool.name.chars().all(valid) {
            let message = "a tool's name must have 1 to 64 letters, digits, dashes or underscores";
            return Err(Error::invalid("tools", message));
        }
        if !names.insert(tool.name.as_str()) {
            return Err(Error::invalid("tools", format!("there are two tools '{}'", tool.name)));
        }
    }
    match choice {
        ToolChoice::Required if tools.is_empty() => {
            Err(Error::invalid("tool_choice", "a required call needs tools"))
        }
        ToolChoice::Named(name) if !names.contains(name.as_str()) => {
            let name: String = name.chars().take(64).collect();
            Err(Error::invalid("tool_choice", format!("'{name}' is none of the tools")))
        }
        _ => Ok(()),
    }
}
