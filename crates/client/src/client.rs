//! The client of a byzerllm server.

use std::path::Path;
use std::time::Duration;

use byzerllm_core::{
    ChatRequest, EmbeddingRequest, Embeddings, Error, ErrorKind, Event, EventStream, Message, RerankRequest,
    RerankScores, Result, Takeover,
};
use futures::StreamExt;
use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::encoders;
use crate::http::{Http, is_loopback, parse_url};
use crate::runtime_file::{self, ServerRecord};
use crate::tls::Trust;

/// A connection to a server. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    pub(crate) http: Http,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Client")
            .field("url", &self.http.base())
            .field("token", &self.http.has_token())
            .finish()
    }
}

impl Client {
    /// A client of the server at `url` (`http://127.0.0.1:8000`). Without a token, the one that a server of this
    /// user left in its runtime file for the URL is used. Such a server's own certificate is trusted.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] when the URL is not an http URL.
    pub fn new(url: &str, token: Option<String>) -> Result<Self> {
        let url = parse_url(url)?;
        let (url, record) = known_server(url);
        let Some(record) = record else { return Ok(Self { http: Http::new(url, token)? }) };
        let trust = match &record.certificate {
            Some(path) if url.scheme() == "https" => Trust::exactly(path)?,
            _ if url.scheme() == "https" => Trust::System,
            _ => Trust::Nobody,
        };
        Ok(Self { http: Http::with_trust(url, token.or(Some(record.token)), trust, true)? })
    }

    /// Takes a key for a server that left no token for this user.
    #[must_use]
    pub fn or_token(mut self, token: Option<String>) -> Self {
        self.http.or_token(token);
        self
    }

