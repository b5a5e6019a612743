//! `Endpoint`: deployments here or on a server, behind the same methods.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use byzerllm_client::Client;
use byzerllm_core::{ChatRequest, EmbeddingRequest, Error, Message, RequestContext, RerankRequest, Takeover};
use byzerllm_runtime::{DeploymentSpec, Runtime};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::convert;
use crate::error;
use crate::mailbox::Mailbox;
use crate::process::Process;

/// The place where models live.
#[pyclass(frozen, module = "byzerllm._native")]
pub(crate) struct Endpoint(Place);

enum Place {
    Embedded { process: Arc<Process>, runtime: Runtime },
    Remote { url: String, token: Option<String>, connection: Mutex<Connection> },
}

/// A client and the process whose sockets it holds. Locked only while the GIL is held, and briefly.
struct Connection {
    process: u32,
    client: Option<Client>,
}

impl Connection {
    /// The client of this process.
    fn client(&mut self, url: &str, token: Option<&String>) -> Result<Client, Error> {
        if self.process != std::process::id() {
            self.release();
            self.process = std::process::id();
        }
        match &self.client {
            Some(client) => Ok(client.clone()),
            None => Ok(self.client.insert(Client::new(url, token.cloned())?).clone()),
        }
    }

    /// Lets go of the client: drops it where it was made, and leaks it in a forked child.
    fn release(&mut self) {
        let client = self.client.take();
        if self.process != std::process::id() {
            std::mem::forget(client);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.release();
    }
}

/// What a method works with, for its own duration.
enum Target {
    Embedded(Runtime),
    Remote(Client),
}

/// A request with its deadline.
struct Asked {
    request: ChatRequest,
    takeover: Takeover,
    no_cache: bool,
    started: Instant,
    deadline: Option<Instant>,
}

impl Asked {
    fn new(request: &Bound<'_, PyAny>, timeout: Option<f64>) -> PyResult<Self> {
        let py = request.py();
        let started = Instant::now();
        let (mut takeover, mut no_cache) = (Takeover::default(), false);
        // Words about the request stand in its dictionary, most often none. What is no dictionary is refused below.
        let request: ChatRequest = match request.cast::<PyDict>() {
            Ok(words) => {
                let bare = words.copy()?;
                if let Some(word) = taken::<String>(&bare, "takeover", "a text")? {
                    takeover = word.parse().map_err(|error| error::exception(py, &error))?;
                }
                no_cache = taken(&bare, "no_cache", "true or false")?.unwrap_or_default();
                convert::deserialized(bare.as_any(), "request")?
            }
            Err(_) => convert::deserialized(request, "request")?,
        };
        let deadline = match timeout {
            Some(timeout) => started.checked_add(seconds(py, "timeout", timeout)?),
            None => None,
        };
        Ok(Self { request, takeover, no_cache, started, deadline })
    }
}

/// Takes a value out of a dictionary.
fn taken<'py, T: FromPyObjectOwned<'py>>(
    words: &Bound<'py, PyDict>,
    name: &'static str,
    kind: &str,
) -> PyResult<Option<T>> {
    let Some(value) = words.get_item(name)? else { return Ok(None) };
    words.del_item(name)?;
    let wrong = |_| error::exception(words.py(), &Error::invalid(name, format!("{name} must be {kind}")));
    value.extract().map(Some).map_err(wrong)
}

impl Target {
    /// Starts a generation.
    async fn start(self, asked: Asked) -> Result<Answer, Error> {
        let Asked { request, takeover, no_cache, started, deadline } = asked;
        let stream = match self {
            Self::Embedded(runtime) => {
                let context = RequestContext { deadline, takeover, no_cache, ..RequestContext::local() };
                runtime.chat(context, request).await?
            }
            Self::Remote(client) => match deadline {
                Some(deadline) => {
                    let answer = client.chat_with(&request, takeover, no_cache);
                    tokio::time::timeout_at(deadline.into(), answer)
                        .await
                        .unwrap_or_else(|_| Err(crate::call::too_late()))?
                }
                None => client.chat_with(&request, takeover, no_cache).await?,
            },
        };
        Ok(Answer::new(stream, started, deadline))
    }
}

impl Endpoint {
    pub(crate) fn embedded(process: Arc<Process>, runtime: Runtime) -> Self {
        Self(Place::Embedded { process, runtime })
    }

