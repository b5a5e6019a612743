//! Adapters of deployments: named at deploy, loaded and unloaded while the deployment runs, and asked for as
//! `deployment:adapter`.
//!
//! A deployment's name holds no colon, so the first one of a model's name ends it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use byzerllm_core::{Error, ErrorKind, Result};
use byzerllm_engine::{AdapterStatus, unknown_adapter};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::deployment::{Deployment, Running};
use crate::lifecycle::{Lifecycle, blocking};
use crate::spec::{DeploymentSpec, Source, validate_name, validate_path};

/// An adapter that requests can use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdapterInfo {
    /// Its name; requests ask for the model `deployment:name`.
    pub name: String,
    /// Where it was read from, on the machine that the runtime is on.
    pub path: PathBuf,
    /// The largest rank of its matrices.
    pub rank: u64,
    /// How many matrices of the model it changes.
    pub modules: u64,
    /// Bytes that it takes in memory.
    pub bytes: u64,
    /// Requests that use it.
    pub active: u64,
    /// Requests that have used it, those that do so now included.
    pub requests: u64,
}

impl From<AdapterStatus> for AdapterInfo {
    fn from(status: AdapterStatus) -> Self {
        Self {
            name: status.name,
            path: status.path,
            rank: status.rank as u64,
            modules: status.modules as u64,
            bytes: status.bytes,
            active: status.active as u64,
            requests: status.requests,
        }
    }
}

/// The name of a deployment, and of its adapter where a model's name has one: `deployment:adapter`.
#[must_use]
pub fn split_model(model: &str) -> (&str, Option<&str>) {
    match model.split_once(':') {
        Some((deployment, adapter)) => (deployment, Some(adapter)),
        None => (model, None),
    }
}

/// Checks the adapters of a spec without looking at them.
pub(crate) fn validate(adapters: &BTreeMap<String, PathBuf>) -> Result<()> {
    if adapters.len() > DeploymentSpec::MAX_ADAPTERS {
        let (count, max) = (adapters.len(), DeploymentSpec::MAX_ADAPTERS);
        return Err(wrong(format!("a deployment has {max} adapters at most, not {count}")));
    }
    adapters.iter().try_for_each(|(name, path)| validate_one(name, path))
}

fn validate_one(name: &str, path: &Path) -> Result<()> {
    validate_name(name)
        .map_err(|error| wrong(error.message().replace("a deployment's name", "an adapter's name")))?;
    validate_path(path)
        .map_err(|error| wrong(error.message().replace("the model", &format!("the adapter '{name}'"))))
}

fn wrong(message: String) -> Error {
    Error::invalid("adapters", message)
}

/// The adapter of a name among those that a model has loaded; an error that names the nearest otherwise.
pub(crate) fn find(running: &Running, deployment: &str, adapter: &str) -> Result<AdapterStatus> {
    let loaded = running.model.worker.adapters();
    if let Some(found) = loaded.iter().find(|status| status.name == adapter) {
        return Ok(found.clone());
    }
    Err(unknown_adapter(deployment, adapter, loaded.iter().map(|status| status.name.as_str())))
}

impl Lifecycle {
    /// The adapters that requests of a deployment can use.
    pub(crate) fn adapters(&self, deployment: &str) -> Result<Vec<AdapterInfo>> {
        let running = self.find(deployment)?.running()?;
        Ok(running.model.worker.adapters().into_iter().map(AdapterInfo::from).collect())
    }

    /// Loads an adapter beside a running model, and stores that.
    pub(crate) async fn load_adapter(
        self: Arc<Self>,
        deployment: &str,
        name: &str,
        path: &Path,
    ) -> Result<AdapterInfo> {
        validate_one(name, path)?;
        self.check_open()?;
        self.find(deployment)?;
        let (deployment, name, path) = (deployment.to_owned(), name.to_owned(), path.to_path_buf());
        let this = Arc::clone(&self);
        // In a task of its own: a caller that goes away leaves no half-made adapter.
        self.task(async move { this.load_adapter_now(&deployment, &name, &path).await }).await
    }

