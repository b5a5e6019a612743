//! The runtime as its callers see it: names, and requests to the models behind them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use byzerllm_core::{
    ChatModel, ChatRequest, EmbeddingRequest, Embeddings, Error, ErrorKind, EventStream, FrontEnd, Message,
    ModelHandle, Origin, RequestContext, RerankRequest, RerankScores, Result, Task, resolve,
};
use futures::future::Either;

use crate::adapters::{self, AdapterInfo, split_model};
use crate::admission::{Admitted, removed};
use crate::answers::{self, Recorded, Replay};
use crate::deployment::{Deployment, DeploymentStatus};
use crate::inspect::Inspection;
use crate::keys::Keys;
use crate::ledger::{Ledger, local};
use crate::lifecycle::{Lifecycle, blocking};
use crate::limits;
use crate::loader::Loader;
use crate::local::LocalLoader;
use crate::metrics::{Accepted, DeploymentMetrics, Measured, Observed, Outcome};
use crate::spec::DeploymentSpec;
use crate::traces;
use crate::whole::{self, Whole, cannot};

/// How a runtime is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// Where deployments are kept. `None` is an embedded runtime: nothing outlives it.
    pub state: Option<PathBuf>,
    /// Threads that compute; `None` takes what affinity and the control group allow.
    pub threads: Option<usize>,
    /// Whether each computing thread has a core of its own. Not for a runtime inside another program.
    pub pin: bool,
    /// The file with the key under which secrets are sealed. `None` takes the one that `BYZERLLM_MASTER_KEY_FILE` names,
    /// else `master.key` in the state directory, which is made when it is first needed.
    pub master_key: Option<PathBuf>,
}

/// Names and the models behind them. Cheap to clone; all clones are the same runtime.
///
/// Call [`Runtime::shutdown`] at the end: it lets answers finish and waits for the threads.
#[derive(Clone)]
pub struct Runtime {
    lifecycle: Arc<Lifecycle>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Runtime").field("deployments", &self.lifecycle.names()).finish_non_exhaustive()
    }
}

impl Runtime {
    /// The runtime of these deployments.
    pub(crate) fn over(lifecycle: Arc<Lifecycle>) -> Self {
        Self { lifecycle }
    }

    /// Opens a runtime over our own engine. Stored deployments load in the background.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] naming the process that owns the state directory, and whatever is wrong with it.
    pub async fn open(options: RuntimeOptions) -> Result<Self> {
        Self::open_with(options, Arc::new(LocalLoader)).await
    }

    /// Opens a runtime whose models come from a loader of the caller; [`crate::testing`] has one.
    ///
    /// # Errors
    /// As [`Runtime::open`].
    pub async fn open_with(options: RuntimeOptions, loader: Arc<dyn Loader>) -> Result<Self> {
        Ok(Self { lifecycle: Lifecycle::open(options, loader).await? })
    }

    /// Loads a model and returns when it is ready. A deployment of the same name is replaced: the new one loads
    /// first when memory allows it, and a failed load keeps the old one. Dropping the future does not stop the load;
    /// [`Runtime::undeploy`] does.
    ///
    /// # Errors
    /// Why it could not be loaded; then nothing is stored.
    pub async fn deploy(&self, spec: DeploymentSpec) -> Result<DeploymentStatus> {
        Arc::clone(&self.lifecycle).deploy(spec).await
    }

