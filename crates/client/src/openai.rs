//! Calls that measure any server which speaks OpenAI's API.

use std::time::{Duration, Instant};

use byzerllm_core::{Error, ErrorKind, Result};
use serde_json::Value;

/// When the pieces of one streamed answer came.
#[derive(Debug, Clone)]
pub struct Timing {
    /// When the request was sent.
    pub started: Instant,
    /// When each piece with text came, since `started`.
    pub chunks: Vec<Duration>,
    /// When the stream ended, since `started`.
    pub finished: Duration,
    /// The server's own token counts, when it sends them.
    pub prompt_tokens: Option<u64>,
    /// See `prompt_tokens`.
    pub completion_tokens: Option<u64>,
    /// The text.
    pub text: String,
    /// Why it ended, in the server's words.
    pub finish_reason: Option<String>,
}

impl Timing {
    /// Time to the first piece of text.
    #[must_use]
    pub fn first_token(&self) -> Option<Duration> {
        self.chunks.first().copied()
    }
}

/// A connection to a server that speaks OpenAI's API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OpenAi {
    base: String,
}

impl OpenAi {
    /// A client of the server at `url`, with or without `/v1` at the end.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] when the URL is not an http URL.
    pub fn new(url: &str, key: Option<String>) -> Result<Self> {
        let _ = key;
        Ok(Self { base: url.to_owned() })
    }

    /// The ids of the server's models.
    ///
    /// # Errors
    /// The server's.
    pub async fn models(&self) -> Result<Vec<String>> {
        let _ = &self.base;
        Err(Error::new(ErrorKind::Unsupported, "this build cannot talk to a server"))
    }

    /// Streams one chat completion. `body` is the request as the API defines it; `stream` and
    /// `stream_options.include_usage` are added.
    ///
    /// # Errors
    /// The server's.
    pub async fn chat(&self, body: &Value) -> Result<Timing> {
        let _ = body;
        Err(Error::new(ErrorKind::Unsupported, "this build cannot talk to a server"))
    }
}
