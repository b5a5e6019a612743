//! Chat templates: messages turned into the text a model was trained on, as Hugging Face renders them.
//!
//! A template comes with a checkpoint, so it is a stranger's program. It runs with fuel and with budgets of memory
//! and work that every operator, filter, method and function pays into; see [`budget`] and [`program`].

mod budget;
mod clock;
mod environment;
pub(crate) mod formats;
mod methods;
mod operators;
mod program;
pub(crate) mod published;
mod python;
mod tojson;

use std::fmt;
use std::sync::Arc;

use byzerllm_core::{Error, ErrorKind, Message};
use minijinja::Value as TemplateValue;
use serde_json::Value;

/// The longest template, in bytes. The longest real ones have about 30 kB.
const MAX_SOURCE_BYTES: usize = 256 * 1024;

/// Texts of special tokens, which templates print.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// The token before a sequence.
    pub bos: Option<String>,
    /// The token after a sequence.
    pub eos: Option<String>,
    /// The token for what is not in the vocabulary.
    pub unk: Option<String>,
    /// The token that fills batches.
    pub pad: Option<String>,
}

impl SpecialTokens {
    /// Reads the tokens of a `tokenizer_config.json`: strings, or objects with `content`.
    #[must_use]
    pub fn from_tokenizer_config(config: &Value) -> Self {
        let token = |name: &str| {
            let value = config.get(name)?;
            value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
        };
        Self {
            bos: token("bos_token"),
            eos: token("eos_token"),
            unk: token("unk_token"),
            pad: token("pad_token"),
        }
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let tokens = [
            ("bos_token", &self.bos),
            ("eos_token", &self.eos),
            ("unk_token", &self.unk),
            ("pad_token", &self.pad),
        ];
        tokens.into_iter().filter_map(|(name, token)| Some((name, token.as_deref()?)))
    }
}

/// The chat template in a `tokenizer_config.json`: a string, or of a list of named ones `default`, else `tool_use`.
#[must_use]
pub fn template_from_tokenizer_config(config: &Value) -> Option<String> {
    let template = config.get("chat_template")?;
    let text =
        template.as_str().or_else(|| named(template, "default")).or_else(|| named(template, TOOL_USE))?;
    Some(text.to_owned())
}

/// The template for requests with tools in the list of named ones of a `tokenizer_config.json`.
pub(crate) fn tool_template_from_tokenizer_config(config: &Value) -> Option<String> {
    named(config.get("chat_template")?, TOOL_USE).map(str::to_owned)
}

/// What checkpoints call the template for requests with tools.
const TOOL_USE: &str = "tool_use";

fn named<'a>(templates: &'a Value, name: &str) -> Option<&'a str> {
    let entries = templates.as_array()?;
    let entry = entries.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some(name))?;
    entry.get("template")?.as_str()
}

/// Why a template could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template is not valid Jinja.
    #[error("the chat template is invalid at line {line}: {reason}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The template itself refuses the conversation.
    #[error("the chat template refuses the conversation (line {line}): {reason}")]
    Refused {
        /// The line of the refusal, from 1.
        line: usize,
        /// The template's own words.
        reason: String,
    },
    /// The template fails on the conversation.
    #[error("the chat template failed at line {line}: {reason}")]
    Failed {
        /// The line, from 1.
        line: usize,
        /// What went wrong.
        reason: String,
    },
    /// The template would use more than it may.
    #[error("the chat template was stopped at line {line}: {limit}")]
    Limit {
        /// The line, from 1.
        line: usize,
        /// The limit it ran into.
        limit: String,
    },
}

impl From<TemplateError> for Error {
    fn from(error: TemplateError) -> Self {
        Error::new(ErrorKind::InvalidRequest, error.to_string()).with_source(error)
    }
}

/// A model's chat template. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct ChatTemplate {
    inner: Arc<Inner>,
    /// For requests with tools, where the checkpoint has another one for them.
    tool_use: Option<Arc<Inner>>,
}