    /// Removes a deployment: new requests are refused, running ones have until `drain` is over.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn undeploy(&self, name: &str, drain: Duration) -> Result<()> {
        Arc::clone(&self.lifecycle).undeploy(name, drain).await
    }

    /// The adapters that requests of a deployment can use, by name.
    ///
    /// # Errors
    /// As [`Runtime::model`].
    pub fn adapters(&self, deployment: &str) -> Result<Vec<AdapterInfo>> {
        self.lifecycle.adapters(deployment)
    }

    /// Loads a LoRA adapter beside a running model, and stores that. Requests for the model `deployment:name` use it from
    /// then on; streams go on meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a deployment or path that does not exist, [`ErrorKind::Conflict`] for a name that is
    /// taken, and what is wrong with the adapter.
    pub async fn load_adapter(&self, deployment: &str, name: &str, path: &Path) -> Result<AdapterInfo> {
        Arc::clone(&self.lifecycle).load_adapter(deployment, name, path).await
    }

    /// Refuses new requests for an adapter at once, and returns when those that use it have ended and its memory is free.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], naming the nearest adapter.
    pub async fn unload_adapter(&self, deployment: &str, name: &str) -> Result<()> {
        Arc::clone(&self.lifecycle).unload_adapter(deployment, name).await
    }

    /// All deployments, by name.
    #[must_use]
    pub fn list(&self) -> Vec<DeploymentStatus> {
        self.lifecycle.all().iter().map(|deployment| deployment.status()).collect()
    }

    /// One deployment; `deployment:adapter` is its deployment where it has the adapter.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], naming those that exist.
    pub fn status(&self, name: &str) -> Result<DeploymentStatus> {
        let (name, adapter) = split_model(name);
        let deployment = self.lifecycle.find(name)?;
        if let Some(adapter) = adapter {
            adapters::find(&*deployment.running()?, name, adapter)?;
        }
        Ok(deployment.status())
    }

    /// What was counted about each deployment, by name. Never waits.
    #[must_use]
    pub fn metrics(&self) -> Vec<DeploymentMetrics> {
        self.lifecycle.all().iter().map(|deployment| deployment.metrics()).collect()
    }

    /// The model of a deployment that is ready. Requests through the handle pass no admission; use
    /// [`Runtime::chat`] to serve.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or [`ErrorKind::Unavailable`] with the reason.
    pub fn model(&self, name: &str) -> Result<ModelHandle> {
        let (name, adapter) = split_model(name);
        let running = self.lifecycle.find(name)?.running()?;
        if let Some(adapter) = adapter {
            adapters::find(&running, name, adapter)?;
        }
        Ok(running.model.handle.clone())
    }

    /// Starts a generation: finds the model, fills in defaults (request, deployment, checkpoint, front end), waits
    /// for a place, and hands the request over. The place is held as long as the stream lives.
    ///
    /// # Errors
    /// Before the first event: an unknown or unavailable model, bad parameters, overload, a deadline.
    pub async fn chat(&self, mut context: RequestContext, request: ChatRequest) -> Result<EventStream> {
        self.lifecycle.check_open()?;
        let deployment = self.lifecycle.find(split_model(&request.model).0)?;
        let mut measured = Measured::arrive(&deployment.numbers, &request, &context);
        measured.listen(&mut context);
        context.accounting.get_or_insert_with(|| self.lifecycle.ledger.accounting());
        match self.chat_with(&deployment, &mut measured, context, request).await {
            Ok(stream) => Ok(Box::pin(Observed::new(stream, measured))),
            Err(error) => {
                measured.end(Outcome::failed(error.kind()));
                Err(error)
            }
        }
    }

    async fn chat_with(
        &self,
        deployment: &Deployment,
        measured: &mut Measured,
        mut context: RequestContext,
        mut request: ChatRequest,
    ) -> Result<Either<Recorded<Admitted>, Replay>> {
        let (running, token) = deployment.enter()?;
        let adapter = match split_model(&request.model).1 {
            Some(adapter) => Some(adapters::find(&running, &deployment.name, adapter)?),
            None => None,
        };
        let handle = &running.model.handle;
        let model = chat_model(handle, &deployment.name)?;
        let resolved = resolve(&[
            (Origin::Request, &request.sampling),
            (Origin::Deployment, &deployment.spec.defaults),
            (Origin::Checkpoint, &handle.defaults),
            (Origin::FrontEnd, deployment.spec.front_end_defaults(request.front_end)),
        ])?;
        let asked = resolved.origins.contains(&("max_tokens", Origin::Request));
        // Programs written against Byzer-LLM name lengths far beyond the context as a matter of course.
        request.clip_max_tokens |= !asked || request.front_end == FrontEnd::Legacy;
        request.sampling = resolved.sampling;
        measured.resolved(&request.sampling);
        let accepted = Accepted::of(&request);
        let keep = match running.answers(&context) {
            Some(answers) => {
                // An adapter that comes under a name that another had is another.
                let name = match &adapter {
                    Some(adapter) => format!("{}:{}", deployment.name, adapter.id),
                    None => deployment.name.to_string(),
                };
                let key = answers.chat_key(context.principal.domain, &name, &request)?;
                let kept = answers.told(&key);
                deployment.numbers.looked_for_kept(kept.is_some());
                if let Some((told, age)) = kept {
                    answers::account(&context, &deployment.name, Task::Chat).await?;
                    measured.admitted();
                    measured.begun(accepted);
                    return Ok(Either::Right(Replay::new(told, age, context)));
                }
                Some((Arc::clone(answers), key))
            }
            None => None,
        };
        let tokens = || limits::chat_tokens(&request);
        let permit =
            running.admission.admit(&deployment.name, context.deadline, &deployment.stop, tokens).await?;
        measured.admitted();
        let ticket = permit.ticket();
        if let Some(ticket) = &ticket {
            ticket.listen(&mut context);
        }
        if deployment.stop.is_cancelled() {
            return Err(removed(&deployment.name));
        }
        let stream = tokio::select! {
            biased;
            stream = local::chat(&*model, &handle.info, &deployment.name, request, context) => stream,
            () = deployment.stop.cancelled() => return Err(removed(&deployment.name)),
        };
        let stream = stream.inspect_err(|error| {
            if let Some(ticket) = &ticket {
                ticket.failed(error);
            }
        })?;
        measured.begun(accepted);
        let (name, stop) = (Arc::clone(&deployment.name), deployment.stop.clone());
        Ok(Either::Left(Recorded::new(Admitted::new(name, stream, permit, token, stop), keep)))
    }

    /// Embeds texts: finds the model, waits for a place, and hands the request over. All inputs are embedded, or none.
    ///
    /// # Errors
    /// An unknown or unavailable model, one that makes no vectors, bad parameters, overload, a deadline.
    pub async fn embed(&self, context: RequestContext, request: EmbeddingRequest) -> Result<Embeddings> {
        self.whole(context, request).await
    }

    /// Scores pairs of texts: finds the model, waits for a place, and hands the request over. All pairs are scored, or
    /// none.
    ///
    /// # Errors
    /// An unknown or unavailable model, one that scores no pairs, bad parameters, overload, a deadline.
    pub async fn rerank(&self, context: RequestContext, request: RerankRequest) -> Result<RerankScores> {
        self.whole(context, request).await
    }

    async fn whole<R: Whole>(&self, mut context: RequestContext, request: R) -> Result<R::Answer> {
        self.lifecycle.check_open()?;
        let deployment = self.lifecycle.find(request.model_name())?;
        let span = traces::whole(R::OPERATION, request.model_name(), &context);
        let mut measured = Measured::under(span, &deployment.numbers);
        // The usage is in the answer: told once, here.
        let told = context.on_usage.take();
        context.accounting.get_or_insert_with(|| self.lifecycle.ledger.accounting());
        let result = whole::ask(&deployment, &mut measured, context, request).await;
        let usage = match &result {
            Ok(answer) => Some(R::usage(answer)),
            Err(error) => error.usage(),
        };
        if let Some(usage) = usage {
            measured.spent(usage);
            if let Some(told) = told {
                told(usage);
            }
        }
        measured.end(match &result {
            Ok(_) => Outcome::ANSWERED,
            Err(error) => Outcome::failed(error.kind()),
        });
        result
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
        chat_model(&self.model(model)?, model)?.apply_template(messages, add_generation_prompt)
    }

    /// Turns text into token ids.
    ///
    /// # Errors
    /// As [`Runtime::model`].
    pub fn tokenize(&self, model: &str, text: &str) -> Result<Vec<u32>> {
        chat_model(&self.model(model)?, model)?.tokenize(text)
    }

    /// Turns token ids into text.
    ///
    /// # Errors
    /// As [`Runtime::model`], and [`ErrorKind::InvalidRequest`] for an id outside the vocabulary.
    pub fn detokenize(&self, model: &str, ids: &[u32]) -> Result<String> {
        chat_model(&self.model(model)?, model)?.detokenize(ids)
    }

    /// The API keys of this runtime's state.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.lifecycle.keys
    }

    /// What was asked of models, what it cost, and the limits on that. An embedded runtime keeps it in memory.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.lifecycle.ledger
    }

    /// Describes a checkpoint without loading it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when nothing is there, and whatever is wrong with the files.
    pub async fn inspect(&self, path: &Path) -> Result<Inspection> {
        let (loader, path) = (Arc::clone(&self.lifecycle.loader), path.to_path_buf());
        blocking(move || crate::inspect::inspect_with(&*loader, &path)).await
    }

    /// Whether every model that is ready makes progress. Those that load or failed do not count.
    ///
    /// # Errors
    /// The first failure.
    pub async fn ready(&self, deadline: Instant) -> Result<()> {
        let probes = self.lifecycle.all().into_iter().filter_map(|deployment| {
            let running = deployment.running().ok()?;
            Some(async move { probe(&deployment.name, &*running.model.worker, deadline).await })
        });
        futures::future::try_join_all(probes).await.map(|_| ())
    }

    /// Refuses new requests, lets running ones finish until `drain` is over, and stops everything. The state
    /// directory is free for another owner afterwards.
    pub async fn shutdown(&self, drain: Duration) {
        self.lifecycle.shutdown(drain).await;
    }
}

async fn probe(name: &str, worker: &dyn crate::loader::Worker, deadline: Instant) -> Result<()> {
    match tokio::time::timeout_at(deadline.into(), worker.probe(deadline)).await {
        Ok(result) => result,
        Err(elapsed) => Err(Error::new(
            ErrorKind::DeadlineExceeded,
            format!("'{name}' did not answer its probe within the deadline"),
        )
        .with_source(elapsed)),
    }
}

fn chat_model(handle: &ModelHandle, name: &str) -> Result<Arc<dyn ChatModel>> {
    handle.chat.clone().ok_or_else(|| cannot(handle, name, "does not generate text"))
}
