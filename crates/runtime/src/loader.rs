//! How a spec becomes a running model: the seam between the runtime and the engine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use byzerllm_core::{Error, ErrorKind, ModelHandle, Result};
use byzerllm_engine::{AdapterStatus, EngineMetrics};
use byzerllm_kernels::ComputePool;
use byzerllm_providers::ProviderMetrics;
use tokio_util::sync::CancellationToken;

use crate::inspect::Inspection;
use crate::metrics::RouteMetrics;
use crate::spec::DeploymentSpec;

/// Turns specs into running models. Tests give [`crate::Runtime::open_with`] one of their own.
pub trait Loader: Send + Sync + 'static {
    /// What the model will need, from the headers of its files.
    ///
    /// # Errors
    /// Whatever is wrong with the files.
    fn need(&self, spec: &DeploymentSpec) -> Result<MemoryNeed>;

    /// Loads the model, on a thread that may block. It looks at [`LoadContext::check`] now and then.
    ///
    /// # Errors
    /// The reason that the deployment then shows.
    fn load(&self, spec: &DeploymentSpec, context: &LoadContext) -> Result<LoadedModel>;

    /// Describes a checkpoint without loading it.
    ///
    /// # Errors
    /// Whatever is wrong with the files.
    fn inspect(&self, path: &Path) -> Result<Inspection>;

    /// Bytes of memory that a model can still have; `None` when nobody knows. Running models were promised `promised`
    /// bytes, of which they may not have touched all.
    fn available_memory(&self, promised: u64) -> Option<u64> {
        crate::memory::unpromised_memory(promised)
    }
}

/// Memory that a model needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryNeed {
    /// Weights, packed for computing.
    pub weight_bytes: u64,
    /// Key/value cache of one full context, the spec's context limit applied.
    pub context_bytes: u64,
    /// Tokens of that context.
    pub context_length: u32,
}

/// What a loader is given beside the spec.
#[derive(Debug, Clone)]
pub struct LoadContext {
    /// The pool that all deployments of the runtime share.
    pub pool: Arc<ComputePool>,
    /// Bytes of key/value cache that the deployment may use.
    pub cache_bytes: u64,
    pub(crate) progress: Arc<AtomicU32>,
    pub(crate) cancelled: CancellationToken,
}

impl LoadContext {
    /// Reports progress, from 0 to 1.
    pub fn progress(&self, fraction: f32) {
        self.progress.store(fraction.clamp(0.0, 1.0).to_bits(), Ordering::Relaxed);
    }

    /// Fails once nobody wants the model any more.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`].
    pub fn check(&self) -> Result<()> {
        if self.cancelled.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "the deployment was removed while it was loading"));
        }
        Ok(())
    }
}

/// A running model.
pub struct LoadedModel {
    /// What it can do.
    pub handle: ModelHandle,
    /// How it is watched and stopped.
    pub worker: Arc<dyn Worker>,
}

/// How a running model is watched and stopped.
#[async_trait]
pub trait Worker: Send + Sync {
    /// Whether the model makes progress.
    ///
    /// # Errors
    /// When it did not within the deadline.
    async fn probe(&self, deadline: Instant) -> Result<()>;

    /// The engine's numbers, also after it ended; `None` for a model without an engine. Must not wait.
    fn metrics(&self) -> Option<EngineMetrics> {
        None
    }

    /// What was counted on the way to a vendor; `None` for a model that is no vendor's. Must not wait.
    fn provider_metrics(&self) -> Option<ProviderMetrics> {
        None
    }

    /// What was counted on the way to targets; `None` for what is no route. Must not wait.
    fn route_metrics(&self) -> Option<RouteMetrics> {
        None
    }

    /// Loads an adapter beside the model, on a thread that may block. `available` are the bytes that it may take, when
    /// somebody knows.
    ///
    /// # Errors
    /// What is wrong with the adapter; [`ErrorKind::Unsupported`] for a model that takes none.
    fn load_adapter(&self, name: &str, path: &Path, _available: Option<u64>) -> Result<()> {
        let message = format!(
            "this model takes no adapters: '{name}' of '{}' is for models that our own engine runs",
            path.display()
        );
        Err(Error::new(ErrorKind::Unsupported, message))
    }

    /// Takes an adapter away: new requests are refused at once. Returns when those that use it have ended and its
    /// memory is free.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    async fn unload_adapter(&self, name: &str) -> Result<()> {
        Err(Error::new(ErrorKind::NotFound, format!("this model has no adapter '{name}'")))
    }

    /// The adapters that requests can use. Must not wait.
    fn adapters(&self) -> Vec<AdapterStatus> {
        Vec::new()
    }

    /// Ends the model's threads and waits for them; what still runs fails. Called on a thread that may block.
    fn shutdown(&self);
}