    pub(crate) fn remote(client: Client, token: Option<String>) -> Self {
        let url = client.url().to_owned();
        let connection = Mutex::new(Connection { process: std::process::id(), client: Some(client) });
        Self(Place::Remote { url, token, connection })
    }

    /// The process to run on and what to run against. An engine does not survive a fork; a connection is made anew.
    fn target(&self, py: Python<'_>) -> PyResult<(Arc<Process>, Target)> {
        match &self.0 {
            Place::Embedded { process, runtime } => {
                if !process.is_current() {
                    return Err(Process::forked(py));
                }
                Ok((Arc::clone(process), Target::Embedded(runtime.clone())))
            }
            Place::Remote { url, token, connection } => {
                let process = Process::current(py)?;
                let client = connection
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .client(url, token.as_ref())
                    .map_err(|error| error::exception(py, &error))?;
                Ok((process, Target::Remote(client)))
            }
        }
    }
}

#[pymethods]
impl Endpoint {
    /// Whether models live in this process.
    #[getter(embedded)]
    fn is_embedded(&self) -> bool {
        matches!(self.0, Place::Embedded { .. })
    }

    /// The server's URL; `None` when models live in this process.
    #[getter]
    fn url(&self) -> Option<&str> {
        match &self.0 {
            Place::Embedded { .. } => None,
            Place::Remote { url, .. } => Some(url),
        }
    }

    /// Deploys a model and waits until it is ready.
    fn deploy<'py>(&self, py: Python<'py>, spec: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (process, target) = self.target(py)?;
        match target {
            Target::Embedded(runtime) => {
                let spec: DeploymentSpec = convert::deserialized(spec, "deployment")?;
                let status = process.run(py, runtime.deploy(spec))?;
                convert::serialized(py, &status)
            }
            Target::Remote(client) => {
                let spec = convert::json(spec)?;
                let status = process.run(py, client.deploy(&spec))?;
                convert::to_python(py, &status)
            }
        }
    }

    /// Removes a deployment; its requests have `drain_seconds` to finish.
    #[pyo3(signature = (name, drain_seconds=30.0))]
    fn undeploy(&self, py: Python<'_>, name: &str, drain_seconds: f64) -> PyResult<()> {
        let drain = seconds(py, "drain_seconds", drain_seconds)?;
        let (process, target) = self.target(py)?;
        match target {
            Target::Embedded(runtime) => process.run(py, runtime.undeploy(name, drain)),
            Target::Remote(client) => process.run(py, client.undeploy(name, Some(drain))),
        }
    }

