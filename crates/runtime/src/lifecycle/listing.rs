//! Which deployments there are, and who may change the one of a name.

use std::sync::{Arc, PoisonError};

use byzerllm_core::{Error, ErrorKind, Result};

use super::{Lifecycle, lock};
use crate::deployment::Deployment;
use crate::spec::DeploymentSpec;

/// At most so many names are listed in an error.
const LISTED: usize = 20;

impl Lifecycle {
    /// Waits until nobody else deploys under this name.
    pub(crate) async fn name_lock(self: &Arc<Self>, name: &str) -> NameGuard {
        let mutex = {
            let mut names = lock(&self.names);
            let entry = names.entry(name.to_owned()).or_default();
            entry.1 += 1;
            Arc::clone(&entry.0)
        };
        let mut guard = NameGuard { lifecycle: Arc::clone(self), name: name.to_owned(), held: None };
        guard.held = Some(mutex.lock_owned().await);
        guard
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.deployments.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Deployment>> {
        self.deployments.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Deployment>> {
        self.deployments.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(crate) fn find(&self, name: &str) -> Result<Arc<Deployment>> {
        self.get(name).ok_or_else(|| unknown(name, &self.names()))
    }

    pub(super) fn insert(&self, deployment: &Arc<Deployment>) -> Option<Arc<Deployment>> {
        self.deployments
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(deployment.spec.name.clone(), Arc::clone(deployment))
    }

    /// Takes a deployment off the list, unless its name has passed to another.
    pub(super) fn forget(&self, deployment: &Arc<Deployment>) {
        let mut deployments = self.deployments.write().unwrap_or_else(PoisonError::into_inner);
        if deployments.get(&*deployment.name).is_some_and(|listed| Arc::ptr_eq(listed, deployment)) {
            deployments.remove(&*deployment.name);
        }
    }
}

/// Holds a name; the last one to let go clears the table.
pub(crate) struct NameGuard {
    lifecycle: Arc<Lifecycle>,
    name: String,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for NameGuard {
    fn drop(&mut self) {
        self.held = None;
        let mut names = lock(&self.lifecycle.names);
        if let Some(entry) = names.get_mut(&self.name) {
            entry.1 -= 1;
            if entry.1 == 0 {
                names.remove(&self.name);
            }
        }
    }
}

fn unknown(name: &str, names: &[String]) -> Error {
    let shown: String = name.chars().take(DeploymentSpec::MAX_NAME).collect();
    let shown = shown.escape_debug();
    let message = if names.is_empty() {
        format!("there is no deployment '{shown}': none exists yet, deploy one first")
    } else {
        let more = if names.len() > LISTED { ", …" } else { "" };
        let listed = names.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
        format!("there is no deployment '{shown}'; existing ones: {listed}{more}")
    };
    Error::new(ErrorKind::NotFound, message).with_param("model")
}
