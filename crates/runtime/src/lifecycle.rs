//! How deployments come and go.
//!
//! Loads run one after another, so that each sees the memory that the ones before it took. What is stored and what
//! is listed change together, under `commit`. Every task is tracked and ends with [`Lifecycle::shutdown`].

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use byzerllm_core::{Error, ErrorKind, Result};
use byzerllm_kernels::{ComputePool, PoolOptions};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::deployment::{Deployment, DeploymentStatus, Running};
use crate::keys::Keys;
use crate::ledger::Ledger;
use crate::loader::{LoadContext, Loader, MemoryNeed};
use crate::lock::StateLock;
use crate::memory;
use crate::provider;
use crate::routing::{self, Deployments};
use crate::runtime::RuntimeOptions;
use crate::secrets::Sealer;
use crate::spec::{DeploymentSpec, Source, validate_path};
use crate::store::{Store, Stored};

/// How long the requests of a deployment that was replaced may go on.
const REPLACED_DRAIN: Duration = Duration::from_secs(30);
/// How long requests that were told to end may take to do so.
const STOP_GRACE: Duration = Duration::from_millis(500);
/// How long a load that was told to end may take to do so.
const LOAD_GRACE: Duration = Duration::from_secs(10);

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

/// A name's lock and the number of those who hold or want it.
type NameLock = (Arc<tokio::sync::Mutex<()>>, usize);

