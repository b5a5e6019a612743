//! The client of a byzerllm server.

use std::time::Duration;

use byzerllm_core::{ChatRequest, Error, ErrorKind, EventStream, Message, Result};
use serde_json::Value;

/// A connection to a server. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    url: String,
    token: Option<String>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Client").field("url", &self.url).field("token", &self.token.is_some()).finish()
    }
}

fn unsupported<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "this build cannot talk to a server"))
}

impl Client {
    /// A client of the server at `url` (`http://127.0.0.1:8000`). Without a token, the one that a server of this
    /// user left in its runtime file for the URL's port is used.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] when the URL is not an http URL.
    pub fn new(url: &str, token: Option<String>) -> Result<Self> {
        Ok(Self { url: url.trim_end_matches('/').to_owned(), token })
    }

    /// The server's URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Deploys a model and waits until it is ready. `spec` is a deployment spec as JSON; the answer is its status.
    ///
    /// # Errors
    /// The server's, and [`ErrorKind::Unavailable`] when there is no server.
    pub async fn deploy(&self, spec: &Value) -> Result<Value> {
        let _ = spec;
        unsupported()
    }

    /// Removes a deployment; its requests have `drain` to finish (the server's default when `None`).
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn undeploy(&self, name: &str, drain: Option<Duration>) -> Result<()> {
        let _ = (name, drain);
        unsupported()
    }

    /// The statuses of all deployments.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn list(&self) -> Result<Vec<Value>> {
        unsupported()
    }

    /// The status of one deployment.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn status(&self, name: &str) -> Result<Value> {
        let _ = name;
        unsupported()
    }

    /// Describes a checkpoint on the server's machine.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn inspect(&self, path: &std::path::Path) -> Result<Value> {
        let _ = path;
        unsupported()
    }

    /// What inference clients may know of a deployment: `info`, `labels`, `created`. Needs no admin token.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn model(&self, name: &str) -> Result<Value> {
        let _ = name;
        unsupported()
    }

    /// Starts a generation. Dropping the stream closes the connection, which cancels the work.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn chat(&self, request: &ChatRequest) -> Result<EventStream> {
        let _ = request;
        unsupported()
    }

    /// Renders messages with a model's chat template.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn apply_template(
        &self,
        model: &str,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String> {
        let _ = (model, messages, add_generation_prompt);
        unsupported()
    }

    /// Turns text into token ids.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn tokenize(&self, model: &str, text: &str) -> Result<Vec<u32>> {
        let _ = (model, text);
        unsupported()
    }

    /// Whether a server answers at the URL.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when not.
    pub async fn healthy(&self) -> Result<()> {
        unsupported()
    }
}