    async fn load_adapter_now(
        self: &Arc<Self>,
        deployment: &str,
        name: &str,
        path: &Path,
    ) -> Result<AdapterInfo> {
        let _name = self.name_lock(deployment).await;
        let deployment = self.find(deployment)?;
        let running = deployment.running()?;
        if !matches!(deployment.spec.source(), Source::Local(_)) {
            let message =
                format!("'{}' does not run here: only models of this machine take adapters", deployment.name);
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let most = DeploymentSpec::MAX_ADAPTERS;
        if deployment.adapters().len() >= most {
            return Err(wrong(format!(
                "'{}' has {most} adapters, the most that it may have; unload one",
                deployment.name
            )));
        }
        let loaded = running.model.worker.adapters();
        if loaded.iter().any(|status| status.name == name) {
            let message = format!(
                "'{}' has an adapter '{name}' already; unload it first, or choose another name",
                deployment.name
            );
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let (loader, promised) = (Arc::clone(&self.loader), self.promised());
        let worker = Arc::clone(&running.model.worker);
        let (wanted, from) = (name.to_owned(), path.to_path_buf());
        blocking(move || {
            let available = loader.available_memory(promised);
            worker.load_adapter(&wanted, &from, available)
        })
        .await?;
        let mut adapters = deployment.adapters();
        adapters.insert(name.to_owned(), path.to_path_buf());
        if let Err(error) = self.keep_adapters(&deployment, adapters).await {
            // What is not stored does not run either.
            let _ = running.model.worker.unload_adapter(name).await;
            return Err(error);
        }
        tracing::info!(deployment = %deployment.name, adapter = name, "loaded an adapter");
        find(&running, &deployment.name, name).map(AdapterInfo::from)
    }

    /// Refuses new requests for an adapter at once, lets those that use it finish, and frees its memory.
    pub(crate) async fn unload_adapter(self: Arc<Self>, deployment: &str, name: &str) -> Result<()> {
        self.check_open()?;
        find(&*self.find(deployment)?.running()?, deployment, name)?;
        let (deployment, name) = (deployment.to_owned(), name.to_owned());
        let this = Arc::clone(&self);
        self.task(async move {
            let running = {
                let _name = this.name_lock(&deployment).await;
                let deployment = this.find(&deployment)?;
                let running = deployment.running()?;
                find(&running, &deployment.name, &name)?;
                let mut adapters = deployment.adapters();
                adapters.remove(&name);
                this.keep_adapters(&deployment, adapters).await?;
                running
            };
            running.model.worker.unload_adapter(&name).await?;
            tracing::info!(deployment, adapter = name, "unloaded an adapter");
            Ok(())
        })
        .await
    }

    /// Stores and lists a deployment with other adapters.
    async fn keep_adapters(
        &self,
        deployment: &Arc<Deployment>,
        adapters: BTreeMap<String, PathBuf>,
    ) -> Result<()> {
        let spec = DeploymentSpec { adapters: adapters.clone(), ..deployment.spec.clone() };
        self.store_again(spec, deployment).await?;
        deployment.set_adapters(adapters);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_colon_ends_the_deployment() {
        assert_eq!(split_model("chat"), ("chat", None));
        assert_eq!(split_model("chat:french"), ("chat", Some("french")));
        assert_eq!(split_model("chat:"), ("chat", Some("")));
        assert_eq!(split_model("a:b:c"), ("a", Some("b:c")));
    }

    #[test]
    fn adapters_of_a_spec_are_checked() {
        let check = |name: &str, path: &str| validate(&BTreeMap::from([(name.to_owned(), path.into())]));
        assert!(check("french", "/adapters/french").is_ok());
        for (name, path, word) in [
            ("", "/a", "an adapter's name"),
            ("a:b", "/a", "':'"),
            ("french", "adapters/french", "absolute"),
            ("french", "", "missing"),
        ] {
            let error = check(name, path).unwrap_err();
            assert_eq!(error.param(), Some("adapters"), "{error}");
            assert!(error.message().contains(word), "{error}");
        }
        let many = (0..=DeploymentSpec::MAX_ADAPTERS).map(|place| (format!("a{place}"), PathBuf::from("/a")));
        assert!(validate(&many.collect()).is_err());
    }
}
