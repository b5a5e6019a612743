//! Calls that measure any server which speaks OpenAI's API.

use std::time::{Duration, Instant};

use byzerllm_core::{Error, ErrorKind, Result};
use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use crate::http::{Http, parse_url};

/// When the pieces of one streamed answer came.
#[derive(Debug, Clone)]
pub struct Timing {
    /// When the request was sent.
    pub started: Instant,
    /// When each piece with text came, since `started`.
    pub chunks: Vec<Duration>,
    /// When the stream ended, since `started`.
    pub finished: Duration,
    /// Tokens of the prompt, when the server says it.
    pub prompt_tokens: Option<u64>,
    /// Generated tokens, when the server says it.
    pub completion_tokens: Option<u64>,
    /// The text of the first choice.
    pub text: String,
    /// Why the first choice ended, in the server's words.
    pub finish_reason: Option<String>,
}

impl Timing {
    /// Time to the first piece of text.
    #[must_use]
    pub fn first_token(&self) -> Option<Duration> {
        self.chunks.first().copied()
    }

    /// Generated tokens: the server's count, else the number of pieces.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.completion_tokens.unwrap_or(self.chunks.len() as u64)
    }
}

/// A connection to a server that speaks OpenAI's API. Cheap to clone.
#[derive(Clone)]
pub struct OpenAi {
    http: Http,
}

impl std::fmt::Debug for OpenAi {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("OpenAi").field("url", &self.http.base()).finish_non_exhaustive()
    }
}

impl OpenAi {
    /// A client of the server at `url`, with or without `/v1` at the end.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] when the URL is not an http URL.
    pub fn new(url: &str, key: Option<String>) -> Result<Self> {
        let mut url = parse_url(url)?;
        if !url.path().ends_with("/v1") {
            let path = format!("{}/v1", url.path().trim_end_matches('/'));
            url.set_path(&path);
        }
        Ok(Self { http: Http::new(url, key)? })
    }

    /// The ids of the server's models.
    ///
    /// # Errors
    /// The server's.
    pub async fn models(&self) -> Result<Vec<String>> {
        let answer = self.http.json(Method::GET, &["models"], &[], None).await?;
        let models = answer.get("data").and_then(Value::as_array).ok_or_else(|| odd("no list of models"))?;
        let id = |model: &Value| model.get("id").and_then(Value::as_str).map(str::to_owned);
        models.iter().map(|model| id(model).ok_or_else(|| odd("a model without id"))).collect()
    }

    /// Streams one chat completion. `body` is the request as the API defines it; `stream` and
    /// `stream_options.include_usage` are added.
    ///
    /// # Errors
    /// The server's, also when it comes in the middle of the stream.
    pub async fn chat(&self, body: &Value) -> Result<Timing> {
        self.stream(&["chat", "completions"], body).await
    }

    /// Streams one text completion.
    ///
    /// # Errors
    /// As [`OpenAi::chat`].
    pub async fn complete(&self, body: &Value) -> Result<Timing> {
        self.stream(&["completions"], body).await
    }

    async fn stream(&self, path: &[&str], body: &Value) -> Result<Timing> {
        let mut body = body.clone();
        let fields =
            body.as_object_mut().ok_or_else(|| Error::invalid("body", "the request must be an object"))?;
        fields.insert("stream".to_owned(), true.into());
        fields.insert("stream_options".to_owned(), json!({"include_usage": true}));
        let started = Instant::now();
        let response = self.http.send(Method::POST, path, &[], Some(&body)).await?;
        let mut frames = self.http.frames(response)?;
        let mut timing = Timing {
            started,
            chunks: Vec::new(),
            finished: Duration::ZERO,
            prompt_tokens: None,
            completion_tokens: None,
            text: String::new(),
            finish_reason: None,
        };
        let mut done = false;
        while let Some(frame) = frames.next().await {
            let frame = frame?;
            if frame.data == "[DONE]" {
                done = true;
                break;
            }
            let chunk: Value = serde_json::from_str(&frame.data)
                .map_err(|error| odd("a piece that is not JSON").with_source(error))?;
            timing.take(&chunk)?;
        }
        timing.finished = started.elapsed();
        if !done && timing.finish_reason.is_none() {
            return Err(odd("an answer that ends before it is complete"));
        }
        Ok(timing)
    }
}

impl Timing {
    fn take(&mut self, chunk: &Value) -> Result<()> {
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            let message =
                error.get("message").unwrap_or(error).as_str().unwrap_or("an error without message");
            return Err(Error::new(ErrorKind::Upstream, format!("the server failed: {message}")));
        }
        if let Some(usage) = chunk.get("usage") {
            let count = |name: &str| usage.get(name).and_then(Value::as_u64);
            self.prompt_tokens = count("prompt_tokens").or(self.prompt_tokens);
            self.completion_tokens = count("completion_tokens").or(self.completion_tokens);
        }
        for choice in chunk.get("choices").and_then(Value::as_array).into_iter().flatten() {
            let delta = choice.get("delta");
            let piece = |name: &str| delta.and_then(|delta| delta.get(name)).and_then(Value::as_str);
            let text =
                piece("content").or_else(|| choice.get("text").and_then(Value::as_str)).unwrap_or_default();
            let thought = piece("reasoning_content").or_else(|| piece("reasoning")).unwrap_or_default();
            if !text.is_empty() || !thought.is_empty() {
                self.chunks.push(self.started.elapsed());
            }
            if choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0 {
                self.text.push_str(text);
                if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
                    self.finish_reason = Some(reason.to_owned());
                }
            }
        }
        Ok(())
    }
}

fn odd(what: &str) -> Error {
    Error::new(ErrorKind::Upstream, format!("the server sent {what}"))
}
