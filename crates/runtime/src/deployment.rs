//! A deployment: its states, who may enter it, and what is told about it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use byzerllm_core::{
    Error, ErrorKind, FrontEnd, GenerationDefaults, ModelInfo, Origin, RequestContext, Result, resolve,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::adapters::AdapterInfo;
use crate::admission::Admission;
use crate::answers::Answers;
use crate::limits::Rates;
use crate::loader::LoadedModel;
use crate::metrics::{DeploymentMetrics, Numbers};
use crate::spec::{DeploymentSpec, Limits, Source};

/// Where a deployment stands.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum DeploymentState {
    /// Its weights are being prepared.
    Loading {
        /// From 0 to 1.
        progress: f32,
    },
    /// It takes requests.
    Ready,
    /// It takes no new requests and finishes those it has.
    Draining,
    /// It could not be loaded; it stays listed, and stored, until it is undeployed or replaced.
    Failed {
        /// Why.
        error: Error,
    },
}

impl Clone for DeploymentState {
    fn clone(&self) -> Self {
        match self {
            Self::Loading { progress } => Self::Loading { progress: *progress },
            Self::Ready => Self::Ready,
            Self::Draining => Self::Draining,
            Self::Failed { error } => Self::Failed { error: error.duplicate() },
        }
    }
}

impl DeploymentState {
    /// The word of the `state` tag.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Loading { .. } => "loading",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Failed { .. } => "failed",
        }
    }
}

/// An effective generation default and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EffectiveValue {
    /// The parameter.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// Which layer set it.
    pub origin: Origin,
}

/// What is told about a deployment. In JSON the fields of [`DeploymentState`] stand beside the others: `"state":
/// "ready"`, and `progress` or `error` where the state has one.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DeploymentStatus {
    /// What was asked for.
    pub spec: DeploymentSpec,
    /// Where it stands.
    #[serde(flatten)]
    pub state: DeploymentState,
    /// What is known of the model, once it is loaded.
    pub info: Option<ModelInfo>,
    /// When it was deployed, in seconds since 1970.
    pub created: u64,
    /// Requests that run or wait.
    pub active: u32,
    /// Generation defaults of a request through the OpenAI API.
    pub effective: Vec<EffectiveValue>,
}

/// The effective values of some layers of defaults, each with its origin.
///
/// # Errors
/// [`byzerllm_core::ErrorKind::InvalidRequest`] naming a value out of range.
pub fn effective_values(layers: &[(Origin, &GenerationDefaults)]) -> Result<Vec<EffectiveValue>> {
    let resolved = resolve(layers)?;
    let values = serde_json::to_value(&resolved.sampling).map_err(|error| {
        Error::internal("generation defaults cannot be written as JSON").with_source(error)
    })?;
    let pairs = resolved.origins.into_iter().filter_map(|(name, origin)| {
        values.get(name).map(|value| EffectiveValue { name: name.to_owned(), value: value.clone(), origin })
    });
    Ok(pairs.collect())
}

/// A model that is loaded, with what surrounds it.
pub(crate) struct Running {
    pub(crate) model: LoadedModel,
    pub(crate) admission: Arc<Admission>,
    /// Answers kept for requests that come again, where they are wanted.
    pub(crate) answers: Option<Arc<Answers>>,
    pub(crate) effective: Vec<EffectiveValue>,
    /// Weights and cache, and the adapters that came with the model.
    pub(crate) reserved: u64,
    /// Bytes of those adapters.
    adapter_bytes: u64,
}

impl Running {
    pub(crate) fn new(spec: &DeploymentSpec, model: LoadedModel, reserved: u64) -> Result<Self> {
        let mut effective = effective_values(&[
            (Origin::Deployment, &spec.defaults),
            (Origin::Checkpoint, &model.handle.defaults),
            (Origin::FrontEnd, spec.front_end_defaults(FrontEnd::OpenAi)),
        ])?;
        if model.handle.chat.is_none() {
            // Nothing is generated.
            effective.clear();
        }
        let limits = &spec.limits;
        let most = match spec.source() {
            Source::Local(_) => limits.max_sequences.unwrap_or(Limits::MAX_SEQUENCES),
            Source::Provider(_) | Source::Route(_) => Limits::PROVIDER_CONCURRENCY,
        };
        let concurrency = limits.concurrency.unwrap_or(most);
        let queue_limit = limits.queue_limit.unwrap_or(Limits::QUEUE_LIMIT);
        let rates = Rates::new(limits.requests_per_minute.map(u64::from), limits.tokens_per_minute);
        let admission = Arc::new(Admission::new(concurrency, queue_limit, rates));
        let adapter_bytes =
            model.worker.adapters().iter().map(|status| status.bytes).fold(0, u64::saturating_add);
        Ok(Self { model, admission, answers: Answers::new(limits)?, effective, reserved, adapter_bytes })
    }

