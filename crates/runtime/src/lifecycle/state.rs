//! What of the deployments is on the disk.

use std::path::Path;
use std::sync::Arc;

use byzerllm_core::{Error, ErrorKind, Result};
use byzerllm_kernels::{ComputePool, PoolOptions};

use super::{Lifecycle, blocking, lock};
use crate::deployment::Deployment;
use crate::keys::Keys;
use crate::ledger::Ledger;
use crate::lock::StateLock;
use crate::provider;
use crate::runtime::RuntimeOptions;
use crate::secrets::Sealer;
use crate::spec::DeploymentSpec;
use crate::store::{Store, Stored};

/// The store and the lock that makes it ours. Fields drop in this order.
pub(crate) struct State {
    pub(crate) store: Store,
    _lock: StateLock,
}

impl State {
    /// Takes a state directory and opens its store.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let lock = StateLock::take(directory)?;
        Ok(Self { store: Store::open(directory)?, _lock: lock })
    }
}

impl Lifecycle {
    /// Works on the store, when this runtime keeps its deployments.
    pub(super) async fn with_store(
        &self,
        work: impl FnOnce(&Store) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let Some(state) = lock(&self.state).clone() else { return Ok(()) };
        blocking(move || work(&state.store)).await
    }

    /// Stores a changed spec of a deployment that is still the listed one.
    pub(crate) async fn store_again(&self, spec: DeploymentSpec, of: &Arc<Deployment>) -> Result<()> {
        let _commit = self.commit.lock().await;
        self.check_wanted(of)?;
        let (created, sealer) = (of.created, self.sealer.clone());
        self.with_store(move |store| keep(store, spec, created, sealer.as_ref())).await
    }
}

/// Stores a deployment, its literal secrets sealed.
pub(super) fn keep(
    store: &Store,
    mut spec: DeploymentSpec,
    created: u64,
    sealer: Option<&Sealer>,
) -> Result<()> {
    if let (Some(provider), Some(sealer)) = (&mut spec.provider, sealer) {
        let others_are_sealed = || {
            let sealed = |stored: &Stored| {
                stored.name != spec.name
                    && stored.spec.as_ref().is_ok_and(|spec| {
                        spec.provider.as_ref().is_some_and(provider::ProviderSpec::has_sealed)
                    })
            };
            Ok(store.all()?.iter().any(sealed))
        };
        *provider = provider.sealed(&spec.name, sealer, others_are_sealed)?;
    }
    Ok(store.put(&spec, created)?)
}

/// What [`Lifecycle::open`] starts from.
pub(super) struct Opened {
    pub(super) pool: ComputePool,
    pub(super) state: Option<Arc<State>>,
    pub(super) keys: Keys,
    pub(super) ledger: Arc<Ledger>,
    pub(super) stored: Vec<Stored>,
}

pub(super) fn open_state(options: &RuntimeOptions) -> Result<Opened> {
    let state = options.state.as_deref().map(State::open).transpose()?.map(Arc::new);
    let stored = match &state {
        None => Vec::new(),
        Some(state) => state.store.all()?,
    };
    let keys = Keys::over(state.clone())?;
    let ledger = Arc::new(Ledger::of_runtime(options.state.as_deref())?);
    let pool_options = PoolOptions { threads: options.threads, pin: options.pin, ..PoolOptions::default() };
    let pool = ComputePool::new(pool_options).map_err(|error| {
        Error::new(ErrorKind::Unavailable, format!("the system refuses threads to compute with: {error}"))
            .with_source(error)
    })?;
    Ok(Opened { pool, state, keys, ledger, stored })
}
