//! A loader without checkpoints, for the tests of whatever stands on a runtime.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use byzerllm_core::testing::ScriptedModel;
use byzerllm_core::{Error, ErrorKind, ModelInfo, Result};
use byzerllm_engine::{AdapterStatus, EngineMetrics};

use crate::inspect::{Inspection, MemoryReport};
use crate::loader::{LoadContext, LoadedModel, Loader, MemoryNeed, Worker};
use crate::spec::DeploymentSpec;

type Make = dyn Fn(&DeploymentSpec) -> Result<Arc<ScriptedModel>> + Send + Sync;
type Need = dyn Fn(&DeploymentSpec) -> MemoryNeed + Send + Sync;

/// Answers every spec with a [`ScriptedModel`]. The spec's path must exist all the same (the root does).
pub struct ScriptedLoader {
    make: Box<Make>,
    need: Box<Need>,
    memory: Option<u64>,
    used: Arc<AtomicU64>,
    loads: AtomicUsize,
    stops: Arc<AtomicUsize>,
    stuck: Arc<AtomicBool>,
    metrics: Arc<Mutex<Option<EngineMetrics>>>,
}

impl ScriptedLoader {
    /// Every model answers `text`.
    pub fn answering(text: impl Into<String>) -> Arc<Self> {
        let text = text.into();
        Self::new(move |_| Ok(Arc::new(ScriptedModel::new(text.clone()))))
    }

    /// `make` gives the model of a spec, or the reason why it cannot be loaded. It runs on a thread that may block.
    pub fn new(
        make: impl Fn(&DeploymentSpec) -> Result<Arc<ScriptedModel>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::build(None, Box::new(|_| MemoryNeed::default()), Box::new(make))
    }

    /// Like [`ScriptedLoader::new`], on a machine that has `memory` bytes, of which every model takes its need.
    pub fn with_memory(
        memory: u64,
        need: impl Fn(&DeploymentSpec) -> MemoryNeed + Send + Sync + 'static,
        make: impl Fn(&DeploymentSpec) -> Result<Arc<ScriptedModel>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::build(Some(memory), Box::new(need), Box::new(make))
    }

    fn build(memory: Option<u64>, need: Box<Need>, make: Box<Make>) -> Arc<Self> {
        Arc::new(Self {
            make,
            need,
            memory,
            used: Arc::default(),
            loads: AtomicUsize::new(0),
            stops: Arc::default(),
            stuck: Arc::default(),
            metrics: Arc::default(),
        })
    }

    /// How many loads began.
    #[must_use]
    pub fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }

    /// How many models were stopped.
    #[must_use]
    pub fn stops(&self) -> usize {
        self.stops.load(Ordering::SeqCst)
    }

    /// What every model that is loaded from now on tells of its engine, which none of them has.
    pub fn set_metrics(&self, metrics: EngineMetrics) {
        *self.metrics.lock().unwrap_or_else(PoisonError::into_inner) = Some(metrics);
    }

    /// Lets every probe fail, or succeed again.
    pub fn set_stuck(&self, stuck: bool) {
        self.stuck.store(stuck, Ordering::SeqCst);
    }
}

impl Loader for ScriptedLoader {
    fn need(&self, spec: &DeploymentSpec) -> Result<MemoryNeed> {
        Ok((self.need)(spec))
    }

    fn load(&self, spec: &DeploymentSpec, context: &LoadContext) -> Result<LoadedModel> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        context.check()?;
        let model = (self.make)(spec)?;
        let bytes = (self.need)(spec).weight_bytes + context.cache_bytes;
        self.used.fetch_add(bytes, Ordering::SeqCst);
        let worker = ScriptedWorker {
            bytes,
            used: Arc::clone(&self.used),
            stops: Arc::clone(&self.stops),
            stuck: Arc::clone(&self.stuck),
            metrics: *self.metrics.lock().unwrap_or_else(PoisonError::into_inner),
            adapters: Mutex::default(),
        };
        Ok(LoadedModel { handle: model.handle(), worker: Arc::new(worker) })
    }

    fn available_memory(&self, _promised: u64) -> Option<u64> {
        Some(self.memory?.saturating_sub(self.used.load(Ordering::SeqCst)))
    }

    fn inspect(&self, path: &Path) -> Result<Inspection> {
        Ok(Inspection {
            path: path.to_path_buf(),
            format: "scripted".to_owned(),
            info: ModelInfo { architectures: vec!["Scripted".to_owned()], ..ModelInfo::default() },
            parameters: 0,
            types: std::collections::BTreeMap::new(),
            tensors: Vec::new(),
            chat_template: None,
            memory: MemoryReport {
                weight_bytes: 0,
                context_bytes: 0,
                cache_bytes: 0,
                available_bytes: None,
                fits: true,
            },
            effective: Vec::new(),
            effective_legacy: Vec::new(),
        })
    }
}

struct ScriptedWorker {
    bytes: u64,
    used: Arc<AtomicU64>,
    stops: Arc<AtomicUsize>,
    stuck: Arc<AtomicBool>,
    metrics: Option<EngineMetrics>,
    /// Names without weights.
    adapters: Mutex<Vec<AdapterStatus>>,
}

#[async_trait]
impl Worker for ScriptedWorker {
    async fn probe(&self, _deadline: Instant) -> Result<()> {
        if self.stuck.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "the model makes no progress"));
        }
        Ok(())
    }

    fn metrics(&self) -> Option<EngineMetrics> {
        self.metrics
    }

    fn load_adapter(&self, name: &str, path: &Path, _available: Option<u64>) -> Result<()> {
        let mut adapters = self.adapters.lock().unwrap_or_else(PoisonError::into_inner);
        let id = adapters.len() as u32;
        let (name, path) = (name.to_owned(), path.to_path_buf());
        adapters.push(AdapterStatus {
            name,
            path,
            rank: 1,
            modules: 1,
            bytes: 0,
            active: 0,
            requests: 0,
            id,
        });
        Ok(())
    }

    async fn unload_adapter(&self, name: &str) -> Result<()> {
        let mut adapters = self.adapters.lock().unwrap_or_else(PoisonError::into_inner);
        adapters.retain(|adapter| adapter.name != name);
        Ok(())
    }

    fn adapters(&self) -> Vec<AdapterStatus> {
        self.adapters.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn shutdown(&self) {
        self.stops.fetch_add(1, Ordering::SeqCst);
        self.used.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}
