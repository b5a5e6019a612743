//! How deployments come and go.
//!
//! Loads run one after another, so that each sees the memory that the ones before it took. What is stored and what
//! is listed change together, under `commit`. Every task is tracked and ends with [`Lifecycle::shutdown`].

mod listing;
mod loading;
mod state;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use byzerllm_core::{Error, ErrorKind, Result};
use byzerllm_kernels::ComputePool;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::deployment::{Deployment, DeploymentStatus, Running};
use crate::keys::Keys;
use crate::ledger::Ledger;
use crate::loader::Loader;
use crate::routing;
use crate::runtime::RuntimeOptions;
use crate::secrets::Sealer;
use crate::spec::{DeploymentSpec, Source};
use crate::store::Stored;
pub(crate) use loading::check_path;
pub(crate) use state::State;
use state::{Opened, keep, open_state};

/// How long the requests of a deployment that was replaced may go on.
const REPLACED_DRAIN: Duration = Duration::from_secs(30);
/// How long requests that were told to end may take to do so.
const STOP_GRACE: Duration = Duration::from_millis(500);
/// How long a load that was told to end may take to do so.
const LOAD_GRACE: Duration = Duration::from_secs(10);

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
}
