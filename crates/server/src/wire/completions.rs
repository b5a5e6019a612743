//! The request of `POST /v1/completions`.
//!
//! Absent parameters come from the deployment, the checkpoint and at last OpenAI's own defaults: temperature 1 and
//! top_p 1. There is no silent limit of 16 tokens: without `max_tokens` the answer ends at the end of the context.
//! `user` is accepted without effect. With `echo`, `logprobs` covers the prompt's own tokens, `max_tokens: 0` included.

use std::fmt;

use byzerllm_core::{ChatRequest, Error, FrontEnd, Input, Result, Sampling};
use serde::de::{SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer};

use super::chat::{Asked, StreamOptions};
use super::fields::{Capped, Given, Object, Seed, TextOrList, unsupported};
use super::sampling;
use crate::limits;

/// The body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompletionBody {
    model: String,
    prompt: Prompts,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<Object<StreamOptions>>,
    #[serde(default)]
    n: Option<u32>,
    #[serde(default)]
    best_of: Option<u32>,
    #[serde(default)]
    temperature: Option<f32>,
    #[serde(default)]
    top_p: Option<f32>,
    #[serde(default)]
    top_k: Option<i64>,
    #[serde(default)]
    min_p: Option<f32>,
    #[serde(default)]
    seed: Option<Seed>,
    #[serde(default)]
    max_tokens: Option<u32>,
    #[serde(default)]
    stop: Option<TextOrList>,
    #[serde(default)]
    stop_token_ids: Option<Capped<u32, { limits::STOP_TOKEN_IDS }>>,
    #[serde(default)]
    logprobs: Option<u32>,
    #[serde(default)]
    echo: Option<bool>,
    #[serde(default)]
    suffix: Given,
    #[serde(default)]
    logit_bias: Given,
    #[serde(default)]
    presence_penalty: Option<f64>,
    #[serde(default)]
    frequency_penalty: Option<f64>,
    #[serde(default)]
    repetition_penalty: Option<f64>,
    #[serde(default, rename = "user")]
    _user: Option<String>,
}

/// The prompts of one call, one after another.
#[derive(Debug)]
struct Prompts(Vec<Input>);

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

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Prompt;
        impl<'de> Visitor<'de> for Prompt {
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
                    Some(First::Text(text)) => rest(Input::Text(text), items, Input::Text),
                    Some(First::Ids(ids)) => rest(Input::Tokens(ids), items, Input::Tokens),
                }
            }
        }
        deserializer.deserialize_any(Prompt).map(Prompts)
    }
}

fn rest<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
    first: Input,
    mut items: A,
    make: fn(T) -> Input,
) -> Result<Vec<Input>, A::Error> {
    let mut prompts = vec![first];
    while let Some(item) = items.next_element()? {
        if prompts.len() == limits::PROMPTS {
            let max = limits::PROMPTS;
            return Err(serde::de::Error::custom(format_args!("more than {max} prompts in one call")));
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
    pub(crate) fn into_requests(self) -> Result<Asked<Batch>> {
        self.check_features()?;
        let stream = self.stream.unwrap_or(false);
        let include_usage = StreamOptions::include_usage(self.stream_options.as_ref(), stream)?;
        let n = sampling::choices(self.n)?;
        let prompts = self.prompt.0;
        if prompts.is_empty() {
            return Err(Error::invalid("prompt", "`prompt` must hold at least one prompt"));
        }
        if prompts.len() * n as usize > limits::CHOICES_PER_CALL {
            let (count, max) = (prompts.len(), limits::CHOICES_PER_CALL);
            let message = format!("{count} prompts with {n} choices each exceed {max} choices per call");
            return Err(Error::invalid("n", message));
        }
        let logprobs = self.logprobs.map(|k| sampling::alternatives("logprobs", k)).transpose()?;
        let echo = self.echo.unwrap_or(false);
        let sampling = Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: sampling::top_k(self.top_k)?,
            min_p: self.min_p,
            seed: self.seed.map(|seed| seed.0),
            max_tokens: self.max_tokens,
            stop: self.stop.map(|stop| stop.0),
            stop_token_ids: self.stop_token_ids.map(|ids| ids.0),
            logprobs,
            ..Sampling::default()
        };
        sampling.validate()?;
        let model = self.model;
        let requests = prompts
            .into_iter()
            .map(|input| ChatRequest {
                n,
                echo,
                prompt_logprobs: logprobs.filter(|_| echo),
                sampling: sampling.clone(),
                front_end: FrontEnd::OpenAi,
                ..ChatRequest::new(model.clone(), input)
            })
            .collect();
        Ok(Asked { request: Batch { model, n, requests }, stream, include_usage })
    }

    /// Refuses what would be ignored.
    fn check_features(&self) -> Result<()> {
        if self.suffix.0 {
            return Err(unsupported("suffix", "inserting text is"));
        }
        if self.logit_bias.0 {
            return Err(unsupported("logit_bias", "biasing tokens is"));
        }
        if self.best_of.is_some_and(|best_of| best_of != self.n.unwrap_or(1)) {
            return Err(unsupported("best_of", "a value other than `n` is"));
        }
        sampling::neutral("presence_penalty", self.presence_penalty, 0.0)?;
        sampling::neutral("frequency_penalty", self.frequency_penalty, 0.0)?;
        sampling::neutral("repetition_penalty", self.repetition_penalty, 1.0)
    }
}
