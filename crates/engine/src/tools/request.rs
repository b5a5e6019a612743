//! What a request's tools mean for one model: the format of calls, or a refusal.

use std::collections::HashSet;

use byzerllm_core::{ChatRequest, Error, ErrorKind, Input, ResponseFormat, Result, Tool, ToolChoice};
use byzerllm_model::ChatTemplate;

use super::Format;

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
    let source = template.map(|template| template.source_for(true)).unwrap_or_default();
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
