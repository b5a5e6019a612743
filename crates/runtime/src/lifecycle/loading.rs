//! From a description to a running model: routes and vendors at once, checkpoints one after another.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use byzerllm_core::{Error, ErrorKind, Result};

use super::{Lifecycle, REPLACED_DRAIN, blocking};
use crate::deployment::{Deployment, Running};
use crate::loader::{LoadContext, MemoryNeed};
use crate::memory;
use crate::provider;
use crate::routing::{self, Deployments};
use crate::spec::{Source, validate_path};

/// The path of a model that is there.
pub(crate) fn check_path(path: &Path) -> Result<()> {
    validate_path(path)?;
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "'{}' does not exist on the machine that the server runs on; paths are those of the server",
                    path.display()
                ),
            )
            .with_param("model")
            .with_source(error))
        }
        Err(error) => Err(Error::invalid("model", format!("cannot read '{}': {error}", path.display()))
            .with_source(error)),
    }
}

impl Lifecycle {
    /// Loads beside the one that is replaced, or in its place when memory is too small for both. In the latter case
    /// a failed load brings the old one back.
    pub(super) async fn load_beside(
        self: &Arc<Self>,
        fresh: &Arc<Deployment>,
        old: Option<&Arc<Deployment>>,
    ) -> Result<Running> {
        let error = match self.load(fresh).await {
            Err(error) if error.kind() == ErrorKind::TooLarge => error,
            result => return result,
        };
        let Some(old) = old else { return Err(error) };
        let Ok(running) = old.running() else { return Err(error) };
        let reserved = running.reserved;
        drop(running);
        let need = self.need(fresh).await?;
        let freed =
            self.loader.available_memory(self.promised()).map(|available| available.saturating_add(reserved));
        if memory::plan(&fresh.spec.limits, &need, freed).is_err() {
            return Err(error);
        }
        tracing::info!(deployment = %old.name, "unloading the old model first: memory is too small for both");
        self.insert(fresh);
        self.retire(old, REPLACED_DRAIN).await;
        self.wait_for_room(fresh, &need).await;
        let error = match self.load(fresh).await {
            Ok(running) => return Ok(running),
            Err(error) => error,
        };
        let _commit = self.commit.lock().await;
        if self.check_wanted(fresh).is_ok() {
            let numbers = Arc::clone(&old.numbers);
            let again =
                Deployment::loading(old.status().spec, old.created, numbers, self.closing.child_token());
            self.insert(&again);
            self.restore(again);
        }
        Err(error)
    }

    /// The system may count freed memory a little later.
    async fn wait_for_room(&self, fresh: &Deployment, need: &MemoryNeed) {
        for _ in 0..20 {
            if memory::plan(&fresh.spec.limits, need, self.loader.available_memory(self.promised())).is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn need(&self, deployment: &Arc<Deployment>) -> Result<MemoryNeed> {
        let (loader, spec) = (Arc::clone(&self.loader), deployment.spec.clone());
        blocking(move || loader.need(&spec)).await
    }

    /// Brings up what answers for a deployment.
    pub(super) async fn load(self: &Arc<Self>, deployment: &Arc<Deployment>) -> Result<Running> {
        match deployment.spec.source() {
            Source::Local(_) => self.load_checkpoint(deployment).await,
            Source::Provider(provider) => {
                self.check_wanted(deployment)?;
                let (provider, spec, sealer) =
                    (provider.clone(), deployment.spec.clone(), self.sealer.clone());
                blocking(move || {
                    let model = provider::load(&spec.name, &provider, sealer.as_ref())?;
                    Running::new(&spec, model, 0)
                })
                .await
            }
            Source::Route(route) => {
                self.check_wanted(deployment)?;
                let targets = Arc::new(Deployments::of(self));
                Running::new(&deployment.spec, routing::open(&deployment.name, route, targets), 0)
            }
        }
    }

    /// Loads a checkpoint, alone, after a look at the memory.
    async fn load_checkpoint(&self, deployment: &Arc<Deployment>) -> Result<Running> {
        let _alone = self.loading.lock().await;
        self.check_wanted(deployment)?;
        let (loader, spec, pool) =
            (Arc::clone(&self.loader), deployment.spec.clone(), Arc::clone(&self.pool));
        let (progress, cancelled) = (Arc::clone(&deployment.progress), deployment.unwanted.clone());
        let promised = self.promised();
        blocking(move || {
            check_path(&spec.model)?;
            let need = loader.need(&spec)?;
            let cache_bytes = memory::plan(&spec.limits, &need, loader.available_memory(promised))?;
            let context = LoadContext { pool, cache_bytes, progress, cancelled };
            let model = loader.load(&spec, &context)?;
            context.progress(1.0);
            Running::new(&spec, model, need.weight_bytes.saturating_add(cache_bytes))
        })
        .await
    }

    /// Memory that running models were promised.
    pub(crate) fn promised(&self) -> u64 {
        self.all()
            .iter()
            .filter_map(|deployment| deployment.running().ok())
            .map(|running| running.reserved.saturating_add(running.added_adapters()))
            .sum()
    }
}