struct Inner {
    /// The source as the checkpoint has it.
    source: String,
    /// The source as it runs, where it differs.
    program: String,
    tokens: SpecialTokens,
    /// Whether the template asks if a message's content is none.
    asks_for_none: bool,
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("bytes", &self.inner.source.len()).finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Checks a template.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`] or [`TemplateError::Limit`], naming the line.
    pub fn new(source: &str, tokens: SpecialTokens) -> Result<Self, TemplateError> {
        if source.len() > MAX_SOURCE_BYTES {
            let limit = format!("it has {} bytes; at most {MAX_SOURCE_BYTES} are allowed", source.len());
            return Err(TemplateError::Limit { line: 1, limit });
        }
        let program = program::without_generation_marks(source);
        program::check(&program)?;
        let asks_for_none = ["content'] is ", "content\"] is ", ".content is "].iter().any(|access| {
            ["none", "not none"].iter().any(|word| source.contains(&format!("{access}{word}")))
        });
        let inner = Inner { source: source.to_owned(), program, tokens, asks_for_none };
        Ok(Self { inner: Arc::new(inner), tool_use: None })
    }

    /// Takes another template for requests with tools.
    #[must_use]
    pub fn with_tool_use(self, template: &Self) -> Self {
        Self { tool_use: Some(template.inner.clone()), ..self }
    }

    /// The template's source.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// The source of the template that renders requests with or without tools.
    #[must_use]
    pub fn source_for(&self, tools: bool) -> &str {
        &self.inner(tools).source
    }

    fn inner(&self, tools: bool) -> &Inner {
        self.tool_use.as_ref().filter(|_| tools).unwrap_or(&self.inner)
    }

    /// Renders a conversation. `tools` is a list of tool definitions; with one, the template for tools renders it,
    /// where there is one.
    ///
    /// # Errors
    /// [`TemplateError`] naming the line that refuses, fails or runs into a limit.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&Value>,
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let mut variables = serde_json::Map::new();
        variables.insert("add_generation_prompt".to_owned(), add_generation_prompt.into());
        if let Some(tools) = tools {
            variables.insert("tools".to_owned(), tools.clone());
        }
        self.render_with(messages, &variables)
    }

    /// Renders a conversation with further variables of the template (`enable_thinking`, `documents`, …).
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn render_with(
        &self,
        messages: &[Message],
        variables: &serde_json::Map<String, Value>,
    ) -> Result<String, TemplateError> {
        let mut bytes = 0;
        let inner = self.inner(variables.get("tools").is_some_and(|tools| !tools.is_null()));
        let messages: Vec<TemplateValue> =
            messages.iter().map(|message| inner.message(message, &mut bytes)).collect();
        let mut root: Vec<(String, TemplateValue)> = Vec::with_capacity(variables.len() + 8);
        // Hugging Face defines these even when nobody sets them.
        for name in ["tools", "documents"] {
            root.push((name.to_owned(), TemplateValue::from(())));
        }
        root.push(("messages".to_owned(), TemplateValue::from(messages)));
        for (name, token) in inner.tokens.named() {
            root.push((name.to_owned(), TemplateValue::from(token)));
        }
        for (name, value) in variables {
            root.push((name.clone(), template_value(value, &mut bytes)));
        }
        program::run(&inner.program, TemplateValue::from_pairs(root), bytes)
    }
}

impl Inner {
    fn message(&self, message: &Message, bytes: &mut usize) -> TemplateValue {
        *bytes += message.content.len() + 64;
        // A message of tool calls alone has no content. Some templates tell the two apart, the others want a text.
        let absent =
            self.asks_for_none && message.content.is_empty() && message.extra.contains_key("tool_calls");
        let content =
            if absent { TemplateValue::from(()) } else { TemplateValue::from(message.content.as_str()) };
        let own = [("role", TemplateValue::from(message.role.as_str())), ("content", content)];
        let mut fields: Vec<(String, TemplateValue)> =
            own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        for (name, value) in &message.extra {
            if name != "role" && name != "content" {
                fields.push((name.clone(), template_value(value, bytes)));
            }
        }
        TemplateValue::from_pairs(fields)
    }
}

/// A JSON value as the template sees it, its size added to `bytes`.
fn template_value(value: &Value, bytes: &mut usize) -> TemplateValue {
    *bytes += 32;
    match value {
        Value::Null => TemplateValue::from(()),
        Value::Bool(value) => TemplateValue::from(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => TemplateValue::from(number),
            (_, Some(number), _) => TemplateValue::from(number),
            (_, _, number) => TemplateValue::from(number.unwrap_or(f64::NAN)),
        },
        Value::String(text) => {
            *bytes += text.len();
            TemplateValue::from(text.as_str())
        }
        Value::Array(items) => {
            TemplateValue::from(items.iter().map(|item| template_value(item, bytes)).collect::<Vec<_>>())
        }
        Value::Object(fields) => TemplateValue::from_pairs(
            fields
                .iter()
                .map(|(name, value)| (name.clone(), template_value(value, bytes)))
                .collect::<Vec<_>>(),
        ),
    }
}