    /// The kept answers, when the request may be answered from them: its caller wants that, and is still there.
    pub(crate) fn answers(&self, context: &RequestContext) -> Option<&Arc<Answers>> {
        let late = context.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        self.answers.as_ref().filter(|_| !context.no_cache && !late)
    }

    /// Bytes of the adapters that were loaded after the model.
    pub(crate) fn added_adapters(&self) -> u64 {
        let loaded = self.model.worker.adapters();
        loaded
            .iter()
            .map(|status| status.bytes)
            .fold(0, u64::saturating_add)
            .saturating_sub(self.adapter_bytes)
    }

    /// Ends the model's threads, on a thread that may wait for them.
    pub(crate) async fn stop(self: Arc<Self>) {
        let stopped = crate::lifecycle::blocking(move || {
            self.model.worker.shutdown();
            Ok(())
        });
        if let Err(error) = stopped.await {
            tracing::warn!(%error, "a model did not stop properly");
        }
    }
}

enum Phase {
    Loading,
    Ready(Arc<Running>),
    Draining(Arc<Running>),
    /// Drained, or replaced before it was ready.
    Gone,
    Failed(Error),
}

/// One deployment. Its spec never changes but for its adapters; a new spec is a new deployment of the same name.
pub(crate) struct Deployment {
    pub(crate) name: Arc<str>,
    pub(crate) spec: DeploymentSpec,
    pub(crate) created: u64,
    /// Those of the name: whoever replaces this one has the same.
    pub(crate) numbers: Arc<Numbers>,
    /// Bits of an `f32`.
    pub(crate) progress: Arc<AtomicU32>,
    /// Nobody wants it any more: ends its load.
    pub(crate) unwanted: CancellationToken,
    /// Ends the requests that outlive the drain limit.
    pub(crate) stop: CancellationToken,
    /// The requests that run or wait.
    requests: TaskTracker,
    /// Ends the load of the one that is to replace this one.
    successor: Mutex<Option<CancellationToken>>,
    phase: RwLock<Phase>,
    /// Those of the spec, as they were changed since.
    adapters: RwLock<BTreeMap<String, PathBuf>>,
}

