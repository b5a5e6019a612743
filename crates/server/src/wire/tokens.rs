//! Bodies of `/tokenize` and `/detokenize`, as vLLM has them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{Capped, Given, Object, unsupported};
use super::message::WireMessage;
use super::tools::WireTools;
use crate::limits;
use byzerllm_core::{Error, Message, Result};

/// A prompt or a conversation.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "TokenizeRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizeBody {
    /// The deployment.
    pub(crate) model: String,
    /// A text, whose special tokens are parsed and to which none are added.
    #[serde(default)]
    prompt: Option<String>,
    /// In place of it a conversation, which the model's template renders.
    #[serde(default)]
    messages: Option<Capped<Object<WireMessage>, { limits::MESSAGES }>>,
    /// With `messages`: begin the model's turn; so when absent.
    #[serde(default)]
    add_generation_prompt: Option<bool>,
    #[serde(default)]
    add_special_tokens: Given,
    #[serde(default)]
    return_token_strs: Given,
    #[serde(default)]
    continue_final_message: Given,
    #[serde(default)]
    chat_template: Given,
    #[serde(default)]
    chat_template_kwargs: Given,
    /// Only an empty list.
    #[serde(default)]
    #[schemars(length(max = 0), extend("x-byzerllm-neutral-only" = true))]
    tools: Option<WireTools>,
}

/// What to turn into tokens.
pub(crate) enum Source {
    /// Text.
    Prompt(String),
    /// A conversation, and whether the model's turn is begun.
    Messages(Vec<Message>, bool),
}

impl TokenizeBody {
    /// The name of the model, and what to turn into tokens.
    pub(crate) fn into_source(self) -> Result<(String, Source)> {
        for (field, given) in [
            ("return_token_strs", self.return_token_strs),
            ("continue_final_message", self.continue_final_message),
            ("chat_template", self.chat_template),
            ("chat_template_kwargs", self.chat_template_kwargs),
            ("tools", Given(self.tools.is_some_and(|tools| !tools.0.is_empty()))),
            ("add_special_tokens", self.add_special_tokens),
        ] {
            if given.0 {
                return Err(unsupported(field, "this is"));
            }
        }
        let source = match (self.prompt, self.messages) {
            (Some(_), None) if self.add_generation_prompt.is_some() => {
                let message = "`add_generation_prompt` needs `messages`";
                return Err(Error::invalid("add_generation_prompt", message));
            }
            (Some(prompt), None) => Source::Prompt(prompt),
            (None, Some(Capped(messages))) => {
                let messages: Result<Vec<Message>> = messages
                    .into_iter()
                    .enumerate()
                    .map(|(index, Object(message))| message.into_message(index))
                    .collect();
                Source::Messages(messages?, self.add_generation_prompt.unwrap_or(true))
            }
            (None, None) => return Err(Error::invalid("prompt", "`prompt` or `messages` is missing")),
            (Some(_), Some(_)) => {
                return Err(Error::invalid("messages", "send either `prompt` or `messages`, not both"));
            }
        };
        Ok((self.model, source))
    }
}

/// The tokens.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TokenizeAnswer {
    pub(crate) count: usize,
    /// Tokens that fit into one sequence.
    pub(crate) max_model_len: Option<u32>,
    pub(crate) tokens: Vec<u32>,
}

/// Tokens to write as text.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "DetokenizeRequest")]
#[serde(deny_unknown_fields)]
pub(crate) struct DetokenizeBody {
    /// The deployment.
    pub(crate) model: String,
    /// Ids of its vocabulary.
    pub(crate) tokens: Capped<u32, { limits::TOKENS }>,
}

/// Their text.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DetokenizeAnswer {
    pub(crate) prompt: String,
}
