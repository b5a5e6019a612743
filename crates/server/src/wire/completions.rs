//! The request of `POST /v1/completions`.
//!
//! Absent parameters come from the deployment, the checkpoint and at last OpenAI's own defaults: temperature 1 and
//! top_p 1. There is no silent limit of 16 tokens: without `max_tokens` the answer ends at the end of the context.
//! `user` is accepted without effect. With `echo`, `logprobs` covers the prompt's own tokens, `max_tokens: 0` included.

use std::fmt;

use byzerllm_core::{ChatRequest, Error, FrontEnd, Input, Result};
use schemars::json_schema;
use serde::de::{SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::chat::{Asked, StreamOptions};
use super::common::{generating_body, refuse};
use super::describe::{described, only};
use super::fields::Given;
use super::sampling;
use crate::limits;

generating_body! {
    /// Prompts to continue.
    #[schemars(rename = "CompletionRequest")]
    CompletionBody {
        /// The deployment.
        model: String,
        /// A text, the ids of its tokens, or a list of either: all texts or all lists of ids.
        prompt: Prompts<{ limits::PROMPTS }>,
        /// Report the log probabilities of the answer's tokens and of so many alternatives.
        #[serde(default)]
        #[schemars(range(max = limits::TOP_LOGPROBS))]
        logprobs: Option<u32>,
        /// The prompt before the answer; with `logprobs` the prompt's own tokens too.
        #[serde(default)]
        echo: Option<bool>,
        /// The tokenizer's own are always added.
        #[serde(default)]
        #[schemars(transform = only([true]))]
        add_special_tokens: Option<bool>,
    }
}

/// The prompts of one call, one after another: at most `MAX`.
#[derive(Debug)]
pub(crate) struct Prompts<const MAX: usize>(pub(crate) Vec<Input>);

/// The first item of a list decides what the list is.
enum First {
    Text(String),
    Id(u32),
    Ids(Vec<u32>),
}

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Item;
        impl<'de> Visitor<'de> for Item {
            type Value = First;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a token id or a list of token ids")
            }

            fn visit_str<E>(self, text: &str) -> Result<First, E> {
                Ok(First::Text(text.to_owned()))
            }

            fn visit_u64<E: serde::de::Error>(self, id: u64) -> Result<First, E> {
                u32::try_from(id).map(First::Id).map_err(|_| E::custom(format_args!("{id} is no token id")))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, ids: A) -> Result<First, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(ids)).map(First::Ids)
            }
        }
        deserializer.deserialize_any(Item)
    }
}

described!(@[const MAX: usize] Prompts<MAX>, "Prompts", |_generator| {
    let token = json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX });
    let ids = json!({ "type": "array", "items": token, "minItems": 1 });
    let list = |items: Value| json!({ "type": "array", "items": items, "minItems": 1, "maxItems": MAX });
    json_schema!({ "anyOf": [{ "type": "string" }, list(json!({ "type": "string" })), ids, list(ids)] })
});

impl<'de, const MAX: usize> Deserialize<'de> for Prompts<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Prompt<const MAX: usize>;
        impl<'de, const MAX: usize> Visitor<'de> for Prompt<MAX> {
            type Value = Vec<Input>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a list of strings, token ids or lists of token ids")
            }

            fn visit_str<E>(self, text: &str) -> Result<Vec<Input>, E> {
                Ok(vec![Input::Text(text.to_owned())])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<Input>, A::Error> {
                match items.next_element()? {
                    None => Ok(Vec::new()),
                    Some(First::Id(id)) => {
                        let mut ids = vec![id];
                        while let Some(id) = items.next_element()? {
                            ids.push(id);
                        }
                        Ok(vec![Input::Tokens(ids)])
                    }
                    Some(First::Text(text)) => rest::<_, _, MAX>(Input::Text(text), items, Input::Text),
                    Some(First::Ids(ids)) => rest::<_, _, MAX>(Input::Tokens(ids), items, Input::Tokens),
                }
            }
        }
        deserializer.deserialize_any(Prompt::<MAX>).map(Prompts)
    }
}

fn rest<'de, T: Deserialize<'de>, A: SeqAccess<'de>, const MAX: usize>(
    first: Input,
    mut items: A,
    make: fn(T) -> Input,
) -> Result<Vec<Input>, A::Error> {
    let mut prompts = vec![first];
    while let Some(item) = items.next_element()? {
        if prompts.len() == MAX {
            return Err(serde::de::Error::custom(format_args!("more than {MAX} in one call")));
        }
        prompts.push(make(item));
    }
    Ok(prompts)
}

/// One request per prompt, all of one model and with the same number of choices.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) model: String,
    pub(crate) n: u32,
    pub(crate) requests: Vec<ChatRequest>,
}

impl CompletionBody {
    /// The requests in our words.
    pub(crate) fn into_requests(mut self, extra: &Map<String, Value>) -> Result<Asked<Batch>> {
        self.check_shared()?;
        let no_tokens = Given(self.add_special_tokens == Some(false));
        refuse(&[("add_special_tokens", no_tokens, "leaving out the tokenizer's own is")])?;
        let stream = self.stream.unwrap_or(false);
        let include_usage = StreamOptions::include_usage(self.stream_options.as_ref(), stream)?;
        let n = sampling::choices(self.n)?;
        let best_of = sampling::best_of(self.best_of, n)?;
        let prompts = std::mem::replace(&mut self.prompt, Prompts(Vec::new())).0;
        if prompts.is_empty() {
            return Err(Error::invalid("prompt", "`prompt` must hold at least one prompt"));
        }
        if prompts.len() * best_of.unwrap_or(n) as usize > limits::CHOICES_PER_CALL {
            let (count, max) = (prompts.len(), limits::CHOICES_PER_CALL);
            let message = format!("{count} prompts with {n} choices each exceed {max} choices per call");
            return Err(Error::invalid("n", message));
        }
        let logprobs = self.logprobs.map(|k| sampling::alternatives("logprobs", k)).transpose()?;
        let echo = self.echo.unwrap_or(false);
        let sampling = self.sampling(self.max_tokens, logprobs)?;
        let format = self.format()?;
        let model = self.model;
        let requests = prompts
            .into_iter()
            .map(|input| ChatRequest {
                n,
                echo,
                prompt_logprobs: logprobs.filter(|_| echo),
                best_of,
                sampling: sampling.clone(),
                format: format.clone(),
                front_end: FrontEnd::OpenAi,
                whole: !stream,
                extra: extra.clone(),
                ..ChatRequest::new(model.clone(), input)
            })
            .collect();
        Ok(Asked { request: Batch { model, n, requests }, stream, include_usage })
    }
}