    /// The server's URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        self.http.base()
    }

    /// Deploys a model and waits until it is ready. `spec` is a deployment spec as JSON; the answer is its status.
    ///
    /// # Errors
    /// The server's, and [`ErrorKind::Unavailable`] when there is no server.
    pub async fn deploy(&self, spec: &Value) -> Result<Value> {
        self.http.json(Method::POST, &["byzerllm", "v1", "deployments"], &[], Some(spec)).await
    }

    /// Removes a deployment; its requests have `drain` to finish (the server's default when `None`).
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn undeploy(&self, name: &str, drain: Option<Duration>) -> Result<()> {
        let query: Vec<_> = drain
            .map(|drain| ("drain_seconds", drain.as_millis().div_ceil(1000).to_string()))
            .into_iter()
            .collect();
        self.http.send(Method::DELETE, &["byzerllm", "v1", "deployments", name], &query, None).await?;
        Ok(())
    }

    /// The LoRA adapters of a deployment.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn adapters(&self, deployment: &str) -> Result<Vec<Value>> {
        let path = ["byzerllm", "v1", "deployments", deployment, "adapters"];
        match self.http.json(Method::GET, &path, &[], None).await? {
            Value::Array(list) => Ok(list),
            _ => Err(self.odd("the list of adapters")),
        }
    }

    /// Loads a LoRA adapter beside a running model: a directory on the server's machine.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn load_adapter(&self, deployment: &str, name: &str, directory: &Path) -> Result<Value> {
        let path = ["byzerllm", "v1", "deployments", deployment, "adapters"];
        let body = json!({"name": name, "path": directory});
        self.http.json(Method::POST, &path, &[], Some(&body)).await
    }

    /// Unloads a LoRA adapter and returns when no request uses it any more.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn unload_adapter(&self, deployment: &str, name: &str) -> Result<()> {
        let path = ["byzerllm", "v1", "deployments", deployment, "adapters", name];
        self.http.send(Method::DELETE, &path, &[], None).await?;
        Ok(())
    }

    /// The statuses of all deployments.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn list(&self) -> Result<Vec<Value>> {
        let answer = self.http.json(Method::GET, &["byzerllm", "v1", "deployments"], &[], None).await?;
        let list = match answer {
            Value::Array(list) => Some(list),
            Value::Object(mut object) => match object.remove("deployments").or_else(|| object.remove("data"))
            {
                Some(Value::Array(list)) => Some(list),
                _ => None,
            },
            _ => None,
        };
        list.ok_or_else(|| self.odd("the list of deployments"))
    }

    /// The status of one deployment.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn status(&self, name: &str) -> Result<Value> {
        self.http.json(Method::GET, &["byzerllm", "v1", "deployments", name], &[], None).await
    }

    /// Describes a checkpoint on the server's machine.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn inspect(&self, path: &Path) -> Result<Value> {
        self.http.json(Method::POST, &["byzerllm", "v1", "inspect"], &[], Some(&json!({"path": path}))).await
    }

    /// What is known about all keys.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn list_keys(&self) -> Result<Vec<Value>> {
        match self.http.json(Method::GET, &["byzerllm", "v1", "keys"], &[], None).await? {
            Value::Array(list) => Ok(list),
            _ => Err(self.odd("the list of keys")),
        }
    }

    /// Makes a key. Without scopes it may ask every deployment; without `life` it lives until it is revoked. The
    /// answer holds the key in `key`, this once, and in `info` what is known about it later.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn create_key(&self, name: &str, scopes: &[String], life: Option<Duration>) -> Result<Value> {
        let mut body = json!({"name": name});
        if !scopes.is_empty() {
            body["scopes"] = json!(scopes);
        }
        if let Some(life) = life {
            body["expires_seconds"] = json!(life.as_secs());
        }
        self.http.json(Method::POST, &["byzerllm", "v1", "keys"], &[], Some(&body)).await
    }

    /// Replaces the secret of a key, and accepts the old one until `grace` is over. Answers as
    /// [`Client::create_key`].
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn rotate_key(&self, name: &str, grace: Duration) -> Result<Value> {
        let body = json!({"grace_seconds": grace.as_secs()});
        self.http.json(Method::POST, &["byzerllm", "v1", "keys", name, "rotate"], &[], Some(&body)).await
    }

    /// Ends a key at once.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn revoke_key(&self, name: &str) -> Result<()> {
        self.http.send(Method::DELETE, &["byzerllm", "v1", "keys", name], &[], None).await?;
        Ok(())
    }

    /// What inference clients may know of a deployment: `info`, `labels`, `created`. Needs no admin token.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn model(&self, name: &str) -> Result<Value> {
        self.http.json(Method::GET, &["byzerllm", "v1", "models", name], &[], None).await
    }

    /// Starts a generation. Dropping the stream closes the connection, which cancels the work.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn chat(&self, request: &ChatRequest) -> Result<EventStream> {
        self.chat_with(request, Takeover::default(), false).await
    }

    /// [`Client::chat`] that says what may happen to the answer when a deployment that answers fails, and whether an
    /// answer kept from an earlier request will not do (`no_cache`).
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn chat_with(
        &self,
        request: &ChatRequest,
        takeover: Takeover,
        no_cache: bool,
    ) -> Result<EventStream> {
        let mut fields = Vec::new();
        if takeover != Takeover::default() {
            fields.push(("x-byzerllm-takeover", takeover.as_str()));
        }
        if no_cache {
            fields.push(("cache-control", "no-store"));
        }
        let body = serde_json::to_value(request)
            .map_err(|error| Error::internal("a request cannot be written as JSON").with_source(error))?;
        let path = ["byzerllm", "v1", "chat"];
        let response = self.http.send_with(Method::POST, &path, &[], &fields, Some(&body)).await?;
        let frames = self.http.frames(response)?;
        let url = self.url().to_owned();
        // Over after the usage record or an error, whatever the server sends then.
        let events = futures::stream::unfold(Some((frames, url)), |state| async move {
            let (mut frames, url) = state?;
            let item = match frames.next().await {
                None => Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("the server at {url} ended the answer before it was complete"),
                )),
                Some(Err(error)) => Err(error),
                Some(Ok(frame)) => read_event(&frame, &url),
            };
            let over = matches!(&item, Err(_) | Ok(Event::Usage { .. }));
            Some((item, (!over).then_some((frames, url))))
        });
        Ok(events.boxed())
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
        let body =
            json!({"model": model, "messages": messages, "add_generation_prompt": add_generation_prompt});
        let answer = self.http.json(Method::POST, &["byzerllm", "v1", "template"], &[], Some(&body)).await?;
        match answer.get("text") {
            Some(Value::String(text)) => Ok(text.clone()),
            _ => Err(self.odd("the rendered template")),
        }
    }

    /// Turns text into token ids.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn tokenize(&self, model: &str, text: &str) -> Result<Vec<u32>> {
        let body = json!({"model": model, "text": text});
        let mut answer =
            self.http.json(Method::POST, &["byzerllm", "v1", "tokenize"], &[], Some(&body)).await?;
        let ids = answer.get_mut("ids").map(Value::take).unwrap_or_default();
        serde_json::from_value(ids).map_err(|error| self.odd("the list of tokens").with_source(error))
    }

    /// Turns texts into vectors, over OpenAI's route.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn embed(&self, request: &EmbeddingRequest) -> Result<Embeddings> {
        self.encode("embeddings", encoders::embedding_body(request), encoders::embeddings).await
    }

    /// Scores pairs of texts, over vLLM's route.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn rerank(&self, request: &RerankRequest) -> Result<RerankScores> {
        let read = |answer| encoders::scores(answer, request.pairs.len());
        self.encode("score", encoders::score_body(request), read).await.map_err(encoders::renamed)
    }

    async fn encode<T>(
        &self,
        route: &str,
        body: Value,
        read: impl FnOnce(Value) -> serde_json::Result<T>,
    ) -> Result<T> {
        let answer = self.http.json(Method::POST, &["v1", route], &[], Some(&body)).await?;
        read(answer).map_err(|error| self.odd("the vectors or scores").with_source(error))
    }

    /// Whether a server answers at the URL.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when not.
    pub async fn healthy(&self) -> Result<()> {
        let answer = self.http.send(Method::GET, &["healthz"], &[], None);
        match tokio::time::timeout(Duration::from_secs(10), answer).await {
            Ok(result) => result.map(|_| ()),
            Err(elapsed) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("the server at {} did not answer within 10 seconds", self.url()),
            )
            .with_source(elapsed)),
        }
    }

    /// The version of the server.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] and [`ErrorKind::Upstream`] when it does not say.
    pub async fn version(&self) -> Result<String> {
        let answer = self.http.json(Method::GET, &["version"], &[], None).await?;
        let version = answer.get("version").and_then(Value::as_str);
        version.map(str::to_owned).ok_or_else(|| self.odd("its version"))
    }

    pub(crate) fn odd(&self, what: &str) -> Error {
        let url = self.url();
        Error::new(
            ErrorKind::Upstream,
            format!("the server at {url} sent {what} in a form that is not known"),
        )
    }
}

