//! The runtime: names and the models behind them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use byzerllm_core::{
    ChatRequest, Error, ErrorKind, EventStream, Message, ModelHandle, RequestContext, Result,
};

use crate::deployment::DeploymentStatus;
use crate::inspect::Inspection;
use crate::loader::{Loader, LocalLoader};
use crate::spec::DeploymentSpec;

/// How a runtime is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// Where deployments are kept. `None` is an embedded runtime: nothing outlives it.
    pub state: Option<PathBuf>,
    /// Threads that compute; `None` takes what affinity and the control group allow.
    pub threads: Option<usize>,
    /// Whether each computing thread has a core of its own. Not for a runtime inside another program.
    pub pin: bool,
}

/// Names and the models behind them. Cheap to clone; all clones are the same runtime.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    loader: Arc<dyn Loader>,
}

fn unsupported<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "this build cannot run models"))
}

impl Runtime {
    /// Opens a runtime over our own engine. Stored deployments load in the background.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] naming the process that owns the state directory, and whatever is wrong with it.
    pub async fn open(options: RuntimeOptions) -> Result<Self> {
        Self::open_with(options, Arc::new(LocalLoader)).await
    }

    /// Opens a runtime whose models come from a loader of the caller.
    ///
    /// # Errors
    /// As [`Runtime::open`].
    pub async fn open_with(options: RuntimeOptions, loader: Arc<dyn Loader>) -> Result<Self> {
        let _ = options;
        Ok(Self { inner: Arc::new(Inner { loader }) })
    }

    /// Loads a model and returns when it is ready. A deployment of the same name is replaced: the new one loads
    /// first when memory allows it, and a failed load keeps the old one.
    ///
    /// # Errors
    /// Why it could not be loaded.
    pub async fn deploy(&self, spec: DeploymentSpec) -> Result<DeploymentStatus> {
        spec.validate()?;
        let _ = &self.inner.loader;
        unsupported()
    }

    /// Removes a deployment: new requests are refused, running ones have until `drain` is over.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn undeploy(&self, name: &str, drain: Duration) -> Result<()> {
        let _ = (name, drain);
        unsupported()
    }

    /// All deployments, by name.
    #[must_use]
    pub fn list(&self) -> Vec<DeploymentStatus> {
        Vec::new()
    }

    /// One deployment.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], naming those that exist.
    pub fn status(&self, name: &str) -> Result<DeploymentStatus> {
        let _ = name;
        unsupported()
    }

    /// The model of a deployment that is ready.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or [`ErrorKind::Unavailable`] with the reason.
    pub fn model(&self, name: &str) -> Result<ModelHandle> {
        let _ = name;
        unsupported()
    }

    /// Starts a generation.
    ///
    /// # Errors
    /// Before the first event: an unknown or unavailable model, bad parameters, overload, a deadline.
    pub async fn chat(&self, context: RequestContext, request: ChatRequest) -> Result<EventStream> {
        let _ = (context, request);
        unsupported()
    }

    /// Renders messages with the model's chat template.
    ///
    /// # Errors
    /// As [`Runtime::model`], and the template's own.
    pub fn apply_template(
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
    /// As [`Runtime::model`].
    pub fn tokenize(&self, model: &str, text: &str) -> Result<Vec<u32>> {
        let _ = (model, text);
        unsupported()
    }

    /// Describes a checkpoint without loading it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when nothing is there, and whatever is wrong with the files.
    pub async fn inspect(&self, path: &Path) -> Result<Inspection> {
        let _ = path;
        unsupported()
    }

    /// Whether every model that is ready makes progress.
    ///
    /// # Errors
    /// The first failure.
    pub async fn ready(&self, deadline: Instant) -> Result<()> {
        let _ = deadline;
        Ok(())
    }

    /// Refuses new requests, lets running ones finish until `drain` is over, and stops everything.
    pub async fn shutdown(&self, drain: Duration) {
        let _ = drain;
    }
}