/// All deployments and what changes them.
pub(crate) struct Lifecycle {
    pub(crate) loader: Arc<dyn Loader>,
    pub(crate) keys: Keys,
    pub(crate) ledger: Arc<Ledger>,
    pool: Arc<ComputePool>,
    deployments: RwLock<BTreeMap<String, Arc<Deployment>>>,
    /// Taken out by shutdown.
    state: Mutex<Option<Arc<State>>>,
    /// Seals what is stored; nothing for an embedded runtime, which stores nothing.
    sealer: Option<Sealer>,
    /// Held while store and list change together.
    commit: tokio::sync::Mutex<()>,
    /// Held by the one load that runs.
    loading: tokio::sync::Mutex<()>,
    /// One lock per name that is being deployed.
    names: Mutex<HashMap<String, NameLock>>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs work that may block on a thread for such work.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal("a background task failed; please report this").with_source(error)),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

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
    pub(crate) async fn open(options: RuntimeOptions, loader: Arc<dyn Loader>) -> Result<Arc<Self>> {
        let sealer = options.state.as_deref().map(|state| Sealer::new(options.master_key.as_deref(), state));
        let Opened { pool, state, keys, ledger, stored } = blocking(move || open_state(&options)).await?;
        let lifecycle = Arc::new(Self {
            loader,
            keys,
            ledger,
            pool: Arc::new(pool),
            deployments: RwLock::default(),
            state: Mutex::new(state),
            sealer,
            commit: tokio::sync::Mutex::default(),
            loading: tokio::sync::Mutex::default(),
            names: Mutex::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        });
        for stored in stored {
            lifecycle.restore_stored(stored);
        }
        Ok(lifecycle)
    }

    fn restore_stored(self: &Arc<Self>, stored: Stored) {
        let (spec, unreadable) = match stored.spec {
            Ok(spec) => (spec, None),
            Err(reason) => (DeploymentSpec::new(&stored.name, PathBuf::new()), Some(reason)),
        };
        let deployment =
            Deployment::loading(spec, stored.created, Arc::default(), self.closing.child_token());
        self.insert(&deployment);
        match unreadable {
            None => self.restore(deployment),
            Some(reason) => deployment.set_failed(Error::new(
                ErrorKind::Unsupported,
                format!("its stored description cannot be read ({reason}); deploy it again"),
            )),
        }
    }

    /// Loads a listed deployment in the background; a failure is shown in its state.
    fn restore(self: &Arc<Self>, deployment: Arc<Deployment>) {
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let _name = this.name_lock(&deployment.name).await;
            match this.load(&deployment).await {
                Ok(running) => deployment.set_ready(running),
                Err(error) => {
                    tracing::warn!(deployment = %deployment.name, %error, "a stored deployment failed to load");
                    deployment.set_failed(error);
                }
            }
            // An undeploy or shutdown that came in between must not leave the model running.
            if deployment.unwanted.is_cancelled() {
                this.retire(&deployment, Duration::ZERO).await;
            }
        });
    }

    pub(crate) async fn deploy(self: Arc<Self>, mut spec: DeploymentSpec) -> Result<DeploymentStatus> {
        spec.validate()?;
        if let Some(provider) = &mut spec.provider {
            *provider = provider.normalized()?;
            for parameter in provider.literals() {
                tracing::warn!(
                    deployment = %spec.name,
                    "saas.{parameter} was given literally; env:NAME or file:PATH keeps it out of command lines and of \
                     the database"
                );
            }
        }
        self.check_open()?;
        let this = Arc::clone(&self);
        // In a task of its own: a caller that goes away leaves no half-made deployment.
        match self.tasks.spawn(async move { this.deploy_now(spec).await }).await {
            Ok(result) => result,
            Err(error) => {
                Err(Error::internal("the deployment's task failed; please report this").with_source(error))
            }
        }
    }

    async fn deploy_now(self: &Arc<Self>, spec: DeploymentSpec) -> Result<DeploymentStatus> {
        if let Source::Local(path) = spec.source() {
            let paths: Vec<PathBuf> =
                std::iter::once(path.to_path_buf()).chain(spec.adapters.values().cloned()).collect();
            blocking(move || paths.iter().try_for_each(|path| check_path(path))).await?;
        }
        self.check_route(&spec)?;
        let _name = self.name_lock(&spec.name).await;
        let old = self.get(&spec.name);
        let numbers = old.as_ref().map(|old| Arc::clone(&old.numbers)).unwrap_or_default();
        let fresh = Deployment::loading(spec, now(), numbers, self.closing.child_token());
        // While an older one answers, it is the one to show. An undeploy ends the new one too.
        match &old {
            Some(old) if old.is_ready() => old.set_successor(&fresh.unwanted),
            _ => drop(self.insert(&fresh)),
        }
        let result = match self.load_beside(&fresh, old.as_ref()).await {
            Ok(running) => self.install(&fresh, running).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(replaced) => {
                if let Some(replaced) = replaced {
                    let this = Arc::clone(self);
                    self.tasks.spawn(async move { this.retire(&replaced, REPLACED_DRAIN).await });
                }
                tracing::info!(deployment = %fresh.name, "ready");
                Ok(fresh.status())
            }
            Err(error) => {
                self.put_back(&fresh, old).await;
                Err(error)
            }
        }
    }

    /// Stores and lists a loaded deployment; the one that it replaces.
    async fn install(&self, fresh: &Arc<Deployment>, running: Running) -> Result<Option<Arc<Deployment>>> {
        let _commit = self.commit.lock().await;
        // Again: what the targets are may have changed meanwhile.
        let result = match self.check_wanted(fresh).and_then(|()| self.check_route(&fresh.spec)) {
            Ok(()) => {
                let (spec, created, sealer) = (fresh.spec.clone(), fresh.created, self.sealer.clone());
                self.with_store(move |store| keep(store, spec, created, sealer.as_ref())).await
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                fresh.set_ready(running);
                Ok(self.insert(fresh).filter(|old| !Arc::ptr_eq(old, fresh)))
            }
            Err(error) => {
                Arc::new(running).stop().await;
                Err(error)
            }
        }
    }

    /// After a failed load: the list as it was, unless someone else changed it.
    async fn put_back(&self, fresh: &Arc<Deployment>, old: Option<Arc<Deployment>>) {
        let _commit = self.commit.lock().await;
        let mut deployments = self.deployments.write().unwrap_or_else(PoisonError::into_inner);
        let listed = deployments.get(&*fresh.name).is_some_and(|listed| Arc::ptr_eq(listed, fresh));
        if listed {
            match old.filter(|old| !old.unwanted.is_cancelled()) {
                Some(old) => deployments.insert(fresh.spec.name.clone(), old),
                None => deployments.remove(&*fresh.name),
            };
        }
    }

    /// Loads beside the one that is replaced, or in its place when memory is too small for both. In the latter case
    /// a failed load brings the old one back.
    async fn load_beside(
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
    async fn load(self: &Arc<Self>, deployment: &Arc<Deployment>) -> Result<Running> {
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

    pub(crate) async fn undeploy(self: Arc<Self>, name: &str, drain: Duration) -> Result<()> {
        self.check_open()?;
        let deployment = self.find(name)?;
        let this = Arc::clone(&self);
        let task = self.tasks.spawn(async move {
            let commit = this.commit.lock().await;
            // Between the look and the lock it may have been replaced or removed.
            let deployment = this.find(&deployment.name)?;
            let name = deployment.spec.name.clone();
            this.with_store(move |store| Ok(store.remove(&name)?)).await?;
            deployment.cancel_successor();
            deployment.begin_drain();
            drop(commit);
            this.retire(&deployment, drain).await;
            this.forget(&deployment);
            Ok(())
        });
        match task.await {
            Ok(result) => result,
            Err(error) => {
                Err(Error::internal("the removal's task failed; please report this").with_source(error))
            }
        }
    }

    /// Lets the requests of a deployment finish, ends those that outlive the limit, and stops its model.
    async fn retire(&self, deployment: &Arc<Deployment>, drain: Duration) {
        let Some(running) = deployment.begin_drain() else {
            if let Some(running) = deployment.draining() {
                // Another call began; it or this one is done first, stopping twice is harmless.
                self.finish(deployment, running, drain).await;
            }
            return;
        };
        self.finish(deployment, running, drain).await;
    }

    async fn finish(&self, deployment: &Arc<Deployment>, running: Arc<Running>, drain: Duration) {
        if tokio::time::timeout(drain, deployment.idle()).await.is_err() {
            tracing::info!(deployment = %deployment.name, "ending the requests that outlive the drain limit");
            deployment.stop.cancel();
            // A stream that nobody reads ends when its reader drops it; its engine is stopped all the same.
            let _ = tokio::time::timeout(STOP_GRACE, deployment.idle()).await;
        }
        deployment.set_gone();
        let worker = Arc::clone(&running.model.worker);
        running.stop().await;
        deployment.numbers.engine_ended(&worker);
    }

    pub(crate) async fn shutdown(&self, drain: Duration) {
        self.closing.cancel();
        let all = self.all();
        futures::future::join_all(all.iter().map(|deployment| self.retire(deployment, drain))).await;
        self.tasks.close();
        if tokio::time::timeout(LOAD_GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!("a model was still loading at shutdown");
        }
        let (state, keys, ledger) = (lock(&self.state).take(), self.keys.clone(), Arc::clone(&self.ledger));
        let closed = blocking(move || {
            keys.close();
            ledger.close();
            drop(state);
            Ok(())
        });
        if let Err(error) = closed.await {
            tracing::warn!(%error, "the state directory was not closed properly");
        }
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closing.is_cancelled() {
            return Err(Error::new(ErrorKind::Unavailable, "the server is shutting down"));
        }
        Ok(())
    }

    /// A route leads to deployments that exist, and never back to itself.
    fn check_route(&self, spec: &DeploymentSpec) -> Result<()> {
        let Source::Route(route) = spec.source() else { return Ok(()) };
        routing::check(&spec.name, route, &self.names(), &|name| {
            let deployment = self.get(name)?;
            Some(match deployment.spec.source() {
                Source::Route(route) => routing::Node::route(route),
                Source::Local(_) | Source::Provider(_) => routing::Node::Model,
            })
        })
    }

    fn check_wanted(&self, deployment: &Deployment) -> Result<()> {
        self.check_open()?;
        if deployment.unwanted.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "the deployment was removed while it was loading"));
        }
        Ok(())
    }

    /// Works on the store, when this runtime keeps its deployments.
    async fn with_store(&self, work: impl FnOnce(&Store) -> Result<()> + Send + 'static) -> Result<()> {
        let Some(state) = lock(&self.state).clone() else { return Ok(()) };
        blocking(move || work(&state.store)).await
    }

    /// Runs a change that goes on when its caller leaves.
    pub(crate) async fn task<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.tasks.spawn(work).await {
            Ok(result) => result,
            Err(error) => {
                Err(Error::internal("a background task failed; please report this").with_source(error))
            }
        }
    }

    /// Stores a changed spec of a deployment that is still the listed one.
    pub(crate) async fn store_again(&self, spec: DeploymentSpec, of: &Arc<Deployment>) -> Result<()> {
        let _commit = self.commit.lock().await;
        self.check_wanted(of)?;
        let (created, sealer) = (of.created, self.sealer.clone());
        self.with_store(move |store| keep(store, spec, created, sealer.as_ref())).await
    }

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

    /// Memory that running models were promised.
    pub(crate) fn promised(&self) -> u64 {
        self.all()
            .iter()
            .filter_map(|deployment| deployment.running().ok())
            .map(|running| running.reserved.saturating_add(running.added_adapters()))
            .sum()
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

    fn insert(&self, deployment: &Arc<Deployment>) -> Option<Arc<Deployment>> {
        self.deployments
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(deployment.spec.name.clone(), Arc::clone(deployment))
    }

    /// Takes a deployment off the list, unless its name has passed to another.
    fn forget(&self, deployment: &Arc<Deployment>) {
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

/// Stores a deployment, its literal secrets sealed.
fn keep(store: &Store, mut spec: DeploymentSpec, created: u64, sealer: Option<&Sealer>) -> Result<()> {
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
struct Opened {
    pool: ComputePool,
    state: Option<Arc<State>>,
    keys: Keys,
    ledger: Arc<Ledger>,
    stored: Vec<Stored>,
}

fn open_state(options: &RuntimeOptions) -> Result<Opened> {
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

/// At most so many names are listed in an error.
const LISTED: usize = 20;

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