/// This user's server at the URL. Another user may listen at another address of the same port: the token goes only
/// to the very address and scheme of the record; a loopback address also stands for `localhost`.
fn known_server(url: Url) -> (Url, Option<ServerRecord>) {
    let record = match runtime_file::find(url.port_or_known_default()) {
        Ok(record) => record,
        Err(error) => {
            // The server then says that a token is needed.
            tracing::warn!(%error, "no token was looked up");
            None
        }
    };
    match_record(url, record)
}

fn match_record(url: Url, record: Option<ServerRecord>) -> (Url, Option<ServerRecord>) {
    let Some((known, record)) = record.and_then(|record| Some((parse_url(&record.url).ok()?, record))) else {
        return (url, None);
    };
    if known.scheme() != url.scheme() {
        return (url, None);
    }
    if known.host_str() == url.host_str() {
        return (url, Some(record));
    }
    if url.host_str() == Some("localhost") && is_loopback(&known) {
        let mut exact = url.clone();
        if exact.set_host(known.host_str()).is_ok() {
            return (exact, Some(record));
        }
    }
    (url, None)
}

fn read_event(frame: &crate::http::Frame, url: &str) -> Result<Event> {
    let odd = |error: serde_json::Error| {
        let message = format!(
            "the server at {url} sent an event that is not known; are client and server of one version?"
        );
        Error::new(ErrorKind::Upstream, message).with_source(error)
    };
    if frame.event == "error" {
        return Err(serde_json::from_str::<Error>(&frame.data).unwrap_or_else(odd));
    }
    serde_json::from_str(&frame.data).map_err(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_only_to_the_address_of_its_server() {
        let record = |url: &str| {
            Some(ServerRecord {
                url: url.to_owned(),
                port: 8000,
                pid: 1,
                token: "secret".to_owned(),
                state: None,
                started: 0,
                certificate: None,
            })
        };
        let (plain, safe, far) =
            ("http://127.0.0.1:8000", "https://127.0.0.1:8000", "https://192.0.2.1:8000");
        for (known, given, used, found) in [
            (plain, "http://127.0.0.1:8000", "http://127.0.0.1:8000/", true),
            (plain, "http://localhost:8000/a", "http://127.0.0.1:8000/a", true),
            (plain, "http://[::1]:8000", "http://[::1]:8000/", false),
            (plain, "http://127.0.0.2:8000", "http://127.0.0.2:8000/", false),
            (plain, "http://192.0.2.1:8000", "http://192.0.2.1:8000/", false),
            (plain, "https://127.0.0.1:8000", "https://127.0.0.1:8000/", false),
            (safe, "http://127.0.0.1:8000", "http://127.0.0.1:8000/", false),
            (safe, "https://localhost:8000", "https://127.0.0.1:8000/", true),
            (far, "https://192.0.2.1:8000", "https://192.0.2.1:8000/", true),
            (far, "https://192.0.2.2:8000", "https://192.0.2.2:8000/", false),
            (far, "https://localhost:8000", "https://localhost:8000/", false),
        ] {
            let (url, record) = match_record(parse_url(given).unwrap(), record(known));
            assert_eq!((url.as_str(), record.is_some()), (used, found), "{known} {given}");
        }
        assert_eq!(match_record(parse_url("http://127.0.0.1:8000").unwrap(), None).1, None);
    }
}
