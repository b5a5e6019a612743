//! The grammars that enforce calls, in the Lark dialect of llguidance.
//!
//! Where a call is demanded, the answer is calls and nothing else. Where the model decides and a tool is strict, the
//! answer is free until it opens a call as the format does; from there to the call's end only a call is possible.

use byzerllm_core::{ChatRequest, Tool, ToolChoice};
use serde_json::{Value, json};

use super::thoughts::CLOSE;
use super::{Format, Shape};
use crate::constraint::{ConstraintSpec, with_short_spaces};

/// Demanded calls in one answer, where several are allowed.
const MOST_CALLS: usize = 16;

/// White space between the parts of a call.
const SPACE: &str = "SPACE: /[ \\n\\r\\t]{1,16}/\n";

/// The grammar behind a request's tools; none where everything is possible. `opened` says whether the prompt has
/// begun the model's reasoning, for models that reason; `special` gives the number of a special token.
pub(crate) fn constraint(
    format: &Format,
    request: &ChatRequest,
    special: &dyn Fn(&str) -> Option<u32>,
    opened: Option<bool>,
) -> Option<ConstraintSpec> {
    let decides = request.tool_choice == ToolChoice::Auto;
    let tools: Vec<&Tool> = match &request.tool_choice {
        ToolChoice::None => return None,
        ToolChoice::Auto if !request.tools.iter().any(|tool| tool.strict) => return None,
        ToolChoice::Auto | ToolChoice::Required => request.tools.iter().collect(),
        ToolChoice::Named(name) => request.tools.iter().filter(|tool| tool.name == *name).collect(),
    };
    let calls: Vec<Value> =
        tools.iter().map(|tool| call_schema(tool, format.arguments, !decides || tool.strict)).collect();
    let call = format!("call: %json {}\n", with_short_spaces(json!({"anyOf": calls})));
    let rules = if decides {
        free(format.shape, special, opened)
    } else {
        let several = request.tool_choice == ToolChoice::Required && request.parallel_tool_calls;
        demanded(format.shape, special, opened, if several { MOST_CALLS } else { 1 })
    };
    Some(ConstraintSpec::Lark(rules + &call))
}

/// Calls and nothing else, one at least and `most` at most.
fn demanded(
    shape: Shape,
    special: &dyn Fn(&str) -> Option<u32>,
    opened: Option<bool>,
    most: usize,
) -> String {
    let more = |separator: &str, item: &str| match most {
        1 => String::new(),
        most => format!(" ({} {item}){{0,{}}}", json!(separator), most - 1),
    };
    let calls = match shape {
        Shape::Marked { open, close } => {
            format!("calls: one{}\none: {} call {}\n", more("\n", "one"), json!(open), json!(close))
        }
        Shape::Bare { .. } => format!("calls: call{}\n", more("; ", "call")),
        Shape::List { open } => {
            format!("calls: {} \"[\" call{} \"]\"\n", marker(open, special), more(", ", "call"))
        }
    };
    // What stands within the reasoning is no call.
    let start = match opened {
        Some(true) => format!("start: thought SPACE? calls\n{}{SPACE}", thought("")),
        _ => "start: calls\n".to_owned(),
    };
    start + &calls
}

/// Text with calls in it, both as they may be.
fn free(shape: Shape, special: &dyn Fn(&str) -> Option<u32>, opened: Option<bool>) -> String {
    // `part` goes on with the text before it, `rest` ends it; `first` and `only` begin an answer of a model that
    // might have reasoned first, and did not.
    let rules = match shape {
        Shape::Marked { open, close } => {
            let (open, close) = (open.trim(), close.trim());
            let tail = format!("SPACE? call SPACE? {}", json!(close));
            let text = format!("/(.|\\n)*{}/", escaped(open));
            format!(
                "part: opening {tail}\nopening[lazy]: {text}\n\
                 first: beginning {tail}\nbeginning[lazy]: {text} & {NO_THOUGHT}\n\
                 rest: REST\nREST: {}\n",
                without(open)
            )
        }
        Shape::Bare { tag } => {
            let tag_rule = marker(tag, special);
            format!(
                "part: SPACE? ({tag_rule} SPACE?)? call (SPACE? \";\" SPACE? call)* SPACE?\nfirst: part\n\
                 rest: REST\nREST: {} & ~/[ \\n\\r\\t]*\\{{(.|\\n)*/\n",
                without(tag)
            )
        }
        Shape::List { open } => {
            let list = "SPACE? \"[\" SPACE? call (SPACE? \",\" SPACE? call)* SPACE? \"]\"";
            let text = without(open);
            match marker(open, special) {
                token if token.starts_with('<') => format!(
                    "part: REST? {token} {list}\nfirst: BEGINNING? {token} {list}\n\
                     BEGINNING: {text} & {NO_THOUGHT}\nrest: REST\nREST: {text}\n"
                ),
                _ => {
                    let opening = format!("/(.|\\n)*{}/", escaped(open));
                    format!(
                        "part: opening {list}\nopening[lazy]: {opening}\n\
                         first: beginning {list}\nbeginning[lazy]: {opening} & {NO_THOUGHT}\n\
                         rest: REST\nREST: {text}\n"
                    )
                }
            }
        }
    };
    // A format whose calls make the whole answer has nothing around them.
    let (many, after) = if matches!(shape, Shape::Bare { .. }) { ("part", "") } else { ("part*", " rest?") };
    let answer = if after.is_empty() {
        "answer: part | rest |\n".to_owned()
    } else {
        format!("answer: {many}{after}\n")
    };
    let unfinished = without(CLOSE);
    let start = match opened {
        None => "start: answer\n".to_owned(),
        Some(true) => {
            format!("start: thought answer | UNFINISHED |\nUNFINISHED: {unfinished}\n{}", thought(""))
        }
        Some(false) if after.is_empty() => {
            format!("start: thought answer | answer\n{}", thought("[ \\n\\r\\t]*<think>"))
        }
        Some(false) => {
            format!("start: thought answer | first answer | rest |\n{}", thought("[ \\n\\r\\t]*<think>"))
        }
    };
    format!("{start}{answer}{rules}{SPACE}")
}

/// A text that does not begin with reasoning.
const NO_THOUGHT: &str = "~/[ \\n\\r\\t]*<think>(.|\\n)*/";

/// The reasoning to its end.
fn thought(open: &str) -> String {
    format!("thought[lazy]: /{open}(.|\\n)*{}/\n", escaped(CLOSE))
}

/// Any text that lacks a marker.
fn without(marker: &str) -> String {
    format!("/(.|\\n)+/ & ~/(.|\\n)*{}(.|\\n)*/", escaped(marker))
}

/// A marker as a regular expression between slashes.
fn escaped(marker: &str) -> String {
    let mut text = String::new();
    for c in marker.chars() {
        if "\\.+*?()|[]{}^$/".contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// A marker in a rule: its token's number, as only that names a special token, or its text.
fn marker(text: &str, special: &dyn Fn(&str) -> Option<u32>) -> String {
    match special(text) {
        Some(id) => format!("<[{id}]>"),
        None => json!(text).to_string(),
    }
}

fn call_schema(tool: &Tool, arguments: &str, enforced: bool) -> Value {
    let parameters = match &tool.parameters {
        Some(parameters @ Value::Object(_)) if enforced => {
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