impl Deployment {
    pub(crate) fn loading(
        spec: DeploymentSpec,
        created: u64,
        numbers: Arc<Numbers>,
        unwanted: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: spec.name.as_str().into(),
            adapters: RwLock::new(spec.adapters.clone()),
            spec,
            created,
            numbers,
            progress: Arc::default(),
            unwanted,
            stop: CancellationToken::new(),
            requests: TaskTracker::new(),
            successor: Mutex::default(),
            phase: RwLock::new(Phase::Loading),
        })
    }

    pub(crate) fn set_ready(&self, running: Running) {
        self.numbers.engine_began(&running.model.worker);
        self.set(Phase::Ready(Arc::new(running)));
    }

    pub(crate) fn set_failed(&self, error: Error) {
        self.set(Phase::Failed(error));
    }

    /// Refuses new requests from now on; the model, when there was one that took requests.
    pub(crate) fn begin_drain(&self) -> Option<Arc<Running>> {
        self.unwanted.cancel();
        let mut phase = self.phase.write().unwrap_or_else(PoisonError::into_inner);
        let running = match std::mem::replace(&mut *phase, Phase::Gone) {
            Phase::Ready(running) => {
                *phase = Phase::Draining(Arc::clone(&running));
                Some(running)
            }
            other => {
                *phase = other;
                None
            }
        };
        drop(phase);
        self.requests.close();
        running
    }

    /// The model that finishes its last requests.
    pub(crate) fn draining(&self) -> Option<Arc<Running>> {
        match &*self.phase.read().unwrap_or_else(PoisonError::into_inner) {
            Phase::Draining(running) => Some(Arc::clone(running)),
            _ => None,
        }
    }

    pub(crate) fn set_successor(&self, unwanted: &CancellationToken) {
        *self.successor.lock().unwrap_or_else(PoisonError::into_inner) = Some(unwanted.clone());
    }

    pub(crate) fn cancel_successor(&self) {
        if let Some(unwanted) = self.successor.lock().unwrap_or_else(PoisonError::into_inner).take() {
            unwanted.cancel();
        }
    }

    /// Waits until no request runs or waits. Only after [`Deployment::begin_drain`].
    pub(crate) async fn idle(&self) {
        self.requests.wait().await;
    }

    /// Lets go of the model.
    pub(crate) fn set_gone(&self) {
        self.set(Phase::Gone);
    }

    fn set(&self, phase: Phase) {
        *self.phase.write().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// The model with a place among its requests, when it takes them.
    pub(crate) fn enter(&self) -> Result<(Arc<Running>, TaskTrackerToken)> {
        // Under the lock: a drain that begins later sees the token.
        let phase = self.phase.read().unwrap_or_else(PoisonError::into_inner);
        match &*phase {
            Phase::Ready(running) => Ok((Arc::clone(running), self.requests.token())),
            other => Err(self.refusal(other)),
        }
    }

    /// The model, when it takes requests.
    pub(crate) fn running(&self) -> Result<Arc<Running>> {
        let phase = self.phase.read().unwrap_or_else(PoisonError::into_inner);
        match &*phase {
            Phase::Ready(running) => Ok(Arc::clone(running)),
            other => Err(self.refusal(other)),
        }
    }

    fn refusal(&self, phase: &Phase) -> Error {
        let name = &self.name;
        let message = match phase {
            Phase::Loading => {
                format!(
                    "'{name}' is still loading ({:.0} %); try again when it is ready",
                    100.0 * self.fraction()
                )
            }
            Phase::Failed(error) => {
                format!("'{name}' could not be loaded: {error}; deploy it again or undeploy it")
            }
            Phase::Ready(_) | Phase::Draining(_) | Phase::Gone => {
                format!("'{name}' is being removed and takes no new requests")
            }
        };
        let error = Error::new(ErrorKind::Unavailable, message);
        match phase {
            Phase::Loading => error.with_retry_after(std::time::Duration::from_secs(2)),
            _ => error,
        }
    }

    /// The adapters by name, and where they are.
    pub(crate) fn adapters(&self) -> BTreeMap<String, PathBuf> {
        self.adapters.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_adapters(&self, adapters: BTreeMap<String, PathBuf>) {
        *self.adapters.write().unwrap_or_else(PoisonError::into_inner) = adapters;
    }

    fn fraction(&self) -> f32 {
        f32::from_bits(self.progress.load(Ordering::Relaxed))
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(&*self.phase.read().unwrap_or_else(PoisonError::into_inner), Phase::Ready(_))
    }

    pub(crate) fn metrics(&self) -> DeploymentMetrics {
        let loaded = self.running().map(|running| running.model.worker.adapters()).unwrap_or_default();
        let adapters = loaded.into_iter().map(AdapterInfo::from).collect();
        DeploymentMetrics { adapters, ..self.numbers.snapshot(&self.name, self.is_ready()) }
    }

    pub(crate) fn status(&self) -> DeploymentStatus {
        let phase = self.phase.read().unwrap_or_else(PoisonError::into_inner);
        let (state, running) = match &*phase {
            Phase::Loading => (DeploymentState::Loading { progress: self.fraction() }, None),
            Phase::Ready(running) => (DeploymentState::Ready, Some(running)),
            Phase::Draining(running) => (DeploymentState::Draining, Some(running)),
            Phase::Gone => (DeploymentState::Draining, None),
            Phase::Failed(error) => (DeploymentState::Failed { error: error.duplicate() }, None),
        };
        DeploymentStatus {
            spec: DeploymentSpec { adapters: self.adapters(), ..self.spec.clone() },
            state,
            info: running.map(|running| (*running.model.handle.info).clone()),
            created: self.created,
            active: u32::try_from(self.requests.len()).unwrap_or(u32::MAX),
            effective: running.map(|running| running.effective.clone()).unwrap_or_default(),
        }
    }
}
