//! A loader without checkpoints, for the tests of whatever stands on a runtime.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use byzerllm_core::testing::ScriptedModel;
use byzerllm_core::{Error, ErrorKind, ModelInfo, Result};

use crate::inspect::{Inspection, MemoryReport};
use crate::loader::{LoadContext, LoadedModel, Loader, MemoryNeed, Worker};
use crate::spec::DeploymentSpec;

type Make = dyn Fn(&DeploymentSpec) -> Result<Arc<ScriptedModel>> + Send + Sync;

/// Answers every spec with a [`ScriptedModel`]. The spec's path must exist all the same (the root does).
pub struct ScriptedLoader {
    make: Box<Make>,
    need: Box<dyn Fn(&DeploymentSpec) -> MemoryNeed + Send + Sync>,
    loads: AtomicUsize,
    stops: Arc<AtomicUsize>,
    stuck: Arc<AtomicBool>,
}

impl ScriptedLoader {
    /// Every model answers `text`.
    pub fn answering(text: impl Into<String>) -> Arc<Self> {
        let text = text.into();
        Self::new(move |_| Ok(Arc::new(ScriptedModel::new(text.clone()))))
    }

    /// `make` gives the model of a spec, or the reason why it cannot be loaded. It runs on a thread that may block.
    pub fn new(make: impl Fn(&DeploymentSpec) -> Result<Arc<ScriptedModel>> + Send + Sync + 'static) -> Arc<Self> {
        Self::needing(|_| MemoryNeed::default(), make)
    }

    /// Like [`ScriptedLoader::new`], with models that seem to need memory.
    pub fn needing(
        need: impl Fn(&DeploymentSpec) -> MemoryNeed + Send + Sync + 'static,
        make: impl Fn(&DeploymentSpec) -> Result<Arc<ScriptedModel>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            make: Box::new(make),
            need: Box::new(need),
            loads: AtomicUsize::new(0),
            stops: Arc::default(),
            stuck: Arc::default(),
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
        let worker = ScriptedWorker { stops: Arc::clone(&self.stops), stuck: Arc::clone(&self.stuck) };
        Ok(LoadedModel { handle: model.handle(), worker: Arc::new(worker) })
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
    stops: Arc<AtomicUsize>,
    stuck: Arc<AtomicBool>,
}

#[async_trait]
impl Worker for ScriptedWorker {
    async fn probe(&self, _deadline: Instant) -> Result<()> {
        if self.stuck.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "the model makes no progress"));
        }
        Ok(())
    }

    fn shutdown(&self) {
        self.stops.fetch_add(1, Ordering::SeqCst);
    }
}
