//! Whom `chat` and `generate` talk to: a model loaded into this process, or a deployment of a server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use byzerllm_core::{
    ChatRequest, EmbeddingRequest, Embeddings, EventStream, Input, RequestContext, RerankRequest,
    RerankScores, Sampling,
};
use byzerllm_hub::Reference;
use byzerllm_runtime::{DeploymentSpec, DeploymentState, Runtime, RuntimeOptions};

use crate::arguments::{LoadArguments, SamplingArguments};
use crate::connection::Connection;
use crate::deploy::POLL;
use crate::output::{Failure, Outcome};
use crate::progress::Progress;

/// A model that answers.
pub(crate) struct Talker {
    name: String,
    place: Place,
}

enum Place {
    Here(Runtime),
    There(Connection),
}

/// A model's place before it is reached.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Path(PathBuf),
    Name(String),
}

impl Talker {
    /// Reaches the model: loads a path into this process, or finds a name on the server.
    pub(crate) async fn open(model: Option<&str>, url: Option<&str>, load: &LoadArguments) -> Outcome<Self> {
        if let Some(model) = model
            && let Some(path) = crate::models::resolve(model, &load.hub).await?
        {
            return Self::load(&path, load).await;
        }
        match model.map(|model| target(model, Path::new(model).exists())) {
            Some(Target::Path(path)) => Self::load(&path, load).await,
            Some(Target::Name(name)) => {
                let connection = Connection::open(url)?;
                // Without a server the short name of a model can only mean that model.
                if Reference::is_short(&name) && url.is_none() && connection.client.healthy().await.is_err() {
                    let path = crate::models::resolve_model(&name, &load.hub).await?;
                    return Self::load(&path.unwrap_or_else(|| name.into()), load).await;
                }
                Ok(Self { name, place: Place::There(connection) })
            }
            None => {
                let connection = Connection::open(url)?;
                let name = only_deployment(&connection).await?;
                Ok(Self { name, place: Place::There(connection) })
            }
        }
    }

    async fn load(path: &Path, load: &LoadArguments) -> Outcome<Self> {
        let path = std::path::absolute(path)?;
        let mut spec = DeploymentSpec::new("model", &path);
        if let Some(argument) = load.compute {
            spec.compute = argument;
        }
        spec.quantization = load.quantization;
        let threads = load.threads.map(usize::from);
        let runtime =
            Runtime::open(RuntimeOptions { threads, pin: true, ..RuntimeOptions::default() }).await?;
        let bar = Progress::new(format!("loading {}", path.display()));
        let deployed = with_progress(&runtime, spec, &bar).await;
        bar.clear();
        deployed?;
        Ok(Self { name: "model".to_owned(), place: Place::Here(runtime) })
    }

    /// What a user calls the model.
    pub(crate) fn describe(&self) -> String {
        match &self.place {
            Place::Here(_) => "the model in this process".to_owned(),
            Place::There(connection) => format!("{} at {}", self.name, connection.url),
        }
    }

    /// Starts an answer.
    pub(crate) async fn ask(&self, input: Input, sampling: Sampling) -> Outcome<EventStream> {
        let request = ChatRequest { sampling, ..ChatRequest::new(&self.name, input) };
        match &self.place {
            Place::Here(runtime) => Ok(runtime.chat(RequestContext::local(), request).await?),
            Place::There(connection) => match connection.client.chat(&request).await {
                Ok(stream) => Ok(stream),
                Err(error) => Err(connection.explain(error).await),
            },
        }
    }

    /// Turns texts into vectors.
    pub(crate) async fn embed(&self, request: EmbeddingRequest) -> Outcome<Embeddings> {
        let request = EmbeddingRequest { model: self.name.clone(), ..request };
        match &self.place {
            Place::Here(runtime) => Ok(runtime.embed(RequestContext::local(), request).await?),
            Place::There(connection) => match connection.client.embed(&request).await {
                Ok(embeddings) => Ok(embeddings),
                Err(error) => Err(connection.explain(error).await),
            },
        }
    }

    /// Scores pairs of texts.
    pub(crate) async fn rerank(&self, request: RerankRequest) -> Outcome<RerankScores> {
        let request = RerankRequest { model: self.name.clone(), ..request };
        match &self.place {
            Place::Here(runtime) => Ok(runtime.rerank(RequestContext::local(), request).await?),
            Place::There(connection) => match connection.client.rerank(&request).await {
                Ok(scores) => Ok(scores),
                Err(error) => Err(connection.explain(error).await),
            },
        }
    }

    /// Ends a model in this process; a server's goes on.
    pub(crate) async fn close(self) {
        if let Place::Here(runtime) = self.place {
            runtime.shutdown(Duration::ZERO).await;
        }
    }
}

/// A path when it exists or can only be meant as one, else a name.
fn target(model: &str, exists: bool) -> Target {
    let looks_like_path = model.contains('/') || model.starts_with('.') || model.ends_with(".gguf");
    if exists || looks_like_path { Target::Path(model.into()) } else { Target::Name(model.to_owned()) }
}

async fn only_deployment(connection: &Connection) -> Outcome<String> {
    let listed = match connection.client.list().await {
        Ok(listed) => listed,
        Err(error) => return Err(connection.explain(error).await),
    };
    let names: Vec<&str> = listed
        .iter()
        .filter_map(|status| status.pointer("/spec/name"))
        .filter_map(|name| name.as_str())
        .collect();
    match names[..] {
        [name] => Ok(name.to_owned()),
        [] => Err(Failure::new(
            format!("nothing is deployed at {}", connection.url),
            "Deploy a model with `byzerllm deploy --name chat --model PATH`, or chat with --model PATH.",
        )),
        _ => Err(Failure::misuse(
            format!("{} has several deployments: {}", connection.url, names.join(", ")),
            "Choose one with --model NAME.",
        )),
    }
}

/// Loads a model and shows how far it is.
async fn with_progress(runtime: &Runtime, spec: DeploymentSpec, bar: &Progress) -> byzerllm_core::Result<()> {
    let name = spec.name.clone();
    let deploying = runtime.deploy(spec);
    tokio::pin!(deploying);
    loop {
        tokio::select! {
            deployed = &mut deploying => return deployed.map(drop),
            () = tokio::time::sleep(POLL) => {
                if let Ok(status) = runtime.status(&name)
                    && let DeploymentState::Loading { progress } = status.state
                {
                    bar.share(progress);
                }
            }
        }
    }
}

impl SamplingArguments {
    /// The request's sampling: what was typed, nothing else.
    pub(crate) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            seed: self.seed,
            max_tokens: self.max_tokens,
            ..Sampling::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_cannot_be_a_path() {
        for (model, exists, path) in [
            ("chat", false, false),
            ("chat", true, true),
            ("./chat", false, true),
            ("models/chat", false, true),
            ("missing.gguf", false, true),
            ("qwen2.5", false, false),
        ] {
            assert_eq!(matches!(target(model, exists), Target::Path(_)), path, "{model}");
        }
    }
}