    /// The LoRA adapters of a deployment.
    fn adapters<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let (process, target) = self.target(py)?;
        match target {
            Target::Embedded(runtime) => {
                let adapters = runtime.adapters(name).map_err(|error| error::exception(py, &error))?;
                convert::serialized(py, &adapters)
            }
            Target::Remote(client) => convert::serialized(py, &process.run(py, client.adapters(name))?),
        }
    }

    /// Loads a LoRA adapter beside a running model.
    #[expect(clippy::needless_pass_by_value, reason = "a path is converted into a value of its own")]
    fn load_adapter<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        adapter: &str,
        path: PathBuf,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (process, target) = self.target(py)?;
        match target {
            Target::Embedded(runtime) => {
                convert::serialized(py, &process.run(py, runtime.load_adapter(name, adapter, &path))?)
            }
            Target::Remote(client) => {
                convert::to_python(py, &process.run(py, client.load_adapter(name, adapter, &path))?)
            }
        }
    }

    /// Unloads a LoRA adapter and returns when no request uses it any more.
    fn unload_adapter(&self, py: Python<'_>, name: &str, adapter: &str) -> PyResult<()> {
        let (process, target) = self.target(py)?;
        match target {
            Target::Embedded(runtime) => process.run(py, runtime.unload_adapter(name, adapter)),
            Target::Remote(client) => process.run(py, client.unload_adapter(name, adapter)),
        }
    }

    /// The statuses of all deployments.
    fn list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (process, target) = self.target(py)?;
        match target {
            Target::Embedded(runtime) => convert::serialized(py, &runtime.list()),
            Target::Remote(client) => convert::serialized(py, &process.run(py, client.list())?),
        }
    }

    /// The status of one deployment.
    fn status<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let (process, target) = self.target(py)?;
        match target {
            Target::Embedded(runtime) => {
                let status = runtime.status(name).map_err(|error| error::exception(py, &error))?;
                convert::serialized(py, &status)
            }
            Target::Remote(client) => convert::to_python(py, &process.run(py, client.status(name))?),
        }
    }

    /// What inference clients may know of a deployment: `info`, `labels`, `created`.
    fn model<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let (process, target) = self.target(py)?;
        match target {
            Target::Embedded(runtime) => {
                let facts = facts(&runtime, name).map_err(|error| error::exception(py, &error))?;
                convert::to_python(py, &facts)
            }
            Target::Remote(client) => convert::to_python(py, &process.run(py, client.model(name))?),
        }
    }

    /// Starts a generation. Without a `timeout` in seconds it may take as long as it needs.
    #[pyo3(signature = (request, timeout=None))]
    fn chat(&self, py: Python<'_>, request: &Bound<'_, PyAny>, timeout: Option<f64>) -> PyResult<Call> {
        let asked = Asked::new(request, timeout)?;
        let (process, target) = self.target(py)?;
        let answer = process.run(py, target.start(asked))?;
        Ok(Call::new(process, answer))
    }

    /// [`Self::chat`] for an event loop: delivers a `Call`.
    #[pyo3(signature = (mailbox, ticket, request, timeout=None))]
    fn chat_later(
        &self,
        py: Python<'_>,
        mailbox: &Mailbox,
        ticket: u64,
        request: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let asked = Asked::new(request, timeout)?;
        let (process, target) = self.target(py)?;
        mailbox.post(py, ticket, target.start(asked), |py, answer| {
            Ok(Py::new(py, Call::new(process, answer))?.into_any())
        })
    }

    /// A whole answer for an event loop: delivers what `Call.result()` returns.
    #[pyo3(signature = (mailbox, ticket, request, timeout=None))]
    fn answer_later(
        &self,
        py: Python<'_>,
        mailbox: &Mailbox,
        ticket: u64,
        request: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let asked = Asked::new(request, timeout)?;
        let (_, target) = self.target(py)?;
        let work = async move {
            let answer = target.start(asked).await?;
            let response = answer.whole().await?;
            Ok((answer, response))
        };
        mailbox.post(py, ticket, work, |py, (answer, response)| Ok(answer.show(py, &response)?.unbind()))
    }

    /// [`Self::model`] for an event loop.
    fn model_later(&self, py: Python<'_>, mailbox: &Mailbox, ticket: u64, name: String) -> PyResult<()> {
        let (_, target) = self.target(py)?;
        let work = async move {
            match target {
                Target::Embedded(runtime) => facts(&runtime, &name),
                Target::Remote(client) => client.model(&name).await,
            }
        };
        mailbox.post(py, ticket, work, |py, facts| Ok(convert::to_python(py, &facts)?.unbind()))
    }

    /// [`Self::apply_template`] for an event loop.
    #[pyo3(signature = (mailbox, ticket, model, messages, add_generation_prompt=true))]
    fn apply_template_later(
        &self,
        py: Python<'_>,
        mailbox: &Mailbox,
        ticket: u64,
        model: String,
        messages: &Bound<'_, PyAny>,
        add_generation_prompt: bool,
    ) -> PyResult<()> {
        let messages: Vec<Message> = convert::deserialized(messages, "messages")?;
        let (_, target) = self.target(py)?;
        let work = async move {
            match target {
                Target::Embedded(runtime) => runtime.apply_template(&model, &messages, add_generation_prompt),
                Target::Remote(client) => {
                    client.apply_template(&model, &messages, add_generation_prompt).await
                }
            }
        };
        mailbox.post(py, ticket, work, |py, text| Ok(text.into_pyobject(py)?.into_any().unbind()))
    }

    /// [`Self::tokenize`] for an event loop.
    fn tokenize_later(
        &self,
        py: Python<'_>,
        mailbox: &Mailbox,
        ticket: u64,
        model: String,
        text: String,
    ) -> PyResult<()> {
        let (_, target) = self.target(py)?;
        let work = async move {
            match target {
                Target::Embedded(runtime) => runtime.tokenize(&model, &text),
                Target::Remote(client) => client.tokenize(&model, &text).await,
            }
        };
        mailbox.post(py, ticket, work, |py, ids| Ok(ids.into_pyobject(py)?.into_any().unbind()))
    }

    /// Renders messages with a model's chat template.
    #[pyo3(signature = (model, messages, add_generation_prompt=true))]
    fn apply_template(
        &self,
        py: Python<'_>,
        model: &str,
        messages: &Bound<'_, PyAny>,
        add_generation_prompt: bool,
    ) -> PyResult<String> {
        let messages: Vec<Message> = convert::deserialized(messages, "messages")?;
        let (process, target) = self.target(py)?;
        match target {
            Target::Embedded(runtime) => py
                .detach(|| runtime.apply_template(model, &messages, add_generation_prompt))
                .map_err(|error| error::exception(py, &error)),
            Target::Remote(client) => {
                process.run(py, client.apply_template(model, &messages, add_generation_prompt))
            }
        }
    }

    /// Turns texts into vectors.
    #[pyo3(signature = (request, timeout=None))]
    fn embed<'py>(
        &self,
        py: Python<'py>,
        request: &Bound<'py, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let request: EmbeddingRequest = convert::deserialized(request, "request")?;
        let deadline = until(py, timeout)?;
        let (process, target) = self.target(py)?;
        let work = async move {
            match target {
                Target::Embedded(runtime) => runtime.embed(context(deadline), request).await,
                Target::Remote(client) => in_time(deadline, client.embed(&request)).await,
            }
        };
        convert::serialized(py, &process.run(py, work)?)
    }

    /// Scores pairs of texts.
    #[pyo3(signature = (request, timeout=None))]
    fn rerank<'py>(
        &self,
        py: Python<'py>,
        request: &Bound<'py, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let request: RerankRequest = convert::deserialized(request, "request")?;
        let deadline = until(py, timeout)?;
        let (process, target) = self.target(py)?;
        let work = async move {
            match target {
                Target::Embedded(runtime) => runtime.rerank(context(deadline), request).await,
                Target::Remote(client) => in_time(deadline, client.rerank(&request)).await,
            }
        };
        convert::serialized(py, &process.run(py, work)?)
    }

    /// Turns text into token ids.
    fn tokenize(&self, py: Python<'_>, model: &str, text: &str) -> PyResult<Vec<u32>> {
        let (process, target) = self.target(py)?;
        match target {
            Target::Embedded(runtime) => {
                py.detach(|| runtime.tokenize(model, text)).map_err(|error| error::exception(py, &error))
            }
            Target::Remote(client) => process.run(py, client.tokenize(model, text)),
        }
    }
}

fn facts(runtime: &Runtime, name: &str) -> Result<Value, Error> {
    let handle = runtime.model(name)?;
    let status = runtime.status(name)?;
    Ok(json!({ "info": *handle.info, "labels": status.spec.labels, "created": status.created }))
}

/// When a request with so many seconds must be over.
fn until(py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Instant>> {
    let limit = timeout.map(|timeout| seconds(py, "timeout", timeout)).transpose()?;
    Ok(limit.and_then(|limit| Instant::now().checked_add(limit)))
}

fn context(deadline: Option<Instant>) -> RequestContext {
    RequestContext { deadline, ..RequestContext::local() }
}

/// A server's answer, when it comes in time.
async fn in_time<T>(
    deadline: Option<Instant>,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), answer)
            .await
            .unwrap_or_else(|_| Err(crate::call::too_late())),
        None => answer.await,
    }
}

fn seconds(py: Python<'_>, name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|_| {
        error::invalid(py, format!("{name} must be a number of seconds, 0 or more, got {value}"))
    })
}
